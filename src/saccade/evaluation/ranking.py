"""How well the probability of a class tells its images from the others: average precision and AUROC.

Beside each figure stands its influence: by how much one more of an image would move the figure. Its squares,
summed by group, are the variance (the infinitesimal jackknife; for AUROC that is DeLong's).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.groups import Groups, Worth, mean_quantile
from saccade.evaluation.intervals import mean_interval, wilson_of_share
from saccade.records import Interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Images from the highest score on, equal scores in one block.

    `block` (images,) is each image's. Of each block (blocks,): images of the class in it, and those of the
    class and of any class down to its end.

    >>> ranking = Ranking.of(np.array([True, False, True]), np.array([0.9, 0.8, 0.1]))
    >>> round(ranking.average_precision()[0], 3), ranking.auroc()[0]
    (0.833, 0.5)
    """

    truth: Bools
    block: NDArray[np.int64]
    inside: Floats
    found: Floats
    seen: Floats

    @classmethod
    def of(cls, truth: Bools, scores: Floats) -> Ranking:
        """truth: (images,) which are of the class. scores: (images,) what rises with belief in it."""
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        block = np.empty(len(scores), np.int64)
        block[order] = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
        found = np.cumsum(truth[order])[ends].astype(np.float64)
        return cls(truth, block, np.diff(found, prepend=0.0), found, np.asarray(ends + 1, np.float64))

    def average_precision(self) -> tuple[float, Floats]:
        """The figure and its influence (images,). Some image must be of the class.

        Sum of (rise of recall) x precision over the distinct scores, as in scikit-learn.
        """
        positives, precision = self.found[-1], self.found / self.seen
        value = float((self.inside * precision).sum() / positives)
        others = _from_here_down(-self.inside * precision / self.seen)
        own = precision - value + others + _from_here_down(self.inside / self.seen)
        return value, np.where(self.truth, own[self.block], others[self.block]) / positives

    def auroc(self) -> tuple[float, Floats]:
        """Share of pairs of an image of the class and another that stand right; a tie is half a pair.

        With the influence (images,). There must be images of the class, and others. Source: E. R. DeLong and
        others, Biometrics 44 (1988) 837-845; by group N. A. Obuchowski, Biometrics 53 (1997) 567-578.
        """
        positives = self.found[-1]
        negatives = self.seen[-1] - positives
        beside = np.diff(self.seen, prepend=0.0) - self.inside
        below = (negatives - (self.seen - self.found) + beside / 2) / negatives
        above = (self.found - self.inside / 2) / positives
        value = float((self.inside * below).sum() / positives)
        own, others = (below - value) / positives, (above - value) / negatives
        return value, np.where(self.truth, own[self.block], others[self.block])


def _from_here_down(values: Floats) -> Floats:
    return np.asarray(np.cumsum(values[::-1])[::-1])


@dataclass(frozen=True, slots=True)
class ClassRankings:
    """Both figures of each class, with intervals, and their means over the classes that have them.

    None: for average precision a class without images; for AUROC also one without images of others.
    """

    average_precision: tuple[Interval | None, ...]
    auroc: tuple[Interval | None, ...]
    macro_average_precision: Interval | None
    macro_auroc: Interval | None


def rank_classes(truth: NDArray[np.int64], probabilities: Floats, groups: Groups) -> ClassRankings:
    """truth: (images,) true class of each. probabilities: (images, classes).

    >>> found = rank_classes(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), Groups.alone(2))
    >>> found.macro_auroc.value
    1.0
    """
    precision, auroc = _OverClasses(groups, power=2), _OverClasses(groups, power=1)
    for label, scores in enumerate(probabilities.T):
        own = truth == label
        inside, outside = np.flatnonzero(own), np.flatnonzero(~own)
        if not len(inside):
            precision.add_none()
            auroc.add_none()
            continue
        ranking, worth = Ranking.of(own, scores), groups.worth(np.ones(len(inside)), inside)
        precision.add(*ranking.average_precision(), worth)
        if len(outside):
            auroc.add(*ranking.auroc(), _less_than_either(worth, groups, outside))
        else:
            auroc.add_none()
    return ClassRankings(tuple(precision.found), tuple(auroc.found), precision.mean(), auroc.mean())


def _less_than_either(worth: Worth, groups: Groups, outside: NDArray[np.int64]) -> Worth:
    """What pairs of some images and of those `outside` are worth: 1/n is the sum of both 1/n."""
    others = groups.worth(np.ones(len(outside)), outside)
    few = min(worth, others, key=lambda one: one.units)
    return Worth(1 / (1 / worth.images + 1 / others.images), max(worth.z, others.z), few.units)


class _OverClasses:
    """Collects a figure of each class: intervals, and what their mean needs.

    `power`: the variance from n units is taken n / (n - 1) times, or the square of that. AUROC has DeLong's
    variance then. Average precision bends more where images are few (benchmarks/intervals.py).
    """

    def __init__(self, groups: Groups, *, power: int) -> None:
        self.found: list[Interval | None] = []
        self._power, self._beyond = power, 0.0
        self._groups = groups
        self._influence = np.zeros(len(groups.of))
        self._worth: list[Worth] = []

    def add_none(self) -> None:
        self.found.append(None)

    def add(self, value: float, influence: Floats, worth: Worth) -> None:
        """`worth` is what the class's images are worth where the figure is perfect and shows no variance."""
        value = min(1.0, value)
        variance = self._groups.variance(influence)
        beyond = variance * (_few(worth) ** self._power - 1) if variance else 0.0
        images = _independent(value, variance + beyond)
        self._beyond += beyond
        self.found.append(wilson_of_share(value, images or worth.images, worth.z))
        self._influence += influence
        self._worth.append(worth)

    def mean(self) -> Interval | None:
        values = [interval.value for interval in self.found if interval]
        if not values:
            return None
        mean = min(1.0, sum(values) / len(values))
        variance = self._groups.variance(self._influence / len(values)) + self._beyond / len(values) ** 2
        images = _independent(mean, variance)
        z = mean_quantile(self._worth, self._groups.count)
        if images:
            return wilson_of_share(mean, images, z)
        return mean_interval(mean, [worth.images for worth in self._worth], z)


def _few(worth: Worth) -> float:
    """What the variance of so few units is too small by, as in the variance of a sample."""
    return worth.units / (worth.units - 1) if worth.units > 1 else np.inf


def _independent(value: float, variance: float) -> float:
    """How many independent images would give a share this variance; 0 where none can be told."""
    spread = value * (1 - value)
    told = np.isfinite(variance) and variance > 0 and spread > 0
    return max(1.0, spread / variance) if told else 0.0
