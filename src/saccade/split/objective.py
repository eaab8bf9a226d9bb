"""What a good division is, as one cost that is compared in order, and how single images serve it best.

For a class of N images of which `wanted` (a real number) should stand in a part, the cost is

1. empty parts: the sum of `must` over the parts that hold no image of the class;
2. excess: what lies beyond max(1 image, 1 % of the class), summed over the parts, as a share of N;
3. Pearson's chi-square distance: squared deviation from `wanted` over N, summed over the parts.

A division is better when the sum over the classes is smaller in 1; equal there, in 2; equal there, in 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

COSTS = 3  # how many numbers a cost has
_DIGITS = 9  # differences below this come from floating point alone
_NOISE = 1e-9


def tolerance(totals: Ints) -> Floats:
    """How far each class may lie from the wanted number of images: one image, or one point of the class."""
    allowed: Floats = np.maximum(1.0, 0.01 * totals)
    return allowed


def class_costs(images: Ints, wanted: Floats, must: Floats) -> Floats:
    """(n, 3) cost of each row: `images` and `wanted` are (n, parts), `must` (parts,)."""
    totals = images.sum(axis=1)
    size = np.maximum(totals, 1)
    off = np.abs(images - wanted)
    excess = np.maximum(off - tolerance(totals)[:, None] - _NOISE, 0.0).sum(axis=1)
    empty = ((images == 0) * must).sum(axis=1) * (totals > 0)
    return np.stack([empty, excess / size, (off * off).sum(axis=1) / size], axis=1)


def fill_with_singles(
    placed: Ints, singles: Ints, wanted: Floats, must: Floats, *, prefer: Floats | None = None
) -> Ints:
    """(n, parts) how many single images each part gets so that no other filling costs less.

    `placed` (n, parts) stands already, `singles` (n,) are still free. Empty parts get one image each
    (the most needed first); the rest goes where most is missing, which leaves the deviations as even as
    they can be and so is best for every convex cost. `prefer` (n, parts), below 1e-6, decides ties.
    """
    bias = np.zeros_like(wanted) if prefer is None else prefer
    missing = wanted - placed
    urgency = np.where(placed == 0, must * 1e7 + missing + bias, -np.inf)
    first = (placed == 0) & (_rank(urgency) < singles[:, None])
    rest = singles - first.sum(axis=1)
    given: Ints = first + _level(missing - first, rest, bias)
    return given


def _level(missing: Floats, units: Ints, bias: Floats) -> Ints:
    """(n, parts) counts that sum to `units` (n,) and leave `missing` most even (water-filling)."""
    parts = missing.shape[1]
    falling = -np.sort(-missing, axis=1)
    levels = (np.cumsum(falling, axis=1) - units[:, None]) / np.arange(1, parts + 1)
    active = np.maximum((falling > levels).sum(axis=1), 1)
    level = np.take_along_axis(levels, active[:, None] - 1, axis=1)
    whole = np.floor(np.maximum(missing - level, 0.0) + _NOISE).astype(np.int64)
    left = units - whole.sum(axis=1)
    whole += _rank(missing - whole + bias) < left[:, None]
    return whole


def _rank(values: Floats) -> Ints:
    """(n, parts) place of each value in its row, the largest first; equal values keep their order."""
    order = np.argsort(-values, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(values.shape[1])[None, :], axis=1)
    return rank


def settle(costs: Floats) -> Floats:
    """The costs without the noise of floating point, so that equal ones compare equal."""
    return np.round(costs, _DIGITS)


def best_row(costs: Floats) -> int:
    """Index of the smallest cost, compared from the first column on; the first of equals."""
    return int(np.lexsort(settle(costs).T[::-1])[0])


def is_better(change: Floats) -> NDArray[np.bool_]:
    """(n,) whether a change of cost (n, 3) is an improvement: its first number that is not 0 is negative."""
    rounded = settle(change)
    nonzero = rounded != 0
    first = nonzero.argmax(axis=1)
    better: NDArray[np.bool_] = rounded[np.arange(len(rounded)), first] < 0  # all 0: not below 0 either
    return better
