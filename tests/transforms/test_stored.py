"""Pixels that are kept between runs belong to the version of what makes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saccade.preprocess import Preprocess
from saccade.transforms.geometry import as_evaluated
from saccade.transforms.resize import shrink
from saccade.transforms.stored import STORING_VERSION

# shape of the working copy; mean, deviation and mean steps of it and of what evaluation sees
MADE = {
    "crop": ([3, 45, 60], [105.78, 52.81, 9.08, 10.55], [119.97, 47.3, 9.64, 12.73]),
    "squash": ([3, 45, 60], [105.78, 52.81, 9.08, 10.55], [105.78, 51.85, 14.56, 13.12]),
    "pad": ([3, 30, 40], [105.69, 51.7, 11.77, 13.71], [107.93, 44.43, 10.23, 14.7]),
}


def image() -> torch.Tensor:
    """uint8 (3, 90, 120): waves and noise."""
    y, x = np.mgrid[0:90, 0:120]
    noise = np.random.default_rng(0).integers(0, 40, (3, 90, 120))
    waves = np.stack([x * 2 % 200, (y * 3 + x) % 190, x * y // 9 % 180])
    return torch.from_numpy((waves + noise).astype(np.uint8))


def preprocess(resize: str) -> Preprocess:
    return Preprocess(size=32, resize=resize, interpolation="bicubic")


def summary(pixels: torch.Tensor) -> list[float]:
    values = pixels.float()
    across, down = values.diff(dim=2).abs().mean(), values.diff(dim=1).abs().mean()
    return [round(float(value), 2) for value in (values.mean(), values.std(), across, down)]


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_stored_pixels_belong_to_their_version(resize: str) -> None:
    """Raise STORING_VERSION when this changes on purpose: pixels of earlier versions go unused then."""
    small = shrink(image(), preprocess(resize))
    shown = as_evaluated(small, preprocess(resize))
    assert STORING_VERSION == 1
    assert (list(small.shape), list(shown.shape)) == (MADE[resize][0], [3, 32, 32])
    assert summary(small) == pytest.approx(MADE[resize][1], abs=0.3)
    assert summary(shown) == pytest.approx(MADE[resize][2], abs=0.3)
