"""Groups of near-duplicates, with a guard against chains of weak links."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.records import Confidence

LARGEST_SHARE = 0.01  # of the images, above which a cluster is suspected to be a chain
LARGEST_LEAST = 50  # images that a cluster may always have


@dataclass(frozen=True, slots=True)
class PairIndices:
    """Images `first` < `second` show the same thing: how sure, by which score, and what differs, in words."""

    first: int
    second: int
    band: Confidence
    score: float
    how: str = ""


class Clusters(NamedTuple):
    """`labels` (n,): equal numbers belong together. `broken`: links that the guard did not follow."""

    labels: NDArray[np.int64]
    notes: tuple[str, ...]
    broken: tuple[PairIndices, ...]


def cluster(
    count: int,
    pairs: Iterable[PairIndices],
    *,
    largest_share: float = LARGEST_SHARE,
    largest_least: int = LARGEST_LEAST,
) -> Clusters:
    """Which of `count` images belong together, by verified pairs; weak links of chains are left out.

    Only pairs called certain or likely join. Where following every link would make a cluster of more than
    `largest_share` of the images (but at least `largest_least`), the strongest links are followed first and
    a likely link that would pass the limit is left out; certain links always hold, and it is said so.
    """
    links = sorted(
        (pair for pair in pairs if pair.band != "look"),
        key=lambda pair: (-pair.score, pair.first, pair.second),
    )
    limit = max(largest_least, int(largest_share * count))
    free = _Forest(count)
    for link in links:
        free.join(link.first, link.second)
    too_large = {root for root in range(count) if free.parent[root] == root and free.size[root] > limit}
    if not too_large:
        return Clusters(free.labels(), (), ())
    return _guarded(count, links, free, too_large, limit)


def _guarded(
    count: int, links: Sequence[PairIndices], free: _Forest, too_large: set[int], limit: int
) -> Clusters:
    forest = _Forest(count)
    for link in links:
        if link.band == "certain" or free.root(link.first) not in too_large:
            forest.join(link.first, link.second)
    for link in links:  # strongest first
        if forest.size[forest.root(link.first)] + forest.size[forest.root(link.second)] <= limit:
            forest.join(link.first, link.second)
    broken = tuple(link for link in links if forest.root(link.first) != forest.root(link.second))
    notes = tuple(_note(root, free, forest, broken, limit) for root in sorted(too_large))
    return Clusters(forest.labels(), notes, broken)


def _note(root: int, free: _Forest, forest: _Forest, broken: Sequence[PairIndices], limit: int) -> str:
    members = [i for i in range(len(free.parent)) if free.root(i) == root]
    sizes = sorted((forest.size[r] for r in {forest.root(i) for i in members}), reverse=True)
    cut = sum(free.root(link.first) == root for link in broken)
    what = f"a chain of {len(members)} images that look alike is more than {limit} images"
    if not cut:
        return f"{what}; all its links are certain, so it stays together"
    return f"{what}; {cut} of its weakest links were not followed, its largest part has {sizes[0]} images"


class _Forest:
    """Union-find by size, with path halving."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))
        self.size = [1] * count

    def root(self, item: int) -> int:
        parent = self.parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, first: int, second: int) -> None:
        first, second = self.root(first), self.root(second)
        if first == second:
            return
        if self.size[first] < self.size[second]:
            first, second = second, first
        self.parent[second] = first
        self.size[first] += self.size[second]

    def labels(self) -> NDArray[np.int64]:
        """(n,) numbers from 0 in order of first appearance."""
        roots = np.array([self.root(item) for item in range(len(self.parent))], np.int64)
        _, first, inverse = np.unique(roots, return_index=True, return_inverse=True)
        number = np.empty(len(first), np.int64)
        number[np.argsort(first)] = np.arange(len(first))
        labels: NDArray[np.int64] = number[inverse]
        return labels
