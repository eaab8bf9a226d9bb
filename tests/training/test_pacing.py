"""A schedule that knows its time: it comes to its end in the epochs that fit, and never jumps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import Interrupted
from saccade.testing.tiny import TinyData, timeless
from saccade.training import Callback, StopRequest
from saccade.training.clock import Clock, planned
from saccade.training.schedules import ENDING_SCHEDULES, Pace, Span, learning_rate
from saccade.training.state import FitState, state_from_json, state_to_json

SPAN = Span(epochs=20, steps_per_epoch=10, warmup_epochs=1)


def rates(schedule: str, pace: Pace | None, first: int, end: int) -> list[float]:
    steps = range(first, end)
    return [
        learning_rate(pace.at_step(s, SPAN) if pace else s, base=1.0, schedule=schedule, span=SPAN)
        for s in steps
    ]


def test_nothing_is_planned_where_everything_fits():
    assert planned(8, SPAN.steps - 8, SPAN, None) is None
    assert planned(8, 10_000, SPAN, None) is None


def test_the_last_epoch_may_be_a_part_of_one_that_is_worth_its_validation():
    assert planned(8, 44, SPAN, None) == Pace(8, 8.0, 50)
    assert planned(8, 46, SPAN, None) == Pace(8, 8.0, 54)
    assert planned(10, 30, SPAN, None) == Pace(10, 10.0, 40)
    assert planned(8, 4, SPAN, None) == Pace(8, 8.0, 10)
    assert planned(10, 7, SPAN, None) == Pace(10, 10.0, 17)
    assert planned(10, 0, SPAN, None) == Pace(10, 200.0, 10)


@pytest.mark.parametrize("schedule", ENDING_SCHEDULES)
@given(first=st.integers(1, 60), fitting=st.integers(1, 100), second=st.integers(1, 40))
def test_the_rate_never_jumps_at_a_plan_and_ends_low(schedule, first, fitting, second):
    pace = planned(first, fitting, SPAN, None)
    assert pace is not None
    assert pace.at_step(first, SPAN) == first
    again = planned(first + (pace.end - first) // 2, second, SPAN, pace)
    assert again is not None
    assert again.at_step(again.start, SPAN) == pytest.approx(pace.at_step(again.start, SPAN))
    if again.end - again.start > 15:
        assert rates(schedule, again, again.end - 1, again.end)[0] < 0.05


def test_steps_that_fit_are_those_of_epochs_with_their_validation_and_of_a_last_part(monkeypatch):
    monkeypatch.setattr("saccade.training.clock.time.monotonic", lambda: 95.0)
    budget = Clock(started=0.0, deadline=200.0)  # 100 seconds, and a margin of 5
    assert budget.steps_that_fit(step_seconds=1.0, steps_per_epoch=10, validation_seconds=2.0) == 81
    assert budget.steps_that_fit(step_seconds=1.0, steps_per_epoch=16, validation_seconds=2.0) == 87
    assert budget.steps_that_fit(step_seconds=1.0, steps_per_epoch=200, validation_seconds=20.0) == 74
    assert budget.steps_that_fit(step_seconds=1.0, steps_per_epoch=200, validation_seconds=80.0) == 0


def test_a_pace_survives_the_state():
    state = FitState(pace=Pace(8, 8.25, 50))
    values = state_to_json(state)
    assert state_from_json(values) == state
    del values["pace"]
    assert state_from_json(values) == FitState(), "a checkpoint of an earlier version has none"


class SlowData(TinyData):
    """Ten steps and 100 milliseconds an epoch."""

    def epoch(self, epoch: int) -> Iterator[tuple]:
        for batch in super().epoch(epoch):
            time.sleep(0.01)
            yield batch


class Rates(Callback):
    def __init__(self) -> None:
        self.lr: list[float] = []

    def on_epoch_end(self, view, row):
        self.lr.append(row.lr)


@pytest.mark.parametrize("schedule", ENDING_SCHEDULES)
def test_a_deadline_brings_the_rate_down_to_its_end(fit_tiny, recipe, schedule):
    fit_tiny("warm", pretrained=False)
    chosen = recipe(train__epochs=400, train__early_stopping=0, train__schedule=schedule)
    deadline = time.monotonic() + 3.0
    seen = Rates()
    _, result = fit_tiny(
        recipe=chosen, data=SlowData(images=80), pretrained=False, deadline=deadline, callbacks=[seen]
    )
    assert time.monotonic() < deadline + 0.5
    assert result.stopped == "time limit"
    assert 2 < len(seen.lr) < 40
    assert max(seen.lr) > 0.9 * 0.02, "the rate was reached"
    assert seen.lr[-1] < 0.4 * 0.02, "the last epoch's highest rate is on the way down"
    assert any("the learning rate schedule was shortened to that" in note for note in result.notes)


def test_a_run_that_continues_goes_on_at_its_pace(fit_tiny, recipe, monkeypatch):
    """The first run has time for few epochs; the one that continues has all the time, and keeps the plan."""
    monkeypatch.setattr(
        Clock, "steps_that_fit", lambda self, **_: 50 if math.isfinite(self.deadline) else 10**9
    )
    options = {
        "recipe": recipe(train__epochs=40, train__early_stopping=0),
        "pretrained": False,
        "deadline": time.monotonic() + 1000,
    }
    data = TinyData(images=80)

    class StopAfter(Callback):
        def on_epoch_end(self, view, row):
            if row.epoch == 3:
                stop.set(15)

    def told(fitted):
        return fitted[1].weights_sha256, [timeless(row) for row in fitted[1].history]

    whole = fit_tiny("whole", data=data, **options)
    assert len(whole[1].history) < 40
    stop = StopRequest()
    with pytest.raises(Interrupted):
        fit_tiny("cut", data=data, stop=stop, callbacks=[StopAfter()], **options)
    assert told(fit_tiny("cut", data=data, **options)) == told(whole)
