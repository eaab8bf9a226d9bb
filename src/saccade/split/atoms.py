"""What must stay together: declared groups, near-duplicate clusters and identical copies, joined up.

An atom is a set of images that no split may divide. Atoms and classes are ordered by a hash of
(seed, path), so that neither the order of the records nor the names of the classes have a say.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from saccade.records import Audit, ImageRecord, Pair


@dataclass(frozen=True, slots=True)
class Atom:
    """Indices of the records that stay together, and its place in the order that the seed draws."""

    members: tuple[int, ...]
    key: int

    def __len__(self) -> int:
        return len(self.members)


def order_key(seed: int, path: str) -> int:
    """64 random bits that depend on the seed and the path alone."""
    text = f"{seed}/{path}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def gather_atoms(
    records: Sequence[ImageRecord],
    clusters: Mapping[str, int],
    *,
    seed: int,
    pairs: Iterable[Pair] = (),
) -> list[Atom]:
    """The finest division of the records that keeps each group, cluster, pair and set of copies whole.

    `clusters` gives paths their cluster, `pairs` join two paths more. Sorted by the seed's order.
    """
    forest = Forest(len(records))
    first_with: dict[tuple[str, object], int] = {}
    for index, record in enumerate(records):
        for mark in marks(record, clusters):
            forest.join(index, first_with.setdefault(mark, index))
    place = {record.path: index for index, record in enumerate(records)}
    for pair in pairs:
        if pair.first in place and pair.second in place:
            forest.join(place[pair.first], place[pair.second])
    return atoms_of(records, forest, seed=seed)


def atoms_of(records: Sequence[ImageRecord], forest: Forest, *, seed: int) -> list[Atom]:
    """The sets of the forest, sorted by the seed's order."""
    keys = [order_key(seed, record.path) for record in records]
    atoms = (Atom(tuple(sorted(m, key=keys.__getitem__)), min(keys[i] for i in m)) for m in forest.sets())
    return sorted(atoms, key=lambda atom: (atom.key, records[atom.members[0]].path))


def linked_pairs(audit: Audit) -> list[Pair]:
    """Pairs that count as the same picture: verified, and not cut by the guard against chains.

    The guard puts the two ends of a weak link into different clusters; that decision is respected here.
    """
    cluster = audit.clusters.get
    return [p for p in audit.pairs if p.band != "look" and cluster(p.first) == cluster(p.second)]


def marks(record: ImageRecord, clusters: Mapping[str, int]) -> list[tuple[str, object]]:
    """What the record shares with every image it must stay with."""
    found: list[tuple[str, object]] = []
    if record.group:
        found.append(("group", record.group))
    if record.path in clusters:
        found.append(("cluster", clusters[record.path]))
    if record.sha256:
        found.append(("file", record.sha256))
    if record.pixel_sha256:
        found.append(("pixels", record.pixel_sha256))
    return found


def class_order(records: Sequence[ImageRecord], atoms: Sequence[Atom]) -> dict[str, int]:
    """A number for each class that depends on which images it holds, never on its name."""
    order: dict[str, int] = {}
    for atom in atoms:
        for index in atom.members:
            order.setdefault(records[index].label, len(order))
    return order


def class_counts(
    records: Sequence[ImageRecord], atoms: Sequence[Atom], order: Mapping[str, int]
) -> list[tuple[tuple[int, int], ...]]:
    """For each atom its (class, images), by class number."""
    if all(len(atom) == 1 for atom in atoms):
        return [((order[records[atom.members[0]].label], 1),) for atom in atoms]
    return [tuple(sorted(Counter(order[records[i].label] for i in atom.members).items())) for atom in atoms]


class Forest:
    """Union-find over 0..n-1 with path halving (Tarjan and van Leeuwen, 1984)."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def root(self, i: int) -> int:
        parent = self.parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        a, b = self.root(i), self.root(j)
        self.parent[max(a, b)] = min(a, b)

    def sets(self) -> list[list[int]]:
        members: dict[int, list[int]] = {}
        for i in range(len(self.parent)):
            members.setdefault(self.root(i), []).append(i)
        return list(members.values())
