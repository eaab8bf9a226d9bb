"""JPEG pixels straight from libjpeg-turbo, where simplejpeg is installed: Pillow's own in half the time.

Only for what is decoded without a single complaint. All else, and every error message, is left to Pillow.
That both libraries give the same pixels here is tried once, before the first image.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.images.headers import Header
from saccade.images.plugins import open_with_plugin

Decoder = Callable[[bytes], NDArray[np.uint8]]  # a JPEG -> RGB (height, width, 3); raises where in doubt

MODES = {1: "L", 3: "RGB"}  # Pillow's names, by the number of channels
TRIED_SIDES = (47, 61)  # of the picture that both decode first: odd, so that shared colour is tried at edges
SUBSAMPLINGS = (0, 1, 2)  # Pillow's names for 4:4:4, 4:2:2 and 4:2:0


def quick_jpeg(header: Header) -> tuple[NDArray[np.uint8], str] | None:
    """Pixels, uint8 RGB (height, width, 3) as stored, and Pillow's mode; None where Pillow is to decode."""
    decode = _decoder()
    if decode is None or header.channels not in MODES:
        return None
    try:
        pixels = decode(header.payload)
    except Exception:  # damaged, or strange: Pillow says what it is, or can read it
        return None
    if pixels.shape != (header.height, header.width, 3):
        return None
    return pixels, MODES[header.channels]


@functools.cache
def _decoder() -> Decoder | None:
    """simplejpeg's decoder, if it is installed and gives the pixels that this Pillow gives."""
    try:
        from simplejpeg import decode_jpeg
    except Exception:  # not installed, or installed and broken: there is another decoder
        return None
    decoder = functools.partial(decode_jpeg, colorspace="RGB", strict=True)
    try:
        agree = all(_agree(decoder, sample) for sample in _samples())
    except Exception:
        return None
    return decoder if agree else None


def _agree(decoder: Decoder, sample: bytes) -> bool:
    expected = np.asarray(open_with_plugin("JPEG", io.BytesIO(sample)).convert("RGB"))
    return np.array_equal(decoder(sample), expected)


def _samples() -> list[bytes]:
    """Small JPEGs of noise: each way to share colour between pixels, plain and progressive; one in gray."""
    noise = np.random.default_rng(0).integers(0, 256, (*TRIED_SIDES, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    written = []
    for subsampling in SUBSAMPLINGS:
        for progressive in (False, True):
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=80, subsampling=subsampling, progressive=progressive)
            written.append(file.getvalue())
    gray = io.BytesIO()
    picture.convert("L").save(gray, "JPEG")
    return [*written, gray.getvalue()]
