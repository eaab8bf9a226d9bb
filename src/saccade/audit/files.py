"""Findings about single files: what could not be used, what the decoder remarked, names that look alike."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from saccade.audit.kinds import count_of, finding, some
from saccade.records import Dataset, Finding, ImageRecord

LEFT_OUT = ". Left out. "  # between reason and remedy in an ImageError's text
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
    like = "" if len(records) == 1 else f" (and {count_of(len(records) - 1, 'file')} like it)"
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
        message = f"{len(listed):,} files or folders beside the data: {some(listed)}"
        findings.append(finding("listed", message, figure={"listed": listed}))
    if dataset.ignored:
        counts = ", ".join(f"{reason} ({count:,})" for reason, count in dataset.ignored.items())
        findings.append(finding("ignored", f"passed over by rule: {counts}", figure=dict(dataset.ignored)))
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
    """One finding for images with notes of one kind, the commonest in words."""
    ((note, _),) = Counter(notes.values()).most_common(1)
    alike = "" if len(set(notes.values())) == 1 else ", or the like"
    return finding("decoding_notes", f"{count_of(len(notes), 'image')}: {note}{alike}", paths=list(notes))


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
