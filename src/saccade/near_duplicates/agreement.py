"""How much two aligned images agree, beyond what chance and the freedom of the map allow.

Gradients are compared, not gray values: images of one kind share light and dark areas, but hardly their
edges. Correlation alone would favour images with few edges (an aeroplane on a plain sky), so the number of
points that carry the gradients weighs in.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.descriptors import Floats

INNER_MARGIN = 0.2  # of the side that the inner comparison leaves away, so that a shared frame is no match
INNER_WEIGHT = 0.5
NATIVE_POINTS = 32 * 32  # an image of fewer pixels holds less evidence than the grid has points
POINTS_POWER = 0.25
SOFTEN = 0.5
UNMOVED_BONUS = 3.0  # what a fitted map gains on pictures that have nothing in common
MAP_PENALTY = 2.0  # for each unit of rotation (radians) and of stretch (log ratio of the sides)


@dataclass(frozen=True)
class Agreement:
    """Arrays (m,): `score` is the evidence, `correlation` of the gradients in -1..1, negative if inverted."""

    score: Floats
    correlation: Floats


Products = tuple[Floats, Floats, Floats]


def gradient_products(
    template: Floats, values: Floats, counts: NDArray[np.bool_], *, soften: float = math.inf
) -> Products:
    """Products of gradients at the inner points of a grid: (m, grid - 2, grid - 2) each.

    Template with values, template with itself, values with themselves; zero where a point that the
    difference needs does not count. `template`, `values`, `counts`: (m, grid * grid). With `soften`
    gradients much larger than so many times the picture's typical one count as equally large: a curve put
    over the brightness changes lengths of gradients, hardly their directions.
    """
    grid = round(template.shape[1] ** 0.5)
    valid = counts.reshape(-1, grid, grid)
    known = valid[:, 1:-1, 2:] & valid[:, 1:-1, :-2] & valid[:, 2:, 1:-1] & valid[:, :-2, 1:-1]
    first_x, first_y = _gradients(template.reshape(-1, grid, grid), known, soften)
    second_x, second_y = _gradients(values.reshape(-1, grid, grid), known, soften)
    return (
        first_x * second_x + first_y * second_y,
        first_x * first_x + first_y * first_y,
        second_x * second_x + second_y * second_y,
    )


def _gradients(values: Floats, known: NDArray[np.bool_], soften: float) -> tuple[Floats, Floats]:
    """Central differences along x and y where known, softened."""
    along_x = (values[:, 1:-1, 2:] - values[:, 1:-1, :-2]) * known
    along_y = (values[:, 2:, 1:-1] - values[:, :-2, 1:-1]) * known
    if soften < math.inf:
        length = np.hypot(along_x, along_y)
        energy = np.square(length).sum(axis=(1, 2)) / np.maximum(known.sum(axis=(1, 2), dtype=np.float32), 1)
        scale = 1 / (length + soften * np.sqrt(energy)[:, None, None] + 1e-6)
        along_x *= scale
        along_y *= scale
    return along_x, along_y


def correlation(cross: Floats, first: Floats, second: Floats) -> Floats:
    """(m,) of the gradients, from their products."""
    axes = tuple(range(1, cross.ndim))
    energy = first.sum(axis=axes) * second.sum(axis=axes)
    result: Floats = cross.sum(axis=axes) / np.sqrt(np.maximum(energy, 1e-6))
    return result


def evidence(cross: Floats, first: Floats, second: Floats, native_share: Floats) -> Floats:
    """(m,) Fisher's z of the correlation, times a slow power of the number of points that carry it.

    `native_share` (m,) says how many points of the grid one pixel of the image stands for, at most 1.
    """
    carried = np.sqrt(first * second)
    total = carried.sum(axis=(1, 2))
    points = total * total / np.maximum((carried * carried).sum(axis=(1, 2)), 1e-9)
    agree = np.minimum(np.abs(correlation(cross, first, second)), 0.9999)
    result: Floats = np.arctanh(agree) * (points * native_share) ** POINTS_POWER
    return result


def map_cost(maps: Floats) -> Floats:
    """(m,) how far maps are from upright and equal scaling: real copies seldom are, chance fits often.

    Mirror images and quarter turns cost nothing.
    """
    a, b, c, d = (maps[:, i, j].astype(np.float64) for i in (0, 1) for j in (0, 1))
    # singular values of a 2 x 2 matrix; rotation modulo a quarter turn and mirroring
    sum_, difference = np.hypot(a + d, c - b), np.hypot(a - d, b + c)
    stretch = np.log((sum_ + difference) / np.maximum(np.abs(sum_ - difference), 1e-6))
    mirrored = (a * d - b * c) < 0
    angle = np.where(mirrored, np.arctan2(b + c, a - d), np.arctan2(c - b, a + d))
    turn = np.abs((angle + np.pi / 4) % (np.pi / 2) - np.pi / 4)
    cost: Floats = (MAP_PENALTY * (stretch + turn)).astype(np.float32)
    return cost


def agreement(
    template: Floats, values: Floats, counts: NDArray[np.bool_], maps: Floats, native_share: Floats
) -> Agreement:
    """Of pictures laid on each other, all (m, grid * grid); `counts`: inside the picture and the window."""
    as_they_are = correlation(*gradient_products(template, values, counts))
    toned = tone_curve(template, values, counts)
    score = total_evidence(toned, values, counts, native_share) - map_cost(maps)
    return Agreement(score, as_they_are)


def total_evidence(
    template: Floats, values: Floats, counts: NDArray[np.bool_], native_share: Floats
) -> Floats:
    """(m,) evidence of the softened gradients of pictures (m, grid * grid), and of their inner part."""
    products = gradient_products(template, values, counts, soften=SOFTEN)
    rows = counts.reshape(len(counts), round(counts.shape[1] ** 0.5), -1)[:, 1:-1, 1:-1]
    cross, first, second = (product * _inner(rows) for product in products)
    inner = evidence(cross, first, second, native_share)
    total: Floats = evidence(*products, native_share) + INNER_WEIGHT * inner
    return total


@dataclass(frozen=True)
class Edges:
    """Softened gradients of pictures of which every point counts, ready to be compared with many others.

    Arrays over the inner points of the grid: `along_x`, `along_y`, `length` (n, points); `energy` (n, 2):
    squares summed over all of them and over the inner part.
    """

    along_x: Floats
    along_y: Floats
    length: Floats
    energy: Floats

    @classmethod
    def of(cls, pictures: Floats) -> Edges:
        """From (n, grid * grid)."""
        grid = round(pictures.shape[1] ** 0.5)
        square = pictures.reshape(-1, grid, grid)
        along_x = (square[:, 1:-1, 2:] - square[:, 1:-1, :-2]).reshape(len(pictures), -1)
        along_y = (square[:, 2:, 1:-1] - square[:, :-2, 1:-1]).reshape(len(pictures), -1)
        length = np.sqrt(along_x * along_x + along_y * along_y)  # ten times as quick as hypot
        usual = np.sqrt(np.einsum("np,np->n", length, length) / length.shape[1])
        scale = 1 / (length + (SOFTEN * usual + 1e-6)[:, None])
        for values in (along_x, along_y, length):
            values *= scale
        return cls(along_x, along_y, length, _sums(length * length))

    def __getitem__(self, rows: NDArray[np.integer[Any]]) -> Edges:
        return Edges(self.along_x[rows], self.along_y[rows], self.length[rows], self.energy[rows])


def edges_evidence(template: Edges, other: Edges, native_share: Floats) -> Floats:
    """(m,) what `total_evidence` is where every point counts, but for rounding, in a third of the time."""
    carried = template.length * other.length
    cross = template.along_x * other.along_x
    cross += template.along_y * other.along_y
    total, squares = _sums(carried), _sums(carried * carried)
    points = total * total / np.maximum(squares, 1e-9)
    correlation = _sums(cross) / np.sqrt(np.maximum(template.energy * other.energy, 1e-6))
    agree = np.minimum(np.abs(correlation), 0.9999)
    both = np.arctanh(agree) * (points * native_share[:, None]) ** POINTS_POWER
    result: Floats = both[:, 0] + INNER_WEIGHT * both[:, 1]
    return result


def _sums(values: Floats) -> Floats:
    """(m, 2) of (m, points): over all points of a square, and over its inner part."""
    side = round(values.shape[1] ** 0.5)
    sums: Floats = values @ _all_and_inner(side)
    return sums


@functools.cache
def _all_and_inner(side: int) -> Floats:
    """(points, 2) of 1 and 0."""
    everything = np.ones((1, side, side), bool)
    return np.stack([everything.ravel(), _inner(everything).ravel()], axis=1).astype(np.float32)


def tone_curve(template: Floats, values: Floats, counts: NDArray[np.bool_]) -> Floats:
    """The template under the cubic curve that brings it nearest to `values` where `counts`; (m, points).

    So gamma, contrast and brightness that differ take nothing from the agreement; inversion, too.
    """
    square = template * template
    powers = np.stack([np.ones_like(template), template, square, square * template], axis=1)
    counted = powers * counts[:, None]
    normal = np.matmul(counted, powers.transpose(0, 2, 1))
    diagonal = np.arange(4)
    normal[:, diagonal, diagonal] += 0.01 * template.shape[1]
    curve = np.linalg.solve(normal, np.matmul(counted, values[:, :, None]))[:, :, 0]
    toned: Floats = np.matmul(curve[:, None, 1:], powers[:, 1:])[:, 0]
    return toned


def _inner(counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(m, side, side): points well inside the rectangle around all that count."""
    if len(counts) > 1 and counts.all():  # the usual case: the same rectangle for each
        return np.broadcast_to(_inner(counts[:1]), counts.shape)
    inside_rows = _well_between(np.asarray(counts.any(axis=2)))
    inside_columns = _well_between(np.asarray(counts.any(axis=1)))
    return inside_rows[:, :, None] & inside_columns[:, None, :] & counts


def _well_between(lines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(m, side): between the first and the last true one, with a margin."""
    side = lines.shape[1]
    first = lines.argmax(axis=1)[:, None]
    last = side - 1 - lines[:, ::-1].argmax(axis=1)[:, None]
    margin = np.rint((last - first + 1) * INNER_MARGIN)
    position = np.arange(side)
    within: NDArray[np.bool_] = (position >= first + margin) & (position <= last - margin)
    return within
