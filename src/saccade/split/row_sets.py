"""Which rows of a long list stay together, which are left out, and which part they had before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.errors import DataError, SplitError
from saccade.records import PARTS
from saccade.sources.columns import stored_root
from saccade.sources.parts import PartColumn
from saccade.sources.rows import CLUSTER, Codes, Keys, Numbers, Rows
from saccade.sources.tables import parquet_columns
from saccade.split.flat import Holdings, Marks, join, links, numbered, ordered_names
from saccade.terminal import Progress

COPIES = ("path", "sha256", "etag")  # rows that are equal in one of these are of the same file
BELONGING = ("group", CLUSTER)
STEPS = 4 + len(COPIES) + len(BELONGING)
NAMED = 5
NONE = np.int8(-1)

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sets:
    """Images by row: class (-1 for rows left out) and atom; and (atoms,) the keys of the seed's order."""

    names: tuple[str, ...]
    label: Numbers
    atom: Numbers
    keys: Keys
    rows: Rows

    def held(self, chosen: Marks | None = None) -> Holdings:
        """What atoms hold of the chosen rows, of all without any."""
        atom = self.atom if chosen is None else np.where(chosen, self.atom, np.int32(-1))
        return Holdings.of(atom, self.label, (len(self.keys), len(self.names)))

    def tally(self, part: Codes) -> Counts:
        """(classes, parts) images."""
        code = (self.label * len(PARTS) + part)[part >= 0]
        return np.bincount(code, minlength=len(self.names) * len(PARTS)).reshape(-1, len(PARTS))


@dataclass(slots=True)
class Reading:
    """Sets in the making: (rows,) classes, keys of paths, the first row of each row's set, whether copies of
    it would be known; and rows of a path that an earlier row has.

    order: (rows,) the keys that order the sets: those of groups, so that a set that grows keeps its place.
    """

    rows: Rows
    seed: int
    names: tuple[str, ...]
    label: Numbers
    keys: Keys
    order: Keys
    home: Numbers
    told: Marks
    repeated: Numbers
    joined: dict[str, int]
    progress: Progress
    steps: int = 0

    @classmethod
    def of(cls, rows: Rows, seed: int, progress: Progress) -> Reading:
        names, label = rows.labels()
        progress(1, STEPS, "paths")
        keys = rows.path_keys(seed)
        first = np.full(len(names), np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(first, label[label >= 0], keys[label >= 0])
        names, new = ordered_names(names, first)
        label = np.append(new, np.int32(-1))[label]
        home, told = np.arange(rows.count, dtype=np.int32), np.zeros(rows.count, dtype=bool)
        return cls(rows, seed, names, label, keys, keys, home, told, home[:0], {}, progress, 1)

    def join(self, marks: tuple[str, ...]) -> None:
        """Join the rows that are equal in one of the columns, apart from those that are left out."""
        for mark in marks:
            self.step(mark)
            if mark != "path" and not self.rows.has(mark):
                continue
            keys = self.keys if mark == "path" else self.rows.keys(mark, self.seed)
            keys = np.where(self.label < 0, np.uint64(0), keys)
            if not keys.any():
                continue
            first, second = links(keys)
            join(self.home, first, second)
            self.joined[mark] = len(first)
            if mark == "path":
                self.repeated = second
            elif mark == "group":
                self.order = np.where(keys == 0, self.keys, keys)
            elif mark in COPIES:
                self.told |= keys != 0

    def step(self, what: str) -> None:
        self.steps += 1
        self.progress(self.steps, STEPS, what)

    def sets(self) -> Sets:
        """The sets as they are now, each path once; raises DataError where no image is left."""
        self.label[self.repeated] = -1
        atom, count = numbered(self.home, self.label >= 0)
        if not count:
            raise DataError(
                f"none of the {self.rows.count:,} images can be used", hint="see what was set aside"
            )
        keys = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(keys, atom[atom >= 0], self.order[atom >= 0])
        return Sets(self.names, self.label, atom, keys, self.rows)


def leave_out_two_labels(read: Reading) -> tuple[int, tuple[str, ...]]:
    """Leave out every copy of a file that has two labels; how many these are, and a sentence."""
    read.join(COPIES)
    two = np.zeros(len(read.home), dtype=bool)
    two[read.home[read.label != read.label[read.home]]] = True
    two = two[read.home]
    rows = np.flatnonzero(two)
    if not len(rows):
        return 0, ()
    shown = rows[:NAMED].tolist()
    labels = [read.names[read.label[row]] for row in shown]
    named = [f"{path!r} ({label})" for path, label in zip(read.rows.paths_of(shown), labels, strict=True)]
    more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
    read.label[two] = -1
    return len(rows), (
        f"{len(rows):,} images left out: the same file has two labels: {', '.join(named)}{more}",
    )


# -- a list that was written before ----------------------------------------------------------------------


def earlier_parts(rows: Rows, earlier: Path, seed: int, keys: Keys) -> tuple[Codes, int]:
    """(rows,) the part of each image in an earlier list, -1 for none, and how many images that has."""
    names, count = parquet_columns(earlier)
    if not {"path", "part"} <= set(names):
        raise SplitError(
            f"{earlier} is no split: it has no columns path and part", hint="give --out another name"
        )
    if stored_root(earlier) != rows.root:
        raise SplitError(f"{earlier} divides the images of another place", hint="give --out another name")
    known = PartColumn("part", {part: part for part in PARTS})
    old = Rows(earlier, count, rows.root, {"path": "path"}, part_column=known)
    old_keys, parts = old.path_keys(seed), old.parts()
    order = np.argsort(old_keys)
    old_keys, parts = old_keys[order], np.append(parts[order], NONE)
    at = np.searchsorted(old_keys, keys)
    there = np.append(old_keys, np.uint64(0))[at] == keys
    return np.where(there, parts[at], NONE), int((parts >= 0).sum())
