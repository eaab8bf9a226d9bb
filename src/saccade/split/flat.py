"""Sets and shares of millions of images in flat arrays: what `atoms` and `allocate` do with objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.split.allocate import AtomCounts, allocate
from saccade.split.making import Held
from saccade.split.objective import Floats, Ints

Keys = NDArray[np.uint64]
Numbers = NDArray[np.int32]
Codes = NDArray[np.int8]
Marks = NDArray[np.bool_]

# (atom, class) pairs up to which the allocator of smaller data sets is asked. It misplaces 4 % of the images
# of 200 sites of 95 classes, the order of hashes 10 %; of 3,000 sites 0 and 4 %, in 8 s. Where atoms have one
# class each, hashes do as well, and more images keep their part where data grow.
FEW, FEW_MIXED = 20_000, 200_000


# -- what stays together -----------------------------------------------------------------------------------


def links(keys: Keys) -> tuple[Numbers, Numbers]:
    """Rows with the key of an earlier row: that first row, and the row; 0 is nobody's key.

    >>> [side.tolist() for side in links(np.array([7, 5, 0, 7, 7, 0], dtype=np.uint64))]
    [[0, 0], [3, 4]]
    """
    order = np.argsort(keys, kind="stable").astype(np.int32)
    ordered = keys[order]
    again = np.zeros(len(keys), dtype=bool)
    again[1:] = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
    del ordered
    first = ~again
    first[:-1] &= again[1:]
    first[-1:] = False
    which = np.cumsum(first, dtype=np.int32)[again] - np.int32(1)
    return order[first][which], order[again]


def join(home: Numbers, first: Numbers, second: Numbers) -> None:
    """Make one set of the two that each pair of rows is in: `home` (rows,) has the first row of each set.

    Hooking and pointer jumping: Shiloach and Vishkin, Journal of Algorithms 3 (1982) 57-67.

    >>> home = np.arange(5, dtype=np.int32)
    >>> join(home, np.array([3, 0]), np.array([4, 3]))
    >>> home.tolist()
    [0, 1, 2, 0, 0]
    """
    while len(first):
        first, second = home[first], home[second]
        apart = first != second
        first, second = first[apart], second[apart]
        np.minimum.at(home, np.maximum(first, second), np.minimum(first, second))
        while not np.array_equal(further := home[home], home):
            home[:] = further


def numbered(home: Numbers, used: Marks) -> tuple[Numbers, int]:
    """(rows,) the number of each row's set, -1 for rows that are not used, and how many sets there are."""
    first = used & (home == np.arange(len(home), dtype=np.int32))
    number = np.cumsum(first, dtype=np.int32) - np.int32(1)
    return np.where(used, number[home], np.int32(-1)), int(first.sum())


# -- what sets hold ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holdings:
    """`images[i]` images of class `label[i]` are in atom `atom[i]`; by atom, then class.

    `shape` is the number of atoms and of classes.
    """

    atom: Numbers
    label: Numbers
    images: Numbers
    shape: tuple[int, int]

    @classmethod
    def of(cls, atom: Numbers, label: Numbers, shape: tuple[int, int]) -> Holdings:
        """Counted from (rows,) atoms and classes; rows with an atom below 0 do not count."""
        codes = (atom.astype(np.int64) * shape[1] + label)[atom >= 0]
        codes.sort()
        begins = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])[: len(codes)])
        images = np.diff(np.append(begins, len(codes))).astype(np.int32)
        atoms, labels = np.divmod(codes[begins], shape[1])
        return cls(atoms.astype(np.int32), labels.astype(np.int32), images, shape)

    def __len__(self) -> int:
        return len(self.atom)

    def only(self, chosen: Marks | Ints) -> Holdings:
        """Those of the chosen pairs."""
        return Holdings(self.atom[chosen], self.label[chosen], self.images[chosen], self.shape)

    def per_class(self) -> Ints:
        """(classes,) images."""
        return np.bincount(self.label, self.images, self.shape[1]).astype(np.int64)

    def atoms_per_class(self) -> Ints:
        """(classes,) atoms with an image of the class."""
        return np.bincount(self.label, minlength=self.shape[1])

    def mixed(self) -> Marks:
        """(pairs,) whether the atom holds other classes, too."""
        several: Marks = np.bincount(self.atom, minlength=self.shape[0]) > 1
        return several[self.atom]

    def by_part(self, part: Codes, parts: int) -> Ints:
        """(classes, parts) images, of (atoms,) parts; those of atoms with a part below 0 do not count."""
        where = part[self.atom].astype(np.int64)
        code = (self.label * parts + where)[where >= 0]
        found = np.bincount(code, self.images[where >= 0], self.shape[1] * parts)
        return found.astype(np.int64).reshape(-1, parts)

    def held(self) -> dict[int, Held]:
        """By class: the most images in one atom, that atom, and the images in atoms of several classes."""
        largest = np.lexsort((self.images, self.label))
        last = largest[np.append(self.label[largest][1:] != self.label[largest][:-1], True)[: len(self)]]
        mixed = self.only(self.mixed()).per_class()
        found: defaultdict[int, Held] = defaultdict(Held)
        for c, most, atom in zip(
            *(v[last].tolist() for v in (self.label, self.images, self.atom)), strict=True
        ):
            found[c] = Held(most, atom, int(mixed[c]))
        return found


# -- who goes where ----------------------------------------------------------------------------------------


def allocated(held: Holdings, keys: Keys, wanted: Floats, must: Floats, standing: Codes) -> Codes:
    """(atoms,) the part of each: that in `standing` where it is not below 0, else towards `wanted`.

    keys: (atoms,) the order that the seed draws. wanted: (classes, parts) images. must: (parts,) above 0 for
    a part that each class must be in. Few atoms are placed as those of a small data set.
    """
    free = held.only(standing[held.atom] < 0)
    base = held.by_part(standing, len(must))
    mixed = 100 * free.images[free.mixed()].sum() > free.images.sum()
    if len(free) <= (FEW_MIXED if mixed else FEW):
        return _searched(free, keys, wanted, must, base, standing)
    return in_hash_order(free, keys, wanted, must, base, standing)


def _searched(free: Holdings, keys: Keys, wanted: Floats, must: Floats, base: Ints, standing: Codes) -> Codes:
    holds: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for atom, label, images in zip(
        free.atom.tolist(), free.label.tolist(), free.images.tolist(), strict=True
    ):
        holds[atom].append((label, images))
    order = sorted(holds, key=keys.__getitem__)
    counts: list[AtomCounts] = [tuple(holds[atom]) for atom in order]
    part = standing.copy()
    part[order] = allocate(counts, wanted, must.tolist(), base).part_of
    return part


def in_hash_order(
    free: Holdings, keys: Keys, wanted: Floats, must: Floats, base: Ints, standing: Codes
) -> Codes:
    """Class by class, the rarest first: its atoms, in the order of their keys, are cut where its shares end.

    An atom counts to the rarest of its classes; what it brings of the others, these get less of later. A cut
    is at most half an atom off. Where data grow, cuts move little, and so few images change their part.
    The order of the classes is that of iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD
    2011).
    """
    rarest = np.lexsort((np.arange(free.shape[1]), free.per_class()))
    rank = np.empty(free.shape[1], dtype=np.int32)
    rank[rarest] = np.arange(free.shape[1])
    stratum = np.full(free.shape[0], free.shape[1], dtype=np.int32)  # of an atom that is not free: none
    np.minimum.at(stratum, free.atom, rank[free.label])
    own = stratum[free.atom] == rank[free.label]
    weight = np.zeros(free.shape[0], dtype=np.int32)
    weight[free.atom[own]] = free.images[own]
    others = free.only(~own)
    others = others.only(np.argsort(stratum[others.atom], kind="stable"))
    order = np.lexsort((keys, stratum))
    ends = np.searchsorted(stratum[order], np.arange(free.shape[1] + 1))
    ends_of_others = np.searchsorted(stratum[others.atom], np.arange(free.shape[1] + 1))
    part, placed = standing.copy(), base.copy()
    for place in np.flatnonzero(np.diff(ends)).tolist():
        c, atoms = rarest[place], order[ends[place] : ends[place + 1]]
        empty = (placed[c] == 0) & (must > 0)
        part[atoms] = _cut(weight[atoms], np.maximum(wanted[c] - placed[c], 0.0), empty)
        placed[c] += np.bincount(part[atoms], weight[atoms], len(must)).astype(np.int64)
        more = slice(ends_of_others[place], ends_of_others[place + 1])
        np.add.at(placed, (others.label[more], part[others.atom[more]]), others.images[more])
    return part


def _cut(weights: Numbers, need: Floats, empty: Marks) -> Codes:
    """(atoms,) the part of each: runs of atoms, as near to `need` (parts,) images as atoms allow.

    A part in `empty` gets an atom in any case, the first parts first where there are too few.

    >>> _cut(np.ones(4, dtype=np.int32), np.array([2.8, 0.6, 0.6]), np.array([True, True, True])).tolist()
    [0, 0, 1, 2]
    >>> _cut(np.ones(4, dtype=np.int32), np.array([0.1, 3.0, 0.9]), np.array([True, True, True])).tolist()
    [0, 1, 1, 2]
    """
    goal = np.cumsum(need) * (weights.sum() / need.sum())
    ends = np.searchsorted(np.cumsum(weights) - weights / 2, goal)
    owed: Ints = np.cumsum(empty[::-1])[::-1] - empty  # parts behind each that must still get an atom
    ends = np.minimum(ends, np.maximum(len(weights) - owed, 0))
    for p in range(len(ends)):
        ends[p] = max(ends[p], (ends[p - 1] if p else 0) + empty[p])
    ends[-1] = len(weights)
    ends = np.minimum(ends, len(weights))
    return np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0)).astype(np.int8)


def most_held_out(atom: Numbers, part: Codes, atoms: int) -> Codes:
    """(atoms,) of the parts in which an atom's rows stand the most held-out one; -1 for none.

    Parts are places in PARTS, in which the later is the more held-out.
    """
    found = np.full(atoms, -1, dtype=np.int8)
    there = (atom >= 0) & (part >= 0)
    np.maximum.at(found, atom[there], part[there])
    return found


def ordered_names(names: Sequence[str], first: Keys) -> tuple[tuple[str, ...], Numbers]:
    """The names in the order of `first`, and the new number of each: no name decides anything."""
    order = np.argsort(first, kind="stable")
    new = np.empty(len(names), dtype=np.int32)
    new[order] = np.arange(len(names))
    return tuple(names[i] for i in order.tolist()), new
