"""What is known once images have their parts: whether two parts differ, and where shortcuts point.

A part is compared with the training images property by property, with the classes in the same shares. The
distance is the largest difference in the share of any range of a number (the Kolmogorov-Smirnov statistic),
or of any set of categories (the total variation). It is reported where it is large and beyond chance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.audit.findings import finding, in_order
from saccade.audit.quality import Measurements
from saccade.audit.shortcuts import Property, properties, with_guesses
from saccade.records import Audit, Dataset, Finding

# Normal distributions whose means lie 0.8 standard deviations apart, a large effect by Cohen, differ by 0.31.
LARGE_DISTANCE = 0.3
FALSE_ALARMS = 1e-3  # chance of one in a whole data set whose parts do not differ
COMPARED_PARTS = ("validation", "test")
NAMED, EXAMPLES = 3, 2  # properties in a message; images of each side


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a property of a part lies from that of the training images, and what is usual in each."""

    trait: Property
    value: float
    train: str
    part: str

    @property
    def words(self) -> str:
        return f"{self.trait.name} ({self.part} against {self.train})"

    def as_json(self) -> dict[str, Any]:
        return {
            "property": self.trait.name,
            "distance": round(self.value, 4),
            "train": self.train,
            "part": self.part,
        }


def after_split(audit: Audit, divided: Dataset, measurements: Measurements) -> Audit:
    """The audit of images that now have parts, `divided` (in its order), with what the parts tell."""
    assert len(measurements) == len(divided.records), "measurements stand in the order of the records"
    findings = [
        with_guesses(found, divided, measurements) if found.kind == "shortcut" else found
        for found in audit.findings
    ]
    if not any(found.kind == "part_shift" for found in findings):
        findings += part_differences(divided, measurements)
    return replace(audit, findings=in_order(findings))


def part_differences(dataset: Dataset, measurements: Measurements) -> list[Finding]:
    """One finding for each of validation and test that differs from the training images by much."""
    parts = [part for part in COMPARED_PARTS if dataset.used(part)]
    if not parts or not dataset.used("train"):
        return []
    traits = properties(dataset, measurements)
    most_chance = FALSE_ALARMS / (len(traits) * len(parts))
    found = []
    for part in parts:
        compared = _Compared.of(dataset, part)
        apart = [d for trait in traits for d in [_distance(trait, compared, most_chance)] if d]
        if apart:
            apart.sort(key=lambda d: (-round(d.value, 1), d.trait.of_the_file))  # what one sees comes first
            found.append(_finding(part, apart, compared, dataset))
    return found


@dataclass(frozen=True, slots=True)
class _Compared:
    """Rows of the training images and of the part, and the weight of each, so that classes are as frequent.

    `units`: for how many independent images each side counts.
    """

    train: NDArray[np.int64]
    part: NDArray[np.int64]
    weights: NDArray[np.float64]
    units: tuple[float, float]

    @classmethod
    def of(cls, dataset: Dataset, part: str) -> _Compared:
        records = dataset.records
        rows = {
            name: np.array([i for i, r in enumerate(records) if r.used and r.part == name], np.int64)
            for name in ("train", part)
        }
        train, judged = rows["train"], rows[part]
        weights = _as_frequent([records[i].label for i in train], [records[i].label for i in judged])
        units = [len({records[i].unit for i in each}) for each in (train, judged)]
        worth = weights.sum() ** 2 / max(1e-12, float((weights**2).sum())) / len(train)
        return cls(train, judged, weights, (units[0] * worth, float(units[1])))

    def chance(self, most: float, categories: int) -> float:
        """The distance that chance exceeds with probability `most` (Hoeffding, for each range or set)."""
        images = self.units[0] * self.units[1] / max(1e-12, sum(self.units))
        sets = max(1, categories) * math.log(2)
        return math.sqrt((sets - math.log(most)) / (2 * max(1e-12, images)))


def _as_frequent(train: Sequence[str], part: Sequence[str]) -> NDArray[np.float64]:
    """Weights of training images with which each label is as frequent as in the part.

    Labels that the part lacks have weight 0; where it has none of theirs, all weigh the same.
    """
    counts, wanted = Counter(train), Counter(part)
    weights = np.array([wanted[label] / counts[label] for label in train], np.float64)
    return weights if weights.any() else np.ones(len(train))


def _distance(trait: Property, compared: _Compared, most_chance: float) -> Distance | None:
    """The distance of one property where it is large and beyond chance, else None."""
    train, part = trait.values[compared.train], trait.values[compared.part]
    if trait.names:
        shares = [
            np.bincount(values.astype(np.int64), weights, len(trait.names)) / weights.sum()
            for values, weights in ((train, compared.weights), (part, np.ones(len(part))))
        ]
        excess = shares[1] - shares[0]
        value, categories = float(np.abs(excess).sum() / 2), int((shares[0] + shares[1] > 0).sum())
        usual = [
            f"{trait.names[excess.argmax()] or 'none'} in {each[excess.argmax()]:.0%}" for each in shares
        ]
    else:
        value, categories = largest_difference(train, compared.weights, part), 1
        medians = (_median(train, compared.weights), _median(part, np.ones(len(part))))
        usual = [f"{_plain(median)} {trait.unit}".strip() for median in medians]
    if value < max(LARGE_DISTANCE, compared.chance(most_chance, categories)):
        return None
    return Distance(trait, value, *usual)


def _median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values, kind="stable")
    middle = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(values[order][min(int(middle), len(values) - 1)])


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def largest_difference(
    train: NDArray[np.float64], weights: NDArray[np.float64], part: NDArray[np.float64]
) -> float:
    """The Kolmogorov-Smirnov statistic of weighted values and of others.

    >>> largest_difference(np.array([1.0, 2.0]), np.ones(2), np.array([3.0, 4.0]))
    1.0
    """
    order, edges = np.argsort(train, kind="stable"), np.unique(np.concatenate([train, part]))
    below = np.concatenate([[0.0], np.cumsum(weights[order]) / weights.sum()])
    of_train = below[np.searchsorted(train[order], edges, side="right")]
    of_part = np.searchsorted(np.sort(part), edges, side="right") / len(part)
    return float(np.abs(of_train - of_part).max())


def _finding(part: str, apart: Sequence[Distance], compared: _Compared, dataset: Dataset) -> Finding:
    words = ", ".join(distance.words for distance in apart[:NAMED])
    more = f" and {len(apart) - NAMED} more" if len(apart) > NAMED else ""
    sides = [_typical(apart[0].trait.values[rows]) for rows in (compared.part, compared.train)]
    examples = [*compared.part[sides[0]], *compared.train[sides[1]]]
    return finding(
        "part_shift",
        f"{part} images differ from training images of the same classes in {words}{more}",
        paths=[dataset.records[row].path for row in examples],
        confidence="likely",
        figure={"part": part, "properties": [distance.as_json() for distance in apart]},
    )


def _typical(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.argsort(np.abs(values - np.median(values)), kind="stable")[:EXAMPLES]
