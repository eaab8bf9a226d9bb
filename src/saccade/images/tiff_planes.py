"""TIFFs of any number of channels, 8 or 16 bits: side by side, as planes, or a page each.

Pillow reads gray in each compression, but few kinds of several channels. So each page is shown to it as
gray: the channels of a pixel as so many gray pixels in a row, or plane by plane. No predictor is undone then,
so it is done here (TIFF 6.0, section 14).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.images.channels import Declared
from saccade.images.headers.header import ImageHeader, SizeCheck, damaged, truncated, unsupported
from saccade.images.headers.tiff import (
    BITS,
    COMPRESSION,
    EXTRA_SAMPLES,
    HEIGHT,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_BYTES,
    STRIP_OFFSETS,
    SUBFILE_TYPE,
    TILE_BYTES,
    TILE_OFFSETS,
    TILE_WIDTH,
    TYPE_BYTES,
    WIDTH,
    Directory,
    check_pixels_present,
    first_directory,
    next_directory,
    refuse_camera_raw,
    rewritten,
)
from saccade.images.plugins import open_with_plugin
from saccade.preprocess import MOST_CHANNELS

_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PLAIN, _LZW, _DEFLATE, _OLD_DEFLATE, _PACK_BITS, _LZMA, _ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
_LOSSLESS = (_PLAIN, _LZW, _DEFLATE, _OLD_DEFLATE, _PACK_BITS, _LZMA, _ZSTD)
_PREDICTED = (_LZW, _DEFLATE, _OLD_DEFLATE, _LZMA, _ZSTD)
_WHITE_IS_ZERO, _PALETTE, _YCBCR = 0, 3, 6
_SEPARATE = 2
_COLOURS = (1, 2, 3, 4)  # samples of what Pillow reads well: gray and RGB, with or without transparency


def is_tiff(data: bytes) -> bool:
    """Whether the file begins as a TIFF."""
    return data.startswith(_BEGINNINGS)


def read_planes(
    data: bytes, check_size: SizeCheck, declared: Declared
) -> tuple[ImageHeader, NDArray[Any]] | None:
    """The header, and uint8 or uint16 (height, width, channels) as stored; None for what Pillow is to read.

    Raises ImageError for another number of channels than declared, and for what is no sound TIFF.
    """
    first = first_directory(data)
    refuse_camera_raw(first)
    width, height = first.number(WIDTH), first.number(HEIGHT)
    if not width or not height:
        raise damaged("TIFF", "no size")
    check_size(width, height)
    samples = first.number(SAMPLES, 1)
    foreign = first.number(COMPRESSION, 1) not in _LOSSLESS
    if foreign or first.number(PHOTOMETRIC, 1) in (_PALETTE, _YCBCR):
        return None
    if declared.is_gray and samples in _COLOURS:
        return None
    if first.big and first.order == ">":  # Pillow reads neither
        raise unsupported("a BigTIFF in big-endian order", "Save it in little-endian order, or as .npy")
    pages = _pages(first, declared.format.count)
    declared.check_values(width, height, sum(page.number(SAMPLES, 1) for page in pages))
    planes = np.concatenate([_page_pixels(page, declared) for page in pages], axis=2)
    orientation = first.number(ORIENTATION, 1)
    header = ImageHeader("TIFF", width, height, b"", orientation=orientation if 1 <= orientation <= 8 else 1)
    return header, planes


def _pages(first: Directory, count: int) -> list[Directory]:
    """The first page where it holds all channels, else as many alike pages as hold them together."""
    if first.number(SAMPLES, 1) >= count:
        return [first]
    pages = [page for page in _directories(first) if not page.number(SUBFILE_TYPE)]
    alike = [page for page in pages if _shape(page) == _shape(first)]
    return alike if len(alike) > 1 else [first]


def _directories(first: Directory) -> Iterator[Directory]:
    page: Directory | None = first
    for _ in range(MOST_CHANNELS + 1):
        if page is None:
            return
        yield page
        page = next_directory(page)


def _shape(page: Directory) -> tuple[int, ...]:
    tags = (WIDTH, HEIGHT, SAMPLES, SAMPLE_FORMAT)
    return (*(page.number(tag, 1) for tag in tags), *set(page.numbers(BITS)))


def _page_pixels(page: Directory, declared: Declared) -> NDArray[Any]:
    """(height, width, samples) of one page."""
    samples, bits = page.number(SAMPLES, 1), set(page.numbers(BITS) or (1,))
    if page.number(SAMPLE_FORMAT, 1) != 1 or bits not in ({8}, {16}):
        what = (
            "values that are no whole numbers from 0 on"
            if page.number(SAMPLE_FORMAT, 1) != 1
            else (f"{', '.join(map(str, sorted(bits)))}-bit integers")
        )
        raise unsupported(
            f"TIFF of {what}", "Give the range: convert it to 8 or 16 bits with a black and white you choose"
        )
    check_pixels_present(page, page.number(HEIGHT))
    if samples > 1 and page.number(PLANAR, 1) == _SEPARATE:
        planes = [_as_gray(_plane(page, number, samples), 1) for number in range(samples)]
        pixels = np.concatenate(planes, axis=2)
    else:
        pixels = _as_gray(page, samples)
    if page.number(PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        pixels = np.iinfo(pixels.dtype).max - pixels
    return pixels


def _plane(page: Directory, number: int, samples: int) -> Directory:
    """The page with the strips or tiles of one plane alone."""
    entries = dict(page.entries)
    for tag in (STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES):
        if tag in entries:
            entry = entries[tag]
            if entry.count % samples:
                raise damaged("TIFF", "its planes")
            each = entry.count // samples
            offset = entry.offset + number * each * TYPE_BYTES[entry.type]
            entries[tag] = replace(entry, count=each, offset=offset)
    return replace(page, entries=entries)


def _as_gray(page: Directory, samples: int) -> NDArray[Any]:
    """(height, width, samples) of a page whose channels lie side by side, read as a wide gray picture."""
    width, height, bits = page.number(WIDTH), page.number(HEIGHT), page.number(BITS)
    dropped = (PREDICTOR, EXTRA_SAMPLES, SAMPLE_FORMAT, PLANAR, ORIENTATION)
    entries = {tag: entry for tag, entry in page.entries.items() if tag not in dropped}
    instead = {WIDTH: width * samples, BITS: bits, PHOTOMETRIC: 1}
    instead |= {SAMPLES: 1} if SAMPLES in entries else {}
    instead |= {TILE_WIDTH: page.number(TILE_WIDTH) * samples} if TILE_WIDTH in entries else {}
    file = rewritten(replace(page, entries=entries), instead)
    try:
        image = open_with_plugin("TIFF", io.BytesIO(file))
        wide = np.asarray(image)
    except (OSError, RuntimeError, ValueError, EOFError, SyntaxError, KeyError) as error:
        if "truncated" in str(error):
            raise truncated("TIFF") from None
        raise damaged("TIFF", "its compressed pixels cannot be read") from None
    if wide.shape != (height, width * samples):
        raise damaged("TIFF", "its size")
    pixels = wide.astype(f"uint{bits}").reshape(height, width, samples)
    if page.number(COMPRESSION, 1) in _PREDICTED and page.number(PREDICTOR, 1) == 2:
        _undo_differences(pixels, page.number(TILE_WIDTH) or width)
    return pixels


def _undo_differences(pixels: NDArray[Any], across: int) -> None:
    """Each value was stored as its difference to the pixel before, anew in each tile; sums wrap around."""
    for left in range(0, pixels.shape[1], across):
        part = pixels[:, left : left + across]
        part[...] = np.cumsum(part, axis=1, dtype=pixels.dtype)
