"""The report: what a run folder holds, arranged for a reader and written as one HTML file."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.evaluation.calibration import ReliabilityBin
from saccade.evaluation.remedies import fitted
from saccade.evaluation.shown import OTHERS, Shown, every_figure, shown_figures
from saccade.images.decoder import Limits
from saccade.images.thumbnails import ReadImage
from saccade.recipe import Recipe, differing_keys
from saccade.records import PARTS, Finding, Metrics
from saccade.report import figures as drawn
from saccade.report.asking import asking
from saccade.report.closer import closer, feature_map
from saccade.report.confusion import class_photos, confusion
from saccade.report.cover import cover, header, use
from saccade.report.facts import Facts, read_facts
from saccade.report.found import by_kind
from saccade.report.gallery import Gallery
from saccade.report.label_errors import label_errors
from saccade.report.labels import label_mistakes, labels, together
from saccade.report.learning import curves, fitted_head
from saccade.report.more_data import more_data
from saccade.report.promises import promises
from saccade.report.render import bounds, percent, render
from saccade.report.slices import slices
from saccade.run_folder import RunFolder

MISTAKES_SHOWN = 16
PAIRS_SHOWN = 12
ROWS_UNFOLDED = 15
# worked out for every run, and no part of one in which a head was fitted and nothing else trained
OF_EPOCHS = (
    "train.epochs",
    "train.lr",
    "train.finetune_lr",
    "train.batch_size",
    "train.ema_decay",
    "augment",
)
TRIALS_SHOWN = 20
COLUMNS = 12  # of a wide page


def write_report(run: RunFolder, *, read_image: ReadImage | None = None) -> Path:
    """Write `report/report.html` from the run folder's files alone; returns its path.

    `read_image` gives an image's bytes by its path in `dataset.csv`; without it, or where it raises
    ImageError, a line of text stands in the thumbnail's place. Raises RunError for a damaged file.
    """
    run.write(run.report, report_html(read_facts(run), read_image).encode("utf-8", "surrogateescape"))
    return run.report


def report_html(facts: Facts, read_image: ReadImage | None = None) -> str:
    """The whole page as text; the same facts and images give the same page, byte for byte."""
    limits = Limits.of(facts.recipe.data) if facts.recipe else Limits()
    with Gallery(read_image, limits) as picture:
        sections = [section for section in SECTIONS if section.of_new_data or not facts.about]
        filled = [(section, section.data(facts, picture)) for section in sections]
        shown = [section.shown(facts, data) for section, data in filled if data]
        return render(
            "report.html",
            facts=facts,
            header=header(facts),
            rows_unfolded=ROWS_UNFOLDED,
            names=[section["name"] for section in shown],
            sections=side_by_side([section for section in shown if not section["appendix"]]),
            appendix=[section for section in shown if section["appendix"]],
        )


def side_by_side(sections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sections with their columns of a wide page, the last of each row as wide as there is room."""
    rows: list[list[dict[str, Any]]] = [[]]
    for section in sections:
        if sum(other["columns"] for other in rows[-1]) + section["columns"] > COLUMNS:
            rows.append([])
        rows[-1].append(section)
    for row in filter(None, rows):
        row[-1] = {**row[-1], "columns": COLUMNS - sum(other["columns"] for other in row[:-1])}
    return [section for row in rows for section in row]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: its anchor, its word in the list at the top, and what its template tells.

    `data(facts, picture)` gives plain values for `templates/sections/NAME.html`, or another `template`; None,
    or nothing, leaves the section out. `picture(path)` gives an image's thumbnail. It takes so many of 12
    `columns` where a page is wide. What is in the `appendix` is folded, unless `opened(facts)`; it is not
    `printed`. `of_new_data`: an evaluation of other images has it, too.
    """

    name: str
    title: str
    data: Callable[[Facts, Gallery], Any]
    columns: int = COLUMNS
    appendix: bool = False
    printed: bool = True
    of_new_data: bool = True
    opened: Callable[[Facts], bool] = lambda facts: False
    template: str = ""

    def shown(self, facts: Facts, data: Any) -> dict[str, Any]:
        """What the page's template needs of it."""
        return {
            "name": self.name,
            "title": self.title,
            "template": f"sections/{self.template or self.name}.html",
            "data": data,
            "columns": self.columns,
            "appendix": self.appendix,
            "printed": self.printed,
            "opened": self.opened(facts),
        }


# -- figures ---------------------------------------------------------------------------------------------


def _figures(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """One column a part, the judged one first; one row a figure."""
    if facts.figures is None:
        return None
    order = [facts.part, *(part for part in ("validation", "folds", "train") if part != facts.part)]
    columns = [part for part in order if part in facts.metrics]
    cells = [_figure_cells(facts.metrics[part]) for part in columns]
    rows = [(name, [cell.get(name) for cell in cells]) for name in cells[0]]
    folded = (*OTHERS.values(), "Brier score")
    return {
        "parts": columns,
        "rows": [row for row in rows if row[0] not in folded],
        "further": [row for row in rows if row[0] in folded],
        "groups": {part: _groups(facts.metrics[part]) for part in columns},
    }


def _groups(metrics: Metrics) -> int:
    """By which the intervals go; 0 where each image stands alone."""
    groups = int(metrics.extra.get("groups", metrics.images))
    return groups if groups < metrics.images else 0


def _figure_cells(metrics: Metrics) -> dict[str, tuple[str, str]]:
    """Figure -> its value and its interval, as text."""
    if metrics.multi_label:
        return _figures_of_labels(metrics)
    return {row.name: _cell(row) for row in shown_figures(metrics)}


def _cell(row: Shown) -> tuple[str, str]:
    if row.share:
        return percent(row.value), bounds(row.interval)
    return f"{row.value:.3f}", bounds(row.interval, scale=1)


def _folds(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """A row a fold, then mean, standard deviation and interval; and what was made of the folds' models."""
    if not facts.folds:
        return None
    names = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
    figures = [(name, facts.folds["over_folds"][name]) for name in names]
    rows = [
        (title, [_told(name, figure[key]) for name, figure in figures])
        for title, key in (("Mean", "mean"), ("Standard deviation", "sd"))
    ]
    rows.append(
        ("95 % interval", [f"{_told(n, found['low'])} to {_told(n, found['high'])}" for n, found in figures])
    )
    return {
        "images": facts.folds["images"],
        "folds": facts.folds["folds"],
        "rows": rows,
        "method": facts.folds["interval_method"],
        "model": facts.record.folds,
    }


def _search(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """The trials that gave a model, the best first, and what mattered."""
    if not facts.search:
        return None
    rows = []
    for trial in facts.search["trials"]:
        if trial["rungs"]:
            best = min(trial["rungs"], key=lambda rung: rung["log_loss"])
            settings = [
                f"{key} {_setting(value)}" for key, value in trial["params"].items() if key != "method"
            ]
            rows.append({**trial, **best, "settings": ", ".join(settings)})
    return {
        **facts.search,
        "judged_by": facts.search.get("judged_by", "log loss"),
        "rows": sorted(rows, key=lambda row: row["log_loss"])[:TRIALS_SHOWN],
        "left_out": max(0, len(rows) - TRIALS_SHOWN),
        "importances": list(facts.search["importances"].items()),
    }


def _setting(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _told(name: str, value: float) -> str:
    return percent(value) if name.endswith("accuracy") else f"{value:.3f}"


def _figures_of_labels(metrics: Metrics) -> dict[str, tuple[str, str]]:
    return {row.name: (f"{row.value:.3f}", bounds(row.interval, scale=1)) for row in every_figure(metrics)}


def _diagnosis(facts: Facts, picture: Gallery) -> tuple[Finding, ...]:
    return facts.findings


def _classes(facts: Facts, picture: Gallery) -> list[dict[str, Any]]:
    """Rows of the per-class table, the least recall first."""
    metrics = facts.figures
    if metrics is None or metrics.multi_label:
        return []
    intervals = metrics.extra.get("intervals", {})
    none: list[None] = [None] * len(metrics.classes)
    names = ("precision", "recall", "f1", "average_precision", "auroc")
    columns = [intervals.get(name, none) for name in names]
    rows = [
        {**dataclasses.asdict(row), "intervals": dict(zip(names, each, strict=True))}
        for row, *each in zip(metrics.per_class, *columns, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["support"] == 0, row["recall"]))


def _reliability(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    metrics = facts.figures
    if metrics is None or "reliability" not in metrics.extra:
        return None
    rows = [ReliabilityBin(**row) for row in metrics.extra["reliability"]]
    calibration = metrics.extra.get("calibration") or {}
    return {
        "svg": drawn.reliability_diagram(rows, intervals=not metrics.multi_label),
        "rows": rows,
        "ece": metrics.ece,
        "temperature": calibration.get("temperature"),
        "errors": [(when, calibration[when]) for when in ("before", "after") if calibration.get(when)],
    }


# -- pictures ------------------------------------------------------------------------------------


def _mistakes(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """The most confident wrong answers, each with its picture."""
    predictions = facts.predictions
    if predictions is None or predictions.named is not None or facts.insights.get("neighbours"):
        return None  # the last: they are looked at closely, further down
    wrong, predicted, confidence = predictions.wrong, predictions.predicted, predictions.confidence
    shown = [
        {
            "picture": picture(predictions.paths[i]),
            "label": predictions.labels[i],
            "predicted": predicted[i],
            "confidence": float(confidence[i]),
        }
        for i in wrong[:MISTAKES_SHOWN]
    ]
    return {"shown": shown, "total": len(wrong), "images": len(predictions)}


def _crossing(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """Pairs of near-duplicates that stand in two parts, with their pictures."""
    pairs: Sequence[Sequence[Any]] = facts.record.split.get("crossing", [])
    if not pairs:
        return None
    part = {record.path: record.part for record in facts.dataset}

    def side(path: str) -> dict[str, Any]:
        return {"picture": picture(path), "part": part.get(path, "")}

    return {
        "shown": [{"first": side(pair[0]), "second": side(pair[1])} for pair in pairs[:PAIRS_SHOWN]],
        "total": len(pairs),
    }


# -- data, recipe, environment -------------------------------------------------------------------


def _data(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    if not facts.dataset and not facts.audit:
        return None
    used = [record for record in facts.dataset if record.used]
    counts = Counter((label, record.part) for record in used for label in record.labels)
    sizes = Counter(record.part for record in used)
    parts = [part for part in PARTS if any(record.part == part for record in used)]
    names = sorted({label for record in used for label in record.labels})
    return {
        "parts": parts,
        "rows": [(label, [counts[label, part] for part in parts]) for label in names],
        "totals": [sizes[part] for part in parts],
        "used": len(used),
        "left_out": len(facts.dataset) - len(used),
        "audited": bool(facts.audit),
        "found": by_kind(facts.audit.get("findings", []), picture),
        "page": "audit.html" if facts.audit_page else "",
        "reasons": facts.record.split.get("reasons", []),
    }


def _promises(facts: Facts, picture: Gallery) -> dict[str, Any]:
    return {"promises": promises(facts.record.promises), "crossing": _crossing(facts, picture)}


def _choice(facts: Facts, picture: Gallery) -> Mapping[str, Any]:
    return facts.record.choice


def _export(facts: Facts, picture: Gallery) -> Mapping[str, Any]:
    return facts.certificate


def _recipe(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """(key, value, default) wherever the recipe is not the default."""
    if facts.recipe is None:
        return None
    differing = differing_keys(facts.recipe, Recipe())
    return {
        "changes": [(key, here, default) for key, (here, default) in differing.items()],
        "fitted": bool(facts.history) and fitted(facts.history),
    }


def _environment(facts: Facts, picture: Gallery) -> list[tuple[str, str]]:
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
    ]
    rows += _answer_rows(model)
    rows += [("Training", note) for note in model.get("training", {}).get("notes", ())]
    without = OF_EPOCHS if facts.history and fitted(facts.history) else ()
    rows += [(f"auto: {key}", _plain(value)) for key, value in record.resolved.items() if key not in without]
    return [(label, str(text)) for label, text in rows if text not in (None, "", [])]


def _answer_rows(model: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """How the network's outputs became probabilities; what is as usual is left out."""
    if "temperature" in model:
        return [("Temperature", f"{model['temperature']:.4g}")]
    answer = model.get("answer", {})
    return [
        ("Activation", answer.get("activation")),
        ("Temperature", _numbers(answer.get("temperatures", ()))),
        ("Offsets of the classes", _numbers(answer.get("offsets", ()))),
    ]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(_plain(inner) for inner in value)
    return str(value)


def _about(facts: Facts, picture: Gallery) -> list[tuple[str, str]]:
    """Of an evaluation: which run on which images, and when."""
    about = facts.about
    if not about:
        return []
    rows = [
        ("Run", about["run"]),
        ("Backbone", about["backbone"]),
        ("Weights (SHA-256)", about["weights_sha256"]),
        ("Data", about["data"]),
        ("Data fingerprint", about["fingerprint"]),
        ("Class shares", about["priors"]),
        ("Measured", ", ".join(about["measured"])),
        *_answer_rows(facts.model),
    ]
    return [(label, str(text)) for label, text in rows if text]


def _broken(facts: Facts) -> bool:
    return any(promise.state == "broken" for promise in promises(facts.record.promises))


# One line adds a section, with a template in templates/sections.
SECTIONS = (
    Section("result", "Result", cover, columns=8),
    Section("use", "Use it", use, columns=4, printed=False, of_new_data=False),
    Section("diagnosis", "Diagnosis", _diagnosis, columns=6),
    Section("figures", "Figures", _figures, columns=6),
    Section("asking", "Answer or ask", asking, columns=6),
    Section("reliability", "Confidence", _reliability, columns=6),
    Section("confusion", "Confusion", confusion),
    Section("folds", "Folds", _folds, of_new_data=False),
    Section("pictures", "Photos", class_photos, printed=False),
    Section("mistakes", "Mistakes", _mistakes, printed=False),
    Section("label_errors", "Label errors", label_errors, printed=False, of_new_data=False),
    Section("closer", "Closer", closer, printed=False, of_new_data=False),
    Section("map", "Map", feature_map, printed=False, of_new_data=False),
    Section("slices", "Slices", slices, printed=False, of_new_data=False),
    Section("labels", "Labels", labels),
    Section("together", "Together", together),
    Section("label_mistakes", "Mistakes", label_mistakes, printed=False),
    Section("classes", "Classes", _classes, columns=6),
    Section("fitted_head", "Head", fitted_head, columns=6, printed=False, of_new_data=False),
    Section("more_data", "More data", more_data, printed=False, of_new_data=False),
    Section("curves", "Curves", curves, printed=False, of_new_data=False),
    Section("data", "Data", _data, printed=False),
    Section("about", "This evaluation", _about, template="rows"),
    Section("promises", "The ten promises", _promises, appendix=True, of_new_data=False, opened=_broken),
    Section("search", "Search", _search, appendix=True, of_new_data=False),
    Section("backbone", "Backbone", _choice, appendix=True, of_new_data=False),
    Section("export", "The exported file", _export, appendix=True, of_new_data=False),
    Section("recipe", "Recipe", _recipe, appendix=True, of_new_data=False),
    Section("environment", "Environment", _environment, appendix=True, of_new_data=False, template="rows"),
)
