"""Mixing ends at a share of a phase: of its epochs, of a shortened schedule, of a run that goes on."""

from __future__ import annotations

import pytest

from saccade.testing.tiny import timeless
from saccade.training.learner import begin_phase
from saccade.training.schedules import Pace
from saccade.training.state import FitState


def mixed_in(job, *, pace: Pace | None = None, real_epochs: int = 10) -> list[bool]:
    """Whether images are mixed in each epoch, by a learner that is made anew, as in a run that goes on."""
    (phase,) = job.plan.phases
    steps = len(job.data.train)
    found = []
    for epoch in range(real_epochs):
        learner = begin_phase(job, phase, state=FitState(pace=pace))
        learner.begin_epoch(epoch * steps)
        found.append(learner.mixing.on)
    return found


@pytest.mark.parametrize(("until", "mixed"), [(1.0, 10), (0.9, 9), (0.5, 5), (0.01, 1), (7, 7), (50, 10)])
def test_a_share_or_a_number_of_the_epochs(job_tiny, recipe, until, mixed):
    job = job_tiny(recipe=recipe(train__epochs=10), pretrained=False, mix_up=0.4, until=until)
    assert mixed_in(job) == [True] * mixed + [False] * (10 - mixed)


def test_a_schedule_that_must_end_sooner_takes_the_share_with_it(job_tiny, recipe):
    job = job_tiny(recipe=recipe(train__epochs=10), pretrained=False, mix_up=0.4, until=0.6)
    steps = len(job.data.train)
    pace = Pace(start=steps, at=float(steps), end=5 * steps)  # ten epochs of schedule in five
    assert mixed_in(job, pace=pace, real_epochs=5) == [True, True, True, True, False]
    assert mixed_in(job) == [True] * 6 + [False] * 4


def test_until_then_training_is_as_with_mixing_and_then_as_without(fit_tiny, recipe):
    def rows(name, **mixing):
        chosen = recipe(train__epochs=4, train__early_stopping=0)
        return [timeless(row) for row in fit_tiny(name, recipe=chosen, pretrained=False, **mixing)[1].history]

    always, half, never = rows("a", mix_up=0.4), rows("b", mix_up=0.4, until=0.5), rows("c")
    assert half[:2] == always[:2] != never[:2]
    assert all(ended != mixed for ended, mixed in zip(half[2:], always[2:], strict=True))
