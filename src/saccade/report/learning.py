"""How the model came about: epochs as curves, and a head fitted on frozen features as a figure of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saccade.evaluation.remedies import fitted, kept_index, phases
from saccade.records import EpochRow, monitor_in_words
from saccade.report import figures as drawn
from saccade.report.facts import Facts
from saccade.report.gallery import Gallery

VIEWS = ("images as they are", "and mirror images")
SERIES = "whole series kept together"


def _fits(facts: Facts) -> list[EpochRow]:
    """Rows of the history that are fits of a head on frozen features, and no epochs."""
    return [row for _, rows in phases(facts.history) if fitted(rows) for row in rows]


def curves(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """Both figures over the epochs, with the head that was fitted before as a line; None without an epoch."""
    fits = _fits(facts)
    epochs = facts.history[len(fits) :]
    if not epochs:
        return None
    kept = kept_index(facts.history) - len(fits)
    best = min(fits, key=lambda row: row.score, default=None)
    learnt = drawn.Learning(epochs, len(fits) + 1, kept if kept >= 0 else None, best)
    loss, accuracy = drawn.curves(learnt)
    return {
        "loss": loss,
        "accuracy": accuracy,
        "kept": epochs[kept] if kept >= 0 else None,
        "kept_number": len(fits) + kept + 1,
        "epochs": list(enumerate(epochs, start=len(fits) + 1)),
        "head": best,
        "far_off": drawn.far_off(epochs),
        "augmented": _augmented(facts),
        "watched": f"best validation {monitor_in_words(epochs[0].monitor)}"
        if epochs[0].monitor
        else "lowest validation loss",
        "calibrated": _calibrated(epochs),
        "right": _right(facts),
    }


def fitted_head(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """Each fit of a head on frozen features; None where there was none."""
    fits = _fits(facts)
    if not fits:
        return None
    kept = kept_index(facts.history)
    names = [VIEWS[0], VIEWS[0] + ", " + VIEWS[1]]
    if len(fits) > 1 and facts.record.series:
        names.insert(1, f"{VIEWS[0]}, {SERIES}")
    named = [names[i] if i < len(names) else f"fit {i + 1}" for i in range(len(fits))]
    return {
        "fits": [(name, row, i == kept) for i, (name, row) in enumerate(zip(named, fits, strict=True))],
        "alone": len(fits) == len(facts.history),
        "calibrated": _calibrated(fits),
        "notes": facts.model.get("training", {}).get("notes", ()),
        "right": _right(facts),
    }


def _right(facts: Facts) -> str:
    return "exact match" if facts.recipe and facts.recipe.multi_label else "accuracy"


def _calibrated(rows: Sequence[EpochRow]) -> bool:
    """Whether the rows have a calibrated loss, for a column of its own."""
    return all(row.monitor == "calibrated_loss" for row in rows)


def _augmented(facts: Facts) -> bool:
    augment = facts.recipe.augment if facts.recipe else None
    return augment is None or augment.policy != "none" or bool(augment.steps)
