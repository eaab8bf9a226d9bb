"""Edited copies of a photo, as people and programs make them: edits that a search must survive.

Each edit is a function (image, rng) -> image on RGB images of Pillow; what is random in it comes from `rng`
alone, so an edit of a photo is the same on every machine. The names say what is done.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def resize(image: Image.Image, across: float, down: float) -> Image.Image:
    width, height = image.size
    return image.resize((round(width * across), round(height * down)), Image.Resampling.BICUBIC)


def crop(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """A window of `share` of each side, anywhere."""
    width, height = image.size
    across, down = round(width * share), round(height * share)
    left, top = (round(slack * rng.random()) for slack in (width - across, height - down))
    return image.crop((left, top, left + across, top + down))


def turn_hue(image: Image.Image, degrees: float) -> Image.Image:
    channels = np.array(image.convert("HSV"))
    channels[..., 0] = (channels[..., 0].astype(int) + round(degrees / 360 * 256)) % 256
    return Image.fromarray(channels, "HSV").convert("RGB")


def gamma(image: Image.Image, power: float) -> Image.Image:
    return image.point([round(255 * (level / 255) ** power) for level in range(256)] * 3)


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Turned, and cut to the largest window of the same shape without empty corners."""
    width, height = image.size
    angle = math.radians(abs(degrees))
    share = 1 / (math.cos(angle) + math.sin(angle) * max(width, height) / min(width, height))
    turned = image.rotate(degrees, Image.Resampling.BICUBIC)
    across, down = round(width * share), round(height * share)
    left, top = (width - across) // 2, (height - down) // 2
    return turned.crop((left, top, left + across, top + down))


def border(image: Image.Image, share: float, colour: tuple[int, int, int]) -> Image.Image:
    width, height = image.size
    return ImageOps.expand(image, (round(width * share), round(height * share)), colour)


def text_bar(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A bar over a fifth of the height, at the top or the bottom, with a line of text."""
    width, height = image.size
    bar = round(height * 0.2)
    top = 0 if rng.random() < 0.5 else height - bar
    paper, ink = ("white", "black") if rng.random() < 0.5 else ("black", "white")
    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    draw.rectangle((0, top, width, top + bar), fill=paper)
    font = ImageFont.load_default(size=max(8, bar * 0.55))
    draw.text((width * 0.04, top + bar * 0.15), "FLOWERS OF THE WORLD", fill=ink, font=font)
    return marked


def noise(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float32)
    return Image.fromarray(np.clip(pixels + rng.normal(0, sigma, pixels.shape), 0, 255).astype(np.uint8))


def _either(rng: np.random.Generator, first: float, second: float) -> float:
    return first if rng.random() < 0.5 else second


EDITS: dict[str, Edit] = {
    "half size": lambda image, rng: resize(image, 0.5, 0.5),
    "four times the size": lambda image, rng: resize(image, 4, 4),
    "squashed 4:3": lambda image, rng: resize(image, 0.75, 1),
    "gray": lambda image, rng: image.convert("L").convert("RGB"),
    "contrast x 0.5 or 1.6": lambda image, rng: ImageEnhance.Contrast(image).enhance(_either(rng, 0.5, 1.6)),
    "gamma 2": lambda image, rng: gamma(image, 2),
    "brightness x 0.6 or 1.5": lambda image, rng: ImageEnhance.Brightness(image).enhance(
        _either(rng, 0.6, 1.5)
    ),
    "hue + 84 degrees": lambda image, rng: turn_hue(image, 84),
    "inverted": lambda image, rng: ImageOps.invert(image),
    "JPEG 30": lambda image, rng: jpeg(image, 30),
    "JPEG 10": lambda image, rng: jpeg(image, 10),
    "mirrored": lambda image, rng: ImageOps.mirror(image),
    "mirrored, crop 94 %, JPEG 50": lambda image, rng: jpeg(crop(ImageOps.mirror(image), 0.94, rng), 50),
    "crop 94 %": lambda image, rng: crop(image, 0.94, rng),
    "crop 87 %": lambda image, rng: crop(image, 0.87, rng),
    "crop 80 %": lambda image, rng: crop(image, 0.80, rng),
    "crop 70 %": lambda image, rng: crop(image, 0.70, rng),
    "rotated 5 degrees": lambda image, rng: rotate(image, _either(rng, -5, 5)),
    "border 10 %": lambda image, rng: border(image, 0.1, (255,) * 3 if rng.random() < 0.5 else (0,) * 3),
    "text bar over 20 %": text_bar,
    "blurred, radius 1": lambda image, rng: image.filter(ImageFilter.GaussianBlur(1)),
    "noise, sigma 15": lambda image, rng: noise(image, 15, rng),
}

TURNS: dict[str, Edit] = {  # need symmetries=8
    "turned 90 degrees": lambda image, rng: image.transpose(Image.Transpose.ROTATE_90),
    "turned 180 degrees": lambda image, rng: image.transpose(Image.Transpose.ROTATE_180),
}


def edited(image: Image.Image, name: str, seed: int) -> Image.Image:
    """The copy named, the same for the same seed."""
    edits = {**EDITS, **TURNS}
    return edits[name](image, np.random.default_rng([seed, list(edits).index(name)]))
