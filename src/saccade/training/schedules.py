"""The learning rate as a pure function of the step; ReduceLROnPlateau as a value that steps forward.

A step may be a fraction: where time is short, a `Pace` leads through the whole schedule in fewer steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from saccade.plan import SchedulePlan

MAX_WARMUP_SHARE = 0.5
GROWN_AFTER, SIDE_STEP = 0.75, 32  # share of a phase; pixels
ONE_CYCLE_RISE, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 25e4  # torch's own defaults


@dataclass(frozen=True, slots=True)
class Span:
    """A phase as a schedule sees it. `warmup_steps` rise linearly to the full rate."""

    epochs: int
    steps_per_epoch: int
    warmup_epochs: float = 0.0
    step_epochs: int = 10
    step_factor: float = 0.1
    milestones: tuple[int, ...] = ()
    decay_factor: float = 0.9
    decay_power: float = 2.0
    restart_epochs: int = 5
    restart_growth: int = 1

    @classmethod
    def of(cls, schedule: SchedulePlan, epochs: int, steps_per_epoch: int) -> Span:
        """That of a phase of so many epochs under the plan's schedule."""
        own = [field.name for field in fields(cls)][2:]
        return cls(epochs, steps_per_epoch, **{name: getattr(schedule, name) for name in own})

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """Never more than half of the phase, so that a short one still reaches its rate."""
        wanted = round(self.warmup_epochs * self.steps_per_epoch)
        return min(wanted, int(MAX_WARMUP_SHARE * self.steps))

    def progress(self, step: float) -> float:
        """Share of what follows the warm-up that is done, 0 to 1."""
        return min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))

    def epochs_after_warm_up(self, step: float) -> float:
        """Epochs, parts included, since the warm-up ended."""
        return (step - self.warmup_steps) / max(1, self.steps_per_epoch)


@dataclass(frozen=True, slots=True)
class Pace:
    """From step `start`, which stands at `at` of the schedule's steps, evenly to its end at step `end`."""

    start: int
    at: float
    end: int

    def at_step(self, step: int, span: Span) -> float:
        """Where in the schedule (0 to `span.steps`) a step of the phase stands."""
        done = (step - self.start) / max(1, self.end - self.start)
        return self.at + (span.steps - self.at) * min(1.0, done)


def constant(step: float, span: Span) -> float:
    """The full rate.

    >>> constant(7, Span(epochs=2, steps_per_epoch=5))
    1.0
    """
    return 1.0


def cosine(step: float, span: Span) -> float:
    """Half a cosine from 1 towards 0 over what follows the warm-up. Loshchilov and Hutter 2017, "SGDR".

    >>> [round(cosine(step, Span(epochs=2, steps_per_epoch=5)), 2) for step in (0, 5, 10)]
    [1.0, 0.5, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * span.progress(step)))


def cosine_restarts(step: float, span: Span) -> float:
    """Half a cosine from 1 towards 0 over `restart_epochs`, then again from 1, each `restart_growth` times as
    long as the one before. Loshchilov and Hutter 2017, "SGDR".

    >>> [round(cosine_restarts(step, Span(10, 5, restart_epochs=2)), 2) for step in (0, 5, 10)]
    [1.0, 0.5, 1.0]
    """
    at, length = span.epochs_after_warm_up(step), float(span.restart_epochs)
    while at >= length:
        at, length = at - length, length * span.restart_growth
    return 0.5 * (1 + math.cos(math.pi * at / length))


def linear(step: float, span: Span) -> float:
    """A straight line from 1 to 0 over what follows the warm-up.

    >>> [linear(step, Span(epochs=2, steps_per_epoch=5)) for step in (0, 5, 10)]
    [1.0, 0.5, 0.0]
    """
    return 1 - span.progress(step)


def polynomial(step: float, span: Span) -> float:
    """The straight line from 1 to 0, raised to `decay_power`.

    >>> [polynomial(step, Span(epochs=2, steps_per_epoch=5)) for step in (0, 5, 10)]
    [1.0, 0.25, 0.0]
    """
    return float((1 - span.progress(step)) ** span.decay_power)


def exponential(step: float, span: Span) -> float:
    """`decay_factor` for each epoch since the warm-up, parts of one included.

    >>> [exponential(step, Span(2, 5, decay_factor=0.25)) for step in (0, 5, 10)]
    [1.0, 0.25, 0.0625]
    """
    return float(span.decay_factor ** span.epochs_after_warm_up(step))


def drops(step: float, span: Span) -> float:
    """`step_factor` for every `step_epochs` that have passed.

    >>> [drops(step, Span(epochs=4, steps_per_epoch=5, step_epochs=2)) for step in (0, 9, 10)]
    [1.0, 1.0, 0.1]
    """
    epoch = int(step) // max(1, span.steps_per_epoch)
    return span.step_factor ** (epoch // span.step_epochs)


def multi_step(step: float, span: Span) -> float:
    """`step_factor` for each of the `milestones` (epochs) that has passed.

    >>> [multi_step(step, Span(4, 5, milestones=(2, 3))) for step in (9, 10, 15)]
    [1.0, 0.1, 0.010000000000000002]
    """
    usual = (max(1, round(0.5 * span.epochs)), max(1, round(0.75 * span.epochs)))
    epoch = int(step) // max(1, span.steps_per_epoch)
    return float(span.step_factor ** sum(epoch >= milestone for milestone in span.milestones or usual))


def one_cycle(step: float, span: Span) -> float:
    """Half a cosine up from 1/25 over 30 % of the steps, another down to next to nothing. Smith 2018.

    >>> [round(one_cycle(step, Span(epochs=2, steps_per_epoch=10)), 2) for step in (0, 5, 19)]
    [0.04, 1.0, 0.0]
    """
    last, peak = max(1, span.steps - 1), max(0.0, ONE_CYCLE_RISE * span.steps - 1)
    if step < peak:
        return _between(ONE_CYCLE_START, 1.0, step / peak)
    return _between(1.0, ONE_CYCLE_END, min(1.0, (step - peak) / max(1e-9, last - peak)))


def _between(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * done))


# name in the recipe -> factor(step, span). "plateau" is constant here and multiplied by `Plateau.factor`.
SCHEDULES: dict[str, Callable[[float, Span], float]] = {
    "constant": constant,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "linear": linear,
    "polynomial": polynomial,
    "exponential": exponential,
    "one_cycle": one_cycle,
    "step": drops,
    "multi_step": multi_step,
    "plateau": constant,
}

# those that come down to an end, which a deadline may not cut off
ENDING_SCHEDULES = ("cosine", "linear", "polynomial", "one_cycle")


def learning_rate(
    step: float, *, base: float, schedule: str, span: Span, plateau_factor: float = 1.0
) -> float:
    """The rate of `step`, counted from 0 at the start of the phase.

    "one_cycle" has its own warm-up. `plateau_factor` belongs to "plateau": the other schedules come down by
    themselves, and a second decay on top would end them too early.

    >>> span = Span(epochs=2, steps_per_epoch=5, warmup_epochs=1)
    >>> [round(learning_rate(step, base=0.1, schedule="cosine", span=span), 3) for step in (0, 4, 9)]
    [0.02, 0.1, 0.01]
    """
    if schedule == "plateau":
        base *= plateau_factor
    if step < span.warmup_steps and schedule != "one_cycle":
        return base * min(1.0, (step + 1) / span.warmup_steps)  # a step of a Pace may lie between two
    return base * SCHEDULES[schedule](step, span)


@dataclass(frozen=True, slots=True)
class Plateau:
    """ReduceLROnPlateau: the rate's factor falls when what is watched has not improved for a while.

    An improvement is a score (lower is better: a loss, or minus an accuracy) below `best` by one part in ten
    thousand, as in torch's scheduler.
    """

    factor: float = 1.0
    best: float = math.inf
    bad_epochs: int = 0

    def after(self, score: float, *, patience: int, drop: float, lowest: float = 0.0) -> Plateau:
        """The state after an epoch with this score; NaN never counts as better.

        `patience`: epochs without an improvement that are borne. `drop`: what the factor is multiplied by.
        `lowest`: drops end at this factor (torch's `min_lr`, as a share of the phase's rate).

        >>> Plateau(best=0.5).after(0.6, patience=0, drop=0.1).factor
        0.1
        """
        if score < self.best * (1 - 1e-4 if self.best > 0 else 1 + 1e-4):
            return Plateau(self.factor, score, 0)
        if self.bad_epochs + 1 > patience:
            # a floor above the present factor must not raise the rate
            return Plateau(max(self.factor * drop, min(self.factor, lowest)), self.best, 0)
        return Plateau(self.factor, self.best, self.bad_epochs + 1)


def growing_side(done: float, *, start: float, full: int) -> int:
    """Side in pixels after a share `done` of the epochs: from `start` x `full` to `full` over three quarters.

    A multiple of 32, or `full`. Tan and Le 2021, "EfficientNetV2"; `start` 0 is always `full`.
    """
    if not start or done >= GROWN_AFTER:
        return full
    share = start + (1 - start) * done / GROWN_AFTER
    return min(full, max(SIDE_STEP, round(share * full / SIDE_STEP) * SIDE_STEP))
