"""The decoders of other packages: one Pillow plugin per format, opened directly; simplejpeg for JPEG."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from saccade.errors import ImageError
from saccade.images.headers.header import ImageHeader


def open_with_plugin(kind: str, file: io.BytesIO) -> Image.Image:
    """The file opened by the one plugin for its format; only its header is parsed.

    Unlike `Image.open`, this tries no other plugin and warns of no pixel count; sizes are checked
    by the caller before and after.
    """
    try:
        return _plugin(kind)(file)
    except ImportError:
        raise ImageError(f"this Pillow was built without {kind}", "Convert it to PNG to use it") from None


@functools.cache
def _plugin(kind: str) -> type[ImageFile.ImageFile]:
    """The plugin's class, imported when the first file of its format comes."""
    if kind == "JPEG":
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile
    if kind == "PNG":
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile
    if kind == "WEBP":
        from PIL.WebPImagePlugin import WebPImageFile

        return WebPImageFile
    if kind == "GIF":
        from PIL.GifImagePlugin import GifImageFile

        return GifImageFile
    if kind == "BMP":
        from PIL.BmpImagePlugin import BmpImageFile

        return BmpImageFile
    if kind == "TIFF":
        from PIL.TiffImagePlugin import TiffImageFile

        _silence_bundled_libtiff()
        return TiffImageFile
    if kind == "PPM":
        from PIL.PpmImagePlugin import PpmImageFile

        return PpmImageFile
    from PIL.AvifImagePlugin import AvifImageFile

    return AvifImageFile


def _silence_bundled_libtiff() -> None:
    """Stop the libtiff inside Pillow's wheel from printing to stderr; the error is raised all the same.

    Only the private copy that comes with Pillow is touched. A Pillow built against a system's
    libtiff may still print a line for a damaged TIFF.
    """
    import ctypes
    from pathlib import Path

    import PIL

    site = Path(PIL.__file__).parent
    for folder in (site.parent / "pillow.libs", site / ".dylibs"):
        for library in folder.glob("libtiff*"):
            ctypes.CDLL(str(library)).TIFFSetErrorHandler(None)


# -- quick jpeg ------------------------------------------------------------------------------------------
# JPEG pixels straight from libjpeg-turbo, where simplejpeg is installed: Pillow's own in half the time.
# Only for what is decoded without a single complaint. All else, and every error message, is left to Pillow.
# That both libraries give the same pixels here is tried once, before the first image.


Decoder = Callable[[bytes], NDArray[np.uint8]]  # a JPEG -> RGB (height, width, 3); raises where in doubt

MODES = {1: "L", 3: "RGB"}  # Pillow's names, by the number of channels
TRIED_SIDES = (47, 61)  # of the picture that both decode first: odd, so that shared colour is tried at edges
SUBSAMPLINGS = (0, 1, 2)  # Pillow's names for 4:4:4, 4:2:2 and 4:2:0


def quick_jpeg(header: ImageHeader) -> tuple[NDArray[np.uint8], str] | None:
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
