"""GIF, WebP, BMP and PPM: sizes, frames and ends."""

from __future__ import annotations

import re
import struct

from saccade.images.headers.header import (
    ImageHeader,
    SizeCheck,
    damaged,
    profile_note,
    trailing_note,
    truncated,
    unsupported,
)
from saccade.images.headers.tiff import read_exif

# Pillow reads these two kinds with loops in Python, about a second for this many bytes.
_MOST_SLOW_BYTES = 8_000_000


def read_gif(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """ImageHeader of a GIF (89a); the payload ends after the first frame."""
    if len(data) < 13:
        raise truncated("GIF")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    start = 13 + _palette_bytes(flags)
    first = _next_frame(data, start)
    left, top, frame_width, frame_height, frame_flags = struct.unpack_from("<HHHHB", data, first + 1)
    width, height = max(width, left + frame_width), max(height, top + frame_height)
    check_size(width, height)
    end = _skip_blocks(data, first + 10 + _palette_bytes(frame_flags) + 1)
    notes: tuple[str, ...] = ()
    try:
        if _next_frame(data, end, or_end=True):
            notes = ("an animation; its first frame used",)
        elif data[end : end + 1] == b";":
            notes = trailing_note(data, end + 1)
    except (struct.error, IndexError, ValueError):
        notes = ("damaged after its first frame; that one used",)
    return ImageHeader("GIF", width, height, data[:end] + b";", notes)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 128 else 0


def _next_frame(data: bytes, position: int, *, or_end: bool = False) -> int:
    """Offset of the next image descriptor; 0 when there is none and `or_end` allows that."""
    while position < len(data):
        mark = data[position]
        if mark == 0x2C and position + 10 <= len(data):
            return position
        if mark == 0x3B and or_end:
            return 0
        position = _skip_blocks(data, position + 2) if mark == 0x21 else position + 1
    if or_end:
        return 0
    raise truncated("GIF")


def _skip_blocks(data: bytes, position: int) -> int:
    """Offset after a chain of data blocks and its terminator."""
    while True:
        if position >= len(data):
            raise truncated("GIF")
        length = data[position]
        position += 1 + length
        if length == 0:
            return position


def read_webp(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """ImageHeader of a WebP (RFC 9649)."""
    if len(data) < 30:
        raise truncated("WebP")
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise truncated("WebP")
    width, height = _webp_size(data)
    check_size(width, height)
    frames, orientation, camera, profile = 0, 1, "", b""
    position = 12
    while position + 8 <= end and frames < 2:
        name, length = struct.unpack_from("<4sI", data, position)
        body = slice(position + 8, position + 8 + length)
        frames += name == b"ANMF"
        if name == b"EXIF":
            orientation, camera = read_exif(data[body])
        elif name == b"ICCP":
            profile = data[body] or b"?"
        position = body.stop + length % 2
    notes = profile_note(profile)
    if frames > 1:
        notes = (*notes, "an animation; its first frame used")
    notes = (*notes, *trailing_note(data, end + end % 2))
    return ImageHeader("WEBP", width, height, data[:end], notes, orientation, camera=camera)


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise damaged("WebP", "its header")


def read_bmp(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """ImageHeader of a Windows or OS/2 bitmap."""
    if len(data) < 26:
        raise truncated("BMP")
    header_bytes = int.from_bytes(data[14:18], "little")
    if header_bytes == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
        run_length = len(data) >= 34 and int.from_bytes(data[30:34], "little") in (1, 2)
        if run_length and len(data) > _MOST_SLOW_BYTES:
            raise unsupported("a run-length BMP of more than 8 MB", "Convert it to PNG to use it")
    if width <= 0 or height == 0:
        raise damaged("BMP", f"a size of {width} x {height} pixels")
    check_size(width, abs(height))
    return ImageHeader("BMP", width, abs(height), data)


_PPM_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([0-9]{1,10})(?=[\s#])")


def read_ppm(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """ImageHeader of a PBM, PGM or PPM, or of a PFM, whose floating-point values are refused after it."""
    plain = data[1:2] in b"123"
    if plain and len(data) > _MOST_SLOW_BYTES:
        raise unsupported("a plain-text PPM of more than 8 MB", "Convert it to PNG to use it")
    width_token = _PPM_TOKEN.match(data, 2)
    height_token = width_token and _PPM_TOKEN.match(data, width_token.end())
    if not width_token or not height_token:
        raise damaged("PPM", "its header")
    width, height = int(width_token[1]), int(height_token[1])
    check_size(width, height)
    return ImageHeader("PPM", width, height, data)
