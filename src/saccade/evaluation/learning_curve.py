"""What more images would bring: a figure at several numbers of training images, carried on by a power law.

The error at n images is taken to be a + b n^-c: it falls ever more slowly, towards an asymptote. Source:
C. Cortes et al., Learning Curves: Asymptotic Values and Rate of Convergence, NIPS 6 (1993) 327-334. That such
laws are among the best for classifiers: T. Viering and M. Loog, The Shape of Learning Curves, IEEE Trans.
Pattern Anal. Mach. Intell. 45 (2023) 7799-7819.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARES = (0.12, 0.2, 0.33, 0.5, 0.75)  # of the training images, besides all of them
DRAWS = 5
MULTIPLES = (1.25, 1.5, 2.0, 3.0, 4.0)  # of the training images; nothing is told beyond the last
TAIL = 0.05  # of either side of the 90 % band
RESAMPLES = 400
LEAST_GAIN = 0.01  # a smaller one is not worth a sentence
HARDLY = 0.02  # where even the upper end of the band gains less, more images hardly help

# Bounds of the power law: exponents found for classifiers lie between 0.2 and 1, that of fitting a fixed
# number of weights. The asymptote lies between no error and the mean of all sizes, which is no curve at all;
# small ones are tried more often.
EXPONENTS = np.geomspace(0.2, 1.0, 9)
ASYMPTOTES = np.linspace(0, 1, 21) ** 2
MISFIT = 0.02  # share of the error by which the law itself may be off
DEGREES = 4  # of Student's t, so that one size that is far off does not decide


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure, such as accuracy, by the number of training images.

    `images`, `values`, `lowest`, `highest` (sizes,) are as measured: means over the draws, their least and
    their most. The last size is all images. `now` is the law's figure there. `gain`, `low`, `high`
    (multiples,): what so many times the images would add to it, and the 90 % band of that.
    """

    images: NDArray[np.float64]
    values: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    now: float
    multiples: NDArray[np.float64]
    gain: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def told(self) -> int | None:
        """The first multiple with a gain worth telling and a band no wider than the gain; None for none."""
        sure = (self.gain >= LEAST_GAIN) & (self.high - self.low <= self.gain)
        return int(sure.argmax()) if sure.any() else None

    @property
    def flat(self) -> bool:
        """Whether even the largest multiple would hardly add anything."""
        return bool(self.high[-1] < HARDLY)


def nested_draws(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    shares: tuple[float, ...] = SHARES,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[list[NDArray[np.int64]]]:
    """Rows of `draws` random parts of the images at each of the `shares`, each part within the next larger.

    labels, groups: (images,). Groups are drawn whole, each with its most frequent class. Each part has its
    share of every class as nearly as whole groups allow, and at least one group.

    >>> labels, groups = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    >>> drawn = nested_draws(labels, groups, shares=(0.5,), draws=2)
    >>> [np.unique(groups[parts[0]], return_counts=True)[1].tolist() for parts in drawn]  # one of each class
    [[2, 2], [2, 2]]
    """
    _, of = np.unique(groups, return_inverse=True)
    counts = np.zeros((of.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (of, labels), 1)
    main, sizes = counts.argmax(axis=1), counts.sum(axis=1)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        enters = _entries(main, sizes, generator.permutation(len(counts)))[of]
        drawn.append([np.flatnonzero(enters <= share) for share in shares])
    return drawn


def _entries(
    main: NDArray[np.int64], sizes: NDArray[np.int64], order: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(groups,) the share of its class from which on each group is drawn: where its middle comes in."""
    enters = np.zeros(len(order))
    for label in np.unique(main):
        own = order[main[order] == label]
        ends = sizes[own].cumsum()
        enters[own] = (ends - sizes[own] / 2) / ends[-1]
        enters[own[0]] = 0.0
    return enters


def carried_on(
    images: NDArray[np.float64],
    right: NDArray[np.bool_],
    *,
    multiples: tuple[float, ...] = MULTIPLES,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Curve:
    """The curve of the share that is right, with what more images would add.

    images: (sizes,) that heads were fitted on, ascending, the last all of them. right: (draws, sizes, judged
    images), whether each head was right; at the last size all draws are the same. The draws are resampled; to
    each resample a law is taken at random, as likely as it explains what was measured. The band also holds
    what the luck of the images drawn does to a single head.
    """
    draws, _, judged = right.shape
    errors = 1 - right.mean(axis=2)  # (draws, sizes)
    share = np.minimum(images / images[-1], 1.0)
    luck = _luck(images, errors, share)
    floor = max(0.5 / judged, MISFIT * float(errors.mean()))
    # all draws share the luck of the whole
    variance = luck / images * ((1 - share) / draws + share) + floor**2
    generator = np.random.default_rng(seed)
    chosen = generator.integers(draws, size=(resamples, draws))
    a, b, c = _power_laws(share, errors[chosen].mean(axis=1), variance, generator)
    times = np.asarray(multiples)
    carried = a[:, None] + b[:, None] * times ** -c[:, None]  # (resamples, multiples)
    gain = (a + b)[:, None] - carried
    gain += generator.normal(size=(resamples, 1)) * np.sqrt(luck / images[-1] * (1 - 1 / times))
    low, middle, high = np.quantile(gain, (TAIL, 0.5, 1 - TAIL), axis=0)
    values = 1 - errors
    return Curve(
        images,
        values.mean(axis=0),
        values.min(axis=0),
        values.max(axis=0),
        float(np.median(1 - a - b)),
        times,
        middle,
        low,
        high,
    )


def _luck(images: NDArray[np.float64], errors: NDArray[np.float64], share: NDArray[np.float64]) -> float:
    """Variance of the error of a head between sets of images, times their number.

    That of parts of the same images is smaller by the share that they have in common.
    """
    spread = errors[:, :-1].var(axis=0, ddof=1) * images[:-1] / np.maximum(1 - share[:-1], 0.05)
    return float(spread.mean())


def _power_laws(
    share: NDArray[np.float64],
    errors: NDArray[np.float64],
    variance: NDArray[np.float64],
    generator: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(resamples,) each a, b, c of an error a + b share^-c, drawn by likelihood out of a grid of a and c.

    share, variance: (sizes,). errors: (resamples, sizes). b is the best for a and c, and never negative.
    """
    powers = share ** -EXPONENTS[:, None]  # (c, sizes)
    weights = 1 / variance
    level = (errors @ weights / weights.sum())[:, None]
    a = ASYMPTOTES * level  # (resamples, a)
    above = errors[:, None, None, :] - a[:, :, None, None]  # (resamples, a, 1, sizes)
    b = np.maximum((above * powers * weights).sum(-1) / (powers**2 * weights).sum(-1), 0)  # (resamples, a, c)
    off = ((above - b[..., None] * powers) ** 2 * weights) / DEGREES
    likelihood = -(DEGREES + 1) / 2 * np.log1p(off).sum(-1)
    # the largest of sums with Gumbel noise is a draw by likelihood
    best = (likelihood + generator.gumbel(size=likelihood.shape)).reshape(len(errors), -1).argmax(axis=1)
    rows, (i, j) = np.arange(len(errors)), np.unravel_index(best, likelihood.shape[1:])
    return a[rows, i], b[rows, i, j], EXPONENTS[j]
