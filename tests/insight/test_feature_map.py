"""The map of the images: who is on it, where, and how true it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from saccade.insight import feature_map as mapping
from saccade.insight.feature_map import feature_map, lay_out, neighbours_kept


def clusters(count: int, seed: int = 0) -> np.ndarray:
    """(count, 8) in three directions."""
    random = np.random.default_rng(seed)
    return np.eye(8)[np.arange(count) % 3] + 0.15 * random.normal(size=(count, 8))


def test_what_is_alike_lies_together() -> None:
    features = clusters(60).astype(np.float32)
    places = lay_out(features)
    assert places.shape == (60, 2)
    assert (places.min(axis=0).tolist(), places.max(axis=0).tolist()) == ([0, 0], [1, 1])
    middles = np.stack([places[k::3].mean(axis=0) for k in range(3)])
    apart = np.linalg.norm(places[:, None] - middles, axis=2).argmin(axis=1)
    assert (apart == np.arange(60) % 3).all()
    assert np.array_equal(places, lay_out(features)), "the same each time"
    by_chance = neighbours_kept(features, np.random.default_rng(1).random((60, 2)))
    assert neighbours_kept(features, places) > 0.5 > 0.35 > by_chance
    assert (
        neighbours_kept(features[:, :2], features[:, :2] / np.linalg.norm(features[:, :2], axis=1)[:, None])
        > 0.9
    )


def test_mistakes_come_first_where_not_all_have_room(
    make_material: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "POINTS", 20)
    monkeypatch.setattr(mapping, "OF_JUDGED", 8)
    answers = ["bar", "checker", "disc"] * 4 + ["disc", "bar", "bar"]
    material = make_material(clusters(60), answers)
    found = feature_map(material)
    assert found is not None
    points = found["points"]
    assert (len(points), found["images"], found["part"]) == (20, 60, "validation")
    judged = [point for point in points if "predicted" in point]
    assert len(judged) == 8
    assert sum(point["predicted"] != point["label"] for point in judged) == 3
    assert {point["label"] for point in points} == {"bar", "checker", "disc"}
    assert all(0 <= point[end] <= 1 for point in points for end in ("x", "y"))


def test_few_images_or_equal_features_have_no_map(make_material: Callable[..., Any]) -> None:
    assert feature_map(make_material(clusters(9), ["bar"])) is None
    assert feature_map(make_material(np.ones((30, 4)), ["bar"])) is None
