"""Runs to be compared: their predictions of one part, what belongs together, and what each costs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saccade.audit.decisions import decided_in
from saccade.errors import RunError, SaccadeError
from saccade.images.decoder import DEFAULT_LIMITS, CheckedReader, Limits
from saccade.images.thumbnails import ReadImage
from saccade.pipeline.division import FOLDS
from saccade.pipeline.judge import JUDGED_PARTS
from saccade.pipeline.prepare import list_again
from saccade.pipeline.together import together_in_run
from saccade.records import Predictions
from saccade.report.facts import JUDGED_FIRST
from saccade.run_folder import RunFolder, read_json
from saccade.terminal import duration

FIGURES_OF_BENCH = "bench.json"  # in a run folder: `saccade bench RUN --out RUN/bench.json`


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of training, bytes of the exported file (else of the weights), milliseconds a photo.

    None where it is not known.
    """

    seconds: float | None = None
    size_bytes: int | None = None
    milliseconds: float | None = None

    def in_words(self) -> tuple[str, str, str]:
        """As cells of a table; a dash for what is not known."""
        return (
            "-" if self.seconds is None else duration(self.seconds),
            "-" if self.size_bytes is None else f"{self.size_bytes / 1e6:.1f}",
            "-" if self.milliseconds is None else f"{self.milliseconds:.1f}",
        )


@dataclass(frozen=True, slots=True)
class Side:
    """A run, or an evaluation of one, by the name it was given."""

    name: str
    run: RunFolder
    predictions: Predictions

    @property
    def contents(self) -> dict[str, str]:
        """SHA-256 of each image's file by its path, as far as it is known."""
        there = self.run.has(self.run.dataset)
        return {record.path: record.sha256 for record in self.run.read_dataset()} if there else {}

    @property
    def groups(self) -> dict[str, str]:
        """A name by path for what belongs together; empty where nothing says."""
        return together_in_run(self.run) if self.run.has(self.run.dataset) else {}

    @property
    def new_labels(self) -> dict[str, str]:
        """The label by path of images that decisions gave another one when the run was made."""
        audit = self.run.read_audit() if self.run.has(self.run.audit) else {}
        return {one.path: one.new_label for one in decided_in(audit) if one.new_label}


def measured(path: str, part: str) -> RunFolder:
    """The run (or evaluation) at `path`; raises RunError when it has no predictions to compare."""
    run = RunFolder(Path(path))
    parts = [known for known in (*JUDGED_PARTS, FOLDS, "train") if run.has(run.predictions(known))]
    if not parts:
        if run.recipe.is_file():  # else it is no run at all
            run.require_trained()
        raise RunError(
            f"{path} has no predictions",
            hint="give a finished run, or RUN/evaluations/NAME",
        )
    if part and part not in parts:
        raise RunError(
            f"{path} has no predictions of a part {part!r}",
            hint=f"choose from: {', '.join(parts)}",
        )
    return run


def sides(paths: Sequence[str], part: str = "") -> tuple[str, tuple[Side, ...]]:
    """The part that is compared, and each run with its predictions of it.

    part: "" is the test part where all have one, else validation, else folds. Raises RunError.
    """
    runs = [measured(path, part) for path in paths]
    had = [known for known in JUDGED_FIRST if all(run.has(run.predictions(known)) for run in runs)]
    if not part and not had:
        raise RunError(
            "there is no part that all of these were measured on",
            hint="evaluate all on the same data (`saccade evaluate RUN DATA --name NAME`)",
        )
    chosen = part or had[0]
    pairs = zip(paths, runs, strict=True)
    return chosen, tuple(Side(path, run, run.read_predictions(chosen)) for path, run in pairs)


def costs(place: RunFolder) -> Costs:
    """What the run cost, and what its exported file does, as far as files of the run tell."""
    run = place.own_run
    seconds = run.read_record().seconds if run.has(run.environment) else None
    file = next((path for path in (run.onnx, run.weights) if path.is_file()), None)
    return Costs(seconds, file.stat().st_size if file else None, _milliseconds(run))


def _milliseconds(run: RunFolder) -> float | None:
    """Of the quickest float32 engine that was measured; None without figures that can be read."""
    with contextlib.suppress(RunError, KeyError, TypeError):
        rows = read_json(run.root / FIGURES_OF_BENCH)["rows"]
        exact = [row for row in rows if row["precision"] == "float32" and row["passed"]]
        return min((float(row["latency_p50_ms"]) for row in exact), default=None)
    return None


def pictures(side: Side) -> tuple[ReadImage | None, Limits]:
    """What reads the images that a run was measured on, None where they no longer are; with its limits."""
    run = side.run.own_run
    try:
        recipe, location = run.read_recipe(), run.read_record().data
        if side.run.has(side.run.about):
            location = side.run.read_about().get("data") or location
        listed = list_again(location, recipe)
        return CheckedReader(listed.storage, side.run.read_dataset()), Limits.of(recipe.data)
    except SaccadeError:
        return None, DEFAULT_LIMITS
