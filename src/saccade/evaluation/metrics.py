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
from saccade.evaluation.answers import Answers, answers, check
from saccade.evaluation.asking import Recommended, answer_or_ask
from saccade.evaluation.calibration import calibration_error, image_losses, reliability
from saccade.evaluation.calibration_errors import calibration_figures
from saccade.evaluation.class_counts import ClassCounts
from saccade.evaluation.conformal import LabelSets, judge_sets
from saccade.evaluation.label_metrics import measure_labels
from saccade.evaluation.metric_intervals import BOOTSTRAP_SEED, intervals, resamples, share_interval
from saccade.evaluation.ranking import ClassRankings, rank_classes
from saccade.evaluation.risk_coverage import risk_coverage
from saccade.records import ClassMetrics, Interval, Metrics, Predictions

DEFAULT_TOP_K = (1, 5)
CONFUSED_PAIRS_SHOWN = 20


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
    return float(answers(predictions).counts.balanced_accuracy)


def macro_f1(predictions: Predictions) -> float:
    """Mean F1 over the classes that occur, as true or as predicted class.

    >>> round(macro_f1(predictions), 3)
    0.733
    """
    return float(answers(predictions).counts.macro_f1)


def micro_f1(predictions: Predictions) -> float:
    """F1 of all images together, which is the accuracy where each has one label.

    >>> micro_f1(predictions)
    0.75
    """
    return accuracy(predictions)


def weighted_f1(predictions: Predictions) -> float:
    """Mean F1 over the classes, each counting as often as it occurs.

    >>> round(weighted_f1(predictions), 3)
    0.733
    """
    return float(answers(predictions).counts.weighted_f1)


def cohen_kappa(predictions: Predictions) -> float:
    """Agreement of true and predicted classes beyond chance: 1 is perfect, 0 no better than chance.

    >>> cohen_kappa(predictions)
    0.5
    """
    return float(answers(predictions).counts.cohen_kappa)


def matthews(predictions: Predictions) -> float:
    """Matthews' correlation coefficient of true and predicted classes, from -1 to 1.

    >>> round(matthews(predictions), 3)
    0.577
    """
    return float(answers(predictions).counts.matthews)


def macro_average_precision(predictions: Predictions) -> float:
    """Mean over the classes that have images here of their average precision.

    >>> round(macro_average_precision(predictions), 3)
    0.833
    """
    found = _ranked(answers(predictions)).macro_average_precision
    assert found is not None, "some class has images"
    return found.value


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
    return float(answers(predictions).brier.mean())


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
    "micro_f1": Metric(micro_f1, 0, 1),
    "weighted_f1": Metric(weighted_f1, 0, 1),
    "cohen_kappa": Metric(cohen_kappa, -1, 1),
    "matthews": Metric(matthews, -1, 1),
    "macro_average_precision": Metric(macro_average_precision, 0, 1),
    "log_loss": Metric(log_loss, 0, math.inf),
    "ece": Metric(ece, 0, 1),
    "brier": Metric(brier, 0, 2),
}


def measure(
    predictions: Predictions,
    *,
    top_k: Iterable[int] = DEFAULT_TOP_K,
    groups: Mapping[str, str] | None = None,
    recommended: Recommended | None = None,
    temperature: float | None = None,
    label_sets: Mapping[str, LabelSets] | None = None,
) -> Metrics:
    """Every figure of one part, with intervals; k above the number of classes are left out.

    predictions: those of one part, with known labels. top_k: values of k for top-k accuracy. groups: by path,
    the name of what each image belongs together with; intervals then go by group. recommended: the threshold
    below which the model is to ask, chosen on another part. temperature: what the logits were divided by, if
    nothing else was done. label_sets: conformal sets, chosen on another part, by a name. Where an image may
    have several labels, the figures are those of `measure_labels`.
    Raises DataError when there is no image, a label is unknown, or a probability is not one.

    >>> measured = measure(predictions)
    >>> measured.accuracy.value, round(measured.accuracy.low, 2), round(measured.accuracy.high, 2)
    (0.75, 0.3, 0.95)
    >>> measured.confusion
    ((2, 0), (1, 1))
    """
    if predictions.named is not None:
        check(predictions)
        return measure_labels(predictions)
    data = answers(predictions, groups)
    confusion, ranked = data.confusion, _ranked(data)
    counts, right = ClassCounts.of(confusion), top_k_counts(data, top_k)
    whole = share_interval(data.correct, data.groups)
    assert whole is not None, "there are images"
    draws = {"seed": BOOTSTRAP_SEED, "resamples": resamples(len(data.truth))}
    calibration = calibration_figures(data, temperature=temperature, seed=BOOTSTRAP_SEED)
    return Metrics(
        images=len(data.truth),
        accuracy=whole,
        balanced_accuracy=float(counts.balanced_accuracy),
        macro_f1=float(counts.macro_f1),
        top_k={k: n / len(data.truth) for k, n in right.items()},
        per_class=class_metrics(confusion, data.classes, ranked),
        classes=data.classes,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        log_loss=float(image_losses(data.probabilities, data.truth).mean()),
        ece=calibration_error(data.confidence, data.correct),
        extra={
            "metrics": _other_figures(data, counts, ranked),
            "intervals": {
                **intervals(data, whole, ranked, right),
                "ece": calibration["after"]["intervals"]["binned"],
            },
            "groups": data.groups.count,
            "risk_coverage": risk_coverage(data.confidence, data.correct, data.groups, **draws),
            "calibration": calibration,
            "answer_or_ask": answer_or_ask(data, recommended),
            "label_sets": {name: judge_sets(data, sets) for name, sets in (label_sets or {}).items()},
            **_extra(data, confusion),
        },
    )


def _ranked(data: Answers) -> ClassRankings:
    return rank_classes(data.truth, data.probabilities, data.groups)


def _other_figures(data: Answers, counts: ClassCounts, ranked: ClassRankings) -> dict[str, float | None]:
    """Figures that Metrics has no field for. There is no AUROC where all images are of one class."""
    precise, auroc = ranked.macro_average_precision, ranked.macro_auroc
    return {
        "brier": float(data.brier.mean()),
        "micro_f1": float(data.correct.mean()),
        "weighted_f1": float(counts.weighted_f1),
        "cohen_kappa": float(counts.cohen_kappa),
        "matthews": float(counts.matthews),
        "macro_average_precision": precise.value if precise else None,
        "macro_auroc": auroc.value if auroc else None,
    }


def class_metrics(
    confusion: NDArray[np.int64], classes: tuple[str, ...], ranked: ClassRankings | None = None
) -> tuple[ClassMetrics, ...]:
    """Precision, recall and F1 of each class, in class order; and what its probability ranks, where given.

    confusion: (classes, classes) images, rows are true classes.

    >>> dog = class_metrics(np.array([[2, 0], [1, 1]]), classes)[1]
    >>> dog.label, dog.precision, dog.recall, round(dog.f1, 2), dog.support
    ('dog', 1.0, 0.5, 0.67, 2)
    """
    counts = ClassCounts.of(confusion)
    none = (None,) * len(classes)
    ranks = (ranked.average_precision, ranked.auroc) if ranked else (none, none)
    columns = zip(classes, counts.precision, counts.recall, counts.f1, counts.support, *ranks, strict=True)
    return tuple(
        ClassMetrics(
            name, float(p), float(r), float(f), int(n), precise and precise.value, auroc and auroc.value
        )
        for name, p, r, f, n, precise, auroc in columns
    )


def mean_recall(confusion: NDArray[np.int64]) -> float:
    """Balanced accuracy: a class without images has no recall and does not count.

    >>> mean_recall(np.array([[2, 0], [1, 1]]))
    0.75
    """
    return float(ClassCounts.of(confusion).balanced_accuracy)


def mean_f1(confusion: NDArray[np.int64]) -> float:
    """Macro F1: a class that neither occurs nor is predicted does not count (as in scikit-learn).

    >>> round(mean_f1(np.array([[2, 0], [1, 1]])), 3)
    0.733
    """
    return float(ClassCounts.of(confusion).macro_f1)


def top_k_counts(data: Answers, top_k: Iterable[int]) -> dict[int, int]:
    """k -> images whose true class is among the k most probable; ties go to the earlier class.

    >>> top_k_counts(answers(predictions), (1, 2))
    {1: 3, 2: 4}
    """
    rank = data.rank
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


def _of_label(row: ClassMetrics) -> dict[str, Any]:
    """Of one of several labels; its average precision is null where no image has it."""
    return {key: value for key, value in asdict(row).items() if key != "auroc"}


def _labels_as_json(metrics: Metrics) -> dict[str, Any]:
    return {
        "images": metrics.images,
        "mean_average_precision": metrics.mean_average_precision,
        "micro_f1": metrics.micro_f1,
        "macro_f1": metrics.macro_f1,
        "exact_match": asdict(metrics.accuracy),
        "accuracy": asdict(metrics.accuracy),
        "balanced_accuracy": metrics.balanced_accuracy,
        "per_class": [_of_label(row) for row in metrics.per_class],
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


def _extra(data: Answers, confusion: NDArray[np.int64]) -> dict[str, Any]:
    """What is worth knowing besides: reliability, confusions, the majority baseline."""
    support = confusion.sum(axis=1)
    commonest = int(support.argmax())
    predicted = confusion.sum(axis=0)
    names = data.classes
    return {
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
