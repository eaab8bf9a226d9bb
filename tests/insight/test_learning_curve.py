"""Heads on parts of the training images, from features to sentences; why there may be no curve."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from saccade.evaluation.learning_curve import Curve, nested_draws
from saccade.insight.learning_curve import learning_curve, sentence

CLASSES = ("daisy", "rose", "rare")


def material(
    train: int = 90,
    judged: int = 45,
    *,
    pretrained: bool = True,
    series: int = 1,
    spread: float = 1.0,
    classes: int = 3,
) -> Any:
    """Clouds around a point a class; the third class has but one group in training."""
    random = np.random.default_rng(0)
    labels = np.arange(train + judged) % 2
    labels[train - 5 : train], labels[train + judged - 12 :] = 2, 2
    groups = np.arange(train + judged) // series
    if classes == len(CLASSES):
        groups[train - 5 : train] = 10_000
    features = random.normal(size=(3, 8))[labels] + spread * random.normal(size=(train + judged, 8))
    rows = {"train": np.arange(train), "validation": np.arange(train, train + judged)}
    return SimpleNamespace(
        rows=lambda part: rows[part],
        features=features.astype(np.float32),
        labels=labels.astype(np.int64),
        groups=groups.astype(np.int64),
        classes=(CLASSES * classes)[:classes],
        pretrained=pretrained,
    )


def test_accuracy_and_the_recall_of_each_class_are_measured_at_six_sizes() -> None:
    found = learning_curve(material()) or {}
    assert found["why_not"] == ""
    assert (found["images"], found["judged"], found["draws"]) == (90, 45, 5)
    points = found["overall"]["points"]
    assert len(points) == 6
    assert points[-1]["images"] == 90
    assert points[-1]["low"] == points[-1]["high"] == points[-1]["value"]
    low, high = found["interval"]
    assert low < points[-1]["value"] < high
    assert max(row["images"] for row in found["overall"]["forecasts"]) == 360
    assert [row["label"] for row in found["classes"]] == list(CLASSES)
    assert found["classes"][0]["points"][-1]["images"] == 43


def test_a_class_of_one_group_has_no_curve_and_says_so() -> None:
    rare = (learning_curve(material()) or {})["classes"][2]
    assert "points" not in rare
    assert rare["sentence"].startswith("Nothing can be told of rare: 5 training images in 1 group")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train": 50}, "50 training images: a curve needs 60"),
        ({"judged": 15}, "15 validation images"),
        ({"series": 30}, "4 groups of images that belong together: a curve needs 2 a class, 6 in all"),
        ({"train": 66, "classes": 40}, "66 training images: a curve needs 2 a class, 80 in all"),
        ({"pretrained": False}, "has seen all training images"),
    ],
)
def test_why_there_is_no_curve(given: dict[str, Any], words: str) -> None:
    found = learning_curve(material(**given)) or {}
    assert words in found["why_not"]
    assert "overall" not in found


def test_a_class_of_which_the_smallest_parts_have_no_image_is_said() -> None:
    given = material(train=180, judged=45)
    given.groups[:180] = np.arange(180) // 6
    given.labels[:90], given.labels[90:180] = 0, 1
    early = {row // 6 for parts in nested_draws(given.labels[:180], given.groups[:180]) for row in parts[0]}
    late = sorted(set(range(15)) - early)[:5]
    given.labels[:180][np.isin(given.groups[:180], late) & (np.arange(180) % 6 < 2)] = 2
    rare = (learning_curve(given) or {})["classes"][2]
    assert (rare["images"], rare["judged"]) == (10, 12)
    assert "points" not in rare
    assert rare["sentence"].endswith("with more of other classes, and the smallest part has none.")


def curve(gain: float, width: float) -> Curve:
    some, gains = np.array([20.0, 80.0]), np.array([gain / 2, gain])
    return Curve(
        some, some, some, some, 0.78, np.array([1.5, 4.0]), gains, gains - width / 2, gains + width / 2
    )


def test_sentences_say_what_is_known_and_what_is_not() -> None:
    assert sentence(curve(0.12, 0.059), "roses") == (
        "About 40 more images of roses should bring recall from 0.78 to 0.84 ± 0.03."
    )
    assert "cannot be told yet: label about 40 more, then ask again" in sentence(curve(0.12, 0.2), "roses")
    assert "4 times as many would raise accuracy from 0.78 by less than 0.02" in sentence(
        curve(0.001, 0.01), ""
    )
