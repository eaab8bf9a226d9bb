"""Every figure of `metrics/*.json`, from predictions alone; no model, no GPU, no scikit-learn.

All figures are independent of the order of the images: they are computed in the order of the paths. The
examples below use these predictions, right for three images of four:

>>> classes = ("cat", "dog")
>>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
>>> predictions = Predictions(("1", "2", "3", "4"), ("cat", "cat", "dog", "dog"), classes, probabilities)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.errors import DataError
from saccade.evaluation.calibration import calibration_error, image_losses, reliability
from saccade.evaluation.intervals import (
    bootstrap,
    f1_interval,
    mean_interval,
    percentile_interval,
    widest,
    wilson,
)
from saccade.evaluation.label_metrics import measure_labels
from saccade.label_sets import split_labels
from saccade.records import ClassMetrics, Interval, Metrics, Predictions

DEFAULT_TOP_K = (1, 5)
BOOTSTRAP_SEED = 0
CONFUSED_PAIRS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Answers:
    """Predictions as arrays, in the order of the paths: what every figure is computed from."""

    truth: NDArray[np.int64]  # (images,)
    predicted: NDArray[np.int64]  # (images,)
    probabilities: NDArray[np.float64]  # (images, classes)
    classes: tuple[str, ...]

    @property
    def correct(self) -> NDArray[np.bool_]:
        return np.asarray(self.truth == self.predicted)

    @property
    def confidence(self) -> NDArray[np.float64]:
        return np.asarray(self.probabilities.max(axis=1))

    def confusion(self, weights: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """(classes, classes) images by true (row) and predicted class (column)."""
        size = len(self.classes)
        cells = np.bincount(self.truth * size + self.predicted, weights=weights, minlength=size * size)
        return np.asarray(cells.astype(np.int64).reshape(size, size))


def answers(predictions: Predictions) -> Answers:
    """Check predictions and sort them by path; raises DataError for unknown labels and bad probabilities.

    >>> answers(predictions).correct.tolist()
    [True, True, True, False]
    """
    _check(predictions)
    order = sorted(range(len(predictions)), key=predictions.paths.__getitem__)
    probabilities = predictions.probabilities[order]
    return Answers(
        predictions.label_indices[order], probabilities.argmax(axis=1), probabilities, predictions.classes
    )


# A metric is one function (Predictions) -> float and one line in METRICS.
# `saccade.testing.check_metric` checks yours.


def accuracy(predictions: Predictions) -> float:
    """Share of the images whose most probable class is the true one.

    >>> accuracy(predictions)
    0.75
    """
    return float(answers(predictions).correct.mean())


def balanced_accuracy(predictions: Predictions) -> float:
    """Mean recall over the classes that have images here; each class counts the same.

    >>> balanced_accuracy(predictions)
    0.75
    """
    return mean_recall(answers(predictions).confusion())


def macro_f1(predictions: Predictions) -> float:
    """Mean F1 over the classes that occur, as true or as predicted class.

    >>> round(macro_f1(predictions), 3)
    0.733
    """
    return mean_f1(answers(predictions).confusion())


def log_loss(predictions: Predictions) -> float:
    """Mean of minus the log of the true class's probability (natural logarithm).

    >>> round(log_loss(predictions), 3)
    0.646
    """
    data = answers(predictions)
    return float(image_losses(data.probabilities, data.truth).mean())


def ece(predictions: Predictions) -> float:
    """Expected calibration error in 15 equal-width bins of the confidence.

    >>> round(ece(predictions), 3)
    0.4
    """
    data = answers(predictions)
    return calibration_error(data.confidence, data.correct)


def brier(predictions: Predictions) -> float:
    """Mean squared distance of the probabilities from certainty of the truth (Brier 1950; 0 to 2).

    >>> round(brier(predictions), 3)
    0.45
    """
    data = answers(predictions)
    aim = np.eye(len(data.classes))[data.truth]
    return float(((data.probabilities - aim) ** 2).sum(axis=1).mean())


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of predictions with the bounds it can never leave."""

    of: Callable[[Predictions], float]
    low: float
    high: float


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, 0, 1),
    "balanced_accuracy": Metric(balanced_accuracy, 0, 1),
    "macro_f1": Metric(macro_f1, 0, 1),
    "log_loss": Metric(log_loss, 0, math.inf),
    "ece": Metric(ece, 0, 1),
    "brier": Metric(brier, 0, 2),
}
NAMED_FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece")


def measure(predictions: Predictions, *, top_k: Iterable[int] = DEFAULT_TOP_K) -> Metrics:
    """Every figure of one part, with intervals; k above the number of classes are left out.

    predictions: those of one part, with known labels. top_k: values of k for top-k accuracy. Where an image
    may have several labels, the figures are those of `measure_labels`.
    Raises DataError when there is no image, a label is unknown, or a probability is not one.

    >>> measured = measure(predictions)
    >>> measured.accuracy.value, round(measured.accuracy.low, 2), round(measured.accuracy.high, 2)
    (0.75, 0.3, 0.95)
    >>> measured.confusion
    ((2, 0), (1, 1))
    """
    if predictions.named is not None:
        _check(predictions)
        return measure_labels(predictions)
    data = answers(predictions)
    confusion = data.confusion()
    counts = top_k_counts(data, top_k)
    return Metrics(
        images=len(data.truth),
        accuracy=wilson(int(data.correct.sum()), len(data.truth)),
        balanced_accuracy=mean_recall(confusion),
        macro_f1=mean_f1(confusion),
        top_k={k: right / len(data.truth) for k, right in counts.items()},
        per_class=class_metrics(confusion, data.classes),
        classes=data.classes,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        log_loss=log_loss(predictions),
        ece=ece(predictions),
        extra=_extra(predictions, data, confusion, counts),
    )


def precision_recall_f1(
    confusion: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(classes,) each; 0 where nothing was predicted (precision) or nothing is there (recall).

    confusion: (classes, classes) images, rows are true classes.

    >>> precision, recall, f1 = precision_recall_f1(np.array([[2, 0], [1, 1]]))
    >>> precision.round(2).tolist(), recall.tolist()
    ([0.67, 1.0], [1.0, 0.5])
    """
    right = np.diag(confusion).astype(np.float64)
    predicted, support = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = np.divide(right, predicted, out=np.zeros_like(right), where=predicted > 0)
    recall = np.divide(right, support, out=np.zeros_like(right), where=support > 0)
    both = predicted + support
    f1 = np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
    return precision, recall, f1


def class_metrics(confusion: NDArray[np.int64], classes: tuple[str, ...]) -> tuple[ClassMetrics, ...]:
    """Precision, recall and F1 of each class, in class order.

    >>> dog = class_metrics(np.array([[2, 0], [1, 1]]), classes)[1]
    >>> dog.label, dog.precision, dog.recall, round(dog.f1, 2), dog.support
    ('dog', 1.0, 0.5, 0.67, 2)
    """
    columns = zip(classes, *precision_recall_f1(confusion), confusion.sum(axis=1), strict=True)
    return tuple(ClassMetrics(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in columns)


def mean_recall(confusion: NDArray[np.int64]) -> float:
    """Balanced accuracy: a class without images has no recall and does not count.

    >>> mean_recall(np.array([[2, 0], [1, 1]]))
    0.75
    """
    present = confusion.sum(axis=1) > 0
    return float(precision_recall_f1(confusion)[1][present].mean())


def mean_f1(confusion: NDArray[np.int64]) -> float:
    """Macro F1: a class that neither occurs nor is predicted does not count (as in scikit-learn).

    >>> round(mean_f1(np.array([[2, 0], [1, 1]])), 3)
    0.733
    """
    present = confusion.sum(axis=0) + confusion.sum(axis=1) > 0
    return float(precision_recall_f1(confusion)[2][present].mean())


def top_k_counts(data: Answers, top_k: Iterable[int]) -> dict[int, int]:
    """k -> images whose true class is among the k most probable; ties go to the earlier class.

    >>> top_k_counts(answers(predictions), (1, 2))
    {1: 3, 2: 4}
    """
    true = np.take_along_axis(data.probabilities, data.truth[:, None], axis=1)
    earlier = np.arange(len(data.classes))[None, :] < data.truth[:, None]
    ahead = (data.probabilities > true) | ((data.probabilities == true) & earlier)
    rank = ahead.sum(axis=1)
    return {k: int((rank < k).sum()) for k in sorted(set(top_k)) if 1 <= k <= len(data.classes)}


def metrics_as_json(metrics: Metrics) -> dict[str, Any]:
    """The plain values of `metrics/*.json`; `metrics_from_json` gives an equal Metrics.

    With several labels an image, there is no top_k and no confusion_matrix, but mean_average_precision,
    micro_f1, labels, and exact_match, which is also called accuracy.

    >>> metrics_as_json(measure(predictions))["accuracy"]["value"]
    0.75
    """
    if metrics.multi_label:
        return _labels_as_json(metrics)
    return {
        "images": metrics.images,
        "accuracy": asdict(metrics.accuracy),
        "balanced_accuracy": metrics.balanced_accuracy,
        "macro_f1": metrics.macro_f1,
        "top_k": {str(k): share for k, share in metrics.top_k.items()},
        "per_class": [_without_none(asdict(row)) for row in metrics.per_class],
        "confusion_matrix": {
            "labels": list(metrics.classes),
            "counts": [list(row) for row in metrics.confusion],
        },
        "log_loss": metrics.log_loss,
        "ece": metrics.ece,
        "extra": dict(metrics.extra),
    }


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _labels_as_json(metrics: Metrics) -> dict[str, Any]:
    return {
        "images": metrics.images,
        "mean_average_precision": metrics.mean_average_precision,
        "micro_f1": metrics.micro_f1,
        "macro_f1": metrics.macro_f1,
        "exact_match": asdict(metrics.accuracy),
        "accuracy": asdict(metrics.accuracy),
        "balanced_accuracy": metrics.balanced_accuracy,
        "per_class": [asdict(row) for row in metrics.per_class],
        "labels": list(metrics.classes),
        "log_loss": metrics.log_loss,
        "ece": metrics.ece,
        "extra": dict(metrics.extra),
    }


def metrics_from_json(values: Mapping[str, Any]) -> Metrics:
    """Read what `metrics_as_json` wrote; raises DataError when a figure is missing.

    >>> metrics_from_json(metrics_as_json(measure(predictions))).images
    4
    """
    try:
        several = "mean_average_precision" in values
        confusion = {"labels": values["labels"], "counts": ()} if several else values["confusion_matrix"]
        return Metrics(
            images=int(values["images"]),
            accuracy=Interval(**values["accuracy"]),
            balanced_accuracy=float(values["balanced_accuracy"]),
            macro_f1=float(values["macro_f1"]),
            top_k={} if several else {int(k): float(share) for k, share in values["top_k"].items()},
            per_class=tuple(ClassMetrics(**row) for row in values["per_class"]),
            classes=tuple(confusion["labels"]),
            confusion=tuple(tuple(row) for row in confusion["counts"]),
            log_loss=float(values["log_loss"]),
            ece=float(values["ece"]),
            extra=dict(values.get("extra", {})),
            mean_average_precision=float(values["mean_average_precision"]) if several else None,
            micro_f1=float(values["micro_f1"]) if several else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"these are not saccade metrics ({error!r})",
            hint="run `saccade evaluate` again",
        ) from None


def _check(predictions: Predictions) -> None:
    if len(predictions) == 0:
        raise DataError(
            "there is no image to measure on",
            hint="give a part that has images",
        )
    known, labels = set(predictions.classes), predictions.labels
    if predictions.named is not None:
        labels = tuple(name for text in labels for name in split_labels(text))
    strange = sorted({label for label in labels if label not in known})
    if strange:
        names = ", ".join(repr(label) if label else "no label" for label in strange[:5])
        raise DataError(
            f"the model does not know the label of {sum(x not in known for x in labels)} images ({names})",
            hint=f"measure only images of its classes: {', '.join(predictions.classes[:10])}",
        )
    values = predictions.probabilities
    if not bool(np.isfinite(values).all() and (values >= 0).all() and (values <= 1 + 1e-6).all()):
        bad = predictions.paths[
            int((~(np.isfinite(values) & (values >= 0) & (values <= 1 + 1e-6))).any(axis=1).argmax())
        ]
        raise DataError(
            f"probabilities must lie between 0 and 1, those of {bad} do not",
            hint="predict it again",
        )


def _extra(
    predictions: Predictions, data: Answers, confusion: NDArray[np.int64], counts: Mapping[int, int]
) -> dict[str, Any]:
    """What is worth knowing besides: intervals, reliability, confusions, the majority baseline."""
    support = confusion.sum(axis=1)
    commonest = int(support.argmax())
    predicted = confusion.sum(axis=0)
    names = data.classes
    return {
        "metrics": {
            name: metric.of(predictions) for name, metric in METRICS.items() if name not in NAMED_FIGURES
        },
        "intervals": _intervals(data, confusion, counts),
        "reliability": [row.as_json() for row in reliability(data.confidence, data.correct)],
        "mean_confidence": float(data.confidence.mean()),
        "confused_pairs": confused_pairs(confusion, names),
        "majority_baseline": {
            "label": names[commonest],
            "accuracy": float(support[commonest] / support.sum()),
        },
        "never_predicted": [names[i] for i in np.flatnonzero((support > 0) & (predicted == 0))],
    }


def confused_pairs(confusion: NDArray[np.int64], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The mistakes made most often: [{true, predicted, images}], most images first.

    >>> confused_pairs(np.array([[2, 0], [1, 1]]), classes)
    [{'true': 'dog', 'predicted': 'cat', 'images': 1}]
    """
    mistakes = confusion.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:CONFUSED_PAIRS_SHOWN]
    places = ((int(i) // len(classes), int(i) % len(classes)) for i in order)
    return [
        {"true": classes[row], "predicted": classes[column], "images": int(mistakes[row, column])}
        for row, column in places
        if mistakes[row, column] > 0
    ]


def _intervals(data: Answers, confusion: NDArray[np.int64], counts: Mapping[int, int]) -> dict[str, Any]:
    """95 % [low, high] of every figure; null for a class that has none.

    Shares have Wilson's, and so has their mean. Log loss and ECE are resampled over the images; so is macro
    F1, where mistakes tie classes together, and the wider of both is taken.
    """
    right, predicted, support = (np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1))
    f1 = [
        f1_interval(int(r), int(n - r)) if n else None
        for r, n in zip(right, predicted + support - right, strict=True)
    ]
    worth = [int(n) for n in support if n]
    resampled_f1, loss, error = _resampled(data)
    return {
        "balanced_accuracy": _bounds(mean_interval(mean_recall(confusion), worth)),
        "macro_f1": _bounds(widest(mean_interval(mean_f1(confusion), worth), resampled_f1)),
        "log_loss": _bounds(loss),
        "ece": _bounds(error),
        "top_k": {str(k): _bounds(wilson(n, len(data.truth))) for k, n in counts.items()},
        "precision": [_bounds(x) for x in _shares(right, predicted)],
        "recall": [_bounds(x) for x in _shares(right, support)],
        "f1": [_bounds(x) for x in f1],
    }


def _resampled(data: Answers) -> list[Interval]:
    """Intervals of macro F1, log loss and ECE by resampling the images."""
    losses = image_losses(data.probabilities, data.truth)
    confidence, correct = data.confidence, data.correct

    def figures(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        loss = float(weights @ losses) / len(losses)
        error = calibration_error(confidence, correct, weights=weights)
        return np.array([mean_f1(data.confusion(weights)), loss, error])

    once = figures(np.ones(len(losses), dtype=np.int64))
    drawn = bootstrap(len(losses), figures, seed=BOOTSTRAP_SEED)
    return [percentile_interval(float(value), drawn[:, i]) for i, value in enumerate(once)]


def _shares(right: NDArray[np.int64], of: NDArray[np.int64]) -> list[Interval | None]:
    return [wilson(int(r), int(n)) if n else None for r, n in zip(right, of, strict=True)]


def _bounds(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
