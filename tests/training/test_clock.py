"""Time: whether a step or an epoch still fits, with the clock held still."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from saccade.training import clock as module
from saccade.training.clock import Clock, Judging, deadline, without_time


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The monotonic clock as a list of one number."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_without_a_deadline_everything_fits(clock):
    budget = Clock(started=0.0)
    budget.note_epoch(1e6, 1e5)
    assert budget.epoch_fits()
    assert not budget.must_stop_now(step_seconds=1e6, validation_batches=1000)


def test_an_epoch_fits_with_room_to_spare(clock):
    budget = Clock(started=0.0, deadline=200.0)
    budget.note_epoch(80.0, 10.0)
    assert budget.epoch_fits()  # 80 x 1.15 = 92 of 100 seconds
    budget.note_epoch(90.0, 10.0)
    assert not budget.epoch_fits()
    budget.new_phase()
    assert budget.epoch_fits(), "epochs of another phase may be shorter"


def test_an_epoch_is_cut_where_only_the_validation_still_fits(clock):
    budget = Clock(started=0.0, deadline=200.0)
    budget.note_epoch(50.0, 20.0)
    clock[0] = 170.0  # 30 left, validation 20 x 1.3
    assert not budget.must_stop_now(step_seconds=1.0, validation_batches=5)
    clock[0] = 174.0
    assert budget.must_stop_now(step_seconds=1.0, validation_batches=5)
    assert not budget.epoch_fits()


def test_before_any_validation_its_batches_count_as_steps(clock):
    budget = Clock(started=0.0, deadline=200.0)
    assert budget.must_stop_now(step_seconds=8.0, validation_batches=9)  # 8 x 9 x 1.3 + 8 = 101.6
    assert not Clock(started=0.0, deadline=200.0).must_stop_now(step_seconds=8.0, validation_batches=8)


def test_seconds_of_continued_runs_are_added(clock):
    assert Clock(started=90.0, earlier_seconds=1000.0).elapsed() == 1010.0


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (20.0, r"^$"),
        (50.0, r"of --time-limit 60 s only 10\.0 s were left"),
        (63.0, r"60 s ended 3\.0 s before"),
    ],
)
def test_the_time_before_training_is_held_against_the_limit(clock, passed, said):
    """15 of the 60 seconds are kept for export and report, and what the images to evaluate take."""
    began = clock[0] - passed
    end = deadline(60.0, began, judged_images=0)
    assert end == began + 45.0
    assert re.search(said, without_time(60.0, Clock(started=began, deadline=end)))
    assert deadline(60.0, began, judged_images=100) == began + 41.0
    assert deadline(60.0, began, judged_images=100, side=28) > began + 44.0, "small images take less"
    assert deadline(60.0, began, judged_images=10_000) == began + 30.0, "never more than half"


def test_without_a_limit_no_time_is_missed(clock):
    assert deadline(0.0, clock[0] - 1e6, judged_images=10) is None
    assert without_time(0.0, Clock.of(0.0, clock[0] - 1e6, judged_images=10, side=224)) == ""


def test_the_time_to_the_end_is_that_of_the_steps_to_come_and_of_what_follows() -> None:
    clock = Clock(ending_seconds=20.0)
    ahead = {"steps": 30, "step_seconds": 2.0, "steps_per_epoch": 10}
    assert clock.seconds_to_the_end(**ahead) == 80.0
    clock.note_epoch(25.0, 5.0)
    assert clock.seconds_to_the_end(**ahead) == 95.0, "the validation of each epoch counts"
    assert Clock.of(0.0, 0.0, judged_images=100, side=224).ending_seconds == 19.0
    clock.judging = Judging(images=980, read_seconds=0.2, validated=100)
    assert clock.seconds_to_the_end(**ahead) == 75.0 + 15.0 + 980 * (0.2 + 0.05), "slow photos, slow machine"
    assert clock.seconds_after_training() == 15.0 + 980 * 0.2, "before any epoch was validated"
    clock.note_epoch(25.0, 2.0)
    assert clock.seconds_after_training(clock.latest_validation_seconds) == 15.0 + 980 * (0.2 + 0.02), (
        "the first validation decodes, the later ones do not"
    )


def test_the_deadline_is_set_by_what_the_ending_takes_here(clock):
    budget = Clock.of(300.0, clock[0], judged_images=1440, side=224)
    assert budget.deadline == pytest.approx(clock[0] + 300 - 72.6), "as a slow core needs it"
    budget.measure_ending(10.0)
    assert budget.deadline == pytest.approx(clock[0] + 300 - 72.6), "what is read again is not known"
    budget.judging = Judging(images=1000, read_seconds=0.002, validated=500, rest_seconds=8.0)
    budget.measure_ending(5.0)  # 8 + 1000 x (0.002 + 0.01) + 5 s, and some more
    assert budget.deadline == pytest.approx(clock[0] + 300 - 1.15 * 25)
    assert budget.seconds_after_training() == pytest.approx(1.15 * 25)
    budget.measure_ending(500.0)
    assert budget.deadline == clock[0] + 150, "never more than half of the limit"


def test_validations_that_choose_a_share_or_a_size_are_part_of_the_ending():
    known = Judging(images=1000, read_seconds=0.002, validated=500, rest_seconds=8.0)
    choosing = replace(known, validations=3.0)
    assert choosing.seconds(5.0) - known.seconds(5.0) == pytest.approx(3 * (5 + 500 * 0.002))


def test_without_a_limit_no_ending_is_measured(clock):
    budget = Clock(ending_seconds=20.0, judging=Judging(images=1000))
    budget.measure_ending(5.0)
    assert (budget.deadline, budget.ending_seconds, budget.limited) == (float("inf"), 20.0, False)
