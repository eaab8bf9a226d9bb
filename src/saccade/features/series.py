"""Hidden series: images that are frames of one scene, which nobody named as a group.

Their figures on held-out training images promise too much, because other frames of the same scene were learnt
from. Three things give them away. The accuracy on held-out images is far above that on validation images, and
falls towards it once whole series are held out. And either file names show them (the nearest neighbour of an
image has the same name, but for a counter), or features do: the nearest neighbour within the class is much
nearer than in a cloud of the same covariance without clusters (the reference of the gap statistic, Tibshirani
et al. 2001). Images of another camera in validation show the first alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from saccade.features.heads import Choice, LabelledFeatures, choose_strength
from saccade.runtime import draw_seed

# Fewer images say little about neighbours.
LEAST_IMAGES, LEAST_OF_A_CLASS = 100, 8
# Median distance to the nearest neighbour, as a share of that in a cloud without clusters. Measured (docs/
# fast-training.md): tracks 0.77, with every second frame 0.87; flowers5, flowers12, CIFAR-10 from 0.93.
NEAR, VERY_NEAR = 0.88, 0.80
MOST_COMPARED = 600  # images of a class
# The gap that counts: more points than this, and more standard errors, of both parts' accuracies.
LEAST_GAP, GAP_STANDARD_ERRORS = 0.05, 3.0
EXPLAINED_SHARE = 0.5  # of the gap that the series must account for
# An image's own cluster may be so many times as large as the mean: one cluster that holds half of a class,
# beside a few small ones, is no series, and holding it out lowers any accuracy.
MOST_UNEVEN = 2.5
NEAR_ENOUGH = 0.02  # of accuracy: chance moves it by more
LEAST_SERIES_OF_A_CLASS = 5  # one a fold
LARGEST_CLASS = 5_000  # its distances are a matrix
SAME_NAME_SHARE = 0.7  # of images whose nearest neighbour has the same name but for its counter
# Of a path, all but the counter at the end of its name; and without the part, as a series in two parts is one
COUNTER, WITHIN_A_CLASS = r"(.*\D)\d+\.\w+$", r"([^/]+/[^/]*\D)\d+\.\w+$"


@dataclass(frozen=True, slots=True)
class Series:
    """What was found: about so many series of training images.

    `pattern` is a regular expression on paths, "" where names show nothing. `groups` names the series of each
    training image; it is empty where figures on validation do not show how far the series reach.
    `held_out` is the accuracy on held-out training images that was measured before, `apart` with whole series
    held out, `validation` that on validation images.
    """

    count: int
    images: int
    pattern: str
    groups: tuple[str, ...]
    held_out: float
    validation: float
    apart: float = 0.0

    @property
    def words(self) -> str:
        """What the user is told."""
        name = f" --group-pattern '{self.pattern}'" if self.pattern else " --group or --group-pattern"
        said = f"your images come in series (about {self.count:,} series of {self._each})"
        if not self.groups:
            return (
                f"{said}: where one stands in two parts, figures promise too much; name them with{name}, so "
                "that the parts and cross-validation keep each series together"
            )
        return (
            f"{said}: held-out training images have an accuracy of {self.held_out:.1%}, with whole series "
            f"held out {self.apart:.1%}, validation images {self.validation:.1%}; the head is chosen again "
            f"with the series kept together. Name them with{name}"
        )

    @property
    def _each(self) -> str:
        return f"{self.images:,} images"


def find_series(
    data: LabelledFeatures,
    paths: Sequence[str],
    choice: Choice,
    *,
    validation_accuracy: float,
    validation_images: int,
    seed: int,
    by_clusters: bool = True,
) -> Series | None:
    """The hidden series among training images, or None.

    `choice` is what cross-validation said of the head, `validation_accuracy` what `validation_images` say.
    `data.groups` are held apart already and are no finding. Not `by_clusters`: there is only time for series
    that names show.
    """
    if len(data) < LEAST_IMAGES or choice.folds < 2:
        return None
    space = Space.of(data)
    named = _named(space, paths)
    if is_wide(choice.accuracy, len(data), validation_accuracy, validation_images):
        looks_so = bool(named) or (by_clusters and space.nearness(seed) <= NEAR)
        return _held_apart(space, named, choice, validation_accuracy, seed) if looks_so else None
    if named and space.nearness(seed) <= VERY_NEAR:
        return _told(named, choice, validation_accuracy)
    return None


def is_wide(held_out: float, images: int, validation: float, validation_images: int) -> bool:
    """Whether one accuracy is above the other by more than chance explains, and by enough to matter."""
    variance = held_out * (1 - held_out) / images + validation * (1 - validation) / max(1, validation_images)
    return held_out - validation > max(LEAST_GAP, GAP_STANDARD_ERRORS * math.sqrt(variance))


@dataclass(frozen=True, slots=True)
class Space:
    """Standardised features of length 1, `points` (images, F), in which images are near or far."""

    data: LabelledFeatures
    points: NDArray[np.float32]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, data: LabelledFeatures) -> Space:
        values = data.values[0].numpy().astype(np.float64)
        standard = (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)
        length = np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), 1e-12)
        return cls(data, (standard / length).astype(np.float32), data.labels.numpy())

    def classes(self, *, most: int | None = None, seed: int = 0) -> Iterator[NDArray[np.int64]]:
        """Indices of the images of each class that has enough of them, at most `most`, drawn from `seed`."""
        random = np.random.default_rng(draw_seed(seed, "series"))
        for label in np.unique(self.labels):
            rows = np.flatnonzero(self.labels == label)
            if len(rows) >= LEAST_OF_A_CLASS:
                yield np.sort(random.permutation(rows)[:most])

    def nearness(self, seed: int) -> float:
        """Median distance to the nearest neighbour of another group, as a share of that without clusters.

        Without clusters: as many normal points of the same mean and covariance. The mean over classes.
        """
        random = np.random.default_rng(draw_seed(seed, "no clusters"))
        shares, counts = [], []
        for rows in self.classes(most=MOST_COMPARED, seed=seed):
            points = self.points[rows].astype(np.float64)
            near = nearest_distances(points, self._same_group(rows))
            apart = np.isfinite(near)
            if apart.any():
                usual = nearest_distances(cloud_like(points, random), np.eye(len(rows), dtype=bool))
                shares.append(np.median(near[apart]) / max(1e-12, float(np.median(usual))))
                counts.append(len(rows))
        return float(np.average(shares, weights=counts)) if shares else math.inf

    def _same_group(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        _, group = np.unique([self.data.groups[row] for row in rows], return_inverse=True)
        return np.asarray(group[:, None] == group[None, :])

    def nearest(self) -> Iterator[tuple[int, int]]:
        """Each image (at most `MOST_COMPARED` of a class) with its nearest neighbour in its class."""
        for rows in self.classes(most=MOST_COMPARED):
            similarity = self.points[rows] @ self.points[rows].T
            np.fill_diagonal(similarity, -np.inf)
            yield from zip(rows.tolist(), rows[similarity.argmax(axis=1)].tolist(), strict=True)

    def trees(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """For each class its rows and their dendrogram: average linkage of cosine distances."""
        found = []
        for label in np.unique(self.labels):
            rows = np.flatnonzero(self.labels == label)
            distances = np.clip(1 - self.points[rows] @ self.points[rows].T, 0, None)
            np.fill_diagonal(distances, 0)
            even = (distances + distances.T).astype(np.float64) / 2
            tree = linkage(squareform(even, checks=False), "average") if len(rows) > 1 else np.empty((0, 4))
            found.append((rows, tree))
        return found


def cloud_like(points: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """As many normal points of the mean and covariance of `points` (n, F), each of length 1 as they are."""
    mean = points.mean(0)
    drawn = random.standard_normal((len(points), len(points))) @ (points - mean)
    cloud = mean + drawn / math.sqrt(len(points) - 1)
    return np.asarray(cloud / np.maximum(np.linalg.norm(cloud, axis=1, keepdims=True), 1e-12))


def nearest_distances(points: NDArray[np.float64], left_out: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) to the nearest point that is not left out (n, n), all of length 1; infinite for none."""
    similarity = np.where(left_out, -np.inf, points @ points.T)
    return np.asarray(np.sqrt(np.maximum(0.0, 2 - 2 * similarity.max(axis=1))))


def _told(named: tuple[str, ...], choice: Choice, validation: float) -> Series:
    """Series that validation does not betray, as where its images are of the same ones: only told."""
    count = len(set(named))
    return Series(count, round(len(named) / count), WITHIN_A_CLASS, (), choice.accuracy, validation)


def _held_apart(
    space: Space, named: tuple[str, ...], choice: Choice, validation: float, seed: int
) -> Series | None:
    """The series with which the accuracy on held-out images comes nearest to that on validation images."""

    def apart(groups: tuple[str, ...]) -> Choice:
        return choose_strength(replace(space.data, groups=together(space.data.groups, groups)), seed=seed)

    if named:
        groups, found = named, apart(named)
    elif np.bincount(space.labels).max() > LARGEST_CLASS:
        return None
    else:
        groups, found = _clusters_like(space, validation, apart)
    least = EXPLAINED_SHARE * (choice.accuracy - validation)
    explained = choice.accuracy - found.accuracy >= least  # not so for NaN: a class may be a single series
    if not explained or unevenness(groups) > MOST_UNEVEN:
        return None
    count = len(set(groups))
    return Series(
        count,
        round(len(groups) / count),
        COUNTER if named else "",
        together(space.data.groups, groups),
        choice.accuracy,
        validation,
        found.accuracy,
    )


def _clusters_like(
    space: Space, validation: float, apart: Callable[[tuple[str, ...]], Choice]
) -> tuple[tuple[str, ...], Choice]:
    """Clusters of the mean size with which the held-out accuracy is nearest to `validation`.

    The larger the clusters, the lower it is. So it is found by halving, until it is near enough.
    """
    trees = space.trees()
    smallest = min(len(rows) for rows, _ in trees)
    low, high = 1, max(2, smallest // LEAST_SERIES_OF_A_CLASS)
    tried: dict[int, tuple[tuple[str, ...], Choice]] = {}

    def at(size: int) -> Choice:
        if size not in tried:
            groups = _cut(trees, len(space.labels), size)
            tried[size] = groups, apart(groups)
        return tried[size][1]

    def too_large(size: int) -> bool:
        return not at(size).accuracy >= validation  # NaN too: then a class is a single cluster

    if too_large(high):
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if too_large(middle) else (middle, high)
            if abs(at(middle).accuracy - validation) <= NEAR_ENOUGH:
                break
    known = [size for size in tried if not math.isnan(tried[size][1].accuracy)] or list(tried)
    best = min(known, key=lambda size: (abs(tried[size][1].accuracy - validation), size))
    return tried[best]


def _cut(
    trees: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], images: int, size: int
) -> tuple[str, ...]:
    """A name for each image's cluster: in each class as many as make them `size` images on average."""
    names = [""] * images
    for label, (rows, tree) in enumerate(trees):
        count = max(1, round(len(rows) / size))
        part = fcluster(tree, count, "maxclust") if len(tree) else np.ones(len(rows), int)
        for row, cluster in zip(rows.tolist(), part.tolist(), strict=True):
            names[row] = f"series {label}.{cluster}"
    return tuple(names)


def unevenness(groups: Sequence[str]) -> float:
    """Mean size of the group that an image is in, as a multiple of the mean size of a group."""
    sizes = np.unique(np.asarray(groups), return_counts=True)[1]
    return float((sizes**2).mean() / sizes.mean() ** 2)


def together(first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    """Names of groups in which whatever either of two groupings keeps together stays together."""
    a, b = (np.unique(np.asarray(names), return_inverse=True)[1] for names in (first, second))
    count = int(a.max()) + 1
    joined = coo_matrix((np.ones(len(a)), (a, count + b)), shape=(count + int(b.max()) + 1,) * 2)
    _, component = connected_components(joined, directed=False)
    return tuple(f"series {number}" for number in component[a].tolist())


def _named(space: Space, paths: Sequence[str]) -> tuple[str, ...]:
    """The series by file name, the counter at its end left out; empty where neighbours have other names.

    Each class must have several, of more than one image.
    """
    found = [re.match(COUNTER, path) for path in paths]
    names = tuple(match[1] if match else path for match, path in zip(found, paths, strict=True))
    counts = [len({names[row] for row in rows.tolist()}) for rows in space.classes()]
    if not counts or min(counts) < LEAST_SERIES_OF_A_CLASS or len(set(names)) > len(names) / 2:
        return ()
    same = [names[image] == names[nearest] for image, nearest in space.nearest()]
    return names if np.mean(same) >= SAME_NAME_SHARE else ()
