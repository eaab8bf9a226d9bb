"""The figures of a cross-validation, remade from its held-out predictions; no torch."""

from __future__ import annotations

from collections.abc import Mapping

from saccade.evaluation.cross_validation import folded_metrics
from saccade.export.bench import median_latencies
from saccade.pipeline.division import FOLDS
from saccade.pipeline.measuring import Measuring
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal

TIMING_ROUNDS = 3


def folds_of(run: RunFolder) -> Mapping[str, int]:
    """The fold of each image outside of the test part, by path; empty without folds."""
    found: Mapping[str, int] = run.read_audit().get(FOLDS, {})
    return found


def write_fold_metrics(run: RunFolder, by: Measuring) -> None:
    """metrics/folds.json, from the held-out predictions of all images."""
    top_k, fold_of = by.recipe.evaluate.top_k, folds_of(run)
    answered = run.read_predictions(FOLDS)
    run.write_metrics(FOLDS, folded_metrics(answered, fold_of, top_k, by.groups, **by.chosen))


def say_folds(run: RunFolder, terminal: Terminal) -> None:
    """The figures of the folds in two lines."""
    found = run.read_metrics(FOLDS)
    accuracy, loss = found["over_folds"]["accuracy"], found["over_folds"]["log_loss"]
    each = ", ".join(f"{row['accuracy']:.1%}" for row in found["folds"])
    terminal.say(
        f"Folds     accuracy {accuracy['mean']:.1%} (95 %: {accuracy['low']:.1%} to {accuracy['high']:.1%}, "
        f"standard deviation {accuracy['sd']:.1%}), log loss {loss['mean']:.3f}, on {found['images']:,} "
        f"images, each held out once: {each}"
    )


def weigh_folds(run: RunFolder, terminal: Terminal) -> None:
    """Measure what a model made of folds costs beside that of one fold: megabytes, milliseconds a photo."""
    record = run.read_record()
    if "milliseconds" in record.folds:
        return
    files = {"": run.onnx, "one_": run.fold(1).onnx}
    latencies = median_latencies(files, rounds=TIMING_ROUNDS)
    cost: dict[str, float] = {}
    for (name, file), milliseconds in zip(files.items(), latencies, strict=True):
        cost[f"{name}megabytes"] = round(file.stat().st_size / 1e6, 2)
        cost[f"{name}milliseconds"] = round(milliseconds, 3)
    run.update_record(folds={**record.folds, **cost})
    terminal.say(
        f"Cost      {cost['megabytes']:.1f} MB and {cost['milliseconds']:.1f} ms for one photo on one core; "
        f"the model of one fold has {cost['one_megabytes']:.1f} MB, {cost['one_milliseconds']:.1f} ms"
    )
