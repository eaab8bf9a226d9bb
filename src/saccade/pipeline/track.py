"""`saccade track`: tell an experiment tracker of a finished run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saccade.errors import RunError, SaccadeError
from saccade.pipeline.fold_figures import folds_of
from saccade.run_folder import RunFolder, existing_run
from saccade.terminal import Terminal

if TYPE_CHECKING:
    from saccade.tracking import Tracker


def track(path: str, to: str, terminal: Terminal) -> None:
    """Recipe, history, metrics with intervals and files of the run in `path`, to `to` (`mlflow:URI`, ...).

    The folds of a cross-validation come first, each as a run of its own. Raises SaccadeError for an unknown
    tracker, one that is not installed or fails, and an unfinished run.
    """
    from saccade.tracking import tracker

    run, chosen = existing_run(path), tracker(to)
    if not run.read_record().finished:
        raise RunError(
            f"{path} is not finished", hint=f"continue it: saccade train --resume {path} --track {to}"
        )
    folds = [run.fold(number) for number in sorted(set(folds_of(run).values()))]
    for each in (*folds, run):
        _tell(chosen, each, to)
        terminal.say(f"Tracked   {each.root} in {chosen.where}")


def _tell(chosen: Tracker, run: RunFolder, to: str) -> None:
    from saccade.tracking.tracker import tell, without_secrets

    try:
        tell(chosen, run)
    except SaccadeError:
        raise
    except Exception as error:  # a tracker's tool raises whatever it likes
        told = without_secrets(" ".join(str(error).split()))[:500]
        raise RunError(
            f"{to} failed: {type(error).__name__}: {told}", hint="check the place behind the colon"
        ) from None
