"""Figures of images that may have several labels, from predictions alone; no model, no GPU, no scikit-learn.

The examples below use these predictions, of which one label of three is missed:

>>> probabilities = np.array([[0.9, 0.2], [0.8, 0.4], [0.1, 0.3]])
>>> predictions = Predictions(
...     ("1", "2", "3"), ("cat", "cat,dog", ""), ("cat", "dog"), probabilities, probabilities > 0.5
... )
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.calibration import SMALLEST_PROBABILITY, calibration_error, reliability
from saccade.evaluation.intervals import (
    RESAMPLES,
    f1_interval,
    mean_interval,
    percentile_interval,
    resample_weights,
    widest,
    wilson,
)
from saccade.records import ClassMetrics, Interval, Metrics, Predictions

BOOTSTRAP_SEED = 0
LEAST_RESAMPLES, MOST_RESAMPLED = 100, 400_000_000  # numbers looked at: images, labels and resamples
PAIRS_SHOWN, MOST_CO_OCCURRING = 20, 50
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelAnswers:
    """Predictions as arrays (images, classes), in the order of the paths: what figures are computed from."""

    truth: Bools
    named: Bools
    probabilities: Floats
    classes: tuple[str, ...]

    @classmethod
    def of(cls, predictions: Predictions) -> LabelAnswers:
        """Those of predictions that name several labels, with known ones."""
        assert predictions.named is not None, "these images have one label each"
        order = sorted(range(len(predictions)), key=predictions.paths.__getitem__)
        truth, named = predictions.truth[order], predictions.named[order]
        return cls(truth, named, predictions.probabilities[order], predictions.classes)

    @property
    def losses(self) -> Floats:
        """(images,) mean binary cross-entropy of the labels, natural logarithm."""
        right = np.where(self.truth, self.probabilities, 1 - self.probabilities)
        return np.asarray(-np.log(np.clip(right, SMALLEST_PROBABILITY, 1.0)).mean(axis=1))


def average_precision(truth: Bools, scores: Floats) -> float:
    """Precision at each found image, averaged: sum of (rise of recall) x precision over the distinct scores.

    truth: (images,) which have the label. scores: (images,) any number that rises with belief. As
    `average_precision_score` of scikit-learn; NaN where no image has the label.

    >>> round(average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.1])), 3)
    0.833
    """
    return float(_Ranked.of(truth, scores).average_precision(np.ones(len(truth))))


def mean_precision(truth: Bools, scores: Floats) -> float:
    """The mean of the average precisions of the labels that any image has; 0 where none has one.

    truth, scores: (images, classes).
    """
    found = [average_precision(t, s) for t, s in zip(truth.T, scores.T, strict=True) if t.any()]
    return float(np.mean(found)) if found else 0.0


def mean_label_f1(truth: Bools, named: Bools) -> float:
    """Macro F1 of (images, classes) labels, over those that occur in truth or as answer."""
    return Counts.of(LabelAnswers(truth, named, named.astype(np.float64), ())).macro_f1


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The images of one label from the highest score on; `ends` are the last of each score."""

    order: NDArray[np.int64]
    truth: Bools
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, truth: Bools, scores: Floats) -> _Ranked:
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        return cls(order, truth[order], ends)

    def average_precision(self, weights: Floats) -> float:
        """With each image counted `weights` (images,) times."""
        drawn = weights[self.order]
        found, seen = np.cumsum(drawn * self.truth)[self.ends], np.cumsum(drawn)[self.ends]
        if not len(found) or not found[-1]:
            return np.nan
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        return float((np.diff(found, prepend=0.0) * precision).sum() / found[-1])


@dataclass(frozen=True, slots=True)
class Counts:
    """(classes,) images each: with the label and named, named only, with the label only."""

    right: NDArray[Any]
    wrong: NDArray[Any]
    missed: NDArray[Any]

    @classmethod
    def of(cls, data: LabelAnswers, weights: NDArray[Any] | None = None) -> Counts:
        weigh = np.ones(len(data.truth), np.int64) if weights is None else weights
        both = (data.truth & data.named, data.named & ~data.truth, data.truth & ~data.named)
        return cls(*(weigh @ cells for cells in both))

    @property
    def f1(self) -> Floats:
        """0 where nothing is right."""
        return np.asarray(_share(2 * self.right, 2 * self.right + self.wrong + self.missed))

    @property
    def macro_f1(self) -> float:
        """Over the labels that occur, in truth or as answer (as in scikit-learn)."""
        there = self.right + self.wrong + self.missed > 0
        return float(self.f1[there].mean()) if there.any() else 0.0

    @property
    def micro_f1(self) -> float:
        """Of all label decisions together."""
        total = [counts.sum() for counts in (self.right, self.wrong, self.missed)]
        return float(_share(2 * total[0], 2 * total[0] + total[1] + total[2]))


def _share(part: Any, whole: Any) -> Any:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def measure_labels(predictions: Predictions) -> Metrics:
    """Every figure of one part, with intervals. Labels are known, probabilities checked (`metrics.measure`).

    >>> measured = measure_labels(predictions)
    >>> measured.mean_average_precision, round(measured.micro_f1, 3), round(measured.accuracy.value, 3)
    (1.0, 0.8, 0.667)
    """
    data = LabelAnswers.of(predictions)
    counts, drawn = Counts.of(data), _resampled(data)
    support = data.truth.sum(axis=0)
    exact = (data.truth == data.named).all(axis=1)
    precision, recall = (
        _share(counts.right, counts.right + other) for other in (counts.wrong, counts.missed)
    )
    found = [None if np.isnan(value) else float(value) for value in drawn.average_precision[0]]
    rows = zip(data.classes, precision, recall, counts.f1, support, found, strict=True)
    return Metrics(
        images=len(data.truth),
        accuracy=wilson(int(exact.sum()), len(exact)),
        balanced_accuracy=float(recall[support > 0].mean()) if support.any() else 0.0,
        macro_f1=counts.macro_f1,
        top_k={},
        per_class=tuple(
            ClassMetrics(name, float(p), float(r), float(f), int(n), ap) for name, p, r, f, n, ap in rows
        ),
        classes=data.classes,
        confusion=(),
        log_loss=float(data.losses.mean()),
        ece=calibration_error(data.probabilities.ravel(), data.truth.ravel()),
        extra=_extra(data, counts, drawn),
        mean_average_precision=float(drawn.figures[0][0]),
        micro_f1=counts.micro_f1,
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """(1 + resamples, ...): as measured, then resampled. Of each label, and of all of them."""

    average_precision: Floats  # (1 + resamples, classes), NaN where no image has the label
    figures: Floats  # (1 + resamples, 4): mean average precision, macro F1, micro F1, log loss

    def interval(self, column: int) -> Interval:
        values = self.figures[:, column]
        return percentile_interval(float(values[0]), values[1:][~np.isnan(values[1:])])


def _resampled(data: LabelAnswers) -> _Drawn:
    """Figures as measured and of resampled images (fewer times where there are very many)."""
    resamples = max(LEAST_RESAMPLES, min(RESAMPLES, MOST_RESAMPLED // max(1, data.truth.size)))
    ranked = [_Ranked.of(t, p) for t, p in zip(data.truth.T, data.probabilities.T, strict=True)]
    losses, found, figures = data.losses, [], []
    for weights in (np.ones(len(losses), np.int64), *_weights(len(losses), resamples)):
        exact = weights.astype(np.float64)
        precisions = np.array([one.average_precision(exact) for one in ranked])
        counts = Counts.of(data, weights)
        there = precisions[~np.isnan(precisions)]
        mean = float(there.mean()) if len(there) else 0.0
        found.append(precisions)
        figures.append([mean, counts.macro_f1, counts.micro_f1, float(weights @ losses) / len(losses)])
    return _Drawn(np.array(found), np.array(figures))


def _weights(images: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    return resample_weights(images, seed=BOOTSTRAP_SEED, resamples=resamples)


def _extra(data: LabelAnswers, counts: Counts, drawn: _Drawn) -> dict[str, Any]:
    """What is worth knowing besides: intervals, reliability, what is named instead, what comes together."""
    support, named = data.truth.sum(axis=0), data.named.sum(axis=0)
    probabilities, truth = data.probabilities.ravel(), data.truth.ravel()
    together = data.truth.astype(np.int64).T @ data.truth
    return {
        "intervals": _intervals(counts, support, drawn, len(data.truth)),
        "reliability": [row.as_json() for row in reliability(probabilities, truth)],
        "confused_pairs": _named_instead(data),
        "missed": counts.missed.tolist(),
        "wrongly_named": counts.wrong.tolist(),
        "co_occurrence": together.tolist() if len(data.classes) <= MOST_CO_OCCURRING else None,
        "labels_an_image": float(data.truth.sum(axis=1).mean()),
        "without_labels": int((~data.truth.any(axis=1)).sum()),
        "prevalence": float((support[support > 0] / len(data.truth)).mean()) if support.any() else 0.0,
        "without_support": [data.classes[i] for i in np.flatnonzero(support == 0)],
        "never_predicted": [data.classes[i] for i in np.flatnonzero((support > 0) & (named == 0))],
    }


def _named_instead(data: LabelAnswers) -> list[dict[str, Any]]:
    """Labels that were missed in images where another was wrongly named: [{true, predicted, images}]."""
    missed, wrong = data.truth & ~data.named, data.named & ~data.truth
    pairs = missed.astype(np.int64).T @ wrong
    order = np.argsort(-pairs, axis=None, kind="stable")[:PAIRS_SHOWN]
    places = (divmod(int(i), len(data.classes)) for i in order)
    return [
        {"true": data.classes[row], "predicted": data.classes[column], "images": int(pairs[row, column])}
        for row, column in places
        if pairs[row, column] > 0
    ]


def _intervals(counts: Counts, support: NDArray[Any], drawn: _Drawn, images: int) -> dict[str, Any]:
    """95 % [low, high] of every figure, each image by itself also where some belong together.

    Null for what has none. All are resampled over the images. Where a figure is a mean over labels or of
    decisions, Wilson's interval with as many images as it rests on is joined, so that a perfect part is never
    called certain.
    """
    mean, macro, micro, loss = (drawn.interval(column) for column in range(drawn.figures.shape[1]))
    worth = [int(n) for n in support if n]
    wrong = counts.wrong + counts.missed
    decisions = int((counts.right + wrong).sum())
    if worth:
        mean, macro = (widest(found, mean_interval(found.value, worth)) for found in (mean, macro))
    if decisions:
        micro = widest(micro, f1_interval(int(counts.right.sum()), int(wrong.sum())))
    named = counts.right + counts.wrong
    return {
        "mean_average_precision": [mean.low, mean.high],
        "macro_f1": [macro.low, macro.high],
        "micro_f1": [micro.low, micro.high],
        "log_loss": [loss.low, loss.high] if images > 1 else None,
        "average_precision": [
            _of_label(column) if images > 1 else None for column in drawn.average_precision.T
        ],
        "precision": [_wilson(r, n) for r, n in zip(counts.right, named, strict=True)],
        "recall": [_wilson(r, n) for r, n in zip(counts.right, support, strict=True)],
        "f1": [_of_f1(r, w) for r, w in zip(counts.right, wrong, strict=True)],
    }


def _of_label(values: Floats) -> list[float] | None:
    if np.isnan(values[0]):
        return None
    found = percentile_interval(float(values[0]), values[1:][~np.isnan(values[1:])])
    return [found.low, found.high]


def _wilson(right: int, of: int) -> list[float] | None:
    found = wilson(int(right), int(of)) if of else None
    return [found.low, found.high] if found else None


def _of_f1(right: int, wrong: int) -> list[float] | None:
    found = f1_interval(int(right), int(wrong)) if right + wrong else None
    return [found.low, found.high] if found else None
