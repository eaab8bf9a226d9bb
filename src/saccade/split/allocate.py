"""The allocator: whole atoms into parts, each class as near to its wanted shares as the atoms allow.

Atoms of one image are interchangeable within their class, so they are given out last, optimally, by
`fill_with_singles`; the search is only over the larger atoms. These are placed largest first; where that
is not yet the best thinkable, every assignment is tried if there are few, else moves and swaps improve it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saccade.split.objective import Floats, Ints, class_costs, fill_with_singles, settle
from saccade.split.search import Kinds, improve

AtomCounts = tuple[tuple[int, int], ...]  # (class number, images) of one atom


@dataclass(frozen=True, slots=True)
class Allocation:
    """The part of each atom, the (classes, parts) images that come to stand there, and the cost."""

    part_of: tuple[int, ...]
    images: Ints
    cost: tuple[float, float, float]


def allocate(atoms: Sequence[AtomCounts], wanted: Floats, must: Sequence[float], base: Ints) -> Allocation:
    """Give each atom a part. Equal atoms are served in the order given, so shuffle them before.

    `wanted` (classes, parts) sums to each class's images, `base` (classes, parts) counts those that stand
    already and stay, `must` (parts,) says how bad it is for a class to be missing. The cost is that of
    `objective`: the least possible where the larger atoms are few, else the least under moves and swaps.
    """
    needed = np.array(must, dtype=np.float64)
    singles, large = _sort_out(atoms, len(base))
    kinds = Kinds(
        holds=tuple(large),
        copies=tuple(len(members) for members in large.values()),
        base=base,
        wanted=wanted,
        must=needed,
        singles=np.array([len(members) for members in singles], dtype=np.int64),
    )
    placed = improve(kinds)
    part_of = [-1] * len(atoms)
    for row, members in zip(placed, large.values(), strict=True):
        _hand_out(part_of, members, row)
    images = base + kinds.images(placed)
    for c, given in enumerate(_final_filling(images, singles, wanted, needed)):
        _hand_out(part_of, singles[c], given)
        images[c] += given
    cost = settle(class_costs(images, wanted, needed).sum(axis=0)).tolist()
    return Allocation(tuple(part_of), images, (cost[0], cost[1], cost[2]))


def _sort_out(
    atoms: Sequence[AtomCounts], classes: int
) -> tuple[list[list[int]], dict[AtomCounts, list[int]]]:
    """Atoms of one image by class, and the others by what they hold, the largest first."""
    singles: list[list[int]] = [[] for _ in range(classes)]
    large: dict[AtomCounts, list[int]] = defaultdict(list)
    for i, atom in enumerate(atoms):
        if len(atom) == 1 and atom[0][1] == 1:
            singles[atom[0][0]].append(i)
        else:
            large[atom].append(i)
    by_size = sorted(large, key=lambda atom: -sum(n for _, n in atom))  # stable: equal sizes as the seed drew
    return singles, {atom: large[atom] for atom in by_size}


def _hand_out(part_of: list[int], members: Sequence[int], given: Ints) -> None:
    parts = np.repeat(np.arange(len(given)), given)
    for member, part in zip(members, parts.tolist(), strict=True):
        part_of[member] = part


def _final_filling(
    standing: Ints, singles: Sequence[Sequence[int]], wanted: Floats, must: Floats
) -> list[Ints]:
    """Fill class by class; ties go to the part that the classes before have left shortest on the whole."""
    given, owed = [], np.zeros(wanted.shape[1])
    for c, members in enumerate(singles):
        prefer = 1e-6 * owed / (1.0 + np.abs(owed).max())
        row = fill_with_singles(
            standing[c : c + 1], np.array([len(members)]), wanted[c : c + 1], must, prefer=prefer[None, :]
        )[0]
        owed += wanted[c] - standing[c] - row
        given.append(row)
    return given
