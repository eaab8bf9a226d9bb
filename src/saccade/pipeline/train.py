"""`saccade train`: audit, split, build, fit, evaluate, export, report; run again to continue.

A run is a list of stages. Each does nothing where its files are there already, so the same command goes on
where it was stopped.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.caches.endings import keep_rest_seconds, kind_of_run
from saccade.errors import RunError
from saccade.part_files import Cluster
from saccade.pipeline import judge, mending, ship
from saccade.pipeline.begin import begin, settled
from saccade.pipeline.continuing import as_it_began
from saccade.pipeline.division import search_late, stored_data, warn_of_other_images
from saccade.pipeline.evidence import watching_test
from saccade.pipeline.fold_figures import weigh_folds
from saccade.pipeline.prepare import list_data
from saccade.pipeline.result import say_result
from saccade.pipeline.work import Work
from saccade.processes import ALONE, Place, require_divisible
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder, existing_run
from saccade.signals import can_resume
from saccade.sources.addresses import is_remote, without_secrets
from saccade.terminal import Terminal

if TYPE_CHECKING:
    from saccade.pipeline.crew import Crew
    from saccade.training import Callback


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run; `exit_code` is 1 when its exported file failed the certificate."""

    run: RunFolder
    exit_code: int


def evaluate(work: Work) -> None:
    judge.judge_parts(work.run, work.dataset, work.recipe, work.terminal)


def export(work: Work) -> None:
    if work.recipe.export.onnx:
        ship.export_and_certify(work.run, work.dataset, work.recipe, work.terminal)


def conclude(work: Work) -> None:
    judge.conclude(work.run, work.dataset, work.terminal, seconds=_seconds(work))
    say_result(work.run, work.terminal)


def tell(work: Work) -> None:
    """Whoever watches now sees the whole run."""
    from saccade.training import Callbacks

    Callbacks(work.watching).on_conclude(work.run.root)


def finish_fold(work: Work) -> None:
    """The end of one run of a cross-validation, without its whole result in words."""
    judge.conclude(work.run, work.dataset, work.terminal, seconds=_seconds(work), of_fold=True)


def _seconds(work: Work) -> float | None:
    """That the run took; None where this command only continued it."""
    return time.monotonic() - work.began if work.ready else None


def remember_ending(work: Work) -> None:
    """Write down what export and report took, for later time limits, where this process did all of it."""
    if work.ready is None or work.recipe.split.folds or not work.recipe.export.onnx:
        return  # continued, or of several networks, or nothing was exported
    judged, certified = judge.images_read_again(work.dataset, work.recipe)
    an_image = work.seconds["evaluate"] / max(1, judged)
    rest = work.seconds["export"] + work.seconds["conclude"] - certified * an_image
    model = work.run.read_model()
    backbone, size = model["architecture"]["backbone"], model["preprocess"]["size"]
    keep_rest_seconds(kind_of_run(work.ready.runtime.device.type, backbone, size), rest)


def stages(recipe: Recipe) -> tuple[Callable[[Work], None], ...]:
    """In their order."""
    from saccade.pipeline.fit import fit  # imports torch

    if not recipe.split.folds:
        return fit, search_late, evaluate, export, conclude, tell
    from saccade.pipeline.folds import fit_folds

    each = (fit, evaluate, export, finish_fold, tell)
    return partial(fit_folds, stages=each), evaluate, export, weigh, conclude, tell


def weigh(work: Work) -> None:
    """What a model made of folds costs, beside that of one fold."""
    if work.recipe.export.onnx:
        weigh_folds(work.run, work.terminal)


def train(
    location: str,
    recipe: Recipe,
    terminal: Terminal,
    *,
    out: str,
    command: Sequence[str] = (),
    started: float | None = None,
    finish: bool = False,
    callbacks: Sequence[Callback] = (),
    place: Place = ALONE,
    cluster: Cluster | None = None,
) -> TrainResult:
    """Train in the folder `out`, or continue there; a finished run only prints its result.

    `callbacks` look on. `finish`: no further epoch is begun, and the best so far becomes the model.
    `started` is `time.monotonic()` when the command began. `place`: of process 0 among those that train
    together. `cluster` reads images and computes frozen features. Raises SaccadeError when it cannot go on.
    """
    began = time.monotonic() if started is None else started
    if is_remote(out):
        raise RunError(
            f"{out} is an address, and a run needs a folder on this disk",
            hint="give a folder; `saccade train DATA --out ADDRESS` uploads it when it is finished",
        )
    given = _checked(callbacks)
    run = RunFolder(Path(out))
    several = crew_of(place, run, recipe, terminal)
    with several as crew, run.locked(), contextlib.ExitStack() as while_continuing:
        mended = mending.remove_damaged(run, recipe, terminal, command)
        known = run.continues(recipe, identity(location), only_to_show=not mended)
        if not (known and mending.beginning_is_whole(run)):
            if finish:
                raise RunError(f"no run to finish in {out}", hint="leave --finish out, or give --resume RUN")
            data = identity(location)["data"]
            work = begin(run, location, recipe, terminal, command, data, began, given, cluster)
            if crew:
                run.update_record(ranks=place.count)
        elif run.read_record().finished and not mended:
            terminal.say(f"{run.root} is finished; this is its result.")
            warn_of_other_images(run, location, recipe, terminal)
            say_result(run, terminal)
            return _result(run, crew)
        else:
            listed = list_data(location, recipe)
            dataset = watching_test(stored_data(run, listed))
            own = settled(recipe, run.read_record().choice, dataset)
            work = Work(run, listed, dataset, own, terminal, began)
            terminal.say(f"{run.root} continues where it was stopped")
            work.finish = finish
            while_continuing.enter_context(as_it_began(run, recipe, terminal, place.count))
        work.callbacks, work.crew, work.cluster = given, crew, cluster
        can_resume(out, crew.flags if crew else ())
        for stage in stages(recipe):
            stage_began = time.monotonic()
            stage(work)
            work.seconds[getattr(stage, "__name__", "")] = time.monotonic() - stage_began
        remember_ending(work)
        return _result(run, crew)


def _checked(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    """The callbacks; raises RecipeError, before anything is read, for what is none."""
    if callbacks:
        from saccade.training import check_callbacks

        check_callbacks(callbacks)
    return tuple(callbacks)


def resume(
    path: str,
    terminal: Terminal,
    *,
    command: Sequence[str] = (),
    started: float | None = None,
    finish: bool = False,
    callbacks: Sequence[Callback] = (),
    means: Mapping[str, Any] | None = None,
    place: Place = ALONE,
    cluster: Cluster | None = None,
) -> TrainResult:
    """Continue the run in the folder `path` as it began; with `finish`, end it with the best epoch so far.

    `means`: other values of fields that change no result (`recipe.MEANS`). Raises RunError for a folder
    without a run, or without an epoch where it is to be finished.
    """
    run = existing_run(path)
    if finish and not run.history.exists():
        raise RunError(
            f"no epoch of {path} has ended yet", hint=f"continue it: saccade train --resume {path}"
        )
    location, recipe = run.read_record().data, run.read_recipe()
    return train(
        location,
        recipe.replaced(**means) if means else recipe,
        terminal,
        out=path,
        command=command,
        started=started,
        finish=finish,
        callbacks=callbacks,
        place=place,
        cluster=cluster,
    )


def identity(location: str) -> dict[str, str]:
    """What besides the recipe makes two commands the same run: the data."""
    location = without_secrets(location)
    named = ":" in location and not Path(location).exists()  # torchvision:NAME and addresses are no paths
    return {"data": location if named else os.path.abspath(Path(location).expanduser())}


def crew_of(
    place: Place, run: RunFolder, recipe: Recipe, terminal: Terminal
) -> contextlib.AbstractContextManager[Crew | None]:
    """Within it, the processes that train together; None where one trains.

    Raises RecipeError for a batch that they cannot share, or too few GPUs.
    """
    if place.alone:
        return contextlib.nullcontext()
    if recipe.train.batch_size != "auto":
        require_divisible(recipe.batch_size, place.count)
    from saccade.pipeline.crew import Crew  # imports torch

    return Crew(place, run, recipe.device, terminal)


def _result(run: RunFolder, crew: Crew | None) -> TrainResult:
    passed = not run.has(run.certificate()) or run.read_certificate()["passed"]
    result = TrainResult(run, 0 if passed else 1)
    if crew:
        crew.code = result.exit_code
    return result
