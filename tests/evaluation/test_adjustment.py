"""Logit adjustment after training: what it adds, how strong it is, and when it is left out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score

from saccade.evaluation.adjustment import choose_adjustment, log_shares, offsets
from saccade.evaluation.calibration import held_out_folds

COUNTS = (800, 150, 50)


def long_tailed(
    images: int, *, seed: int, spread: float = 1.2
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores (images, 3) that are the logarithms of exact posteriors under COUNTS, and labels.

    `spread` of the classes around centres that lie 1.4 apart.
    """
    random = np.random.default_rng(seed)
    labels = random.choice(3, images, p=np.array(COUNTS) / sum(COUNTS))
    centres = np.eye(3)
    values = centres[labels] + spread * random.normal(size=(images, 3))
    likelihood = -((values[:, None, :] - centres) ** 2).sum(2) / (2 * spread**2)
    return likelihood + log_shares(COUNTS), labels


def balanced(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return float(balanced_accuracy_score(labels, scores.argmax(1)))


def test_the_commonest_class_stays_and_rarer_ones_rise() -> None:
    assert offsets(0.0, COUNTS) == ()
    assert offsets(0.5, COUNTS) == pytest.approx([0, np.log(800 / 150) / 2, np.log(16) / 2])
    assert np.isfinite(offsets(1.0, (10, 0))).all()


@pytest.mark.parametrize(("seed", "spread"), [(0, 0.8), (1, 1.0), (2, 1.2), (3, 1.2), (4, 1.4)])
def test_with_exact_posteriors_the_strength_is_about_1_and_new_images_gain(seed: int, spread: float) -> None:
    chosen = choose_adjustment(*long_tailed(600, seed=seed, spread=spread), COUNTS)
    assert chosen.strength == pytest.approx(1.0, abs=0.4)
    scores, labels = long_tailed(20_000, seed=100 + seed, spread=spread)
    after = balanced(scores + offsets(chosen.strength, COUNTS), labels)
    assert after > balanced(scores, labels) + 0.1
    assert after > balanced(scores + offsets(1.0, COUNTS), labels) - 0.02


def test_the_note_has_the_figures_of_scikit_learn_on_images_held_out() -> None:
    scores, labels = long_tailed(600, seed=0)
    fold_of, answered = held_out_folds([str(image) for image in range(600)]), np.zeros_like(labels)
    for fold in range(5):
        out = fold_of == fold
        strength = choose_adjustment(scores[~out], labels[~out], COUNTS).strength
        answered[out] = (scores[out] + offsets(strength, COUNTS)).argmax(1)
    before, after = balanced(scores, labels), balanced_accuracy_score(labels, answered)
    note = choose_adjustment(scores, labels, COUNTS).note
    assert f"{before:.1%} without and {after:.1%} with" in note
    assert f"{(answered == labels).mean():.1%}, on held-out validation images" in note


def test_a_gain_that_may_be_chance_is_left_out() -> None:
    """Scores that say nothing: whatever is named, balanced accuracy is a third."""
    random = np.random.default_rng(0)
    kept = 0
    for _ in range(40):
        labels = random.choice(3, 80, p=np.array(COUNTS) / sum(COUNTS))
        scores = random.normal(size=(80, 3))
        kept += choose_adjustment(scores, labels, COUNTS).strength > 0
    assert kept <= 6


def test_equally_common_classes_are_left_alone() -> None:
    scores, labels = long_tailed(300, seed=0)
    chosen = choose_adjustment(scores, labels, (10, 10, 10))
    assert chosen.strength == 0
    assert chosen.note.startswith("no logit adjustment: strength 1 gains nothing certain (balanced accuracy")


def test_what_belongs_together_counts_once() -> None:
    """One picture of a rare class in many copies proves no more than the picture."""
    scores = np.array([[2.0, 0.0], [0.2, 0.1], [3.0, 0.0]])
    labels = np.array([0, 1, 0])
    copies = np.repeat([0, 1, 2], [10, 30, 10])
    alone = choose_adjustment(scores[copies], labels[copies], (90, 10))
    together = choose_adjustment(scores[copies], labels[copies], (90, 10), [str(c) for c in copies])
    assert alone.strength > 0
    assert together.strength == 0
    one = choose_adjustment(scores[copies], labels[copies], (90, 10), ["a"] * len(copies))
    assert (one.strength, one.note) == (0, "no logit adjustment: too few validation images to judge it")
