"""What the audit found, by kind: a few words and photos of each, and where the rest stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saccade.audit.findings import KINDS
from saccade.report.gallery import Coming, Gallery

MESSAGES_SHOWN, PHOTOS_SHOWN = 2, 6  # of a kind
# whose paths show the same thing, side by side
SETS = (
    "label_conflict",
    "leak",
    "near_duplicate_conflict",
    "look_alike",
    "identical_files",
    "identical_pixels",
    "near_duplicates",
    "possible_duplicates",
)
WITHOUT_PICTURES = (
    "unreadable",
    "decoding_notes",
    "name_forms",
    "dropped",
    "decisions",
    "group_leak",
    "shortcuts_checked",
)


def by_kind(findings: Sequence[Mapping[str, Any]], picture: Gallery) -> list[dict[str, Any]]:
    """A group a kind, in the order of the audit (worst first), from the findings of `audit.json`."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for found in findings:
        groups.setdefault(found["kind"], []).append(found)
    return [_group(kind, found, picture) for kind, found in groups.items()]


def _group(kind: str, findings: Sequence[Mapping[str, Any]], picture: Gallery) -> dict[str, Any]:
    return {
        "kind": kind,
        "title": KINDS[kind].title if kind in KINDS else kind,
        "severity": findings[0]["severity"],
        "messages": [found["message"] for found in findings[:MESSAGES_SHOWN]],
        "more": max(0, len(findings) - MESSAGES_SHOWN),
        "remedy": findings[0]["remedy"],
        "paths": list(dict.fromkeys(path for found in findings for path in found["paths"])),
        "photos": _photos(kind, findings, picture),
    }


def _photos(kind: str, findings: Sequence[Mapping[str, Any]], picture: Gallery) -> list[Coming]:
    """Those of the first findings: two of each set, so that one sees what is alike."""
    if kind in WITHOUT_PICTURES or not picture.at_hand:
        return []
    each = 2 if kind in SETS else PHOTOS_SHOWN
    paths = dict.fromkeys(path for found in findings for path in found["paths"][:each])
    return [picture(path) for path in list(paths)[:PHOTOS_SHOWN]]
