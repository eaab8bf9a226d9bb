"""JPEG XL (ISO/IEC 18181): size, depth and animation out of the first bits of the code stream."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from saccade.images.headers.header import ImageHeader, SizeCheck, damaged, truncated, unsupported
from saccade.images.headers.tiff import read_exif

STREAM = b"\xff\x0a"
CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_HEADER_BYTES = 64  # more than size, orientation and depth take
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}  # width : height
_SIDES = ((1, 9), (1, 13), (1, 18), (1, 30))  # what is added, and bits, by a selector of two bits
_DEPTHS = ((8, 0), (10, 0), (12, 0), (1, 6))


@dataclass(slots=True)
class _Bits:
    """Bits of a code stream, the lowest of each byte first."""

    value: int

    def take(self, count: int) -> int:
        taken = self.value & ((1 << count) - 1)
        self.value >>= count
        return taken

    def one_of(self, choices: tuple[tuple[int, int], ...]) -> int:
        start, bits = choices[self.take(2)]
        return start + self.take(bits)


def read_jxl(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """ImageHeader of a JPEG XL; libjxl turns the picture, so orientation stays 1."""
    stream, exif = (data[: _HEADER_BYTES + 2], b"") if data.startswith(STREAM) else _unpacked(data)
    if len(stream) < 4 or not stream.startswith(STREAM):
        raise truncated("JPEG XL") if len(stream) < 4 else damaged("JPEG XL", "its header")
    bits = _Bits(int.from_bytes(stream[2 : _HEADER_BYTES + 2], "little"))
    width, height = _size(bits)
    check_size(width, height)
    return ImageHeader("JXL", width, height, data, _notes(bits), camera=read_exif(exif)[1])


def _unpacked(data: bytes) -> tuple[bytes, bytes]:
    """The beginning of the code stream, and the EXIF block, out of the boxes of a container."""
    stream, exif, start = b"", b"", 0
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1 and start + 16 <= len(data):
            length, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        end = start + length if length else len(data)
        if end > len(data):
            raise truncated("JPEG XL")
        if end < start + head:
            raise damaged("JPEG XL", "its boxes")
        if name in (b"jxlc", b"jxlp") and len(stream) < _HEADER_BYTES + 2:
            stream += data[
                start + head + (4 if name == b"jxlp" else 0) : end
            ]  # a part begins with its number
        elif name == b"Exif":
            exif = data[start + head + 4 : end]
        start = end
    return stream, exif


def _size(bits: _Bits) -> tuple[int, int]:
    by_eight = bits.take(1)
    height = 8 * (1 + bits.take(5)) if by_eight else bits.one_of(_SIDES)
    ratio = bits.take(3)
    if ratio:
        across, down = _RATIOS[ratio]
        return height * across // down, height
    return 8 * (1 + bits.take(5)) if by_eight else bits.one_of(_SIDES), height


def _notes(bits: _Bits) -> tuple[str, ...]:
    """What is said of depth, which is not looked for behind rarer fields; raises ImageError for animations.

    libjxl would give the last frame of one.
    """
    if bits.take(1):  # all as by default: 8 bits, one frame
        return ()
    if bits.take(1):
        bits.take(3)  # orientation
        if bits.take(1):  # another size to show it at
            _size(bits)
        if bits.take(1):  # a preview
            return ()
        if bits.take(1):
            raise unsupported("an animated JPEG XL", "Export the frame you want as PNG to use it")
    is_float = bits.take(1)
    depth = 0 if is_float else bits.one_of(_DEPTHS)
    return (f"{depth} bits a channel reduced to 8",) if depth > 8 else ()
