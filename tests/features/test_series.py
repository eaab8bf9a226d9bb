"""Hidden series: found where frames of one scene stand on both sides, and nowhere else."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from saccade.features import series as module
from saccade.features.heads import Choice, LabelledFeatures, choose_strength
from saccade.features.series import (
    COUNTER,
    MOST_UNEVEN,
    NEAR,
    VERY_NEAR,
    WITHIN_A_CLASS,
    Series,
    Space,
    find_series,
    is_wide,
    together,
    unevenness,
)

CLASSES, FEATURES = 4, 64


def images(
    *, scenes: int, frames: int, seed: int = 0, spread: float = 3.0, groups: bool = False
) -> LabelledFeatures:
    """So many scenes of each class, of so many frames each; a class is a weak direction among the scenes'."""
    random = np.random.default_rng(seed)
    places = np.random.default_rng(99).normal(size=(CLASSES, FEATURES))
    labels = np.repeat(np.arange(CLASSES), scenes * frames)
    scene = np.repeat(np.arange(CLASSES * scenes), frames)
    values = places[labels] + spread * random.normal(size=(CLASSES * scenes, FEATURES))[scene]
    values += random.normal(size=values.shape)
    names = tuple(f"scene {number}" if groups else str(row) for row, number in enumerate(scene))
    views = torch.from_numpy(values.astype(np.float32))[None]
    return LabelledFeatures(views, torch.from_numpy(labels), names, CLASSES)


def frame_names(scenes: int, frames: int) -> list[str]:
    return [
        f"train/{label}/{scene:03d}_{frame:05d}.jpg"
        for label in "abcd"
        for scene in range(scenes)
        for frame in range(frames)
    ]


def no_names(count: int) -> list[str]:
    return [f"train/IMG_{7919 * row % 10007:05d}.jpg" for row in range(count)]


def search(
    data: LabelledFeatures, paths: Sequence[str], validation: float, *, by_clusters: bool = True
) -> Series | None:
    choice = choose_strength(data, seed=0)
    return find_series(
        data,
        paths,
        choice,
        validation_accuracy=validation,
        validation_images=400,
        seed=0,
        by_clusters=by_clusters,
    )


TRACKS = images(scenes=10, frames=12)
BY_SCENE = images(scenes=10, frames=12, groups=True)
SINGLE = images(scenes=120, frames=1)


def honest() -> float:
    """What images of other scenes would show."""
    return choose_strength(BY_SCENE, seed=0).accuracy


def test_series_are_found_by_their_features_and_held_out_as_a_whole() -> None:
    assert choose_strength(TRACKS, seed=0).accuracy > honest() + 0.2
    found = search(TRACKS, no_names(len(TRACKS)), honest())
    assert found is not None
    assert (20 <= found.count <= 80, found.pattern) == (True, "")
    assert found.apart == pytest.approx(honest(), abs=0.1)
    assert "your images come in series (about" in found.words
    assert "--group or --group-pattern" in found.words
    scene = np.repeat(np.arange(40), 12)
    largest = [np.unique(np.array(found.groups)[scene == s], return_counts=True)[1].max() for s in range(40)]
    assert np.mean(largest) > 9, "most of the 12 frames of a scene are in one group"


def test_names_with_a_counter_tell_the_series_exactly() -> None:
    found = search(TRACKS, frame_names(10, 12), honest(), by_clusters=False)
    assert found is not None
    assert (found.count, found.images, found.pattern) == (40, 12, COUNTER)
    assert found.apart == pytest.approx(honest(), abs=0.05)
    groups = [re.search(found.pattern, path)[1] for path in frame_names(10, 12)]  # type: ignore[index]
    assert len(set(groups)) == 40
    assert "--group-pattern '" + COUNTER in found.words
    assert search(TRACKS, no_names(len(TRACKS)), honest(), by_clusters=False) is None, "there is no time"


def test_names_that_neighbours_do_not_share_propose_nothing() -> None:
    order = np.random.default_rng(1).permutation(len(TRACKS)).tolist()
    names = frame_names(10, 12)
    found = search(TRACKS, [names[place] for place in order], honest())
    assert found is not None
    assert found.pattern == ""


@pytest.mark.parametrize("names", [no_names(480), frame_names(10, 12)])
def test_images_of_another_camera_in_validation_are_no_series(names: list[str]) -> None:
    """The gap is wide, and clusters of anything lower the held-out accuracy; but neighbours are not near."""
    assert search(SINGLE, names, 0.3) is None
    assert is_wide(choose_strength(SINGLE, seed=0).accuracy, len(SINGLE), 0.3, 400)
    assert Space.of(SINGLE).nearness(0) > NEAR + 0.05


def test_names_are_enough_where_features_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the frames of a scene are far apart."""
    monkeypatch.setattr(module, "NEAR", 0.0)
    assert search(TRACKS, no_names(len(TRACKS)), honest()) is None
    found = search(TRACKS, frame_names(10, 12), honest())
    assert found is not None
    assert (found.count, found.pattern) == (40, COUNTER)


def test_series_that_are_groups_already_are_no_finding() -> None:
    assert search(BY_SCENE, no_names(len(BY_SCENE)), honest() - 0.2) is None
    assert Space.of(TRACKS).nearness(0) < NEAR < Space.of(BY_SCENE).nearness(0)


def test_without_a_gap_names_are_told_and_nothing_is_chosen_again() -> None:
    """Validation may hold frames of the same scenes: then its figures promise too much as well."""
    accuracy = choose_strength(TRACKS, seed=0).accuracy
    found = search(TRACKS, frame_names(10, 12), accuracy)
    assert found is not None
    assert (found.count, found.groups, found.apart) == (40, (), 0.0)
    assert "figures promise too much" in found.words
    path = "validation/a/003_00002.jpg"
    assert re.search(WITHIN_A_CLASS, path)[1] == re.search(WITHIN_A_CLASS, "train/a/003_7.jpg")[1] == "a/003_"  # type: ignore[index]
    assert search(TRACKS, no_names(len(TRACKS)), accuracy) is None
    assert search(SINGLE, frame_names(10, 12), choose_strength(SINGLE, seed=0).accuracy) is None
    apart = images(scenes=20, frames=6, spread=1.0)
    assert Space.of(apart).nearness(0) > VERY_NEAR
    assert search(apart, frame_names(20, 6), choose_strength(apart, seed=0).accuracy) is None


def test_few_images_say_nothing() -> None:
    few = images(scenes=6, frames=4)
    assert search(few, frame_names(6, 4), 0.1) is None


@pytest.mark.parametrize(
    ("held_out", "count", "validation", "validated", "wide"),
    [
        (0.99, 1680, 0.79, 720, True),
        (0.90, 1680, 0.86, 720, False),
        (0.90, 200, 0.80, 40, False),
        (0.90, 200, 0.80, 4000, True),
        (0.80, 1000, 0.95, 1000, False),
    ],
    ids=["series", "too few points", "by chance", "many images", "the other way"],
)
def test_a_gap_counts_where_chance_does_not_explain_it(
    held_out: float, count: int, validation: float, validated: int, wide: bool
) -> None:
    assert is_wide(held_out, count, validation, validated) is wide


def with_a_class_of_one_series() -> LabelledFeatures:
    """The tracks, and five frames of a fifth class: with the series held apart there are no folds."""
    random = np.random.default_rng(7)
    frames = 4 + random.normal(size=(1, FEATURES)) + 0.1 * random.normal(size=(5, FEATURES))
    values = torch.cat([TRACKS.values, torch.from_numpy(frames.astype(np.float32))[None]], dim=1)
    labels = torch.cat([TRACKS.labels, torch.full((5,), CLASSES)])
    groups = tuple(map(str, range(len(labels))))
    return LabelledFeatures(values, labels, groups, CLASSES + 1)


def test_a_class_of_one_series_leaves_nothing_to_measure_and_is_no_finding() -> None:
    data = with_a_class_of_one_series()
    paths = [*frame_names(10, 12), *(f"train/e/900_{frame:05d}.jpg" for frame in range(5))]
    assert search(data, paths, honest()) is None


def test_clusters_without_a_figure_are_not_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cut", lambda _trees, _images, size: (str(size),))

    def apart(groups: tuple[str, ...]) -> Choice:
        size = int(groups[0])
        return Choice(1.0, 0.0, 0.7 if size <= 2 else math.nan, 5)

    groups, found = module._clusters_like(Space.of(TRACKS.subset(np.arange(0, 480, 3))), 0.75, apart)
    assert (groups, found.accuracy) == (("2",), 0.7)


def test_one_cluster_that_holds_most_of_a_class_is_no_series() -> None:
    assert unevenness([str(row // 12) for row in range(240)]) == pytest.approx(1)
    assert unevenness(["all"] * 200 + [str(row) for row in range(40)]) > MOST_UNEVEN


def test_what_either_grouping_keeps_together_stays_together() -> None:
    names = together(["a", "a", "b", "c", "d"], ["x", "y", "y", "z", "w"])
    assert len(set(names[:3])) == 1
    assert len(set(names)) == 3
