"""Label sets hold the true class as often as was asked for, also for a model that is too sure of itself."""

import numpy as np
import pytest

from saccade.evaluation.answers import Answers, answers
from saccade.evaluation.conformal import LabelSets, choose_sets, judge_sets
from saccade.evaluation.groups import Groups
from saccade.records import Predictions

SHARES = np.array([0.4, 0.3, 0.2, 0.1])


def drawn(images, seed):
    """A classifier that is far too sure of itself, and confuses its first two classes."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(4, p=SHARES, size=images)
    logits = generator.normal(size=(images, 4))
    logits[np.arange(images), truth] += 1.5
    logits[truth < 2, :2] += 1.0
    values = np.exp(3 * logits)
    values /= values.sum(axis=1, keepdims=True)
    return Answers(truth, values.argmax(axis=1), values, ("a", "b", "c", "d"), Groups.alone(images))


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_is_within_a_point_of_what_was_asked_with_500_images(coverage):
    new = drawn(20_000, seed=10**6)
    held = [
        judge_sets(new, choose_sets(drawn(500, seed), coverage, part="validation"))["covered"]
        for seed in range(200)
    ]
    assert np.mean(held) == pytest.approx(coverage, abs=0.01)
    assert np.mean(held) > coverage - 0.002  # promised in the mean over choosing images


def test_by_class_the_images_of_each_class_are_covered():
    new = drawn(20_000, seed=10**6)
    held = []
    for seed in range(100):
        found = judge_sets(new, choose_sets(drawn(500, seed), 0.9, part="validation", by_class=True))
        held.append([row["covered"] for row in found["per_class"]])
    assert np.mean(held, axis=0) == pytest.approx(np.full(4, 0.9), abs=0.02)


def test_the_limit_is_the_one_that_enough_true_classes_reach():
    made = Predictions(
        tuple(str(i) for i in range(9)),
        ("cat",) * 9,
        ("cat", "dog"),
        np.array([[p / 10, 1 - p / 10] for p in range(1, 10)]),
    )
    limits = {c: choose_sets(answers(made), c, part="validation").limits[0] for c in (1e-12, 0.5, 0.9, 0.95)}
    assert limits == {
        1e-12: 0.9,
        0.5: 0.5,
        0.9: 0.1,
        0.95: 0.0,
    }  # of 9, 5 and all must reach it; 9.5 are not there


def test_sets_are_judged_by_how_often_they_hold_the_truth_and_by_their_size():
    made = Predictions(
        ("1", "2", "3", "4"),
        ("cat", "cat", "dog", "dog"),
        ("cat", "dog"),
        np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4], [0.7, 0.3]]),
    )
    found = judge_sets(answers(made), LabelSets(0.9, (0.4,), "validation", 100))
    assert (found["covered"], found["mean_size"], found["one"], found["empty"]) == (0.75, 1.5, 0.5, 0)
    assert found["low"] < 0.75 < found["high"]
    assert [row["covered"] for row in found["per_class"]] == [1.0, 0.5]
    assert judge_sets(answers(made), LabelSets(0.5, (0.95,), "validation", 100))["empty"] == 1
