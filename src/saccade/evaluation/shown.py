"""The figures of one part as rows for a reader, the most telling first; for the report and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saccade.records import Metrics

# name in `extra["metrics"]` -> what people call it
OTHERS = {
    "micro_f1": "Micro F1",
    "weighted_f1": "Weighted F1",
    "macro_average_precision": "Mean average precision of the classes",
    "macro_auroc": "Mean AUROC of the classes",
    "cohen_kappa": "Cohen's kappa",
    "matthews": "Matthews correlation",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure with its 95 % interval, where it has one; `share`: people read it as a percentage."""

    name: str
    value: float
    interval: Sequence[float] | None
    share: bool = False


def shown_figures(metrics: Metrics) -> list[Shown]:
    """Those of images with one label each; what an older file does not hold is left out.

    Top-k is left out for k = 1, which is the accuracy, and for as many as there are classes.
    """
    intervals, others = metrics.extra.get("intervals", {}), metrics.extra.get("metrics", {})
    accuracy, top_intervals = metrics.accuracy, intervals.get("top_k", {})
    rows = [Shown("Accuracy", accuracy.value, (accuracy.low, accuracy.high), share=True)]
    rows += [
        Shown(f"Top-{k} accuracy", share, top_intervals.get(str(k)), share=True)
        for k, share in metrics.top_k.items()
        if 1 < k < len(metrics.classes)
    ]
    rows += [
        Shown("Balanced accuracy", metrics.balanced_accuracy, intervals.get("balanced_accuracy"), share=True),
        Shown("Macro F1", metrics.macro_f1, intervals.get("macro_f1")),
    ]
    rows += [
        Shown(title, others[name], intervals.get(name))
        for name, title in OTHERS.items()
        if others.get(name) is not None
    ]
    rows.append(Shown("Log loss", metrics.log_loss, intervals.get("log_loss")))
    if others.get("brier") is not None:
        rows.append(Shown("Brier score", others["brier"], intervals.get("brier")))
    rows.append(Shown("Calibration error (ECE)", metrics.ece, intervals.get("ece")))
    return rows


def every_figure(metrics: Metrics) -> list[Shown]:
    """Those of `shown_figures`, also where an image may have several labels."""
    if not metrics.multi_label:
        return shown_figures(metrics)
    intervals, exact = metrics.extra.get("intervals", {}), metrics.accuracy
    named = {
        "mean_average_precision": ("Mean average precision", metrics.mean_average_precision),
        "micro_f1": ("Micro F1", metrics.micro_f1),
        "macro_f1": ("Macro F1", metrics.macro_f1),
        "log_loss": ("Log loss of a label", metrics.log_loss),
        "ece": ("Calibration error (ECE)", metrics.ece),
    }
    rows = [
        Shown(title, value, intervals.get(name))
        for name, (title, value) in named.items()
        if value is not None
    ]
    whole = Shown("Exact match (all labels right)", exact.value, (exact.low, exact.high), share=True)
    return [*rows[:3], whole, *rows[3:]]
