"""Watchers of a training. What changes the result is in the recipe; a callback only sees copies."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from saccade.errors import RecipeError, SaccadeError, TrainingError
from saccade.records import EpochRow, monitor_in_words
from saccade.terminal import Progress, Terminal, duration
from saccade.training.state import Best


@dataclass(frozen=True, slots=True)
class EpochProgress:
    """How far an epoch is: images done and to do, running mean loss and accuracy of the epoch so far.

    `seconds_left`: about what the whole command still takes, NaN where a phase to come was not timed yet.
    """

    phase: str
    epoch: int
    last_epoch: int
    images: int
    total_images: int
    loss: float
    accuracy: float
    seconds_left: float = math.nan


@dataclass(frozen=True, slots=True)
class TrainingView:
    """What a callback may look at. `weights()` gives copies, so nothing here can change the training."""

    phase: str
    epoch: int
    step: int
    best: Best | None
    history: tuple[EpochRow, ...]
    weights: Callable[[], dict[str, Tensor]]


class Callback:
    """Override what you want to see; every method does nothing by default."""

    def on_begin(self, folder: Path) -> None:
        """Before the first epoch here, also of a run that continues; `folder` is the run's."""

    def on_step(self, progress: EpochProgress) -> None:
        """After a step (not every one where asking would make a GPU wait)."""

    def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
        """After an epoch, its validation and its checkpoint."""

    def on_note(self, note: str) -> None:
        """When something is to be said about the training, such as what a trial of fine-tuning showed."""

    def on_finish(self, state: TrainingView) -> None:
        """After the last phase, with the best weights restored."""

    def on_close(self) -> None:
        """Last of training, also when it was stopped or failed."""

    def on_conclude(self, folder: Path) -> None:
        """When metrics, exported file and report are written, and the run is finished."""


class Callbacks(Callback):
    """Several callbacks as one, in order. What one of them raises becomes a TrainingError that names it."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = tuple(callbacks)

    def on_begin(self, folder: Path) -> None:
        self._each("on_begin", folder)

    def on_step(self, progress: EpochProgress) -> None:
        self._each("on_step", progress)

    def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
        self._each("on_epoch_end", state, row)

    def on_note(self, note: str) -> None:
        self._each("on_note", note)

    def on_finish(self, state: TrainingView) -> None:
        self._each("on_finish", state)

    def on_close(self) -> None:
        """Every one is closed, also after one that failed."""
        with contextlib.ExitStack() as stack:
            for callback in reversed(self.callbacks):
                stack.callback(self._call, callback, "on_close")

    def on_conclude(self, folder: Path) -> None:
        self._each("on_conclude", folder)

    def _each(self, moment: str, *seen: Any) -> None:
        for callback in self.callbacks:
            self._call(callback, moment, *seen)

    def _call(self, callback: Callback, moment: str, *seen: Any) -> None:
        try:
            getattr(callback, moment)(*seen)
        except SaccadeError:
            raise
        except Exception as error:  # code of others may raise whatever it likes
            if isinstance(callback, TerminalProgress):
                raise
            raise TrainingError(
                f"callback {callback_name(callback)} failed in {moment}: {type(error).__name__}: {error}",
                hint="correct it, or train without it; the epochs so far are kept, and the same command "
                "continues after them",
            ) from error


def callback_name(callback: object) -> str:
    """`module.Class` of a callback, as messages and `environment.json` call it."""
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


def check_callbacks(callbacks: Sequence[object]) -> None:
    """Raise RecipeError for what is no instance of `Callback`."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            what = f"the class {callback.__name__}" if isinstance(callback, type) else repr(callback)[:80]
            raise RecipeError(
                f"callbacks: {what} is no instance of saccade.training.Callback",
                hint="derive a class from saccade.training.Callback, and give an instance of it",
            )


def _monitored(row: EpochRow) -> str:
    """What decides, where that is neither loss nor accuracy, which stand there anyway."""
    if row.monitored is None or row.monitor == "accuracy":
        return ""
    return f", {monitor_in_words(row.monitor)} {row.monitored:.3f}"


class TerminalProgress(Callback):
    """A bar for each epoch (loss, accuracy, images a second, time left in all) and a line when it is done."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._open = contextlib.ExitStack()
        self._update: Progress | None = None
        self._started, self._left = 0.0, math.nan

    def on_step(self, progress: EpochProgress) -> None:
        if self._update is None:
            what = f"{progress.phase} {progress.epoch}/{progress.last_epoch}"
            self._started = time.monotonic()
            self._update = self._open.enter_context(self.terminal.progress(what, own_time=False))
        self._left = progress.seconds_left
        detail = f"loss {progress.loss:.3f}, accuracy {progress.accuracy:.3f}{self._time_left()}"
        self._update(progress.images, progress.total_images, detail)

    def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
        self.on_close()
        best = " (best)" if state.best and state.best.epoch == row.epoch else ""
        self.terminal.say(
            f"  epoch {row.epoch:>3} {row.phase:<8}"
            f" loss {row.train_loss:.3f}, accuracy {row.train_accuracy:.3f}"
            f" | validation loss {row.validation_loss:.3f}, accuracy {row.validation_accuracy:.3f}"
            f"{_monitored(row)} | {self._how(row)}{best}"
        )

    def on_note(self, note: str) -> None:
        self.on_close()
        self.terminal.say(f"          {note}")

    def _how(self, row: EpochRow) -> str:
        if not row.lr:
            return f"fitted on frozen features, {row.seconds:.1f} s from the start"
        return f"lr {row.lr:.2g}, {time.monotonic() - self._started:.1f} s{self._time_left()}"

    def _time_left(self) -> str:
        return (
            "" if math.isnan(self._left) else f", about {duration(self._left)} left in all, report included"
        )

    def on_close(self) -> None:
        self._open.close()
        self._update = None
