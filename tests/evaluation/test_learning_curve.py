"""Draws keep groups whole and classes in proportion; a known law is found again; noise tells nothing."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.evaluation.learning_curve import MULTIPLES, SHARES, carried_on, nested_draws

IMAGES = np.array([48.0, 80.0, 132.0, 200.0, 300.0, 400.0])


def simulated(a: float, b: float, c: float, *, judged: int, seed: int) -> np.ndarray:
    """(draws, sizes, judged): answers of heads whose error is a + b (n / 400)^-c."""
    random = np.random.default_rng(seed)
    error = a + b * (IMAGES / IMAGES[-1]) ** -c
    right = random.random((5, len(IMAGES), judged)) >= error[:, None]
    right[:, -1] = right[0, -1]
    return right


def test_draws_are_nested_keep_groups_whole_and_the_shares_of_the_classes() -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 150, size=400)
    labels = (groups % 7 == 0).astype(np.int64)  # a group has one class; one of them is rare
    drawn = nested_draws(labels, groups, seed=1)
    assert len(drawn) == 5
    for parts in drawn:
        assert len(parts) == len(SHARES)
        for share, rows, larger in zip(SHARES, parts, [*parts[1:], np.arange(400)], strict=True):
            assert set(rows) <= set(larger)
            assert not set(groups[rows]) & set(np.delete(groups, rows))
            for label in (0, 1):
                there = (labels == label).sum()
                assert abs((labels[rows] == label).sum() - share * there) <= 8
    assert len({tuple(parts[0]) for parts in drawn}) == 5


def test_every_class_has_a_group_in_the_smallest_draw() -> None:
    labels, groups = np.repeat([0, 1], [100, 6]), np.arange(106)
    assert all((labels[parts[0]] == 1).any() for parts in nested_draws(labels, groups))


def test_a_known_law_is_carried_on_within_its_band() -> None:
    held = 0
    for seed in range(20):
        curve = carried_on(IMAGES, simulated(0.05, 0.25, 0.6, judged=1000, seed=seed), seed=seed)
        truth = 0.25 * (1 - 4**-0.6)
        held += bool(curve.low[-1] <= truth <= curve.high[-1])
        assert curve.now == pytest.approx(0.70, abs=0.03)
        assert curve.gain[-1] == pytest.approx(truth, abs=0.06)
        assert (np.diff(curve.gain) > 0).all()
    assert held >= 17


def test_a_steep_curve_is_told_and_a_flat_one_is_called_flat() -> None:
    steep = carried_on(IMAGES, simulated(0.0, 0.2, 0.6, judged=2000, seed=3))
    assert steep.told is not None
    flat = carried_on(IMAGES, simulated(0.1, 0.0, 1.0, judged=20_000, seed=3))
    assert flat.told is None
    assert flat.flat
    perfect = carried_on(IMAGES, np.ones((5, len(IMAGES), 50), bool))
    assert perfect.flat
    assert perfect.now == pytest.approx(1)


def test_few_validation_images_tell_nothing() -> None:
    told = [carried_on(IMAGES, simulated(0.1, 0.1, 0.5, judged=15, seed=seed)) for seed in range(10)]
    assert sum(curve.told is not None for curve in told) <= 1


def test_a_forecast_is_made_again_bit_by_bit_and_ends_at_four_times_the_data() -> None:
    right = simulated(0.1, 0.1, 0.5, judged=100, seed=0)
    assert (carried_on(IMAGES, right).gain == carried_on(IMAGES, right).gain).all()
    assert max(MULTIPLES) == 4
