"""Slices: images with a property in common, other than their label, with more mistakes than the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.groups import Groups
from saccade.evaluation.intervals import wilson_of_share
from saccade.records import Interval

TAILS = (0.1, 0.25)  # of the images, at either end of a number
FEWEST = 10  # images of a slice, and of the rest
FEWEST_GROUPS = 5  # of a slice, where images belong together
MOST_SHARE = 0.5  # a slice of more of the images is no part of them
CLUSTERS = (5, 10, 20)
STARTS, ITERATIONS = 3, 30
FALSE_RATE = 0.05  # share of the slices found that may be by chance


@dataclass(frozen=True, slots=True)
class Slice:
    """Images `rows` bool (images,) with something in common: `kind` names the property, `words` say which."""

    kind: str
    words: str
    rows: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class WorseSlice:
    """A slice with its accuracy beside that of all other images, at 95 %.

    `p` is that of the exact test, `adjusted` what it is worth among all slices that were tried.
    """

    slice: Slice
    accuracy: Interval
    rest: Interval
    p: float
    adjusted: float


# -- slices ----------------------------------------------------------------------------------------------


def tails(kind: str, values: NDArray[np.float64], low: str, high: str, unit: str = "") -> list[Slice]:
    """The images at either end of a number (images,); NaN is in none.

    >>> [found.words for found in tails("brightness", np.arange(100.0), "darkest", "brightest")][:2]
    ['darkest 10 % (up to 9.9)', 'brightest 10 % (from 89.1)']
    """
    known = ~np.isnan(values)
    found = []
    for share in TAILS if known.any() else ():
        below, above = np.quantile(values[known], (share, 1 - share))
        part = f"{100 * share:.0f} %"
        found += [
            Slice(kind, f"{low} {part} (up to {_number(below)}{unit})", values <= below),
            Slice(kind, f"{high} {part} (from {_number(above)}{unit})", values >= above),
        ]
    return found


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def categories(kind: str, names: Sequence[str]) -> list[Slice]:
    """The images of each name; those without one, "", are in none."""
    of = np.array(names, dtype=object)
    return [Slice(kind, name, of == name) for name in sorted(set(names) - {""})]


def clusters(features: NDArray[np.float32], *, seed: int = 0) -> list[Slice]:
    """Images that look alike to the network: clusters of the features (images, F), few and more of them."""
    found = []
    for count in CLUSTERS:
        if count * FEWEST <= len(features):
            of = k_means(features, count, seed=seed)
            found += [Slice("look", f"cluster {i + 1} of {count}", of == i) for i in range(count)]
    return found


def k_means(features: NDArray[np.float32], count: int, *, seed: int = 0) -> NDArray[np.int64]:
    """(images,) cluster of each image, 0 to `count` - 1: Lloyd's steps from centres far apart, several times.

    Source of the start: D. Arthur and S. Vassilvitskii, k-means++, SODA (2007) 1027-1035.
    """
    squares, generator = (features**2).sum(axis=1), np.random.default_rng(seed)
    found = []
    for _ in range(STARTS):
        centres = features[[generator.integers(len(features))]]
        for _ in range(count - 1):
            nearest = _distances(features, squares, centres).min(axis=1) + 1e-12
            chosen = generator.choice(len(features), p=nearest / nearest.sum())
            centres = np.concatenate([centres, features[[chosen]]])
        found.append(_lloyd(features, squares, centres))
    return min(found, key=lambda one: one[0])[1]


def _lloyd(
    features: NDArray[np.float32], squares: NDArray[np.float32], centres: NDArray[np.float32]
) -> tuple[float, NDArray[np.int64]]:
    """Sum of squared distances to the nearest centre, and which that is, once centres move no more."""
    of = np.full(len(features), -1)
    for _ in range(ITERATIONS):
        distances = _distances(features, squares, centres)
        before, of = of, distances.argmin(axis=1)
        if (before == of).all():
            break
        for i in np.unique(of):
            centres[i] = features[of == i].mean(axis=0)
    return float(distances.min(axis=1).sum()), of.astype(np.int64)


def _distances(
    features: NDArray[np.float32], squares: NDArray[np.float32], centres: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(images, centres) squared distances, not below 0."""
    products = features @ centres.T
    distances = squares[:, None] - 2 * products + (centres**2).sum(axis=1)
    floored: NDArray[np.float64] = np.maximum(distances, 0).astype(np.float64)
    return floored


# -- tests -----------------------------------------------------------------------------------------------


def worth_trying(slices: Sequence[Slice]) -> list[Slice]:
    """Those of enough images and not too many, each set of images once."""
    sets: dict[bytes, Slice] = {}
    for one in slices:
        if FEWEST <= one.rows.sum() <= min(MOST_SHARE * len(one.rows), len(one.rows) - FEWEST):
            sets.setdefault(one.rows.tobytes(), one)
    return list(sets.values())


def worse_slices(wrong: NDArray[np.bool_], tried: Sequence[Slice], groups: Groups) -> list[WorseSlice]:
    """Slices whose images are more often wrong than the rest, the least likely by chance first.

    wrong: (images,). Fisher's exact test, one-sided, corrected for all that were tried: of what is found, at
    most 5 % are expected to be chance. Source: Y. Benjamini and Y. Hochberg, J. R. Stat. Soc. B 57 (1995)
    289-300. A slice that those found before explain is left out: it is tested again without their images.
    """
    p = np.array([chance(wrong, one.rows, groups) for one in tried])
    adjusted = adjusted_for_many(p)
    found: list[WorseSlice] = []
    left = np.ones(len(wrong), np.bool_)
    for i in np.lexsort((np.arange(len(p)), p)):
        one = tried[i]
        if adjusted[i] > FALSE_RATE:
            break
        correction = adjusted[i] / max(p[i], np.finfo(np.float64).tiny)
        if correction * _chance_among(left, wrong, one.rows, groups) <= FALSE_RATE:
            inside, rest = (_accuracy(wrong, rows, groups) for rows in (one.rows, ~one.rows))
            found.append(WorseSlice(one, inside, rest, float(p[i]), float(adjusted[i])))
            left &= ~one.rows
    return found


def _chance_among(
    left: NDArray[np.bool_], wrong: NDArray[np.bool_], rows: NDArray[np.bool_], groups: Groups
) -> float:
    """`chance` of the images `left` alone."""
    if not (rows & left).any() or not (~rows & left).any():
        return 1.0
    _, of = np.unique(groups.of[left], return_inverse=True)
    return chance(wrong[left], rows[left], Groups(of.astype(np.int64), int(of.max()) + 1))


def chance(wrong: NDArray[np.bool_], rows: NDArray[np.bool_], groups: Groups) -> float:
    """How likely so many wrong answers or more are among the images `rows` bool (images,) by chance alone.

    Where images belong together, those of the slice and of the rest count as the independent ones that
    they are worth (`Groups.worth`), and a slice of few groups proves nothing. Source: J. N. K. Rao and A. J.
    Scott, Biometrics 48 (1992) 577-585.
    """
    from scipy.stats import hypergeom

    inside, there, units = _counts(wrong, rows, groups)
    outside, elsewhere, _ = _counts(wrong, ~rows, groups)
    if units < FEWEST_GROUPS or there < 1:
        return 1.0
    mistakes = int(there) + int(np.ceil(elsewhere))
    return float(hypergeom.sf(int(there) - 1, int(inside) + int(outside), mistakes, int(inside)))


def _counts(wrong: NDArray[np.bool_], rows: NDArray[np.bool_], groups: Groups) -> tuple[float, float, int]:
    """What the images of `rows` are worth, how many of these are wrong, and of how many groups they are."""
    worth = groups.worth(wrong[rows], np.flatnonzero(rows))
    images = round(worth.images, 9)  # what is no whole number but for rounding
    return images, round(float(wrong[rows].mean()) * images, 9), worth.units


def adjusted_for_many(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """(tests,) the rate of false finds at which each would still be found, by Benjamini and Hochberg.

    >>> adjusted_for_many(np.array([0.01, 0.04, 0.5])).round(3).tolist()
    [0.03, 0.06, 0.5]
    """
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return adjusted


def _accuracy(wrong: NDArray[np.bool_], rows: NDArray[np.bool_], groups: Groups) -> Interval:
    right = 1.0 - wrong[rows]
    worth = groups.worth(right, np.flatnonzero(rows))
    return wilson_of_share(float(right.mean()), worth.images, worth.z)
