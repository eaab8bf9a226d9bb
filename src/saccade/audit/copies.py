"""The same picture more than once, pixel for pixel: copies under one label, and under several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from saccade.audit.kinds import finding, naming_background, some
from saccade.records import Dataset, Finding, ImageRecord


def same_picture(records: Iterable[ImageRecord]) -> list[list[ImageRecord]]:
    """Sets of two or more records with the same upright pixels (byte-identical files have them too)."""
    by_pixels: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        by_pixels[record.pixel_sha256 or record.sha256 or record.path].append(record)
    return [group for group in by_pixels.values() if len(group) > 1]


def settle_conflicts(dataset: Dataset, kept: Collection[str]) -> tuple[Dataset, list[Finding]]:
    """Set aside every picture under two labels, with all copies, unless the copies to keep share one label.

    `kept` are the paths that the user's decisions name as right.
    """
    aside: dict[str, str] = {}
    findings = []
    for group in same_picture(dataset.used()):
        labels = sorted({record.label for record in group})
        right = {record.label for record in group if record.path in kept}
        if len(labels) < 2:
            continue
        if len(right) == 1:
            label = next(iter(right))
            others = [record for record in group if record.label != label]
            note = f"audit-decisions.csv keeps this picture as {label!r}"
            aside |= dict.fromkeys((record.path for record in others), note)
        else:
            conflict = _conflict(group, labels)
            findings.append(conflict)
            note = f"label conflict: {conflict.message}. {conflict.remedy}"
            aside |= dict.fromkeys(conflict.paths, note)
    return set_aside(dataset, aside), findings


def _conflict(group: list[ImageRecord], labels: list[str]) -> Finding:
    named = some([f"{record.path} ({record.label})" for record in group])
    found = finding(
        "label_conflict",
        f"one picture stands under {len(labels)} labels: {named}. All copies left out",
        paths=[record.path for record in group],
        figure={"labels": labels},
    )
    return naming_background(found, group)


def identical_copies(dataset: Dataset) -> list[Finding]:
    """One finding for each set of copies under one label: the same bytes, or only the same pixels."""
    findings = []
    for group in same_picture(dataset.used()):
        same_bytes = len({record.sha256 for record in group}) == 1
        kind, what = (
            ("identical_files", "byte-identical copies")
            if same_bytes
            else ("identical_pixels", "files with the same pixels")
        )
        paths = [record.path for record in group]
        found = finding(kind, f"{len(paths)} {what}: {some(paths)}", paths=paths)
        findings.append(found if same_bytes else naming_background(found, group))
    return findings


def set_aside(dataset: Dataset, reasons: Mapping[str, str]) -> Dataset:
    """The data set without these paths, each with its reason."""
    if not reasons:
        return dataset
    return dataset.with_records(
        record.set_aside(reasons[record.path]) if record.path in reasons else record
        for record in dataset.records
    )
