"""Softmax, temperature, reliability and ECE, each against an independent computation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from saccade.evaluation.calibration import (
    TEMPERATURE_BOUNDS,
    calibration_error,
    ece,
    fit_temperature,
    image_losses,
    reliability,
    softmax,
)


def calibrated_logits(images, classes, *, temperature, seed=0):
    """Logits that are right exactly as often as softmax(logits / temperature) says."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(images, classes)) * 3
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([generator.choice(classes, p=row) for row in chance])
    return logits * temperature, truth


def test_softmax_is_exact_for_huge_logits_and_works_in_float64():
    result = softmax(np.array([[1e4, 1e4, -1e4]], dtype=np.float32))
    assert result.dtype == np.float64
    assert result[0] == pytest.approx([0.5, 0.5, 0])


@given(st.floats(0.05, 20), st.integers(2, 9))
def test_softmax_rows_sum_to_one_and_keep_the_ranks(temperature, classes):
    logits = np.random.default_rng(classes).normal(size=(4, classes))
    result = softmax(logits, temperature)
    assert result.sum(axis=1) == pytest.approx(np.ones(4))
    assert (result.argmax(axis=1) == logits.argmax(axis=1)).all()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_of_made_up_logits_is_found_again(temperature):
    logits, truth = calibrated_logits(4000, 5, temperature=temperature)
    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.08)


def test_the_temperature_is_the_minimum_of_scikit_learns_log_loss():
    logits, truth = calibrated_logits(500, 4, temperature=1.7)
    fitted = fit_temperature(logits, truth)
    grid = np.exp(np.linspace(np.log(0.2), np.log(10), 400))
    losses = [log_loss(truth, softmax(logits, t), labels=range(4)) for t in grid]
    best = grid[int(np.argmin(losses))]
    assert fitted == pytest.approx(best, rel=0.02)
    assert log_loss(truth, softmax(logits, fitted), labels=range(4)) <= min(losses) + 1e-9


@pytest.mark.parametrize("scale", [0.3, 1.0, 30.0])
def test_a_perfect_validation_part_does_not_make_the_model_certain(scale):
    truth = np.arange(250) % 5
    logits = np.random.default_rng(1).normal(size=(250, 5)) * scale
    logits[np.arange(250), truth] = logits.max(axis=1) + scale
    fitted = fit_temperature(logits, truth)
    assert softmax(logits, fitted).max(axis=1).mean() == pytest.approx(251 / 252, abs=1e-4)


def test_temperatures_stay_within_bounds_also_for_hopeless_logits():
    truth = np.zeros(50, dtype=int)
    wrong = np.tile([-5.0, 5.0], (50, 1))  # always certain, always wrong: the flatter the better
    assert fit_temperature(wrong, truth) == pytest.approx(TEMPERATURE_BOUNDS[1], rel=1e-4)
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int)) == 1.0
    assert fit_temperature(np.ones((5, 1)), np.zeros(5, dtype=int)) == 1.0


def test_one_certain_and_wrong_answer_costs_36_not_infinity():
    losses = image_losses(np.array([[1.0, 0.0]]), np.array([1]))
    assert losses[0] == pytest.approx(36.04, abs=0.01)


def naive_ece(probabilities, truth):
    total = 0.0
    for i in range(15):
        low, high = i / 15, (i + 1) / 15
        inside = [
            (max(p), p.argmax() == t)
            for p, t in zip(probabilities, truth, strict=True)
            if low < max(p) <= high
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            total += len(inside) / len(truth) * abs(confidence - right)
    return total


@settings(max_examples=30)
@given(st.integers(1, 80), st.integers(2, 6), st.integers(0, 10**6))
def test_ece_equals_a_naive_loop(images, classes, seed):
    generator = np.random.default_rng(seed)
    probabilities = softmax(generator.normal(size=(images, classes)) * 3)
    truth = generator.integers(classes, size=images)
    assert ece(probabilities, truth) == pytest.approx(naive_ece(probabilities, truth), abs=1e-12)


def test_weights_count_an_image_several_times():
    confidence, correct = np.array([0.9, 0.6, 0.61]), np.array([True, False, True])
    doubled = calibration_error(np.append(confidence, 0.6), np.append(correct, False))
    assert calibration_error(confidence, correct, weights=np.array([1, 2, 1])) == pytest.approx(doubled)


def test_reliability_bins_hold_every_image_once():
    confidence = np.array([0.2, 0.21, 0.95, 1.0])  # 0.2 closes bin (2/15, 3/15]
    rows = reliability(confidence, np.array([True, False, True, True]))
    assert [row.images for row in rows] == [1, 1, 2]
    assert rows[0].high == pytest.approx(0.2)
    assert rows[2].confidence == pytest.approx(0.975)
    assert rows[2].accuracy == 1.0
