"""Small pictures inside a page: decoded and encoded anew, so that no EXIF or GPS data travel along."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from saccade.errors import ImageError
from saccade.images.decoder import DEFAULT_LIMITS, Limits, decode
from saccade.images.rendering import as_rgb

THUMBNAIL_PIXELS = 176
SHARP_BELOW_PIXELS = 64  # below it a picture is shown pixel by pixel, lossless
JPEG_QUALITY = 82

ReadImage = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture as a data URI with its size in pixels; without one `uri` is "" and `missing` says why."""

    path: str
    uri: str = ""
    width: int = 0
    height: int = 0
    sharp: bool = False
    missing: str = ""


def thumbnail(
    path: str,
    read_image: ReadImage | None,
    *,
    side_pixels: int = THUMBNAIL_PIXELS,
    limits: Limits = DEFAULT_LIMITS,
) -> Thumbnail:
    """The image at `path`, its long side at most `side_pixels`; an unreadable image never raises."""
    if read_image is None:
        return Thumbnail(path, missing="image not at hand")
    try:
        pixels = decode(read_image(path), limits=limits, name=path).pixels
    except ImageError as error:
        return Thumbnail(path, missing=error.reason)
    except OSError as error:
        return Thumbnail(path, missing=error.strerror or "cannot be read")
    return thumbnail_of(path, pixels, side_pixels=side_pixels)


def thumbnail_of(path: str, pixels: NDArray[Any], *, side_pixels: int = THUMBNAIL_PIXELS) -> Thumbnail:
    """Of decoded pixels (height, width, channels), its long side at most `side_pixels`."""
    picture = Image.fromarray(as_rgb(pixels))
    picture.thumbnail((side_pixels, side_pixels), Image.Resampling.LANCZOS, reducing_gap=3.0)
    sharp = max(picture.size) < SHARP_BELOW_PIXELS
    return Thumbnail(path, _data_uri(picture, lossless=sharp), *picture.size, sharp)


def _data_uri(picture: Image.Image, *, lossless: bool) -> str:
    buffer = io.BytesIO()
    if lossless:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
