"""The vectors an image is searched by: the whole image, four quadrants, two bands, and 25 patches.

A crop of an image looks like one of its quadrant views, so comparing every image's quadrants with every whole
image finds crops in both directions. A quadrant view is the mean of four overlapping crops of 80 % (measured:
as good as four separate queries, at a quarter of the cost). Two images of which one has a bar of text still
agree on the band without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.candidates import (
    BANDS,
    CROP_SHARE,
    QUADRANT_CROPS,
    View,
    best_of_pairs,
    halves,
    reranked_index,
)
from saccade.near_duplicates.descriptors import (
    BINS,
    CELLS,
    GRID_LENGTH,
    GRID_SIDE,
    THUMBNAIL_SIDE,
    Floats,
    Symmetry,
    in_batches,
    orientation_maps,
    pool,
    pooling_matrix,
    shrink,
    unit,
    unit_grid,
)
from saccade.near_duplicates.registration import Fits, Run

BAND_SHARE = 0.75  # of the height that a band keeps
WHITENED_LENGTH = 64
PRIOR_IMAGES = 500  # weight of the prior against the images themselves when whitening
SAMPLE_IMAGES = 8000  # images that whitening is fitted to, at most
BATCH_IMAGES = 256


def all_views(symmetries: Sequence[Symmetry]) -> tuple[View, ...]:
    """Whole pictures first, then quadrants, in every symmetry; then the bands, upright only."""
    wholes = [View("whole", symmetry) for symmetry in symmetries]
    quadrants = [View(name, symmetry) for symmetry in symmetries for name in QUADRANT_CROPS]
    return (*wholes, *quadrants, *(View(band, Symmetry()) for band in BANDS))


@dataclass(frozen=True)
class Whitening:
    """`mean` (128,) and `projection` (128, 64): after it, grids of unrelated images are nearly uncorrelated.

    The cosine of two unrelated pictures then scatters by about 1 / sqrt(64) around 0 whatever kind of
    pictures they are, so that one threshold serves all data sets. After Jegou and Chum, ECCV 2012.
    """

    mean: Floats
    projection: Floats

    def __call__(self, grids: Floats) -> Floats:
        """(n, 128) to unit vectors (n, 64); zero for grids without any gradient."""
        projected: Floats = np.matmul(grids - self.mean, self.projection)
        whitened = unit(projected)
        whitened[~grids.any(axis=1)] = 0
        return whitened


Gridder = Callable[[NDArray[np.uint8]], Floats]  # thumbnails (n, 64, 64) to grids (n or more, 128)


def fit_whitening(thumbnails: NDArray[np.uint8], *, grids: Gridder | None = None) -> Whitening:
    """Whitening for these images, drawn towards that of random noise pictures where there are few of them.

    `grids` are those of the whole pictures unless another function is given.
    """
    grids = grids or whole_grids
    stride = max(1, -(-len(thumbnails) // SAMPLE_IMAGES))
    own, prior = grids(thumbnails[::stride]), grids(_noise_thumbnails())
    images = len(thumbnails[::stride])
    own = own[own.any(axis=1)]
    share = images / (images + PRIOR_IMAGES)
    own, prior = (np.concatenate([each, Symmetry(mirrored=True).grid(each)]) for each in (own, prior))
    own = own if len(own) else prior
    mean = share * own.mean(axis=0) + (1 - share) * prior.mean(axis=0)
    covariance = share * _covariance(own, mean) + (1 - share) * _covariance(prior, mean)
    variance, directions = np.linalg.eigh(covariance)
    largest = np.argsort(variance)[::-1][:WHITENED_LENGTH]
    projection = directions[:, largest] / np.sqrt(variance[largest])
    return Whitening(mean.astype(np.float32), projection.astype(np.float32))


def _covariance(grids: Floats, mean: Floats) -> NDArray[np.float64]:
    centred = (grids - mean).astype(np.float64)
    covariance: NDArray[np.float64] = centred.T @ centred / len(centred)
    return covariance


@functools.cache
def _noise_thumbnails() -> NDArray[np.uint8]:
    """PRIOR_IMAGES pictures of 1/f noise, the spectrum of natural images (Field 1987); always the same."""
    rng = np.random.default_rng(1987)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64))
    frequency[0, 0] = 1
    shape = (PRIOR_IMAGES, *frequency.shape)
    spectrum = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / frequency
    noise = np.fft.irfft2(spectrum, s=(64, 64))
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    noise /= noise.std(axis=(1, 2), keepdims=True)
    return np.clip(128 + 50 * noise, 0, 255).astype(np.uint8)


def whole_grids(thumbnails: NDArray[np.uint8]) -> Floats:
    """(n, 64, 64) to grids (n, 128) of the whole pictures."""
    whole = pooling_matrix(0, 1)
    grids = np.empty((len(thumbnails), GRID_LENGTH), np.float32)
    for rows in in_batches(len(thumbnails), BATCH_IMAGES):
        grids[rows] = unit_grid(pool(orientation_maps(shrink(thumbnails[rows], GRID_SIDE)), whole, whole))
    return grids


def part_grids(thumbnails: NDArray[np.uint8]) -> dict[str, Floats]:
    """Grids (n, 128) of the whole, of nine crops "crop 0" ... "crop 8", and of both bands, in one pass."""
    slack = 1 - CROP_SHARE
    whole = pooling_matrix(0, 1)
    crops = [pooling_matrix(slack * third / 2, CROP_SHARE) for third in range(3)]
    bands = [pooling_matrix(start, BAND_SHARE) for start in (0, 1 - BAND_SHARE)]
    along_x, along_y = np.concatenate([whole, *crops]), np.concatenate([whole, *crops, *bands])
    pooled = pool(orientation_maps(shrink(thumbnails, GRID_SIDE)), along_y, along_x)
    # blocks of 4 x 4 cells: (image, bin, row block, row, column block, column)
    cells = pooled.reshape(-1, BINS, len(along_y) // CELLS, CELLS, len(along_x) // CELLS, CELLS)
    grids = {f"crop {i}": unit_grid(cells[:, :, 1 + i // 3, :, 1 + i % 3]) for i in range(9)}
    for name, block in (("whole", 0), ("upper", 4), ("lower", 5)):
        grids[name] = unit_grid(cells[:, :, block, :, 0])
    return grids


def view_vectors(
    thumbnails: NDArray[np.uint8],
    views: Sequence[View],
    whiten: Whitening,
    run: Callable[[Callable[[slice], None], Sequence[slice]], Any],
) -> NDArray[np.float16]:
    """(views, n, 64) whitened unit vectors of every view; `run(work, slices)` may use several threads."""
    vectors = np.empty((len(views), len(thumbnails), WHITENED_LENGTH), np.float16)

    def work(rows: slice) -> None:
        grids = part_grids(thumbnails[rows])
        crops: dict[Symmetry, list[Floats]] = {}
        for number, view in enumerate(views):
            if view.part not in QUADRANT_CROPS:
                vectors[number, rows] = whiten(view.symmetry.grid(grids[view.part]))
                continue
            if view.symmetry not in crops:
                crops[view.symmetry] = [whiten(view.symmetry.grid(grids[f"crop {i}"])) for i in range(9)]
            members = [crops[view.symmetry][i] for i in QUADRANT_CROPS[view.part]]
            vectors[number, rows] = unit(np.sum(members, axis=0))

    run(work, list(in_batches(len(thumbnails), BATCH_IMAGES)))
    return vectors


# -- patches ---------------------------------------------------------------------------------------------
# A closer search for small data sets: 25 patches of every image against all patches of the others.
# It finds what whole pictures and quadrants hide: photos of which each shows something the other does not,
# crops far from the corners, smaller crops. Its cost grows with the square of 25 n, so it is for thousands of
# images, not for tens of thousands. Two patches that look alike also say how the pictures lie on each other.


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
PATCHED_IMAGES = 128


def patch_grids(thumbnails: NDArray[np.uint8]) -> Floats:
    """(n, 64, 64) to grids (n * 25, 128): the patches of an image follow each other, row by row."""
    starts = np.linspace(0, 1 - PATCH_SHARE, PATCHES_A_SIDE)
    stretches = [pooling_matrix(start, PATCH_SHARE, side=THUMBNAIL_SIDE) for start in starts]
    cells = np.concatenate(stretches)
    grids = np.empty((len(thumbnails), PATCHES, GRID_LENGTH), np.float32)
    for rows in in_batches(len(thumbnails), PATCHED_IMAGES):
        pooled = pool(orientation_maps(thumbnails[rows].astype(np.float32)), cells, cells)
        blocks = pooled.reshape(-1, BINS, PATCHES_A_SIDE, CELLS, PATCHES_A_SIDE, CELLS)
        for patch in range(PATCHES):
            row, column = divmod(patch, PATCHES_A_SIDE)
            grids[rows, patch] = unit_grid(blocks[:, :, row, :, column])
    return grids.reshape(-1, GRID_LENGTH)


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

    run(work, list(in_batches(len(thumbnails), PATCHED_IMAGES)))
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
    middle = np.linspace(PATCH_SHARE - 1, 1 - PATCH_SHARE, PATCHES_A_SIDE)  # of a picture that spans -1..1
    y, x = np.meshgrid(middle, middle, indexing="ij")
    centres = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    carried = np.matmul(linear, centres[like % PATCHES][:, :, None])
    start = np.concatenate([linear, centres[viewed % PATCHES][:, :, None] - carried], axis=2)
    template, other = (like // PATCHES).astype(np.int32), (viewed // PATCHES).astype(np.int32)
    nothing = np.zeros(len(like), np.float32)
    fits = Fits(template, other, start, start, np.zeros(len(like), np.int64), nothing)
    return fits[np.argsort(template, kind="stable")]
