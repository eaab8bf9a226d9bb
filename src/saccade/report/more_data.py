"""Would more data help? The learning curve that `saccade report --full` measured, with its sentences."""

from __future__ import annotations

from typing import Any

from saccade.report import figures as drawn
from saccade.report.facts import Facts
from saccade.report.gallery import Gallery


def more_data(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """The curve over all classes, and each class with its sentence, what helps most first."""
    found = facts.insights.get("learning_curve")
    if not found:
        return None
    if found["why_not"]:
        return {**found, "svg": "", "told": [], "rows": []}
    rows = sorted(found["classes"], key=_promising, reverse=True)
    return {
        **found,
        "svg": drawn.learning_curve(found["overall"]),
        "told": [row["sentence"] for row in rows if row.get("told")],
        "rows": rows,
    }


def _promising(row: dict[str, Any]) -> float:
    """How much the forecast adds; less than nothing where there is none."""
    told = row.get("told")
    return float(told["value"] - row["now"]) if told else -1.0
