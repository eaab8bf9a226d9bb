"""Optuna's study of a search, in a journal that several processes write: who tries what, and what was tried.

Asking for a trial happens under a lock, so that no two processes try the same. Each trial has a file that its
process keeps locked; a trial that still runs by the journal, but whose file nobody holds, belonged to a
process that was killed: it is marked failed, and its parameters are tried again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import MissingExtraError
from saccade.runtime import draw_seed
from saccade.search.locks import FileLock
from saccade.search.space import Space, key_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "journal.jsonl"
REDUCTION = 3  # one in so many trials goes on to the next fidelity
RANDOM_TRIALS = 8  # before TPE models what was found
# what a trial tells the journal
SAME_AS, RETRY_OF, PARAMS, KEY, PROBLEM = "same_as", "retry_of", "params", "key", "problem"
RUNGS, SECONDS, READ, COST = "rungs", "seconds", "test_images_read", "cost"
MOST_REPEATS = 20  # suggestions in a row that were tried already: nothing is left


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial that this process now holds."""

    trial: Trial
    params: Mapping[str, Any]
    lock: FileLock


def open_study(folder: Path) -> Study:
    """The search's study in `folder`, made where there is none; raises MissingExtraError without optuna."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingExtraError("optuna", "search", "`saccade search`") from None
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / JOURNAL
    backend = JournalFileBackend(str(journal), lock_obj=FileLock(folder / ".journal.lock"))  # type: ignore[arg-type]
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    return optuna.create_study(
        storage=JournalStorage(backend), study_name="search", load_if_exists=True, pruner=pruner
    )


def asking(folder: Path) -> FileLock:
    """Held while trials are asked for, told and counted."""
    return FileLock(folder / ".asking.lock")


def ask(study: Study, folder: Path, space: Space, *, trials: int, seed: int) -> Asked | None:
    """The next trial, None where `trials` were tried or nothing new is left. Call it under `asking`."""
    bury_the_dead(study, folder)
    if len(counted(study)) >= trials:
        return None
    _enqueue_the_usual(study, space)
    for _ in range(MOST_REPEATS):
        study.sampler = _sampler(seed, len(study.get_trials(deepcopy=False)))
        trial = study.ask()
        params = space.suggest(trial)
        key = key_of(params)
        same = next((t for t in counted(study) if t.user_attrs.get(KEY) == key), None)
        trial.set_user_attr(PARAMS, params)
        if same is None:
            trial.set_user_attr(KEY, key)
            lock = FileLock(_place(folder, trial.number))
            lock.take()
            return Asked(trial, params, lock)
        _repeat(study, trial, same)
    return None


def _sampler(seed: int, trials: int) -> Any:
    """TPE (multivariate), its draws a function of the seed and the number of trials so far."""
    import optuna

    return optuna.samplers.TPESampler(
        seed=draw_seed(seed, "search", trials) % 2**32, n_startup_trials=RANDOM_TRIALS
    )


def _enqueue_the_usual(study: Study, space: Space) -> None:
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(space.usual())


def _repeat(study: Study, trial: Trial, same: FrozenTrial) -> None:
    """What was tried already has the value that it had; where that is still to come, it is left to it."""
    from optuna.trial import TrialState

    trial.set_user_attr(SAME_AS, same.number)
    if same.state == TrialState.COMPLETE:
        study.tell(trial, same.value)
    else:
        study.tell(trial, state=TrialState.FAIL)


def bury_the_dead(study: Study, folder: Path) -> list[int]:
    """Numbers of trials whose processes are gone: they are marked failed, and queued again."""
    from optuna.trial import TrialState

    gone = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lock = FileLock(_place(folder, trial.number))
        if lock.take():
            lock.release()
            give_back(study, trial.number, trial.user_attrs.get(PARAMS))
            gone.append(trial.number)
    return gone


def give_back(study: Study, number: int, params: Mapping[str, Any] | None) -> None:
    """Mark a trial failed, and queue its parameters again."""
    from optuna.trial import TrialState

    study.tell(number, state=TrialState.FAIL)
    if params:
        study.enqueue_trial(dict(params), user_attrs={RETRY_OF: number})


def counted(study: Study) -> list[FrozenTrial]:
    """Trials that were made or are under way, each setting once; those that cannot be made as well."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if (trial.state.name in ("RUNNING", "COMPLETE", "PRUNED") or PROBLEM in trial.user_attrs)
        and SAME_AS not in trial.user_attrs
    ]


def running(study: Study) -> list[FrozenTrial]:
    return [trial for trial in counted(study) if trial.state.name == "RUNNING"]


def _place(folder: Path, number: int) -> Path:
    return folder / "workers" / f"{number}.lock"
