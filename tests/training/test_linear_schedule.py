"""The straight line of train.schedule = "linear", which a deadline shortens like the others that end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from saccade.training.schedules import ENDING_SCHEDULES, Span, learning_rate


def test_it_falls_evenly_to_the_end_after_the_rise() -> None:
    span = Span(4, 10, warmup_epochs=1.0)
    rates = [learning_rate(step, base=2.0, schedule="linear", span=span) for step in range(40)]
    assert rates[9] == rates[10] == 2.0
    falls = [a - b for a, b in pairwise(rates[10:])]
    assert len(falls) == 29
    assert falls == pytest.approx([2.0 / 30] * 29)


def test_a_deadline_does_not_cut_it_off() -> None:
    assert "linear" in ENDING_SCHEDULES
