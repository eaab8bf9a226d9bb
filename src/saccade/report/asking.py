"""Answer or ask a person: what accepting only confident answers brings, and what it leaves over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saccade.report.facts import Facts
from saccade.report.figures import risk_curve
from saccade.report.gallery import Gallery


def asking(facts: Facts, picture: Gallery) -> Mapping[str, Any] | None:
    """A row a threshold, and the recommended one; None where the metrics hold no such rows."""
    extra = facts.figures.extra if facts.figures else {}
    measured = extra.get("answer_or_ask")
    if not measured:
        return None
    risk = extra.get("risk_coverage") or {}
    chosen = measured["recommended"]
    return {
        **measured,
        "recommended": chosen and {**chosen, "in_per_cent": in_per_cent(chosen["threshold"] or 0.0)},
        "area": risk,
        "svg": risk_curve(risk["curve"]) if risk.get("curve") else "",
    }


def in_per_cent(threshold: float) -> str:
    """With two decimals, or as many as tell it from 100.

    >>> in_per_cent(0.7123), in_per_cent(0.99987), in_per_cent(0.9999996)
    ('71.23', '99.99', '99.99996')
    """
    told = (f"{100 * threshold:.{places}f}" for places in range(2, 16))
    return next((text for text in told if float(text) < 100), "100")
