"""Laying one picture onto another: the affine map that fits best, for thousands of pairs at once.

Lucas-Kanade with the derivatives of the template (Baker and Matthews, IJCV 2004, inverse compositional): what
depends on the template alone is computed once. Gain and bias are fitted with the map, so brightness, contrast
and inversion do not matter. The first, rough steps ignore that one picture may reach beyond the other; the
later ones solve anew each time with what lies outside left out and outliers, such as a logo, weighed down
(Huber's weights). Maps are (2, 3) float32, from template to other picture, both spanning -1..1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.candidates import Candidates, View
from saccade.near_duplicates.descriptors import THUMBNAIL_SIDE, Floats, Indices, in_batches, shrink

COARSE_SIDE = 32  # pixels of the pictures that coarse registration samples
COARSE_GRID = 16  # points a side at which it compares them
FINE_GRID = 32
COARSE_BLUR = 1.5  # pixels of COARSE_SIDE
LARGEST_STEP = 0.15  # of any entry of the map, in one iteration
LARGEST_CHANGE = 0.45  # of any entry of the map, from where it started
DAMPING = 0.01
OUTLIER = 1.5  # typical residuals
SMALLEST_CONTRAST = 2.0  # levels; flatter pictures are not scaled up further

WINDOWS = {"whole": (0.0, 1.0), "upper": (0.0, 0.75), "lower": (0.25, 1.0)}  # rows of the template that count


def grid_points(side: int) -> Floats:
    """(3, side * side): x, y, 1 of the centres of a regular grid over -1..1, row by row."""
    centre = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
    y, x = np.meshgrid(centre, centre, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(side * side, np.float32)])


@dataclass(frozen=True)
class Pictures:
    """Square gray pictures (n, side, side) uint8 to sample from and to make templates of."""

    pixels: NDArray[np.uint8]

    def at(self, points: Floats, which: Indices, maps: Floats, *, smooth: bool) -> Floats:
        """(m, points): picture `which[i]` at the mapped points; the edge is repeated beyond it.

        Bilinear if `smooth`, else the nearest pixel, which is faster and accurate enough for the first steps.
        """
        side, flat = int(self.pixels.shape[1]), self.pixels.reshape(-1)
        position = (maps.reshape(-1, 3) @ points).reshape(len(maps), 2, -1)
        position *= side / 2
        position += side / 2 - (0.5 if smooth else 0)
        np.clip(position, 0, side - (1.001 if smooth else 0.5), out=position)
        corner = position.astype(np.int32)
        index = corner[:, 1] * side
        index += corner[:, 0]
        index += (which * side * side).astype(np.int32)[:, None]
        if not smooth:
            return np.take(flat, index).astype(np.float32)
        position -= corner
        upper = _blend(flat, index, position[:, 0])
        index += side
        lower = _blend(flat, index, position[:, 0])
        lower -= upper
        lower *= position[:, 1]
        upper += lower
        return upper


def _blend(flat: NDArray[np.uint8], index: NDArray[np.int32], share: Floats) -> Floats:
    """Between each pixel and its right neighbour."""
    left = np.take(flat, index).astype(np.float32)
    right = np.take(flat[1:], index).astype(np.float32)
    right -= left
    right *= share
    left += right
    return left


def coarse_pictures(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 64, 64) to blurred (n, 32, 32)."""
    position = np.arange(COARSE_SIDE)
    weight = np.exp(-0.5 * ((position[:, None] - position) / COARSE_BLUR) ** 2)
    blur = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    blur[blur < np.finfo(np.float32).tiny] = 0  # denormal numbers take most of the time and change nothing
    blurred = np.empty((len(thumbnails), COARSE_SIDE, COARSE_SIDE), np.uint8)
    for rows in in_batches(len(thumbnails), 1024):
        small = shrink(thumbnails[rows], COARSE_SIDE)
        blurred[rows] = np.rint(np.matmul(blur, np.matmul(small, blur.T)))
    return blurred


def fine_pictures(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 64, 64) smoothed by the binomial filter 1 4 6 4 1, so that every second pixel may be skipped."""
    smooth = thumbnails.astype(np.uint16)  # 255 * 16 * 16 just fits
    for _ in range(2):  # rows, then columns, by turning the pictures over
        padded = np.pad(smooth, ((0, 0), (2, 2), (0, 0)), mode="edge")
        smooth = padded[:, :-4] + padded[:, 4:]
        smooth += 4 * (padded[:, 1:-3] + padded[:, 3:-1])
        smooth += 6 * padded[:, 2:-2]
        smooth = smooth.swapaxes(1, 2)
    return ((smooth + 128) >> 8).astype(np.uint8)


@dataclass(frozen=True)
class Templates:
    """What registration onto a picture needs of it, at a grid of points.

    `basis` (n, 8, points): contrast, 1, and the derivatives by the six entries of the map. `window`
    (n, points) of 0 and 1: which points count.
    """

    basis: Floats
    window: Floats

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], grid: int, window: Floats) -> Templates:
        """From (n, side, side) pictures."""
        return cls(_basis(pixels, grid), window)

    def __getitem__(self, rows: Indices) -> Templates:
        return Templates(self.basis[rows], self.window[rows])

    @property
    def contrast(self) -> Floats:
        """(n, points) the picture itself, with mean 0 and scaled to standard deviation 1."""
        return self.basis[:, 0]

    def solver(self) -> Floats:
        """(n, 8, points): from values at the points to the coefficients of the basis that fit them best."""
        weighted = self.basis * self.window[:, None]
        solver: Floats = np.matmul(np.linalg.inv(_normal_matrix(weighted, self.basis)), weighted)
        return solver

    def fitted(self, values: Floats, weights: Floats) -> Floats:
        """(n, 8) coefficients that fit values (n, points) best, each point weighed."""
        weighted = self.basis * weights[:, None]
        right = np.matmul(weighted, values[:, :, None])
        coefficients: Floats = np.linalg.solve(_normal_matrix(weighted, self.basis), right)[:, :, 0]
        return coefficients


def _normal_matrix(weighted: Floats, basis: Floats) -> Floats:
    """(n, 8, 8), damped so that pictures without edges in some direction stay where they are."""
    normal: Floats = np.matmul(weighted, basis.transpose(0, 2, 1))
    brightness, shape = np.arange(2), np.arange(2, 8)
    normal[:, brightness, brightness] += 1e-3
    normal[:, shape, shape] += DAMPING * normal[:, shape, shape].mean(axis=1, keepdims=True) + 1e-4
    return normal


def _basis(pixels: NDArray[np.uint8], grid: int) -> Floats:
    values = shrink(pixels, grid)
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
    per_unit = grid / 4  # central differences span 2 points, each 2 / grid wide
    by_x = ((padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) * per_unit).reshape(len(values), -1)
    by_y = ((padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) * per_unit).reshape(len(values), -1)
    flat = values.reshape(len(values), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    scale = 1 / np.maximum(flat.std(axis=1, keepdims=True), SMALLEST_CONTRAST)
    by_x *= scale
    by_y *= scale
    x, y, one = grid_points(grid)
    basis = np.empty((len(values), 8, grid * grid), np.float32)
    columns = (flat * scale, one, by_x, by_y, x * by_x, y * by_x, x * by_y, y * by_y)
    for row, column in enumerate(columns):
        basis[:, row] = column
    return basis


def moved(maps: Floats, coefficients: Floats, start: Floats) -> Floats:
    """Maps after one step: composed with the inverse of the fitted change of the template, within limits."""
    gain = coefficients[:, :1]
    gain = np.where(np.abs(gain) < 1e-2, np.float32(1e-2), gain)
    change = np.clip(coefficients[:, 2:] / gain, -LARGEST_STEP, LARGEST_STEP)
    shift, linear = change[:, :2], change[:, 2:].reshape(-1, 2, 2)
    inverse = _inverse(linear + np.eye(2, dtype=np.float32))
    turned = np.matmul(maps[:, :, :2], inverse)
    shifted = maps[:, :, 2:] - np.matmul(turned, shift[:, :, None])
    proposal = np.concatenate([turned, shifted], axis=2)
    return start + np.clip(proposal - start, -LARGEST_CHANGE, LARGEST_CHANGE)


def _inverse(matrices: Floats) -> Floats:
    """Of (n, 2, 2)."""
    a, b, c, d = (matrices[:, i, j] for i in (0, 1) for j in (0, 1))
    determinant = a * d - b * c
    inverse: Floats = np.divide(np.stack([d, -b, -c, a], axis=1), determinant[:, None])
    return inverse.reshape(-1, 2, 2)


def inverted(maps: Floats) -> Floats:
    """The maps the other way round."""
    linear = _inverse(maps[:, :, :2])
    return np.concatenate([linear, -np.matmul(linear, maps[:, :, 2:])], axis=2)


def rough_fit(solver: Floats, pictures: Pictures, which: Indices, start: Floats, *, steps: int) -> Floats:
    """Maps after a few plain steps with the nearest pixel, the edge repeated beyond the picture."""
    points = grid_points(COARSE_GRID)
    maps = start
    for _ in range(steps):
        values = pictures.at(points, which, maps, smooth=False)
        maps = moved(maps, np.matmul(solver, values[:, :, None])[:, :, 0], start)
    return maps


def robust_fit(
    templates: Templates,
    pictures: Pictures,
    which: Indices,
    maps: Floats,
    start: Floats,
    *,
    grid: int,
    steps: int,
) -> Floats:
    """Maps after steps in which what lies outside the picture does not count, and outliers count less."""
    points = grid_points(grid)
    tame: Floats | float = 1.0
    for _ in range(steps):
        values = pictures.at(points, which, maps, smooth=True)
        counts = templates.window * inside(points, maps)
        coefficients = templates.fitted(values, counts * tame)
        residual = values - np.matmul(coefficients[:, None], templates.basis)[:, 0]
        # Huber's weights: 1 up to OUTLIER times the typical residual, then falling
        squares = (residual * residual * counts).sum(axis=1, keepdims=True)
        limit = OUTLIER * np.sqrt(squares / np.maximum(counts.sum(axis=1, keepdims=True), 1))
        tame = np.minimum(1, limit / np.maximum(np.abs(residual), 1e-6))
        maps = moved(maps, coefficients, start)
    return maps


def inside(points: Floats, maps: Floats) -> NDArray[np.bool_]:
    """(m, points): where the mapped point lies on the other picture."""
    position = (maps.reshape(-1, 3) @ points).reshape(len(maps), 2, -1)
    np.abs(position, out=position)
    within: NDArray[np.bool_] = np.less_equal(position, 1).all(axis=1)
    return within


def inside_boxes(points: Floats, maps: Floats, boxes: Floats) -> NDArray[np.bool_]:
    """(m, points): where the mapped point lies in a box (left, right, top, bottom) of the other picture."""
    x, y = (maps.reshape(-1, 3) @ points).reshape(len(maps), 2, -1).swapaxes(0, 1)
    left, right, top, bottom = boxes.T[:, :, None]
    within: NDArray[np.bool_] = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    return within


def window_weights(windows: Indices, grid: int) -> Floats:
    """(m, grid * grid) of 0 and 1: which points count, for windows numbered as in WINDOWS."""
    row = (np.arange(grid) + 0.5) / grid
    table = [np.repeat((row > top) & (row < bottom), grid) for top, bottom in WINDOWS.values()]
    return np.array(table, np.float32)[windows]


Run = Callable[[Callable[[slice], None], Sequence[slice]], Any]


@dataclass(frozen=True)
class Fits:
    """Registered pairs, arrays (m,): the map leads from picture `template` into picture `other`."""

    template: NDArray[np.int32]
    other: NDArray[np.int32]
    maps: Floats
    start: Floats
    window: NDArray[np.int64]
    quality: Floats

    def __len__(self) -> int:
        return len(self.template)

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        return self.template, self.other, self.maps, self.start, self.window, self.quality

    def __getitem__(self, rows: Any) -> Fits:
        return Fits(*(column[rows] for column in self.columns))


def starting_fits(candidates: Candidates, views: Sequence[View]) -> Fits:
    """The maps that the views suggest, pairs of one template next to each other."""
    windows = {name: number for number, name in enumerate(WINDOWS)}
    start = np.stack([view.start for view in views])[candidates.view]
    window = np.array([windows.get(view.part, 0) for view in views])[candidates.view]
    fits = Fits(
        candidates.like, candidates.viewed, start, start, window, np.zeros(len(candidates), np.float32)
    )
    return fits[np.argsort(candidates.like, kind="stable")]


def the_other_way(fits: Fits) -> Fits:
    """The same pairs with the roles exchanged."""
    order = np.argsort(fits.other, kind="stable")
    maps, start = inverted(fits.maps), inverted(fits.start)
    return Fits(fits.other, fits.template, maps, start, fits.window, fits.quality)[order]


def joined_fits(first: Fits, second: Fits) -> Fits:
    return Fits(*(np.concatenate(columns) for columns in zip(first.columns, second.columns, strict=True)))


def pair_keys(fits: Fits, image: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m,) one number for each pair of images."""
    first, second = image[fits.template], image[fits.other]
    low, high = np.minimum(first, second), np.maximum(first, second)
    keys: NDArray[np.int64] = low * (image.max(initial=0) + 1) + high
    return keys


def best_order(fits: Fits, image: NDArray[np.int64]) -> NDArray[np.intp]:
    """Rows of the best fit of each pair of images, ordered by template."""
    keys = pair_keys(fits, image)
    order = np.lexsort((-fits.quality, keys))
    first = np.ones(len(order), bool)
    first[1:] = keys[order][1:] != keys[order][:-1]
    rows = order[first]
    return rows[np.argsort(fits.template[rows], kind="stable")]


assert THUMBNAIL_SIDE % FINE_GRID == 0
assert COARSE_SIDE % COARSE_GRID == 0
