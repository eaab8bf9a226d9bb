"""Label safety: whether the mirror images of one class look like another, as with arrows, hands, b and d.

The nearest neighbours of each image's mirror image are asked for by the gradient grids that the search for
near-duplicates begins with. A grid of a mirror image is the grid with its cells and orientations swapped, so
no pixel is read. Measured: docs/lab-notes.md.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.audit.findings import finding
from saccade.audit.quality import Measurements
from saccade.near_duplicates.descriptors import Floats, Symmetry, unit
from saccade.near_duplicates.views import whole_grids
from saccade.recipe import FLIPPED_BY, Flip
from saccade.records import Dataset, Finding

MOST_IMAGES = 1000  # so that it costs little on large data
FEWEST_OF_CLASS = 8
LEAST_SHARE = 0.5  # of a class's mirror images that look like the other: photos up to 0.12, b and d 0.9
LEAST_DEVIATIONS = 4.0  # by which more look like the other class than like their own
EXAMPLES = 4

SYMMETRIES: dict[Flip, Symmetry] = {
    "left to right": Symmetry(mirrored=True),
    "top to bottom": Symmetry(mirrored=True, quarter_turns=2),
    "upside down": Symmetry(quarter_turns=2),
}
SAFE: dict[Flip, int] = {"left to right": 0, "top to bottom": 0, "upside down": 30}
FLIPPED = {
    "left to right": "mirrored left to right",
    "top to bottom": "mirrored top to bottom",
    "upside down": "turned upside down",
}


class Crossing(NamedTuple):
    """Two classes (indices) that a flip changes into each other: smaller share of images, example rows of
    images and of what their flipped picture looks like."""

    first: int
    second: int
    share: float
    examples: tuple[tuple[int, int], ...]


def orientation(dataset: Dataset, measurements: Measurements, flips: Collection[Flip]) -> list[Finding]:
    """A finding for each two classes that a flip or half a turn changes into each other.

    A warning where training or prediction does that flip, as `flips` says.
    """
    if dataset.multi_label:
        return []  # there is no one class that a mirror image could be taken for
    rows, labels = _some_of_each_class(dataset)
    if len(set(labels.tolist())) < 2:
        return []
    grids = whole_grids(measurements.descriptions.thumbnails[rows])
    own = _nearest(unit(grids), unit(grids))
    findings = []
    for flip, symmetry in SYMMETRIES.items():
        flipped = _nearest(unit(symmetry.grid(grids)), unit(grids))
        for crossing in crossings(labels, labels[own], flipped):
            findings.append(_in_words(dataset, rows, crossing, flip, warned=flip in flips))
    return findings


def crossings(
    labels: NDArray[np.int64], own: NDArray[np.int64], flipped: NDArray[np.int64]
) -> list[Crossing]:
    """Pairs of classes of which most flipped images look like the other class, and few like their own.

    `labels` (n,); `own` (n,) the label of each image's nearest neighbour; `flipped` (n,) the row of the one
    nearest to its flipped picture.
    """
    classes = int(labels.max()) + 1
    turned_to = labels[flipped]
    sizes, stayed = (
        np.bincount(labels, minlength=classes),
        np.bincount(labels[turned_to == labels], minlength=classes),
    )
    crossed = np.zeros((classes, classes))
    known = own == labels  # what is taken for another class as it is says nothing
    np.add.at(crossed, (labels[known], turned_to[known]), 1)
    found = []
    for first, second in zip(*np.triu(crossed, 1).nonzero(), strict=True):
        both = np.array([crossed[first, second], crossed[second, first]])
        share = float((both / sizes[[first, second]]).min())
        stay = stayed[first] + stayed[second]
        deviations = (both.sum() - stay) / np.sqrt(both.sum() + stay)
        if share >= LEAST_SHARE and deviations >= LEAST_DEVIATIONS:
            there = np.flatnonzero(known & (labels == first) & (turned_to == second))[:EXAMPLES]
            examples = tuple((int(row), int(flipped[row])) for row in there)
            found.append(Crossing(int(first), int(second), share, examples))
    return found


def _some_of_each_class(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of at most MOST_IMAGES images in use, spread over their class, and their labels as numbers."""
    by_label: dict[str, list[int]] = {label: [] for label in dataset.classes}
    for row, record in enumerate(dataset.records):
        if record.used:
            by_label[record.label].append(row)
    large = {label: of_class for label, of_class in by_label.items() if len(of_class) >= FEWEST_OF_CLASS}
    most = max(FEWEST_OF_CLASS, MOST_IMAGES // max(1, len(large)))
    rows, labels = [], []
    for label, of_class in large.items():
        chosen = of_class[:: -(-len(of_class) // most)]
        rows += chosen
        labels += [dataset.classes.index(label)] * len(chosen)
    return np.array(rows, np.int64), np.array(labels, np.int64)


def _nearest(asked: Floats, known: Floats) -> NDArray[np.int64]:
    """(n,) row of the most similar other image."""
    similar = asked @ known.T
    np.fill_diagonal(similar, -1)
    nearest: NDArray[np.int64] = similar.argmax(axis=1)
    return nearest


def _in_words(
    dataset: Dataset, rows: NDArray[np.int64], crossing: Crossing, flip: Flip, *, warned: bool
) -> Finding:
    first, second = dataset.classes[crossing.first], dataset.classes[crossing.second]
    paths = [dataset.records[rows[row]].path for pair in crossing.examples for row in pair]
    message = (
        f"{FLIPPED[flip]}, most images of {first} look like {second}, and the other way round "
        f"({crossing.share:.0%} of either class)"
    )
    return finding(
        "orientation",
        message,
        paths=paths,
        remedy=_remedy(flip, warned=warned),
        confidence="likely",
        figure={"classes": [first, second], "flip": flip, "share": crossing.share},
        severity=None if warned else "info",
    )


def _remedy(flip: Flip, *, warned: bool) -> str:
    field, value = FLIPPED_BY[flip][0], SAFE[flip]
    if not warned:
        return f"Leave augment.{field} as it is"
    line = f"Set {field} = {value} below [augment] in the recipe (--augment.{field} {value})"
    averaged = ", and leave evaluate.flip off (--no-evaluate.flip)" if flip == "left to right" else ""
    return f"{line}, or use policy document{averaged}"
