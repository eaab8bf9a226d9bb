"""`saccade track`: tell an experiment tracker of a finished run."""

from __future__ import annotations

from saccade.errors import RunError, SaccadeError
from saccade.run_folder import existing_run
from saccade.terminal import Terminal


def track(path: str, to: str, terminal: Terminal) -> None:
    """Recipe, history, metrics with intervals and files of the run in `path`, to `to` (`mlflow:URI`, ...).

    Raises SaccadeError for an unknown tracker, one that is not installed or fails, and an unfinished run.
    """
    from saccade.tracking import tracker
    from saccade.tracking.tracker import tell

    run, chosen = existing_run(path), tracker(to)
    if not run.read_record().finished:
        raise RunError(
            f"{path} is not finished", hint=f"continue it: saccade train --resume {path} --track {to}"
        )
    try:
        tell(chosen, run)
    except SaccadeError:
        raise
    except Exception as error:  # a tracker's tool raises whatever it likes
        told = " ".join(str(error).split())[:500]
        raise RunError(
            f"{to} failed: {type(error).__name__}: {told}", hint="check the place behind the colon"
        ) from None
    terminal.say(f"Tracked   {run.root} in {chosen.where}")
