"""Images that belong together: what they are worth as independent ones, and draws that keep them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.intervals import Z_95, student_95

MOST_AT_ONCE = 250_000  # weights of resamples held at once: 2 MB, which a processor's cache holds


class Worth(NamedTuple):
    """As how many independent images some count, and the quantile that their interval takes.

    `units`: how many groups they are in, or images where these stand alone.
    """

    images: float
    z: float
    units: int


@dataclass(frozen=True, slots=True)
class Groups:
    """Which images belong together. `of` (images,) is the number of each one's group, from 0 to `count` - 1.

    Images of one patient, video or site, and near-duplicates, are often right or wrong together. Counted as
    independent they make an interval too narrow.

    >>> groups = Groups.named(["ann", "bob", "ann"])
    >>> groups.of.tolist(), groups.count, groups.some
    ([0, 1, 0], 2, True)
    """

    of: NDArray[np.int64]
    count: int

    @classmethod
    def named(cls, names: Sequence[str]) -> Groups:
        """Those that have the same name."""
        number = {name: i for i, name in enumerate(sorted(set(names)))}
        return cls(np.array([number[name] for name in names], dtype=np.int64), len(number))

    @classmethod
    def numbered(cls, numbers: NDArray[np.int64]) -> Groups:
        """Those that have the same number, whatever it is.

        >>> Groups.numbered(np.array([7, 3, 7])).of.tolist()
        [1, 0, 1]
        """
        known, of = np.unique(numbers, return_inverse=True)
        return cls(of.astype(np.int64), len(known))

    @classmethod
    def alone(cls, images: int) -> Groups:
        """Each image by itself."""
        return cls(np.arange(images), images)

    @property
    def some(self) -> bool:
        """Whether any two images belong together."""
        return self.count < len(self.of)

    def worth(self, values: NDArray[Any], rows: NDArray[np.int64]) -> Worth:
        """What the images `rows` are worth for the mean of their `values`, both (rows,).

        As many as would give the mean the variance that it has between groups; never more than there are.
        The quantile is Student's with a degree of freedom less than groups. Source: E. L. Korn and B. I.
        Graubard, Survey Methodology 24 (1998) 193-201, with Wilson's interval in place of Clopper's.

        >>> groups = Groups.named(["ann", "ann", "bob", "bob"])
        >>> round(groups.worth(np.array([1, 1, 0, 0]), np.arange(4)).images, 2)
        1.33
        """
        if not self.some:
            return Worth(float(len(rows)), Z_95, len(rows))
        groups, of = np.unique(self.of[rows], return_inverse=True)
        if len(groups) == len(rows):
            return Worth(float(len(rows)), Z_95, len(rows))
        effect = _effect(np.asarray(values, np.float64) - values.mean(), of)
        return Worth(len(rows) / effect, student_95(max(1, len(groups) - 1)), len(groups))

    def effect(self, influence: NDArray[np.float64]) -> float:
        """How many times its variance a figure has because of the groups; at least 1.

        influence: (images,) by how much each image moves the figure.
        """
        return _effect(influence, self.of) if self.some else 1.0

    def variance(self, influence: NDArray[np.float64]) -> float:
        """Of a figure which each image moves by `influence` (images,); infinite where there is one group."""
        sums = np.bincount(self.of, weights=influence, minlength=self.count)
        return float(sums @ sums) * self.count / (self.count - 1) if self.count > 1 else np.inf

    def resampled(self, *, seed: int, resamples: int) -> Iterator[NDArray[np.float64]]:
        """Bootstrap: (some resamples, images) how often each image is drawn, its group as a whole.

        As many groups are drawn as there are, with replacement, so that the number of images varies.

        >>> drawn = np.concatenate(list(Groups.named(["ann", "bob", "ann"]).resampled(seed=0, resamples=9)))
        >>> drawn.shape, bool((drawn[:, 0] == drawn[:, 2]).all())
        ((9, 3), True)
        """
        generator = np.random.default_rng(seed)
        at_once = max(1, MOST_AT_ONCE // len(self.of))
        for start in range(0, resamples, at_once):
            rows = min(at_once, resamples - start)
            drawn = generator.integers(self.count, size=(rows, self.count))
            drawn += self.count * np.arange(rows)[:, None]
            times = np.bincount(drawn.ravel(), minlength=rows * self.count).reshape(rows, self.count)
            yield (times.take(self.of, axis=1) if self.some else times).astype(np.float64)


def _effect(influence: NDArray[np.float64], of: NDArray[np.int64]) -> float:
    """Where all images agree, nothing shows how alike those of a group are: they are taken to be the same."""
    images, sizes = len(influence), np.bincount(of).astype(np.float64)
    sums, groups = np.bincount(of, weights=influence), int((sizes > 0).sum())
    alike = float(sizes @ sizes) / images
    independent = float(influence @ influence) * images / max(1, images - 1)
    if groups < 2 or independent <= np.finfo(np.float64).tiny:
        return alike
    return max(1.0, float(sums @ sums) * groups / (groups - 1) / independent)


def mean_quantile(worth: Sequence[Worth], groups: int) -> float:
    """The quantile for a mean over classes whose images are worth this: Student's where they come in groups.

    Its degrees of freedom are Satterthwaite's, of variances that fall with the number of groups, but fewer
    than the `groups` of all classes: one group may hold images of many. Source: F. E. Satterthwaite,
    Biometrics Bulletin 2 (1946) 110-114.

    >>> mean_quantile([Worth(9.0, 2.3, 9), Worth(900.0, 1.96, 900)], 909).__round__(2)  # the few decide
    2.31
    """
    if all(one.z <= Z_95 for one in worth):
        return Z_95
    spreads = [1 / one.units for one in worth]
    lost = sum(spread**2 / max(1, one.units - 1) for spread, one in zip(spreads, worth, strict=True))
    return student_95(max(1, min(int(round(sum(spreads) ** 2 / lost, 9)), groups - 1)))
