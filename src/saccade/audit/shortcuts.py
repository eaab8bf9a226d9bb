"""Shortcuts: trivial properties that predict the label, which a model would learn instead of the content.

For each property of the file or of the whole image, a one-level classifier sees this property alone. Five
folds keep copies together; balanced accuracy makes the chance level 1 / classes for any class balance. A
property is reported if it is both far above chance and too far for luck: the deviation counts sets of copies,
not images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.audit.findings import finding
from saccade.audit.quality import Measurements
from saccade.records import Confidence, Dataset, Finding

FOLDS = 5
BINS = 32  # equally full ranges into which a number is cut
FEWEST_IMAGES = 20  # of a class; smaller classes are left out of this search
FILE_GAIN = 0.25  # share of the way from chance to perfection that a property of the file may go
PICTURE_GAIN = 0.5  # the same for a property of the picture, which may belong to what the class is
DEVIATIONS = 6.0  # none of 4,000 searches on random labels, 40 to 5,000 images, came this far unless perfect
EXAMPLES = 2  # images named for each class
MOST_GUESSED = 2000  # of images whose guess is kept for the diagnosis


@dataclass(frozen=True, slots=True)
class Property:
    """One trivial property of all images: `values` are numbers, or category numbers with `names`."""

    name: str
    values: NDArray[np.float64]
    names: tuple[str, ...] = ()
    of_the_file: bool = True
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """Balanced accuracy of the tiny classifier, the chance level, and how far beyond luck it lies."""

    accuracy: float
    chance: float
    deviations: float

    @property
    def gain(self) -> float:
        return (self.accuracy - self.chance) / (1 - self.chance)


def shortcuts(dataset: Dataset, measurements: Measurements, clusters: Mapping[str, int]) -> list[Finding]:
    """One finding for each property that predicts the label too well, and one with the scores of all.

    None where an image may have several labels: there is no one label to predict.
    """
    if dataset.multi_label:
        return []
    rows, labels, classes = _judged(dataset)
    if len(classes) < 2:
        return []
    units = _units(dataset, rows, clusters)
    findings, table = [], {}
    for trait in properties(dataset, measurements):
        values = trait.values[rows]
        score = cross_validated(values, labels, units, categories=bool(trait.names))
        table[trait.name] = {"accuracy": round(score.accuracy, 4), "chance": round(score.chance, 4)}
        least = FILE_GAIN if trait.of_the_file else PICTURE_GAIN
        if score.gain >= least and score.deviations >= DEVIATIONS:
            paths = [dataset.records[row].path for row in rows]
            findings.append(_shortcut(trait, score, values, labels, classes, paths))
    findings.sort(key=lambda found: -found.figure["accuracy"])
    best = max(table, key=lambda name: table[name]["accuracy"])
    message = (
        f"the label can be guessed by {best} alone with {table[best]['accuracy']:.0%} "
        f"(chance: {table[best]['chance']:.0%}); no other trivial property does better"
    )
    return [*findings, finding("shortcuts_checked", message, figure={"balanced_accuracy": table})]


def _judged(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Rows of the images judged, the class of each, and the names of the classes large enough."""
    counts = dataset.counts()
    classes = tuple(label for label in dataset.classes if counts[label] >= FEWEST_IMAGES)
    index = {label: i for i, label in enumerate(classes)}
    rows = [i for i, record in enumerate(dataset.records) if record.used and record.label in index]
    labels = [index[dataset.records[row].label] for row in rows]
    return np.array(rows, np.int64), np.array(labels, np.int64), classes


def _units(dataset: Dataset, rows: NDArray[np.int64], clusters: Mapping[str, int]) -> NDArray[np.int64]:
    """(images,) number of what must stay in one fold: a group, a set of copies, or a single image."""
    keys = []
    for row in rows:
        record = dataset.records[row]
        keys.append(f"g{record.group}" if record.group else f"c{clusters.get(record.path, record.path)}")
    order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([order[key] for key in keys], np.int64)


def properties(dataset: Dataset, measurements: Measurements) -> list[Property]:
    """Everything that is looked at; file names and folders are not, since they usually are the label."""
    records = dataset.records
    width = np.array([record.width for record in records], np.float64)
    height = np.array([record.height for record in records], np.float64)
    pixels = np.maximum(width * height, 1)
    sizes = [f"{record.width} x {record.height}" for record in records]
    numbers = [
        Property("the number of pixels", pixels, unit="px"),
        Property("the shape (width / height)", width / np.maximum(height, 1)),
        Property("file size", measurements.column("file_bytes"), unit="bytes"),
        Property("bytes per pixel", measurements.column("file_bytes") / pixels),
        Property("JPEG quality", np.nan_to_num(measurements.column("jpeg_quality"), nan=-1)),
    ]
    categories = [
        _categories("the exact size", sizes),
        _categories("the file format", measurements.formats),
        _categories("the colour mode", [record.mode for record in records]),
        _categories("the camera", measurements.cameras),
        _categories("the compression tables", measurements.compressions),
    ]
    picture = [
        Property(name, np.nan_to_num(measurements.column(field), nan=-1), of_the_file=False)
        for name, field in (
            ("brightness", "brightness"),
            ("contrast", "contrast"),
            ("colour saturation", "saturation"),
            ("sharpness", "sharpness"),
            ("the width of a uniform border", "border"),
            ("the brightness of the border", "border_brightness"),
        )
    ]
    return [*numbers, *categories, *picture]


def _categories(name: str, texts: Sequence[str]) -> Property:
    names = tuple(dict.fromkeys(texts))
    index = {text: i for i, text in enumerate(names)}
    return Property(name, np.array([index[text] for text in texts], np.float64), names)


def cross_validated(
    values: NDArray[np.float64],
    labels: NDArray[np.int64],
    units: NDArray[np.int64],
    *,
    categories: bool = False,
) -> Score:
    """Balanced accuracy, over folds of whole units, of guessing the label (0..classes-1) from one value.

    The guess is the class most over-represented in the value's bin: the tree with one split level.
    """
    classes = int(labels.max()) + 1
    fold = _folds(units)
    right = np.zeros(len(labels), bool)
    for held_out in range(FOLDS):
        test = fold == held_out
        if test.any() and not test.all():
            bins = _binned(values, values[~test], categories)
            right[test] = _guesses(bins, labels, ~test, classes)[test] == labels[test]
    recall = np.bincount(labels, right, classes) / np.bincount(labels, minlength=classes)
    chance = 1 / classes
    independent = [len(np.unique(units[labels == label])) for label in range(classes)]
    deviation = np.sqrt(sum(chance * (1 - chance) / count for count in independent)) / classes
    accuracy = float(recall.mean())
    return Score(accuracy, chance, float((accuracy - chance) / deviation))


def _folds(units: NDArray[np.int64]) -> NDArray[np.int64]:
    """(images,) fold of each image, a function of its unit's number alone."""
    numbers = np.arange(int(units.max()) + 1)
    hashed = [hashlib.blake2b(str(number).encode(), digest_size=4).digest() for number in numbers]
    folds = np.frombuffer(b"".join(hashed), np.uint32) % FOLDS
    chosen: NDArray[np.int64] = folds.astype(np.int64)[units]
    return chosen


def _binned(
    values: NDArray[np.float64], training: NDArray[np.float64], categories: bool
) -> NDArray[np.int64]:
    if categories:
        return values.astype(np.int64)
    edges = np.unique(np.quantile(training, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _guesses(
    bins: NDArray[np.int64], labels: NDArray[np.int64], training: NDArray[np.bool_], classes: int
) -> NDArray[np.int64]:
    """(images,) class with the largest share of its own images in the bin; -1 where training saw none."""
    count = int(bins.max()) + 1
    seen = np.bincount(bins[training] * classes + labels[training], minlength=count * classes)
    table = seen.reshape(count, classes).astype(np.float64)
    shares = table / np.maximum(table.sum(axis=0, keepdims=True), 1)
    guess = np.where(table.any(axis=1), shares.argmax(axis=1), -1)
    chosen: NDArray[np.int64] = guess[bins]
    return chosen


def with_guesses(found: Finding, dataset: Dataset, measurements: Measurements) -> Finding:
    """The finding of a shortcut, with the class that the property points to for images that were not learnt.

    `figure["guesses"]` has it by path, for at most `MOST_GUESSED` validation and test images, as a one-level
    classifier says that was made of the training images alone.
    """
    rows, labels, classes = _judged(dataset)
    training = np.array([dataset.records[row].part == "train" for row in rows], np.bool_)
    trait = next((p for p in properties(dataset, measurements) if p.name == found.figure["property"]), None)
    if trait is None or not training.any():
        return found
    bins = _binned(trait.values[rows], trait.values[rows][training], bool(trait.names))
    guess = _guesses(bins, labels, training, len(classes))
    others = np.flatnonzero(~training & (guess >= 0))
    chosen = others[:: max(1, -(-len(others) // MOST_GUESSED))]
    guesses = {dataset.records[rows[i]].path: classes[guess[i]] for i in chosen}
    return replace(found, figure={**found.figure, "guesses": guesses, "of_the_file": trait.of_the_file})


def _shortcut(
    trait: Property,
    score: Score,
    values: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    paths: Sequence[str],
) -> Finding:
    examples, summary = [], {}
    for label, name in enumerate(classes):
        rows = np.flatnonzero(labels == label)
        typical, summary[name] = _typical(trait, values[rows])
        examples += [paths[row] for row in rows[typical]]
    message = (
        f"a model could score {score.accuracy:.0%} by {trait.name} alone "
        f"(balanced accuracy over {len(classes)} classes; chance: {score.chance:.0%})"
    )
    figure = {
        "property": trait.name,
        "unit": trait.unit,
        "accuracy": round(score.accuracy, 4),
        "chance": round(score.chance, 4),
        "deviations": round(score.deviations, 1),
        "images": len(labels),
        "per_class": summary,
    }
    confidence: Confidence = "likely" if trait.of_the_file else "look"
    remedy = "" if trait.of_the_file else _PICTURE_REMEDY
    return finding("shortcut", message, paths=examples, remedy=remedy, confidence=confidence, figure=figure)


_PICTURE_REMEDY = (
    "If this does not belong to what the classes are, collect images that are alike in it, "
    "or a model will learn it instead"
)


def _typical(trait: Property, values: NDArray[np.float64]) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Which images of one class are most typical in the property, and its summary for that class."""
    if trait.names:
        categories, counts = np.unique(values.astype(np.int64), return_counts=True)
        order = np.argsort(-counts, kind="stable")[:3]
        shares = {
            trait.names[categories[i]] or "none": round(float(counts[i] / len(values)), 3) for i in order
        }
        return np.flatnonzero(values == categories[order[0]])[:EXAMPLES], shares
    low, median, high = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    nearest = np.argsort(np.abs(values - median), kind="stable")[:EXAMPLES]
    return nearest, {"quarter": low, "median": median, "three_quarters": high}
