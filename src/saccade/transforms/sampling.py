"""Which training images an epoch visits, and in which order: a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.transforms.augment import stream

# name -> power of a class's number of images that its number of visits is proportional to
POWERS = {"natural": 1.0, "square_root": 0.5, "balanced": 0.0}

Visit = tuple[int, int]  # image index, and how often the image was there before in this epoch


def epoch_order(count: int, *, seed: int, epoch: int) -> list[int]:
    """The order in which one epoch visits `count` images, each once."""
    order: list[int] = stream(seed, "order", epoch, 0).permutation(count).tolist()
    return order


def epoch_visits(targets: Sequence[int], sampling: str, *, seed: int, epoch: int) -> list[Visit]:
    """As many visits as there are images; "natural" visits each once, others draw rare classes more often.

    targets: class index of each image. Within a class no image is visited twice before each was once.
    """
    if sampling == "natural":
        return [(index, 0) for index in epoch_order(len(targets), seed=seed, epoch=epoch)]
    random = stream(seed, "sampling", epoch, 0)
    labels = np.asarray(targets)
    visits: list[Visit] = []
    for label, number in enumerate(_whole(expected_visits(np.bincount(labels), sampling), random)):
        images = np.flatnonzero(labels == label)
        rounds = -(-number // len(images)) if len(images) else 0
        chosen = [(int(index), turn) for turn in range(rounds) for index in random.permutation(images)]
        visits += chosen[:number]
    return [visits[place] for place in random.permutation(len(visits))]


def expected_visits(class_counts: Sequence[int] | NDArray[np.int64], sampling: str) -> NDArray[np.float64]:
    """(classes,) mean visits of each class in an epoch; their sum is that of the images.

    >>> expected_visits([90, 10], "balanced").tolist(), expected_visits([90, 10], "square_root").tolist()
    ([50.0, 50.0], [75.0, 25.0])
    """
    counts = np.asarray(class_counts, dtype=np.float64)
    wanted = np.where(counts > 0, np.maximum(counts, 1) ** POWERS[sampling], 0.0)
    return np.asarray(counts.sum() * wanted / max(wanted.sum(), 1.0))


def _whole(expected: NDArray[np.float64], random: np.random.Generator) -> list[int]:
    """Whole numbers with the same sum, each rounded up or down, with the expected mean.

    Systematic sampling: one draw shifts the grid on which the running sum is rounded.
    """
    edges = np.floor(np.concatenate([[0.0], np.cumsum(expected)]) + random.random())
    edges[-1] = edges[0] + round(float(expected.sum()))
    return [int(number) for number in np.diff(edges)]
