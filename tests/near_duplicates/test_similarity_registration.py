"""Maps that are known beforehand must be found again."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.near_duplicates import describe_many
from saccade.near_duplicates.agreement import Edges, agreement, edges_evidence, map_cost, total_evidence
from saccade.near_duplicates.registration import (
    FINE_GRID,
    Pictures,
    Templates,
    coarse_pictures,
    fine_pictures,
    grid_points,
    inside,
    inside_boxes,
    inverted,
    moved,
    robust_fit,
    rough_fit,
)

Pixels = NDArray[np.uint8]
IDENTITY = np.eye(2, 3, dtype=np.float32)
TRUE = np.array([[0.95, 0.06, 0.08], [-0.04, 0.92, -0.05]], np.float32)


@pytest.fixture(scope="module")
def pictures(photos: list[Pixels]) -> NDArray[np.uint8]:
    return fine_pictures(describe_many(photos[:10]).thumbnails)


def warped(pictures: NDArray[np.uint8], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What one sees at the mapped points: a template whose map into `pictures` is known."""
    count = len(pictures)
    seen = Pictures(pictures).at(grid_points(64), np.arange(count), np.tile(maps, (count, 1, 1)), smooth=True)
    return np.rint(seen).reshape(count, 64, 64).astype(np.uint8)


def fit(templates: NDArray[np.uint8], pictures: NDArray[np.uint8], *, steps: int = 12) -> NDArray[np.float32]:
    count = len(templates)
    start = np.tile(IDENTITY, (count, 1, 1))
    window = np.ones((count, FINE_GRID**2), np.float32)
    return robust_fit(
        Templates.of(templates, FINE_GRID, window),
        Pictures(pictures),
        np.arange(count),
        start,
        start,
        grid=FINE_GRID,
        steps=steps,
    )


def test_sampling_by_the_identity_is_the_picture_itself(pictures: NDArray[np.uint8]) -> None:
    assert np.array_equal(warped(pictures, IDENTITY), pictures)


def test_a_known_map_is_found(pictures: NDArray[np.uint8]) -> None:
    found = fit(warped(pictures, TRUE), pictures)
    assert np.abs(found - TRUE).max(axis=(1, 2)) == pytest.approx(np.zeros(10), abs=0.02)


def test_brightness_contrast_and_inversion_do_not_matter(pictures: NDArray[np.uint8]) -> None:
    changed = (200 - 0.6 * warped(pictures, TRUE)).astype(np.uint8)
    assert np.abs(fit(changed, pictures) - TRUE).max() < 0.03


def test_a_small_logo_over_the_picture_does_not_pull_it_away(pictures: NDArray[np.uint8]) -> None:
    templates = warped(pictures, TRUE)
    covered = pictures.copy()
    covered[:, 44:56, 40:56] = 255
    assert np.abs(fit(templates, covered) - TRUE).max(axis=(1, 2)).max() < 0.05


def test_pictures_that_overlap_only_partly_are_still_laid_right(pictures: NDArray[np.uint8]) -> None:
    beyond = np.array([[1, 0, 0.3], [0, 1, -0.2]], np.float32)  # a part of the template is outside
    larger = np.pad(pictures, ((0, 0), (20, 20), (20, 20)), mode="reflect")
    rolled = np.roll(larger, (-int(-0.2 * 32), -int(0.3 * 32)), axis=(1, 2))[:, 20:-20, 20:-20]
    found = fit(np.ascontiguousarray(rolled), pictures, steps=15)
    close = np.abs(found - beyond).max(axis=(1, 2)) < 0.06
    assert close.mean() >= 0.7


def test_rough_steps_come_near(photos: list[Pixels]) -> None:
    thumbnails = describe_many(photos[:10]).thumbnails
    blurred, templates = coarse_pictures(thumbnails), coarse_pictures(warped(thumbnails, TRUE))
    start = np.tile(IDENTITY, (10, 1, 1))
    solver = Templates.of(templates, 16, np.ones((10, 256), np.float32)).solver()
    found = rough_fit(solver, Pictures(blurred), np.arange(10), start, steps=6)
    assert np.abs(found - TRUE).max(axis=(1, 2)).max() < 0.1


def test_a_map_and_its_inverse_cancel() -> None:
    maps = np.tile(TRUE, (1, 1, 1))
    back = inverted(maps)
    point = np.array([0.3, -0.7, 1], np.float32)
    there = np.append(maps[0] @ point, 1)
    assert back[0] @ there == pytest.approx(point[:2], abs=1e-5)
    assert inverted(back) == pytest.approx(maps, abs=1e-5)


def test_one_step_is_limited_and_so_is_the_whole_way() -> None:
    start = np.tile(IDENTITY, (1, 1, 1))
    wild = np.array([[1, 0, 9, -9, 9, 9, -9, 9]], np.float32)
    maps = start
    for _ in range(20):
        maps = moved(maps, wild, start)
    assert np.abs(maps - start).max() <= 0.45 + 1e-6


def test_points_outside_are_known(pictures: NDArray[np.uint8]) -> None:
    points = grid_points(4)
    shifted = np.array([[[1, 0, 0.5], [0, 1, 0]]], np.float32)
    assert inside(points, shifted).reshape(4, 4)[0].tolist() == [True, True, True, False]
    box = np.array([[-1, 0.5, -1, 1]], np.float32)
    assert inside_boxes(points, shifted, box).reshape(4, 4)[0].tolist() == [True, True, False, False]


def test_the_cost_of_a_map_knows_turns_and_mirrors() -> None:
    def cost(matrix: list[list[float]]) -> float:
        return float(map_cost(np.array([[[*row, 0.0] for row in matrix]], np.float32))[0])

    for free in ([[1, 0], [0, 1]], [[-1, 0], [0, 1]], [[0, -1], [1, 0]], [[0, 0.8], [0.8, 0]]):
        assert cost(free) == pytest.approx(0, abs=1e-5)
    assert cost([[1, 0], [0, 0.5]]) == pytest.approx(2 * np.log(2), abs=1e-4)
    turn = np.radians(10)
    rotation = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    assert cost(rotation) == pytest.approx(2 * turn, abs=1e-4)
    mirrored = [[-a, b] for a, b in rotation]
    assert cost(mirrored) == pytest.approx(2 * turn, abs=1e-4)


def test_a_tone_curve_takes_nothing_from_the_score_and_other_pictures_score_low(
    pictures: NDArray[np.uint8],
) -> None:
    count = len(pictures)
    points, maps = grid_points(FINE_GRID), np.tile(IDENTITY, (count, 1, 1))
    window = np.ones((count, FINE_GRID**2), np.float32)
    contrast = Templates.of(pictures, FINE_GRID, window).contrast
    everywhere, whole = window > 0, np.ones(count, np.float32)

    def score(others: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = Pictures(others).at(points, np.arange(count), maps, smooth=True)
        return agreement(contrast, values, everywhere, maps, whole).score

    darker = (255 * (pictures / 255) ** 2).astype(np.uint8)
    assert score(darker).min() > 27
    assert score(255 - pictures).min() > 25
    assert score(np.roll(pictures, 1, axis=0)).max() < 3


def test_evidence_of_edges_is_that_of_pictures_where_all_points_count() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(60, 256)).astype(np.float32).cumsum(axis=1)
    second = first + rng.normal(size=first.shape).astype(np.float32) * rng.uniform(0, 5, (60, 1)).astype(
        np.float32
    )
    second[1], second[2] = -first[1], 3
    native = rng.uniform(0.1, 1, 60).astype(np.float32)
    expected = total_evidence(first, second, np.ones(first.shape, bool), native)
    found = edges_evidence(Edges.of(first), Edges.of(second), native)
    assert found == pytest.approx(expected, abs=1e-3)
    assert np.ptp(expected) > 10
    rows = np.array([5, 5, 7])
    again = edges_evidence(Edges.of(first)[rows], Edges.of(second[rows]), native[rows])
    assert again == pytest.approx(found[rows], abs=1e-4)
