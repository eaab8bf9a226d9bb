"""10, 12 and 14 bits in 16-bit files: recognised, and scaled by the value that means white."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.audit import audit
from saccade.audit.scan import scan
from saccade.images.decoder import Limits, decode
from saccade.records import Finding
from saccade.sources import load_source


def deep(root: Path, top: int, ending: str, *, images: int = 4) -> Path:
    """Pictures of two classes whose values reach `top`, saved with 16 bits."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for n in range(images):
            values = rng.integers(0, top + 1, (24, 24)).astype(np.uint16)
            values[0, :2] = top, 0
            Image.fromarray(values).save(root / label / f"{n}.{ending}")
    return root


def findings(root: Path, gray_maximum: int = 0) -> dict[str, Finding]:
    scanned = scan(load_source(root), limits=Limits(gray_maximum=gray_maximum), workers=1)
    found = audit(scanned.dataset, scanned.measurements, near_duplicates=False, gray_maximum=gray_maximum)
    return {one.kind: one for one in found.findings}


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (16383, 14)])
def test_fewer_bits_than_the_files_hold_are_named_with_the_remedy(
    tmp_path: Path, top: int, bits: int, ending: str
) -> None:
    found = findings(deep(tmp_path, top, ending))
    low = found["low_levels"]
    assert low.severity == "warning"
    assert f"8 16-bit images, none with a value above {top:,} of 65,535" in low.message
    assert f"--data.gray_maximum {top} for {bits} bits" in low.remedy
    assert low.figure["levels"] == round(top * 255 / 65535) + 1
    assert not {"blank", "too_dark"} & set(found)  # whose remedy would be to delete the images


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_with_the_value_for_white_nothing_is_lost_or_said(tmp_path: Path, ending: str) -> None:
    root = deep(tmp_path, 4095, ending)
    assert "low_levels" not in findings(root, 4095)
    data = (root / "a" / f"0.{ending}").read_bytes()
    pixels = decode(data, limits=Limits(gray_maximum=4095)).pixels
    assert (pixels.min(), pixels.max()) == (0, 255)
    values = np.asarray(Image.open(io.BytesIO(data))).astype(float)
    assert np.abs(pixels[..., 0] - values * 255 / 4095).max() <= 0.5 + 1e-9
    assert len(np.unique(pixels)) > 16 >= len(np.unique(decode(data).pixels)) - 1


@pytest.mark.parametrize("top", [20_000, 65_535])
def test_the_full_range_needs_no_remark(tmp_path: Path, top: int) -> None:
    assert "low_levels" not in findings(deep(tmp_path, top, "png"))


def test_one_bright_file_shows_that_the_range_is_used(tmp_path: Path) -> None:
    root = deep(tmp_path, 4095, "png")
    Image.fromarray(np.full((24, 24), 60_000, np.uint16)).save(root / "a" / "bright.png")
    assert "low_levels" not in findings(root)


def test_values_above_white_are_clipped_and_that_is_noted(tmp_path: Path) -> None:
    data = (deep(tmp_path, 4095, "png") / "a" / "0.png").read_bytes()
    decoded = decode(data, limits=Limits(gray_maximum=1023))
    assert decoded.pixels.max() == 255
    assert "values above 1023 clipped to white" in decoded.notes


def test_images_of_8_bits_do_not_ask_for_it(make_photos: Callable[..., Path]) -> None:
    root = make_photos(images=3)
    with_it = decode((root / "disc" / "disc_000.png").read_bytes(), limits=Limits(gray_maximum=4095))
    assert np.array_equal(with_it.pixels, decode((root / "disc" / "disc_000.png").read_bytes()).pixels)
    assert "low_levels" not in findings(root)
