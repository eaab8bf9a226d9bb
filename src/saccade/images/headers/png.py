"""PNG (third edition): chunks and their checksums are checked, optional chunks dropped."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from saccade.images.headers.header import (
    ImageHeader,
    SizeCheck,
    bomb,
    damaged,
    profile_note,
    trailing_note,
    truncated,
)
from saccade.images.headers.tiff import read_exif

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_METADATA_BYTES = 1 << 20  # unpacked, of one chunk
_MOST_CHUNKS = 200_000
_MOST_PACKED_CHUNKS = 64
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


@dataclass(slots=True)
class _Found:
    """Contents of the chunks."""

    size: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)  # width, height, bits, colour type, interlace
    kept: list[bytes] = field(default_factory=lambda: [SIGNATURE])
    profile: bytes = b""
    exif: bytes = b""
    animated: bool = False
    packed_chunks: int = 0
    end: int = 0


def read_png(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """ImageHeader of a PNG; the payload holds its five decoding chunks and nothing else."""
    found = _Found()
    _read_size(found, data)
    width, height = found.size[:2]
    check_size(width, height)
    _chunks(found, data)
    orientation, camera = read_exif(found.exif) if found.exif else (1, "")
    notes = [*profile_note(found.profile)]
    if found.animated:
        notes.append("an animation; its first frame used")
    notes += trailing_note(data, found.end)
    payload, bits = b"".join(found.kept), found.size[2]
    return ImageHeader("PNG", width, height, payload, tuple(notes), orientation, camera=camera, bits=bits)


def _read_size(found: _Found, data: bytes) -> None:
    if len(data) < 33:
        raise truncated("PNG")
    length, name, *rest = struct.unpack_from(">I4sIIBBBBB", data, len(SIGNATURE))
    if name != b"IHDR" or length != 13:
        raise damaged("PNG", "no header chunk")
    width, height, bits, colour, _, _, interlace = rest
    found.size = (width, height, bits, colour, interlace)


def _chunks(found: _Found, data: bytes) -> None:
    """Walk to IEND; raises ImageError for a chunk that is cut off or whose checksum is wrong."""
    position = len(SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if position + 12 > len(data):
            raise _cut_off(found)
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            if name == b"IDAT":
                found.kept.append(data[position:])
            raise _cut_off(found)
        body = memoryview(data)[position + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(name)) != struct.unpack_from(">I", data, end - 4)[0]:
            raise damaged("PNG", f"wrong checksum in chunk {name.decode('latin-1')!r}")
        if name in _KEPT:
            found.kept.append(data[position:end])
        else:
            _metadata(found, name, body)
        position = end
        if name == b"IEND":
            found.end = end
            return
    raise damaged("PNG", f"more than {_MOST_CHUNKS:,} chunks")


def _metadata(found: _Found, name: bytes, body: memoryview) -> None:
    """Read a chunk that is dropped; compressed ones are unpacked within a limit."""
    if name == b"acTL":
        found.animated = True
    elif name == b"eXIf":
        found.exif = bytes(body)
    elif name == b"iCCP":
        found.profile = _unpack(found, bytes(body).partition(b"\0")[2][1:]) or b"?"
    elif name == b"zTXt":
        _unpack(found, bytes(body).partition(b"\0")[2][1:])
    elif name == b"iTXt":
        rest = bytes(body).partition(b"\0")[2]
        if rest[:1] == b"\1":  # compressed: flag, method, language, translated keyword, text
            _unpack(found, rest[2:].split(b"\0", 2)[-1])


def _unpack(found: _Found, packed: bytes) -> bytes:
    """Unpacked bytes, b"" where they are damaged; raises ImageError past the limit."""
    found.packed_chunks += 1
    try:
        unpacked = zlib.decompressobj().decompress(packed, MOST_METADATA_BYTES + 1)
    except zlib.error:
        return b""
    if len(unpacked) > MOST_METADATA_BYTES or found.packed_chunks > _MOST_PACKED_CHUNKS:
        raise bomb("metadata that unpacks to more than 1 MB")
    return unpacked


def _cut_off(found: _Found) -> Exception:
    """The error for a PNG without its end, with the row where the picture stops."""
    width, height, bits, colour, interlace = found.size
    if interlace:
        return truncated("PNG")
    row_bytes = 1 + (width * bits * _CHANNELS.get(colour, 1) + 7) // 8
    packed = b"".join(chunk[8:-4] for chunk in found.kept if chunk[4:8] == b"IDAT")
    try:
        unpacked = zlib.decompressobj().decompress(packed, min(row_bytes * height, 1 << 28))
    except zlib.error:
        return truncated("PNG")
    return truncated("PNG", len(unpacked) // row_bytes, height)
