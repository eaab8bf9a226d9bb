"""`split_rows`: parts for a list of many millions of rows, by the rules of `split`, in flat memory.

Columns pass by one after the other; what stays of a row are a few numbers (`flat.py`). Images are not read:
near-duplicates are known only where a column `cluster` names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.records import PARTS
from saccade.sources.rows import Codes, Numbers, Rows
from saccade.split.flat import Holdings, allocated, links, most_held_out
from saccade.split.given import (
    MOST_TRAINING_LOST,
    blank_sentence,
    carved_sentence,
    check_classes,
    refuse_leaks,
)
from saccade.split.making import (
    MUST,
    Outcome,
    Shares,
    Sizes,
    moved_sentence,
    name_reasons,
    refuse_short,
)
from saccade.split.row_sets import (
    BELONGING,
    NAMED,
    NONE,
    Reading,
    Sets,
    earlier_parts,
    leave_out_two_labels,
)
from saccade.terminal import Progress, silent

TRAIN, VALIDATION = PARTS.index("train"), PARTS.index("validation")
NAMED_GROUPS = 10


@dataclass(frozen=True, slots=True)
class RowSplit:
    """What a division of rows came to.

    parts: (rows,) places in PARTS, -1 for rows that were left out: `unlabelled` ones, and those of files with
    `two_labels`. labels: (rows,) places in `names`. joined: for each mark how many rows it joined with an
    earlier one. several: sets of more than one image. crossing: sets in more than one part. untold: images
    of which no hash says whether they are copies. kept: images that have the part of the earlier list.
    """

    parts: Codes
    labels: Numbers
    names: tuple[str, ...]
    reasons: tuple[str, ...]
    joined: dict[str, int]
    several: int
    unlabelled: int
    two_labels: int
    untold: int
    crossing: int
    kept: int = 0

    def sizes(self) -> dict[str, int]:
        """Images by part."""
        return {part: int((self.parts == place).sum()) for place, part in enumerate(PARTS)}

    def counts(self) -> dict[str, int]:
        """Images by class, in order of their names' first images."""
        tally = np.bincount(self.labels[self.parts >= 0], minlength=len(self.names))
        return dict(zip(self.names, tally.tolist(), strict=True))


def split_rows(
    rows: Rows,
    *,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    repair: bool = False,
    allow_leaks: bool = False,
    earlier: Path | None = None,
    progress: Progress = silent,
) -> RowSplit:
    """Divide the rows of a list; rows of one group, cluster or file share a part.

    `earlier` is a list that was written before: its images keep their part, and new ones of the same set
    follow. Raises SourceError and SplitError, as `load_source` and `split` do.
    """
    shares = Shares.of(validation, test)
    read = Reading.of(rows, seed, progress)
    unlabelled = int((read.label < 0).sum())
    two, said = leave_out_two_labels(read)
    read.join(BELONGING)
    sets, joined = read.sets(), read.joined
    untold = int((~read.told & (sets.atom >= 0)).sum())
    given = np.where(sets.atom >= 0, rows.parts(), NONE)
    before, listed = np.full_like(given, NONE), 0
    if earlier:
        before, listed = earlier_parts(rows, earlier, seed, read.keys)
    read.step("parts")
    del read  # which holds 8 bytes a row
    if (given >= 0).any():
        own = np.where(given >= 0, given, before)
        made = _kept(sets, own, shares.shares[1], repair=repair, allow_leaks=allow_leaks)
    else:
        made = _grown(sets, shares, before, listed)
    return RowSplit(
        made.part,
        sets.label,
        sets.names,
        (*said, *_moved(rows, made), *made.reasons),
        joined,
        int((np.bincount(sets.atom[sets.atom >= 0]) > 1).sum()),
        unlabelled,
        two,
        untold,
        _crossing(sets, made.part),
        int(((before >= 0) & (before == made.part)).sum()),
    )


# -- parts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Made:
    """(rows,) the part of each row, and the part it may have had to leave; why shares were missed."""

    part: Codes
    before: Codes
    reasons: tuple[str, ...]


def _grown(sets: Sets, shares: Shares, before: Codes, listed: int) -> _Made:
    """A new division; images of an earlier one keep their part."""
    standing = most_held_out(sets.atom, before, len(sets.keys))
    part, reasons = _assigned(sets, sets.held(), shares, standing)
    gone = listed - int(((before >= 0) & (sets.atom >= 0)).sum())
    said = (f"{gone} images of the earlier split are no longer in use",) if gone > 0 else ()
    return _Made(_of_rows(sets, part), before, (*reasons, *said))


def _of_rows(sets: Sets, part: Codes) -> Codes:
    return np.where(sets.atom >= 0, part[sets.atom], NONE)


def _assigned(sets: Sets, held: Holdings, shares: Shares, standing: Codes) -> tuple[Codes, tuple[str, ...]]:
    """(atoms,) parts towards shares of each class; raises SplitError for classes that are too small."""
    there = np.unique(standing[standing >= 0]).tolist()
    shares = shares.without_unused({place: PARTS[place] for place in there})
    stand, must = _columns(shares.parts)[standing], np.array(shares.must)
    sizes, base = held.per_class(), held.by_part(stand, len(must))
    free = held.only(stand[held.atom] < 0).atoms_per_class()
    real = np.flatnonzero(sizes)
    refuse_short(
        [sets.names[c] for c in real.tolist()],
        Sizes(free[real], sizes[real], np.zeros_like(real)),
        base[real],
        shares.parts,
        must,
    )
    return _placed(sets, held, shares.parts, sizes[:, None] * np.array(shares.shares), must, standing)


def _placed(
    sets: Sets,
    held: Holdings,
    parts: tuple[str, ...],
    wanted: NDArray[np.float64],
    must: NDArray[np.float64],
    standing: Codes,
) -> tuple[Codes, tuple[str, ...]]:
    stand = _columns(parts)[standing]
    found = allocated(held, sets.keys, wanted, must, stand)
    outcome = Outcome(
        sets.names, parts, held.by_part(found, len(parts)), wanted, held.by_part(stand, len(parts))
    )
    reasons = name_reasons(outcome, lambda _: held.held(), lambda _: "one set that stays together")
    return np.array([*(PARTS.index(part) for part in parts), -1], dtype=np.int8)[found], reasons


def _columns(parts: tuple[str, ...]) -> Codes:
    """For a place in PARTS that in `parts`, -1 for none; behind these -1 for -1."""
    return np.array([parts.index(part) if part in parts else -1 for part in (*PARTS, "")], dtype=np.int8)


# -- parts that were given -------------------------------------------------------------------------------


def _kept(sets: Sets, own: Codes, validation: float, *, repair: bool, allow_leaks: bool) -> _Made:
    """A division that the list has already, as `given.keep_given` keeps one."""
    blank = (sets.atom >= 0) & (own < 0)
    home = most_held_out(sets.atom, own, len(sets.keys))
    part = np.where(blank, np.maximum(home[sets.atom], TRAIN), own)
    before = np.full_like(part, NONE)
    reasons = [blank_sentence(int(blank.sum()))] if blank.any() else []
    if repair:
        fixed, more = _repaired(sets, part)
        before, part = np.where(fixed != part, part, NONE), fixed
        reasons += more
    elif not allow_leaks:
        _refuse_groups_across(sets, part)
    if validation > 0 and not (part == VALIDATION).any():
        shares = Shares(("train", "validation"), (1 - validation, validation))
        inside = part == TRAIN
        found, more = _assigned(sets, sets.held(inside), shares, np.full(len(sets.keys), NONE))
        part = np.where(inside, found[sets.atom], part)
        reasons += [carved_sentence(int((part == VALIDATION).sum())), *more]
    tally = sets.tally(part)
    seen = {name: set(np.array(sets.names)[tally[:, place] > 0].tolist()) for place, name in enumerate(PARTS)}
    reasons += check_classes(seen)
    return _Made(part, before, tuple(reasons))


def _repaired(sets: Sets, part: Codes) -> tuple[Codes, tuple[str, ...]]:
    """Every set in one part, as `given` repairs a division."""
    home = most_held_out(sets.atom, part, len(sets.keys))
    held_out = _of_rows(sets, home)
    wanted = sets.tally(part)
    after = sets.tally(held_out)[:, TRAIN]
    if (after >= (1 - MOST_TRAINING_LOST) * wanted[:, TRAIN]).all():
        return held_out, ()
    there = np.flatnonzero(wanted.sum(axis=0)).tolist()
    parts = tuple(PARTS[place] for place in there)
    standing = np.where(_least(sets, part) == home, home, NONE)
    must = np.array([MUST[name] for name in parts])
    found, reasons = _placed(sets, sets.held(), parts, wanted[:, there].astype(float), must, standing)
    return _of_rows(sets, found), reasons


def _least(sets: Sets, part: Codes) -> Codes:
    """(atoms,) the first of the parts in which each atom stands."""
    least = np.full(len(sets.keys), len(PARTS), dtype=np.int8)
    np.minimum.at(least, sets.atom[part >= 0], part[part >= 0])
    return least


def _crossing(sets: Sets, part: Codes) -> int:
    return int((_least(sets, part) != most_held_out(sets.atom, part, len(sets.keys))).sum())


def _refuse_groups_across(sets: Sets, part: Codes) -> None:
    if not sets.rows.has("group"):
        return
    first, second = links(np.where(part >= 0, sets.rows.keys("group"), np.uint64(0)))
    across = np.unique(first[part[first] != part[second]])
    shown = across[:NAMED_GROUPS].tolist()
    held = [{PARTS[p] for p in (part[row], *part[second[first == row]])} for row in shown]
    refuse_leaks(dict(zip(sets.rows.groups_of(shown), held, strict=True)), len(across))


def _moved(rows: Rows, made: _Made) -> tuple[str, ...]:
    """Said of images that had to leave the part they had."""
    moved = np.flatnonzero((made.before >= 0) & (made.part >= 0) & (made.before != made.part))
    if not len(moved):
        return ()
    shown = moved[:NAMED].tolist()
    named = [
        (path, PARTS[made.before[row]], PARTS[made.part[row]])
        for path, row in zip(rows.paths_of(shown), shown, strict=True)
    ]
    return (moved_sentence(named, count=len(moved)),)
