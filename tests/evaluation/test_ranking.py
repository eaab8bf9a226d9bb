"""Average precision and AUROC against scikit-learn, and their influence against what one more image does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from saccade.evaluation.groups import Groups
from saccade.evaluation.ranking import Ranking, rank_classes

FIGURES = {"average_precision": sk.average_precision_score, "auroc": sk.roc_auc_score}


def drawn(images, seed, levels=6):
    """Scores with many ties; images of the class and others."""
    generator = np.random.default_rng(seed)
    truth = generator.random(images) < 0.4
    truth[:2] = [True, False]
    return truth, generator.integers(levels, size=images) / levels


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(1, 9), st.integers(0, 10**6))
def test_figures_equal_scikit_learns_also_with_ties(images, levels, seed):
    truth, scores = drawn(images, seed, levels)
    for name, reference in FIGURES.items():
        value, influence = getattr(Ranking.of(truth, scores), name)()
        assert value == pytest.approx(reference(truth, scores), abs=1e-12), name
        assert influence.sum() == pytest.approx(0, abs=1e-12), name


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_the_influence_is_what_a_little_more_of_an_image_does(name):
    truth, scores = drawn(30, seed=1)
    _, influence = getattr(Ranking.of(truth, scores), name)()
    little = 1e-6
    for image in range(30):
        weights = np.ones(30)
        weights[image] += little
        more = FIGURES[name](truth, scores, sample_weight=weights)
        assert influence[image] == pytest.approx((more - FIGURES[name](truth, scores)) / little, abs=1e-5)


def test_classes_without_images_have_no_figure_and_do_not_count():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    found = rank_classes(np.array([0, 1, 1]), probabilities, Groups.alone(3))
    assert found.average_precision[2] is None
    assert found.auroc[2] is None
    assert found.macro_auroc.value == pytest.approx((1 + 1) / 2)
    alone = rank_classes(np.array([0, 0, 0]), probabilities, Groups.alone(3))
    assert alone.auroc == (None, None, None)
    assert alone.macro_auroc is None
    assert alone.macro_average_precision.value == 1


def test_a_perfect_ranking_is_not_certain():
    truth = np.repeat([0, 1], 20)
    probabilities = np.where(truth[:, None] == np.arange(2), 0.9, 0.1)
    found = rank_classes(truth, probabilities, Groups.alone(40))
    for interval in (
        *found.average_precision,
        *found.auroc,
        found.macro_auroc,
        found.macro_average_precision,
    ):
        assert interval.value == interval.high == 1
        assert 0.6 < interval.low < 0.95
