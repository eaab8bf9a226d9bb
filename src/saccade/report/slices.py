"""Slices of the judged images that do worse than the rest, as `saccade report --full` found them."""

from __future__ import annotations

from typing import Any

from saccade.report.facts import Facts
from saccade.report.gallery import Gallery


def slices(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """Each slice with example pictures, wrong answers first."""
    found = facts.insights.get("slices")
    if not found:
        return None
    rows = [
        {**row, "photos": [{**shown, "picture": picture(shown["path"])} for shown in row["examples"]]}
        for row in found["slices"]
    ]
    return {**found, "rows": rows}
