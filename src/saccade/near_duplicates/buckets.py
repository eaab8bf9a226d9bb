"""The search for near-duplicates among more images than fit in memory.

Pictures are put into buckets by k-means over the COARSE_LENGTH directions in which their grids vary most, and
come in the order of their buckets: like pictures lie beside each other on disk. Each view is compared exactly
with the pictures of its PROBES nearest buckets. What that proposes is written to disk by image and selected
there, so memory grows by some dozen bytes an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.candidates import (
    BANDS,
    BUDGETS,
    FEWEST_PAIRS,
    SURE_COSINE,
    Budget,
    Candidates,
    best_of_pairs,
    kind_of,
)
from saccade.near_duplicates.descriptors import Floats, Variants, in_batches, symmetry_list, unit
from saccade.near_duplicates.registration import COARSE_SIDE, Fits, Run, starting_fits
from saccade.near_duplicates.spill import Selection, Spill
from saccade.near_duplicates.stored import chosen_rows, let_go, rows_of, stored_array
from saccade.near_duplicates.stored_pictures import READ_AT_ONCE, picked
from saccade.near_duplicates.verify import Verifier, calibrated_verifier
from saccade.near_duplicates.views import (
    WHITENED_LENGTH,
    all_views,
    fit_whitening,
    view_vectors,
    whole_grids,
)

COARSE_LENGTH = 16  # numbers of a vector that choose its bucket: the others differ more between copies
IN_BUCKET = 500  # pictures
SAMPLE_PER_BUCKET = 48  # pictures that a bucket is placed by
PROBES = 16  # buckets that a view is compared with
BLOCK, COMPARED = 8192, 2048  # views compared at once, with so many pictures
BLOCKS = 8  # by all threads, before what they propose goes to disk
PAIRS_AT_ONCE = 65_536  # registered
STEPS = 4096  # of cosine, in which a budget is kept


# -- buckets ---------------------------------------------------------------------------------------------


Wanted = Callable[[NDArray[np.int32], NDArray[np.int32]], NDArray[np.bool_]]  # pictures found, those that ask


@dataclass(frozen=True)
class Buckets:
    """Vectors (m, length) in the order of their buckets: `rows` names their pictures, `starts` (k + 1,) where
    each bucket begins, `index` holds the k centroids."""

    index: Any
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    vectors: NDArray[np.float16]

    def proposed(
        self,
        queries: Floats,
        viewed: NDArray[np.int32],
        view: int,
        budget: Budget,
        wanted: Wanted | None = None,
    ) -> Candidates:
        """The nearest to each query (b, length) in its PROBES nearest buckets; `viewed` (b,): their pictures.

        Only such as are `wanted`, if that is given.
        """
        probes = min(PROBES, len(self.starts) - 1)
        near = _nearest_buckets(self.index, queries, probes)
        order = np.argsort(near.ravel(), kind="stable")
        buckets, begins = np.unique(near.ravel()[order], return_index=True)
        found = []
        asked = np.split(order // probes, begins[1:])
        for bucket, asking in zip(buckets.tolist(), asked, strict=True):
            begin, end = self.starts[bucket : bucket + 2].tolist()
            for first in range(begin, end, COMPARED):
                held = np.arange(first, min(first + COMPARED, end))
                cosines = queries[asking] @ rows_of(self.vectors, held).astype(np.float32).T
                if wanted is not None:
                    cosines[~wanted(self.rows[held], viewed[asking, None])] = -1
                query, place = _highest(cosines, budget)
                found.append((asking[query], self.rows[held][place], cosines[query, place]))
        query, like, cosine = (np.concatenate(column) for column in zip(*found, strict=True))
        other = like != viewed[query]
        query, like, cosine = query[other], like[other], cosine[other]
        rows = _of_rank(query, like, cosine, budget)
        like, viewed = like[rows], viewed[query[rows]]
        return Candidates(like, viewed, np.full(len(like), view, np.int16), cosine[rows])


def _highest(cosines: Floats, budget: Budget) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the cosines above the floor; of many no more of each row than any rank allows."""
    places = np.flatnonzero(cosines >= budget.floor)  # an eighth of the time of nonzero
    for most, enough in ((budget.rank, SURE_COSINE), (budget.sure_rank, 1.0)):
        if len(places) > (most + 1) * len(cosines):  # one more: the picture itself
            least = np.partition(cosines, -most - 1, axis=1)[:, -most - 1, None]
            places = np.flatnonzero(cosines >= np.clip(least, budget.floor, enough))
    return np.divmod(places, cosines.shape[1])


def _of_rank(
    query: NDArray[Any], like: NDArray[Any], cosine: NDArray[np.float32], budget: Budget
) -> NDArray[np.intp]:
    """Rows of what the budget's ranks leave of each query."""
    order = np.lexsort((like, -cosine, query))
    place = np.arange(len(order))
    first = np.ones(len(order), bool)
    first[1:] = query[order][1:] != query[order][:-1]
    rank = place - np.maximum.accumulate(np.where(first, place, 0))
    sure = (rank < budget.sure_rank) & (cosine[order] >= SURE_COSINE)
    return order[(rank < budget.rank) | sure]


def _coarse(vectors: NDArray[np.floating[Any]]) -> Floats:
    return unit(vectors[:, :COARSE_LENGTH].astype(np.float32))


def _nearest_buckets(index: Any, vectors: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
    """(n, count) buckets; by one thread, whose number might change a rounding."""
    import faiss

    faiss.omp_set_num_threads(1)
    found: NDArray[np.int64] = index.search(_coarse(vectors), count)[1]
    return found


def _trained(sample: Floats, pictures: int) -> Any:
    """A faiss index over the centroids for so many pictures, from what is coarse of some of them."""
    import faiss

    count = max(1, pictures // IN_BUCKET)
    faiss.omp_set_num_threads(1)
    clustering = faiss.Kmeans(
        COARSE_LENGTH,
        count,
        niter=8,
        seed=1,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE_PER_BUCKET,
    )
    clustering.train(sample)
    return clustering.index


def _ordered(home: NDArray[np.int32], index: Any) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows in the order of their buckets, and where each bucket begins."""
    sizes = np.bincount(home, minlength=index.ntotal)
    order = np.argsort(home, kind="stable").astype(np.int32)
    return order, np.concatenate([[0], np.cumsum(sizes)])


def in_buckets(vectors: NDArray[np.float16], run: Run) -> Buckets:
    """Vectors (m, length) on disk, copied there in the order of their buckets."""
    count = len(vectors)
    everything = chosen_rows([vectors], np.arange(count))
    index = _trained(_coarse(everything[:: IN_BUCKET // SAMPLE_PER_BUCKET]), count)
    home = np.empty(count, np.int32)

    def assign(rows: slice) -> None:
        home[rows] = _nearest_buckets(index, everything[rows], 1)[:, 0]

    run(assign, list(in_batches(count, BLOCK)))
    order, starts = _ordered(home, index)
    ordered = stored_array(vectors.shape, np.float16)
    for rows in in_batches(count, READ_AT_ONCE):
        ordered[rows] = chosen_rows([vectors], order)[rows]
        let_go(ordered)
    return Buckets(index, starts, order, ordered)


# -- search ----------------------------------------------------------------------------------------------


class StoredSearch:
    """Candidates among pictures on disk. `among`: the pictures in the order of their buckets; as
    `CandidateSearch` otherwise, but for a few images at a time."""

    def __init__(
        self, pictures: Variants, symmetries: int, run: Run, *, new: NDArray[np.bool_] | None = None
    ) -> None:
        self.views, self._run = all_views(symmetry_list(symmetries)), run
        count, whiten = len(pictures), fit_whitening(pictures.thumbnails)
        some = picked(pictures, np.arange(count)[:: IN_BUCKET // SAMPLE_PER_BUCKET]).thumbnails
        batches = in_batches(len(some), READ_AT_ONCE)
        sample = np.concatenate([_coarse(whiten(whole_grids(some[rows]))) for rows in batches])
        index = _trained(sample, count)
        home = np.empty(count, np.int32)

        def assign(rows: slice) -> None:
            grids = whole_grids(pictures.thumbnails[rows])
            home[rows] = _nearest_buckets(index, whiten(grids), 1)[:, 0]

        run(assign, list(in_batches(count, 1024)))
        order, starts = _ordered(home, index)
        self.among = picked(pictures, order)
        self._new = None if new is None else new[self.among.image]
        self._vectors = [stored_array((count, WHITENED_LENGTH), np.float16) for _ in self.views]
        for rows in in_batches(count, READ_AT_ONCE):
            made = view_vectors(self.among.thumbnails[rows], self.views, whiten, run)
            for vectors, some in zip(self._vectors, made, strict=True):
                vectors[rows] = some
            let_go(*self._vectors)
        self._wholes = Buckets(index, starts, np.arange(count, dtype=np.int32), self._vectors[0])

    def find(self, kind: str) -> Selection:
        """Those of one kind, "whole", "quadrant" or "band", each pair once for each symmetry."""
        budget, spill = BUDGETS[kind], Spill(len(self.among))
        for database in ("whole",) if kind != "band" else BANDS:
            buckets = self._wholes if database == "whole" else self._of_band(database)
            for number, view in enumerate(self.views):
                if kind_of(view) == kind and view.looks_like == database:
                    self._search(buckets, number, budget, spill)
        return self._selected(spill, budget)

    def _selected(self, spill: Spill, budget: Budget) -> Selection:
        """Each pair once for each symmetry, and the cosine from which the budget allows them."""
        kinds = list(dict.fromkeys(view.symmetry for view in self.views))
        symmetry = np.array([kinds.index(view.symmetry) for view in self.views])
        counted, sure, count = np.zeros(STEPS, np.int64), 0, len(self.among)
        for part in range(spill.parts):
            some = spill.read(part)
            best = best_of_pairs(some.like, some.viewed, symmetry[some.view], some.cosine, count, len(some))
            spill.rewrite(part, some[best])
            cosine = some.cosine[best]
            sure += int((cosine >= SURE_COSINE).sum())
            counted += np.histogram(cosine[cosine < SURE_COSINE], STEPS, (budget.floor, SURE_COSINE))[0]
        asking = count if self._new is None else int(self._new.sum())
        allowed = int(max(budget.pairs_per_image * asking, FEWEST_PAIRS)) * len(kinds)
        least = _least_cosine(counted, budget, allowed)
        return Selection(spill, least, sure + min(allowed, int(counted.sum())))

    def _of_band(self, band: str) -> Buckets:
        number = next(i for i, view in enumerate(self.views) if view.part == band)
        return in_buckets(self._vectors[number], self._run)

    def _search(self, buckets: Buckets, view: int, budget: Budget, spill: Spill) -> None:
        new, everything = self._new, np.arange(len(self.among), dtype=np.int32)
        wanted = None if new is None else lambda like, viewed: new[like] | new[viewed]
        found = nearest_in_buckets(buckets, self._vectors[view], everything, view, budget, self._run, wanted)
        for some in found:
            spill.add(some)


def nearest_in_buckets(
    buckets: Buckets,
    vectors: NDArray[np.float16],
    asking: NDArray[np.int32],
    view: int,
    budget: Budget,
    run: Run,
    wanted: Wanted | None = None,
) -> Iterator[Candidates]:
    """What each of the pictures `asking` is proposed for its view, a BLOCK of them at a time.

    Views in the same bucket ask together, so that a block reads few buckets.
    """
    found: dict[int, Candidates] = {}
    home = np.empty(len(asking), np.int32)

    def assign(rows: slice) -> None:
        home[rows] = _nearest_buckets(buckets.index, rows_of(vectors, asking[rows]), 1)[:, 0]

    run(assign, list(in_batches(len(asking), BLOCK)))
    asking = asking[np.argsort(home, kind="stable")]

    def work(rows: slice) -> None:
        viewed = asking[rows]
        queries = rows_of(vectors, viewed).astype(np.float32)
        found[rows.start] = buckets.proposed(queries, viewed, view, budget, wanted)

    slices = list(in_batches(len(asking), BLOCK))
    for some in in_batches(len(slices), BLOCKS):
        run(work, slices[some])
        yield from (found.pop(rows.start) for rows in slices[some])


def _least_cosine(counted: NDArray[np.int64], budget: Budget, allowed: int) -> float:
    """The cosine from which no more than `allowed` pairs come, counted in steps from the floor up to sure."""
    above = np.cumsum(counted[::-1])[::-1]
    edges = np.linspace(budget.floor, SURE_COSINE, STEPS + 1)
    return float(edges[int((above > allowed).sum())])


# -- verification ----------------------------------------------------------------------------------------


def stored_verifier(pictures: Variants, run: Run) -> InBatches:
    """The verifier of pictures on disk, its blurred ones on disk, too."""
    blurred = stored_array((len(pictures), COARSE_SIDE, COARSE_SIDE), np.uint8)
    return InBatches(calibrated_verifier(pictures, run, blurred=blurred))


@dataclass(frozen=True)
class InBatches:
    """A verifier that brings into memory only what it needs for some pairs at a time."""

    whole: Verifier

    def verify(self, fits: Fits) -> tuple[Fits, Floats]:
        return self._each(fits, Verifier.verify)

    def verify_both_ways(self, fits: Fits) -> tuple[Fits, Floats]:
        return self._each(fits, Verifier.verify_both_ways)

    def verify_unmoved(self, fits: Fits) -> tuple[Fits, Floats]:
        return self._each(fits, Verifier.verify_unmoved)

    def _each(self, fits: Fits, work: Callable[[Verifier, Fits], tuple[Fits, Floats]]) -> tuple[Fits, Floats]:
        found = []
        for some in in_batches(len(fits), PAIRS_AT_ONCE):
            pairs = np.stack([fits.template[some], fits.other[some]])
            rows, (template, other) = np.unique(pairs, return_inverse=True)
            few = replace(fits[some], template=template.astype(np.int32), other=other.astype(np.int32))
            fitted, correlation = work(self.whole.few(rows), few)
            back = replace(fitted, template=rows[fitted.template], other=rows[fitted.other])
            found.append((*back.columns, correlation))
        if not found:
            return fits, np.zeros(0, np.float32)
        *columns, correlation = (np.concatenate(column) for column in zip(*found, strict=True))
        return Fits(*columns), correlation


def planted_fits(search: StoredSearch, images: int, originals: NDArray[np.int64]) -> Fits:
    """Each planted copy with its original, in every view and both ways."""
    among, views = search.among, len(search.views)
    whole = np.flatnonzero(~among.trimmed)
    row = np.full(images + len(originals), -1)
    row[among.image[whole]] = whole
    first, second = row[originals], row[images:]
    known = (first >= 0) & (second >= 0)
    pair = np.concatenate([np.stack([first, second])[:, known], np.stack([second, first])[:, known]], axis=1)
    like, viewed = np.repeat(pair.astype(np.int32), views, axis=1)
    view = np.tile(np.arange(views, dtype=np.int16), pair.shape[1])
    return starting_fits(Candidates(like, viewed, view, np.ones(len(like), np.float32)), search.views)
