"""`model_card.md`: what a run knows of its model, for those who get it; what it cannot know is left to write.

Source of the headings: M. Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from saccade.audit.findings import KINDS
from saccade.evaluation.remedies import fitted
from saccade.evaluation.shown import every_figure
from saccade.records import Metrics
from saccade.report.annex_iv import annex_iv
from saccade.report.cover import day_and_time, header
from saccade.report.facts import Facts
from saccade.report.front_matter import front_matter
from saccade.report.markdown import left_open, plain, table
from saccade.report.origins import data_name, images_by_part, weights_of, without_folders
from saccade.report.promises import promises, use_of_test_images
from saccade.terminal import counted, duration

CLASSES_NAMED = 20  # in the first paragraph; the tables have all
TIMM_CODE = 'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()'
PARTS_WORDS = {
    "folds": "held-out images of the folds' models",
    "validation": "validation images, which chose the model: expect somewhat less on new ones",
}


def model_card(facts: Facts, *, with_annex_iv: bool = False, library: str = "onnx") -> str:
    """The card as Markdown with the front matter of the Hugging Face Hub.

    The same facts give the same card, byte for byte. `library`: what loads the model, by the Hub's name for
    it. `with_annex_iv` adds the headings of points 2 to 4 of Annex IV of Regulation (EU) 2024/1689.
    """
    sections = [
        *(f"# {plain(facts.name)}", _opening(facts)),
        *("## Intended use", *_use(facts)),
        *("## Data", *_data(facts)),
        *("## Training", *_training(facts)),
        *("## Figures", *_figures(facts)),
        *("## Calibration", *_calibration(facts)),
        *("## Limits found", *_limits(facts)),
        *("## How to use", *_how_to_use(facts, library)),
        *("## Environment", table(("", ""), _environment(facts))),
    ]
    if with_annex_iv:
        sections += annex_iv(facts)
    return front_matter(facts, library=library) + "\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def _opening(facts: Facts) -> str:
    figures = facts.figures
    if figures is None:
        return "A classifier of images. This run holds no figures."
    names = ", ".join(plain(name) for name in figures.classes[:CLASSES_NAMED])
    more = (
        f" and {len(figures.classes) - CLASSES_NAMED:,} more" if len(figures.classes) > CLASSES_NAMED else ""
    )
    kind = "labels, of which an image may have several" if figures.multi_label else "classes"
    right = "with exactly its labels" if figures.multi_label else "right"
    return (
        f"A classifier of images into {len(figures.classes):,} {kind}: {names}{more}. It names "
        f"{figures.accuracy} of {figures.images:,} {facts.images_word} images {right} "
        "(95 % interval in brackets)."
    )


def _use(facts: Facts) -> Iterator[str]:
    yield left_open("for whom and for what this model is meant, and what it must not be used for")
    yield (
        "What the run knows: the model was measured on images like those under *Data*, and answers every "
        "image with its classes, also one that shows none of them."
    )


# -- data ------------------------------------------------------------------------------------------------


def _data(facts: Facts) -> Iterator[str]:
    used, all_images = sum(record.used for record in facts.dataset), len(facts.dataset)
    split = "given with the data" if facts.record.split.get("made_by_user") else "made by saccade"
    rows = [
        ("Folder", data_name(facts)),
        ("Fingerprint (SHA-256)", str(facts.model.get("data_fingerprint", ""))),
        ("Images in use", f"{used:,}" if used else ""),
        ("Left out", f"{all_images - used:,}" if all_images > used else ""),
        ("Parts", _parts(facts)),
        ("Split", split if facts.record.split else ""),
    ]
    yield table(("", ""), _known(rows))
    yield _class_counts(facts)
    yield left_open("where the images come from, who labelled them and how, and whom they show")
    yield from _audit(facts)


def _parts(facts: Facts) -> str:
    return ", ".join(f"{part} {images:,}" for part, images in images_by_part(facts).items())


def _class_counts(facts: Facts) -> str:
    counts = Counter((name, r.part) for r in facts.dataset if r.used and r.part for name in r.labels)
    parts = list(images_by_part(facts))
    names = sorted({name for name, _ in counts})
    rows = [(name, *(f"{counts[name, part]:,}" for part in parts)) for name in names]
    return table(("Class", *(part.capitalize() for part in parts)), rows) if rows else ""


def _audit(facts: Facts) -> Iterator[str]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for finding in facts.audit.get("findings", ()):
        found.setdefault(finding["kind"], []).append(finding)
    if not facts.audit:
        return
    if not found:
        yield "The audit found nothing that needs doing."
        return
    yield "What the audit found:"
    rows = [
        (
            KINDS[kind].title if kind in KINDS else kind,
            each[0]["severity"],
            f"{len(each):,}",
            without_folders(each[0]["message"], facts),
        )
        for kind, each in found.items()
    ]
    yield table(("Found", "Severity", "Findings", "The first of them"), rows)


# -- training --------------------------------------------------------------------------------------------


def _training(facts: Facts) -> Iterator[str]:
    weights, resolved = weights_of(facts), facts.record.resolved
    preprocess = facts.model.get("preprocess") or resolved.get("data.preprocess", {})
    at_once = bool(facts.history) and fitted(facts.history)
    rows = [
        ("Model", dict(header(facts)).get("Model", facts.backbone)),
        ("Pretrained weights", weights.source if weights else ""),
        ("Their licence", (weights.licence or "not stated") if weights else ""),
        ("Input", _input(preprocess)),
        ("Epochs", str(len(facts.history)) if facts.history and not at_once else ""),
        ("Stopped", "" if at_once else str(facts.model.get("training", {}).get("stopped", ""))),
    ]
    yield table(("", ""), _known(rows))
    notes = facts.model.get("training", {}).get("notes", ())
    yield "\n".join(f"- {plain(without_folders(note, facts))}" for note in notes)


def _input(preprocess: Mapping[str, Any]) -> str:
    if not preprocess.get("size"):
        return ""
    how = f", {preprocess['resize']}, {preprocess['interpolation']}" if "interpolation" in preprocess else ""
    return f"{preprocess['size']} x {preprocess['size']} pixels{how}"


# -- figures ---------------------------------------------------------------------------------------------


def _figures(facts: Facts) -> Iterator[str]:
    figures = facts.figures
    if figures is None:
        yield "This run holds no figures."
        return
    groups = figures.extra.get("groups", figures.images)
    by_group = f", by {groups:,} groups of images that belong together" if groups < figures.images else ""
    yield f"On {figures.images:,} {_judged_images(facts)}; 95 % intervals{by_group}."
    rows = [(row.name, f"{row.value:.3f}", _range(row.interval)) for row in every_figure(figures)]
    yield table(("Figure", "Value", "95 % interval"), rows)
    yield _of_classes(figures)


def _judged_images(facts: Facts) -> str:
    if facts.part == "test":
        return ", ".join(filter(None, ("test images", use_of_test_images(facts.record))))
    return PARTS_WORDS.get(facts.part, "images")


def _of_classes(figures: Metrics) -> str:
    intervals, names = figures.extra.get("intervals", {}), ("precision", "recall", "f1")
    none: Sequence[None] = [None] * len(figures.per_class)
    columns = [intervals.get(name) or none for name in names]
    rows = [
        (
            row.label,
            *(_with_range(getattr(row, n), r) for n, r in zip(names, ranges, strict=True)),
            f"{row.support:,}",
        )
        for row, *ranges in zip(figures.per_class, *columns, strict=True)
    ]
    return table(("Class", "Precision", "Recall", "F1", "Images"), rows)


def _range(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""


def _with_range(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.3f} ({_range(interval)})" if interval else f"{value:.3f}"


def _calibration(facts: Facts) -> Iterator[str]:
    figures = facts.figures
    if figures is None:
        return
    found = figures.extra.get("calibration") or {}
    cases = [(case, found[case]) for case in ("before", "after") if found.get(case)]
    if not cases:
        yield f"Expected calibration error (ECE, 15 bins): {figures.ece:.3f}."
        return
    names = ("binned", "adaptive", "smooth")
    rows = [
        (
            case.capitalize(),
            *(_with_range(one[n], one["intervals"][n]) for n in names),
            f"{one['log_loss']:.3f}",
        )
        for case, one in cases
    ]
    temperature = found.get("temperature")
    by = f" by a temperature of {temperature:.4g}" if temperature and temperature != 1 else ""
    scaled = f"before and after scaling{by}" if by else "as answered"
    yield f"By how much confidence and accuracy differ, {scaled}."
    yield table(("", "ECE, binned", "ECE, adaptive", "ECE, smooth", "Log loss"), rows)


def _limits(facts: Facts) -> Iterator[str]:
    """What the diagnosis found, and promises that were broken or not checked."""
    said = [f"{limit.message} {limit.remedy}".strip() for limit in facts.limits]
    block = promises(facts.record.promises)
    said += [f"Broken: {p.title}. {p.evidence}" for p in block if p.state == "broken"]
    said += [f"Not checked: {p.title}. {p.evidence}" for p in block if p.state == "not checked"]
    yield "\n".join(f"- {plain(without_folders(text, facts))}" for text in said) or "The run found none."
    yield left_open(
        "limits that figures on these images cannot show, such as other cameras, places or people"
    )


# -- use and environment ---------------------------------------------------------------------------------


def _how_to_use(facts: Facts, library: str) -> Iterator[str]:
    if library == "timm":
        yield "```python\nimport timm\n\n" + TIMM_CODE + "\n```"
        return
    if not facts.certificate:
        yield "This run has no exported file yet: `saccade export RUN` writes one."
        return
    yield (
        "```python\nimport saccade\n\n"
        'model = saccade.load("export/model.onnx")\nprint(model.predict(["photo.jpg"]))\n```'
    )
    state = "holds" if facts.certificate.get("passed") else "FAILED"
    images = counted(facts.certificate.get("images", 0), "image")
    yield (
        f"`model.onnx` holds preprocessing, network and probabilities. Its certificate {state}: its answers "
        f"were compared with the trained model's on {images}."
    )


def _environment(facts: Facts) -> list[tuple[str, str]]:
    record = facts.record
    rows = [
        ("Made", day_and_time(record.began)),
        ("Took", duration(record.seconds) if record.seconds else ""),
        ("Platform", record.platform),
        ("Device", record.device_name or record.device),
        ("Precision", record.precision),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("Weights of the model (SHA-256)", str(facts.model.get("weights_sha256", ""))),
    ]
    return _known(rows)


def _known(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [row for row in rows if row[1]]
