"""Risk against coverage: areas against a loop over the thresholds and against the formula of the paper."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from saccade.evaluation.groups import Groups
from saccade.evaluation.intervals import wilson
from saccade.evaluation.risk_coverage import CURVE_POINTS, RiskCoverage, risk_coverage


def drawn(images, levels, seed):
    """Confidences with ties, more often right where sure."""
    generator = np.random.default_rng(seed)
    confidence = generator.integers(1, levels + 1, size=images) / levels
    return confidence, generator.random(images) < confidence


def naive_areas(confidence, correct):
    """Trapezoids over every threshold that occurs, the highest first."""
    points = []
    for threshold in sorted(set(confidence), reverse=True):
        answered = confidence >= threshold
        wrong = answered & ~correct
        points.append((answered.mean(), wrong.sum() / answered.sum(), wrong.mean()))
    points.insert(0, (0.0, points[0][1], 0.0))
    aurc = augrc = 0.0
    for (coverage, risk, unnoticed), (wider, later, more) in pairwise(points):
        aurc += (wider - coverage) * (risk + later) / 2
        augrc += (wider - coverage) * (unnoticed + more) / 2
    return aurc, augrc


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 10**6))
def test_areas_equal_a_loop_over_the_thresholds(images, levels, seed):
    confidence, correct = drawn(images, levels, seed)
    found = RiskCoverage(confidence, correct).areas(np.ones((1, images)))
    assert [area[0] for area in found] == pytest.approx(naive_areas(confidence, correct), abs=1e-12)


def test_augrc_is_what_the_paper_says_of_accuracy_and_of_the_ranking_of_mistakes():
    confidence, correct = drawn(400, 50, seed=1)
    accuracy, ranking = correct.mean(), roc_auc_score(correct, confidence)
    expected = (1 - ranking) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert RiskCoverage(confidence, correct).areas(np.ones((1, 400)))[1][0] == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10**6))
def test_weights_count_an_image_several_times(images, seed):
    confidence, correct = drawn(images, 9, seed)
    weights = np.random.default_rng(seed).poisson(1, size=images)
    weights[images // 2] += 1
    found = RiskCoverage(confidence, correct).areas(weights[None, :].astype(float))
    repeated = naive_areas(np.repeat(confidence, weights), np.repeat(correct, weights))
    assert [area[0] for area in found] == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize("images", [1, 7, 100, 2500])
def test_the_points_of_the_curve_are_what_their_thresholds_let_through(images):
    generator = np.random.default_rng(images)
    confidence = generator.random(images)
    correct = generator.random(images) < confidence
    points = RiskCoverage(confidence, correct).points()
    assert len(points) == min(images, CURVE_POINTS)
    assert points[-1]["coverage"] == 1
    assert points[-1]["risk"] == pytest.approx(1 - correct.mean())
    for point in points:
        answered = confidence >= point["threshold"]
        assert point["coverage"] == pytest.approx(answered.mean())
        assert point["risk"] == pytest.approx(1 - correct[answered].mean())


def test_intervals_hold_the_areas_and_a_part_without_a_mistake_is_not_certain():
    confidence, correct = drawn(200, 50, seed=0)
    groups = Groups.named([str(i // 4) for i in range(200)])
    found = risk_coverage(confidence, correct, groups, seed=0, resamples=200)
    for name in ("aurc", "augrc"):
        low, high = found["intervals"][name]
        assert low < found[name] < high
    perfect = risk_coverage(confidence, np.ones(200, bool), groups, seed=0, resamples=20)
    assert perfect["aurc"] == perfect["augrc"] == 0
    assert perfect["intervals"]["augrc"][1] == perfect["intervals"]["aurc"][1] / 2 > 0.03  # 50 groups


def test_where_every_answer_is_wrong_the_areas_are_not_certain_either():
    confidence, groups = np.linspace(0.5, 0.9, 20), Groups.alone(20)
    found = risk_coverage(confidence, np.zeros(20, bool), groups, seed=0, resamples=20)
    assert (found["aurc"], found["augrc"]) == (pytest.approx(1), pytest.approx(0.5))
    low = wilson(20, 20).low
    assert found["intervals"]["aurc"] == [pytest.approx(low), 1]
    assert found["intervals"]["augrc"] == [pytest.approx(low / 2), 0.5]
