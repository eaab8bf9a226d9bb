"""The cost of a split, compared in order, and the descent that lowers it by moves and swaps of atoms.

For a class of N images of which `wanted` (a real number) should be in a part, the cost is

1. empty parts: the sum of `must` over the parts that hold no image of the class;
2. excess: what lies beyond max(1 image, 1 % of the class), summed over the parts, as a share of N;
3. Pearson's chi-square distance: squared deviation from `wanted` over N, summed over the parts.

A split is better if the sum over the classes is smaller in 1; if equal, in 2; if equal, in 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


# -- descent ---------------------------------------------------------------------------------------------
# Moves and swaps of larger atoms for as long as they help; then small kicks, and the best is kept.
# A step is judged by the cost after the single images have been given out again, so one move of a large
# atom can be answered by many small ones. Work is bounded by a number of evaluated rows, not by a clock.


_AT_ONCE = 40_000
_FEW_ROWS = 400  # moves judged together; few, since of those that share a class only one can be taken
MOST_KICKS = 100  # in a row that find nothing better
_KICKED = 3
_CALL = 200  # what calling numpy costs beyond the rows, in rows


@dataclass(slots=True)
class Position:
    """Where the atoms of each kind stand, and what follows from it.

    `placed` (kinds, parts), `standing` and `wanted` (classes, parts), `singles` (classes,), `costs`
    (classes, 3); atom `k` holds `images[start[k]:start[k+1]]` images of `classes[start[k]:start[k+1]]`.
    """

    start: Ints
    classes: Ints
    images: Ints
    placed: Ints
    standing: Ints
    wanted: Floats
    must: Floats
    singles: Ints
    costs: Floats
    work_left: int

    @classmethod
    def of(
        cls,
        holds: Sequence[Sequence[tuple[int, int]]],
        placed: Ints,
        base: Ints,
        wanted: Floats,
        must: Floats,
        singles: Ints,
        *,
        work: int,
    ) -> Position:
        """`work` is how many rows (step x class) may be evaluated."""
        start = np.cumsum([0, *(len(atom) for atom in holds)])
        pairs = np.array([pair for atom in holds for pair in atom], dtype=np.int64)
        standing = base.copy()
        owner = np.repeat(np.arange(len(holds)), np.diff(start))
        np.add.at(standing, pairs[:, 0], pairs[:, 1:] * placed[owner])
        costs = _filled_costs(standing, singles, wanted, must)
        return cls(
            start, pairs[:, 0], pairs[:, 1], placed.copy(), standing, wanted, must, singles, costs, work
        )

    def total(self) -> tuple[float, ...]:
        return tuple(settle(self.costs.sum(axis=0)).tolist())


@dataclass(frozen=True, slots=True)
class Steps:
    """Step i takes an atom of kind `out[i]` from part `here[i]` to `there[i]`, and one of `back[i]` the
    other way (-1: none)."""

    out: Ints
    here: Ints
    there: Ints
    back: Ints

    def __len__(self) -> int:
        return len(self.out)

    def at(self, index: Ints) -> Steps:
        return Steps(self.out[index], self.here[index], self.there[index], self.back[index])


def descend(position: Position, bounds: Floats) -> Ints:
    """(kinds, parts) the best assignment met. Kicks only while a class is missing or beyond its tolerance
    somewhere although `bounds` (classes, 3) does not demand it.
    """
    goal = tuple(settle(bounds.sum(axis=0)).tolist())[:2]
    rng = np.random.default_rng(0)  # the kinds come in the order that the seed drew
    to_optimum(position, bounds)
    best, best_placed = position.total(), position.placed.copy()
    fruitless = 0
    while position.work_left > 0 and best[:2] > goal and fruitless < MOST_KICKS:
        fruitless += 1
        _kick(position, rng)
        to_optimum(position, bounds)
        if position.total() < best:
            fruitless = 0
            best, best_placed = position.total(), position.placed.copy()
        else:
            _go_to(position, best_placed)
    return best_placed


def to_optimum(position: Position, bounds: Floats) -> None:
    """Take improving moves while there are any, then swaps, until neither helps or the work is done."""
    turn = 0
    while position.work_left > 0:
        if _pass_of_moves(position, bounds):
            turn = 0
            continue
        swaps, last = _swaps(position, bounds, turn)
        if _take_best(position, swaps):
            turn = 0
        elif last:
            return
        else:
            turn += 1


def _late_kinds(position: Position, bounds: Floats) -> Ints:
    """Kinds with a class that costs more than it must; only steps of these can help."""
    late = (settle(position.costs) != settle(bounds)).any(axis=1)
    hit: Ints = np.flatnonzero(np.add.reduceat(late[position.classes], position.start[:-1]))
    return hit


def _pass_of_moves(position: Position, bounds: Floats) -> bool:
    """Try each late kind once, a few at a time; True when any of it helped."""
    kinds, parts = _late_kinds(position, bounds), position.placed.shape[1]
    rows_each = max(1.0, len(position.classes) / len(position.placed)) * parts
    few = max(1, int(_FEW_ROWS / rows_each))
    helped = False
    for begin in range(0, len(kinds), few):
        if position.work_left <= 0:
            break
        helped |= _take_best(position, _moves(position, kinds[begin : begin + few]))
    return helped


def _moves(position: Position, kinds: Ints) -> Steps:
    parts = position.placed.shape[1]
    out, here, there = (a.ravel() for a in np.meshgrid(kinds, range(parts), range(parts), indexing="ij"))
    real = (here != there) & (position.placed[out, here] > 0)
    return Steps(out[real], here[real], there[real], np.full(int(real.sum()), -1))


def _swaps(position: Position, bounds: Floats, turn: int) -> tuple[Steps, bool]:
    """A slice of all swaps, another one each turn, and whether it was the last."""
    late, (kinds, parts) = _late_kinds(position, bounds), position.placed.shape
    every = len(late) * kinds * parts * parts
    size = _AT_ONCE // 4
    number = np.arange(turn * size, min((turn + 1) * size, every))
    spread = _coprime_near(every * 0.618, every)
    index = np.unravel_index((number * spread) % max(every, 1), (len(late), kinds, parts, parts))
    out, back, here, there = late[index[0]], index[1], index[2], index[3]
    real = (out != back) & (here != there)
    real &= (position.placed[out, here] > 0) & (position.placed[back, there] > 0)
    return Steps(out[real], here[real], there[real], back[real]), (turn + 1) * size >= every


def _coprime_near(value: float, n: int) -> int:
    """A step that visits all of 0..n-1, far apart at first."""
    step = max(1, int(value))
    while np.gcd(step, max(n, 1)) != 1:
        step += 1
    return step


def _take_best(position: Position, steps: Steps) -> bool:
    """Take the improving steps, the best first, each class touched once; False when none improves."""
    change = changes(position, steps)
    good = np.flatnonzero(is_better(change))
    if not len(good):
        return False
    order = good[np.lexsort(settle(change[good]).T[::-1])]
    touched = np.zeros(len(position.costs), dtype=bool)
    for i in order.tolist():
        classes = _classes_of(position, steps, i)
        if not touched[classes].any():
            touched[classes] = True
            _take(position, steps, i)
    _recost(position, np.flatnonzero(touched))
    return True


def changes(position: Position, steps: Steps) -> Floats:
    """(steps, 3) by how much each step would change the cost."""
    change = np.zeros((len(steps), position.costs.shape[1]))
    for begin in range(0, len(steps), _AT_ONCE):
        chunk = np.arange(begin, min(begin + _AT_ONCE, len(steps)))
        change[chunk] = _changes(position, steps.at(chunk))
    return change


def _changes(position: Position, steps: Steps) -> Floats:
    step, c, n = _rows_of(position, steps)
    position.work_left -= len(step) + _CALL
    standing = position.standing[c]
    rows = np.arange(len(step))
    standing[rows, steps.here[step]] -= n
    standing[rows, steps.there[step]] += n
    costs = _filled_costs(standing, position.singles[c], position.wanted[c], position.must)
    costs -= position.costs[c]
    return np.stack([np.bincount(step, column, len(steps)) for column in costs.T], axis=1)


def _rows_of(position: Position, steps: Steps) -> tuple[Ints, Ints, Ints]:
    """(step, class, images that leave `here` for `there`) for every class a step touches, once each."""
    swapped = np.flatnonzero(steps.back >= 0)
    step_out, entry_out = _entries(position, np.arange(len(steps)), steps.out)
    step_back, entry_back = _entries(position, swapped, steps.back[swapped])
    step, entry = np.concatenate([step_out, step_back]), np.concatenate([entry_out, entry_back])
    n = position.images[entry] * np.repeat([1, -1], [len(entry_out), len(entry_back)])
    width = len(position.costs)
    key, where = np.unique(step * width + position.classes[entry], return_inverse=True)
    total = np.bincount(where, n, len(key)).astype(np.int64)
    return key // width, key % width, total


def _entries(position: Position, step: Ints, kind: Ints) -> tuple[Ints, Ints]:
    """The steps repeated for each class their kind holds, and the places of these in `classes`."""
    lengths = position.start[kind + 1] - position.start[kind]
    offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(step, lengths), np.repeat(position.start[kind], lengths) + offset


def _classes_of(position: Position, steps: Steps, i: int) -> Ints:
    kinds = [k for k in (int(steps.out[i]), int(steps.back[i])) if k >= 0]
    return np.concatenate([position.classes[position.start[k] : position.start[k + 1]] for k in kinds])


def _take(position: Position, steps: Steps, i: int) -> None:
    here, there = int(steps.here[i]), int(steps.there[i])
    _shift(position, int(steps.out[i]), here, there)
    if steps.back[i] >= 0:
        _shift(position, int(steps.back[i]), there, here)


def _shift(position: Position, kind: int, here: int, there: int) -> None:
    held = slice(position.start[kind], position.start[kind + 1])
    position.placed[kind, here] -= 1
    position.placed[kind, there] += 1
    position.standing[position.classes[held], here] -= position.images[held]
    position.standing[position.classes[held], there] += position.images[held]


def _kick(position: Position, rng: np.random.Generator) -> None:
    """Put a few atoms elsewhere at random."""
    for kind in rng.integers(len(position.placed), size=_KICKED).tolist():
        here = int(rng.choice(np.flatnonzero(position.placed[kind])))
        _shift(position, kind, here, int(rng.integers(position.placed.shape[1])))
    _recost(position, np.arange(len(position.costs)))


def _go_to(position: Position, placed: Ints) -> None:
    """Stand exactly as in `placed` again."""
    owner = np.repeat(np.arange(len(placed)), np.diff(position.start))
    shift = (placed - position.placed)[owner] * position.images[:, None]
    np.add.at(position.standing, position.classes, shift)
    position.placed[:] = placed
    _recost(position, np.arange(len(position.costs)))


def _recost(position: Position, classes: Ints) -> None:
    position.work_left -= len(classes) + _CALL
    position.costs[classes] = _filled_costs(
        position.standing[classes], position.singles[classes], position.wanted[classes], position.must
    )


def _filled_costs(standing: Ints, singles: Ints, wanted: Floats, must: Floats) -> Floats:
    return class_costs(standing + fill_with_singles(standing, singles, wanted, must), wanted, must)
