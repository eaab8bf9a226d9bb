"""A closer search for small data sets: 25 patches of every image against all patches of the others.

It finds what whole pictures and quadrants hide: photos of which each shows something the other does not,
crops far from the corners, smaller crops. Its cost grows with the square of 25 n, so it is for thousands of
images, not for tens of thousands. Two patches that look alike also say how the pictures lie on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.candidates import best_of_pairs, halves, reranked_index
from saccade.near_duplicates.descriptors import (
    BINS,
    CELLS,
    GRID_LENGTH,
    THUMBNAIL_SIDE,
    Floats,
    Symmetry,
    in_batches,
    orientation_maps,
    pool,
    pooling_matrix,
    unit_grid,
)
from saccade.near_duplicates.verify import Fits, Run
from saccade.near_duplicates.views import WHITENED_LENGTH, Whitening, fit_whitening

PATCH_IMAGES = 4000  # data sets up to this size are searched by patches, too
PATCH_SHARE = 0.5  # of the side
PATCHES_A_SIDE = 5
PATCHES = PATCHES_A_SIDE**2
ASKING = np.arange(0, PATCHES, 2)  # a chequerboard: of two pictures each asks for the other
NEIGHBOURS = 8
MAPS_PER_PAIR = 3  # tried for each pair and symmetry
SMALLEST_COSINE = 0.55
MAPS_PER_IMAGE = 8.0
WHITENED_IMAGES = 200  # images at most whose patches whitening is fitted to
BATCH_IMAGES = 128


def patch_grids(thumbnails: NDArray[np.uint8]) -> Floats:
    """(n, 64, 64) to grids (n * 25, 128): the patches of an image follow each other, row by row."""
    starts = np.linspace(0, 1 - PATCH_SHARE, PATCHES_A_SIDE)
    stretches = [pooling_matrix(start, PATCH_SHARE, side=THUMBNAIL_SIDE) for start in starts]
    cells = np.concatenate(stretches)
    grids = np.empty((len(thumbnails), PATCHES, GRID_LENGTH), np.float32)
    for rows in in_batches(len(thumbnails), BATCH_IMAGES):
        pooled = pool(orientation_maps(thumbnails[rows].astype(np.float32)), cells, cells)
        blocks = pooled.reshape(-1, BINS, PATCHES_A_SIDE, CELLS, PATCHES_A_SIDE, CELLS)
        for patch in range(PATCHES):
            row, column = divmod(patch, PATCHES_A_SIDE)
            grids[rows, patch] = unit_grid(blocks[:, :, row, :, column])
    return grids.reshape(-1, GRID_LENGTH)


def patch_centres() -> Floats:
    """(25, 2): x, y of the middle of each patch, on a picture that spans -1..1."""
    middle = np.linspace(PATCH_SHARE - 1, 1 - PATCH_SHARE, PATCHES_A_SIDE)
    y, x = np.meshgrid(middle, middle, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def patch_fits(
    thumbnails: NDArray[np.uint8],
    symmetries: Sequence[Symmetry],
    *,
    new: NDArray[np.bool_] | None,
    run: Run,
) -> Fits:
    """Pairs of pictures with patches that look alike, with the maps that their most alike patches suggest."""
    stride = max(1, -(-len(thumbnails) // WHITENED_IMAGES))
    whiten = fit_whitening(thumbnails[::stride], grids=patch_grids)
    vectors = _patch_vectors(thumbnails, symmetries, whiten, run)
    found = [_no_matches()]
    for asked, among in halves(len(thumbnails), new):
        index = reranked_index(vectors[0][among].reshape(-1, WHITENED_LENGTH))
        for number in range(len(symmetries)):
            found.append(_matches(index, vectors[number], asked, among, number))
    like, viewed, numbers, cosine = (np.concatenate(column) for column in zip(*found, strict=True))
    images = len(thumbnails) if new is None else int(new.sum())
    allowed = int(MAPS_PER_IMAGE * images * len(symmetries)) + 100
    best = best_of_pairs(
        like // PATCHES, viewed // PATCHES, numbers, cosine, len(thumbnails), allowed, each=MAPS_PER_PAIR
    )
    return _as_fits(like[best], viewed[best], numbers[best], symmetries)


def _patch_vectors(
    thumbnails: NDArray[np.uint8], symmetries: Sequence[Symmetry], whiten: Whitening, run: Run
) -> NDArray[np.float16]:
    """(symmetries, n, 25, 64) whitened patches, each changed by the symmetry within itself."""
    vectors = np.empty((len(symmetries), len(thumbnails), PATCHES, WHITENED_LENGTH), np.float16)

    def work(rows: slice) -> None:
        grids = patch_grids(thumbnails[rows])
        for number, symmetry in enumerate(symmetries):
            changed = whiten(symmetry.grid(grids))
            vectors[number, rows] = changed.reshape(-1, PATCHES, WHITENED_LENGTH)

    run(work, list(in_batches(len(thumbnails), BATCH_IMAGES)))
    return vectors


Matches = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def _no_matches() -> Matches:
    nothing = np.zeros(0, np.int64)
    return nothing, nothing, nothing, np.zeros(0, np.float32)


def _matches(
    index: Any,
    vectors: NDArray[np.float16],
    asked: NDArray[np.int64],
    among: NDArray[np.int64],
    number: int,
) -> Matches:
    """Patches that look alike: (patch of the picture found, patch that asked, symmetry, cosine)."""
    parts = [_no_matches()]
    for rows in in_batches(len(asked), 1024):
        queries = vectors[asked[rows]][:, ASKING].reshape(-1, WHITENED_LENGTH).astype(np.float32)
        # its own picture's patches overlap and come first
        cosine, neighbour = index.search(queries, min(NEIGHBOURS + 4, len(among) * PATCHES))
        query, column = np.nonzero((cosine >= SMALLEST_COSINE) & (neighbour >= 0))
        image, patch = np.divmod(neighbour[query, column], PATCHES)
        like = among[image] * PATCHES + patch
        asking, patch = np.divmod(query, len(ASKING))
        viewed = asked[rows][asking] * PATCHES + ASKING[patch]
        other = like // PATCHES != viewed // PATCHES
        numbers = np.full(len(query), number)
        parts.append((like[other], viewed[other], numbers[other], cosine[query, column][other]))
    like, viewed, numbers, cosine = (np.concatenate(column) for column in zip(*parts, strict=True))
    return like, viewed, numbers, cosine


def _as_fits(
    like: NDArray[np.int64],
    viewed: NDArray[np.int64],
    number: NDArray[np.int64],
    symmetries: Sequence[Symmetry],
) -> Fits:
    """Maps that carry the middle of one patch to the middle of the other, by the symmetry."""
    linear = np.stack([symmetry.matrix for symmetry in symmetries])[number]
    centres = patch_centres()
    carried = np.matmul(linear, centres[like % PATCHES][:, :, None])
    start = np.concatenate([linear, centres[viewed % PATCHES][:, :, None] - carried], axis=2)
    template, other = (like // PATCHES).astype(np.int32), (viewed // PATCHES).astype(np.int32)
    nothing = np.zeros(len(like), np.float32)
    fits = Fits(template, other, start, start, np.zeros(len(like), np.int64), nothing)
    return fits[np.argsort(template, kind="stable")]
