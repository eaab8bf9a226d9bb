"""What the counts of a confusion matrix say, for one set of images or for many resampled ones at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """(..., classes) images each: rightly named, of the class, and called it. Every figure is (...).

    >>> counts = ClassCounts.of(np.array([[2, 0], [1, 1]]))
    >>> float(counts.balanced_accuracy), float(counts.cohen_kappa), round(float(counts.matthews), 3)
    (0.75, 0.5, 0.577)
    """

    right: Floats
    support: Floats
    predicted: Floats

    @classmethod
    def of(cls, confusion: NDArray[np.int64]) -> ClassCounts:
        """Those of (classes, classes) images, rows are true classes."""
        cells = confusion.astype(np.float64)
        return cls(np.diag(cells), cells.sum(axis=1), cells.sum(axis=0))

    @property
    def images(self) -> Floats:
        return np.asarray(self.support.sum(axis=-1))

    @property
    def accuracy(self) -> Floats:
        return np.asarray(self.right.sum(axis=-1) / self.images)

    @property
    def precision(self) -> Floats:
        """(..., classes), 0 where nothing was predicted."""
        return share(self.right, self.predicted)

    @property
    def recall(self) -> Floats:
        """(..., classes), 0 for a class without images."""
        return share(self.right, self.support)

    @property
    def f1(self) -> Floats:
        """(..., classes), 0 for a class that neither occurs nor is predicted."""
        return share(2 * self.right, self.support + self.predicted)

    @property
    def balanced_accuracy(self) -> Floats:
        """Mean recall; a class without images has none and does not count."""
        return _mean(self.recall, self.support > 0)

    @property
    def macro_f1(self) -> Floats:
        """Mean F1; a class that neither occurs nor is predicted does not count (as in scikit-learn)."""
        return _mean(self.f1, self.support + self.predicted > 0)

    @property
    def weighted_f1(self) -> Floats:
        """Mean F1, each class counting as often as it occurs."""
        return np.asarray((self.f1 * self.support).sum(axis=-1) / self.images)

    @property
    def chance(self) -> Floats:
        """Share that would be right by chance, with these shares of true and of predicted classes."""
        return np.asarray((self.support * self.predicted).sum(axis=-1) / self.images**2)

    @property
    def spread(self) -> Floats:
        """Geometric mean of the shares that true classes and predicted ones would differ by chance."""
        support, predicted = ((n / self.images[..., None]) for n in (self.support, self.predicted))
        both = (1 - (support**2).sum(axis=-1)) * (1 - (predicted**2).sum(axis=-1))
        return np.asarray(np.sqrt(np.maximum(both, 0)))

    @property
    def cohen_kappa(self) -> Floats:
        """Agreement beyond chance, as a share of what is possible; 0 where nothing is."""
        return share(self.accuracy - self.chance, 1 - self.chance)

    @property
    def matthews(self) -> Floats:
        """Matthews' correlation of true and predicted classes; 0 where one of them never changes.

        Source: J. Gorodkin, Comput. Biol. Chem. 28 (2004) 367-374, for any number of classes.
        """
        total = self.images**2
        both = (total - (self.support**2).sum(axis=-1)) * (total - (self.predicted**2).sum(axis=-1))
        beyond = self.right.sum(axis=-1) * self.images - (self.support * self.predicted).sum(axis=-1)
        return share(beyond, np.sqrt(both))


class ClassSums:
    """Adds weights up by class: `of(weights)` is (resamples, classes) for weights (resamples, images).

    index: (images,) class of each image; `classes` and above are left out.

    >>> ClassSums(np.array([1, 0, 1]), 3).of(np.array([[1.0, 2.0, 4.0]])).tolist()
    [[2.0, 5.0, 0.0]]
    """

    def __init__(self, index: NDArray[np.int64], classes: int) -> None:
        inside = np.flatnonzero(index < classes)
        self._order = inside[np.argsort(index[inside], kind="stable")]
        counts = np.bincount(index[inside], minlength=classes)
        self._filled = np.flatnonzero(counts)
        self._starts = (np.cumsum(counts) - counts)[self._filled]
        self._classes = classes

    def of(self, weights: Floats) -> Floats:
        sums = np.zeros((len(weights), self._classes))
        if len(self._filled):
            sums[:, self._filled] = np.add.reduceat(weights.take(self._order, axis=1), self._starts, axis=1)
        return sums


def share(part: Any, whole: Any) -> Floats:
    """Part of a whole, element by element; 0 where there is no whole.

    >>> share([1, 0], [4, 0]).tolist()
    [0.25, 0.0]
    """
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


def _mean(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    return np.asarray((values * counted).sum(axis=-1) / counted.sum(axis=-1))
