"""Files of a run that were damaged or deleted: removed and named, so that `saccade train` makes them again.

What is made anew must be what it was. dataset.csv is compared with the SHA-256 that the manifest holds, and
settings with the recipe's. What rests on a remade bundle is remade with it, but for what a full report found:
that is removed. Training itself is done again only where no checkpoint is left. Where the manifest is lost,
checkpoints are all that can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saccade.errors import RunError
from saccade.pipeline.division import FOLDS
from saccade.recipe import Recipe
from saccade.records import PARTS, Dataset
from saccade.run_folder import RunFolder, dataset_bytes
from saccade.terminal import Terminal


def remove_damaged(run: RunFolder, recipe: Recipe, terminal: Terminal, command: Sequence[str] = ()) -> bool:
    """Remove what is damaged, and what rests on it; True where something has to be made again."""
    problem = run.manifest_problem()
    if not run.recipe.exists() and (problem or not run.knows(run.recipe)):
        return False  # no run of ours
    if problem:
        _doubt_everything(run, problem, terminal, command)
        return True
    damaged = run.damaged()
    for path, problem in damaged.items():
        if path == run.recipe:
            _restore_recipe(run, recipe, problem, terminal)
        elif _of_export_alone(run, path):
            terminal.warn(f"damaged file: {path} ({problem})", hint=run.remedy(path))
        elif _of_full_report_alone(run, path):
            terminal.warn(f"damaged file, which is left out: {path} ({problem})", hint=run.remedy(path))
            for gone in (path, *_resting_on(run, path)):
                run.remove(gone)
        else:
            terminal.say(f"Damaged   {path} ({problem}); making it again")
            _remove(run, path, terminal)
    return any(path != run.recipe and not _of_export_alone(run, path) for path in damaged)


def _of_export_alone(run: RunFolder, path: Path) -> bool:
    """Whether `saccade export` made this file at somebody's wish, so that `saccade train` does not."""
    of_train = path in (run.onnx, run.certificate(), run.class_list)
    return not of_train and (
        run.onnx.parent in path.parents or path.name.endswith((".onnx", ".onnx.certificate.json"))
    )


def _of_full_report_alone(run: RunFolder, path: Path) -> bool:
    """Whether only `saccade report --full` makes this file; the page also comes of what that found."""
    doubted = run.insight("label_errors")
    page_too = path == run.decide_page and not doubted.is_file()
    return path == run.label_errors or path.parent == doubted.parent or page_too


def _remove(run: RunFolder, path: Path, terminal: Terminal) -> None:
    if path in (run.dataset, run.audit, run.environment):
        path.unlink(missing_ok=True)  # the manifest goes on to say what it must hold
        return
    if path in (run.model_json, run.weights) and not has_checkpoint(run):
        terminal.say("          no checkpoint is left, so training starts again")
    resting = _resting_on(run, path)
    if set(resting) & set(run.of_full_report()):
        _say_removed(run, terminal)
    for gone in (path, *resting):
        run.remove(gone)


def _say_removed(run: RunFolder, terminal: Terminal) -> None:
    terminal.say(f"          what the full report found is removed with it; {run.remedy(run.label_errors)}")


def refuse_other_data(run: RunFolder, dataset: Dataset) -> None:
    """Raise RunError where dataset.csv, made again, would not be what it was when the run began."""
    if run.knows(run.dataset) and not run.accepts(run.dataset, dataset_bytes(dataset.records)):
        raise RunError(
            f"files with which {run.root} began are damaged and cannot be made again, since the images are "
            "no longer those with which it began",
            hint="put the images back, or train in a new folder (--out)",
        )


def beginning_is_whole(run: RunFolder) -> bool:
    """Whether audit, split and environment are there."""
    return all(path.is_file() for path in (run.dataset, run.audit, run.environment))


def restore_history(run: RunFolder) -> None:
    """history.jsonl of a trained run, out of its newest checkpoint; raises RunError where there is none."""
    from saccade.training.state import Checkpoints

    checkpoint, _ = Checkpoints(run.checkpoints).latest()
    if checkpoint is None:
        raise RunError(
            f"{run.history} is damaged, and no whole checkpoint is left to make it from",
            hint="train again in a new folder (--out)",
        )
    run.write_history(checkpoint.state.history)


def _restore_recipe(run: RunFolder, recipe: Recipe, problem: str, terminal: Terminal) -> None:
    """Written again where the settings given now are those of the run; raises RunError where they are not."""
    text = recipe.to_toml().encode("utf-8", "surrogateescape")
    if not run.accepts(run.recipe, text):
        raise RunError(
            f"{run.recipe} is damaged ({problem}), and the settings given now are not those of the run",
            hint=run.remedy(run.recipe),
        )
    terminal.say(f"Damaged   {run.recipe} ({problem}); writing it again")
    run.write(run.recipe, text)


def has_checkpoint(run: RunFolder) -> bool:
    """Whether an earlier command left a checkpoint, whole or not."""
    return any(run.checkpoints.glob("last-*.json"))


def _resting_on(run: RunFolder, path: Path) -> tuple[Path, ...]:
    exported = (run.onnx, run.certificate(), run.class_list)
    if path in (run.model_json, run.weights):
        own = (run.model_json, run.weights, run.unfamiliar)
        return (*own, *(run.predictions(part) for part in PARTS), *exported, *run.of_full_report())
    if path.parent == run.predictions("any").parent:
        return run.of_full_report()
    if path == run.insight("label_errors"):
        return (run.decide_page,)
    return exported if path == run.onnx else ()


def _doubt_everything(run: RunFolder, problem: str, terminal: Terminal, command: Sequence[str]) -> None:
    """Without a manifest, keep what carries its own SHA-256 or is compared with what is made anew."""
    made = [run.environment, run.audit, run.history, run.model_json, run.weights, run.report]
    made += [run.unfamiliar, run.audit_page, run.model_card, run.bill_of_materials]
    made += [place(part) for place in (run.predictions, run.metrics) for part in (*PARTS, FOLDS)]
    made += [run.onnx, run.certificate(), run.class_list, *(found := run.of_full_report())]
    kept = [run.recipe, run.dataset, run.int8, run.certificate(run.int8), run.checkpoints / "choices.json"]
    kept += [run.search]
    if not has_checkpoint(run):  # nothing could be made again without training again
        terminal.say(f"Damaged   {run.manifest} ({problem}): the other files are taken as they are")
        run.begin_again(command, (*made, *kept))
        return
    terminal.say(
        f"Damaged   {run.manifest} ({problem}): nothing says what the other files must hold, so all but the "
        "checkpoints are made again"
    )
    if found:
        _say_removed(run, terminal)
    for path in made:
        path.unlink(missing_ok=True)
    run.begin_again(command, kept)
