"""Pictures with the statistics of photos, and edited copies of them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Pixels = NDArray[np.uint8]


def photo(seed: int, *, height: int = 128, width: int = 160) -> Pixels:
    """Coloured 1/f noise with a few discs: as different from the next seed as two photos are."""
    rng = np.random.default_rng([77, seed])
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    spectrum = rng.normal(size=(3, *frequency.shape, 2)).astype(np.float64)
    waves = np.fft.irfft2((spectrum[..., 0] + 1j * spectrum[..., 1]) / frequency**1.2, s=(height, width))
    waves = 0.8 * waves[:1] + 0.3 * waves  # the channels of a photo go together
    waves = (waves - waves.mean()) / waves.std()
    pixels = np.clip(128 + 45 * waves, 0, 255).transpose(1, 2, 0).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(8, 25)
        colour = tuple(rng.integers(0, 256, 3).tolist())
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return np.asarray(image)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def text_bar(image: Image.Image) -> Image.Image:
    marked = image.copy()
    width, height = image.size
    draw = ImageDraw.Draw(marked)
    draw.rectangle((0, height * 0.8, width, height), fill="white")
    draw.text((5, height * 0.82), "FOR SALE, CALL NOW", fill="black")
    return marked


def corner(image: Image.Image, share: float) -> Image.Image:
    return image.crop((0, 0, round(image.width * share), round(image.height * share)))


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((70, 90)),
    "jpeg": lambda image: jpeg(image, 30),
    "mirrored": ImageOps.mirror,
    "gray": lambda image: image.convert("L").convert("RGB"),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "inverted": ImageOps.invert,
    "corner": lambda image: corner(image, 0.8),
    "mirrored corner": lambda image: ImageOps.mirror(corner(image, 0.85)),
    "rotated": lambda image: corner(image.rotate(4, Image.Resampling.BICUBIC), 0.95),
    "bordered": lambda image: ImageOps.expand(image, 16, (255, 255, 255)),
    "text bar": text_bar,
}


@pytest.fixture(scope="session")
def photos() -> list[Pixels]:
    """Forty different ones, 160 x 128 pixels."""
    return [photo(seed) for seed in range(40)]


@pytest.fixture(scope="session")
def edited() -> Callable[[Pixels, str], Pixels]:
    """A copy of a picture under one of the edits above, by name."""

    def edit(pixels: Pixels, name: str) -> Pixels:
        return np.asarray(EDITS[name](Image.fromarray(pixels)))

    return edit
