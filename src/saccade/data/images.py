"""The one decoder: bytes in, upright RGB pixels out, or an ImageError that says what to do.

Needs only numpy and Pillow.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from saccade.errors import ImageError

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
DEFAULT_MAX_PIXELS = 50_000_000
DEFAULT_MAX_BYTES = 200_000_000
EXTREME_ASPECT = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may cost. `background` is the colour under transparent pixels."""

    max_pixels: int = DEFAULT_MAX_PIXELS
    max_bytes: int = DEFAULT_MAX_BYTES
    background: tuple[int, int, int] = (255, 255, 255)


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image: `pixels` is (height, width, 3) uint8 RGB, upright and C-contiguous.

    `mode` and `format` are Pillow's, of the file; `notes` say what was done to get here.
    `quality` is the estimated JPEG quality (0 where unknown), `camera` the EXIF model.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    mode: str
    format: str
    notes: tuple[str, ...] = ()
    quality: int = 0
    camera: str = ""


def pixel_sha256(pixels: NDArray[np.uint8]) -> str:
    """Hash over the shape and the pixels, so that equal pictures in different files agree."""
    shape = ",".join(str(side) for side in pixels.shape)
    digest = hashlib.sha256(f"{shape};".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def decode(data: bytes, *, limits: Limits = DEFAULT_LIMITS, name: str = "") -> Decoded:
    """Upright RGB pixels of one image file; raises ImageError and nothing else.

    `name` is the file's name, used only to note an extension that does not fit.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS)
        mode, kind = image.mode, image.format or ""
        width, height = image.size
        if width * height > limits.max_pixels:
            raise ImageError(
                f"{width} x {height} pixels, more than the limit of {limits.max_pixels:,}",
                "Scale it down, or raise the limit with --data.max-pixels",
            )
        image = ImageOps.exif_transpose(image)
        if image.mode != "RGB":
            if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
                image = image.convert("RGBA")
                ground = Image.new("RGBA", image.size, (*limits.background, 255))
                image = Image.alpha_composite(ground, image)
            image = image.convert("RGB")
        pixels = np.array(image, dtype=np.uint8)
    except ImageError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever the damage leads them to
        raise ImageError(f"cannot be decoded ({error})", "Re-export it to use it") from None
    return Decoded(pixels, pixels.shape[1], pixels.shape[0], mode, kind)
