"""What a file says of itself before any pixel is decoded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from saccade.errors import ImageError

REEXPORT = "Re-export it to use it"

SizeCheck = Callable[[int, int], None]
"""Called with (width, height) as soon as they are known; raises ImageError when they are too large."""


@dataclass(frozen=True, slots=True)
class Header:
    """One image file, as far as its first bytes and its structure tell.

    `format` is Pillow's name. `width` and `height` are in pixels as stored, before `orientation`
    (EXIF 1..8). `payload` is the file without what no decoder needs (EXIF, colour profiles, texts,
    further frames), so that Pillow never parses metadata. `gray_maximum` is the value that means
    white where that is not 255; `inverted` says that 0 means white. `channels` of a JPEG, else 0.
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
