"""How far a figure measured on n images may lie from the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.records import Interval

Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
TAIL = 0.025  # of either side
FEWEST_DEGREES = (math.inf, 12.7062047, 4.3026527)  # Student's 97.5 % quantile of 0, 1, 2 degrees
ROUNDING = 1e-9  # numbers of images that are shares of others
RESAMPLES = 400  # the 2.5 % quantile then rests on 10 resamples; more changes the second digit only


def wilson(successes: int, images: int) -> Interval:
    """95 % interval of a share; honest for few images and for shares near 0 and 1, unlike the normal one.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212. `images` must be at least 1.

    >>> nine_of_ten = wilson(9, 10)
    >>> round(nine_of_ten.low, 3), round(nine_of_ten.high, 3)
    (0.596, 0.982)
    """
    assert images > 0, "a share of no images has no interval"
    assert 0 <= successes <= images, f"{successes} of {images} is no share"
    return wilson_of_share(successes / images, images)


def wilson_of_share(share: float, images: float, z: float = Z_95) -> Interval:
    """Wilson's interval of a share that is worth `images` images, which need not be a whole number.

    z: quantile that the interval takes, of the normal distribution or of Student's.

    >>> round(wilson_of_share(0.9, 10.0).low, 3)
    0.596
    """
    spread = z**2 / images
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # rounding must not push a bound past the value or out of 0..1
    low = 0.0 if share <= 0 else min(centre - half, share)
    high = 1.0 if share >= 1 else max(centre + half, share)
    return Interval(share, low, high)


def f1_interval(right: int, wrong: int) -> Interval:
    """95 % interval of F1 from `right` = TP and `wrong` = FP + FN, not both 0.

    >>> f1_interval(8, 2).value.__round__(3)
    0.889
    """
    return f1_of_share(wilson(right, right + wrong))


def f1_of_share(share: Interval) -> Interval:
    """F1 of the share J that is right of the images that are, or are called, a class.

    J = TP / (TP + FP + FN) is a plain share with Wilson's interval. F1 = 2 J / (1 + J) rises with J, so its
    bounds are the bounds of J, mapped.

    >>> f1_of_share(Interval(0.5, 0.25, 1.0)).high
    1.0
    """
    value, low, high = (2 * j / (1 + j) for j in (share.value, share.low, share.high))
    return Interval(value, low, high)


def mean_interval(share: float, images: Sequence[float], z: float = Z_95) -> Interval:
    """95 % interval of the mean `share` of classes with so many `images` each, every class counting the same.

    Wilson's, with the number of images that a balanced part would need to say as much: classes squared
    over the sum of 1 / images. It equals the interval of the accuracy where the classes are balanced, is no
    surer than the smallest class, and never calls a perfect part certain, as a bootstrap would.

    >>> mean_interval(0.9, [5, 5]) == wilson(9, 10)
    True
    """
    return wilson_of_share(share, len(images) ** 2 / math.fsum(1 / n for n in images), z)


def widest(first: Interval, second: Interval) -> Interval:
    """Both intervals in one, around the first one's value.

    >>> widest(Interval(0.5, 0.4, 0.6), Interval(0.5, 0.45, 0.7))
    Interval(value=0.5, low=0.4, high=0.7)
    """
    return Interval(first.value, min(first.low, second.low), max(first.high, second.high))


def paired_change(lost: float, gained: float, images: float, z: float = Z_95) -> Interval:
    """95 % interval of the change of a share, where `lost` of `images` became wrong and `gained` right.

    Both shares get Wilson's interval, and the two are joined by the squares of their arms and the
    correlation: no image is lost and gained. Without a single change it still has a width, as three images in
    a hundred may differ that were not among these. z: as `wilson_of_share` has it.

    Source: G. Zou and A. Donner, Statist. Med. 27 (2008) 1693-1702.

    >>> change = paired_change(0, 0, 100)
    >>> round(change.low, 3), round(change.high, 3)
    (-0.037, 0.037)
    """
    assert 0 <= lost + gained <= images * (1 + ROUNDING), f"{lost} lost and {gained} gained of {images}"
    worse, better = wilson_of_share(lost / images, images, z), wilson_of_share(gained / images, images, z)
    change = better.value - worse.value
    both = worse.value * better.value
    tied = math.sqrt(both / ((1 - worse.value) * (1 - better.value))) if both else 0.0
    return Interval(
        change,
        change - _arm(worse.high - worse.value, better.value - better.low, tied),
        change + _arm(better.high - better.value, worse.value - worse.low, tied),
    )


def _arm(first: float, second: float, tied: float) -> float:
    """Of a difference of two figures with these arms, whose correlation is minus `tied`."""
    return math.sqrt(first**2 + second**2 + 2 * tied * first * second)


def images_needed(share: float, half_width: float) -> int:
    """How many images measure a share to +- `half_width` at 95 % (normal approximation).

    >>> images_needed(0.9, 0.02)
    865
    """
    return math.ceil(Z_95**2 * share * (1 - share) / half_width**2)


def resample_weights(images: int, *, seed: int, resamples: int = RESAMPLES) -> Iterator[NDArray[np.int64]]:
    """Bootstrap: how often each image, (images,), is drawn when drawing `images` times with replacement.

    Source: B. Efron, Ann. Statist. 7 (1979) 1-26. A function of `seed` alone.

    >>> [int(weights.sum()) for weights in resample_weights(5, seed=0, resamples=3)]
    [5, 5, 5]
    """
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(images, size=images), minlength=images)


def percentile_interval(value: float, resampled: NDArray[np.float64], units: int = 0) -> Interval:
    """Percentile interval at 95 %, widened where needed so that it holds `value`.

    Figures that cannot fall below 0, such as ECE, resample upwards and would else leave the value out. Where
    few `units` (images or groups) were drawn, the percentiles lie further out: as a bootstrap is too narrow
    by a factor of sqrt((units - 1) / units), and as Student's quantile stands to the normal one. Source:
    T. Hesterberg, What Teachers Should Know about the Bootstrap, Am. Stat. 69 (2015) 371-386.

    >>> percentile_interval(0.5, np.array([0.6, 0.7, 0.8])).low
    0.5
    """
    tail = _tail(units) if units else TAIL
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(value, min(float(low), value), max(float(high), value))


def sum_of_sizes_interval(parts: NDArray[np.float64], resampled: NDArray[np.float64], units: int) -> Interval:
    """95 % interval of the sum of the sizes of some `parts`, (parts,), which chance alone makes larger.

    resampled: (resamples, parts). units: images or groups that were drawn. The size of a part that is 0 in
    truth is 0.8 standard deviations on average; of one that is 2 deviations hardly anything is chance. The
    lower end leaves out what may be chance, the upper end half of what is. For up to 15 normal parts the
    interval holds the truth in 93 to 98 of 100 cases, and more often where all are about half a deviation.

    >>> found = sum_of_sizes_interval(np.array([0.1]), np.linspace(-0.1, 0.3, 101)[:, None], 100)
    >>> round(found.value, 2), round(found.low, 2), round(found.high, 2)
    (0.1, 0.0, 0.26)
    """
    deviations, sizes = resampled.std(axis=0), np.abs(parts)
    there = deviations > 0
    steps, deviations = sizes[there] / deviations[there], deviations[there]
    most = float(deviations @ _excess(np.sqrt(np.maximum(steps**2 - 2, 0))))
    least = float(deviations @ _excess(steps)) / 2
    value = float(sizes.sum())
    half = student_95(max(1, units - 1)) * float(np.abs(resampled).sum(axis=1).std())
    return Interval(value, max(0.0, value - most - half), max(value, value - least + half))


def _excess(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much the size of a normal figure exceeds that of its mean, on average, both in deviations."""
    tails = np.array([math.erfc(step / math.sqrt(2)) for step in steps])
    return np.asarray(2 * np.exp(-(steps**2) / 2) / math.sqrt(2 * math.pi) - steps * tails)


def _tail(units: int) -> float:
    """Share of the resamples on either side of the interval."""
    if units < 2:
        return 0.0
    return math.erfc(math.sqrt(units / (units - 1)) * student_95(units - 1) / math.sqrt(2)) / 2


def student_95(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, to 1 in 1,000; infinite for no degree of freedom.

    By Fisher's expansion (R. A. Fisher and E. A. Cornish, Technometrics 2 (1960) 209-225).

    >>> [round(student_95(degrees), 2) for degrees in (1, 4, 30)]
    [12.71, 2.78, 2.04]
    """
    if degrees < len(FEWEST_DEGREES):
        return FEWEST_DEGREES[degrees]
    z, d = Z_95, degrees
    terms = (
        (z**3 + z) / (4 * d),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * d**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * d**3),
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * d**4),
    )
    return z + math.fsum(terms)
