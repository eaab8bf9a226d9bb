"""A second search, across the parts of a split, with another descriptor than the one that made the clusters.

Candidates come from the low frequencies of the discrete cosine transform (as in perceptual hashes, kept as
numbers instead of bits); whether they are pairs is decided by the same registration.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from saccade.data.similarity.calibration import calibrated_verifier
from saccade.data.similarity.candidates import Candidates, no_candidates
from saccade.data.similarity.clusters import PairIndices
from saccade.data.similarity.descriptors import (
    GRID_SIDE,
    Descriptions,
    Floats,
    Symmetry,
    in_batches,
    shrink,
    symmetry_list,
    unit,
)
from saccade.data.similarity.pairs import (
    BLANK_LEVELS,
    Verified,
    best_of_each,
    in_words,
    joined,
    need_faiss,
    pictures_to_compare,
    running,
    unique_pairs,
)
from saccade.data.similarity.verify import Run, starting_fits
from saccade.data.similarity.views import View
from saccade.terminal import Progress, silent

DESCRIPTOR = "cosine transform, 12 x 12 lowest frequencies"
FREQUENCIES = 12
NEIGHBOURS = 4
SMALLEST_COSINE = 0.6
QUERY_BATCH = 8192


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
    assert len(parts) == len(descriptions), f"{len(parts)} parts for {len(descriptions)} images"
    need_faiss()
    progress = progress or silent
    among, _ = pictures_to_compare(descriptions, equal_once=False)
    if len(among) < 2:
        return CrossCheck((), (), 0)
    part = np.asarray(parts, dtype=str)[among.image]
    views = [View("whole", symmetry) for symmetry in symmetry_list(symmetries)]
    with running(workers) as run:
        candidates = _across(among.thumbnails, part, views, run)
        progress(1, 2, f"verifying {len(candidates)} pairs")
        verifier = calibrated_verifier(among, run)
        fits = starting_fits(candidates, views)
        found = joined(Verified(*verifier.verify(fits)), Verified(*verifier.verify_unmoved(fits)))
    found = best_of_each(found, among.image)
    known = set(ignored)
    pairs = [pair for pair in unique_pairs(in_words(among, found)) if (pair.first, pair.second) not in known]
    progress(2, 2, "done")
    return CrossCheck(
        tuple(pair for pair in pairs if pair.band != "look"),
        tuple(pair for pair in pairs if pair.band == "look"),
        len(candidates),
    )


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


def _across(
    thumbnails: NDArray[np.uint8], part: NDArray[np.str_], views: Sequence[View], run: Run
) -> Candidates:
    """The nearest images in another part, for every image of the smaller of two parts, in every view."""
    import faiss

    names = sorted(set(part.tolist()) - {""}, key=lambda name: ((part == name).sum(), name))
    asked = [_cosine_vectors(thumbnails, view.symmetry, run) for view in views]
    found = [no_candidates()]
    for smaller, larger in combinations(names, 2):
        queries, among = np.flatnonzero(part == smaller), np.flatnonzero(part == larger)
        index = faiss.IndexFlatIP(asked[0].shape[1])
        index.add(asked[0][among])
        for number, vectors in enumerate(asked):
            for rows in in_batches(len(queries), QUERY_BATCH):
                cosine, neighbour = index.search(vectors[queries[rows]], min(NEIGHBOURS, len(among)))
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
