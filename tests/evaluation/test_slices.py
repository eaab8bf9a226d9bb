"""Slices against scipy's exact test and false-discovery rate; what is planted is found, chance is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from saccade.evaluation.groups import Groups
from saccade.evaluation.slices import (
    Slice,
    categories,
    chance,
    clusters,
    tails,
    worse_slices,
    worth_trying,
)

IMAGES = 500


def some_slices(random: np.random.Generator) -> list[Slice]:
    numbers = [tails(str(i), random.normal(size=IMAGES), "low", "high") for i in range(3)]
    camera = categories("camera", [f"camera {i}" for i in random.integers(0, 6, size=IMAGES)])
    return worth_trying([*(one for found in numbers for one in found), *camera])


def test_alone_it_is_fishers_exact_test() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        wrong, rows = random.random(80) < 0.2, random.random(80) < 0.3
        table = [
            [(wrong & rows).sum(), (~wrong & rows).sum()],
            [(wrong & ~rows).sum(), (~wrong & ~rows).sum()],
        ]
        expected = fisher_exact(table, alternative="greater").pvalue
        assert chance(wrong, rows, Groups.alone(80)) == pytest.approx(expected, abs=1e-10)


def test_a_planted_slice_is_found_once_with_its_accuracy() -> None:
    random = np.random.default_rng(2)
    values = random.normal(size=IMAGES)
    dark = values <= np.quantile(values, 0.08)
    wrong = random.random(IMAGES) < np.where(dark, 0.5, 0.1)
    tried = worth_trying([*tails("brightness", values, "darkest", "brightest"), *some_slices(random)])
    first, *others = worse_slices(wrong, tried, Groups.alone(IMAGES))
    assert first.slice.words.startswith("darkest 10 % (up to -")
    assert not others
    assert first.accuracy.value == pytest.approx(1 - wrong[first.slice.rows].mean())
    assert first.accuracy.low < first.accuracy.value < first.accuracy.high < first.rest.low
    assert first.p <= first.adjusted <= 0.05


def test_chance_is_rarely_found_alone_and_in_groups() -> None:
    random = np.random.default_rng(3)
    alarms = {"alone": 0, "groups": 0}
    for _ in range(60):
        tried = some_slices(random)
        alarms["alone"] += bool(worse_slices(random.random(IMAGES) < 0.15, tried, Groups.alone(IMAGES)))
        of = np.arange(IMAGES) // 10
        series = random.integers(0, 5, size=50)[
            of
        ]  # every group has one camera, and is right or wrong as one
        cameras = categories("camera", [f"camera {i}" for i in series])
        wrong = (random.random(50) < 0.2)[of]
        alarms["groups"] += bool(worse_slices(wrong, worth_trying([*cameras, *tried]), Groups(of, 50)))
    assert max(alarms.values()) <= 7


def test_a_slice_of_one_group_proves_nothing() -> None:
    of = np.arange(IMAGES) // 25
    wrong = of == 3
    assert chance(wrong, of == 3, Groups(of, 20)) > 0.04
    assert chance(wrong, of == 3, Groups.alone(IMAGES)) < 1e-9


def test_only_slices_of_some_size_are_tried_and_each_set_once() -> None:
    assert not worth_trying(tails("size", np.full(IMAGES, 224.0), "small", "large"))
    assert not tails("brightness", np.full(3, np.nan), "dark", "bright")
    cameras = categories("camera", ["A"] * 9 + ["B"] * 20 + [""] * 471)
    assert [one.words for one in worth_trying([*cameras, *cameras])] == ["B"]
    alone = categories("folder", [*map(str, range(IMAGES)), *["all"] * 10])
    assert [one.words for one in alone] == ["all"], "no array for each name"


def test_clusters_are_those_of_separate_clouds() -> None:
    random = np.random.default_rng(4)
    cloud = np.arange(300) % 5
    features = (20 * np.eye(5)[cloud] + random.normal(size=(300, 5))).astype(np.float32)
    found = clusters(features, seed=1)
    assert len(found) == 35
    assert {frozenset(cloud[one.rows]) for one in found[:5]} == {frozenset([i]) for i in range(5)}
    assert sum(one.rows.sum() for one in found[:5]) == 300
    assert all(
        (one.rows == again.rows).all() for one, again in zip(found, clusters(features, seed=1), strict=True)
    )
    assert sum(one.rows.any() for one in clusters(np.ones((300, 5), np.float32))) == 3, "equal images are one"
