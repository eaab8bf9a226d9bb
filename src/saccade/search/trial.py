"""One trial: the head on features that all trials share, then the last layers, then the whole network.

Each is a fidelity of the next. After each the pruner of successive halving says whether the trial is among
those worth the next. What counts for a trial is the lowest validation loss of its fidelities (calibrated
where `train.monitor` says so), and the model that had it, also where a later one fails.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState

from saccade.building import build_network, check_network
from saccade.errors import SaccadeError
from saccade.methods import make_plan
from saccade.pipeline.derived import begin_within
from saccade.pipeline.fit import fit
from saccade.pipeline.hints import usual_side
from saccade.pipeline.work import Ready, Work
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder, json_bytes, write_bytes
from saccade.run_record import USUAL_SIDE
from saccade.runtime import Runtime
from saccade.search.ground import Ground
from saccade.search.space import METHODS, Params
from saccade.search.study import COST, PROBLEM, READ, REDUCTION, RUNGS, SECONDS, Asked, asking, give_back
from saccade.terminal import Terminal
from saccade.training.clock import ending_seconds

# Of the time that is left a fidelity may take so much, and less than so many seconds are not worth it.
TIME_SHARE = 0.5
LEAST_SECONDS = {"head": 0.0, "tail": 10.0, "full": 30.0}
BEST = "best"  # the folder of the best model so far


@dataclass(frozen=True, slots=True)
class Rung:
    """What a trial came to at one fidelity, on validation images: figures of the epoch that was kept.

    `log_loss`: calibrated where `train.monitor` is `calibrated_loss`, else plain, whatever chose the epoch.
    """

    method: str
    log_loss: float
    accuracy: float
    seconds: float
    epochs: int


def try_out(study: Study, asked: Asked, ground: Ground) -> None:
    """Carry a trial out and tell the study; what stops the process gives it back."""
    folder = ground.home.root / "trials" / str(asked.trial.number)
    began = time.monotonic()
    try:
        rungs, state = _through_fidelities(study, asked, ground, folder)
        _told(study, asked, ground, rungs, state, folder, began)
    except SaccadeError as error:
        asked.trial.set_user_attr(PROBLEM, error.problem)
        _tell(study, asked, ground, state=TrialState.FAIL)
        ground.terminal.say(f"Trial {asked.trial.number:<4}failed: {error.problem}")
    except BaseException:
        with asking(ground.home.root):
            give_back(study, asked.trial.number, asked.params)
        raise
    finally:
        asked.lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _through_fidelities(
    study: Study, asked: Asked, ground: Ground, folder: Path
) -> tuple[list[Rung], TrialState]:
    trial, rungs = asked.trial, list[Rung]()
    if not _within_limits(study, asked, ground):
        return rungs, TrialState.PRUNED
    last = str(asked.params["method"])
    for method in ladder(ground.space.methods, last):
        if ground.seconds_left < LEAST_SECONDS[method] and (rungs or ground.has_model):
            trial.set_user_attr(PROBLEM, f"no time for {method}")
            return rungs, TrialState.PRUNED
        try:
            rungs.append(train_once(ground, asked.params, method, folder / method))
        except SaccadeError as error:
            if not rungs:
                raise
            trial.set_user_attr(PROBLEM, f"{method} failed: {error.problem}")
            return rungs, TrialState.PRUNED  # with the fidelities that are done
        ground.note_seconds(method, rungs[-1].seconds)
        trial.set_user_attr(RUNGS, [asdict(rung) for rung in rungs])
        trial.report(min(rung.log_loss for rung in rungs), REDUCTION ** METHODS.index(method))
        if method != last and trial.should_prune():
            return rungs, TrialState.PRUNED
    return rungs, TrialState.COMPLETE


def ladder(methods: Sequence[str], last: str) -> tuple[str, ...]:
    """The fidelities up to a method; a method that was given is the only one.

    >>> ladder(("head", "tail", "full"), "tail"), ladder(("full",), "full")
    (('head', 'tail'), ('full',))
    """
    return tuple(methods[: list(methods).index(last) + 1])


def _within_limits(study: Study, asked: Asked, ground: Ground) -> bool:
    """Tell the study by how much a limit is missed; a model that no one may have is not trained."""
    cost, limits = ground.cost(asked.params, study), ground.limits
    asked.trial.set_user_attr(COST, cost)
    excess = {"megabytes": cost["megabytes"] - limits.megabytes} if limits.megabytes else {}
    if limits.latency_ms:
        excess["latency_ms"] = cost["latency_ms"] - limits.latency_ms
    for name, value in excess.items():
        asked.trial.set_constraint(name, value)
    if over := [name for name, value in excess.items() if value > 0]:
        asked.trial.set_user_attr(PROBLEM, f"over the limit of {' and '.join(over)}")
    return not over


def train_once(ground: Ground, params: Params, method: str, folder: Path) -> Rung:
    """Train one fidelity in a run folder of its own, up to the bundle."""
    began = time.monotonic()
    recipe = ground.space.recipe(params, method).with_batch_size(len(ground.dataset.used("train")))
    network = build_network(ground.dataset, recipe)
    check_network(network, recipe)
    recipe = _with_time(ground, recipe, network.preprocess.size)
    plan = make_plan(recipe, network)
    shutil.rmtree(folder, ignore_errors=True)
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    begin_within(
        ground.home,
        run,
        ground.dataset.records,
        recipe,
        command=ground.home.read_record().command,
        comment="The best of a search.",
        resolved={**plan.as_json(), USUAL_SIDE: usual_side(recipe)},
    )
    ready = Ready(Runtime.create(recipe.device, recipe.precision), ground.dataset.classes, network)
    work = Work(
        run,
        ground.listed,
        ground.dataset,
        recipe,
        Terminal(quiet=True),
        began,
        ready=ready,
        features=ground.features(params),
    )
    fit(work)
    best: dict[str, Any] = run.read_model()["training"]["best"]
    history = run.read_history()
    epochs = sum(row.phase == "finetune" for row in history)
    seconds = round(time.monotonic() - began, 2)
    kept = next(row for row in history if row.epoch == best["epoch"])
    return Rung(method, kept.watched_loss, best["validation_accuracy"], seconds, epochs)


def _with_time(ground: Ground, recipe: Recipe, side: int) -> Recipe:
    """Under a time limit: half of what is left; the run's own clock keeps seconds for what comes after it."""
    if ground.seconds_left == math.inf or recipe.train.method == "head":
        return recipe
    judged = 2 * len(ground.dataset.used("validation")) + len(ground.dataset.used("test"))
    limit = max(1.0, TIME_SHARE * ground.seconds_left) + ending_seconds(judged, side)
    return recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"time_limit": round(limit, 1)})}
    )


def _told(
    study: Study,
    asked: Asked,
    ground: Ground,
    rungs: Sequence[Rung],
    state: TrialState,
    folder: Path,
    began: float,
) -> None:
    trial = asked.trial
    trial.set_user_attr(SECONDS, round(time.monotonic() - began, 2))
    best = min(rungs, key=lambda rung: rung.log_loss, default=None)
    if best:
        _keep_if_best(ground, trial.number, best, folder / best.method)
    value = best.log_loss if best and state == TrialState.COMPLETE else None
    _tell(study, asked, ground, value=value, state=None if value is not None else state)
    ground.terminal.say(_line(asked, rungs, state, ground.loss_in_words))


def _tell(study: Study, asked: Asked, ground: Ground, **outcome: Any) -> None:
    asked.trial.set_user_attr(READ, ground.newly_read())
    with asking(ground.home.root):
        study.tell(asked.trial, outcome.get("value"), state=outcome.get("state"))


def _keep_if_best(ground: Ground, number: int, rung: Rung, folder: Path) -> None:
    """Put the model in the place of the best so far, where it is better."""
    with asking(ground.home.root):
        place, note = ground.home.root / BEST, ground.home.root / "best.json"
        before = json.loads(note.read_text()) if note.is_file() and place.is_dir() else None
        if before and before["log_loss"] <= rung.log_loss:
            return
        shutil.rmtree(place, ignore_errors=True)
        folder.rename(place)
        write_bytes(note, json_bytes({"trial": number, **asdict(rung)}))


def _line(asked: Asked, rungs: Sequence[Rung], state: TrialState, loss: str) -> str:
    """One trial in words."""
    what = ", ".join(f"{name} {_short(value)}" for name, value in asked.params.items())
    told = "; ".join(
        f"{rung.method} {loss} {rung.log_loss:.3f}, {rung.accuracy:.1%} in {rung.seconds:.0f} s"
        for rung in rungs
    )
    problem = asked.trial.user_attrs.get(PROBLEM)
    end = f" ({problem or 'stopped here'})" if rungs else " (not trained)"
    end = "" if state == TrialState.COMPLETE else end
    return f"Trial {asked.trial.number:<4}{what}: {told or problem}{end}"


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
