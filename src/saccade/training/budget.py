"""Time: how long a run has taken, and whether another step or epoch still fits before its deadline."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

EPOCH_MARGIN = 1.15  # an epoch may take so much longer than the longest before it
VALIDATION_MARGIN = 1.3
PLAN_MARGIN = 1.05


@dataclass(slots=True)
class TimeBudget:
    """All times in monotonic seconds. `earlier_seconds` were spent by the runs this one continues."""

    started: float = field(default_factory=time.monotonic)
    deadline: float = math.inf
    earlier_seconds: float = 0.0
    longest_epoch_seconds: float = 0.0
    validation_seconds: float = 0.0
    exhausted: bool = False

    def elapsed(self) -> float:
        """Seconds since the command began, those of continued runs included."""
        return self.earlier_seconds + time.monotonic() - self.started

    @property
    def over(self) -> bool:
        """Whether the deadline has passed, or nothing more fits before it."""
        return self.exhausted or time.monotonic() >= self.deadline

    def new_phase(self) -> None:
        """Epochs of another phase take another time; validation takes the same."""
        self.longest_epoch_seconds = 0.0

    def note_epoch(self, seconds: float, validation_seconds: float) -> None:
        self.longest_epoch_seconds = max(self.longest_epoch_seconds, seconds)
        self.validation_seconds = max(self.validation_seconds, validation_seconds)

    def epoch_fits(self) -> bool:
        """Whether one more whole epoch, validation included, ends before the deadline."""
        return (
            not self.exhausted
            and time.monotonic() + EPOCH_MARGIN * self.longest_epoch_seconds < self.deadline
        )

    def must_stop_now(self, *, step_seconds: float, validation_batches: int) -> bool:
        """Whether only the validation still fits; its batches count as training steps until one was timed."""
        validation = self.validation_seconds or step_seconds * validation_batches
        self.exhausted = time.monotonic() + VALIDATION_MARGIN * validation + step_seconds >= self.deadline
        return self.exhausted

    def steps_that_fit(self, *, step_seconds: float, steps_per_epoch: int, validation_seconds: float) -> int:
        """Training steps before the deadline, each epoch and a last part of one validated."""
        left = max(0.0, self.deadline - time.monotonic()) / PLAN_MARGIN
        step_seconds = max(step_seconds, 1e-6)
        epochs, rest = divmod(left, steps_per_epoch * step_seconds + validation_seconds)
        part = max(0, int((rest - VALIDATION_MARGIN * validation_seconds) / step_seconds))
        return int(epochs) * steps_per_epoch + part
