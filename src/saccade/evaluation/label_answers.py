"""From validation logits to the answers of a model that may name several labels: temperatures, thresholds.

Every label is a yes or no of its own. What is fitted to a label must hold on validation images held out from
it, else it is that of all labels together, else nothing is changed. A threshold for a precision is not held
out: with few images it is at least that of all labels together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.deciding import NEVER
from saccade.evaluation.calibration import (
    LEAST_IMAGES,
    SHARPENING_IMAGES,
    choose_temperature,
    held_out_folds,
)

# Images with a label, and without it: with fewer, all labels decide together. Copies count once.
LEAST_WITH, LEAST_WITHOUT = 5, 5
MOST_OWN = 200  # labels that have temperatures of their own
USUAL_THRESHOLD = 0.5  # the same as of a file without thresholds (artefact.py)
NAMED = 3
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Choose = Callable[[Floats, Bools], float]  # the threshold for (images,) probabilities and truth


@dataclass(frozen=True, slots=True)
class Chosen:
    """(classes,) values, and what is to be said about them ("" where there is nothing)."""

    values: tuple[float, ...]
    note: str = ""


def choose_temperatures(
    logits: Floats, truth: Bools, groups: Sequence[str], classes: Sequence[str]
) -> Chosen:
    """A temperature for each label, by the rules of `choose_temperature`; of all of them where few have it.

    logits, truth: (images, classes) of the validation part. groups: (images,) what is held out together.
    """
    images, count = logits.shape
    if images < LEAST_IMAGES:
        return Chosen(
            (1.0,) * count, f"temperatures left at 1: {images} validation images are too few to fit them"
        )
    shared = choose_temperature(
        _two_classes(logits.ravel()), truth.ravel(), np.repeat(groups, count).tolist()
    )
    together = shared.value if images >= SHARPENING_IMAGES else max(1.0, shared.value)
    own = _with_enough(truth, groups) & (count <= MOST_OWN)
    values = [
        choose_temperature(_two_classes(column), labels, list(groups)).value if enough else together
        for column, labels, enough in zip(logits.T, truth.T, own, strict=True)
    ]
    few = [name for name, enough in zip(classes, own, strict=True) if not enough]
    return Chosen(tuple(values), _told("the temperature", few) if count <= MOST_OWN else "")


def _two_classes(logits: Floats) -> Floats:
    """A sigmoid of a logit is the softmax of 0 and it."""
    return np.column_stack([np.zeros_like(logits), logits])


def _with_enough(truth: Bools, groups: Sequence[str]) -> Bools:
    held, lacking = _groups_with(truth, groups), _groups_with(~truth, groups)
    return np.asarray((held >= LEAST_WITH) & (lacking >= LEAST_WITHOUT))


def _groups_with(marked: Bools, groups: Sequence[str]) -> NDArray[np.int64]:
    """(classes,) the number of groups that have an image which is marked; `marked` is (images, classes)."""
    names = np.asarray(groups)
    order = np.argsort(names, kind="stable")
    starts = np.unique(names[order], return_index=True)[1]
    return np.asarray(np.logical_or.reduceat(marked[order], starts, axis=0).sum(axis=0), dtype=np.int64)


def _told(what: str, few: Sequence[str]) -> str:
    """Which labels share what all labels chose together."""
    if not few:
        return ""
    return f"{what} of {_shown(few)} is that of all labels together: too few validation images with them"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def choose_thresholds(
    probabilities: Floats,
    truth: Bools,
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    precision: float = 0.0,
) -> Chosen:
    """The probability from which on each label is named: where F1 is best, or `precision` is reached.

    probabilities, truth: (images, classes) of the validation part. groups: (images,) what is held out
    together. A threshold for F1 is kept only where it is as good on validation images held out from it as
    that of all labels, which in turn must be as good as 0.5. That for a precision is the lowest for these
    very images, so new ones may have less.
    """
    if precision:
        return _for_precision(probabilities, truth, groups, classes, precision)
    fold_of = held_out_folds(groups) if len(groups) else np.zeros(0, np.int64)
    pooled, repeated = (probabilities.ravel(), truth.ravel()), np.repeat(fold_of, truth.shape[1])
    together = _kept(best_f1_threshold, *pooled, repeated, USUAL_THRESHOLD)
    own = _with_enough(truth, groups)
    values = [
        _kept(best_f1_threshold, found, labels, fold_of, together) if enough else together
        for found, labels, enough in zip(probabilities.T, truth.T, own, strict=True)
    ]
    return Chosen(
        tuple(values),
        _told("the threshold", [name for name, enough in zip(classes, own, strict=True) if not enough]),
    )


def _kept(
    choose: Callable[[Floats, Bools], float],
    found: Floats,
    truth: Bools,
    fold_of: NDArray[np.int64],
    usual: float,
) -> float:
    """What `choose` finds, where it holds on images held out from it; else `usual`."""
    if not truth.any() or fold_of.max() == 0:
        return usual
    named = np.zeros_like(truth)
    for fold in range(fold_of.max() + 1):
        out = fold_of == fold
        named[out] = found[out] >= (choose(found[~out], truth[~out]) if truth[~out].any() else usual)
    return choose(found, truth) if _f1(named, truth) >= _f1(found >= usual, truth) else usual


def _f1(named: Bools, truth: Bools) -> float:
    right = int((named & truth).sum())
    return 2 * right / max(1, int(named.sum()) + int(truth.sum()))


def best_f1_threshold(probabilities: Floats, truth: Bools) -> float:
    """In the middle of the gap between two probabilities at which F1 is best; the highest of equals.

    >>> best_f1_threshold(np.array([0.9, 0.6, 0.2]), np.array([True, True, False]))
    0.4
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked, found = probabilities[order], np.cumsum(truth[order])
    f1 = 2 * found / (np.arange(1, len(ranked) + 1) + found[-1])
    last = np.append(ranked[1:] != ranked[:-1], True)  # equal probabilities are named together
    best = int(np.where(last, f1, -1.0).argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)


def _for_precision(
    found: Floats, truth: Bools, groups: Sequence[str], classes: Sequence[str], wanted: float
) -> Chosen:
    """With few images at least the threshold of all labels together: one right answer is no precision."""
    together = precision_threshold(found.ravel(), truth.ravel(), wanted)
    if len(set(groups)) < LEAST_IMAGES:
        together = max(together, USUAL_THRESHOLD)
    own = _with_enough(truth, groups)
    limits = [precision_threshold(p, t, wanted) for p, t in zip(found.T, truth.T, strict=True)]
    values = [limit if enough else max(limit, together) for limit, enough in zip(limits, own, strict=True)]
    judged = list(zip(classes, values, own, strict=True))
    never = [name for name, value, _ in judged if value == NEVER]
    few = [name for name, value, enough in judged if value != NEVER and not enough]
    notes = []
    if never:
        notes.append(
            f"never named, for no threshold is shown to have a precision of {wanted:g}: {_shown(never)}"
        )
    if few:
        why = "too few validation images with them"
        notes.append(f"the threshold of {_shown(few)} is at least that of all labels together: {why}")
    return Chosen(tuple(values), "; ".join(notes))


def precision_threshold(probabilities: Floats, truth: Bools, wanted: float) -> float:
    """The lowest threshold with that precision, in the middle of a gap; NEVER where there is none.

    >>> precision_threshold(np.array([0.9, 0.6, 0.4, 0.2]), np.array([True, True, False, False]), 0.9)
    0.5
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked, found = probabilities[order], np.cumsum(truth[order])
    last = np.append(ranked[1:] != ranked[:-1], True)
    reached = np.flatnonzero(last & (found >= wanted * np.arange(1, len(ranked) + 1)) & (found > 0))
    if not len(reached):
        return NEVER
    place = int(reached[-1])
    return float((ranked[place] + (ranked[place + 1] if place + 1 < len(ranked) else 0.0)) / 2)
