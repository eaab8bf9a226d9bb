"""Which of several models is better, and is the difference real? On the same images, image by image."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from saccade.errors import DataError
from saccade.evaluation.answers import check
from saccade.evaluation.groups import Groups
from saccade.evaluation.intervals import paired_change
from saccade.evaluation.metric_intervals import share_interval
from saccade.label_sets import split_labels
from saccade.records import Interval, Predictions

SIGNIFICANT = 0.05
FEWEST_COMMON = 6  # of fewer images no result differs by more than chance: 2 / 2 ** 5 is 0.06
DRAWS = 200  # of a bootstrap: a spread to 5 %


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same images. `difference` is accuracy of the first minus that of the second.

    Where an image may have several labels, accuracy is that of whole sets (exact match).

    `only_first` and `only_second` count the images that one alone gets right; the others decide nothing.
    `groups` counts what was tested as one: groups of images that belong together, or images. `p_value` is
    corrected where it is one of several `comparisons`.
    """

    images: int
    first_accuracy: float
    second_accuracy: float
    only_first: int
    only_second: int
    difference: Interval
    p_value: float
    groups: int
    comparisons: int = 1

    @property
    def real(self) -> bool:
        """Whether chance is ruled out at 5 %."""
        return self.p_value < SIGNIFICANT

    @property
    def shown(self) -> Interval:
        """The interval, no narrower than the verdict: where chance is not ruled out, 0 lies in it.

        It can be narrower than the exact test with few images that differ, or several comparisons.
        """
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        if self.real:
            return self.difference
        return Interval(value, min(low, 0.0), max(high, 0.0))

    @property
    def test(self) -> str:
        """The test by its name."""
        by_group = f" by {self.groups:,} groups" if self.groups < self.images else ""
        several = f", corrected by Holm for {self.comparisons} comparisons" if self.comparisons > 1 else ""
        return f"exact McNemar{by_group}{several}"

    def in_words(self, first: str, second: str) -> str:
        """One sentence for people, with the interval in points of accuracy and the number of images."""
        if not self.real:
            return (
                f"No real difference shown with {self.images} images: "
                f"{first} {_percent(self.first_accuracy)}, "
                f"{second} {_percent(self.second_accuracy)}, difference {_points(self.shown)}, "
                f"p = {self.p_value:.2g} ({self.test})."
            )
        better, worse, sign = (first, second, 1) if self.difference.value > 0 else (second, first, -1)
        return (
            f"{better} is better than {worse} by {_points(_signed(self.difference, sign))}, "
            f"p = {self.p_value:.2g} ({self.test}, {self.images} images)."
        )


def compare(first: Predictions, second: Predictions, groups: Mapping[str, str] | None = None) -> Comparison:
    """Compare two models by the images that only one of them gets right; raises DataError as `align` does.

    groups: by path of the first, the name of what each image belongs together with.
    """
    return compare_all(align([first, second]).predictions, groups)[0]


def compare_all(
    models: Sequence[Predictions], groups: Mapping[str, str] | None = None
) -> tuple[Comparison, ...]:
    """The first model with each other, on images that are aligned; p-values corrected for their number."""
    first, *others = models
    together = groups_of(first, groups)
    found = [compare_answers(correct(first), correct(other), together) for other in others]
    corrected = holm([one.p_value for one in found])
    return tuple(
        replace(one, p_value=p, comparisons=len(found)) for one, p in zip(found, corrected, strict=True)
    )


def groups_of(predictions: Predictions, groups: Mapping[str, str] | None) -> Groups:
    """What belongs together of these images; each stands alone where nothing is known."""
    return Groups.named([(groups or {}).get(path, path) for path in predictions.paths])


def compare_answers(first: NDArray[np.bool_], second: NDArray[np.bool_], groups: Groups) -> Comparison:
    """Two models by which images, (images,), each answers rightly."""
    gain = first.astype(np.int64) - second.astype(np.int64)
    images, only_first, only_second = len(gain), int((gain > 0).sum()), int((gain < 0).sum())
    worth = groups.worth(gain, np.arange(images))
    lost, gained = (count * worth.images / images for count in (only_second, only_first))
    return Comparison(
        images=images,
        first_accuracy=float(first.mean()),
        second_accuracy=float(second.mean()),
        only_first=only_first,
        only_second=only_second,
        difference=paired_change(lost, gained, worth.images, worth.z),
        p_value=mcnemar_by_group(gain, groups) if groups.some else mcnemar(only_first, only_second),
        groups=groups.count,
    )


def correct(predictions: Predictions) -> NDArray[np.bool_]:
    """(images,) whether each is answered rightly; with several labels, whether all of them are."""
    pairs = zip(predictions.labels, predictions.predicted, strict=True)
    if predictions.named is None:
        return np.array([label == answer for label, answer in pairs])
    return np.array([set(split_labels(label)) == set(split_labels(answer)) for label, answer in pairs])


def accuracy(predictions: Predictions, groups: Groups) -> Interval:
    """The share that is answered rightly, with its interval."""
    found = share_interval(correct(predictions), groups)
    assert found is not None, "there are images"
    return found


# -- tests -----------------------------------------------------------------------------------------------


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p: how often a fair coin is at least this one-sided.

    Source: Q. McNemar, Psychometrika 12 (1947) 153-157, with the binomial distribution itself.

    >>> mcnemar(9, 1)
    0.021484375
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    term = tail = 1  # binomial coefficients as exact integers, each from the one before
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << n))  # true division of integers: no overflow, rounded once


def mcnemar_by_group(gain: NDArray[np.int64], groups: Groups) -> float:
    """McNemar's test where images belong together: the coin is thrown once for each group, not each image.

    gain: (images,) 1 where the first alone is right, -1 where the second is, else 0. Were the two models
    alike, what a group gained could as well be lost. The p-value is the share of all such worlds with at
    least this difference. Where each group has one image it is McNemar's. Source: R. A. Fisher, The Design of
    Experiments (1935), section 21.

    >>> gain = np.array([1] * 9 + [-1])
    >>> round(mcnemar_by_group(gain, Groups.alone(10)), 9), mcnemar_by_group(gain[:2], Groups.named("aa"))
    (0.021484375, 1.0)
    """
    sums = np.bincount(groups.of, weights=gain, minlength=groups.count).astype(np.int64)
    sizes = np.abs(sums[sums != 0])
    chances = np.ones(1)  # of each sum over the groups whose coin fell on the first
    for size in sizes:
        chances = (np.pad(chances, (0, size)) + np.pad(chances, (size, 0))) / 2
    differences = np.abs(2 * np.arange(len(chances)) - sizes.sum())
    return min(1.0, float(chances[differences >= abs(int(sums.sum()))].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected so that 5 % is the chance of any false one.

    Source: S. Holm, Scand. J. Statist. 6 (1979) 65-70.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.array(p_values)
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in corrected]


def metric_tests(
    metric: Callable[[Predictions], float], models: Sequence[Predictions], groups: Groups, *, seed: int = 0
) -> list[float]:
    """p-value of each model but the first: that its figure differs from the first's by chance.

    models: aligned. A paired bootstrap: the same images, or groups, are drawn for all, and the spread of the
    differences goes into a normal test. It is for figures that are no share of the images; for accuracy
    `compare_all` is exact. Corrected by Holm where there are several.
    """
    drawn = [row for rows in groups.resampled(seed=seed, resamples=DRAWS) for row in rows.astype(np.int64)]
    taken = [np.repeat(np.arange(len(row)), row).tolist() for row in drawn]
    figures = np.array([[metric(_taken(model, rows)) for rows in taken] for model in models])
    values = [metric(model) for model in models]
    spreads = (figures[1:] - figures[0]).std(axis=1)
    differences = [abs(value - values[0]) for value in values[1:]]
    return holm([_normal_p(gap, spread) for gap, spread in zip(differences, spreads.tolist(), strict=True)])


def _normal_p(difference: float, spread: float) -> float:
    if difference == 0:
        return 1.0
    return math.erfc(difference / spread / math.sqrt(2)) if spread > 0 else 0.0


# -- the same images -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Aligned:
    """Predictions of several models for the images that all have: one order, paths and labels of the first.

    For each model: `left_out` counts its images that not all have, `relabelled` are paths whose label was
    another.
    """

    predictions: tuple[Predictions, ...]
    left_out: tuple[int, ...]
    relabelled: tuple[tuple[str, ...], ...]

    def judged_by(self, labels: Mapping[str, str]) -> Aligned:
        """The same, but images whose labels differed have that of `labels`, by path, where it names them."""
        doubted = {path for paths in self.relabelled for path in paths} & labels.keys()
        first = self.predictions[0]
        pairs = zip(first.paths, first.labels, strict=True)
        now = tuple(labels[path] if path in doubted else label for path, label in pairs)
        return replace(self, predictions=tuple(replace(model, labels=now) for model in self.predictions))

    def without(self, paths: Collection[str]) -> tuple[Predictions, ...]:
        """Predictions of the other images."""
        left = [row for row, path in enumerate(self.predictions[0].paths) if path not in paths]
        return tuple(_taken(model, left) for model in self.predictions)


def align(models: Sequence[Predictions], contents: Sequence[Mapping[str, str]] | None = None) -> Aligned:
    """The images that all models were measured on: of the same path, or else of the same bytes.

    contents: for each model, the SHA-256 of an image's file by its path; images of one path whose files are
    known to differ are not the same. Raises DataError where fewer than FEWEST_COMMON images are left of
    models that were measured on different ones, and where only some name several labels an image.
    """
    first = models[0]
    for model in models:
        check(model)
    if len({model.named is None for model in models}) > 1:
        raise DataError(
            "some of these models name one label an image, and others several",
            hint="compare models of the same kind",
        )
    known = contents or [{}] * len(models)
    places = [_places(first, known[0], model, own) for model, own in zip(models, known, strict=True)]
    common = [path for path in sorted(first.paths) if all(path in rows for rows in places)]
    left_out = tuple(len(model) - len(common) for model in models)
    if any(left_out) and len(common) < FEWEST_COMMON:
        raise DataError(
            f"these were measured on different images: {len(common)} are the same in all, of "
            f"{', '.join(f'{len(model):,}' for model in models)}",
            hint=(
                "evaluate all on the same data (`saccade evaluate RUN DATA`) and compare RUN/evaluations/NAME"
            ),
        )
    same = [
        _taken(model, [rows[path] for path in common]) for model, rows in zip(models, places, strict=True)
    ]
    labels = same[0].labels
    return Aligned(
        tuple(replace(model, paths=tuple(common), labels=labels) for model in same),
        left_out,
        tuple(_differing(common, labels, model.labels) for model in same),
    )


def _places(
    first: Predictions, known: Mapping[str, str], other: Predictions, own: Mapping[str, str]
) -> dict[str, int]:
    """Path of an image of the first -> row of the same image in the other."""
    rows = {path: row for row, path in enumerate(other.paths)}
    found = {path: rows[path] for path in first.paths if path in rows and _alike(path, known, own)}
    by_content: defaultdict[str, list[int]] = defaultdict(list)
    for path in sorted(rows.keys() - found.keys(), reverse=True):
        by_content[own.get(path, "")].append(rows[path])
    for path in sorted(set(first.paths) - found.keys()):
        content = known.get(path, "")
        if content and by_content[content]:
            found[path] = by_content[content].pop()
    return found


def _alike(path: str, known: Mapping[str, str], own: Mapping[str, str]) -> bool:
    """Whether nothing says that two files of this name differ."""
    one, other = known.get(path, ""), own.get(path, "")
    return not one or not other or one == other


def _taken(model: Predictions, rows: Sequence[int]) -> Predictions:
    return replace(
        model,
        paths=tuple(model.paths[row] for row in rows),
        labels=tuple(model.labels[row] for row in rows),
        probabilities=model.probabilities[rows],
        named=None if model.named is None else model.named[rows],
    )


def _differing(paths: Sequence[str], labels: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    pairs = zip(paths, labels, own, strict=True)
    return tuple(
        path
        for path, one, other in pairs
        if one != other and set(split_labels(one)) != set(split_labels(other))
    )


# -- which images decide ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changed:
    """An image that one of two models alone gets right, with what each answers and how sure it is.

    `gained`: the second is right. Confidences are None where an image may have several labels.
    """

    path: str
    label: str
    first: str
    second: str
    first_confidence: float | None
    second_confidence: float | None
    gained: bool


def changed_sides(first: Predictions, second: Predictions) -> tuple[Changed, ...]:
    """The images that decide between two aligned models, the most confident wrong answer first."""
    right = correct(first)
    one, other = first.predicted, second.predicted
    sure = [
        side.confidence.tolist() if side.named is None else [None] * len(right) for side in (first, second)
    ]
    found = [
        Changed(
            path=first.paths[row],
            label=first.labels[row],
            first=one[row],
            second=other[row],
            first_confidence=sure[0][row],
            second_confidence=sure[1][row],
            gained=not right[row],
        )
        for row in np.flatnonzero(right != correct(second))
    ]
    return tuple(sorted(found, key=lambda image: (-_sureness(image), image.path)))


def _sureness(image: Changed) -> float:
    """How sure the wrong answer is; the same for all where there is no confidence."""
    return (image.first_confidence if image.gained else image.second_confidence) or 0.0


# -- words -----------------------------------------------------------------------------------------------


def _signed(interval: Interval, sign: int) -> Interval:
    low, high = sorted((sign * interval.low, sign * interval.high))
    return Interval(sign * interval.value, low, high)


def _points(interval: Interval) -> str:
    value, low, high = (100 * x for x in (interval.value, interval.low, interval.high))
    return f"{value:.1f} points [{low:.1f}, {high:.1f}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
