"""Candidate pairs for registration: nearest neighbours among the whitened views, found with faiss.

Rank and cosine select them. The required cosine rises until the number of pairs fits a budget proportional to
the number of images, so the cost of verification stays linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.descriptors import Floats, Symmetry, in_batches

EXACT_IMAGES = 300_000  # up to here every picture is compared with every other, beyond through inverted lists
COMPRESSED_FROM = 20_000  # from here the search goes through 4-bit codes, and orders exactly what they find
LIST_IMAGES = 512  # images an inverted list has on average
SAMPLE_PER_LIST = 32  # images that a list is placed by
PROBES = 192  # lists that are searched for each image
QUERY_BATCH = 16_384
CODED_SAMPLE = 16_384  # vectors that codes are fitted to, or somewhat more
RERANKED = 4.0  # times the neighbours asked for are found by compressed codes and put in order exactly
NEAR_WHOLES = 100  # pictures near a whole one that bands are compared among: all that its search looks at
NEAR_BATCH = 1024
FEWEST_PAIRS = 5000  # that every budget allows: small data sets are searched more closely
SURE_COSINE = 0.75  # neighbours at least so close are taken up to the larger rank


CROP_SHARE = 0.8  # of the side that each crop of a quadrant keeps


QUADRANT_CROPS = {  # which of the nine crops, row by row, a quadrant view is the mean of
    "top left": (0, 1, 3, 4),
    "top right": (1, 2, 4, 5),
    "bottom left": (3, 4, 6, 7),
    "bottom right": (4, 5, 7, 8),
}


_QUADRANT_SIGNS = {"top left": (-1, -1), "top right": (-1, 1), "bottom left": (1, -1), "bottom right": (1, 1)}


BANDS = ("upper", "lower")


@dataclass(frozen=True)
class View:
    """One way to look at an image: its `part` ("whole", a quadrant, a band), changed by `symmetry`."""

    part: str
    symmetry: Symmetry

    @property
    def start(self) -> Floats:
        """(2, 3): from the picture that this view looks like into the viewed one; both span -1..1."""
        linear, shift = self.symmetry.matrix, np.zeros((2, 1), np.float32)
        if self.part in _QUADRANT_SIGNS:
            scale = (1 + CROP_SHARE) / 2  # what a quadrant resembles lies between 80 % and the whole
            sign_y, sign_x = _QUADRANT_SIGNS[self.part]
            linear, shift = scale * linear, (1 - scale) * np.array([[sign_x], [sign_y]], np.float32)
        return np.concatenate([linear, shift], axis=1, dtype=np.float32)

    @property
    def looks_like(self) -> str:
        """The part of other pictures that this view is compared with."""
        return self.part if self.part in BANDS else "whole"


@dataclass(frozen=True)
class Budget:
    """What is taken from the search with one kind of view: the `rank` nearest, `sure_rank` of the very near,
    none below the cosine `floor`, and of those that are not very near `pairs_per_image` in all."""

    rank: int
    sure_rank: int
    floor: float
    pairs_per_image: float


BUDGETS = {
    "whole": Budget(rank=10, sure_rank=24, floor=0.35, pairs_per_image=3.0),
    "quadrant": Budget(rank=3, sure_rank=8, floor=0.5, pairs_per_image=3.0),
    "band": Budget(rank=4, sure_rank=12, floor=0.6, pairs_per_image=1.5),
}


def kind_of(view: View) -> str:
    return "whole" if view.part == "whole" else "band" if view.part in BANDS else "quadrant"


@dataclass(frozen=True)
class Candidates:
    """Pairs to verify: image `viewed` in the view numbered `view` looks like image `like`; arrays (m,)."""

    like: NDArray[np.int32]
    viewed: NDArray[np.int32]
    view: NDArray[np.int16]
    cosine: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.like)

    def __getitem__(self, rows: Any) -> Candidates:
        return Candidates(self.like[rows], self.viewed[rows], self.view[rows], self.cosine[rows])

    @classmethod
    def concatenate(cls, parts: Sequence[Candidates]) -> Candidates:
        columns = zip(*((p.like, p.viewed, p.view, p.cosine) for p in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


def no_candidates() -> Candidates:
    nothing = np.zeros(0, np.int32)
    return Candidates(nothing, nothing, np.zeros(0, np.int16), np.zeros(0, np.float32))


class CandidateSearch:
    """Pairs that look alike in the views of one kind after the other; `vectors` (views, n, 64) as in
    `view_vectors`.

    With `new` (n,) only pairs with at least one new image are looked for. From COMPRESSED_FROM images on,
    bands are compared among what the search with whole pictures, if made before, found near to each.
    """

    def __init__(
        self, vectors: NDArray[np.float16], views: Sequence[View], *, new: NDArray[np.bool_] | None = None
    ) -> None:
        self._vectors, self._views, self._new = vectors, views, new
        self._near: NDArray[np.int64] | None = None  # (n, NEAR_WHOLES), -1 for none

    def find(self, kind: str) -> Candidates:
        """Those of one kind, "whole", "quadrant" or "band"."""
        budget, count = BUDGETS[kind], self._vectors.shape[1]
        found = [no_candidates()]
        for database in ("whole",) if kind != "band" else BANDS:
            numbers = [
                i for i, v in enumerate(self._views) if kind_of(v) == kind and v.looks_like == database
            ]
            if kind == "band" and self._near is not None:
                found += [_nearest_among(self._near, self._vectors[i], i, budget) for i in numbers]
                continue
            row = self._number(database)
            for asked, among in halves(count, self._new):
                index = reranked_index(self._vectors[row, among])
                found += [self._nearest(index, asked, among, i, kind) for i in numbers]
        asking = count if self._new is None else int(self._new.sum())
        every = Candidates.concatenate(found)
        # each pair once for each symmetry, by its best cosine, and only as many as the budget allows
        kinds = list(dict.fromkeys(view.symmetry for view in self._views))
        symmetry = np.array([kinds.index(view.symmetry) for view in self._views])[every.view]
        allowed = int(max(budget.pairs_per_image * asking, FEWEST_PAIRS)) * len(kinds)
        return every[best_of_pairs(every.like, every.viewed, symmetry, every.cosine, count, allowed)]

    def _number(self, part: str) -> int:
        """Of the view of a part of the pictures as they are."""
        upright = self._views[0].symmetry
        return next(i for i, v in enumerate(self._views) if v.part == part and v.symmetry == upright)

    def _nearest(
        self, index: Any, asked: NDArray[np.int64], among: NDArray[np.int64], view: int, kind: str
    ) -> Candidates:
        """The pairs that the search in one view proposes."""
        import faiss

        budget, vectors = BUDGETS[kind], self._vectors[view]
        kept = self._new is None and view == self._number("whole") and isinstance(index, faiss.IndexRefine)
        if kept:
            self._near = np.full((len(asked), NEAR_WHOLES), -1)
        parts = [no_candidates()]
        for rows in in_batches(len(asked), QUERY_BATCH):
            queries = vectors[asked[rows]].astype(np.float32)
            if kept and self._near is not None:
                cosines, neighbours = _searched_deeper(index, queries, budget.sure_rank + 1)
                self._near[rows, : neighbours.shape[1]] = neighbours
            else:
                cosines, neighbours = index.search(queries, min(budget.sure_rank + 1, len(among)))
            cosines, neighbours = cosines[:, : budget.sure_rank + 1], neighbours[:, : budget.sure_rank + 1]
            parts.append(_close_enough(cosines, neighbours, asked[rows], among, view, budget))
        return Candidates.concatenate(parts)


def _searched_deeper(index: Any, queries: Floats, rank: int) -> tuple[Floats, NDArray[np.int64]]:
    """The NEAR_WHOLES nearest, from among as many codes as a search for `rank` of them looks at."""
    times, index.k_factor = index.k_factor, index.k_factor * rank / NEAR_WHOLES
    found: tuple[Floats, NDArray[np.int64]] = index.search(queries, NEAR_WHOLES)
    index.k_factor = times
    return found


def _nearest_among(
    near: NDArray[np.int64], vectors: NDArray[np.float16], view: int, budget: Budget
) -> Candidates:
    """The pairs that a view proposes among pictures that are near each other by other means, (n, any)."""
    parts = [no_candidates()]
    for rows in in_batches(len(near), NEAR_BATCH):
        others = vectors[near[rows]].astype(np.float32)
        cosines = np.matmul(others, vectors[rows].astype(np.float32)[:, :, None])[:, :, 0]
        cosines[near[rows] < 0] = -1
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : budget.sure_rank + 1]
        nearest = np.take_along_axis(near[rows], order, 1)
        asked, among = np.arange(rows.start, rows.stop), np.arange(len(near))
        sorted_cosines = np.take_along_axis(cosines, order, 1)
        parts.append(_close_enough(sorted_cosines, nearest, asked, among, view, budget))
    return Candidates.concatenate(parts)


def halves(count: int, new: NDArray[np.bool_] | None) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(images that ask, images asked about): all with all, or new with all and old with new."""
    everything = np.arange(count)
    if new is None:
        return [(everything, everything)]
    halves = [(np.flatnonzero(new), everything), (np.flatnonzero(~new), np.flatnonzero(new))]
    return [(asked, among) for asked, among in halves if len(asked) and len(among)]


def _close_enough(
    cosines: Floats,
    neighbours: NDArray[np.int64],
    asked: NDArray[np.int64],
    among: NDArray[np.int64],
    view: int,
    budget: Budget,
) -> Candidates:
    """What the budget's ranks and floor leave of neighbours, nearest first; an image with itself left out."""
    rank = np.arange(cosines.shape[1])
    close = (cosines >= budget.floor) & ((rank <= budget.rank) | (cosines >= SURE_COSINE))
    query, column = np.nonzero(close & (neighbours >= 0))
    like, viewed = among[neighbours[query, column]], asked[query]
    other = like != viewed
    return Candidates(
        like[other].astype(np.int32),
        viewed[other].astype(np.int32),
        np.full(other.sum(), view, np.int16),
        cosines[query, column][other],
    )


def best_of_pairs(
    like: NDArray[Any],
    viewed: NDArray[Any],
    symmetry: NDArray[Any],
    cosine: NDArray[np.float32],
    count: int,
    allowed: int,
    *,
    each: int = 1,
) -> NDArray[np.intp]:
    """Rows of the `each` best cosines of every pair of `count` images in each symmetry.

    All that are very near, and of the others the `allowed` nearest ones.
    """
    low, high = np.minimum(like, viewed).astype(np.int64), np.maximum(like, viewed)
    key = (low * count + high) * (symmetry.max(initial=0) + 1) + symmetry
    order = np.lexsort((viewed, -cosine, key))
    kept = np.ones(len(order), bool)
    kept[each:] = key[order][each:] != key[order][:-each]
    rows = order[kept]
    sure = cosine[rows] >= SURE_COSINE
    doubtful = rows[~sure]
    nearest = doubtful[np.argsort(-cosine[doubtful], kind="stable")[:allowed]]
    return np.sort(np.concatenate([rows[sure], nearest]))


def build_index(vectors: NDArray[np.float16], *, compressed: bool) -> Any:
    """A faiss index by inner product over (n, 64) unit vectors."""
    import faiss

    count, length = vectors.shape
    if count > EXACT_IMAGES:
        return inverted_lists(vectors)
    index: Any = faiss.IndexFlatIP(length)
    if compressed and count >= COMPRESSED_FROM:
        index = faiss.IndexPQFastScan(length, length // 2, 4, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[:: max(1, count // CODED_SAMPLE)].astype(np.float32))
    for rows in in_batches(count, QUERY_BATCH):
        index.add(vectors[rows].astype(np.float32))
    return index


def reranked_index(vectors: NDArray[np.float16]) -> Any:
    """A faiss index over (n, 64) unit vectors: the nearest by compressed codes, put in order exactly.

    Beyond EXACT_IMAGES inverted lists, in the order of their codes.
    """
    import faiss

    compressed = build_index(vectors, compressed=True)
    if isinstance(compressed, faiss.IndexFlatIP) or len(vectors) > EXACT_IMAGES:
        return compressed
    return reranked(compressed, vectors, times=RERANKED)


def reranked(codes: Any, vectors: NDArray[np.floating[Any]], *, times: float) -> Any:
    """A faiss index that puts in exact order what `codes` find, `times` as many as are asked for."""
    import faiss

    kind = faiss.ScalarQuantizer.QT_fp16
    exact = faiss.IndexScalarQuantizer(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    for rows in in_batches(len(vectors), QUERY_BATCH):
        exact.add(vectors[rows].astype(np.float32))
    index: Any = faiss.IndexRefine(codes, exact)
    index.k_factor = times
    index.referenced_objects = [codes, exact]  # faiss holds bare pointers
    return index


def inverted_lists(vectors: NDArray[np.float16]) -> Any:
    """A faiss index whose search visits a fixed number of lists of a fixed size: cost grows about as n."""
    import faiss

    count, length = vectors.shape
    lists = max(1, count // LIST_IMAGES)
    coarse = faiss.IndexFlatIP(length)
    index = faiss.IndexIVFPQFastScan(coarse, length, lists, length // 2, 4, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False
    index.cp.niter = 4
    index.cp.max_points_per_centroid = SAMPLE_PER_LIST
    index.cp.min_points_per_centroid = 1
    index.nprobe = PROBES
    index.train(vectors[:: max(1, count // (lists * SAMPLE_PER_LIST))].astype(np.float32))
    for rows in in_batches(count, QUERY_BATCH):
        index.add(vectors[rows].astype(np.float32))
    return index


def missed_share(
    index: Any, vectors: NDArray[np.float16], *, asked: int = 1000, cosine: float = 0.6
) -> float:
    """Share of the neighbours above `cosine` that the index misses, from `asked` exhaustive searches.

    Of the ten nearest at most, the image itself left out; 0 where there are no such neighbours.
    """
    rows = np.linspace(0, len(vectors) - 1, min(asked, len(vectors))).astype(np.int64)
    queries = vectors[rows].astype(np.float32)
    nearest = np.full((len(rows), 11), -1.0, np.float32)
    who = np.full((len(rows), 11), -1, np.int64)
    for block in in_batches(len(vectors), 2048):
        cosines = np.concatenate([nearest, queries @ vectors[block].astype(np.float32).T], axis=1)
        names = np.concatenate([who, np.tile(np.arange(block.start, block.stop), (len(rows), 1))], axis=1)
        best = np.argpartition(-cosines, 10, axis=1)[:, :11]
        nearest, who = np.take_along_axis(cosines, best, 1), np.take_along_axis(names, best, 1)
    _, found = index.search(queries, 11)
    wanted = (nearest >= cosine) & (who != rows[:, None])
    hit = (who[:, :, None] == found[:, None, :]).any(axis=2)
    return float((wanted & ~hit).sum() / max(1, wanted.sum()))
