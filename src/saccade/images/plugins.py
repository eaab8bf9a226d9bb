"""The decoders of other packages: one Pillow plugin per format, opened directly; simplejpeg for JPEG.

None is registered with Pillow, and each is imported when the first file of its format comes: a program that
uses saccade finds its own Pillow as it was, and JPEGs do not wait for libheif. (`pillow_jxl` registers itself
when it is imported.)
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from saccade.errors import ImageError
from saccade.images.headers.header import ImageHeader, damaged, unsupported

# formats that Pillow leaves to other packages -> what such a file is called, the package, our extra
PACKAGES = {
    "HEIF": ("a HEIC photo", "pillow-heif", "photos"),
    "JXL": ("a JPEG XL file", "pillow-jxl-plugin", "jxl"),
}


@functools.cache
def decoder_versions() -> dict[str, str]:
    """Versions of Pillow and of the decoders beside it that are installed; pixels may depend on them."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"pillow": PIL.__version__}
    for _, package, _ in PACKAGES.values():
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def open_with_plugin(kind: str, file: io.BytesIO) -> Image.Image:
    """The file opened by the one plugin for its format; only its header is parsed.

    Unlike `Image.open`, this tries no other plugin and warns of no pixel count; sizes are checked
    by the caller before and after.
    """
    try:
        return _plugin(kind)(file)
    except ImportError:
        raise _missing(kind) from None
    except SyntaxError:
        if kind != "HEIF":
            raise
        raise damaged("HEIC", "its structure") from None


def _missing(kind: str) -> ImageError:
    if kind not in PACKAGES:
        return ImageError(f"this Pillow was built without {kind}", "Convert it to PNG to use it")
    what, package, extra = PACKAGES[kind]
    return unsupported(
        f"{what} needs the package {package}, which is not installed",
        f"Install it: pip install 'saccade[{extra}]' (or: pip install {package})",
    )


@functools.cache
def _plugin(kind: str) -> Callable[[io.BytesIO], Image.Image]:
    """What opens a file of this format, imported when the first file of its format comes."""
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
    if kind == "HEIF":
        from pillow_heif import HeifImageFile

        return HeifImageFile  # type: ignore[no-any-return]
    if kind == "JXL":
        return _open_jxl
    from PIL.AvifImagePlugin import AvifImageFile

    return AvifImageFile


def _open_jxl(file: io.BytesIO) -> Image.Image:
    """The first frame of a JPEG XL, upright and decoded; its sizes were checked before."""
    _, info, pixels, profile = _decoded_jxl(file.getvalue())
    image = Image.frombytes(info.mode, (info.width, info.height), pixels)
    image.info["icc_profile"] = profile
    return image


def packed_jpeg(data: bytes) -> bytes:
    """The JPEG that a JPEG XL holds without loss; empty where it holds other pixels."""
    if b"jbrd" not in data:
        return b""
    is_jpeg, _, content, _ = _decoded_jxl(data)
    return bytes(content) if is_jpeg else b""


def _decoded_jxl(data: bytes) -> tuple[bool, Any, bytes, bytes]:
    """Whether a JPEG came out, size and mode, what came out, and its colour profile."""
    try:
        from pillow_jxl import Decoder
    except ImportError:
        raise _missing("JXL") from None
    try:
        is_jpeg, info, content, profile, *_ = Decoder(num_threads=0)(
            data
        )  # images are spread, not their parts
    except (RuntimeError, ValueError):
        raise damaged("JPEG XL", "its compressed pixels cannot be read, or end too early") from None
    return is_jpeg, info, content, profile or b""


def _silence_bundled_libtiff() -> None:
    """Stop the libtiff inside Pillow's wheel from printing to stderr; the error is raised all the same.

    Only the private copy that comes with Pillow is touched. A Pillow built against a system's
    libtiff may still print a line for a damaged TIFF.
    """
    import ctypes
    from pathlib import Path

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
