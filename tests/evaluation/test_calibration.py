"""Softmax, temperature, reliability and ECE, each against an independent computation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from saccade.evaluation.calibration import (
    SHARPENING_IMAGES,
    TEMPERATURE_BOUNDS,
    calibration_error,
    choose_temperature,
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


@pytest.mark.parametrize("images", [0, 1, 2, 5, 9])
def test_a_handful_of_images_leaves_the_temperature_alone_and_says_so(images):
    logits, truth = calibrated_logits(max(images, 1), 3, temperature=4.0)
    chosen = choose_temperature(logits[:images], truth[:images])
    assert chosen.value == 1.0
    assert f"{images} validation images are too few" in chosen.note


@pytest.mark.parametrize("images", [10, 23, SHARPENING_IMAGES - 1])
@pytest.mark.parametrize("seed", range(3))
def test_few_images_never_make_a_model_more_certain(images, seed):
    """All of a few right by luck: fitted alone the temperature falls to 0.1, and new images pay for it."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(4, size=images)
    logits = generator.normal(size=(images, 4)) * 0.2
    logits[np.arange(images), truth] += 1.0
    assert fit_temperature(logits, truth) < 0.6
    chosen = choose_temperature(logits, truth)
    assert chosen.value == 1.0
    assert "too few to make a model more certain" in chosen.note


@pytest.mark.parametrize("images", [12, 23, 60, 250])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_on_new_images_it_is_never_much_worse_than_none(images, temperature):
    losses = []
    for seed in range(8):
        logits, truth = calibrated_logits(images, 4, temperature=temperature, seed=seed)
        new, new_truth = calibrated_logits(1000, 4, temperature=temperature, seed=100 + seed)
        chosen = choose_temperature(logits, truth).value
        losses.append([image_losses(softmax(new, t), new_truth).mean() for t in (1.0, chosen)])
    without, chosen = np.mean(losses, axis=0)
    assert chosen <= without + 0.01


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_with_many_images_regularisation_no_longer_matters(temperature):
    logits, truth = calibrated_logits(4000, 5, temperature=temperature)
    chosen = choose_temperature(logits, truth)
    assert chosen.value == pytest.approx(fit_temperature(logits, truth), rel=0.01)
    assert not chosen.note


def test_a_temperature_that_held_out_images_do_not_confirm_is_left_out():
    made = [choose_temperature(*calibrated_logits(120, 4, temperature=1.0, seed=seed)) for seed in range(8)]
    left = [chosen for chosen in made if chosen.note]
    assert len(left) >= 2
    assert {chosen.value for chosen in left} == {1.0}
    assert all("on held-out validation images it did not lower the log loss" in c.note for c in left)


def test_copies_are_held_out_together():
    """Fifty copies each of three images, of which one is wrong: their folds do not confirm each other."""
    logits = np.repeat([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0]], 50, axis=0)
    truth = np.repeat([0, 0, 1], 50)
    groups = [f"picture {image // 50}" for image in range(150)]
    assert choose_temperature(logits, truth).value != 1.0
    assert choose_temperature(logits, truth, groups).value == 1.0
    alone = choose_temperature(logits, truth, ["one"] * 150)
    assert "they all belong together" in alone.note


def test_a_perfect_part_is_not_taken_for_certainty():
    logits, truth = np.tile([1.0, 0.0, 0.0], (80, 1)), np.zeros(80, dtype=int)
    chosen = choose_temperature(logits, truth).value
    assert fit_temperature(logits, truth) <= chosen < 1.0


def test_a_temperature_at_its_bound_is_said():
    wrong, truth = np.tile([-5.0, 5.0], (2000, 1)), np.zeros(2000, dtype=int)
    wrong[::40, 0] = 6.0
    chosen = choose_temperature(wrong, truth)
    assert chosen.value == pytest.approx(TEMPERATURE_BOUNDS[1], rel=0.01)
    assert "stands at its bound, 20: these confidences say nothing" in chosen.note
    assert choose_temperature(*calibrated_logits(400, 3, temperature=2.0)).note == ""
