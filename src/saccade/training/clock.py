"""Time: how long a run has taken, what still fits before its deadline, and schedules shortened to that.

Where not all epochs fit, the schedule ends in those that do: a `Pace` maps the steps that will be made onto
the steps of the whole schedule, so the learning rate never jumps and comes down to its end. A pace is part of
the state of a training: a run that continues goes on at the pace it had.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from saccade.training.schedules import ENDING_SCHEDULES, Pace, Span, growing_side

EPOCH_MARGIN = 1.15  # an epoch may take so much longer than the longest before it
VALIDATION_MARGIN = 1.3
PLAN_MARGIN = 1.05
ENDING_MARGIN = 1.15  # what comes after training may take so much longer than was measured

# What comes after training, as a slow core needs it: the time limit is for the whole command.
EXPORT_AND_REPORT_SECONDS = 15.0
JUDGING_SECONDS_AN_IMAGE = 0.04
SMALLEST_JUDGING_SHARE = 0.05  # of these seconds, for the smallest images: 1.3 ms each were measured
USUAL_SIDE = 224

FIRST_LOOK_STEPS = 8  # of a phase
SLOW_START = 0.8  # later steps are quicker; and a plan can be shortened well, but not stretched
LEAST_PART = 0.25  # of a last epoch: less is not worth its validation
STEADY_EPOCHS = 2  # the first epoch also decodes; from the third on a pace is only ever shortened
PARTS, FULL_SIDE = 20, 1024  # only for the mean of a share: any side with many steps will do


def ending_seconds(judged_images: int, side: int = USUAL_SIDE) -> float:
    """For evaluation, export and report, as a slow core needs it."""
    share = min(1.0, max(SMALLEST_JUDGING_SHARE, (side / USUAL_SIDE) ** 2))
    return EXPORT_AND_REPORT_SECONDS + judged_images * share * JUDGING_SECONDS_AN_IMAGE


def deadline(limit: float, began: float, *, judged_images: int, side: int = USUAL_SIDE) -> float | None:
    """When training must end for evaluation, export and report to fit into the limit too; None for no limit.

    `limit` in seconds for the whole command, `began` in monotonic seconds. `judged_images` are evaluated
    after training, at `side` pixels: small images take less.
    """
    if not limit:
        return None
    reserve = ending_seconds(judged_images, side)
    return began + limit - min(reserve, limit / 2)


def without_time(limit: float, clock: Clock) -> str:
    """Where no time is left as training begins: by how much, and what is done all the same."""
    if clock.seconds_left > 0:
        return ""
    left = clock.started + limit - time.monotonic()
    when = (
        f"--time-limit {limit:g} s ended {-left:.1f} s before training began"
        if left <= 0
        else f"of --time-limit {limit:g} s only {left:.1f} s were left, which evaluation and export need"
    )
    return f"{when}: the shortest training that gives a model runs anyway; give a longer limit"


@dataclass(frozen=True, slots=True)
class Judging:
    """The images that are read again after training, to be measured, certified and shown.

    `read_seconds`: to read and decode one, as timed here. `validated`: images of a validation.
    `rest_seconds`: for export and report, as an earlier run on this machine took, else as a slow core needs.
    `validations`: how often validation is answered before that, to choose a share or a size.
    """

    images: int = 0
    read_seconds: float = 0.0
    validated: int = 0
    rest_seconds: float = EXPORT_AND_REPORT_SECONDS
    validations: float = 0.0

    def seconds(self, validation_seconds: float) -> float:
        """About what all of it takes here, where a validation took `validation_seconds`."""
        if not self.images:
            return 0.0
        answering = validation_seconds / max(1, self.validated)
        choosing = self.validations * (validation_seconds + self.validated * self.read_seconds)
        return self.rest_seconds + self.images * (self.read_seconds + answering) + choosing


@dataclass(slots=True)
class Clock:
    """All times in monotonic seconds. `earlier_seconds` were spent by the runs this one continues.

    `ending_seconds`: about what comes after training, `judging`: what is known of it here.
    """

    started: float = field(default_factory=time.monotonic)
    deadline: float = math.inf
    earlier_seconds: float = 0.0
    longest_epoch_seconds: float = 0.0
    latest_epoch_seconds: float = 0.0
    validation_seconds: float = 0.0
    latest_validation_seconds: float = 0.0  # the first one also decodes
    exhausted: bool = False
    ending_seconds: float = 0.0
    judging: Judging = Judging()
    limit: float = 0.0  # seconds for the whole command, 0 for none

    @classmethod
    def of(cls, limit: float, began: float, *, judged_images: int, side: int) -> Clock:
        """Started when the command began, with the `deadline` of its time limit, if any."""
        end = deadline(limit, began, judged_images=judged_images, side=side)
        ending = ending_seconds(judged_images, side)
        end = math.inf if end is None else end
        return cls(started=began, deadline=end, ending_seconds=ending, limit=limit)

    def elapsed(self) -> float:
        """Seconds since the command began, those of continued runs included."""
        return self.earlier_seconds + time.monotonic() - self.started

    @property
    def seconds_left(self) -> float:
        """Before the deadline; below 0 after it, infinite without one."""
        return self.deadline - time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the deadline has passed, or nothing more fits before it."""
        return self.exhausted or self.seconds_left <= 0

    @property
    def limited(self) -> bool:
        """Whether there is a deadline."""
        return math.isfinite(self.deadline)

    def measure_ending(self, validation_seconds: float) -> None:
        """Set the deadline by what the ending takes here, in place of what a slow core needs.

        `validation_seconds`: of the whole network on the validation images, measured now.
        """
        if not (self.limited and self.limit and self.judging.images):
            return
        calibrating = validation_seconds  # the temperature is fitted on answers of its own
        self.ending_seconds = ENDING_MARGIN * (self.judging.seconds(validation_seconds) + calibrating)
        self.deadline = self.started + self.limit - min(self.ending_seconds, self.limit / 2)

    def seconds_after_training(self, validation_seconds: float = 0.0) -> float:
        """About what evaluation, export and report take, where a validation of decoded images took that."""
        return max(self.ending_seconds, self.judging.seconds(validation_seconds))

    def seconds_to_the_end(self, *, steps: int, step_seconds: float, steps_per_epoch: int) -> float:
        """About what so many more steps take, and what comes after training.

        The latest epoch of the phase, timed with its validation, tells more than the steps of this one.
        """
        timed = self.latest_epoch_seconds / max(1, steps_per_epoch)
        after = self.seconds_after_training(self.latest_validation_seconds)
        return steps * (timed or step_seconds) + after

    def new_phase(self) -> None:
        """Epochs of another phase take another time; validation takes the same."""
        self.longest_epoch_seconds = self.latest_epoch_seconds = 0.0

    def note_epoch(self, seconds: float, validation_seconds: float) -> None:
        self.latest_epoch_seconds = seconds
        self.longest_epoch_seconds = max(self.longest_epoch_seconds, seconds)
        self.validation_seconds = max(self.validation_seconds, validation_seconds)
        self.latest_validation_seconds = validation_seconds

    def epoch_fits(self) -> bool:
        """Whether one more whole epoch, validation included, ends before the deadline."""
        return not self.exhausted and EPOCH_MARGIN * self.longest_epoch_seconds < self.seconds_left

    def must_stop_now(self, *, step_seconds: float, validation_batches: int) -> bool:
        """Whether only the validation still fits; its batches count as training steps until one was timed."""
        validation = self.validation_seconds or step_seconds * validation_batches
        self.exhausted = VALIDATION_MARGIN * validation + step_seconds >= self.seconds_left
        return self.exhausted

    def steps_that_fit(self, *, step_seconds: float, steps_per_epoch: int, validation_seconds: float) -> int:
        """Training steps before the deadline, each epoch and a last part of one validated."""
        left = max(0.0, self.seconds_left) / PLAN_MARGIN
        step_seconds = max(step_seconds, 1e-6)
        epochs, rest = divmod(left, steps_per_epoch * step_seconds + validation_seconds)
        part = max(0, int((rest - VALIDATION_MARGIN * validation_seconds) / step_seconds))
        return int(epochs) * steps_per_epoch + part

    def paces(self, schedule: str) -> bool:
        """Whether a last phase under this schedule is to end in the epochs that fit."""
        return math.isfinite(self.deadline) and schedule in ENDING_SCHEDULES

    def pace_at_first_look(
        self, at: Stretch, *, steps: int, seconds: float, validation_batches: int
    ) -> Pace | None:
        """The pace of a phase whose first few `steps` took so many `seconds`, unless all epochs fit."""
        step_seconds = SLOW_START * seconds / steps
        fitting = self.steps_that_fit(
            step_seconds=step_seconds * at.cost_of_the_rest(),
            steps_per_epoch=at.span.steps_per_epoch,
            # forward alone, until it was timed
            validation_seconds=self.validation_seconds or validation_batches * step_seconds / 3,
        )
        return planned(at.step + steps, fitting, at.span, at.pace)

    def pace_after_epoch(self, at: Stretch, *, steps: int, seconds: float, epochs: int) -> Pace | None:
        """The pace for what is left of a phase, after its epoch number `epochs` of so many steps."""
        fitting = self.steps_that_fit(
            step_seconds=max(0.0, seconds - self.validation_seconds) / max(1, steps) * at.cost_of_the_rest(),
            steps_per_epoch=at.span.steps_per_epoch,
            validation_seconds=self.validation_seconds,
        )
        pace = planned(at.step, fitting, at.span, at.pace)
        end, old_end = (found.end if found else at.span.steps for found in (pace, at.pace))
        early = epochs <= STEADY_EPOCHS and at.step < old_end  # at the end of its schedule it ends
        return pace if end < old_end or (early and end > old_end) else at.pace


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where a phase is: at `step` of `span`, at this `pace`. Images grow from `start` of their side.

    `done`: the share of the schedule at which the steps were timed.
    """

    step: int
    span: Span
    pace: Pace | None
    start: float = 0.0
    done: float = 1.0

    def cost_of_the_rest(self) -> float:
        """Mean cost of the steps to come, as a multiple of those just made: images that grow cost more."""
        if not self.start:
            return 1.0
        at = self.pace.at_step(self.step, self.span) if self.pace else self.step
        ahead = at / max(1, self.span.steps)
        shares = [ahead + (1 - ahead) * (part + 0.5) / PARTS for part in range(PARTS)]
        sides = [growing_side(done, start=self.start, full=FULL_SIDE) for done in shares]
        now = growing_side(self.done, start=self.start, full=FULL_SIDE)
        return sum(side**2 for side in sides) / PARTS / now**2


def planned(step: int, fitting: int, span: Span, pace: Pace | None) -> Pace | None:
    """From `step` on through the rest of the schedule in `fitting` steps.

    The last epoch may be a part of one, where that is worth its validation. None while the whole schedule
    fits as it was planned.
    """
    end = step + fitting
    if end >= span.steps and pace is None:
        return None
    if not fitting:
        return Pace(step, float(span.steps), step)  # this is the end
    whole = end // span.steps_per_epoch * span.steps_per_epoch
    worth_it = end - whole >= LEAST_PART * span.steps_per_epoch or whole <= step
    end = min(span.steps, end if worth_it else whole)
    return Pace(step, pace.at_step(step, span) if pace else float(step), end)
