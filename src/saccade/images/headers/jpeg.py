"""JPEG (ITU-T T.81): the segments before the first scan, and where the picture ends."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass, field

from saccade.images.headers.header import (
    ImageHeader,
    SizeCheck,
    bomb,
    damaged,
    profile_note,
    trailing_note,
    truncated,
    unsupported,
)
from saccade.images.headers.tiff import read_exif

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xCA)
_APP0, _APP1, _APP2, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_TABLES, _SCAN, _END = 0xDB, 0xDA, 0xD9
# In entropy-coded data every 0xFF is followed by 0 or a restart marker, so anything else is a segment.
_NEXT_SEGMENT = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_END_MARKER = re.compile(rb"\xff\xd9")  # found in half the time of bytes.find

_STANDARD_LUMINANCE_SUM = 3688  # of Annex K's luminance table, which libjpeg scales by quality
_MOST_SCAN_PIXELS = 1_000_000_000
_MOST_SEGMENTS = 10_000
_MOST_PROFILE_BYTES = 8_000_000


@dataclass(slots=True)
class _Found:
    """Contents of the segments before the first scan."""

    kept: list[bytes] = field(default_factory=lambda: [b"\xff\xd8"])
    frame: tuple[int, int, int, int, int] | None = None  # marker, precision, height, width, components
    exif: bytes = b""
    profile: bytes = b""
    adobe: bool = False
    several_pictures: bool = False
    tables: list[bytes] = field(default_factory=list)
    table_sum: int = 0
    scan: int = 0


def read_jpeg(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """ImageHeader of a JPEG; the payload lacks EXIF, profiles, thumbnails and comments."""
    found = _segments(data)
    if found.frame is None:
        raise damaged("JPEG", "no frame header before the picture")
    marker, precision, height, width, components = found.frame
    if precision != 8:
        raise unsupported(
            f"JPEG of {precision} bits a channel", "Convert it to PNG or to an 8-bit JPEG to use it"
        )
    check_size(width, height)
    end, scans = _end_of_picture(data, found.scan, progressive=marker in _PROGRESSIVE)
    if scans > 20 and scans * width * height > _MOST_SCAN_PIXELS:
        raise bomb(f"{scans:,} scans over {width:,} x {height:,} pixels")
    orientation, camera = read_exif(found.exif) if found.exif else (1, "")
    notes = [*profile_note(found.profile)]
    if components == 4 and not found.adobe:
        notes.append("CMYK without Adobe's marker, read as inverted, as browsers do")
    if found.several_pictures:
        notes.append("several pictures in one file; the first one used")
    elif end:
        notes += trailing_note(data, end)
    payload = b"".join([*found.kept, data[found.scan :]])
    return ImageHeader(
        "JPEG",
        width,
        height,
        payload,
        tuple(notes),
        orientation,
        _quality(found.table_sum),
        camera,
        channels=components,
        compression=hashlib.sha256(b"".join(found.tables)).hexdigest()[:12] if found.tables else "",
    )


def _segments(data: bytes) -> _Found:
    """Walk from segment to segment up to the first scan."""
    found = _Found()
    position = 2
    for _ in range(_MOST_SEGMENTS):
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            raise truncated("JPEG")
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes
            position += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # stand alone
            position += 2
        elif marker == _END:
            raise damaged("JPEG", "it ends before a picture")
        elif marker == _SCAN:
            found.scan = position
            return found
        else:
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
            if end < position + 4 or end > len(data):
                raise truncated("JPEG")
            _take(found, marker, data[position:end])
            position = end
    raise damaged("JPEG", "too many segments before the picture")


def _take(found: _Found, marker: int, segment: bytes) -> None:
    """Keep a segment for the decoder, or read from it what is needed and drop it."""
    body = segment[4:]
    if marker in _START_OF_FRAME:
        if found.frame is not None:
            raise damaged("JPEG", "two frame headers")
        if len(body) < 6:
            raise damaged("JPEG", "a frame header that is too short")
        found.frame = (marker, *struct.unpack_from(">BHHB", body))
    elif marker == _TABLES:
        found.tables.append(body)
        if len(body) >= 65 and body[0] == 0 and not found.table_sum:
            found.table_sum = sum(body[1:65])
    if marker == _APP1 and body.startswith(b"Exif\0\0"):
        found.exif = found.exif or body[6:]
    elif marker == _APP2 and body.startswith(b"ICC_PROFILE\0") and len(found.profile) < _MOST_PROFILE_BYTES:
        found.profile += body[14:]  # in parts of 64 kB, in order
    elif marker == _APP2 and body.startswith(b"MPF\0"):
        found.several_pictures = True
    elif marker == _ADOBE:
        found.adobe = found.adobe or body.startswith(b"Adobe")
    needed = marker == _ADOBE or (marker == _APP0 and body.startswith(b"JFIF"))
    if needed or not (_APP0 <= marker <= 0xEF or marker == _COMMENT):
        found.kept.append(segment)


def _end_of_picture(data: bytes, scan: int, *, progressive: bool) -> tuple[int, int]:
    """Where the end marker's last byte is passed (0 without one), and the number of scans."""
    first = _END_MARKER.search(data, scan)
    if first is None:
        return 0, 1
    if not progressive and first.end() == len(data):
        return first.end(), 1  # the usual case, without a walk
    position, scans = scan, 0
    while True:
        found = _NEXT_SEGMENT.search(data, position)
        if found is None:
            return 0, scans
        marker, position = data[found.start() + 1], found.start()
        if marker == _END:
            return position + 2, scans
        scans += marker == _SCAN
        if scans > _MOST_SEGMENTS:
            raise bomb("more than 10,000 scans")
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def _quality(table_sum: int) -> int:
    """libjpeg's quality setting (1..100) that gives a luminance table of this sum; 0 when unknown."""
    if not table_sum:
        return 0
    scale = 100 * table_sum / _STANDARD_LUMINANCE_SUM
    quality = 100 - scale / 2 if scale <= 100 else 5000 / scale
    return min(100, max(1, round(quality)))
