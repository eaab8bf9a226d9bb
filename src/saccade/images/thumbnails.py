"""Small pictures inside a page: decoded and encoded anew, so that no EXIF or GPS data travel along."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.errors import ImageError
from saccade.images.decoder import DEFAULT_LIMITS, Limits, decode
from saccade.images.rendering import as_rgb

THUMBNAIL_PIXELS = 176
SHARP_BELOW_PIXELS = 64  # below it a picture is shown pixel by pixel, lossless
JPEG_QUALITY = 82
HEAT_SHARE = 0.55  # of the colour over the photo
UNSEEN_SHARE = 0.35  # of the brightness of what a network did not see
# from dark to bright in equal steps, so also without sight of colours (matplotlib's inferno)
HEAT_COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))

ReadImage = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Heat:
    """How much each place of an image counted: `rows` from 0 to 1, the top one first, over a part of it.

    `seen` is that part: left, top, right, bottom in shares of its sides, beyond 0 and 1 where it was padded.
    """

    rows: tuple[tuple[float, ...], ...]
    seen: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


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
    heat: Heat | None = None,
) -> Thumbnail:
    """The image at `path`, its long side at most `side_pixels`; an unreadable image never raises.

    `heat` is laid over it in colours.
    """
    if read_image is None:
        return Thumbnail(path, missing="image not at hand")
    try:
        pixels = decode(read_image(path), limits=limits, name=path).pixels
    except ImageError as error:
        return Thumbnail(path, missing=error.reason)
    except OSError as error:
        return Thumbnail(path, missing=error.strerror or "cannot be read")
    return thumbnail_of(path, pixels, side_pixels=side_pixels, heat=heat)


def thumbnail_of(
    path: str, pixels: NDArray[Any], *, side_pixels: int = THUMBNAIL_PIXELS, heat: Heat | None = None
) -> Thumbnail:
    """Of decoded pixels (height, width, channels), its long side at most `side_pixels`."""
    picture = Image.fromarray(as_rgb(pixels))
    picture.thumbnail((side_pixels, side_pixels), Image.Resampling.LANCZOS, reducing_gap=3.0)
    picture = heated(picture, heat) if heat else picture
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


def heated(picture: Image.Image, heat: Heat) -> Image.Image:
    """The picture with the heat over it, bright where it is high; what was not seen is darkened."""
    width, height = picture.size
    left, top, right, bottom = (
        round(end * side) for end, side in zip(heat.seen, (width, height) * 2, strict=True)
    )
    size, corner = (max(1, right - left), max(1, bottom - top)), (left, top)
    levels = Image.fromarray((255 * np.clip(np.array(heat.rows), 0, 1)).astype(np.uint8))
    heights, seen = (Image.new("L", picture.size) for _ in range(2))
    heights.paste(levels.resize(size, Image.Resampling.BICUBIC), corner)
    seen.paste(255, (*corner, left + size[0], top + size[1]))
    pixels = np.asarray(picture, np.float32)
    warm = (1 - HEAT_SHARE) * pixels + HEAT_SHARE * _colours()[np.asarray(heights)]
    both = np.where(np.asarray(seen)[..., None] > 0, warm, UNSEEN_SHARE * pixels)
    return Image.fromarray(both.round().clip(0, 255).astype(np.uint8))


def _colours() -> NDArray[np.float64]:
    """(256, 3)."""
    steps = np.linspace(0, 255, len(HEAT_COLOURS))
    return np.stack([np.interp(np.arange(256), steps, each) for each in zip(*HEAT_COLOURS, strict=True)], 1)
