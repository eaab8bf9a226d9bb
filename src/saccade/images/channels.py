"""Pixels of the channels that a recipe declares: gray, or any number kept as they are; of 8 or 16 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.errors import ImageError
from saccade.images.colour import is_gray_16, rgb_pixels, to_rgb
from saccade.images.headers.header import ImageHeader, unsupported
from saccade.preprocess import GRAY, PixelFormat

TURNED_GRAY = "colours turned to gray"
SCALED_TO_8 = "16 bits scaled to 8"
_COLOUR_OF_CODECS = 16  # levels between the colours of gray pixels that lossy formats bring about
_SAYS_ITS_DEPTH = ("HEIF", "JXL")  # and their decoders stretch it to 16 bits


@dataclass(frozen=True, slots=True)
class Declared:
    """What is wanted of a file: `format`, with `any_bits` as many bits as the file has. `white` is the value
    that means 1 in 16 bits, 0 for what the file says. `max_pixels` of three channels bound the values."""

    format: PixelFormat
    any_bits: bool = False
    white: int = 0
    max_pixels: int = 50_000_000

    @property
    def is_gray(self) -> bool:
        return self.format.channels == GRAY

    def check_values(self, width: int, height: int, channels: int, *, photo: bool = False) -> None:
        """Raise ImageError for another number of channels, or more values than an RGB image may have.

        `photo`: three channels are colours.
        """
        if channels != self.format.count:
            raise wrong_count(channels, self.format, photo=photo)
        if width * height * channels > 3 * self.max_pixels:
            raise ImageError(
                f"{width:,} x {height:,} pixels of {channels} channels, more values than the limit of "
                f"{3 * self.max_pixels:,}",
                "Scale it down, or raise the limit with --data.max-pixels",
            )


def has_16_bits(mode: str) -> bool:
    """Whether `ImageRecord.mode` is that of 16 bits: Pillow's of gray, or ours of other channels.

    >>> [has_16_bits(mode) for mode in ("L", "I;16", "5 x uint16")]
    [False, True, True]
    """
    return mode.startswith("I") or mode.endswith("uint16")


def wrong_count(found: int, declared: PixelFormat, *, photo: bool) -> ImageError:
    """A file with another number of channels than the recipe, or the model, is made for."""
    channels = {1: "gray", 3: "rgb" if photo else "3"}.get(found, str(found))
    wanted = "one of gray is" if declared.channels == GRAY else f"{declared.count} are"
    has = "1 channel" if found == 1 else f"{found} channels"
    return ImageError(
        f"{has}, where {wanted} declared",
        f"Convert it, or train such images with --channels {channels}",
    )


def from_pillow(
    image: Image.Image, header: ImageHeader, declared: Declared, background: tuple[int, int, int]
) -> tuple[NDArray[Any], tuple[str, ...], int]:
    """(height, width, channels) as declared, what to say, and the largest value of 16-bit gray (else -1)."""
    if is_gray_16(image, header):
        declared.check_values(*image.size, 1)
        stored, notes, peak = _gray_16(image, header, declared)
        pixels, more = fitted(stored, replace(declared, white=0))
        return pixels, (*notes, *more), peak
    if declared.is_gray:
        rgb, notes = to_rgb(image, background)
        gray, more = gray_of_rgb(rgb_pixels(rgb), narrowed=header.bits == 16)
    else:
        gray, notes, more = _as_stored(image, header), (), ()
        declared.check_values(*image.size, gray.shape[2], photo=True)
    pixels, _ = fitted(gray, declared)
    return pixels, (*notes, *more), -1


def gray_of_rgb(
    rgb: NDArray[np.uint8], *, narrowed: bool = False
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """(height, width, 1): luma as Pillow has it (ITU-R BT.601), which of gray pixels is the same gray."""
    colour = max(int(np.abs(rgb[..., 0].astype(np.int16) - rgb[..., i]).max()) for i in (1, 2))
    gray = np.asarray(Image.fromarray(rgb).convert("L")) if colour else rgb[..., 0]
    notes = ((TURNED_GRAY,) if colour > _COLOUR_OF_CODECS else ()) + ((SCALED_TO_8,) if narrowed else ())
    return np.ascontiguousarray(gray)[..., None], notes


def _gray_16(
    image: Image.Image, header: ImageHeader, declared: Declared
) -> tuple[NDArray[np.uint16], tuple[str, ...], int]:
    """uint16 (height, width, 1), white at 65535; as `colour.from_gray_16`, but with every level."""
    values = np.asarray(image).astype(np.uint32)
    known = 65535 if header.format == "PPM" else header.gray_maximum
    says_its_depth = header.format in _SAYS_ITS_DEPTH
    white = (0 if says_its_depth else declared.white) or known
    scaled, notes = _stretched(values, white)
    peak = int(values.max(initial=0))
    scaled = 65535 - scaled if header.inverted else scaled
    unknown_depth = known == 65535 and not header.inverted and not says_its_depth
    return scaled[..., None], notes, peak if unknown_depth else -1


def _stretched(values: NDArray[Any], white: int) -> tuple[NDArray[np.uint16], tuple[str, ...]]:
    """Values of which `white` becomes 65535; those above it are clipped, and that is said."""
    wide = values.astype(np.uint32, copy=False)
    clipped = (f"values above {white} clipped to white",) if int(wide.max(initial=0)) > white else ()
    full = wide if white == 65535 else (np.minimum(wide, white) * np.uint32(65535) + white // 2) // white
    return full.astype(np.uint16), clipped


def _as_stored(image: Image.Image, header: ImageHeader) -> NDArray[np.uint8]:
    """Every band of the image, a palette looked up; raises ImageError where Pillow has lost bits."""
    if header.bits == 16:
        raise unsupported(
            f"a {header.format} of 16 bits and several channels", "Convert it to TIFF, or save it as .npy"
        )
    if image.mode in ("I", "F"):
        raise ImageError(f"values of unknown range (mode {image.mode})", "Convert it to 8 or 16 bits")
    if image.mode in ("P", "PA", "1"):
        clear = image.mode == "PA" or "transparency" in image.info
        image = image.convert("L" if image.mode == "1" else "RGBA" if clear else "RGB")
    stored = np.asarray(image)
    return stored[..., None] if stored.ndim == 2 else stored


def fitted(stored: NDArray[Any], declared: Declared) -> tuple[NDArray[Any], tuple[str, ...]]:
    """uint8 or uint16 (height, width, channels) in the bits that are wanted, and what was done for it."""
    notes: tuple[str, ...] = ()
    if declared.is_gray and stored.shape[2] == 3:
        stored, notes = gray_of_rgb(np.ascontiguousarray(stored))
    if declared.white and stored.dtype == np.uint16:
        stored, clipped = _stretched(stored, declared.white)
        notes = (*notes, *clipped)
    if declared.any_bits or stored.dtype == declared.format.dtype:
        return np.array(stored), notes  # a copy: C-contiguous and writable
    if declared.format.bits == 16:
        return stored.astype(np.uint16) * np.uint16(257), notes
    eight = (stored.astype(np.uint32) * 255 + 32767) // 65535
    return eight.astype(np.uint8), (*notes, SCALED_TO_8)


def check_planes(dtype: np.dtype[Any], shape: tuple[int, ...], declared: Declared) -> None:
    """Raise ImageError where an array (height, width[, channels]) is not what is declared."""
    if dtype.newbyteorder("=") not in (np.uint8, np.uint16) or len(shape) not in (2, 3) or 0 in shape:
        raise array_problem(dtype, shape, declared.format)
    channels = shape[2] if len(shape) == 3 else 1
    if channels != declared.format.count and shape[0] == declared.format.count:
        raise array_problem(dtype, shape, declared.format)
    if declared.is_gray and channels == 3 and dtype == np.uint8:
        channels = 1  # turned gray
    declared.check_values(shape[1], shape[0], channels)


def array_problem(dtype: np.dtype[Any], shape: tuple[int, ...], declared: PixelFormat) -> ImageError:
    """An array that is no image of the declared channels, with what would make one of it."""
    steps = []
    if len(shape) == 3 and shape[2] != declared.count and shape[0] == declared.count:
        steps.append("move channels last: numpy.moveaxis(image, 0, -1)")
    if dtype.kind == "f":
        steps.append('give whole numbers: (65535 * image).astype("uint16") where values end at 1')
    elif dtype not in (np.uint8, np.uint16):
        steps.append("convert it to uint8 or uint16 with a black and white you choose")
    text = "; ".join(steps) or f"convert it to (height, width, {declared.count})"
    wanted = "(height, width)" if declared.count == 1 else f"(height, width, {declared.count})"
    return ImageError(
        f"an array of {dtype} {shape}, not uint8 or uint16 {wanted}", text[0].upper() + text[1:]
    )
