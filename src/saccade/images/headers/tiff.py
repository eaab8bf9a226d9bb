"""TIFF (revision 6.0, and BigTIFF): the directory read with bounds, and rewritten to what is needed.

EXIF blocks are small TIFF files, so their orientation and camera are read here too.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from saccade.errors import ImageError
from saccade.images.headers.header import (
    ImageHeader,
    SizeCheck,
    bomb,
    clean_text,
    damaged,
    profile_note,
    truncated,
    unsupported,
)

TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MOST_ENTRIES = 4096
_MOST_VALUES = 1_000_000
_MOST_SAMPLES = 6

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 274, 277, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT = 322, 323, 324, 325, 339
PLANAR, PREDICTOR, EXTRA_SAMPLES = 284, 317, 338
SUBFILE_TYPE, SUB_DIRECTORIES, DNG_VERSION, CAMERA_MODEL, ICC_PROFILE = 254, 330, 50706, 272, 34675

# One value each; the rest of what a decoder needs has several. Everything else is dropped.
_SINGLE = {
    WIDTH,
    HEIGHT,
    COMPRESSION,
    PHOTOMETRIC,
    266,
    SAMPLES,
    ROWS_PER_STRIP,
    284,
    292,
    293,
    317,
    322,
    323,
    332,
}
_SINGLE |= {512, 513, 514, 515, 531}
_SEVERAL = {
    BITS,
    STRIP_OFFSETS,
    STRIP_BYTES,
    320,
    TILE_OFFSETS,
    TILE_BYTES,
    338,
    SAMPLE_FORMAT,
    347,
    519,
    520,
    521,
}
_SEVERAL |= {529, 530, 532}

_REFUSED_SAMPLES = {
    2: "signed integers",
    3: "floating-point values",
    5: "complex integers",
    6: "complex floating-point values",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One directory entry; `offset` is where its values lie in the file."""

    type: int
    count: int
    offset: int

    @property
    def size(self) -> int:
        return TYPE_BYTES[self.type] * self.count


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory's entries by tag, and where the next one lies (0: nowhere)."""

    data: bytes
    order: str
    big: bool
    entries: Mapping[int, Entry]
    next_offset: int

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The values of an unsigned integer tag; empty when it is absent or of another type."""
        entry = self.entries.get(tag)
        if entry is None or entry.type not in _UNSIGNED or entry.count > _MOST_VALUES:
            return ()
        return struct.unpack_from(
            f"{self.order}{entry.count}{_UNSIGNED[entry.type]}", self.data, entry.offset
        )

    def number(self, tag: int, otherwise: int = 0) -> int:
        values = self.numbers(tag)
        return values[0] if values else otherwise

    def raw(self, tag: int) -> bytes:
        entry = self.entries.get(tag)
        return self.data[entry.offset : entry.offset + entry.size] if entry else b""


def first_directory(data: bytes) -> Directory:
    """The first directory of a TIFF; entries that lie outside the file are left out."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        raise damaged("TIFF", "its header")
    magic = struct.unpack_from(order + "H", data, 2)[0]
    if magic == 42:
        return _directory(data, order, False, struct.unpack_from(order + "I", data, 4)[0])
    if magic == 43:
        return _directory(data, order, True, struct.unpack_from(order + "Q", data, 8)[0])
    raise damaged("TIFF", "its header")


def next_directory(page: Directory) -> Directory | None:
    """The directory behind this one; None at the end."""
    if not 8 <= page.next_offset < len(page.data):
        return None
    return _directory(page.data, page.order, page.big, page.next_offset)


def _directory(data: bytes, order: str, big: bool, start: int) -> Directory:
    count_format, entry_format, offset_format = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    entry_bytes, inline_bytes = (20, 8) if big else (12, 4)
    first = start + struct.calcsize(order + count_format)
    if first > len(data):
        raise truncated("TIFF")
    count = struct.unpack_from(order + count_format, data, start)[0]
    end = first + count * entry_bytes
    if count > _MOST_ENTRIES:
        raise damaged("TIFF", f"a directory of {count:,} entries")
    if end > len(data):
        raise truncated("TIFF")
    entries = {}
    for position in range(first, end, entry_bytes):
        tag, kind, length, offset = struct.unpack_from(order + entry_format, data, position)
        size = TYPE_BYTES.get(kind, 0) * length
        if size and size <= inline_bytes:
            offset = position + entry_bytes - inline_bytes
        if size and offset + size <= len(data) and tag not in entries:
            entries[tag] = Entry(kind, length, offset)
    has_next = end + struct.calcsize(order + offset_format) <= len(data)
    next_offset = struct.unpack_from(order + offset_format, data, end)[0] if has_next else 0
    return Directory(data, order, big, entries, next_offset)


def read_exif(block: bytes) -> tuple[int, str]:
    """Orientation (1..8) and camera model of an EXIF block; (1, "") where it says neither or is broken."""
    try:
        directory = first_directory(block.removeprefix(b"Exif\0\0"))
    except (ImageError, struct.error):
        return 1, ""
    orientation = directory.number(ORIENTATION, 1)
    return orientation if 1 <= orientation <= 8 else 1, clean_text(directory.raw(CAMERA_MODEL))


def read_tiff(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """ImageHeader of the first page; the payload has a fresh directory with the needed tags only."""
    page = first_directory(data)
    refuse_camera_raw(page)
    width, height = page.number(WIDTH), page.number(HEIGHT)
    if not width or not height:
        raise damaged("TIFF", "no size")
    check_size(width, height)
    _refuse_samples(page)
    check_pixels_present(page, height)
    orientation = page.number(ORIENTATION, 1)
    bits = page.number(BITS, 1)
    notes = profile_note(page.raw(ICC_PROFILE))
    if 8 <= page.next_offset < len(data):
        notes = (*notes, "several pages; the first one used")
    return ImageHeader(
        "TIFF",
        width,
        height,
        rewritten(page),
        notes,
        orientation if 1 <= orientation <= 8 else 1,
        camera=clean_text(page.raw(CAMERA_MODEL)),
        gray_maximum=(1 << bits) - 1 if 8 < bits <= 16 else 65535,
        inverted=page.number(PHOTOMETRIC, 1) == 0,
        bits=bits,
    )


def refuse_camera_raw(page: Directory) -> None:
    """A raw file's first page is a thumbnail; using it would be a silent mistake."""
    preview = page.number(SUBFILE_TYPE) & 1 and SUB_DIRECTORIES in page.entries
    if preview or DNG_VERSION in page.entries or page.data[8:10] == b"CR":
        raise unsupported("a camera's raw file", "Convert it: develop it to JPEG or TIFF")


def _refuse_samples(page: Directory) -> None:
    kind, bits = page.number(SAMPLE_FORMAT, 1), page.number(BITS, 1)
    named = _REFUSED_SAMPLES.get(kind)
    if named and not (kind == 2 and bits == 8):
        raise unsupported(
            f"TIFF of {named}", "Give the range: convert it to 8 or 16 bits with a black and white you choose"
        )
    if page.number(SAMPLES, 1) > _MOST_SAMPLES:
        raise unsupported(f"TIFF of {page.number(SAMPLES):,} channels", "Convert it to RGB to use it")
    if bits > 16:
        raise unsupported(
            f"TIFF of {bits}-bit integers",
            "Give the range: convert it to 8 or 16 bits with a black and white you choose",
        )


def check_pixels_present(page: Directory, height: int) -> None:
    """Raise ImageError when strips or tiles lie outside the file, or a tile is absurdly large."""
    tiled = TILE_OFFSETS in page.entries
    offsets = page.numbers(TILE_OFFSETS if tiled else STRIP_OFFSETS)
    sizes = page.numbers(TILE_BYTES if tiled else STRIP_BYTES)
    if not offsets:
        raise truncated("TIFF")
    if tiled and page.number(TILE_WIDTH) * page.number(TILE_HEIGHT) > 1 << 26:
        raise bomb(f"tiles of {page.number(TILE_WIDTH):,} x {page.number(TILE_HEIGHT):,} pixels")
    rows = page.number(ROWS_PER_STRIP, height)
    plain = page.number(COMPRESSION, 1) == 1  # sizes of plain strips are often wrong, and not needed
    for index, offset in enumerate(offsets):
        size = sizes[index] if index < len(sizes) and not plain else 1
        if offset + size > len(page.data):
            raise truncated("TIFF", 0 if tiled else index * rows, height)


def rewritten(page: Directory, instead: Mapping[int, int] = MappingProxyType({})) -> bytes:
    """The file with a new last directory that holds only what a decoder needs, `instead` of some values."""
    order, data = page.order, page.data
    entry_format, inline = (order + "HHQ", 8) if page.big else (order + "HHI", 4)
    pieces = []
    for tag in sorted(page.entries):
        entry = page.entries[tag]
        if tag in instead or (tag in _SINGLE and entry.type in _UNSIGNED):
            value = min(instead.get(tag, page.number(tag)), 0xFFFFFFFF)
            kind, code = (3, "H") if value < 1 << 16 else (4, "I")
            pieces.append(
                struct.pack(entry_format, tag, kind, 1)
                + struct.pack(order + code, value).ljust(inline, b"\0")
            )
        elif tag in _SEVERAL:
            offset_format = order + ("Q" if page.big else "I")
            where = (
                page.raw(tag).ljust(inline, b"\0")
                if entry.size <= inline
                else struct.pack(offset_format, entry.offset)
            )
            pieces.append(struct.pack(entry_format, tag, entry.type, entry.count) + where)
    start = len(data) + len(data) % 2  # directories begin at even offsets
    count, next_page = (order + "Q", order + "Q") if page.big else (order + "H", order + "I")
    head = (
        data[:8] + struct.pack(order + "Q", start) if page.big else data[:4] + struct.pack(order + "I", start)
    )
    directory = struct.pack(count, len(pieces)) + b"".join(pieces) + struct.pack(next_page, 0)
    return head + data[len(head) :].ljust(start - len(head), b"\0") + directory
