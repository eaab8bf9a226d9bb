"""A new division: shares of each class, whole atoms, and what stands already stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from saccade.errors import SplitError
from saccade.records import PARTS, ImageRecord
from saccade.split.allocate import allocate
from saccade.split.atoms import Atom, class_counts, class_order
from saccade.split.objective import Ints
from saccade.split.reasons import Outcome, joined_by_likeness, name_reasons, refuse_small_classes

# A class that cannot be trained on is worse than one that is not tested; least bad is one not validated.
MUST = {"train": 4.0, "validation": 1.0, "test": 2.0}


@dataclass(frozen=True, slots=True)
class Shares:
    """Part names and the share of each class wanted there; shares sum to 1."""

    parts: tuple[str, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, validation: float, test: float) -> Shares:
        """Raises SplitError unless something is left to train on."""
        if min(validation, test) < 0 or validation + test >= 1:
            raise SplitError(
                f"validation + test must lie from 0 to below 1, got {validation} + {test}; "
                "the rest of the images go to training"
            )
        return cls(PARTS, (1.0 - validation - test, validation, test))

    def without_unused(self, used: Mapping[int, str]) -> Shares:
        """Only the parts that have a share, or images that stand there already."""
        kept = [
            (p, s) for p, s in zip(self.parts, self.shares, strict=True) if s > 0 or p in set(used.values())
        ]
        return Shares(tuple(p for p, _ in kept), tuple(s for _, s in kept))

    @property
    def must(self) -> tuple[float, ...]:
        """How bad it is for a class to be missing in each part."""
        return tuple(MUST.get(p, 1.0) if s > 0 else 0.0 for p, s in zip(self.parts, self.shares, strict=True))


@dataclass(frozen=True, slots=True)
class Assignment:
    """The part of each record, by its index, and why shares were missed."""

    part_of: Mapping[int, str]
    reasons: tuple[str, ...] = ()


def assign(
    records: Sequence[ImageRecord],
    atoms: Sequence[Atom],
    shares: Shares,
    *,
    standing: Mapping[int, str] | None = None,
    least: int | None = None,
) -> Assignment:
    """A part for every atom: those with a place in `standing` (atom number -> part) keep it.

    Raises SplitError when a class has fewer than `least` atoms, which is the number of parts if not given.
    """
    standing = standing or {}
    shares = shares.without_unused(standing)
    table = Table.of(records, atoms)
    base = table.base(standing, shares.parts)
    alike = joined_by_likeness(records, atoms)
    refuse_small_classes(
        table.labels, table.counts, base, standing, shares.parts, np.array(shares.must), least, alike=alike
    )
    wanted = table.totals[:, None] * np.array(shares.shares)[None, :]
    return place(records, atoms, table, shares.parts, wanted, shares.must, standing)


@dataclass(frozen=True, slots=True)
class Table:
    """Class names by number, what each atom holds, and images per class."""

    labels: tuple[str, ...]
    counts: list[tuple[tuple[int, int], ...]]
    totals: Ints

    @classmethod
    def of(cls, records: Sequence[ImageRecord], atoms: Sequence[Atom]) -> Table:
        order = class_order(records, atoms)
        counts = class_counts(records, atoms, order)
        totals = np.zeros(len(order), dtype=np.int64)
        for atom in counts:
            for c, n in atom:
                totals[c] += n
        return cls(tuple(order), counts, totals)

    def base(self, standing: Mapping[int, str], parts: Sequence[str]) -> Ints:
        """(classes, parts) images of the atoms that stand already."""
        base = np.zeros((len(self.labels), len(parts)), dtype=np.int64)
        for number, part in standing.items():
            for c, n in self.counts[number]:
                base[c, parts.index(part)] += n
        return base


def place(
    records: Sequence[ImageRecord],
    atoms: Sequence[Atom],
    table: Table,
    parts: Sequence[str],
    wanted: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    must: Sequence[float],
    standing: Mapping[int, str],
) -> Assignment:
    """Allocate the atoms that do not stand yet, towards `wanted` (classes, parts) images."""
    free = [number for number in range(len(atoms)) if number not in standing]
    base = table.base(standing, parts)
    allocation = allocate([table.counts[number] for number in free], wanted, must, base)
    part_of = dict(standing) | {n: parts[p] for n, p in zip(free, allocation.part_of, strict=True)}
    outcome = Outcome(table.labels, tuple(parts), allocation.images, wanted, base)
    by_record = {i: part for number, part in part_of.items() for i in atoms[number].members}
    return Assignment(by_record, name_reasons(outcome, records, atoms, table.counts))
