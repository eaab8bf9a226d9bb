"""What is gained by answering only where the model is sure: risk against coverage, and the areas below.

Risk is the share that is wrong of the images that are answered, coverage their share of all images, as the
threshold on the confidence falls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.class_counts import share
from saccade.evaluation.groups import Groups
from saccade.evaluation.intervals import percentile_interval, wilson_of_share
from saccade.evaluation.metric_intervals import bounds
from saccade.records import Interval

CURVE_POINTS = 100
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class RiskCoverage:
    """The curve of some images; equal confidences are answered together.

    confidence: (images,) probability of each answer. correct: (images,) whether it is right.

    >>> curve = RiskCoverage(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))
    >>> curve.points()[-1]
    {'coverage': 1.0, 'risk': 0.3333333333333333, 'threshold': 0.7}
    """

    def __init__(self, confidence: Floats, correct: Bools) -> None:
        self._order = np.argsort(-confidence, kind="stable")
        ranked = confidence[self._order]
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        self._starts = np.concatenate([[0], self._ends[:-1] + 1])
        self._wrong = ~correct[self._order]
        self._thresholds = ranked[self._ends]

    def points(self) -> list[dict[str, float]]:
        """At most 100 of its points, from low to full coverage, each with the threshold that gives it."""
        seen = self._ends + 1.0
        risk, coverage = np.cumsum(self._wrong)[self._ends] / seen, seen / seen[-1]
        wanted = np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS
        chosen = np.unique(np.searchsorted(coverage, wanted - 1e-9))
        columns = zip(coverage[chosen], risk[chosen], self._thresholds[chosen], strict=True)
        return [{"coverage": float(c), "risk": float(r), "threshold": float(t)} for c, r, t in columns]

    def areas(self, weights: Floats) -> tuple[Floats, Floats]:
        """(resamples,) AURC and AUGRC each, with images counted as `weights` (resamples, images) say.

        AURC is the area below risk against coverage. AUGRC puts the share of all images that is answered and
        wrong in the place of risk, so that it is the mean risk of a mistake that goes unnoticed; from 0 to
        1/2. By trapezoids; to the left of the first point the risk is that point's, and the other share 0.
        Source: J. Traub and others, Overcoming Common Flaws in the Evaluation of Selective Classification
        Systems, NeurIPS 2024.

        >>> [float(area[0].round(3)) for area in curve.areas(np.ones((1, 3)))]
        [0.222, 0.167]
        """
        drawn = weights.take(self._order, axis=1)
        inside = np.add.reduceat(drawn, self._starts, axis=1)
        wrong = np.cumsum(np.add.reduceat(drawn * self._wrong, self._starts, axis=1), axis=1)
        seen = np.cumsum(inside, axis=1)
        total = seen[:, -1]
        risk = share(wrong, seen)
        first = np.take_along_axis(risk, (seen > 0).argmax(axis=1)[:, None], axis=1)
        risk = np.where(seen > 0, risk, first)
        nothing = np.zeros_like(first)
        return _area(inside, risk, first) / total, _area(inside, wrong, nothing) / total**2


def _area(widths: Floats, heights: Floats, start: Floats) -> Floats:
    """(resamples,) by trapezoids."""
    before = np.concatenate([start, heights[:, :-1]], axis=1)
    return np.asarray((np.einsum("ij,ij->i", widths, heights) + np.einsum("ij,ij->i", widths, before)) / 2)


def risk_coverage(
    confidence: Floats, correct: Bools, groups: Groups, *, seed: int, resamples: int
) -> dict[str, Any]:
    """What metrics/*.json holds of it: points of the curve, both areas, and their 95 % intervals by group.

    >>> groups = Groups.alone(3)
    >>> found = risk_coverage(np.array([0.9, 0.8, 0.7]), np.ones(3, bool), groups, seed=0, resamples=9)
    >>> found["aurc"], round(found["intervals"]["augrc"][1], 2)
    (0.0, 0.28)
    """
    curve, images = RiskCoverage(confidence, correct), len(correct)
    drawn = [curve.areas(weights) for weights in groups.resampled(seed=seed, resamples=resamples)]
    columns = [np.concatenate(column) for column in zip(*drawn, strict=True)]
    once = [float(area[0]) for area in curve.areas(np.ones((1, images)))]
    names = ("aurc", "augrc")
    if len(set(correct.tolist())) == 1:
        found = _all_alike(correct, groups)
    elif groups.count > 1:
        found = [percentile_interval(*both, groups.count) for both in zip(once, columns, strict=True)]
    else:
        found = [None, None]  # one group varies by nothing
    return {
        "images": images,
        **dict(zip(names, once, strict=True)),
        "intervals": {name: bounds(interval) for name, interval in zip(names, found, strict=True)},
        "curve": curve.points(),
    }


def _all_alike(correct: Bools, groups: Groups) -> list[Interval | None]:
    """Where no answer is wrong, or every one: as far as the share of mistakes may reach, by Wilson.

    As if mistakes were as common among sure answers as among others: AURC is their share, AUGRC half of it.
    """
    worth = groups.worth(correct, np.arange(len(correct)))
    risk = wilson_of_share(float(not correct[0]), worth.images, worth.z)
    return [risk, Interval(risk.value / 2, risk.low / 2, risk.high / 2)]
