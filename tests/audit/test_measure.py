"""Measured values against pictures whose values are known, and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from saccade.audit.quality import measure_images, reduce_to_side


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def one(pixels: NDArray[np.uint8]) -> dict[str, float]:
    values = measure_images([pixels])[0]
    return {name: float(values[name]) for name in values.dtype.names}


def flat(level: int, side: int = 40) -> NDArray[np.uint8]:
    return np.full((side, side, 3), level, np.uint8)


@pytest.mark.parametrize("level", [0, 51, 255])
def test_a_flat_picture(level: int) -> None:
    values = one(flat(level))
    for name in ("brightness", "darkest", "brightest", "border_brightness"):
        assert values[name] == pytest.approx(level / 255, abs=1e-6)
    assert values["contrast"] == pytest.approx(0, abs=1e-6)
    assert values["sharpness"] == 0
    assert values["border"] == 1


def test_values_agree_with_plain_loops() -> None:
    pixels = noise(21, 34)
    luma = np.array(
        [[(77 * int(r) + 150 * int(g) + 29 * int(b)) // 256 for r, g, b in row] for row in pixels]
    )
    values = one(pixels)
    assert values["brightness"] == pytest.approx(luma.mean() / 255, abs=1e-6)
    assert values["contrast"] == pytest.approx(luma.std() / 255, abs=1e-6)
    laplacian = [
        4 * luma[y, x] - luma[y - 1, x] - luma[y + 1, x] - luma[y, x - 1] - luma[y, x + 1]
        for y in range(1, 20)
        for x in range(1, 33)
    ]
    assert values["sharpness"] == pytest.approx(np.std(laplacian) / 255, rel=1e-5)
    saturation = [(max(p) - min(p)) / max(max(p), 1) for row in pixels.astype(int) for p in row.tolist()]
    assert values["saturation"] == pytest.approx(np.mean(saturation), rel=1e-5)
    ring = np.concatenate([luma[0], luma[-1], luma[:, 0], luma[:, -1]])
    assert values["border_brightness"] == pytest.approx(ring.mean() / 255, rel=1e-5)


def test_many_at_once_are_measured_as_one_by_one() -> None:
    images = [noise(32, 32, 1), noise(20, 30, 2), flat(9, 32), noise(32, 32, 3), noise(300, 500, 4)]
    together = measure_images(images)
    apart = np.concatenate([measure_images([image]) for image in images])
    for name in together.dtype.names:
        np.testing.assert_allclose(together[name], apart[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(("thick", "side", "share"), [(0, 50, 0.0), (5, 50, 0.2), (10, 40, 0.5)])
def test_a_uniform_border_is_measured_in_rows_and_columns(thick: int, side: int, share: float) -> None:
    pixels = flat(255, side)
    inner = side - 2 * thick
    pixels[thick : side - thick, thick : side - thick] = noise(inner, inner)
    assert one(pixels)["border"] == pytest.approx(share)


def test_blur_lowers_sharpness_and_leaves_contrast() -> None:
    smooth = np.array(Image.fromarray(noise(30, 40)).resize((320, 240), Image.Resampling.BICUBIC))
    sharp = one(np.clip(smooth.astype(int) + (noise(240, 320, 5) // 8), 0, 255).astype(np.uint8))
    blurred = one(np.array(Image.fromarray(smooth).filter(ImageFilter.GaussianBlur(4))))
    assert blurred["sharpness"] / blurred["contrast"] < 0.3 * sharp["sharpness"] / sharp["contrast"]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (2, 2, 3), (700, 2, 3)])
def test_the_smallest_pictures_have_values(shape: tuple[int, int, int]) -> None:
    values = measure_images([np.full(shape, 100, np.uint8)])[0]
    for name in ("brightness", "sharpness", "border", "saturation"):
        assert np.isfinite(values[name]), name


def test_no_picture_no_rows() -> None:
    assert len(measure_images([])) == 0


def test_the_longer_side_is_reduced_and_never_enlarged() -> None:
    assert reduce_to_side(noise(300, 600), 256).shape == (128, 256, 3)
    assert reduce_to_side(noise(30, 60), 256).shape == (30, 60, 3)
    assert reduce_to_side(noise(5000, 2), 256).shape == (256, 1, 3)
