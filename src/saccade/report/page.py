"""The report: what a run folder holds, arranged for a reader and written as one HTML file."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.evaluation.calibration import ReliabilityBin
from saccade.evaluation.remedies import kept_index
from saccade.images.decoder import Limits
from saccade.recipe import Recipe, differing_keys
from saccade.records import PARTS, Metrics, Predictions
from saccade.report import figures as drawn
from saccade.report.facts import Facts, read_facts
from saccade.report.promises import promises
from saccade.report.render import bounds, percent, render
from saccade.report.thumbnails import ReadImage, thumbnail
from saccade.run_folder import RunFolder

MISTAKES_SHOWN = 24
PAIRS_SHOWN = 12
CONFUSED_SHOWN = 12
ROWS_UNFOLDED = 30


def write_report(run: RunFolder, *, read_image: ReadImage | None = None) -> Path:
    """Write `report/report.html` from the run folder's files alone; returns its path.

    `read_image` gives an image's bytes by its path in `dataset.csv`; without it, or where it raises
    ImageError, a line of text stands in the thumbnail's place. Raises RunError for a damaged file.
    """
    run.write(run.report, report_html(read_facts(run), read_image).encode("utf-8", "surrogateescape"))
    return run.report


def report_html(facts: Facts, read_image: ReadImage | None = None) -> str:
    """The whole page as text; the same facts and images give the same page, byte for byte."""
    limits = _limits(facts.recipe)
    return render(
        "report.html",
        facts=facts,
        result=_result(facts),
        findings=facts.findings,
        curves=_curves(facts),
        confusion=_confusion(facts.figures),
        classes=_classes(facts.figures),
        rows_unfolded=ROWS_UNFOLDED,
        reliability=_reliability(facts.figures),
        mistakes=_mistakes(facts, read_image, limits),
        data=_data(facts),
        crossing=_crossing(facts, read_image, limits),
        backbone=_backbone(facts),
        choice=facts.record.choice,
        promises=promises(facts.record.promises),
        changes=_changes(facts.recipe),
        environment=_environment(facts),
    )


def _limits(recipe: Recipe | None) -> Limits:
    if recipe is None:
        return Limits()
    return Limits.of(recipe.data)


# -- the result ----------------------------------------------------------------------------------


def _result(facts: Facts) -> dict[str, Any] | None:
    """One column a part, the judged one first; one row a figure."""
    if facts.figures is None:
        return None
    order = [facts.part, *(part for part in ("validation", "train") if part != facts.part)]
    columns = [part for part in order if part in facts.metrics]
    cells = [_figure_cells(facts.metrics[part]) for part in columns]
    return {"parts": columns, "rows": [(name, [cell.get(name) for cell in cells]) for name in cells[0]]}


def _figure_cells(metrics: Metrics) -> dict[str, tuple[str, str]]:
    """Figure -> its value and its interval, as text."""
    intervals = metrics.extra.get("intervals", {})
    accuracy, top_intervals = metrics.accuracy, intervals.get("top_k", {})
    shares = [
        ("Accuracy", accuracy.value, (accuracy.low, accuracy.high)),
        *(
            (f"Top-{k} accuracy", share, top_intervals.get(str(k)))
            for k, share in metrics.top_k.items()
            if k > 1
        ),
        ("Balanced accuracy", metrics.balanced_accuracy, intervals.get("balanced_accuracy")),
    ]
    others = [
        ("Macro F1", metrics.macro_f1, intervals.get("macro_f1")),
        ("Log loss", metrics.log_loss, intervals.get("log_loss")),
        ("Calibration error (ECE)", metrics.ece, intervals.get("ece")),
    ]
    cells = {name: (percent(value), bounds(interval)) for name, value, interval in shares}
    return cells | {name: (f"{value:.3f}", bounds(interval, scale=1)) for name, value, interval in others}


def _curves(facts: Facts) -> dict[str, Any] | None:
    if not facts.history:
        return None
    kept = kept_index(facts.history)
    loss, accuracy = drawn.curves(facts.history, kept)
    return {
        "loss": loss,
        "accuracy": accuracy,
        "kept": facts.history[kept],
        "kept_number": kept + 1,
        "last": facts.history[-1],
        "epochs": len(facts.history),
    }


def _confusion(metrics: Metrics | None) -> dict[str, Any] | None:
    if metrics is None:
        return None
    pairs = metrics.extra.get("confused_pairs", [])[:CONFUSED_SHOWN]
    support = {row.label: row.support for row in metrics.per_class}
    return {
        "svg": drawn.confusion_matrix(metrics),
        "pairs": [{**pair, "of": support[pair["true"]]} for pair in pairs],
        "shown": len(drawn.shown_classes(metrics)),
        "classes": len(metrics.classes),
        "counts": len(metrics.classes) <= drawn.COUNTS_UP_TO_CLASSES,
    }


def _classes(metrics: Metrics | None) -> list[dict[str, Any]]:
    """Rows of the per-class table, the least F1 first."""
    if metrics is None:
        return []
    intervals = metrics.extra.get("intervals", {})
    none: list[None] = [None] * len(metrics.classes)
    names = ("precision", "recall", "f1")
    columns = [intervals.get(name, none) for name in names]
    rows = [
        {**dataclasses.asdict(row), "intervals": dict(zip(names, three, strict=True))}
        for row, *three in zip(metrics.per_class, *columns, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["support"] == 0, row["f1"]))


def _reliability(metrics: Metrics | None) -> dict[str, Any] | None:
    if metrics is None or "reliability" not in metrics.extra:
        return None
    rows = [ReliabilityBin(**row) for row in metrics.extra["reliability"]]
    return {"svg": drawn.reliability_diagram(rows), "rows": rows, "ece": metrics.ece}


# -- pictures ------------------------------------------------------------------------------------


def _mistakes(facts: Facts, read_image: ReadImage | None, limits: Limits) -> dict[str, Any] | None:
    """The most confident wrong answers, each with its picture."""
    predictions = facts.predictions
    if predictions is None:
        return None
    wrong = _wrong(predictions)
    shown = [
        {
            "picture": thumbnail(predictions.paths[i], read_image, limits=limits),
            "label": predictions.labels[i],
            "predicted": predictions.predicted[i],
            "confidence": float(predictions.confidence[i]),
        }
        for i in wrong[:MISTAKES_SHOWN]
    ]
    return {"shown": shown, "total": len(wrong), "images": len(predictions)}


def _wrong(predictions: Predictions) -> list[int]:
    confidence, chosen = predictions.confidence, predictions.predicted
    wrong = [i for i, label in enumerate(predictions.labels) if label and label != chosen[i]]
    return sorted(wrong, key=lambda i: (-confidence[i], predictions.paths[i]))


def _crossing(facts: Facts, read_image: ReadImage | None, limits: Limits) -> dict[str, Any] | None:
    """Pairs of near-duplicates that stand in two parts, with their pictures."""
    pairs: Sequence[Sequence[Any]] = facts.record.split.get("crossing", [])
    if not pairs:
        return None
    part = {record.path: record.part for record in facts.dataset}

    def side(path: str) -> dict[str, Any]:
        return {"picture": thumbnail(path, read_image, limits=limits), "part": part.get(path, "")}

    return {
        "shown": [{"first": side(pair[0]), "second": side(pair[1])} for pair in pairs[:PAIRS_SHOWN]],
        "total": len(pairs),
    }


# -- the backbone ---------------------------------------------------------------------------------


def _backbone(facts: Facts) -> str:
    """What was trained: the recipe's backbone, or the one that "auto" became."""
    if facts.recipe is None:
        return ""
    named = facts.recipe.model.backbone
    return str(facts.record.choice.get("backbone", named)) if named == "auto" else named


# -- data, recipe, environment -------------------------------------------------------------------


def _data(facts: Facts) -> dict[str, Any] | None:
    if not facts.dataset and not facts.audit:
        return None
    used = [record for record in facts.dataset if record.used]
    counts = Counter((record.label, record.part) for record in used)
    parts = [part for part in PARTS if any(record.part == part for record in used)]
    labels = sorted({record.label for record in used})
    return {
        "parts": parts,
        "rows": [(label, [counts[label, part] for part in parts]) for label in labels],
        "totals": [sum(counts[label, part] for label in labels) for part in parts],
        "used": len(used),
        "left_out": len(facts.dataset) - len(used),
        "audited": bool(facts.audit),
        "findings": facts.audit.get("findings", []),
        "reasons": facts.record.split.get("reasons", []),
    }


def _changes(recipe: Recipe | None) -> list[tuple[str, Any, Any]]:
    """(key, value, default) wherever the recipe is not the default."""
    if recipe is None:
        return []
    return [(key, here, default) for key, (here, default) in differing_keys(recipe, Recipe()).items()]


def _environment(facts: Facts) -> list[tuple[str, str]]:
    """What the result was made with, as label and text."""
    record, model = facts.record, facts.model
    rows = [
        ("Command", shlex.join(record.command)),
        ("Data", record.data),
        ("Platform", record.platform),
        ("Device", record.device),
        ("Precision", record.precision),
        ("Threads", record.threads or None),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("Seconds", record.seconds),
        ("Weights (SHA-256)", model.get("weights_sha256")),
        ("Data fingerprint", model.get("data_fingerprint")),
        ("Temperature", f"{model['temperature']:.4g}" if "temperature" in model else None),
    ]
    rows += [("Training", note) for note in model.get("training", {}).get("notes", ())]
    rows += [(f"auto: {key}", _plain(value)) for key, value in record.resolved.items()]
    return [(label, str(text)) for label, text in rows if text not in (None, "", [])]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(_plain(inner) for inner in value)
    return str(value)
