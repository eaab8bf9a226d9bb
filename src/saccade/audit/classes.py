"""Findings about the classes as a whole: alone, empty, too small to split, out of balance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from saccade.audit.kinds import count_of, finding, some
from saccade.audit.lost import lost_by_reading
from saccade.records import Dataset, Finding

IMBALANCE_RATIO = 10


def class_sizes(dataset: Dataset, clusters: Mapping[str, int], *, parts_to_fill: int) -> list[Finding]:
    """What the numbers of images per class say; copies and groups count once where parts must be filled."""
    counts = dataset.counts()
    findings = [finding("lost", what) for what in lost_by_reading(dataset)]
    if dataset.empty_classes:
        number = count_of(len(dataset.empty_classes), "class folder")
        findings.append(
            finding("empty_class", f"{number} without an image: {some(dataset.empty_classes, most=20)}")
        )
    if sum(count > 0 for count in counts.values()) < 2:
        findings.append(
            finding("one_class", "fewer than two classes have images that can be used: nothing to tell apart")
        )
    if not dataset.given_parts:
        findings += _too_small(dataset, clusters, parts_to_fill)
    return findings + _imbalance(counts)


def group_leaks(dataset: Dataset) -> list[Finding]:
    """Declared groups (patient, video, site) that stand in more than one part of a given split."""
    parts: defaultdict[str, dict[str, str]] = defaultdict(dict)  # group -> part -> one of its paths
    for record in dataset.used():
        if record.group and record.part:
            parts[record.group].setdefault(record.part, record.path)
    return [
        finding(
            "group_leak",
            f"group {group} stands in {' and '.join(sorted(by_part))}",
            paths=[*by_part.values()],
        )
        for group, by_part in parts.items()
        if len(by_part) > 1
    ]


def _too_small(dataset: Dataset, clusters: Mapping[str, int], parts_to_fill: int) -> list[Finding]:
    units: defaultdict[str, set[object]] = defaultdict(set)
    for record in dataset.used():
        units[record.label].add(record.group or clusters.get(record.path, record.path))
    small = {label: len(units[label]) for label in dataset.classes if len(units[label]) < parts_to_fill}
    if not small:
        return []
    listed = ", ".join(f"{label} ({count})" for label, count in small.items())
    message = f"too few images or groups that may be parted to fill {parts_to_fill} parts: {listed}"
    return [finding("too_small", message, figure={"units": small, "parts": parts_to_fill})]


def _imbalance(counts: Mapping[str, int]) -> list[Finding]:
    present = {label: count for label, count in counts.items() if count}
    if len(present) < 2:
        return []
    largest, smallest = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
    ratio = present[largest] / present[smallest]
    if ratio < IMBALANCE_RATIO:
        return []
    sizes = f"{present[largest]:,} and {present[smallest]:,}"
    message = f"{largest} has {ratio:,.0f} times the images of {smallest} ({sizes})"
    return [finding("imbalance", message, figure={"counts": present, "ratio": ratio})]
