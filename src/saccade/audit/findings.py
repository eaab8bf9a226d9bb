"""All kinds of findings: severity, title, remedy.

The order of `KINDS` is the order of reports: worst first, signs of wrong labels before the rest. A warning or
an error makes `saccade audit` exit with 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saccade.images.colour import ON_BACKGROUND
from saccade.records import Confidence, Finding, ImageRecord, Severity


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding; `title` heads its section in reports, `remedy` is what usually helps."""

    severity: Severity
    title: str
    remedy: str


# What to do where different things look alike: one wording for the audit and the split.
WAYS_ON_ALIKE = (
    "use --no-split.near_duplicates, with --group or --group-pattern for what belongs together (part number, "
    "day, place), or part single pairs in audit-decisions.csv: path,other,not a duplicate"
)


_DECIDE = "or write your decision into audit-decisions.csv"

KINDS: dict[str, Kind] = {
    # the data cannot be used as it stands
    "one_class": Kind("error", "Fewer than two classes", "Add images of another class"),
    "too_small": Kind(
        "error", "Classes too small to split", "Add images, merge these classes into others, or remove them"
    ),
    "lost": Kind(
        "error", "A class or part is lost", "Convert or restore its files, or remove the class or part"
    ),
    # all copies are set aside
    "label_conflict": Kind(
        "error",
        "One picture under two labels",
        "Delete the copies with the wrong label, or name the right one in audit-decisions.csv: path,,keep",
    ),
    # what a given split lets through
    "group_leak": Kind(
        "error", "Groups in two parts", "Move each group into one part, or use --repair-split"
    ),
    "leak": Kind(
        "error",
        "The same picture in two parts",
        f"Move the copies into one part with --repair-split, {_DECIDE}",
    ),
    # a person's decisions that have no effect
    "decisions": Kind(
        "warning",
        "Decisions about files that are not there",
        "Correct these paths, or delete the rows; save the file as UTF-8 (in a spreadsheet: CSV UTF-8)",
    ),
    # more than a split can part, and no sign of wrong labels
    "look_alike": Kind(
        "warning",
        "Many images that look alike",
        f"If they show different things (a fixed camera, one form?), {WAYS_ON_ALIKE}",
    ),
    # signs of wrong labels
    "near_duplicate_conflict": Kind(
        "warning",
        "Near-duplicates under different labels",
        f"Look which label is right and move the other file, {_DECIDE}",
    ),
    # set aside
    "unreadable": Kind("warning", "Files that cannot be used", "Re-export these files to use them"),
    # what a model could learn instead of the classes
    "shortcut": Kind(
        "warning",
        "Something trivial gives the label away",
        "Make the classes alike in this (same camera, size, compression), or a model will learn it instead",
    ),
    # what augmentation would turn into another class
    "orientation": Kind(
        "warning",
        "Classes that are mirror images of each other",
        "Switch the flip off in the recipe's section [augment]",
    ),
    # what does not reach the model, or may not be what was meant
    "not_used": Kind("warning", "Part of the data is not used", "Correct it, or move it elsewhere"),
    # copies; the split keeps them in one part
    "identical_files": Kind("warning", "Byte-identical copies", "Keep one and delete the others"),
    "identical_pixels": Kind(
        "warning", "The same pixels in different files", "Keep one and delete the others"
    ),
    "near_duplicates": Kind(
        "warning",
        "Near-duplicates",
        f"The split keeps them in one part; delete what adds nothing, {_DECIDE}",
    ),
    # levels that the conversion to 8 bits loses
    "low_levels": Kind(
        "warning",
        "16-bit images that use few of their levels",
        "Say which value means white with --data.gray_maximum, or rescale the files to the full range",
    ),
    # single images that teach little or the wrong thing
    "blank": Kind("warning", "Blank images", "Delete them: they show nothing"),
    "too_dark": Kind("warning", "Too dark", "Brighten or delete them"),
    "too_bright": Kind("warning", "Too bright", "Delete them, or export them with less exposure"),
    "blurred": Kind("warning", "Blurred", f"Look at them; delete what cannot be recognised, {_DECIDE}"),
    "tiny": Kind("warning", "Tiny images", "Replace them with larger originals, or delete them"),
    # the data set as a whole
    "empty_class": Kind("warning", "Classes without images", "Fill or delete these folders"),
    "imbalance": Kind(
        "warning",
        "Classes out of balance",
        "Judge by balanced accuracy and macro F1; add images of rare classes. To find them more readily: "
        "--evaluate.logit_adjustment auto",
    ),
    "name_forms": Kind(
        "warning", "Names that look the same", "Rename one of them: some systems cannot tell them apart"
    ),
    # worth knowing
    "possible_duplicates": Kind(
        "info",
        "Perhaps near-duplicates",
        f"Look at these pairs; they may stand in different parts, {_DECIDE}",
    ),
    "same_scene": Kind(
        "info",
        "One scene in many images",
        "Name what belongs together (part number, day, place) with --group or --group-pattern",
    ),
    "missed_duplicates": Kind("info", "Near-duplicates that may be missed", "Nothing to do"),
    "broken_chain": Kind(
        "info",
        "Chains of near-duplicates, cut",
        "Nothing to do: a long chain of weak links was cut at the weakest",
    ),
    "odd_aspect": Kind("info", "Unusual shape", "Check that they are not banners, strips or wrong crops"),
    "odd_size": Kind("info", "Unusual resolution", "Check that they come from the same source"),
    "part_shift": Kind(
        "info",
        "Parts that differ",
        "Nothing to do where this is meant (a new camera, another site); else mix the sources before the "
        "split, or collect training images like these",
    ),
    "reading": Kind("info", "How the data are read", "Rename what is read otherwise than you meant"),
    "decoding_notes": Kind("info", "Remarks of the decoder", "Nothing to do"),
    "relabelled": Kind("info", "Labels changed by your decisions", "Nothing to do"),
    "dropped": Kind("info", "Left out by your decisions", "Nothing to do"),
    "kept": Kind("info", "Right by your decisions", "Nothing to do"),
    "parted": Kind("info", "No duplicates by your decisions", "Nothing to do"),
    "listed": Kind("info", "Seen, but no part of the data", "Move or rename them if they should be used"),
    "ignored": Kind("info", "Passed over", "Nothing to do"),
    "shortcuts_checked": Kind("info", "What trivial properties tell about the label", "Nothing to do"),
}

_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


def naming_background(found: Finding, records: Iterable[ImageRecord]) -> Finding:
    """The finding, with another background as its first remedy where its images had transparent pixels.

    A drawing in the colour that is put under transparency vanishes, and then equals all others.
    """
    named = set(found.paths)
    layered = sum(record.path in named and ON_BACKGROUND in record.note for record in records)
    if not layered:
        return found
    remedy = (
        f"{layered} of them have transparent pixels, which lie on the background colour: try another one "
        f"first (--data.background 0,0,0). Else: {found.remedy}"
    )
    return replace(found, remedy=remedy)


def finding(
    kind: str,
    message: str,
    *,
    paths: Sequence[str] = (),
    remedy: str = "",
    confidence: Confidence = "certain",
    figure: Mapping[str, Any] | None = None,
    severity: Severity | None = None,
) -> Finding:
    """A finding with the table's severity and remedy, unless the case has its own."""
    known = KINDS[kind]
    return Finding(
        kind=kind,
        severity=severity or known.severity,
        message=message,
        remedy=remedy or known.remedy,
        paths=tuple(paths),
        confidence=confidence,
        figure=figure or {},
    )


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings in the table's order; those of one kind stay as they stand."""
    severities = ("error", "warning", "info")
    return tuple(sorted(findings, key=lambda found: (severities.index(found.severity), _RANK[found.kind])))


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
