"""The common header value, files of other formats, colour profiles."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from saccade.errors import ImageError

REEXPORT = "Re-export it to use it"

SizeCheck = Callable[[int, int], None]
"""Called with (width, height) as soon as they are known; raises ImageError when they are too large."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """One image file, as far as its first bytes and its structure tell.

    `format` is Pillow's name. `width` and `height` are in pixels as stored, before `orientation`
    (EXIF 1..8). `payload` is the file without what no decoder needs (EXIF, colour profiles, texts,
    further frames), so that Pillow never parses metadata. `gray_maximum` is the value that means
    white where that is not 255; `inverted` says that 0 means white. `channels` of a JPEG, else 0; `bits` of
    a channel in PNG and TIFF, else 8;
    `compression` is a short hash of its quantisation tables, which encoders and cameras are known by.
    """

    format: str
    width: int
    height: int
    payload: bytes
    notes: tuple[str, ...] = ()
    orientation: int = 1
    quality: int = 0
    camera: str = ""
    gray_maximum: int = 65535
    inverted: bool = False
    channels: int = 0
    compression: str = ""
    bits: int = 8


def truncated(kind: str, row: int = 0, height: int = 0) -> ImageError:
    """A file that ends too early; `row` of `height` pixel rows could be read where that is known."""
    where = f" (row {row:,} of {height:,})" if 0 < row < height else ""
    return ImageError(f"truncated {kind}{where}", f"{REEXPORT}, or copy it again from its source")


def damaged(kind: str, what: str) -> ImageError:
    """A file whose structure contradicts itself."""
    return ImageError(f"damaged {kind}: {what}", REEXPORT)


def unsupported(what: str, remedy: str) -> ImageError:
    """A file that may be sound and is not read by design."""
    return ImageError(f"unsupported: {what}", remedy)


def bomb(what: str) -> ImageError:
    """A small file that asks for far too much memory or time."""
    return ImageError(f"a decompression bomb: {what}", REEXPORT)


def trailing_note(data: bytes, end: int) -> tuple[str, ...]:
    """One note when bytes follow the end of the picture; padding with zeros is none."""
    rest = data[end : end + 4096].strip(b"\0\r\n")
    if not rest:
        return ()
    what = (
        " (another JPEG)"
        if rest.startswith(b"\xff\xd8\xff")
        else " (a zip archive)"
        if rest[:2] == b"PK"
        else ""
    )
    return (f"{len(data) - end:,} bytes after the end of the picture{what} ignored",)


def clean_text(raw: bytes, most: int = 60) -> str:
    """Text out of a file, cut at its first zero byte, with nothing unprintable in it."""
    text = raw.partition(b"\0")[0].decode("latin-1")
    return re.sub(r"[^\x20-\x7e\xa0-\xff]", "", text).strip()[:most]


# -- foreign ---------------------------------------------------------------------------------------------
# Files that are no image saccade reads, told by their first bytes; Pillow never sees them.


_TO_PNG = "Convert it to PNG or JPEG to use it"

# first bytes -> what it is, and what to do
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF", "a PDF document", "Convert it: export the page as PNG"),
    (b"%!PS", "a PostScript (EPS) file", "Convert it: export it as PNG"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file", "Convert it: export it as PNG"),
    (b"8BPS", "a Photoshop (PSD) file", "Convert it: export it as PNG or TIFF"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file", _TO_PNG),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file", _TO_PNG),
    (b"\x00\x00\x01\x00", "an icon (ICO)", _TO_PNG),
    (b"qoif", "a QOI file", _TO_PNG),
    (b"DDS ", "a DDS texture", _TO_PNG),
    (b"SIMPLE  =", "a FITS file", "Convert it to 16-bit PNG or TIFF with a range you choose"),
    (b"\x89HDF", "an HDF5 file", "Export its images as PNG"),
    (
        b"\x93NUMPY",
        "a NumPy array",
        "Export it as PNG, or declare its channels (--channels gray, --channels 5)",
    ),
    (b"PK\x03\x04", "a zip archive", "Unpack it, or give the archive itself as DATA"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it to use it"),
    (b"Rar!", "a RAR archive", "Unpack it to use it"),
    (b"7z\xbc\xaf", "a 7z archive", "Unpack it to use it"),
    (b"\x80\x02", "a pickle, which saccade never reads", "Export its images as PNG"),
    (b"\x7fELF", "a program", "Remove it"),
)

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"heif", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def refuse_foreign(data: bytes) -> None:
    """Raise ImageError when the bytes are no image, or one of a kind that is not read."""
    if not data:
        raise ImageError("empty file (0 bytes)", "Copy it again from its source, or remove it")
    if data[128:132] == b"DICM":
        raise unsupported("a DICOM file", "Convert it to 16-bit PNG with the window you choose")
    for magic, what, remedy in _MAGIC:
        if data.startswith(magic):
            raise unsupported(what, remedy)
    if data[4:8] == b"ftyp" and not is_avif(data) and not is_heif(data):
        raise unsupported(
            "a video or another ISO media file", "Convert it: export the picture you want as JPEG or PNG"
        )
    _refuse_text(data)


def is_avif(data: bytes) -> bool:
    """Whether an ISO media file names AVIF as its brand, or as a compatible one."""
    return any(brand in _AVIF_BRANDS for brand in _brands(data))


def is_heif(data: bytes) -> bool:
    """Whether an ISO media file names a brand of HEIF, as HEIC photos do; ask `is_avif` first."""
    return any(brand in _HEIF_BRANDS for brand in _brands(data))


def _brands(data: bytes) -> list[bytes]:
    """The brand of an ISO media file, and those that it says it is compatible with."""
    if data[4:8] != b"ftyp":
        return []
    length = min(int.from_bytes(data[:4], "big"), 512)
    return [data[8:12], *(data[i : i + 4] for i in range(16, length - 3, 4))]


def _refuse_text(data: bytes) -> None:
    start = data[:2048].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        raise ImageError("a git-LFS pointer, not the image itself", "Fetch it: run git lfs pull")
    if b"<svg" in start and start.startswith(b"<"):
        raise unsupported("an SVG drawing", "Convert it: export it as PNG")
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in start[:512]:
        raise ImageError("is HTML, a web page saved under an image's name", "Download the picture itself")
    if start.startswith((b"<?xml", b"{", b"[")) and _is_plain_text(start):
        raise ImageError("is text (XML or JSON), not an image", "Download the picture itself, or remove it")


def _is_plain_text(start: bytes) -> bool:
    return all(byte in b"\t\r\n" or byte >= 32 for byte in start)


def not_an_image(data: bytes) -> ImageError:
    """What to say when no known format begins like this."""
    if _is_plain_text(data[:512]) and data[:512].isascii():
        return ImageError("is text, not an image", "Remove it, or restore the picture")
    if not data[:4096].strip(b"\0"):
        return ImageError("nothing but zero bytes where the image should be", "Copy it again from its source")
    return ImageError(
        "not an image of a kind that is read (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, HEIC, AVIF, JPEG XL)",
        "Convert it to PNG or JPEG, or remove it",
    )


# -- profile ---------------------------------------------------------------------------------------------
# Colour profiles: looked at, never applied.
# Pretrained networks were trained on pixels taken as they are stored, and an answer must not depend
# on the version of a colour engine; so a profile other than sRGB is noted, and pixels stay as they are.


_HEADER_BYTES = 128
_MOST_TAGS = 200
_SRGB_OF_LIBJXL = tuple(
    f"{space}_{intent}_SRG" for space in ("RGB_D65_SRG", "Gra_D65") for intent in ("Per", "Rel")
)


def profile_note(profile: bytes) -> tuple[str, ...]:
    """A note for a profile that is broken or not sRGB; nothing for none and for sRGB."""
    if not profile:
        return ()
    try:
        name = _description(profile)
    except (ValueError, struct.error):
        return ("broken colour profile ignored",)
    if "srgb" in name.lower() or name in _SRGB_OF_LIBJXL:
        return ()
    return (f"colour profile {name!r} not applied" if name else "colour profile without a name not applied",)


def _description(profile: bytes) -> str:
    """The name in an ICC profile (ICC.1:2022, 7.2 and 9.2.41); raises ValueError where it is broken."""
    size, tags = struct.unpack_from(">I", profile)[0], struct.unpack_from(">I", profile, _HEADER_BYTES)[0]
    if profile[36:40] != b"acsp" or not _HEADER_BYTES < size <= len(profile) or tags > _MOST_TAGS:
        raise ValueError("not a profile")
    for number in range(tags):
        signature, offset, length = struct.unpack_from(">4sII", profile, _HEADER_BYTES + 4 + 12 * number)
        if offset + length > size:
            raise ValueError("a tag lies outside the profile")
        if signature == b"desc":
            return _text(profile[offset : offset + length])
    return ""


def _text(tag: bytes) -> str:
    if tag[:4] == b"desc":  # version 2: ASCII with its length
        length = struct.unpack_from(">I", tag, 8)[0]
        return clean_text(tag[12 : 12 + length])
    if tag[:4] == b"mluc":  # version 4: the first of several languages, UTF-16
        length, offset = struct.unpack_from(">II", tag, 20)
        text = tag[offset : offset + length].decode("utf-16-be", "replace")
        return clean_text(text.encode("latin-1", "ignore"))
    raise ValueError("no description")
