from __future__ import annotations

import ast
import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import InterpolationMode, functional

from saccade.preprocess import Preprocess
from saccade.transforms import apply
from saccade.transforms.apply import denormalise, normalise, normalise_rows, resize, to_input


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(75, 100), (100, 75), (33, 47), (20, 21), (64, 64)])
def test_crop_agrees_with_torchvision_on_floats(interpolation, height, width):
    preprocess = Preprocess(32, interpolation=interpolation, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = picture(height, width)
    short = 36  # floor(32 / 0.875)
    sides = [short * height // min(height, width), short * width // min(height, width)]
    image = torch.from_numpy(pixels).permute(2, 0, 1).float()
    image = functional.resize(image, sides, interpolation=InterpolationMode(interpolation), antialias=True)
    top, left = (sides[0] - 32) // 2, (sides[1] - 32) // 2
    image = functional.normalize(
        image[:, top : top + 32, left : left + 32] / 255, preprocess.mean, preprocess.std
    )
    assert torch.allclose(to_input(pixels, preprocess), image, atol=1e-5)


def test_pad_centres_the_whole_image_on_the_mean_colour():
    preprocess = Preprocess(32, resize="pad")
    result = to_input(picture(64, 32), preprocess)
    assert result.shape == (3, 32, 32)
    assert (result[:, :, :8] == 0).all()
    assert (result[:, :, 24:] == 0).all()
    inner = Preprocess(32, resize="squash")
    squashed = to_input(np.ascontiguousarray(picture(64, 32)), inner)
    assert not torch.equal(result, squashed)
    assert (result[:, :, 8:24].abs() > 0).float().mean() > 0.9


def test_squash_ignores_the_aspect():
    flat = np.full((10, 90, 3), 255, dtype=np.uint8)
    result = to_input(flat, Preprocess(16, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    assert torch.allclose(result, torch.ones(3, 16, 16))


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    resize=st.sampled_from(["crop", "pad", "squash"]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    crop_fraction=st.floats(0.1, 1),
)
def test_every_size_gives_the_square_input(height, width, resize, interpolation, crop_fraction):
    preprocess = Preprocess(16, resize=resize, interpolation=interpolation, crop_fraction=crop_fraction)
    result = to_input(picture(height, width), preprocess)
    assert result.shape == (3, 16, 16)
    assert result.dtype == torch.float32
    assert result.isfinite().all()


def test_arrays_tensors_and_read_only_memory_give_the_same():
    pixels = picture(40, 30)
    frozen = pixels.copy()
    frozen.flags.writeable = False
    expected = to_input(pixels, Preprocess(16))
    assert torch.equal(to_input(frozen, Preprocess(16)), expected)
    assert torch.equal(to_input(torch.from_numpy(pixels), Preprocess(16)), expected)


def test_denormalise_gives_the_pixels_back():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(3, 16, 16)
    assert torch.equal(denormalise(normalise(pixels, Preprocess(16)), Preprocess(16)), pixels)


@pytest.mark.parametrize("side", [1, 7, 24, 33])
def test_normalised_rows_are_what_normalise_gives_to_rounding(side):
    preprocess = Preprocess(side)
    pixels = torch.from_numpy(np.stack([picture(side, side, seed) for seed in range(5)]))
    rows = normalise_rows(pixels, preprocess)
    assert rows.shape == (5, side, 3 * side)
    expected = normalise(pixels.permute(0, 3, 1, 2), preprocess)
    torch.testing.assert_close(rows.view(pixels.shape).permute(0, 3, 1, 2), expected, rtol=0, atol=1e-6)
    out = torch.empty(side, 3 * side)
    for image, row in zip(pixels, rows, strict=True):  # alone and in a batch, bytes and floats: the same bits
        assert torch.equal(normalise_rows(image, preprocess, out=out), row)
        assert torch.equal(normalise_rows(image.float(), preprocess), row)
    assert torch.equal(out, rows[-1])


def test_promise_2_the_evaluation_path_takes_nothing_random():
    for name, function in inspect.getmembers(apply, inspect.isfunction):
        if function.__module__ == apply.__name__:
            taken = set(inspect.signature(function).parameters)
            assert not taken & {"seed", "epoch", "index", "rng", "generator", "augmentation"}, name
    called = {
        node.attr for node in ast.walk(ast.parse(inspect.getsource(apply))) if isinstance(node, ast.Attribute)
    }
    assert called
    assert not {name for name in called if "rand" in name or "seed" in name}
    torch.manual_seed(1)
    first = to_input(picture(50, 40), Preprocess(16))
    torch.manual_seed(2)
    assert torch.equal(first, to_input(picture(50, 40), Preprocess(16)))


@pytest.mark.parametrize("layout", ["rows", "planes"])
def test_a_single_column_is_resized_like_a_single_row(layout: str) -> None:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (3, 40, 20)).astype(np.float32))
    if layout == "rows":  # as decoded images lie in memory
        pixels = pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    preprocess = Preprocess(size=30, resize="pad")
    column = resize(pixels, 30, 1, preprocess)
    row = resize(pixels.transpose(1, 2).contiguous(), 1, 30, preprocess)
    assert column.std(dim=1).min() > 1  # the rows differ
    torch.testing.assert_close(column, row.transpose(1, 2))
