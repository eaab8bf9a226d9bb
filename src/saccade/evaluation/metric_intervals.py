"""The 95 % intervals of the figures of one part: Wilson's for shares, the bootstrap for what is no share.

Where images belong together, both go by group (`saccade.evaluation.groups`). A part without a mistake is
never called certain: what resampling cannot see there, Wilson's interval does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.answers import Answers
from saccade.evaluation.calibration import image_losses
from saccade.evaluation.class_counts import ClassCounts, ClassSums
from saccade.evaluation.groups import Groups, Worth, mean_quantile
from saccade.evaluation.intervals import (
    RESAMPLES,
    f1_of_share,
    mean_interval,
    percentile_interval,
    widest,
    wilson_of_share,
)
from saccade.evaluation.ranking import ClassRankings
from saccade.records import Interval

BOOTSTRAP_SEED = 0
# Where a resample costs little there are more: the noise of 400 takes a third of a point of coverage.
MOST_RESAMPLES, RESAMPLED_IMAGES = 1000, 4_000_000
# What is resampled, by the name it has in metrics/*.json
RESAMPLED = ("macro_f1", "weighted_f1", "cohen_kappa", "matthews", "log_loss", "brier")
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def resamples(images: int) -> int:
    """How often so many images are resampled.

    >>> resamples(500), resamples(10_000)
    (1000, 400)
    """
    return max(RESAMPLES, min(MOST_RESAMPLES, RESAMPLED_IMAGES // images))


def share_interval(right: NDArray[np.bool_], groups: Groups, rows: Rows | None = None) -> Interval | None:
    """95 % interval of the share of some images (all where `rows` is None) that is `right`; None for none.

    right: (images,). Wilson's, with as many images as they are worth by group.

    >>> share_interval(np.arange(10) > 0, Groups.alone(10)).low.__round__(3)
    0.596
    """
    rows = np.arange(len(right)) if rows is None else rows
    if not len(rows):
        return None
    inside = right[rows]
    return _wilson(int(inside.sum()) / len(rows), groups.worth(inside, rows))


def _wilson(share: float, worth: Worth) -> Interval:
    return wilson_of_share(share, worth.images, worth.z)


def intervals(
    data: Answers, accuracy: Interval, ranked: ClassRankings, top_k: Iterable[int]
) -> dict[str, Any]:
    """95 % [low, high] of every figure but ECE, by its name; null for a figure or class that has none."""
    drawn = _Drawn.of(data)
    found = _of_classes(data)
    precise, auroc = ranked.macro_average_precision, ranked.macro_auroc
    whole = {
        **_beyond_chance(drawn, data.counts, accuracy),
        **_means(drawn, data),
        **{name: drawn.interval(name) if data.groups.count > 1 else None for name in ("log_loss", "brier")},
        "micro_f1": accuracy,  # each image is one decision
        "macro_average_precision": precise,
        "macro_auroc": auroc,
    }
    found |= {"average_precision": ranked.average_precision, "auroc": ranked.auroc}
    rank = data.rank
    return {
        **{name: bounds(interval) for name, interval in whole.items()},
        "top_k": {str(k): bounds(share_interval(rank < k, data.groups)) for k in top_k},
        **{name: [bounds(interval) for interval in column] for name, column in found.items()},
    }


def bounds(interval: Interval | None) -> list[float] | None:
    """As metrics/*.json has them."""
    return None if interval is None else [interval.low, interval.high]


# -- each class --------------------------------------------------------------------------------------


def _of_classes(data: Answers) -> dict[str, Any]:
    """Precision, recall and F1: shares of the images that are called, are, or either of both, a class."""
    correct, groups = data.correct, data.groups
    of, called = (_rows_by_class(index, len(data.classes)) for index in (data.truth, data.predicted))
    either = [np.union1d(true, named) for true, named in zip(of, called, strict=True)]
    shares = [share_interval(correct, groups, rows) for rows in either]
    return {
        "precision": [share_interval(correct, groups, rows) for rows in called],
        "recall": [share_interval(correct, groups, rows) for rows in of],
        "f1": [share and f1_of_share(share) for share in shares],
    }


def _rows_by_class(index: NDArray[np.int64], classes: int) -> list[Rows]:
    ends = np.cumsum(np.bincount(index, minlength=classes))
    return np.split(np.argsort(index, kind="stable"), ends[:-1])


# -- all classes -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The figures of RESAMPLED: (figures,) as measured, and (resamples, figures) of resampled images."""

    measured: Floats
    resampled: Floats
    units: int

    @classmethod
    def of(cls, data: Answers) -> _Drawn:
        images = len(data.truth)
        figures = _Figures(data)
        drawn = data.groups.resampled(seed=BOOTSTRAP_SEED, resamples=resamples(images))
        measured = figures.of(np.ones((1, images)))[0]
        return cls(measured, np.concatenate([figures.of(weights) for weights in drawn]), data.groups.count)

    def interval(self, name: str) -> Interval:
        column = RESAMPLED.index(name)
        return percentile_interval(float(self.measured[column]), self.resampled[:, column], self.units)


class _Figures:
    """The figures of RESAMPLED for many weights at once: sums by class, and means over the images."""

    def __init__(self, data: Answers) -> None:
        classes = len(data.classes)
        right = np.where(data.correct, data.truth, classes)
        self._sums = [ClassSums(index, classes) for index in (right, data.truth, data.predicted)]
        losses = image_losses(data.probabilities, data.truth)
        self._columns = np.column_stack([losses, data.brier])

    def of(self, weights: Floats) -> Floats:
        """(resamples, figures) for weights (resamples, images)."""
        counts = ClassCounts(*(sums.of(weights) for sums in self._sums))
        means = weights @ self._columns / weights.sum(axis=1, keepdims=True)
        by_class = [counts.macro_f1, counts.weighted_f1, counts.cohen_kappa, counts.matthews]
        return np.column_stack([*by_class, means[:, 0], means[:, 1]])


def resampled_figures(data: Answers, weights: Floats) -> dict[str, Floats]:
    """(resamples,) of each of RESAMPLED, for weights (resamples, images) that count images several times."""
    return dict(zip(RESAMPLED, _Figures(data).of(weights).T, strict=True))


def _means(drawn: _Drawn, data: Answers) -> dict[str, Interval]:
    """Means over the classes. Mistakes tie F1 of classes together, so the wider of two intervals is taken."""
    counts, groups = data.counts, data.groups
    rows = _rows_by_class(data.truth, len(data.classes))
    z = mean_quantile([groups.worth(data.correct[own], own) for own in rows if len(own)], groups.count)
    balanced, macro = _influences(data, counts)
    supports = counts.support[counts.support > 0]
    by_class = mean_interval(
        float(counts.balanced_accuracy), (supports / groups.effect(balanced)).tolist(), z
    )
    macro_f1 = mean_interval(float(counts.macro_f1), (supports / groups.effect(macro)).tolist(), z)
    worth = groups.worth(data.correct, np.arange(len(data.truth)))
    weighted = _wilson(float(counts.weighted_f1), worth)
    return {
        "balanced_accuracy": by_class,
        "macro_f1": widest(macro_f1, drawn.interval("macro_f1")),
        "weighted_f1": widest(weighted, drawn.interval("weighted_f1")),
    }


def _influences(data: Answers, counts: ClassCounts) -> tuple[Floats, Floats]:
    """(images,) each: by how much each image moves balanced accuracy and macro F1."""
    truth, called, correct = data.truth, data.predicted, data.correct
    balanced = (correct - counts.recall[truth]) / counts.support[truth]
    both, f1 = counts.support + counts.predicted, counts.f1
    macro = (correct - f1[truth]) / both[truth] + (correct - f1[called]) / both[called]
    return balanced, np.asarray(macro)


def _beyond_chance(drawn: _Drawn, counts: ClassCounts, accuracy: Interval) -> Mapping[str, Interval | None]:
    """Kappa and Matthews' correlation: both rise in a line with accuracy where the class shares are as here.

    The accuracy's interval, mapped, and the resampled one, the wider of both; none where chance is all.
    """
    chance = float(counts.chance)
    scales = {"cohen_kappa": 1 - chance, "matthews": float(counts.spread)}
    return {name: _mapped(drawn.interval(name), accuracy, chance, by) for name, by in scales.items()}


def _mapped(resampled: Interval, accuracy: Interval, chance: float, scale: float) -> Interval | None:
    if scale <= np.finfo(np.float64).eps:
        return None
    low, high = ((bound - chance) / scale for bound in (accuracy.low, accuracy.high))
    found = widest(resampled, Interval(resampled.value, low, high))
    return Interval(found.value, max(-1.0, found.low), min(1.0, found.high))
