"""Data, audit and split in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby

from saccade.recipe import Recipe
from saccade.records import PARTS, Audit, Dataset, Finding, Split
from saccade.split.splitting import Folds
from saccade.terminal import Terminal, counted

SHOWN_FINDINGS = 8
# Infos that are always shown: how the data were understood, what may have been meant otherwise, and what the
# decisions of a person did.
ALWAYS_SHOWN = ("reading", "listed", "same_scene", "missed_duplicates", "relabelled", "dropped")
SHOWN_OF_A_KIND = 3


def say_data(dataset: Dataset, terminal: Terminal) -> None:
    """How many images of which class are in use, and how many were left out."""
    images = len(dataset.used())
    say_counts(dataset.counts(), len(dataset.records) - images, terminal, images=images)
    ignored = sum(dataset.ignored.values())
    if ignored:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dataset.ignored.items()))
        terminal.say(f"          skipped: {reasons}")


def say_counts(counts: Mapping[str, int], left_out: int, terminal: Terminal, *, images: int = 0) -> None:
    """How many images of which class are in use, and how many were left out.

    images: how many there are, where one counts in several classes.
    """
    listed = ", ".join(f"{label} {count:,}" for label, count in list(counts.items())[:12])
    more = f" and {len(counts) - 12} more" if len(counts) > 12 else ""
    said, classes = counted(images or sum(counts.values()), "image"), counted(len(counts), "class", "classes")
    terminal.say(
        f"Data      {said} in {classes} ({listed}{more})" + (f"; {left_out:,} set aside" if left_out else "")
    )


def say_findings(audited: Audit, terminal: Terminal, *, most: int = SHOWN_FINDINGS) -> None:
    """The gravest findings first, each with what to do."""
    counts = {s: sum(f.severity == s for f in audited.findings) for s in ("error", "warning", "info")}
    words = ", ".join(
        f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items() if count
    )
    terminal.say(f"Audit     {words or 'nothing found'}")
    grave = [finding for finding in audited.findings if finding.severity != "info"]
    by_kind = [list(same) for _, same in groupby(grave, key=lambda finding: finding.kind)]
    shown = 0
    for same in by_kind:
        room = min(most - shown, SHOWN_OF_A_KIND)
        for found in same[:room]:
            terminal.say(f"  {found.severity:<8}{finding_line(found)}")
        if 0 < room < len(same):
            terminal.say(f"          and {len(same) - room:,} more of this kind")
        shown += min(room, len(same))
    if shown == most < len(grave):
        terminal.say(f"          {len(grave):,} in total; audit.json and the report list all of them")
    _say_infos([found for found in audited.findings if found.severity == "info"], not grave, terminal)


def _say_infos(infos: list[Finding], alone: bool, terminal: Terminal) -> None:
    """Those that are always shown; where nothing graver was said, the first of the others as well."""
    others = [found for found in infos if found.kind not in ALWAYS_SHOWN]
    shown = others[:SHOWN_OF_A_KIND] if alone else []
    for found in infos:
        if found.kind in ALWAYS_SHOWN or found in shown:
            terminal.say(f"  {found.severity:<8}{finding_line(found)}")
    if alone and len(others) > len(shown):
        terminal.say(f"          and {counted(len(others) - len(shown), 'more info')}")


def say_reading(audited: Audit, terminal: Terminal) -> None:
    """How the data were understood and what of them is not used, without the other findings."""
    _say_kinds(audited, ("not_used", "reading"), terminal)


def say_orientation(audited: Audit, terminal: Terminal) -> None:
    """Which flips of augmentation would change classes: worth knowing before training."""
    _say_kinds(audited, ("orientation",), terminal)


def _say_kinds(audited: Audit, kinds: tuple[str, ...], terminal: Terminal) -> None:
    for found in audited.findings:
        if found.kind in kinds:
            terminal.say(f"  {found.severity:<8}{finding_line(found)}")


def finding_line(finding: Finding) -> str:
    """What was found, and what to do."""
    return f"{finding.message}. {finding.remedy}"


def say_split(made: Split, recipe: Recipe, terminal: Terminal) -> None:
    """How many images each part has, what could not be met, and whether anything crosses."""
    kept = "no group and no near-duplicates cross parts"
    if not recipe.split.near_duplicates:
        kept = "near-duplicates were not searched for (split.near_duplicates is false)"
    say_sizes(made, terminal, kept if made.promise_kept else _crossing(made))
    if made.verified:
        across, unresolved = made.verified["verified_pairs_across"], made.verified["unresolved"]
        terminal.say(
            f"          cross-check with a second descriptor: {across} near-duplicate pairs across parts, "
            f"{unresolved} inconclusive"
        )
    if made.folds:
        sizes = Counter(made.folds.values())
        listed = ", ".join(f"{sizes[fold]:,}" for fold in sorted(sizes))
        terminal.say(
            f"Folds     {len(sizes)} of {listed} images, each held out once; the test part waits for the end"
        )
    for reason in made.reasons:
        terminal.say(f"          {reason}")


def say_sizes(made: Split, terminal: Terminal, remark: str) -> None:
    """How many images each part has, and a remark about it."""
    say_parts({part: len(made.dataset.used(part)) for part in PARTS}, remark, terminal)


def say_parts(parts: Mapping[str, int], remark: str, terminal: Terminal) -> None:
    """How many images each part has, and a remark about it."""
    sizes = ", ".join(f"{part} {count:,}" for part, count in parts.items() if count)
    terminal.say(f"Split     {sizes}; {remark}")


def say_folds(made: Folds, terminal: Terminal) -> None:
    """How many images each fold has, and what could not be met."""
    sizes = Counter(made.fold_of.values())
    listed = ", ".join(f"{sizes[fold]:,}" for fold in range(made.count))
    terminal.say(
        f"Folds     {made.count} folds of {listed} images; no group and no near-duplicates cross folds"
    )
    for reason in made.reasons:
        terminal.say(f"          {reason}")


def _crossing(made: Split) -> str:
    what = []
    if made.crossing:
        what.append(f"{len(made.crossing)} pairs of near-duplicates")
    if made.crossing_groups:
        what.append(f"{len(made.crossing_groups)} groups")
    return f"LEAK: {' and '.join(what)} cross the parts of the given split (--repair-split moves them)"
