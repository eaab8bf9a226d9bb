"""Binned, adaptive and smooth ECE, each against an independent computation; before and after temperature."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from saccade.evaluation.calibration import ece, softmax
from saccade.evaluation.calibration_errors import CalibrationErrors
from saccade.evaluation.intervals import sum_of_sizes_interval
from saccade.evaluation.metrics import measure, metrics_as_json
from saccade.records import Predictions
from saccade.testing.metrics import example_predictions


def drawn(images, seed, too_sure=1.5):
    """Distinct confidences and whether each answer is right."""
    generator = np.random.default_rng(seed)
    confidence = generator.beta(4, 2, size=images)
    return confidence, generator.random(images) < confidence**too_sure


def once(confidence, correct):
    return CalibrationErrors(confidence, correct).values()


def naive_adaptive(confidence, correct):
    order = np.argsort(confidence)
    parts = np.array_split(order, 15)  # for distinct confidences and a multiple of 15 images
    return sum(len(p) * abs(correct[p].mean() - confidence[p].mean()) for p in parts) / len(order)


def naive_smooth(confidence, correct):
    """The kernel of every image, reflected at 0 and 1, summed up over 500 places; width by halving."""
    places = (np.arange(500) + 0.5) / 500
    centres = np.concatenate([m + side * confidence for m in range(-6, 7, 2) for side in (1, -1)])
    gaps = np.tile(correct - confidence, 14)

    def error(width):
        kernel = np.exp(-(((places[:, None] - centres) / width) ** 2) / 2)
        return np.abs(kernel @ gaps).mean() / (width * np.sqrt(2 * np.pi) * len(confidence))

    low, high = 1e-4, 1.0
    for _ in range(12):
        width = (low + high) / 2
        low, high = (width, high) if error(width) > width else (low, width)
    return low


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6))
def test_binned_and_adaptive_errors_equal_their_loops(fifteens, seed):
    confidence, correct = drawn(15 * fifteens, seed)
    found = once(confidence, correct)
    two_columns = np.column_stack([confidence, np.zeros_like(confidence)])
    assert found[0] == pytest.approx(ece(two_columns, np.where(correct, 0, 1)), abs=1e-12)
    assert found[1] == pytest.approx(naive_adaptive(confidence, correct), abs=1e-12)


@pytest.mark.parametrize(("images", "too_sure"), [(40, 3.0), (150, 1.0), (150, 2.0)])
def test_the_smooth_error_equals_a_sum_over_images_and_places(images, too_sure):
    confidence, correct = drawn(images, seed=images, too_sure=too_sure)
    assert once(confidence, correct)[2] == pytest.approx(naive_smooth(confidence, correct), abs=2e-3)


def test_weights_count_an_image_several_times():
    confidence, correct = drawn(60, seed=0)
    weights = np.random.default_rng(0).integers(1, 3, size=60)
    errors = CalibrationErrors(confidence, correct)
    binned, adaptive, smooth = errors.gaps(weights[None, :].astype(float))
    rows = np.repeat(np.arange(60), weights)
    assert np.abs(binned).sum() == pytest.approx(once(confidence[rows], correct[rows])[0], abs=1e-12)
    whole = (correct - confidence)[rows].mean()  # what a kernel or bins do not change
    assert (adaptive.sum(), smooth.sum()) == (pytest.approx(whole), pytest.approx(whole))


def scaled(temperature, images=1500):
    """Logits too large by `temperature`, and predictions of them divided by it."""
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(images, 4)) * 2
    chance = softmax(logits)
    truth = (generator.random((images, 1)) > chance.cumsum(axis=1)).sum(axis=1)
    names = ("a", "b", "c", "d")
    paths = tuple(f"{i:05d}" for i in range(images))
    labels = tuple(names[i] for i in truth)
    return logits * temperature, truth, Predictions(paths, labels, names, chance)


def test_before_the_temperature_stands_what_the_network_said():
    logits, truth, made = scaled(2.5)
    found = measure(made, temperature=2.5).extra["calibration"]
    assert found["temperature"] == 2.5
    assert found["before"]["log_loss"] == pytest.approx(log_loss(truth, softmax(logits), labels=range(4)))
    assert found["before"]["binned"] == pytest.approx(ece(softmax(logits), truth))
    for name in ("binned", "adaptive", "smooth"):
        assert found["after"][name] < found["before"][name] / 3
        for case in ("before", "after"):
            low, high = found[case]["intervals"][name]
            assert 0 <= low <= found[case][name] <= high
        assert found["after"]["intervals"][name][1] < found["before"]["intervals"][name][0]


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_without_a_temperature_there_is_no_before(temperature):
    values = metrics_as_json(measure(example_predictions(50, 3, seed=0), temperature=temperature))
    found = values["extra"]["calibration"]
    assert (found["temperature"], found["before"]) == (temperature, None)
    assert found["after"]["binned"] == pytest.approx(values["ece"])
    assert found["after"]["log_loss"] == pytest.approx(values["log_loss"])


def test_each_class_has_the_error_of_the_images_that_are_called_it():
    made = example_predictions(200, 3, seed=0)
    made.probabilities[:, 2] /= 1e6  # so that it is never named
    rows = measure(made).extra["calibration"]["per_class"]
    predicted, correct = np.array(made.predicted), np.array(made.predicted) == np.array(made.labels)
    for row in rows[:2]:
        own = predicted == row["label"]
        sure = np.column_stack([made.confidence[own], np.zeros(own.sum())])
        assert row["images"] == own.sum()
        assert (row["confidence"], row["right"]) == (
            pytest.approx(made.confidence[own].mean()),
            pytest.approx(correct[own].mean()),
        )
        assert row["ece"] == pytest.approx(ece(sure, np.where(correct[own], 0, 1)))
        assert 0 <= row["low"] <= row["ece"] <= row["high"]
    assert (rows[2]["images"], rows[2]["ece"], rows[2]["right"]) == (0, None, None)


def test_sizes_that_chance_makes_are_allowed_for():
    """Normal parts: where the truth is 0 in all, in some or in none of them."""
    generator = np.random.default_rng(0)
    for truth in (np.zeros(15), np.repeat([0.0, 1.0, 3.0], 5), np.full(15, 3.0)):
        held = []
        for _ in range(200):
            parts = truth + generator.normal(size=15)
            drawn = parts + generator.normal(size=(200, 15))
            found = sum_of_sizes_interval(parts, drawn, 10_000)
            assert found.low <= found.value <= found.high
            held.append(found.low <= truth.sum() <= found.high)
        assert 0.87 < np.mean(held) < 0.995
