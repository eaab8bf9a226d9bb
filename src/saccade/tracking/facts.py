"""What trackers are told of a run, read from its folder: plain names, numbers and files."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.records import EpochRow
from saccade.run_folder import RunFolder

PARTS = ("train", "validation", "test")
FOLDS = "folds"  # held out in a cross-validation
ENDS = ("value", "low", "high")  # of an interval


@dataclass(frozen=True, slots=True)
class RunFacts:
    """`key` names a run wherever its folder lies; `recipe` key -> value; `numbers` name -> value."""

    name: str
    key: str
    recipe: Mapping[str, str]
    numbers: Mapping[str, float]
    files: tuple[Path, ...]


def facts_of(folder: Path) -> RunFacts:
    """Of a run that has begun: its recipe, and the metrics and files that are there already."""
    run = RunFolder(folder)
    parts = (*PARTS, FOLDS)
    written = (run.recipe, run.onnx, run.certificate(), run.report, run.history, *map(run.metrics, parts))
    numbers = {
        f"{part}/{name}": value
        for part in parts
        if run.has(run.metrics(part))
        for name, value in figures(run.read_metrics(part))
    }
    recipe = {key: str(value) for key, value in run.read_recipe().flat().items()}
    return RunFacts(name_of(folder), _key(run), recipe, numbers, tuple(filter(run.has, written)))


def name_of(folder: Path) -> str:
    """As the run's folder; the first fold of RUN is RUN-fold-1."""
    own, whole = folder.resolve(), whole_of(folder)
    return own.name if own == whole else f"{whole.name}-fold-{own.name}"


def whole_of(folder: Path) -> Path:
    """The folder of the cross-validation that the run in `folder` is a fold of; else its own."""
    own = folder.resolve()
    above = own.parent.parent
    return above if own.parent.name == FOLDS and RunFolder(above).recipe.is_file() else own


def _key(run: RunFolder) -> str:
    """Recipe, data, and when the run began: recipe.toml is written once, and moving keeps its time."""
    began = str(run.recipe.stat().st_mtime_ns).encode()
    return hashlib.sha256(run.recipe.read_bytes() + run.dataset.read_bytes() + began).hexdigest()[:16]


def figures(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Single numbers of a metrics file: `accuracy`, `accuracy_low`, `accuracy_high`, `macro_f1`, ...

    >>> dict(figures({"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0}, "ece": 0.1, "images": 50}))
    {'accuracy': 0.9, 'accuracy_low': 0.8, 'accuracy_high': 1.0, 'ece': 0.1, 'images': 50.0}
    """
    for name, value in metrics.items():
        if isinstance(value, Mapping) and set(ENDS) <= value.keys():
            for end in ENDS:
                yield from figures({name if end == "value" else f"{name}_{end}": value[end]})
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)


def epoch_figures(row: EpochRow) -> dict[str, float]:
    """Numbers of an epoch as trackers group them: `train/loss`, `validation/accuracy`, `lr`, `seconds`."""
    numbers = dict(figures(dataclasses.asdict(row)))
    numbers.pop("epoch")
    return {_grouped(name): value for name, value in numbers.items()}


def _grouped(name: str) -> str:
    part, _, what = name.partition("_")
    return f"{part}/{what}" if part in PARTS and what else name
