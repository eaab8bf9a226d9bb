"""The schedule that knows its time: where not all epochs fit before the deadline, it ends in those that do.

A `Pace` maps the steps that will be made onto the steps of the recipe's whole schedule, so the rate never
jumps and comes down to its end. It is part of the state: a run that continues goes on at the pace it had.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

from saccade.training.job import Job
from saccade.training.learner import Learner
from saccade.training.schedules import ENDING_SCHEDULES, Pace, Span, growing_side
from saccade.training.state import FitState

FIRST_LOOK_STEPS = 8  # of a phase
SLOW_START = 0.8  # later steps are quicker; and a plan can be shortened well, but not stretched
LEAST_PART = 0.25  # of a last epoch: less is not worth its validation
STEADY_EPOCHS = 2  # the first epoch also decodes; from the third on a pace is only ever shortened

PARTS, FULL_SIDE = 20, 1024  # only for the mean of a share: any side with many steps will do


def first_look(job: Job, learner: Learner, state: FitState, *, steps: int, began: float) -> None:
    """After the first few steps of a last phase: a pace for the learner, unless all of its epochs fit."""
    if steps != FIRST_LOOK_STEPS or state.phase_epoch or not is_paced(job, state):
        return
    seconds = SLOW_START * (time.monotonic() - began) / steps
    batches = math.ceil(job.validation_images / job.recipe.batch_size)
    fitting = job.budget.steps_that_fit(
        step_seconds=seconds * cost_of_the_rest(job, learner, state.phase_step),
        steps_per_epoch=learner.span.steps_per_epoch,
        validation_seconds=job.budget.validation_seconds or batches * seconds / 3,  # forward alone
    )
    learner.pace = planned(state.phase_step + steps, fitting, learner.span, learner.pace)


def after_epoch(job: Job, learner: Learner, state: FitState, *, steps: int, seconds: float) -> FitState:
    """The state with a pace for what is left, after an epoch of so many steps and seconds."""
    if not is_paced(job, state):
        return state
    span, validation, ahead = learner.span, job.budget.validation_seconds, state.phase_step
    fitting = job.budget.steps_that_fit(
        step_seconds=max(0.0, seconds - validation) / max(1, steps) * cost_of_the_rest(job, learner, ahead),
        steps_per_epoch=span.steps_per_epoch,
        validation_seconds=validation,
    )
    pace = planned(state.phase_step, fitting, span, learner.pace)
    end, old_end = (found.end if found else span.steps for found in (pace, learner.pace))
    early = state.phase_epoch <= STEADY_EPOCHS and ahead < old_end  # at the end of its schedule it ends
    if end < old_end or (early and end > old_end):
        learner.pace = pace
    return replace(state, pace=learner.pace)


def cost_of_the_rest(job: Job, learner: Learner, step: int) -> float:
    """Mean cost of the steps from `step` on, as a multiple of those just made: images that grow cost more."""
    start = job.recipe.train.progressive_size
    if not start or learner.phase.unfreeze != "all":
        return 1.0
    ahead = (learner.pace.at_step(step, learner.span) if learner.pace else step) / max(1, learner.span.steps)
    shares = [ahead + (1 - ahead) * (part + 0.5) / PARTS for part in range(PARTS)]
    sides = [growing_side(done, start=start, full=FULL_SIDE) for done in shares]
    now = growing_side(learner.done, start=start, full=FULL_SIDE)
    return sum(side**2 for side in sides) / PARTS / now**2


def is_paced(job: Job, state: FitState) -> bool:
    """Whether there is a deadline, and this phase is the last and has a schedule that comes to an end."""
    last = state.phase == len(job.phases) - 1
    return last and math.isfinite(job.budget.deadline) and job.recipe.train.schedule in ENDING_SCHEDULES


def planned(step: int, fitting: int, span: Span, pace: Pace | None) -> Pace | None:
    """From `step` on through the rest of the schedule in `fitting` steps.

    The last epoch may be a part of one, where that is worth its validation. None while the whole schedule
    fits as the recipe has it.
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
