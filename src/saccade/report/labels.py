"""Sections of a run whose images may have several labels: each label, what comes together, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.deciding import NEVER
from saccade.records import Predictions
from saccade.report.facts import Facts
from saccade.report.gallery import Gallery

PICTURES_A_LABEL, LABELS_WITH_PICTURES = 4, 12
PAIRS_SHOWN, MOST_TOGETHER = 12, 15


def labels(facts: Facts, picture: Gallery) -> list[dict[str, Any]]:
    """Rows of the table of labels, the least average precision first; nothing where images have one label."""
    metrics = facts.figures
    if metrics is None or not metrics.multi_label:
        return []
    intervals, extra = metrics.extra["intervals"], metrics.extra
    names = ("average_precision", "precision", "recall", "f1")
    limits = facts.model.get("thresholds", {})
    rows = [
        {
            "label": row.label,
            "support": row.support,
            "threshold": _threshold(limits.get(row.label)),
            "figures": [(getattr(row, name), intervals[name][i]) for name in names],
            "average_precision": row.average_precision,
            "missed": extra["missed"][i],
            "wrongly_named": extra["wrongly_named"][i],
        }
        for i, row in enumerate(metrics.per_class)
    ]
    return sorted(rows, key=lambda row: (row["support"] == 0, row["average_precision"] or 0.0))


def _threshold(limit: float | None) -> str:
    return "" if limit is None else "never" if limit >= NEVER else f"{limit:.2f}"


def together(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """How often two labels stand at one image, and what was named in place of what was missed."""
    metrics = facts.figures
    if metrics is None or not metrics.multi_label:
        return None
    extra = metrics.extra
    counts, names = extra["co_occurrence"], metrics.classes
    shown = counts is not None and len(names) <= MOST_TOGETHER
    return {
        "labels": names,
        "rows": list(zip(names, counts, strict=True)) if shown else [],
        "pairs": extra["confused_pairs"][:PAIRS_SHOWN],
        "labels_an_image": extra["labels_an_image"],
        "without_labels": extra["without_labels"],
    }


def label_mistakes(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """Of each label the images in which it was missed or wrongly named, the surest mistakes first."""
    predictions = facts.predictions
    if predictions is None or predictions.named is None or facts.figures is None:
        return None
    wrong = (predictions.named != predictions.truth).sum(axis=0)
    order = np.argsort(-wrong, kind="stable")[:LABELS_WITH_PICTURES]
    shown = [_of_label(predictions, int(column), picture) for column in order if wrong[column]]
    return {"shown": shown, "labels": int((wrong > 0).sum()), "images": len(predictions)}


def _of_label(predictions: Predictions, column: int, picture: Gallery) -> dict[str, Any]:
    truth, named = predictions.truth[:, column], _named(predictions)[:, column]
    believed = predictions.probabilities[:, column]
    return {
        "label": predictions.classes[column],
        "missed": _pictures(predictions, truth & ~named, believed, picture),
        "missed_total": int((truth & ~named).sum()),
        "named": _pictures(predictions, named & ~truth, -believed, picture),
        "named_total": int((named & ~truth).sum()),
    }


def _named(predictions: Predictions) -> np.ndarray[Any, np.dtype[np.bool_]]:
    assert predictions.named is not None, "images have several labels here"
    return predictions.named


def _pictures(predictions: Predictions, rows: Any, order: Any, picture: Gallery) -> list[dict[str, Any]]:
    """The first few rows in this order: those of which the model was surest, and wrong."""
    chosen = sorted(np.flatnonzero(rows), key=lambda row: (order[row], predictions.paths[row]))
    return [
        {
            "picture": picture(predictions.paths[row]),
            "label": predictions.labels[row] or "no label",
            "predicted": predictions.predicted[row] or "no label",
            "probability": abs(float(order[row])),
        }
        for row in chosen[:PICTURES_A_LABEL]
    ]
