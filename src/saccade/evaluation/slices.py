"""Slices: images with a property in common, other than their label, with more mistakes than the rest."""

from __future__ import annotations

import warnings
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
STARTS, ITERATIONS = 2, 30
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
    """The images of each name that `FEWEST` or more have; those without one, "", are in none."""
    known, of, counts = np.unique(np.array(names, dtype=str), return_inverse=True, return_counts=True)
    often = np.flatnonzero((counts >= FEWEST) & (known != ""))
    return [Slice(kind, str(known[i]), of == i) for i in often]


def clusters(features: NDArray[np.float32], *, seed: int = 0) -> list[Slice]:
    """Images that look alike to the network: clusters of the features (images, F), few and more of them."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    found = []
    for count in CLUSTERS:
        if count * FEWEST <= len(features):
            means = KMeans(count, n_init=STARTS, max_iter=ITERATIONS, random_state=seed)
            # several threads add up in any order; equal images make fewer clusters, which is no news
            with threadpool_limits(1, "openmp"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                of = means.fit_predict(features)
            found += [Slice("look", f"cluster {i + 1} of {count}", of == i) for i in range(count)]
    return found


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
    from scipy.stats import false_discovery_control

    p = np.array([chance(wrong, one.rows, groups) for one in tried])
    adjusted = false_discovery_control(p)
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
    return chance(wrong[left], rows[left], Groups.numbered(groups.of[left]))


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


def _accuracy(wrong: NDArray[np.bool_], rows: NDArray[np.bool_], groups: Groups) -> Interval:
    right = 1.0 - wrong[rows]
    worth = groups.worth(right, np.flatnonzero(rows))
    return wilson_of_share(float(right.mean()), worth.images, worth.z)
