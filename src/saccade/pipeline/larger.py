"""Evaluation at a larger size than training's, where validation and the latency limit allow it.

Crops of random size make objects look larger in training than in evaluation; a larger evaluation mends that.
Touvron et al. 2019, "Fixing the train-test resolution discrepancy" (FixRes), here without its fine-tuning.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.building import one_size_only
from saccade.bundle import Bundle
from saccade.export.bench import median_latencies
from saccade.models import BuiltModel
from saccade.pipeline.batches import ValidationBatches
from saccade.pipeline.work import Work
from saccade.plan import Plan
from saccade.preprocess import Preprocess
from saccade.recipe import Recipe
from saccade.runtime import Runtime
from saccade.training import predict_logits
from saccade.training.monitors import accuracy, calibrated_losses

GROWTH = (1.15, 1.3)  # times the side of training
STEP, SMALL_STEP, SMALL_SIDE = 32, 8, 128  # networks halve their input five times; small ones thrice
CHANCE = 1.645  # standard errors: one chance in twenty, one-sided
ROUNDING = 1e-4  # of log loss: the same answers with another scale differ by less
TINY = 1e-9  # spread of logits that are all the same

Logits = tuple[NDArray[np.float32], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Tried:
    """Calibrated loss and accuracy of validation at one side; `gain` of loss and its standard error in pairs.

    Each side has the temperature that fits it best: answers that are only less sure are no gain.
    """

    size: int
    loss: float
    accuracy: float
    gain: float = 0.0
    error: float = 0.0
    latency_ms: float = math.nan

    @property
    def better(self) -> bool:
        """Whether the loss fell by more than chance."""
        return self.gain > max(CHANCE * self.error, ROUNDING)

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if not math.isnan(value)}


@dataclass(frozen=True, slots=True)
class EvaluationSize:
    """The network with the size it is evaluated and exported at, its answers there, and what was tried."""

    network: BuiltModel
    answers: Callable[[], Logits]
    facts: dict[str, Any]
    note: str = ""


def choose_size(
    work: Work, network: BuiltModel, plan: Plan, answers: Callable[[], Logits], runtime: Runtime
) -> EvaluationSize:
    """Evaluate validation at larger sizes, and keep one where the recipe asks for it and it is better.

    `answers` gives logits and labels at the size of training. A size that is given is taken as it is.
    """
    wanted, trained = work.recipe.evaluate.size, network.preprocess.size
    sizes = larger_sizes(trained) if wanted == "auto" else () if wanted == "same" else (wanted,)
    if not sizes or sizes == (trained,):
        return EvaluationSize(network, answers, {})
    if why := one_size_only(network, sizes):
        return EvaluationSize(network, answers, {}, f"evaluation at a larger size was not tried: {why}")
    at_trained = answers()
    found = {size: _answers_at(work, network, plan, size, runtime) for size in sizes}
    rows = [compared(size, found[size], at_trained) for size in sizes]
    if limit := work.recipe.model.max_latency_ms:
        rows = _timed(rows, network, work)
        rows = [row for row in rows if row.latency_ms <= limit] if wanted == "auto" else rows
    better = [row for row in rows if row.better or wanted != "auto"]
    usual = compared(trained, at_trained, at_trained)
    facts = {"trained": usual.as_json(), "tried": [row.as_json() for row in rows]}
    if not better:
        return EvaluationSize(network, lambda: at_trained, facts, _not_better(rows, usual, limit))
    best = min(better, key=lambda row: row.loss)
    larger = replace(network, preprocess=_sized(network.preprocess, best.size))
    return EvaluationSize(larger, lambda: found[best.size], {**facts, "size": best.size}, _taken(best, usual))


def validations_at(recipe: Recipe, side: int) -> float:
    """What `choose_size` will take, in validations at the side of training; time goes with the pixels."""
    wanted = recipe.evaluate.size
    sizes = larger_sizes(side) if wanted == "auto" else () if wanted == "same" else (wanted,)
    tried = [size for size in sizes if size != side]
    return bool(tried) + sum((size / side) ** 2 for size in tried)


def larger_sizes(side: int) -> tuple[int, ...]:
    """The next one or two usual sizes, about 1.15 and 1.3 times the side.

    >>> larger_sizes(224), larger_sizes(32)
    ((256, 288), (40,))
    """
    step = STEP if side >= SMALL_SIDE else SMALL_STEP
    rounded = dict.fromkeys(max(side + step, round(side * growth / step) * step) for growth in GROWTH)
    return tuple(size for size in rounded if size <= 1.4 * side)


def _sized(preprocess: Preprocess, size: int) -> Preprocess:
    return replace(preprocess, size=size)


def _answers_at(work: Work, network: BuiltModel, plan: Plan, size: int, runtime: Runtime) -> Logits:
    inputs = replace(plan.inputs, preprocess=_sized(network.preprocess, size), cache_images=False)
    batches = ValidationBatches(work.dataset, replace(plan, input_plan=inputs))
    with work.terminal.progress(f"validation at {size} pixels") as progress:
        images = len(work.dataset.used("validation"))
        return predict_logits(network.module, batches, runtime, progress=progress, images=images)[:2]


def compared(size: int, found: Logits, usual: Logits) -> Tried:
    """Answers at one size beside those at the usual size, image by image."""
    (logits, labels), (others, _) = found, usual
    losses = _losses(logits, labels)
    gains = _losses(others, labels) - losses
    error = float(gains.std(ddof=1)) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    return Tried(size, float(losses.mean()), accuracy(logits, labels), float(gains.mean()), error)


def _losses(logits: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float64]:
    """(images,) calibrated; the scale of the logits has no part in it, even at a bound of temperatures."""
    return calibrated_losses(logits / max(float(logits.std()), TINY), labels, spread=math.inf)


def _timed(rows: list[Tried], network: BuiltModel, work: Work) -> list[Tried]:
    """With the latency of one photo on one core, preprocessing included, of the exported file."""
    from saccade.export.onnx import write_onnx

    with tempfile.TemporaryDirectory(prefix="saccade-") as folder:
        files = {}
        for row in rows:
            files[str(row.size)] = Path(folder) / f"{row.size}.onnx"
            preprocess = _sized(network.preprocess, row.size)
            bundle = Bundle(network.module, work.dataset.classes, preprocess, network.architecture)
            write_onnx(bundle, files[str(row.size)])
        latencies = median_latencies(files)
    return [replace(row, latency_ms=ms) for row, ms in zip(rows, latencies, strict=True)]


def _taken(row: Tried, usual: Tried) -> str:
    return (
        f"evaluated and exported at {row.size} pixels instead of {usual.size}: calibrated validation loss "
        f"{usual.loss:.4f} to {row.loss:.4f}, accuracy {usual.accuracy:.1%} to {row.accuracy:.1%}"
    )


def _not_better(rows: list[Tried], usual: Tried, limit: float) -> str:
    if not rows:
        return f"evaluation stays at {usual.size} pixels: no larger size is within --max-latency-ms {limit:g}"
    tried = ", ".join(f"{row.size}: {row.loss:.4f}" for row in rows)
    return (
        f"evaluation stays at {usual.size} pixels: the calibrated validation loss {usual.loss:.4f} is not "
        f"higher by more than chance than at larger sizes ({tried})"
    )
