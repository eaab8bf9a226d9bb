"""Logit adjustment after training: rare classes are named more readily, by how much validation says.

Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021, section 4.1. A class's score is
lowered by `strength` times the logarithm of its share of the training images. For probabilities that are
right, strength 1 names as many images of each class right as can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.evaluation.calibration import held_out_folds

STRENGTHS = tuple(round(0.1 * step, 1) for step in range(1, 21))
BY_THEORY = 1.0
LIKELY = 1.0  # standard errors that a gain must exceed


@dataclass(frozen=True, slots=True)
class Adjustment:
    """How strong, and what is to be said about it. `strength` 0 is none."""

    strength: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Judged:
    """Validation images: scores (images, classes), labels (images,), and what belongs together (images,)."""

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    group_of: NDArray[np.int64]
    logs: NDArray[np.float64]

    def part(self, rows: NDArray[np.bool_]) -> _Judged:
        """These images alone."""
        return _Judged(self.scores[rows], self.labels[rows], self.group_of[rows], self.logs)

    def right(self, strength: float) -> NDArray[np.float64]:
        """(images,) 1 where the class named is the true one."""
        named = (self.scores - strength * self.logs).argmax(axis=1)
        return np.asarray(named == self.labels, dtype=np.float64)

    def balanced(self, right: NDArray[np.float64]) -> float:
        """Mean over the classes of the share of their images that is right."""
        return float((self._weights() * right).sum())

    def gain(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float]:
        """Difference of balanced accuracy, and its standard error over what belongs together, paired."""
        changes = self._weights() * (after - before)
        sums = np.bincount(self.group_of, weights=changes)
        return float(changes.sum()), float(np.sqrt((sums**2).sum()))

    def _weights(self) -> NDArray[np.float64]:
        counts = np.bincount(self.labels, minlength=self.scores.shape[1])
        return np.asarray(1 / (counts[self.labels] * np.count_nonzero(counts)))


def offsets(strength: float, class_counts: Sequence[int]) -> tuple[float, ...]:
    """What is added to each class's logit: 0 for the commonest class, more for rarer ones.

    >>> [round(value, 2) for value in offsets(1.0, [90, 10])]
    [0.0, 2.2]
    """
    logs = log_shares(class_counts)
    return tuple((strength * (logs.max() - logs)).tolist()) if strength else ()


def log_shares(class_counts: Sequence[int]) -> NDArray[np.float64]:
    """(classes,) logarithms of the shares of the classes; an empty class counts as one image."""
    counts = np.maximum(np.asarray(class_counts, dtype=np.float64), 1)
    return np.asarray(np.log(counts / counts.sum()))


def choose_adjustment(
    scores: ArrayLike,
    label_indices: ArrayLike,
    class_counts: Sequence[int],
    groups: Sequence[str] | None = None,
) -> Adjustment:
    """The strength for the best balanced accuracy on validation images, kept where it is likely a gain.

    scores: (images, classes) calibrated logits of the validation part. label_indices: (images,) column of
    each true class. class_counts: training images of each class. groups: (images,) names of what belongs
    together. Among strengths that cannot be told from the best one, that nearest to 1 is taken. Whether it is
    kept is judged on held-out images: in folds, each with the strength that the others ask for. They must
    gain more than a standard error of the paired difference.

    >>> choose_adjustment([[1.0, 0.9], [1.0, 0.1]], [1, 0], [10, 10]).strength
    0.0
    """
    labels = np.asarray(label_indices, dtype=np.int64)
    names = groups or [str(image) for image in range(len(labels))]
    if len(set(names)) < 2:
        return Adjustment(0.0, "no logit adjustment: too few validation images to judge it")
    group_of = np.unique(np.asarray(names), return_inverse=True)[1]
    judged = _Judged(np.asarray(scores, dtype=np.float64), labels, group_of, log_shares(class_counts))
    strength, plain = _as_good_as_the_best(judged), judged.right(0.0)
    adjusted = _right_held_out(judged, held_out_folds(names))
    gain, error = judged.gain(plain, adjusted)
    before, after = judged.balanced(plain), judged.balanced(adjusted)
    told = (
        f"balanced accuracy {before:.1%} without and {after:.1%} with, accuracy {plain.mean():.1%} and "
        f"{adjusted.mean():.1%}, on held-out validation images"
    )
    if gain <= LIKELY * error * (1 + 1e-9):  # one image, or images that belong together, prove nothing
        return Adjustment(0.0, f"no logit adjustment: strength {strength:g} gains nothing certain ({told})")
    return Adjustment(strength, f"logit adjustment of strength {strength:g}: {told}")


def _right_held_out(judged: _Judged, fold_of: NDArray[np.int64]) -> NDArray[np.float64]:
    """As `right`, each fold by the strength that the other folds ask for."""
    right = np.zeros(len(judged.labels))
    for fold in range(fold_of.max() + 1):
        out = fold_of == fold
        right[out] = judged.part(out).right(_as_good_as_the_best(judged.part(~out)))
    return right


def _as_good_as_the_best(judged: _Judged) -> float:
    """The strength nearest to 1 among those that are within a standard error of the best."""
    right = {strength: judged.right(strength) for strength in STRENGTHS}
    best = max(STRENGTHS, key=lambda strength: judged.balanced(right[strength]))
    near = []
    for strength in STRENGTHS:
        lost, error = judged.gain(right[strength], right[best])
        if lost <= error:
            near.append(strength)
    return min(near, key=lambda strength: abs(strength - BY_THEORY))
