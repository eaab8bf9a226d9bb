"""How far a figure measured on n images may lie from the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.records import Interval

Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
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


def wilson_of_share(share: float, images: float) -> Interval:
    """Wilson's interval of a share that is worth `images` images, which need not be a whole number.

    >>> round(wilson_of_share(0.9, 10.0).low, 3)
    0.596
    """
    spread = Z_95**2 / images
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # rounding must not push a bound past the value or out of 0..1
    low = 0.0 if share <= 0 else min(centre - half, share)
    high = 1.0 if share >= 1 else max(centre + half, share)
    return Interval(share, low, high)


def f1_interval(right: int, wrong: int) -> Interval:
    """95 % interval of F1 from `right` = TP and `wrong` = FP + FN, not both 0.

    Of the images that are, or are called, this class, the share J = TP / (TP + FP + FN) is right: a plain
    share with Wilson's interval. F1 = 2 J / (1 + J) rises with J, so its bounds are the bounds of J, mapped.

    >>> f1_interval(8, 2).value.__round__(3)
    0.889
    """
    share = wilson(right, right + wrong)
    value, low, high = (2 * j / (1 + j) for j in (share.value, share.low, share.high))
    return Interval(value, low, high)


def mean_interval(share: float, images: Sequence[int]) -> Interval:
    """95 % interval of the mean `share` of classes with so many `images` each, every class counting the same.

    Wilson's, with the number of images that a balanced part would need to say as much: classes squared
    over the sum of 1 / images. It equals the interval of the accuracy where the classes are balanced, is no
    surer than the smallest class, and never calls a perfect part certain, as a bootstrap would.

    >>> mean_interval(0.9, [5, 5]) == wilson(9, 10)
    True
    """
    return wilson_of_share(share, len(images) ** 2 / math.fsum(1 / n for n in images))


def widest(first: Interval, second: Interval) -> Interval:
    """Both intervals in one, around the first one's value.

    >>> widest(Interval(0.5, 0.4, 0.6), Interval(0.5, 0.45, 0.7))
    Interval(value=0.5, low=0.4, high=0.7)
    """
    return Interval(first.value, min(first.low, second.low), max(first.high, second.high))


def paired_change(lost: float, gained: float, images: float) -> Interval:
    """95 % interval of the change of a share, where `lost` of `images` became wrong and `gained` right.

    Both shares get Wilson's interval, and the two are joined by the squares of their arms. Without a single
    change it still has a width, as three images in a hundred may differ that were not among these.

    Source: G. Zou and A. Donner, Statist. Med. 27 (2008) 1693-1702.

    >>> change = paired_change(0, 0, 100)
    >>> round(change.low, 3), round(change.high, 3)
    (-0.037, 0.037)
    """
    assert 0 <= lost + gained <= images * (1 + ROUNDING), f"{lost} lost and {gained} gained of {images}"
    worse, better = wilson_of_share(lost / images, images), wilson_of_share(gained / images, images)
    change = better.value - worse.value
    return Interval(
        change,
        change - math.hypot(worse.high - worse.value, better.value - better.low),
        change + math.hypot(better.high - better.value, worse.value - worse.low),
    )


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


def percentile_interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    """Percentile interval at 95 %, widened where needed so that it holds `value`.

    Figures that cannot fall below 0, such as ECE, resample upwards and would else leave the value out.

    >>> percentile_interval(0.5, np.array([0.6, 0.7, 0.8])).low
    0.5
    """
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(value, min(float(low), value), max(float(high), value))


def bootstrap(
    images: int, statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], *, seed: int
) -> NDArray[np.float64]:
    """(resamples, figures): `statistic` of each resample's weights, which returns (figures,) values.

    images: how many there are. statistic: takes (images,) weights. seed: of the resampling.

    >>> bootstrap(5, lambda weights: np.array([weights.max()]), seed=0).shape
    (400, 1)
    """
    return np.array([statistic(weights) for weights in resample_weights(images, seed=seed)])
