"""Intervals against published values, exact coverage and their own properties."""

from math import comb, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saccade.evaluation.groups import Groups
from saccade.evaluation.intervals import (
    f1_interval,
    images_needed,
    mean_interval,
    percentile_interval,
    resample_weights,
    student_95,
    wilson,
)


def test_wilson_equals_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, images), (low, high) in published.items():
        interval = wilson(successes, images)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
        assert interval.value == successes / images


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_value_stays_a_share_and_is_symmetric(case):
    successes, images = case
    interval = wilson(successes, images)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    mirrored = wilson(images - successes, images)
    assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.87, 0.99])
def test_wilson_covers_the_truth_about_95_times_in_100(share):
    images = 250
    chance = [comb(images, k) * share**k * (1 - share) ** (images - k) for k in range(images + 1)]
    covered = sum(p for k, p in enumerate(chance) if wilson(k, images).low <= share <= wilson(k, images).high)
    assert 0.92 < covered < 0.985


def test_a_share_of_no_images_is_our_own_mistake():
    with pytest.raises(AssertionError, match="no images"):
        wilson(0, 0)
    with pytest.raises(AssertionError, match="3 of 2"):
        wilson(3, 2)


@given(st.integers(0, 50), st.integers(0, 50))
def test_f1_lies_between_its_bounds_and_is_never_certain(right, wrong):
    if right + wrong == 0:
        return
    interval = f1_interval(right, wrong)
    assert interval.value == pytest.approx(2 * right / (2 * right + wrong))
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.high - interval.low > 0.01


@pytest.mark.parametrize(
    ("shares", "images"),
    [
        ([0.9, 0.8, 0.99], [30, 30, 30]),
        ([0.97] * 8, [40] * 8),
        ([0.5, 0.9], [20, 200]),
        ([0.95] * 3, [10, 50, 90]),
    ],
)
def test_the_mean_of_shares_is_covered_about_95_times_in_100(shares, images):
    generator = np.random.default_rng(0)
    means = (generator.binomial(images, shares, size=(2000, len(shares))) / images).mean(axis=1)
    intervals = [mean_interval(float(mean), images) for mean in means]
    covered = np.mean([interval.low <= np.mean(shares) <= interval.high for interval in intervals])
    assert 0.93 < covered < 0.985


def test_the_mean_over_balanced_classes_has_the_interval_of_the_accuracy():
    assert mean_interval(0.9, [25] * 4) == wilson(90, 100)
    assert mean_interval(1.0, [25] * 4) == wilson(100, 100)
    small = mean_interval(0.9, [1000, 3])  # no surer than its smallest class
    assert small.high - small.low > 0.3


def test_images_needed_gives_the_half_width_asked_for():
    n = images_needed(0.8, 0.03)
    interval = wilson(round(0.8 * n), n)
    assert (interval.high - interval.low) / 2 == pytest.approx(0.03, rel=0.02)


def test_resampling_is_a_function_of_the_seed_and_draws_every_image_as_often():
    first = np.array(list(resample_weights(50, seed=3)))
    assert np.array_equal(first, np.array(list(resample_weights(50, seed=3))))
    assert not np.array_equal(first, np.array(list(resample_weights(50, seed=4))))
    assert (first.sum(axis=1) == 50).all()
    assert first.mean(axis=0) == pytest.approx(np.ones(50), abs=0.3)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    weights = np.concatenate(list(Groups.alone(400).resampled(seed=0, resamples=400)))
    drawn = weights @ values / 400
    interval = percentile_interval(float(values.mean()), drawn)
    half = 1.96 * values.std() / 20
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.15)


def test_a_percentile_interval_is_widened_to_hold_its_value():
    interval = percentile_interval(0.0, np.linspace(0.1, 0.2, 100))
    assert interval.low == 0.0
    assert interval.high == pytest.approx(0.1975)


def test_students_quantile_is_scipys():
    degrees = np.arange(1, 200)
    found = [student_95(int(number)) for number in degrees]
    assert found == pytest.approx(stats.t.ppf(0.975, degrees), rel=1.5e-3)
    assert student_95(0) == inf


def test_few_units_push_the_percentiles_out_as_students_quantile_would():
    drawn = stats.norm.ppf(np.linspace(0, 1, 100_001)[1:-1])  # a figure that resamples normally
    few, many, plain = (percentile_interval(0.0, drawn, units) for units in (8, 10_000, 0))
    assert few.high == pytest.approx(stats.t.ppf(0.975, 7) * np.sqrt(8 / 7), abs=0.02)
    assert many.high == pytest.approx(plain.high, abs=1e-3)
