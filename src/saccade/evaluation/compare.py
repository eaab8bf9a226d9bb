"""Which of two models is better, and is the difference real? On the same images, image by image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.errors import DataError
from saccade.evaluation.answers import answers
from saccade.evaluation.intervals import percentile_interval, resample_weights
from saccade.evaluation.label_metrics import LabelAnswers
from saccade.records import Interval, Predictions

SIGNIFICANT = 0.05
RESAMPLES = 2000  # only one figure an image, so that many cost nothing


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same images. `difference` is accuracy of the first minus that of the second.

    Where an image may have several labels, accuracy is that of whole sets (exact match).

    `only_first` and `only_second` count the images that one alone gets right; the others decide nothing.
    """

    images: int
    first_accuracy: float
    second_accuracy: float
    only_first: int
    only_second: int
    difference: Interval
    p_value: float

    @property
    def real(self) -> bool:
        """Whether chance is ruled out at 5 %."""
        return self.p_value < SIGNIFICANT

    @property
    def shown(self) -> Interval:
        """The interval, no narrower than the verdict: where chance is not ruled out, 0 lies in it.

        The bootstrap's interval is narrower than the exact test with few images that differ.
        """
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        if self.real:
            return self.difference
        return Interval(value, min(low, 0.0), max(high, 0.0))

    def in_words(self, first: str, second: str) -> str:
        """One sentence for people, with the interval in points of accuracy and the number of images."""
        if not self.real:
            return (
                f"No real difference shown with {self.images} images: "
                f"{first} {_percent(self.first_accuracy)}, "
                f"{second} {_percent(self.second_accuracy)}, difference {_points(self.shown)}, "
                f"p = {self.p_value:.2g} (exact McNemar)."
            )
        better, worse, sign = (first, second, 1) if self.difference.value > 0 else (second, first, -1)
        return (
            f"{better} is better than {worse} by {_points(_signed(self.difference, sign))}, "
            f"p = {self.p_value:.2g} (exact McNemar, {self.images} images)."
        )


def compare(first: Predictions, second: Predictions) -> Comparison:
    """Compare two models by the images that only one of them gets right.

    Raises DataError, saying how they differ, when the two were not measured on the same images and labels.
    """
    _same_images(first, second)
    one, other = (correct(side) for side in (first, second))
    gain = one.astype(np.int64) - other.astype(np.int64)
    only_first, only_second = int((gain > 0).sum()), int((gain < 0).sum())
    drawn = [
        weights @ gain / len(gain) for weights in resample_weights(len(gain), seed=0, resamples=RESAMPLES)
    ]
    return Comparison(
        images=len(gain),
        first_accuracy=float(one.mean()),
        second_accuracy=float(other.mean()),
        only_first=only_first,
        only_second=only_second,
        difference=percentile_interval(float(gain.mean()), np.array(drawn)),
        p_value=mcnemar(only_first, only_second),
    )


def correct(predictions: Predictions) -> NDArray[np.bool_]:
    """(images,) whether each is answered rightly, by path; with several labels, whether all of them are."""
    if predictions.named is None:
        return answers(predictions).correct
    data = LabelAnswers.of(predictions)
    return np.asarray((data.truth == data.named).all(axis=1))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p: how often a fair coin is at least this one-sided.

    Source: Q. McNemar, Psychometrika 12 (1947) 153-157, with the binomial distribution itself.

    >>> mcnemar(9, 1)
    0.021484375
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    term = tail = 1  # binomial coefficients as exact integers, each from the one before
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << n))  # true division of integers: no overflow, rounded once


def _same_images(first: Predictions, second: Predictions) -> None:
    one, other = (dict(zip(side.paths, side.labels, strict=True)) for side in (first, second))
    only_one, only_other = sorted(one.keys() - other.keys()), sorted(other.keys() - one.keys())
    if only_one or only_other:
        raise DataError(
            f"the two were measured on different images: {len(one.keys() & other.keys())} in "
            f"both{_named(only_one, 'in the first only')}{_named(only_other, 'in the second only')}",
            hint=(
                "evaluate both on the same data (`saccade evaluate RUN DATA`) and compare "
                "RUN/evaluations/NAME"
            ),
        )
    changed = sorted(path for path in one if one[path] != other[path])
    if changed:
        raise DataError(
            f"{len(changed)} images have another true label in the second than in the first "
            f"({_first_of(changed)})",
            hint="evaluate both on the same labels",
        )


def _named(paths: list[str], where: str) -> str:
    if not paths:
        return ""
    return f", {len(paths)} {where} ({_first_of(paths)})"


def _first_of(paths: list[str]) -> str:
    return f"{paths[0]}, ..." if len(paths) > 1 else paths[0]


def _signed(interval: Interval, sign: int) -> Interval:
    low, high = sorted((sign * interval.low, sign * interval.high))
    return Interval(sign * interval.value, low, high)


def _points(interval: Interval) -> str:
    value, low, high = (100 * x for x in (interval.value, interval.low, interval.high))
    return f"{value:.1f} points [{low:.1f}, {high:.1f}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
