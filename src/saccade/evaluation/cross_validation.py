"""Figures of k folds: mean, standard deviation and an interval that knows the folds share training images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.evaluation.intervals import student_95, widest
from saccade.evaluation.metrics import METRICS, measure, metrics_as_json
from saccade.records import Interval, Predictions

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece")
SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "ece")  # which lie from 0 to 1
METHOD = (
    "corrected resampled t (Nadeau and Bengio, Machine Learning 52, 2003): variance times 1/k + 1/(k - 1), "
    "k - 1 degrees of freedom, because the folds share training images; for the accuracy the wider of that "
    "and Wilson's interval of all held-out images"
)


@dataclass(frozen=True, slots=True)
class FoldedFigure:
    """A figure over the folds: `mean`, `deviation` (standard, of the folds) and the mean's 95 % interval."""

    mean: float
    deviation: float
    low: float
    high: float


def over_folds(values: Sequence[float], *, share: bool = True) -> FoldedFigure:
    """Mean and corrected interval of one figure of k folds; `share` keeps it within 0 and 1.

    The variance of a mean of k independent values is s² / k. Folds are not independent, since any two share
    most of their training images; s² (1 / k + n_held_out / n_train) allows for that. Source: C. Nadeau and
    Y. Bengio, Inference for the generalization error, Machine Learning 52 (2003) 239-281.

    >>> figure = over_folds([0.8, 0.9, 0.85, 0.9, 0.8])
    >>> round(figure.mean, 2), round(figure.low, 3), round(figure.high, 3)
    (0.85, 0.757, 0.943)
    """
    k = len(values)
    assert k >= 2, "one fold has no deviation"
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = student_95(k - 1) * deviation * math.sqrt(1 / k + 1 / (k - 1))
    low, high = mean - half, mean + half
    return FoldedFigure(mean, deviation, max(0.0, low) if share else low, min(1.0, high) if share else high)


def folded_metrics(
    predictions: Predictions,
    fold_of: Mapping[str, int],
    top_k: Sequence[int],
    groups: Mapping[str, str] | None = None,
    **chosen: Any,
) -> dict[str, Any]:
    """The content of `metrics/folds.json`, from the held-out predictions of all images.

    What `measure` says of all of them together; `folds`: the figures of each fold; `over_folds`: mean,
    standard deviation and interval of each figure. The interval of `accuracy` is no narrower than theirs.
    `groups` and what was `chosen` elsewhere are those of `measure`.
    """
    found = measure(predictions, top_k=tuple(top_k), groups=groups, **chosen)
    whole = metrics_as_json(found)
    rows = [_fold(predictions, fold_of, number) for number in sorted(set(fold_of.values()))]
    figures = {name: over_folds([row[name] for row in rows], share=name in SHARES) for name in FIGURES}
    accuracy = figures["accuracy"]
    wide = widest(Interval(**whole["accuracy"]), Interval(accuracy.mean, accuracy.low, accuracy.high))
    summary = {name: _as_json(figure) for name, figure in figures.items()}
    summary["accuracy"] |= {"low": min(wide.low, accuracy.low), "high": max(wide.high, accuracy.high)}
    whole["accuracy"] |= {"low": wide.low, "high": wide.high}
    return whole | {"folds": rows, "over_folds": summary, "interval_method": METHOD}


def _as_json(figure: FoldedFigure) -> dict[str, float]:
    return {"mean": figure.mean, "sd": figure.deviation, "low": figure.low, "high": figure.high}


def _fold(predictions: Predictions, fold_of: Mapping[str, int], number: int) -> dict[str, Any]:
    rows = [i for i, path in enumerate(predictions.paths) if fold_of[path] == number]
    part = Predictions(
        tuple(predictions.paths[i] for i in rows),
        tuple(predictions.labels[i] for i in rows),
        predictions.classes,
        predictions.probabilities[rows],
    )
    return {"fold": number, "images": len(rows), **{name: METRICS[name].of(part) for name in FIGURES}}
