"""The nearest training images of each mistake, from a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from saccade.insight.neighbours import neighbours

AXES = np.eye(4, dtype=np.float32)


def test_each_mistake_has_its_nearest_training_images(make_material: Callable[..., Any]) -> None:
    learnt = [axis + 0.1 * AXES[3] * k for k in range(4) for axis in AXES[:3]]  # classes bar, checker, disc
    judged = [AXES[1], AXES[1] + 0.02 * AXES[3], AXES[2] + AXES[1]]  # truly bar, checker, disc
    material = make_material([*learnt, *judged], ["checker", "checker", "bar"])
    found = neighbours(material)
    assert found is not None
    assert (found["part"], found["mistakes_in_all"], found["features"]) == ("validation", 2, "pretrained")
    first, second = found["mistakes"]
    assert (first["label"], first["predicted"]) == ("bar", "checker")
    assert first["path"] == material.records[12].path
    assert [one["path"] for one in first["nearest"]] == [material.records[i].path for i in (1, 4, 7)]
    assert [one["label"] for one in first["nearest"]] == ["checker"] * 3
    assert first["nearest"][0]["similarity"] == 1
    assert first["said"] == "The first is nearly the same, labelled checker: look at both labels."
    assert {one["label"] for one in second["nearest"]} <= {"checker", "disc"}
    assert not second["twin"]


def test_without_a_mistake_there_is_nothing_to_tell(make_material: Callable[..., Any]) -> None:
    features = np.random.default_rng(0).normal(size=(9, 4))
    assert neighbours(make_material(features, ["bar", "checker", "disc"])) is None


def test_an_image_that_was_trained_on_meets_none_of_its_group(make_material: Callable[..., Any]) -> None:
    """Answers of folds are on training images; the copies of one were held out with it."""
    features = np.random.default_rng(0).normal(size=(12, 4))
    material = make_material(features, ["checker", "checker", "disc"])
    groups = material.groups.copy()
    groups[9] = groups[0] = 3
    features = material.features.copy()
    features[0] = features[9]
    for part, wanted in (("validation", True), ("train", False)):
        records = (*material.records[:9], *(dataclasses.replace(r, part=part) for r in material.records[9:]))
        changed = dataclasses.replace(material, records=records, groups=groups, features=features)
        (mistake,) = (neighbours(changed) or {})["mistakes"]
        paths = [one["path"] for one in mistake["nearest"]]
        assert (material.records[0].path in paths) is wanted
        assert mistake["path"] not in paths
        assert mistake["twin"] or not wanted, "the first is its copy"
