"""Sets of images that must stay together: declared groups, near-duplicate clusters and identical copies.

An atom is a set of images that no split may divide. Atoms and classes are ordered by a hash of (seed, path),
so neither the order of the records nor the names of the classes change a split.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from heapq import heapify, heappop, heappush
from itertools import chain, combinations, pairwise, product
from typing import Generic, Protocol, TypeVar

from saccade.errors import SplitError
from saccade.near_duplicates.pairs import Forest
from saccade.records import Audit, ImageRecord, Pair

# Classes beside the labels, where an image may have several: those without any label, and every image, so
# that a part does not meet the shares of all labels with few images that have many.
NO_LABEL, EVERY = "", "\0every"


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
            for label in stratified_by(records[index]):
                order.setdefault(label, len(order))
    return order


def stratified_by(record: ImageRecord) -> tuple[str, ...]:
    """The classes that a split spreads evenly in which the record counts."""
    return (*(record.labels or (NO_LABEL,)), EVERY) if record.several else record.labels


def class_counts(
    records: Sequence[ImageRecord], atoms: Sequence[Atom], order: Mapping[str, int]
) -> list[tuple[tuple[int, int], ...]]:
    """For each atom its (class, images), by class number."""
    if all(len(atom) == 1 and not records[atom.members[0]].several for atom in atoms):
        return [((order[records[atom.members[0]].label], 1),) for atom in atoms]
    return [tuple(sorted(_tally((records[i] for i in atom.members), order).items())) for atom in atoms]


def _tally(records: Iterable[ImageRecord], order: Mapping[str, int]) -> Counter[int]:
    return Counter(order[label] for record in records for label in stratified_by(record))


# -- apart -----------------------------------------------------------------------------------------------
# Groups that look-alikes join are divided all the same: a few images are set aside, so that no pair crosses.
# Sixty pairs of drawings that look alike must not turn the drawings of twelve persons into one set. Where
# data cannot be divided as they hang together, links between groups are no longer followed, and of each pair
# that then stands in two parts one image is set aside. Where that is refused, too, merely likely links are
# followed no more.


MOST_SET_ASIDE = 0.1  # share of the images of any class; beyond, the data cannot be divided so
NAMED = 5  # images set aside that the reason names


class Made(Protocol):
    """A division: the part of each record by its index, and why shares were missed."""

    @property
    def part_of(self) -> Mapping[int, str]: ...

    @property
    def reasons(self) -> tuple[str, ...]: ...


M = TypeVar("M", bound=Made)


@dataclass(frozen=True, slots=True)
class Division(Generic[M]):
    """What was made of which atoms; `twin_of` gives each image that is set aside the one it looks like."""

    atoms: list[Atom]
    made: M
    twin_of: Mapping[int, int]


class Apart(IntEnum):
    """Which links are not followed: the fewest that lead to a division."""

    GROUPS = 1  # near-duplicates in different groups
    COPIES = 2  # equal images in different groups, too
    LIKELY = 3  # near-duplicates that are merely likely, too


@dataclass(frozen=True, slots=True)
class Ties:
    """What keeps images together, by their indices, apart from groups.

    `copies` are sets of equal images and clusters of which no pairs are known, `pairs` come strongest first.
    """

    copies: list[tuple[int, ...]]
    pairs: list[tuple[int, int, bool]]  # first, second, certain

    @classmethod
    def of(cls, records: Sequence[ImageRecord], audit: Audit, joined: Iterable[Pair]) -> Ties:
        place = {record.path: i for i, record in enumerate(records)}
        known = sorted(
            [*linked_pairs(audit), *joined], key=lambda pair: (-pair.score, pair.first, pair.second)
        )
        pairs = [
            (place[pair.first], place[pair.second], pair.band == "certain")
            for pair in known
            if pair.first in place and pair.second in place
        ]
        explained = {i for first, second, _ in pairs for i in (first, second)}
        marked: defaultdict[tuple[str, object], list[int]] = defaultdict(list)
        for i, record in enumerate(records):
            if record.sha256:
                marked["file", record.sha256].append(i)
            if record.pixel_sha256:
                marked["pixels", record.pixel_sha256].append(i)
            if record.path in audit.clusters and i not in explained:
                marked["cluster", audit.clusters[record.path]].append(i)
        return cls([tuple(same) for same in marked.values() if len(same) > 1], pairs)


def divide(
    records: Sequence[ImageRecord],
    audit: Audit,
    make: Callable[[list[Atom]], M],
    *,
    seed: int,
    joined: Sequence[Pair] = (),
    kept: Collection[str] = (),
) -> Division[M]:
    """`make` on the atoms as they hang together; where shares are missed or refused, with fewer links.

    Raises what `make` raises where that does not help, or costs more than MOST_SET_ASIDE of a class. Images
    with a path in `kept` are set aside last.
    """
    whole = gather_atoms(records, audit.clusters, seed=seed, pairs=[*linked_pairs(audit), *joined])
    made, refusal = _tried(make, whole)
    if made is not None and not made.reasons:
        return Division(whole, made, {})
    ties = Ties.of(records, audit, joined)
    for apart in Apart if made is None else (Apart.GROUPS,):
        atoms = _atoms_apart(records, ties, apart, seed)
        if len(atoms) == len(whole):
            continue
        other, _ = _tried(make, atoms)
        if other is None or (made is not None and len(other.reasons) >= len(made.reasons)):
            continue
        twin_of = _set_aside(records, other.part_of, ties, seed=seed, kept=kept)
        if _few(records, other.part_of, twin_of):
            return Division(atoms, other, twin_of)
    if made is None:
        raise refusal
    return Division(whole, made, {})


def _tried(make: Callable[[list[Atom]], M], atoms: list[Atom]) -> tuple[M | None, SplitError]:
    try:
        return make(atoms), SplitError("")
    except SplitError as refusal:
        return None, refusal


def _atoms_apart(records: Sequence[ImageRecord], ties: Ties, apart: Apart, seed: int) -> list[Atom]:
    """Atoms of which none holds two groups that only links join; what hangs on two groups stays with one."""
    forest = Forest(len(records))
    first_of: dict[str, int] = {}
    for i, record in enumerate(records):
        if record.group:
            forest.join(i, first_of.setdefault(record.group, i))
    grouped = {forest.root(i) for i in first_of.values()}

    def join(first: int, second: int) -> None:
        a, b = forest.root(first), forest.root(second)
        if a == b or (a in grouped and b in grouped):
            return
        forest.join(a, b)
        if a in grouped or b in grouped:
            grouped.add(forest.root(a))

    for same in ties.copies:
        for other in same[1:]:
            (forest.join if apart < Apart.COPIES else join)(same[0], other)
    grouped = {forest.root(i) for i in first_of.values()}
    for first, second, certain in ties.pairs:
        if certain or apart < Apart.LIKELY:
            join(first, second)
    return atoms_of(records, forest, seed=seed)


# -- whom to set aside -----------------------------------------------------------------------------


def _set_aside(
    records: Sequence[ImageRecord],
    part_of: Mapping[int, str],
    ties: Ties,
    *,
    seed: int,
    kept: Collection[str],
) -> dict[int, int]:
    """Images to leave out so that no tie stands in two parts, each with a twin that stays.

    The image with most ties across goes first, of equally many one that had no part before, then one that
    trains.
    """
    twins = _crossing(part_of, ties)
    uncovered = {i: set(others) for i, others in twins.items()}

    def rank(i: int) -> tuple[int, bool, bool, int, int]:
        old, held_out = records[i].path in kept, part_of[i] != "train"
        return -len(uncovered[i]), old, held_out, order_key(seed, records[i].path), i

    aside: dict[int, None] = {}  # in the order in which they went
    queue = [rank(i) for i in twins]
    heapify(queue)
    while queue:
        *claimed, i = heappop(queue)
        if not uncovered[i]:
            continue
        if rank(i) != (*claimed, i):
            heappush(queue, rank(i))  # others that went have left it fewer ties
            continue
        aside[i] = None
        for other in uncovered[i]:
            uncovered[other].discard(i)
        uncovered[i] = set()
    for i in reversed(list(aside)):
        if all(other in aside for other in twins[i]):
            del aside[i]  # what went later has made it needless
    return {i: min((t for t in twins[i] if t not in aside), key=lambda t: records[t].path) for i in aside}


def _crossing(part_of: Mapping[int, str], ties: Ties) -> dict[int, set[int]]:
    """For each image those it is tied to that stand in another part."""
    twins: defaultdict[int, set[int]] = defaultdict(set)
    pairs = ((first, second) for first, second, _ in ties.pairs if part_of[first] != part_of[second])
    for first, second in chain(pairs, *(_copies_across(same, part_of) for same in ties.copies)):
        twins[first].add(second)
        twins[second].add(first)
    return twins


def _copies_across(same: Iterable[int], part_of: Mapping[int, str]) -> Iterator[tuple[int, int]]:
    """Pairs of these that stand in two parts; not through all pairs, of which there may be millions."""
    by_part: defaultdict[str, list[int]] = defaultdict(list)
    for i in same:
        by_part[part_of[i]].append(i)
    for one, other in combinations(by_part.values(), 2):
        yield from product(one, other)


def _few(records: Sequence[ImageRecord], part_of: Mapping[int, str], twin_of: Mapping[int, int]) -> bool:
    """Whether each class keeps most of its images, and some in each part where it had some."""
    held = [stratified_by(record) for record in records]
    sizes = Counter(label for labels in held for label in labels)
    gone = Counter(label for i in twin_of for label in held[i])
    before = {(label, part_of[i]) for i, labels in enumerate(held) for label in labels}
    after = {(label, part_of[i]) for i, labels in enumerate(held) if i not in twin_of for label in labels}
    return before == after and all(
        count <= max(1, MOST_SET_ASIDE * sizes[label]) for label, count in gone.items()
    )


def clusters_left(
    records: Sequence[ImageRecord], audit: Audit, joined: Iterable[Pair], twin_of: Mapping[int, int]
) -> dict[str, int]:
    """The cluster of each image that is left, by path: what only an image set aside had joined is parted."""
    ties, forest = Ties.of(records, audit, joined), Forest(len(records))
    for tied in (*ties.copies, *((first, second) for first, second, _ in ties.pairs)):
        for first, second in pairwise(i for i in tied if i not in twin_of):
            forest.join(first, second)
    sets = (members for members in forest.sets() if len(members) > 1)
    return {records[i].path: number for number, members in enumerate(sets) for i in members}


def notes(
    records: Sequence[ImageRecord], part_of: Mapping[int, str], twin_of: Mapping[int, int]
) -> dict[str, str]:
    """Why each image is set aside, by its path."""
    return {
        records[i].path: f"looks like {records[twin].path!r}, which stands in another part ({part_of[twin]})"
        for i, twin in sorted(twin_of.items())
    }


def aside_sentence(records: Sequence[ImageRecord], twin_of: Mapping[int, int]) -> tuple[str, ...]:
    """How many images were set aside for what they look like, and the first of them; nothing for none."""
    if not twin_of:
        return ()
    pairs = sorted((records[i].path, records[twin].path) for i, twin in twin_of.items())
    listed = ", ".join(f"{path!r} (like {twin!r})" for path, twin in pairs[:NAMED])
    more = f" and {len(pairs) - NAMED:,} more" if len(pairs) > NAMED else ""
    count = "1 image was" if len(pairs) == 1 else f"{len(pairs):,} images were"
    return (
        f"{count} set aside, for near-duplicates in another part would have joined what must be divided: "
        f"{listed}{more}",
    )
