"""HEIC, HEIF and AVIF (ISO/IEC 23008-12 and 23000-22): what the `meta` box says of the primary picture.

Both turn pictures by the properties `irot` and `imir`, which libheif and libavif apply. EXIF often repeats
the same turn and must not be applied again, so EXIF and XMP are hidden from the decoder in the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from saccade.images.headers.header import (
    ImageHeader,
    SizeCheck,
    damaged,
    profile_note,
    trailing_note,
    truncated,
)
from saccade.images.headers.tiff import read_exif

_MOST_EXTENTS = 100_000
_METADATA = (b"Exif", b"mime")
_KNOWN = (b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip")
_PRIMARIES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}  # ITU-T H.273, table 2
_HDR = {16: "PQ", 18: "HLG"}  # table 3

Box = tuple[bytes, int, int]
"""Kind, and where the content begins and ends."""


@dataclass(slots=True)
class _Meta:
    """The items of a file and their properties."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    type_offsets: list[int] = field(default_factory=list)  # where the file says that an item is metadata
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    properties: list[Box] = field(default_factory=list)
    of_item: dict[int, list[int]] = field(default_factory=dict)


def read_heif(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """ImageHeader of a HEIC or another HEIF."""
    return _read("HEIF", "HEIC", data, check_size)


def read_avif(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """ImageHeader of an AVIF."""
    return _read("AVIF", "AVIF", data, check_size)


def _read(form: str, kind: str, data: bytes, check_size: SizeCheck) -> ImageHeader:
    try:
        boxes, end = _file_boxes(data, kind)
        notes = trailing_note(data, end)
        names = [name for name, *_ in boxes]
        if b"moov" in names:
            notes = ("an animation; its first frame used", *notes)
        if b"meta" not in names:
            if b"moov" not in names:
                raise truncated(kind)
            return ImageHeader(form, 0, 0, data, notes)  # a bare sequence: its decoder says what it holds
        place = boxes[names.index(b"meta")]
        meta = _meta(data, place[1] + 4, place[2], kind)
        return _described(form, kind, data, meta, notes, check_size)
    except (struct.error, IndexError, ValueError):
        raise damaged(kind, "its header") from None


def _described(
    form: str, kind: str, data: bytes, meta: _Meta, notes: tuple[str, ...], check_size: SizeCheck
) -> ImageHeader:
    if any(start + length > len(data) for pieces in meta.extents.values() for start, length in pieces):
        raise truncated(kind)
    own = [meta.properties[index - 1] for index in meta.of_item.get(meta.primary, []) if index]
    width, height = _size(data, own)
    _check_sizes(data, meta, width, height, check_size)
    orientation, camera = read_exif(_exif(data, meta))
    turned = any(name in (b"irot", b"imir") for name, *_ in own)
    if orientation != 1 and not turned:
        notes = (*notes, f"EXIF orientation {orientation} not applied: {kind} files turn by properties")
    notes = (*_depth_note(data, own, meta), *_colour_notes(data, own), *notes)
    return ImageHeader(form, width, height, _without_metadata(data, meta), notes, camera=camera)


# -- boxes -----------------------------------------------------------------------------------------------


def _boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """Boxes one after the other; the last one may claim to end behind `end`."""
    while start + 8 <= end:
        length, name = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        elif length == 0:
            length = end - start
        if length < head:
            raise ValueError("a box that is shorter than its head")
        yield name, start + head, start + length
        start += length


def _file_boxes(data: bytes, kind: str) -> tuple[list[Box], int]:
    """The file's own boxes, and where the last one ends; some phones write bytes of their own behind."""
    found: list[Box] = []
    end = 0
    while end + 8 <= len(data):
        name = data[end + 4 : end + 8]
        if name not in _KNOWN and any(box[0] == b"meta" for box in found):
            break
        box = next(_boxes(data, end, len(data)))
        if box[2] > len(data):
            raise truncated(kind)
        found.append(box)
        end = box[2]
    return found, end


def _meta(data: bytes, start: int, end: int, kind: str) -> _Meta:
    meta = _Meta()
    for name, first, last in _boxes(data, start, end):
        if last > end:
            raise damaged(kind, "its header")
        if name == b"pitm":
            meta.primary = struct.unpack_from(">H" if data[first] == 0 else ">I", data, first + 4)[0]
        elif name == b"iinf":
            _take_items(data, first, last, meta)
        elif name == b"iloc":
            _take_places(data, first, meta)
        elif name == b"iprp":
            for inner, begin, finish in _boxes(data, first, last):
                if inner == b"ipco":
                    meta.properties = list(_boxes(data, begin, finish))
                elif inner == b"ipma":
                    _take_associations(data, begin, meta)
    return meta


def _take_items(data: bytes, first: int, last: int, meta: _Meta) -> None:
    """The kind of every item (ISO/IEC 14496-12, 8.11.6)."""
    for name, begin, _ in _boxes(data, first + (6 if data[first] == 0 else 8), last):
        version = data[begin]
        if name != b"infe" or version not in (2, 3):
            continue
        item = struct.unpack_from(">H" if version == 2 else ">I", data, begin + 4)[0]
        place = begin + (8 if version == 2 else 10)
        meta.kinds[item] = data[place : place + 4]
        if meta.kinds[item] in _METADATA:
            meta.type_offsets.append(place)


def _take_places(data: bytes, first: int, meta: _Meta) -> None:
    """Where the items lie in the file (8.11.3); those that lie elsewhere are left out."""
    version, sizes, more = data[first], data[first + 4], data[first + 5]
    widths = (sizes >> 4, sizes & 15, more >> 4, more & 15 if version else 0)  # offset, length, base, index
    reader = _Reader(data, first + 6)
    count = reader.number(2 if version < 2 else 4)
    total = 0
    for _ in range(count):
        item = reader.number(2 if version < 2 else 4)
        method = reader.number(2) & 15 if version else 0
        elsewhere = reader.number(2)
        base = reader.number(widths[2])
        pieces = []
        for _ in range(reader.number(2)):
            reader.number(widths[3])
            offset = reader.number(widths[0])
            pieces.append((base + offset, reader.number(widths[1])))
            total += 1
            if total > _MOST_EXTENTS:
                raise ValueError("too many extents")
        if method == 0 and elsewhere == 0:
            meta.extents[item] = pieces


def _take_associations(data: bytes, first: int, meta: _Meta) -> None:
    """Which properties belong to which item (ISO/IEC 23008-12, 9.3)."""
    version, wide = data[first], data[first + 3] & 1
    reader = _Reader(data, first + 4)
    for _ in range(reader.number(4)):
        item = reader.number(2 if version < 1 else 4)
        count = reader.number(1)
        mask = 0x7FFF if wide else 0x7F  # the bit above says whether a reader must know the property
        indexes = [reader.number(2 if wide else 1) & mask for _ in range(count)]
        meta.of_item.setdefault(item, []).extend(indexes)


@dataclass(slots=True)
class _Reader:
    """Big-endian numbers one after the other; raises IndexError behind the end."""

    data: bytes
    position: int

    def number(self, width: int) -> int:
        end = self.position + width
        if end > len(self.data):
            raise IndexError
        value = int.from_bytes(self.data[self.position : end], "big")
        self.position = end
        return value


# -- the primary picture ---------------------------------------------------------------------------------


def _size(data: bytes, properties: list[Box]) -> tuple[int, int]:
    for name, start, _ in properties:
        if name == b"ispe":
            width, height = struct.unpack_from(">II", data, start + 4)
            return width, height
    return 0, 0


def _check_sizes(data: bytes, meta: _Meta, width: int, height: int, check_size: SizeCheck) -> None:
    """Check the primary picture, and every larger one: a tile may be larger than the picture made of it."""
    if width or height:
        check_size(width, height)
    for box in meta.properties:
        other = _size(data, [box])
        if other[0] * other[1] > width * height:
            check_size(*other)


def _exif(data: bytes, meta: _Meta) -> bytes:
    """The EXIF block, behind the offset that it begins with."""
    item = next((item for item, kind in meta.kinds.items() if kind == b"Exif"), 0)
    block = b"".join(data[start : start + length] for start, length in meta.extents.get(item, []))
    return block[4 + int.from_bytes(block[:4], "big") :]


def _depth_note(data: bytes, properties: list[Box], meta: _Meta) -> tuple[str, ...]:
    """Said where the channels have more than 8 bits."""
    bits = [max(data[start + 5 : end]) for name, start, end in properties if name == b"pixi"]
    bits = bits or [(data[start + 17] & 7) + 8 for name, start, _ in meta.properties if name == b"hvcC"]
    bits = bits or [
        8 + (data[start + 2] >> 6 & 1) * (2 + (data[start + 2] >> 5 & 1) * 2)
        for name, start, _ in properties
        if name == b"av1C"
    ]
    return (f"{max(bits)} bits a channel reduced to 8",) if bits and max(bits) > 8 else ()


def _colour_notes(data: bytes, properties: list[Box]) -> tuple[str, ...]:
    notes: list[str] = []
    for name, start, end in properties:
        if name != b"colr":
            continue
        if data[start : start + 4] in (b"prof", b"rICC"):
            notes += profile_note(data[start + 4 : end])
        elif data[start : start + 4] == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", data, start + 4)
            if primaries in _PRIMARIES:
                notes.append(f"colour profile {_PRIMARIES[primaries]!r} not applied")
            if transfer in _HDR:
                notes.append(f"high dynamic range ({_HDR[transfer]}) taken as it is stored")
    return tuple(notes)


def _without_metadata(data: bytes, meta: _Meta) -> bytes:
    """The file with its EXIF and XMP renamed to a kind that no decoder knows."""
    if not meta.type_offsets:
        return data
    payload = bytearray(data)
    for place in meta.type_offsets:
        payload[place : place + 4] = b"skip"
    return bytes(payload)
