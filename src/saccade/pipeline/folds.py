"""`saccade train --folds K`: a run for each fold, their held-out predictions, and one model made of all.

A fold trains on all images outside of the test part but its own, which validate. So each image is held out
once, and by the time the test part is read every choice has been made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from saccade.errors import RunError
from saccade.features.shared import SharedFeatures
from saccade.pipeline import mending
from saccade.pipeline.derived import begin_within
from saccade.pipeline.division import FOLDS
from saccade.pipeline.evidence import choices_made, watching_test
from saccade.pipeline.fit import begin_watching, watchers
from saccade.pipeline.fold_figures import folds_of, write_fold_metrics
from saccade.pipeline.fold_model import join_folds
from saccade.pipeline.measuring import measuring
from saccade.pipeline.work import Ready, Work
from saccade.preprocess import Preprocess
from saccade.recipe import Recipe
from saccade.records import Dataset, Predictions
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.split import fold_dataset

Stage = Callable[[Work], None]
LEAST_SECONDS = 1.0  # of a fold whose command's time limit has passed: it makes the shortest training
JOINING_SHARE = 0.1  # of a time limit, for the model made of the folds' and its evaluation


def fit_folds(work: Work, stages: Sequence[Stage]) -> None:
    """Train what is left of the folds, put their answers together, and make one model of theirs.

    `stages` are those of a single run. Does nothing where all of it is there.
    """
    run, fold_of = work.run, folds_of(work.run)
    if work.finish and not run.has(run.model_json):
        raise RunError(
            f"{run.root} is a cross-validation, which needs all of its folds",
            hint="leave --finish out; the folds that are done are kept",
        )
    continued = work.ready is None
    work.watching = tuple(watchers(work))
    shared = SharedFeatures([r for r in work.dataset.used() if r.part != "test"])
    numbers = sorted(set(fold_of.values()))
    for number in numbers:
        _train_fold(work, number, fold_of, stages, shared, left=len(numbers) - number + 1)
    _put_together(run, fold_of, work)
    if not run.has(run.model_json):
        join_folds(work, [run.fold(number) for number in numbers])
    if work.dataset.used("test") and not run.read_record().measured(7):
        work.dataset = choices_made(run, work.dataset, continued=continued)
    begin_watching(work)  # of the whole, once its model is made: epochs are those of the folds


# -- one fold ---------------------------------------------------------------------------------------


def _train_fold(
    work: Work,
    number: int,
    fold_of: Mapping[str, int],
    stages: Sequence[Stage],
    shared: SharedFeatures,
    *,
    left: int,
) -> None:
    run, terminal = work.run.fold(number), work.terminal
    total = max(fold_of.values())
    with run.locked():
        recipe = _fold_recipe(work, run, left)
        mended = mending.remove_damaged(run, recipe, terminal, _resuming(work))
        if _is_finished(run) and not mended:
            terminal.say(f"Fold      {number} of {total} is trained")
            return
        dataset = watching_test(fold_dataset(work.dataset, fold_of, number))
        sizes = (
            f"{len(dataset.used('train')):,} images train, {len(dataset.used('validation')):,} are held out"
        )
        terminal.say(f"Fold      {number} of {total}: {sizes}, in {run.root}")
        own = _begun(work, run, dataset, recipe, shared)
        for stage in stages:
            stage(own)
        found = run.read_metrics("validation")
        terminal.say(
            f"          fold {number}: accuracy {found['accuracy']['value']:.1%}, log loss "
            f"{found['log_loss']:.3f} on its {found['images']:,} held-out images"
        )


def _begun(work: Work, run: RunFolder, dataset: Dataset, recipe: Recipe, shared: SharedFeatures) -> Work:
    """The work of one fold, whose run begins here where it has not."""
    if not _has_begun(run):
        said = "One fold of a cross-validation."
        begin_within(work.run, run, dataset.records, recipe, command=_resuming(work), comment=said)
    return Work(
        run,
        work.listed,
        dataset,
        recipe,
        work.terminal,
        time.monotonic(),
        ready=Ready(Runtime.create(recipe.device, recipe.precision), dataset.classes),
        callbacks=work.callbacks,
        features=shared if recipe.solves_head else None,
        crew=work.crew,
    )


def _resuming(work: Work) -> tuple[str, ...]:
    """The command that goes on with all folds."""
    return "saccade", "train", "--resume", str(work.run.root)


def _has_begun(run: RunFolder) -> bool:
    return run.recipe.exists() and mending.beginning_is_whole(run)


def _is_finished(run: RunFolder) -> bool:
    return _has_begun(run) and run.read_record().finished


def _fold_recipe(work: Work, run: RunFolder, left: int) -> Recipe:
    """The recipe of a single run, with its share of the time left; a fold that has begun keeps its own."""
    if run.recipe.exists():
        return run.read_recipe()
    recipe = _with_one_preprocessing(work)
    recipe = recipe.model_copy(update={"split": recipe.split.model_copy(update={"folds": 0})})
    limit = recipe.train.time_limit
    if not limit:
        return recipe
    end = work.began + (1 - JOINING_SHARE) * limit
    share = max(LEAST_SECONDS, (end - time.monotonic()) / left)
    return recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"time_limit": round(share, 1)})}
    )


def _with_one_preprocessing(work: Work) -> Recipe:
    """The recipe with the size and the channel statistics of the whole, where a network starts from scratch.

    They come from the images outside of the test part. One model needs them to be the same in all folds;
    pretrained weights bring their own.
    """
    if work.recipe.starts_pretrained:
        return work.recipe
    found = Preprocess.from_json(work.run.read_record().resolved["data.preprocess"])
    same = {"image_size": found.size, "mean": found.mean, "std": found.std}
    return work.recipe.model_copy(update={"data": work.recipe.data.model_copy(update=same)})


# -- all folds ---------------------------------------------------------------------------------------


def _put_together(run: RunFolder, fold_of: Mapping[str, int], work: Work) -> None:
    """Held-out predictions of every image, and their figures."""
    if not run.has(run.predictions(FOLDS)):
        parts = [run.fold(number).read_predictions("validation") for number in sorted(set(fold_of.values()))]
        run.write_predictions(FOLDS, _by_path(parts))
    write_fold_metrics(run, measuring(run, work.recipe))


def _by_path(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several parts as one, ordered by path."""
    paths = [path for part in parts for path in part.paths]
    labels = [label for part in parts for label in part.labels]
    values = np.concatenate([part.probabilities for part in parts])
    order = sorted(range(len(paths)), key=paths.__getitem__)
    return Predictions(
        tuple(paths[i] for i in order), tuple(labels[i] for i in order), parts[0].classes, values[order]
    )
