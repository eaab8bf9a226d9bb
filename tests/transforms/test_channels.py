"""Gray, 16 bits and many channels on the way to the network: evaluation, augmentation, batches, caches."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from saccade.caches.pixels import PixelCache
from saccade.images.decoder import Limits
from saccade.preprocess import PixelFormat, Preprocess
from saccade.recipe import POLICIES
from saccade.records import ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.transforms import Augmentation, TrainingBatches
from saccade.transforms.apply import channels_first, normalise, pictures, to_input
from saccade.transforms.augment import augment
from saccade.transforms.automatic import AUTOMATIC
from saccade.transforms.geometry import as_evaluated
from saccade.transforms.memory import MemoryBatches, fits_in_memory

SIDE = 24
FORMATS = [PixelFormat("gray", 8), PixelFormat("gray", 16), PixelFormat("5", 8), PixelFormat("5", 16)]
MODES = [("crop", "bilinear"), ("pad", "bicubic"), ("squash", "bilinear")]
CHANGED = {
    "random_resized_crop": 0.5,
    "random_crop": 0.1,
    "crop_border": "reflect",
    "rotation": 20.0,
    "zoom": 0.2,
    "shift": 0.1,
    "shear": 10.0,
    "horizontal_flip": 1.0,
    "brightness": 0.3,
    "contrast": 0.3,
    "automatic": "trivial_augment",
    "cutout": 1.0,
    "perspective": 0.3,
    "sharpness": 0.5,
    "blur": 0.05,
    "jpeg_quality": 60,
    "grayscale": 1.0,
}


def preprocess_of(pixels: PixelFormat, resize: Any = "crop", interpolation: Any = "bilinear") -> Preprocess:
    mean = tuple(0.4 + 0.02 * i for i in range(pixels.count))
    std = tuple(0.2 + 0.01 * i for i in range(pixels.count))
    return Preprocess(SIDE, resize, interpolation, 0.9, mean, std, pixels)


def picture(pixels: PixelFormat, height: int = 40, width: int = 30) -> NDArray[Any]:
    random = np.random.default_rng(3)
    return random.integers(0, pixels.largest + 1, (height, width, pixels.count)).astype(pixels.dtype)


@pytest.mark.parametrize(("resize", "interpolation"), MODES)
def test_three_equal_channels_give_what_gray_gives(resize: str, interpolation: str) -> None:
    gray = PixelFormat("gray")
    image = picture(gray)
    one = to_input(image, preprocess_of(gray, resize, interpolation))
    rgb = Preprocess(SIDE, resize, interpolation, 0.9, (0.4,) * 3, (0.2,) * 3)  # type: ignore[arg-type]
    three = to_input(np.repeat(image, 3, axis=2), rgb)
    assert torch.equal(one, three[:1])


@pytest.mark.parametrize(("resize", "interpolation"), MODES)
def test_channels_do_not_touch_each_other_and_16_bits_scale_as_8(resize: str, interpolation: str) -> None:
    five = PixelFormat("5", 16)
    preprocess = preprocess_of(five, resize, interpolation)
    image = picture(five)
    whole = to_input(image, preprocess)
    assert whole.shape == (5, SIDE, SIDE)
    alone = replace(
        preprocess, mean=preprocess.mean[3:4], std=preprocess.std[3:4], pixels=PixelFormat("gray", 16)
    )
    assert torch.allclose(to_input(image[..., 3:4].copy(), alone)[0], whole[3], atol=1e-5)
    eight = (image // 257).astype(np.uint8)
    narrow = to_input(eight, replace(preprocess, pixels=PixelFormat("5", 8)))
    wide = to_input(eight.astype(np.uint16) * 257, preprocess)
    assert torch.allclose(narrow, wide, atol=1e-5)


def test_the_training_resize_keeps_fine_levels() -> None:
    gray = PixelFormat("gray", 16)
    fine = np.full((SIDE * 2, SIDE * 2, 1), 30_000, np.uint16)
    fine[:SIDE] += 7
    small = as_evaluated(
        channels_first(fine), Preprocess(SIDE, "squash", mean=(0.5,), std=(0.2,), pixels=gray)
    )
    assert small.dtype == torch.uint16
    assert {int(value) for value in small[0, [0, -1], 0].tolist()} == {30_000, 30_007}


@pytest.mark.parametrize("pixels", FORMATS, ids=str)
@pytest.mark.parametrize("name", ["none", *CHANGED])
def test_each_augmentation_keeps_shape_and_range(pixels: PixelFormat, name: str) -> None:
    strength = Augmentation(**({name: CHANGED[name]} if name in CHANGED else {}))
    preprocess = preprocess_of(pixels)
    image = channels_first(picture(pixels))
    draws = [augment(image, strength, seed=1, epoch=e, index=0, preprocess=preprocess) for e in (0, 0, 1)]
    assert draws[0].shape == (pixels.count, SIDE, SIDE)
    assert torch.equal(draws[0], draws[1]), "same seed, same image"
    assert draws[0].dtype == (torch.uint8 if pixels.bits == 8 else torch.float32)
    assert 0 <= draws[0].to(torch.float32).min() <= draws[0].to(torch.float32).max() <= pixels.largest
    evaluated = as_evaluated(image, preprocess).to(torch.float32)
    if name == "none":
        assert torch.equal(draws[0].to(torch.float32), evaluated)


@pytest.mark.parametrize("pixels", FORMATS, ids=str)
def test_colours_change_nothing_where_there_are_none(pixels: PixelFormat) -> None:
    image, preprocess = channels_first(picture(pixels)), preprocess_of(pixels)

    def drawn(**strengths: float) -> torch.Tensor:
        return augment(image, Augmentation(**strengths), seed=1, epoch=0, index=0, preprocess=preprocess)  # type: ignore[arg-type]

    assert torch.equal(drawn(saturation=0.9, hue=0.4), drawn())
    assert not torch.equal(drawn(brightness=0.9), drawn())


def test_three_equal_channels_are_changed_as_gray_is() -> None:
    """One operation at a time, up to a level, by which torchvision's means of three and of one differ."""
    image, policy = channels_first(picture(PixelFormat("gray"), SIDE, SIDE)), AUTOMATIC["trivial_augment"]
    for seed in range(80):
        one = policy(image, fill=[100.0], rng=np.random.default_rng(seed))
        three = policy(image.repeat(3, 1, 1), fill=[100.0] * 3, rng=np.random.default_rng(seed))
        assert (one[0].int() - three[0].int()).abs().max() <= 1, seed


def test_fine_levels_survive_every_policy() -> None:
    """No step rounds 16 bits to 8: among thousands of levels, more than 256 are left."""
    gray = PixelFormat("gray", 16)
    image = channels_first(picture(gray, 64, 64))
    preprocess = replace(preprocess_of(gray), size=64)
    for name in POLICIES:
        strength = Augmentation(**POLICIES[name])
        for epoch in range(8):
            drawn = augment(image, strength, seed=0, epoch=epoch, index=0, preprocess=preprocess)
            assert len(drawn.unique()) > 300, (name, epoch)


def stored(folder: Path, pixels: PixelFormat, count: int = 6) -> list[ImageRecord]:
    random = np.random.default_rng(0)
    records = []
    for number in range(count):
        image = random.integers(0, pixels.largest + 1, (SIDE + 9, SIDE + 5, pixels.count))
        np.save(folder / f"{number}.npy", image.astype(pixels.dtype))
        sha256 = hashlib.sha256((folder / f"{number}.npy").read_bytes()).hexdigest()
        records.append(ImageRecord(f"{number}.npy", "ab"[number % 2], sha256=sha256))
    return records


@pytest.mark.parametrize("pixels", FORMATS, ids=str)
def test_batches_are_the_same_from_the_cache_and_from_processes(pixels: PixelFormat, tmp_path: Path) -> None:
    records = stored(tmp_path, pixels)
    preprocess, limits = preprocess_of(pixels), Limits(pixels=pixels)
    strength = Augmentation(random_resized_crop=0.6, brightness=0.2, rotation=10)

    def epoch(**how: Any) -> torch.Tensor:
        batches = TrainingBatches(
            FolderStorage(tmp_path), records, ("a", "b"), preprocess, 3,
            augmentation=strength, seed=1, limits=limits, **how,
        )  # fmt: skip
        return torch.cat([batch.images for batch in batches.epoch(0)])

    plain = epoch()
    assert plain.shape == (6, pixels.count, SIDE, SIDE)
    cache = PixelCache(tmp_path / "cache", 10**9)
    assert torch.equal(epoch(pixels=cache), plain), "while it fills"
    assert torch.equal(epoch(pixels=cache), plain), "from the disk"
    if pixels == PixelFormat("5", 16):
        assert torch.equal(epoch(workers=1), plain)


@pytest.mark.parametrize("pixels", FORMATS, ids=str)
def test_small_images_in_memory_are_the_evaluated_ones(pixels: PixelFormat, tmp_path: Path) -> None:
    records, preprocess = stored(tmp_path, pixels), preprocess_of(pixels)
    assert fits_in_memory(len(records), preprocess, Augmentation())
    batches = MemoryBatches(
        FolderStorage(tmp_path), records, ("a", "b"), preprocess, 6,
        augmentation=Augmentation(), seed=0, limits=Limits(pixels=pixels),
    )  # fmt: skip
    batch = next(batches.epoch(0))
    for image, path in zip(batch.images, batch.paths, strict=True):
        pixels_of_file = channels_first(np.load(tmp_path / path))
        expected = normalise(as_evaluated(pixels_of_file, preprocess), preprocess)
        assert torch.allclose(image, expected, atol=1e-5)


@pytest.mark.parametrize("pixels", FORMATS, ids=str)
def test_people_see_rgb(pixels: PixelFormat) -> None:
    preprocess = preprocess_of(pixels)
    shown = pictures(torch.stack([to_input(picture(pixels), preprocess)] * 2), preprocess)
    assert shown.shape == (2, SIDE, SIDE, 3)
    assert shown.dtype == np.uint8


def test_the_table_above_has_every_strength_but_those_of_colours_and_mixing() -> None:
    others = {"saturation", "hue", "mix_up", "cut_mix", "extra", "alternate_flip", "vertical_flip"}
    assert {field.name for field in fields(Augmentation)} >= CHANGED.keys() | others
