"""The audit: runs every check over a scanned data set; the checks of single files and of class sizes."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.audit.decisions import NO_DECISIONS, Decisions, relabelled
from saccade.audit.findings import finding, in_order, some
from saccade.audit.orientation import orientation
from saccade.audit.parts import part_differences
from saccade.audit.quality import Measurements, image_quality
from saccade.audit.shortcuts import shortcuts
from saccade.audit.similar import (
    SearchMemory,
    find_similar,
    identical_copies,
    set_aside,
    settle_conflicts,
    similar_findings,
)
from saccade.errors import LEFT_OUT
from saccade.recipe import AugmentConfig, Flip
from saccade.records import Audit, Dataset, Finding, ImageRecord
from saccade.terminal import Progress, counted, printable, silent

PARTS_TO_FILL = 3
USUAL_FLIPS = AugmentConfig().flips
COPIES = ("identical_files", "identical_pixels", "near_duplicates")  # kinds of findings


def audit(
    dataset: Dataset,
    measurements: Measurements,
    *,
    decisions: Decisions = NO_DECISIONS,
    near_duplicates: bool = True,
    parts_to_fill: int = PARTS_TO_FILL,
    gray_maximum: int = 0,
    flips: Collection[Flip] = USUAL_FLIPS,
    keeps_16_bits: bool = False,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Audit:
    """Findings over a scanned data set, worst first; what must be set aside is set aside in `.dataset`.

    `measurements` stand in the order of the records. `decisions` are a person's about an earlier audit.
    `parts_to_fill` is how many parts the split will make of unsplit data. `gray_maximum` is what
    the scan's limits say. `flips` are those that training and prediction will do. `cache` is the scan's:
    with it, near-duplicates are searched for new images only. Raises DataError for new labels of images or
    classes that are not there, MissingExtraError without faiss, unless `near_duplicates` is off.
    """
    assert len(measurements) == len(dataset.records), "measurements stand in the order of the records"
    findings = [*unreadable(dataset), *name_forms(dataset), *_decided(dataset, decisions)]
    dataset = relabelled(dataset, decisions)
    dataset = set_aside(dataset, dict.fromkeys(decisions.dropped, f"dropped by {decisions.name}"))
    findings += image_quality(
        dataset, measurements, accepted=decisions.kept, gray_maximum=gray_maximum, keeps_16_bits=keeps_16_bits
    )
    dataset, conflicts = settle_conflicts(dataset, decisions.kept | decisions.relabelled.keys())
    findings += [*conflicts, *remarks(dataset), *identical_copies(dataset), *group_leaks(dataset)]
    memory = SearchMemory(cache) if cache else None
    similar = find_similar(
        dataset, measurements, decisions, search=near_duplicates, memory=memory, progress=progress
    )
    findings += similar_findings(dataset, similar, decisions)
    findings += class_sizes(dataset, similar.clusters, parts_to_fill=parts_to_fill)
    findings += shortcuts(dataset, measurements, similar.clusters)
    findings += orientation(dataset, measurements, flips)
    findings += part_differences(dataset, measurements)
    return Audit(dataset, in_order(findings), similar.pairs, similar.clusters)


def _decided(dataset: Dataset, decisions: Decisions) -> list[Finding]:
    """What the decisions did, and which of them name files that are not there."""
    labels = {record.path: record.label for record in dataset.records}
    changed = {p: [labels[p], new.label] for p, new in sorted(decisions.relabelled.items()) if p in labels}
    done = {
        "dropped": (sorted(decisions.dropped & labels.keys()), "dropped"),
        "kept": (sorted(decisions.kept & labels.keys()), "right as it stands"),
        "relabelled": (list(changed), "with another label"),
    }
    findings = [
        finding(
            kind,
            f"{counted(len(paths), 'image')} {what} by {decisions.name}: {some(paths)}",
            paths=paths,
            figure={"labels": changed} if kind == "relabelled" else {},
        )
        for kind, (paths, what) in done.items()
        if paths
    ]
    if pairs := sorted(sorted(pair) for pair in decisions.apart if len(pair) == 2 and pair <= labels.keys()):
        message = (
            f"{counted(len(pairs), 'pair')} parted by {decisions.name}: {some([*map(' and '.join, pairs)])}"
        )
        paths = sorted({path for pair in pairs for path in pair})
        findings.append(finding("parted", message, paths=paths, figure={"pairs": pairs}))
    if unknown := sorted(decisions.paths - labels.keys()):
        names = some([printable(name) for name in unknown])
        message = f"{decisions.name} names {counted(len(unknown), 'file')} that the data lacks: {names}"
        findings.append(finding("decisions", message, paths=unknown))
    return findings


# -- as json ---------------------------------------------------------------------------------------------
# An audit as plain values: what `audit.json` holds.


def audit_as_json(audit: Audit) -> dict[str, Any]:
    """Counts and findings of an audit, worst first; only dicts, lists, strings and numbers."""
    dataset = audit.dataset
    used = len(dataset.used())
    return {
        "images": len(dataset.records),
        "used": used,
        "set_aside": len(dataset.records) - used,
        "classes": dataset.counts(),
        "worst": audit.worst,
        "findings": [
            {
                "kind": found.kind,
                "severity": found.severity,
                "confidence": found.confidence,
                "message": found.message,
                "remedy": found.remedy,
                "paths": list(found.paths),
                "figure": dict(found.figure),
            }
            for found in audit.findings
        ],
    }


def audit_from_json(values: Mapping[str, Any], dataset: Dataset) -> Audit:
    """The audit of these images as `audit.json` holds it: all findings, but no pairs, which are not kept."""
    findings = tuple(
        Finding(
            found["kind"],
            found["severity"],
            found["message"],
            found["remedy"],
            tuple(found["paths"]),
            found.get("confidence", "certain"),
            found.get("figure", {}),
        )
        for found in values["findings"]
    )
    copies = [found for found in findings if found.kind in COPIES]
    return Audit(
        dataset, findings, clusters={path: n for n, found in enumerate(copies) for path in found.paths}
    )


# -- classes ---------------------------------------------------------------------------------------------
# Findings about the classes as a whole: alone, empty, too small to split, out of balance.


IMBALANCE_RATIO = 10
FOR_RARE_LABELS = "Add images with the rare label, or weigh it: --train.class_weights auto"


def class_sizes(dataset: Dataset, clusters: Mapping[str, int], *, parts_to_fill: int) -> list[Finding]:
    """What the numbers of images per class say; copies and groups count once where parts must be filled."""
    counts = dataset.counts()
    findings = [finding("lost", what) for what in lost_by_reading(dataset)]
    if dataset.empty_classes:
        number = counted(len(dataset.empty_classes), "class folder")
        findings.append(
            finding("empty_class", f"{number} without an image: {some(dataset.empty_classes, most=20)}")
        )
    if sum(count > 0 for count in counts.values()) < 2:
        findings.append(finding("one_class", "fewer than two classes have usable images"))
    if not dataset.given_parts:
        findings += _too_small(dataset, clusters, parts_to_fill)
    training = "train" in dataset.given_parts
    uneven = _imbalance(dataset.counts("train") if training else counts, training=training)
    if dataset.multi_label:  # other remedies are for images with one label
        uneven = [replace(found, remedy=FOR_RARE_LABELS) for found in uneven]
    return findings + uneven


def group_leaks(dataset: Dataset) -> list[Finding]:
    """Declared groups (patient, video, site) that stand in more than one part of a given split."""
    parts: defaultdict[str, dict[str, str]] = defaultdict(dict)  # group -> part -> one of its paths
    for record in dataset.used():
        if record.group and record.part:
            parts[record.group].setdefault(record.part, record.path)
    return [
        finding(
            "group_leak",
            f"group {group} is in {' and '.join(sorted(by_part))}",
            paths=[*by_part.values()],
        )
        for group, by_part in parts.items()
        if len(by_part) > 1
    ]


def _too_small(dataset: Dataset, clusters: Mapping[str, int], parts_to_fill: int) -> list[Finding]:
    units: defaultdict[str, set[object]] = defaultdict(set)
    for record in dataset.used():
        for label in record.labels:
            units[label].add(record.group or clusters.get(record.path, record.path))
    small = {label: len(units[label]) for label in dataset.classes if len(units[label]) < parts_to_fill}
    if not small:
        return []
    listed = ", ".join(f"{label} ({count})" for label, count in small.items())
    message = f"too few images or groups to fill {parts_to_fill} parts: {listed}"
    return [finding("too_small", message, figure={"units": small, "parts": parts_to_fill})]


def _imbalance(counts: Mapping[str, int], *, training: bool) -> list[Finding]:
    present = {label: count for label, count in counts.items() if count}
    if len(present) < 2:
        return []
    largest, smallest = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
    ratio = present[largest] / present[smallest]
    if ratio < IMBALANCE_RATIO:
        return []
    sizes = f"{present[largest]:,} and {present[smallest]:,}"
    images = "training images" if training else "images"
    message = f"{largest} has {ratio:,.0f} times the {images} of {smallest} ({sizes})"
    return [finding("imbalance", message, figure={"counts": present, "ratio": ratio})]


# -- lost ------------------------------------------------------------------------------------------------
# Parts and classes that are lost once the images have been read: nobody could have meant that.


def lost_by_reading(dataset: Dataset) -> tuple[str, ...]:
    """A sentence for each given part without a usable image, and each class mostly in formats not read."""
    parts = [
        f"the {part} part has no image that can be used"
        for part in dataset.given_parts
        if not dataset.used(part)
    ]
    used = dataset.counts()
    lost = (r for r in dataset.records if not r.used and r.note.startswith("unsupported: "))
    unread = Counter(label for record in lost for label in record.labels)
    classes = [
        f"{unread[label]:,} of {unread[label] + used[label]:,} images of {label} have formats not read here"
        for label in dataset.classes
        if unread[label] > used[label]
    ]
    return (*parts, *classes)


# -- files -----------------------------------------------------------------------------------------------
# Findings about single files: what could not be used, what the decoder remarked, names that look alike.


_DETAIL = re.compile(r"\d[\d,.]*|'[^']*'|\([^)]*\)")  # numbers, quotes and asides differ within one kind


def unreadable(dataset: Dataset) -> list[Finding]:
    """Files that the scan set aside: one finding for each kind of reason, whatever its numbers."""
    by_reason: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    for record in dataset.records:
        if not record.used:
            by_reason[_kind_of(record.note.partition(LEFT_OUT)[0])].append(record)
    groups = sorted(by_reason.values(), key=len, reverse=True)
    return [_unreadable(records) for records in groups]


def _unreadable(records: Sequence[ImageRecord]) -> Finding:
    reason, _, remedy = records[0].note.partition(LEFT_OUT)
    like = "" if len(records) == 1 else f" (and {counted(len(records) - 1, 'file')} like it)"
    return finding(
        "unreadable",
        f"{records[0].path}{like}: {reason}. Left out",
        remedy=remedy,
        paths=[record.path for record in records],
        figure={"notes": {record.path: record.note for record in records}},
    )


def remarks(dataset: Dataset) -> list[Finding]:
    """What the decoder remarked on images in use, one finding a kind of remark; what is no data."""
    by_kind: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for record in dataset.used():
        for note in filter(None, record.note.split("; ")):
            by_kind[_kind_of(note)][record.path] = note
    findings = [_remark(notes) for _, notes in sorted(by_kind.items())]
    findings += [*dataset.findings, *_not_used(dataset.lost)]
    lost = set(dataset.lost)
    listed = [line for line in dataset.listed if line not in lost]
    if listed:
        message = f"{len(listed):,} files or folders that are no part of the data: {some(listed)}"
        findings.append(finding("listed", message, figure={"listed": listed}))
    if dataset.ignored:
        counts = ", ".join(f"{reason} ({count:,})" for reason, count in dataset.ignored.items())
        findings.append(finding("ignored", f"ignored: {counts}", figure=dict(dataset.ignored)))
    return findings


def _not_used(lost: Sequence[str]) -> list[Finding]:
    """One finding for each reason why files or folders that may be data are not used."""
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for line in lost:
        by_reason[_kind_of(line.rpartition(": ")[2])].append(line)
    return [
        finding(
            "not_used",
            f"{'1 file or folder' if len(lines) == 1 else f'{len(lines):,} files or folders'} not used: "
            f"{some(lines, most=3)}",
            figure={"lost": lines},
        )
        for lines in by_reason.values()
    ]


def _remark(notes: Mapping[str, str]) -> Finding:
    """One finding for images with notes of one kind; it quotes the most frequent one."""
    ((note, _),) = Counter(notes.values()).most_common(1)
    alike = "" if len(set(notes.values())) == 1 else ", or the like"
    return finding("decoding_notes", f"{counted(len(notes), 'image')}: {note}{alike}", paths=list(notes))


def _kind_of(note: str) -> str:
    return _DETAIL.sub("", note)


def name_forms(dataset: Dataset) -> list[Finding]:
    """Names that differ only in Unicode form (NFC, NFD) or in upper and lower case: one finding a set."""
    by_form: defaultdict[str, list[str]] = defaultdict(list)
    for record in dataset.records:
        by_form[unicodedata.normalize("NFC", record.path).casefold()].append(record.path)
    return [
        finding("name_forms", f"names that look the same: {', '.join(paths)}", paths=paths)
        for paths in by_form.values()
        if len(paths) > 1
    ]
