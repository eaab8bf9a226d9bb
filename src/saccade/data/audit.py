"""What is wrong with a data set: which files, how sure, what to do.

Severities (a warning or worse makes `saccade audit` exit 1):

    kind                severity  set aside    when
    one_class           error     -            fewer than two classes have images
    too_small           error     -            a class has fewer distinct pictures than parts to fill
    label_conflict      error     all copies   one picture stands under two labels
    unreadable          warning   yes          a file cannot be decoded, or breaks a limit
    identical_files     warning   -            byte-identical copies under one label
    identical_pixels    warning   -            the same pixels in different files, under one label
    empty_class         warning   -            a class folder without images (only with --drop-empty)
    imbalance           warning   -            the largest class has 10 times the images of the smallest
    decoding_notes      info      -            what the decoder did or passed over
    listed              info      -            files and folders that are no part of the data
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from saccade.data.measure import Measurements
from saccade.records import Audit, Dataset, Finding, ImageRecord
from saccade.terminal import Progress, silent

PARTS_TO_FILL = 3
IMBALANCE_RATIO = 10
SEVERITY_ORDER = ("error", "warning", "info")


def audit(dataset: Dataset, measurements: Measurements, *, progress: Progress = silent) -> Audit:
    """Findings over a scanned data set; pictures under two labels are set aside in the audit's data set."""
    assert len(measurements) == len(dataset.records), "measurements stand in the order of the records"
    findings = [*unreadable(dataset), *notes(dataset)]
    conflicts = label_conflicts(dataset)
    findings += conflicts
    dataset = _without(dataset, conflicts)
    copies = identical(dataset)
    findings += copies
    findings += class_sizes(dataset)
    findings.sort(key=lambda finding: SEVERITY_ORDER.index(finding.severity))
    return Audit(dataset, tuple(findings), clusters=identical_clusters(dataset))


def audit_as_json(audit: Audit) -> dict[str, Any]:
    """The content of `audit.json`: counts and findings, plain values only."""
    dataset = audit.dataset
    return {
        "images": len(dataset.records),
        "used": len(dataset.used()),
        "set_aside": len(dataset.records) - len(dataset.used()),
        "classes": dataset.counts(),
        "worst": audit.worst,
        "findings": [_finding_as_json(finding) for finding in audit.findings],
    }


def _finding_as_json(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "confidence": finding.confidence,
        "message": finding.message,
        "remedy": finding.remedy,
        "paths": list(finding.paths),
        "figure": dict(finding.figure),
    }


def unreadable(dataset: Dataset) -> list[Finding]:
    """One finding for each kind of reason for which files were set aside while reading."""
    by_reason: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    for record in dataset.records:
        if not record.used:
            by_reason[re.sub(r"\d[\d,.]*", "N", record.note)].append(record)
    return [_unreadable_finding(records) for records in by_reason.values()]


def _unreadable_finding(records: Sequence[ImageRecord]) -> Finding:
    reason, _, remedy = records[0].note.partition(". Left out. ")
    count = len(records)
    what = f"{records[0].path}: {reason}" if count == 1 else f"{count} files: {reason}"
    return Finding(
        kind="unreadable",
        severity="warning",
        message=f"{what}. Left out",
        remedy=remedy,
        paths=tuple(record.path for record in records),
        figure={"notes": {record.path: record.note for record in records}},
    )


def notes(dataset: Dataset) -> list[Finding]:
    """What the decoder remarked on images in use, one finding for each remark; and what was passed over."""
    by_note: defaultdict[str, list[str]] = defaultdict(list)
    for record in dataset.used():
        for note in filter(None, record.note.split("; ")):
            by_note[note].append(record.path)
    findings = [
        Finding("decoding_notes", "info", f"{len(paths)} images: {note}", "Nothing to do", tuple(paths))
        for note, paths in sorted(by_note.items())
    ]
    if dataset.listed:
        message = f"{len(dataset.listed)} files or folders are no part of the data: " + _some(dataset.listed)
        findings.append(Finding("listed", "info", message, "Move or rename them if they should be used"))
    return findings


def label_conflicts(dataset: Dataset) -> list[Finding]:
    """One finding for each picture that stands under more than one label."""
    findings = []
    for records in _same_picture(dataset.used()):
        labels = sorted({record.label for record in records})
        if len(labels) > 1:
            names = ", ".join(record.path for record in records)
            message = (
                f"one picture stands under {len(labels)} labels ({', '.join(labels)}): {names}. All left out"
            )
            remedy = "Delete the wrong copies, or name the right one with `keep` in audit-decisions.csv"
            paths = tuple(record.path for record in records)
            findings.append(
                Finding("label_conflict", "error", message, remedy, paths, figure={"labels": labels})
            )
    return findings


def identical(dataset: Dataset) -> list[Finding]:
    """One finding for each set of copies under one label: the same bytes, or only the same pixels."""
    findings = []
    for records in _same_picture(dataset.used()):
        same_bytes = len({record.sha256 for record in records}) == 1
        kind = "identical_files" if same_bytes else "identical_pixels"
        what = "byte-identical copies" if same_bytes else "copies with the same pixels"
        paths = tuple(record.path for record in records)
        message = f"{len(paths)} {what}: {_some(paths)}"
        remedy = "Keep one and delete the others; the split keeps them in one part"
        findings.append(Finding(kind, "warning", message, remedy, paths))
    return findings


def identical_clusters(dataset: Dataset) -> dict[str, int]:
    """Path -> number of its set of identical pictures; pictures without a copy are left out."""
    groups = enumerate(_same_picture(dataset.used()))
    return {record.path: cluster for cluster, records in groups for record in records}


def class_sizes(dataset: Dataset) -> list[Finding]:
    """Classes that are empty, alone, too small to split, or out of balance."""
    counts = dataset.counts()
    findings = []
    if dataset.empty_classes:
        message = f"{len(dataset.empty_classes)} classes have no image: {_some(dataset.empty_classes)}"
        findings.append(Finding("empty_class", "warning", message, "Fill or delete these folders"))
    if sum(count > 0 for count in counts.values()) < 2:
        message = "fewer than two classes have images; there is nothing to tell apart"
        findings.append(Finding("one_class", "error", message, "Add images of another class"))
    if not dataset.given_parts:
        findings += _too_small(dataset)
    return findings + _imbalance(counts)


def _too_small(dataset: Dataset) -> list[Finding]:
    distinct: defaultdict[str, set[str]] = defaultdict(set)
    for record in dataset.used():
        distinct[record.label].add(record.group or record.pixel_sha256)
    small = {label: len(distinct[label]) for label in dataset.classes if len(distinct[label]) < PARTS_TO_FILL}
    if not small:
        return []
    listed = ", ".join(f"{label} ({count})" for label, count in small.items())
    message = f"too few distinct images or groups to fill {PARTS_TO_FILL} parts: {listed}"
    remedy = "Add images, merge these classes into others, or remove them"
    return [Finding("too_small", "error", message, remedy, figure={"distinct": small})]


def _imbalance(counts: Mapping[str, int]) -> list[Finding]:
    present = {label: count for label, count in counts.items() if count}
    if len(present) < 2:
        return []
    largest, smallest = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
    ratio = present[largest] / present[smallest]
    if ratio < IMBALANCE_RATIO:
        return []
    sizes = f"{present[largest]} and {present[smallest]}"
    message = f"{largest} has {ratio:.0f} times the images of {smallest} ({sizes})"
    remedy = "Judge by balanced accuracy and macro F1; add images, or train with --train.class-weights"
    return [Finding("imbalance", "warning", message, remedy, figure={"counts": present, "ratio": ratio})]


def _same_picture(records: Iterable[ImageRecord]) -> list[list[ImageRecord]]:
    """Sets of two or more records with the same upright pixels (identical bytes have them too)."""
    by_pixels: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        by_pixels[record.pixel_sha256 or record.sha256].append(record)
    return [group for group in by_pixels.values() if len(group) > 1]


def _without(dataset: Dataset, conflicts: Iterable[Finding]) -> Dataset:
    reasons = {path: finding for finding in conflicts for path in finding.paths}
    return dataset.with_records(
        record.set_aside(f"label conflict: {reasons[record.path].message}. {reasons[record.path].remedy}")
        if record.path in reasons
        else record
        for record in dataset.records
    )


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counts_by_kind(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings there are of each kind."""
    return dict(Counter(finding.kind for finding in findings))
