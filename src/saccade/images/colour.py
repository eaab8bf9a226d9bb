"""Any of Pillow's modes to 8-bit RGB, and the pixels of that; what was done on the way is said in notes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.errors import ImageError
from saccade.images.headers.header import ImageHeader

ON_BACKGROUND = "transparent pixels laid on the background"  # a note of the decoder
_ALPHA_MODES = ("LA", "PA", "RGBA", "La", "RGBa")
_GRAY_16_MODES = ("I;16", "I;16B", "I;16L", "I;16N")


def is_gray_16(image: Image.Image, header: ImageHeader) -> bool:
    return image.mode in _GRAY_16_MODES or (image.mode == "I" and header.format == "PPM")


def to_rgb(image: Image.Image, background: tuple[int, int, int]) -> tuple[Image.Image, tuple[str, ...]]:
    """The image in mode RGB, and notes about the conversion."""
    if image.mode in ("I", "F"):
        raise unknown_range(image.mode)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return _on_background(image, background)
    if image.mode == "RGB":
        return image, ()
    if image.mode == "CMYK":
        return _from_cmyk(image), ()
    return image.convert("RGB"), ()


def _from_cmyk(image: Image.Image) -> Image.Image:
    """Light left by each ink times light left by black, rounded down as in browsers; Pillow rounds."""
    left = 255 - np.asarray(image).astype(np.uint16)
    return Image.fromarray((left[..., :3] * left[..., 3:] // 255).astype(np.uint8))


def unknown_range(mode: str) -> ImageError:
    """The error for values whose black and white are unknown."""
    return ImageError(
        f"values of unknown range (mode {mode})",
        "Give the range: convert it to 8 or 16 bits with a black and white you choose",
    )


def from_gray_16(
    image: Image.Image, header: ImageHeader, gray_maximum: int
) -> tuple[Image.Image, tuple[str, ...], int]:
    """The image in mode RGB, what to say, and the largest value where the file declares the full range."""
    values = np.asarray(image).astype(np.uint32)
    declared = 65535 if header.format == "PPM" else header.gray_maximum
    says_its_depth = header.format in ("HEIF", "JXL")  # and their decoders stretch it to 16 bits
    white = (gray_maximum if not says_its_depth else 0) or declared
    peak = int(values.max(initial=0))
    scaled = np.minimum((values * 255 + white // 2) // white, 255).astype(np.uint8)
    rgb = Image.fromarray(255 - scaled if header.inverted else scaled).convert("RGB")
    clipped = (f"values above {white} clipped to white",) if peak > white else ()
    # only where the file does not say how many bits it uses is a low peak a sign of fewer
    known = declared == 65535 and not header.inverted and not says_its_depth
    notes = clipped if says_its_depth else ("16-bit gray scaled to 8 bits", *clipped)
    return rgb, notes, peak if known else -1


def _on_background(image: Image.Image, colour: tuple[int, int, int]) -> tuple[Image.Image, tuple[str, ...]]:
    layer = image.convert("RGBA")
    if layer.getchannel("A").getextrema() == (255, 255):
        return layer.convert("RGB"), ()
    ground = Image.new("RGBA", layer.size, (*colour, 255))
    return Image.alpha_composite(ground, layer).convert("RGB"), (ON_BACKGROUND,)


_BAND_PIXELS = 4_000_000


def rgb_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """(height, width, 3); large images band by band, which halves the memory on the way."""
    width, height = image.size
    if width * height <= _BAND_PIXELS:
        return np.array(image, dtype=np.uint8)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels
