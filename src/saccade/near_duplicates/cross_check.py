"""Cross-check of a split: a second search across its parts, with another descriptor than the first.

Candidates come from the low frequencies of the discrete cosine transform (as in perceptual hashes, as numbers
instead of bits). The same registration verifies them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.buckets import (
    Buckets,
    InBatches,
    in_buckets,
    nearest_in_buckets,
    stored_verifier,
)
from saccade.near_duplicates.candidates import (
    CODED_SAMPLE,
    COMPRESSED_FROM,
    Budget,
    Candidates,
    View,
    no_candidates,
    reranked,
)
from saccade.near_duplicates.descriptors import (
    GRID_SIDE,
    Descriptions,
    Floats,
    Symmetry,
    in_batches,
    shrink,
    symmetry_list,
    unit,
)
from saccade.near_duplicates.pairs import (
    PairIndices,
    Verified,
    best_of_each,
    in_words,
    joined,
    need_faiss,
    pictures_to_compare,
    running,
    unique_pairs,
)
from saccade.near_duplicates.registration import Run, starting_fits
from saccade.near_duplicates.scene import find_scenes
from saccade.near_duplicates.stored import fit_in_memory, let_go, stored_array
from saccade.near_duplicates.stored_pictures import BLANK_LEVELS, READ_AT_ONCE, stored_pictures
from saccade.near_duplicates.verify import Verifier, calibrated_verifier
from saccade.terminal import Progress, silent

DESCRIPTOR = "cosine transform, 12 x 12 lowest frequencies"
FREQUENCIES = 12
NEIGHBOURS = 4
SMALLEST_COSINE = 0.6
QUERY_BATCH = 8192
RERANKED = 8.0  # times the neighbours asked for are found by codes and put in order exactly


@dataclass(frozen=True)
class CrossCheck:
    """`verified` pairs across parts, `unresolved` ones that registration neither confirmed nor refuted.

    `compared` counts the pairs that were registered; `descriptor` says what they were found by.
    """

    verified: tuple[PairIndices, ...]
    unresolved: tuple[PairIndices, ...]
    compared: int
    descriptor: str = DESCRIPTOR


def cross_check(
    descriptions: Descriptions,
    parts: Sequence[str],
    *,
    ignored: Collection[tuple[int, int]] = (),
    symmetries: int = 2,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CrossCheck:
    """Near-duplicates that stand in two parts; `parts` names the part of each image, "" for none.

    `ignored` holds pairs (first < second) that are known or decided about. Of two parts the smaller one asks.
    Raises MissingExtraError without faiss.
    """
    checker = CrossChecker(descriptions, symmetries=symmetries, workers=workers)
    return checker(parts, ignored=ignored, progress=progress)


class CrossChecker:
    """`cross_check` for a split that is made several times: what the pictures alone decide is found once.

    In large data sets (LARGE_FROM) a pair is registered once, too, in however many splits it stands apart.
    """

    def __init__(
        self, descriptions: Descriptions, *, symmetries: int = 2, workers: int | None = None
    ) -> None:
        need_faiss()
        self._workers = workers
        self._views = [View("whole", symmetry) for symmetry in symmetry_list(symmetries)]
        self._vectors: list[NDArray[Any]] = []
        self._verifier: Verifier | InBatches | None = None
        self._registered = np.zeros(0, np.int64)
        self._found = Verified(starting_fits(no_candidates(), self._views), np.zeros(0, np.float32))
        self._stored = not fit_in_memory(len(descriptions))
        self._buckets: Buckets | None = None
        if self._stored:
            self._among = stored_pictures(descriptions, planting=False).among
            return
        among, _ = pictures_to_compare(descriptions, equal_once=False)
        with running(workers) as run:
            self._among = find_scenes(among, run, symmetries=symmetries).rest

    def __call__(
        self,
        parts: Sequence[str],
        *,
        ignored: Collection[tuple[int, int]] = (),
        progress: Progress | None = None,
    ) -> CrossCheck:
        """As `cross_check`."""
        progress, among = progress or silent, self._among
        if len(among) < 2:
            return CrossCheck((), (), 0)
        part = np.asarray(parts, dtype=str)[among.image]
        with running(self._workers) as run:
            candidates = self._across(part, run)
            progress(1, 2, f"verifying {len(candidates)} pairs")
            found = self._verified(candidates, part, run)
        known = set(ignored)
        pairs = unique_pairs(in_words(among, best_of_each(found, among.image)))
        pairs = [pair for pair in pairs if (pair.first, pair.second) not in known]
        progress(2, 2, "done")
        return CrossCheck(
            tuple(pair for pair in pairs if pair.band != "look"),
            tuple(pair for pair in pairs if pair.band == "look"),
            len(candidates),
        )

    def _across(self, part: NDArray[np.str_], run: Run) -> Candidates:
        """What stands in two parts and is alike; the vectors that show it are made in the first call."""
        of = _stored_vectors if self._stored else _cosine_vectors
        self._vectors = self._vectors or [
            of(self._among.thumbnails, view.symmetry, run) for view in self._views
        ]
        if not self._stored:
            return _across(self._vectors, part)
        self._buckets = self._buckets or in_buckets(self._vectors[0], run)
        return _across_stored(self._buckets, self._vectors, part, run)

    def _verified(self, candidates: Candidates, part: NDArray[np.str_], run: Run) -> Verified:
        """What registration makes of the candidates, and of those of earlier calls that stand apart now."""
        if self._verifier is None:
            made = stored_verifier if self._stored else calibrated_verifier
            self._verifier = made(self._among, run)
        verifier = self._verifier
        whole = verifier.whole if isinstance(verifier, InBatches) else verifier
        whole.run = run  # the threads of an earlier call are gone
        keys = (candidates.like.astype(np.int64) * len(part) + candidates.viewed) * len(self._views)
        keys += candidates.view
        new = ~np.isin(keys, self._registered)
        fits = starting_fits(candidates[new], self._views)
        found = joined(Verified(*verifier.verify(fits)), Verified(*verifier.verify_unmoved(fits)))
        if not whole.large:
            return found
        self._registered = np.concatenate([self._registered, keys[new]])
        self._found = found = joined(self._found, found)
        first, second = part[found.fits.template], part[found.fits.other]
        return found[np.flatnonzero((first != second) & (first != "") & (second != ""))]


def _cosine_vectors(thumbnails: NDArray[np.uint8], symmetry: Symmetry, run: Run) -> Floats:
    """(n, 143) unit vectors: signed square roots of the lowest frequencies without the mean; 0 for blank."""
    position = np.arange(GRID_SIDE) + 0.5
    basis = np.cos(np.pi / GRID_SIDE * np.arange(FREQUENCIES)[:, None] * position).astype(np.float32)
    vectors = np.empty((len(thumbnails), FREQUENCIES**2 - 1), np.float32)

    def work(rows: slice) -> None:
        gray = symmetry.images(shrink(thumbnails[rows], GRID_SIDE))
        waves = np.matmul(basis, np.matmul(gray, basis.T)).reshape(len(gray), -1)[:, 1:]
        vectors[rows] = unit(np.sign(waves) * np.sqrt(np.abs(waves)))
        vectors[rows][gray.std(axis=(1, 2)) < BLANK_LEVELS] = 0

    run(work, list(in_batches(len(thumbnails), 1024)))
    return vectors


def _across(asked: Sequence[Floats], part: NDArray[np.str_]) -> Candidates:
    """The nearest images in another part, for every image of the smaller of two parts, in every view.

    `asked` holds the vectors of each view, those of the pictures as they are first.
    """
    names = sorted(set(part.tolist()) - {""}, key=lambda name: ((part == name).sum(), name))
    indexes: dict[str, Any] = {}
    found = [no_candidates()]
    for smaller, larger in combinations(names, 2):
        queries, among = np.flatnonzero(part == smaller), np.flatnonzero(part == larger)
        if larger not in indexes:
            indexes[larger] = _index(asked[0][among])
        index = indexes[larger]
        for number, vectors in enumerate(asked):
            for rows in in_batches(len(queries), QUERY_BATCH):
                asking = _padded(vectors[queries[rows]], index.d)
                cosine, neighbour = index.search(asking, min(NEIGHBOURS, len(among)))
                query, column = np.nonzero(cosine >= SMALLEST_COSINE)
                found.append(
                    Candidates(
                        among[neighbour[query, column]].astype(np.int32),
                        queries[rows][query].astype(np.int32),
                        np.full(len(query), number, np.int16),
                        cosine[query, column],
                    )
                )
    return Candidates.concatenate(found)


def _stored_vectors(thumbnails: NDArray[np.uint8], symmetry: Symmetry, run: Run) -> NDArray[np.float16]:
    """`_cosine_vectors` on disk, the lowest frequencies first: these choose the buckets."""
    rate = np.arange(FREQUENCIES)
    order = np.argsort((rate[:, None] ** 2 + rate**2).ravel()[1:], kind="stable")
    vectors = stored_array((len(thumbnails), len(order)), np.float16)
    for rows in in_batches(len(thumbnails), READ_AT_ONCE):
        vectors[rows] = _cosine_vectors(thumbnails[rows], symmetry, run)[:, order]
        let_go(vectors)
    return vectors


def _across_stored(
    buckets: Buckets, asked: Sequence[NDArray[np.float16]], part: NDArray[np.str_], run: Run
) -> Candidates:
    """Like `_across`, in the nearest buckets; an image asks about those of all larger parts."""
    names, number, sizes = np.unique(part, return_inverse=True, return_counts=True)
    place = np.where(names == "", -1, np.argsort(np.argsort(sizes)))[number]
    asking = np.flatnonzero((place >= 0) & (place < place.max())).astype(np.int32)
    most = NEIGHBOURS * (len(names) - 1)
    budget = Budget(most, most, SMALLEST_COSINE, 0)

    def wanted(like: NDArray[np.int32], viewed: NDArray[np.int32]) -> NDArray[np.bool_]:
        across: NDArray[np.bool_] = place[like] > place[viewed]
        return across

    found = [no_candidates()]
    for view, vectors in enumerate(asked):
        found += nearest_in_buckets(buckets, vectors, asking, view, budget, run, wanted)
    return Candidates.concatenate(found)


def _index(vectors: Floats) -> Any:
    """A faiss index by inner product over (n, 143): exact, of many through codes of pairs of numbers."""
    import faiss

    count, length = vectors.shape
    if count < COMPRESSED_FROM:
        exact = faiss.IndexFlatIP(length)
        exact.add(vectors)
        return exact
    vectors = _padded(vectors, length + length % 2)
    codes = faiss.IndexPQFastScan(vectors.shape[1], vectors.shape[1] // 2, 4, faiss.METRIC_INNER_PRODUCT)
    codes.train(vectors[:: max(1, count // CODED_SAMPLE)])
    codes.add(vectors)
    return reranked(codes, vectors, times=RERANKED)


def _padded(vectors: Floats, length: int) -> Floats:
    """With zeros behind, which change no product."""
    return np.pad(vectors, ((0, 0), (0, length - vectors.shape[1])))
