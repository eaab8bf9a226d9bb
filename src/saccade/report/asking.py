"""Answer or ask a person: what accepting only confident answers brings, and what it leaves over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saccade.evaluation.intervals import wilson
from saccade.records import Predictions
from saccade.report.facts import Facts
from saccade.report.figures import risk_curve
from saccade.report.gallery import Gallery

THRESHOLDS = (0.5, 0.7, 0.9, 0.95)
WANTED = 0.95  # share of the answers that should be right
LEAST_ANSWERS = 20  # of fewer, all can be right by chance


def asking(facts: Facts, picture: Gallery) -> Mapping[str, Any] | None:
    """A row a threshold, and the recommended one: as measured, else from the predictions themselves."""
    measured = facts.figures.extra.get("answer_or_ask") if facts.figures else None
    if measured:
        risk = facts.figures.extra.get("risk_coverage") or {} if facts.figures else {}
        return {**measured, "area": risk, "svg": risk_curve(risk["curve"]) if risk.get("curve") else ""}
    predictions = facts.predictions
    if predictions is None or predictions.named is not None or not all(predictions.labels):
        return None
    rows = [answered_at(predictions, threshold) for threshold in (0.0, *THRESHOLDS)]
    best = next((row for row in rows if _right_enough(row)), None)
    note = f"the lowest of these at which {WANTED:.0%} of the answers were right here"
    recommended = {**best, "precision": WANTED, "reached": True, "note": note} if best else None
    return {"images": len(predictions), "rows": rows[1:], "recommended": recommended, "area": {}, "svg": ""}


def answered_at(predictions: Predictions, threshold: float) -> dict[str, Any]:
    """What comes of answering only where the confidence is at least this; labels must be known.

    >>> two = np.array([[0.9, 0.1], [0.6, 0.4]])
    >>> found = answered_at(Predictions(("a", "b"), ("x", "y"), ("x", "y"), two), 0.8)
    >>> found["answered"], found["share_right"]
    (1, 1.0)
    """
    sure = predictions.confidence >= threshold
    right = np.array([p == label for p, label in zip(predictions.predicted, predictions.labels, strict=True)])
    answered, good = int(sure.sum()), int(right[sure].sum())
    share = wilson(good, answered) if answered else None
    return {
        "threshold": threshold,
        "answered": answered,
        "share_answered": answered / len(predictions),
        "right": good,
        "share_right": share.value if share else None,
        "low": share.low if share else None,
        "high": share.high if share else None,
    }


def _right_enough(row: Mapping[str, Any]) -> bool:
    return bool(row["answered"] >= LEAST_ANSWERS and row["share_right"] >= WANTED)
