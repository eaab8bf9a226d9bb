"""The vectors an image is searched by: the whole picture, its four quadrants, and what a caption leaves free.

A crop of a picture looks like one of its quadrant views, so comparing every image's quadrants with every
whole picture finds crops in both directions. A quadrant view is the mean of four overlapping crops of 80 %
(measured to be as good as asking for the four one by one, at a quarter of the cost). Two pictures of which
one has a bar of text still agree on the band that the bar leaves free.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.descriptors import (
    BINS,
    CELLS,
    GRID_LENGTH,
    GRID_SIDE,
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

CROP_SHARE = 0.8  # of the side that each crop of a quadrant keeps
BAND_SHARE = 0.75  # of the height that a band keeps
WHITENED_LENGTH = 64
PRIOR_IMAGES = 500  # weight of the prior against the images themselves when whitening
SAMPLE_IMAGES = 8000  # images that whitening is fitted to, at most
BATCH_IMAGES = 256

_QUADRANT_CROPS = {  # which of the nine crops, row by row, a quadrant view is the mean of
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


def all_views(symmetries: Sequence[Symmetry]) -> tuple[View, ...]:
    """Whole pictures first, then quadrants, in every symmetry; then the bands, upright only."""
    wholes = [View("whole", symmetry) for symmetry in symmetries]
    quadrants = [View(name, symmetry) for symmetry in symmetries for name in _QUADRANT_CROPS]
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
            if view.part not in _QUADRANT_CROPS:
                vectors[number, rows] = whiten(view.symmetry.grid(grids[view.part]))
                continue
            if view.symmetry not in crops:
                crops[view.symmetry] = [whiten(view.symmetry.grid(grids[f"crop {i}"])) for i in range(9)]
            members = [crops[view.symmetry][i] for i in _QUADRANT_CROPS[view.part]]
            vectors[number, rows] = unit(np.sum(members, axis=0))

    run(work, list(in_batches(len(thumbnails), BATCH_IMAGES)))
    return vectors
