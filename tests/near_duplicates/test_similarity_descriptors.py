"""Thumbnails, borders, and the vectors made of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.near_duplicates import Descriptions, describe, describe_many, empty_descriptions, stack
from saccade.near_duplicates.descriptors import (
    CELLS,
    Symmetry,
    orientation_maps,
    pooling_matrix,
    symmetry_list,
    variants,
)
from saccade.near_duplicates.views import fit_whitening, part_grids, whole_grids

Pixels = NDArray[np.uint8]
Edit = Callable[[Pixels, str], Pixels]


def thumbnails(photos: list[Pixels]) -> NDArray[np.uint8]:
    return describe_many(photos).thumbnails


def test_a_description_is_small_and_its_own_only(photos: list[Pixels]) -> None:
    described = describe_many(photos[:5])
    assert sum(array.nbytes for array in described.arrays().values()) / 5 <= 8192
    alone = describe(photos[3])
    assert np.array_equal(described.thumbnails[3], alone.thumbnail)
    assert described.sizes[3].tolist() == [128, 160]
    assert described.borders[3].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "shape", [(1, 1), (12, 12), (13, 13), (32, 32), (64, 64), (128, 128), (96, 17), (20, 50)]
)
def test_small_images_are_described_together_as_alone(shape: tuple[int, int]) -> None:
    """Noise, pictures of hardly any contrast, of one colour, and with borders; two sizes mixed."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(12)]
    images += [rng.integers(120, 126, (*shape, 3), dtype=np.uint8) for _ in range(4)]
    images += [np.full((*shape, 3), level, np.uint8) for level in (0, 77)]
    for border in (1, 2, 5):
        framed = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        framed[:border] = framed[:, -border:] = 200
        images.append(framed)
    images.insert(3, rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    together, alone = describe_many(images), stack([describe(pixels) for pixels in images])
    for name, array in alone.arrays().items():
        assert np.array_equal(together.arrays()[name], array), name


def test_descriptions_survive_saving_and_indexing(photos: list[Pixels], tmp_path: Path) -> None:
    described = describe_many(photos[:6])
    np.savez(tmp_path / "kept.npz", **described.arrays())
    with np.load(tmp_path / "kept.npz") as kept:
        back = Descriptions(**kept)
    some = back[np.array([4, 5, 0])]
    assert len(some) == 3
    assert np.array_equal(some.thumbnails[2], described.thumbnails[0])
    assert np.array_equal(some.sizes[:2], described.sizes[4:])


def test_no_images_make_empty_descriptions() -> None:
    for described in (describe_many([]), stack([]), empty_descriptions()):
        assert len(described) == 0
        assert described.thumbnails.shape == (0, 64, 64)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (3, 2), (40, 2000)])
def test_any_shape_can_be_described(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert describe(pixels).thumbnail.shape == (64, 64)
    assert tuple(describe(pixels).size) == shape


def test_a_uniform_border_is_found_and_taken_off_in_a_second_variant(
    photos: list[Pixels], edited: Edit
) -> None:
    bordered = describe(edited(photos[0], "bordered"))
    height, width = 160, 192
    expected = [16 / height, 16 / height, 16 / width, 16 / width]
    assert bordered.border.tolist() == pytest.approx([256 * share for share in expected], abs=2)
    whole, inside = variants(stack([describe(photos[1]), bordered]))
    assert (whole.image.tolist(), inside.image.tolist()) == ([0, 1], [1])
    assert np.array_equal(whole.thumbnails[1], bordered.thumbnail)
    difference = inside.thumbnails[0].astype(int) - describe(photos[0]).thumbnail
    assert np.abs(difference).mean() < 6
    assert inside.sizes[0].tolist() == pytest.approx([128, 160], abs=3)


def test_a_border_survives_compression_and_a_fading_sky_is_none(photos: list[Pixels], edited: Edit) -> None:
    stream = io.BytesIO()
    Image.fromarray(edited(photos[0], "bordered")).save(stream, "JPEG", quality=40)
    assert describe(np.asarray(Image.open(stream))).border.min() >= 12
    sky = np.repeat(np.linspace(0, 255, 128)[:, None, None], 100, 1).repeat(3, 2).astype(np.uint8)
    sky[100:, 40:60] = 90
    assert describe(sky).border[0] <= 10


def test_orientation_maps_agree_with_a_naive_loop() -> None:
    gray = np.random.default_rng(3).uniform(0, 255, (2, 9, 9)).astype(np.float32)
    expected = np.zeros((2, 8, 9, 9))
    for i, y, x in np.ndindex(2, 9, 9):
        right, left = gray[i, y, min(x + 1, 8)], gray[i, y, max(x - 1, 0)]
        below, above = gray[i, min(y + 1, 8), x], gray[i, max(y - 1, 0), x]
        gx, gy = float(right) - float(left), float(below) - float(above)
        position = np.arctan2(gy, gx) / np.pi * 8 % 8
        share = position - np.floor(position)
        expected[i, int(position) % 8, y, x] += np.hypot(gx, gy) * (1 - share)
        expected[i, (int(position) + 1) % 8, y, x] += np.hypot(gx, gy) * share
    assert orientation_maps(gray) == pytest.approx(expected, rel=1e-3, abs=0.1)


def test_pooling_covers_a_stretch_and_nothing_else() -> None:
    matrix = pooling_matrix(0.25, 0.5, side=64)
    assert matrix.shape == (CELLS, 64)
    assert not matrix[:, :16].any()
    assert not matrix[:, 48:].any()
    inner = matrix.sum(axis=0)[20:44]
    assert inner == pytest.approx(np.ones(24), abs=1e-5)  # triangles of neighbours add up to one


@pytest.mark.parametrize("symmetry", symmetry_list(8), ids=str)
def test_the_grid_of_a_turned_picture_is_the_turned_grid(symmetry: Symmetry, photos: list[Pixels]) -> None:
    pictures = thumbnails(photos[:4])
    turned = whole_grids(np.ascontiguousarray(symmetry.images(pictures)))
    assert symmetry.grid(whole_grids(pictures)) == pytest.approx(turned, abs=1e-3)


@pytest.mark.parametrize("symmetry", symmetry_list(8), ids=str)
def test_the_matrix_of_a_symmetry_says_where_a_point_comes_from(symmetry: Symmetry) -> None:
    picture = np.arange(16).reshape(1, 4, 4)
    changed = symmetry.images(picture)[0]
    centre = (np.arange(4) + 0.5) / 2 - 1
    for row, column in np.ndindex(4, 4):
        x, y = symmetry.matrix @ np.array([centre[column], centre[row]])
        assert changed[row, column] == picture[0, round((y + 1) * 2 - 0.5), round((x + 1) * 2 - 0.5)]


def test_inverting_a_picture_leaves_its_grid(photos: list[Pixels]) -> None:
    pictures = thumbnails(photos[:3])
    assert whole_grids(255 - pictures) == pytest.approx(whole_grids(pictures), abs=1e-3)


def test_the_crop_views_are_those_of_the_crop(photos: list[Pixels], edited: Edit) -> None:
    whole, corner = thumbnails(photos[:8]), thumbnails([edited(p, "corner") for p in photos[:8]])
    by_view = (part_grids(whole)["crop 0"] * whole_grids(corner)).sum(axis=1)
    other = (part_grids(whole)["crop 8"] * whole_grids(corner)).sum(axis=1)
    assert (by_view > 0.97).all()
    assert (by_view > other).all()


def test_whitened_pictures_have_nothing_to_do_with_each_other(photos: list[Pixels]) -> None:
    pictures = thumbnails(photos)
    whiten = fit_whitening(pictures)
    vectors = whiten(whole_grids(pictures))
    cosines = vectors @ vectors.T - np.eye(len(vectors))
    assert np.abs(cosines).mean() < 0.2
    assert not whiten(np.zeros((1, 128), np.float32)).any()
