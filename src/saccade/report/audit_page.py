"""The audit as one page: what was found, worst first, with the pictures that prove it side by side."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from saccade.audit.findings import KINDS
from saccade.images.decoder import DEFAULT_LIMITS, Limits
from saccade.images.thumbnails import ReadImage
from saccade.records import PARTS, Audit, Finding, ImageRecord, Pair
from saccade.report.found import SETS, WITHOUT_PICTURES
from saccade.report.gallery import Gallery
from saccade.report.render import percent, render
from saccade.run_folder import RunFolder, write_text

FINDINGS_SHOWN = 12  # of one kind, with pictures; the rest are listed
PICTURES_SHOWN = 12  # of a finding about single images
SIDES_SHOWN = 6  # of a set of copies
BAND_WORDS = {"certain": "certain", "likely": "likely", "look": "look at these"}


def write_audit_page(
    audit: Audit, path: Path, read_image: ReadImage | None = None, *, limits: Limits = DEFAULT_LIMITS
) -> Path:
    """Write the page to `path`; `read_image` gives an image's bytes by its path in the audit.

    Without it, or where it raises ImageError, a line of text stands in the picture's place.
    """
    write_text(path, audit_html(audit, read_image, limits=limits))
    return path


def write_audit_of(
    run: RunFolder, audit: Audit, read_image: ReadImage, *, limits: Limits = DEFAULT_LIMITS
) -> Path:
    """Write the page beside the report of a run, or of an evaluation."""
    page = audit_html(audit, read_image, limits=limits, report=run.report.name)
    run.write(run.audit_page, page.encode("utf-8", "surrogateescape"))
    return run.audit_page


def audit_html(
    audit: Audit, read_image: ReadImage | None = None, *, limits: Limits = DEFAULT_LIMITS, report: str = ""
) -> str:
    """The whole page as text; the same audit and images give the same page, byte for byte.

    `report` is the name of a report that stands beside it.
    """
    with Gallery(read_image, limits) as picture:
        return _page(audit, _Gallery(audit, picture), report)


def _page(audit: Audit, gallery: _Gallery, report: str) -> str:
    return render(
        "audit.html",
        report=report,
        name=audit.dataset.root.name or str(audit.dataset.root),
        summary=_summary(audit),
        sections=[
            _section(kind, list(findings), gallery)
            for kind, findings in groupby(audit.findings, key=lambda found: found.kind)
        ],
        classes=_classes(audit),
        parts_given=[part for part in PARTS if part in audit.dataset.given_parts],
    )


class _Gallery:
    """Pictures by path with what stands beneath them, and pairs."""

    def __init__(self, audit: Audit, picture: Gallery) -> None:
        self._records = {record.path: record for record in audit.dataset.records}
        self._pairs: defaultdict[str, list[Pair]] = defaultdict(list)
        for pair in audit.pairs:
            self._pairs[pair.first].append(pair)
        self._picture = picture

    def picture(self, path: str) -> dict[str, Any]:
        """A picture with its label, part and size."""
        record = self._records.get(path)
        return {"picture": self._picture(path), "facts": _facts(record) if record else "", "path": path}

    def pairs_among(self, paths: Sequence[str]) -> list[Pair]:
        """Verified pairs between these images, the strongest first."""
        wanted = set(paths)
        found = [pair for path in paths for pair in self._pairs[path] if pair.second in wanted]
        return sorted(found, key=lambda pair: -pair.score)


def _facts(record: ImageRecord) -> str:
    size = f"{record.width} x {record.height}" if record.width else ""
    return ", ".join(filter(None, (record.label, record.part, size)))


def _summary(audit: Audit) -> dict[str, Any]:
    dataset = audit.dataset
    counts = Counter(found.severity for found in audit.findings)
    used = len(dataset.used())
    return {
        "images": len(dataset.records),
        "used": used,
        "left_out": len(dataset.records) - used,
        "classes": len(dataset.classes),
        "errors": counts["error"],
        "warnings": counts["warning"],
        "worst": audit.worst,
    }


def _section(kind: str, findings: Sequence[Finding], gallery: _Gallery) -> dict[str, Any]:
    """One kind: the findings shown with pictures, and the rest as plain lines."""
    paths = {path for found in findings for path in found.paths}
    return {
        "kind": kind,
        "title": KINDS[kind].title if kind in KINDS else kind,
        "severity": findings[0].severity,
        "remedy": findings[0].remedy if len({found.remedy for found in findings}) == 1 else "",
        "findings": len(findings),
        "files": len(paths),
        "shown": [_shown(found, gallery) for found in findings[:FINDINGS_SHOWN]],
        "more": findings[FINDINGS_SHOWN:],
    }


def _shown(found: Finding, gallery: _Gallery) -> dict[str, Any]:
    if found.kind == "shortcut":
        return {
            "found": found,
            **_property_table(found),
            "pictures": [gallery.picture(p) for p in found.paths[:24]],
        }
    if found.kind == "shortcuts_checked":
        return {"found": found, **_score_table(found)}
    if found.kind == "possible_duplicates":
        return {"found": found, "pairs": _listed_pairs(found, gallery)}
    if found.kind in WITHOUT_PICTURES:
        return {"found": found}
    most = SIDES_SHOWN if found.kind in SETS else PICTURES_SHOWN
    pictures = [gallery.picture(path) for path in found.paths[:most]]
    why = [_why(pair) for pair in gallery.pairs_among(found.paths)[:3]] if found.kind in SETS else []
    return {"found": found, "pictures": pictures, "why": why, "side_by_side": found.kind in SETS}


def _listed_pairs(found: Finding, gallery: _Gallery) -> list[dict[str, Any]]:
    """Pairs to look at; each two paths belong together."""
    pairs = []
    for first, second in zip(found.paths[::2], found.paths[1::2], strict=True):
        known = gallery.pairs_among((first, second)) or gallery.pairs_among((second, first))
        sides = [gallery.picture(path) for path in (first, second)]
        pairs.append({"sides": sides, "why": _why(known[0]) if known else ""})
        if len(pairs) == FINDINGS_SHOWN:
            break
    return pairs


def _why(pair: Pair) -> str:
    how = f", {pair.how}" if pair.how else ""
    return f"{BAND_WORDS[pair.band]}{how}: agreement {pair.score:.2f}"


def _property_table(found: Finding) -> dict[str, Any]:
    """What the property is in each class: quartiles of a number, or the commonest values."""
    per_class: Mapping[str, Mapping[str, float]] = found.figure["per_class"]
    unit = found.figure.get("unit", "")
    if all("median" in row for row in per_class.values()):
        rows = [
            (label, f"{_plain(row['median'])} {unit}".strip(), _span(row)) for label, row in per_class.items()
        ]
        return {"table": {"head": ("Class", "Median", "Middle half"), "rows": rows}}
    rows = [
        (label, ", ".join(f"{value} ({percent(share)})" for value, share in row.items()), "")
        for label, row in per_class.items()
    ]
    return {"table": {"head": ("Class", "Most common", ""), "rows": rows}}


def _score_table(found: Finding) -> dict[str, Any]:
    scores = sorted(found.figure["balanced_accuracy"].items(), key=lambda item: -item[1]["accuracy"])
    rows = [(name, percent(row["accuracy"]), percent(row["chance"])) for name, row in scores]
    return {"table": {"head": ("Property alone", "Balanced accuracy", "Chance"), "rows": rows}}


def _span(row: Mapping[str, float]) -> str:
    return f"{_plain(row['quarter'])} \u2013 {_plain(row['three_quarters'])}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _classes(audit: Audit) -> list[dict[str, Any]]:
    """Images of each class: in use, per part, left out, with a near-duplicate."""
    used, parts = audit.dataset.counts(), audit.dataset.given_parts
    per_part = {part: audit.dataset.counts(part) for part in PARTS if part in parts}
    left_out = Counter(label for r in audit.dataset.records if not r.used for label in r.labels)
    copies = Counter(label for r in audit.dataset.used() if r.path in audit.clusters for label in r.labels)
    most = max(used.values(), default=0)
    return [
        {
            "label": label,
            "used": used[label],
            "parts": [counts[label] for counts in per_part.values()],
            "left_out": left_out[label],
            "copies": copies[label],
            "share": used[label] / most if most else 0,
        }
        for label in audit.dataset.classes
    ]
