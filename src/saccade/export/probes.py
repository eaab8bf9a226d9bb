"""Two small pictures by which a page finds out whether its browser decodes as saccade does.

A JPEG that is turned by EXIF and a PNG with transparency. Both have a colour profile that swaps red and
green, so a browser that applies profiles cannot go unnoticed.
"""

from __future__ import annotations

import base64
import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from saccade.images.decoder import Limits, decode

SIDE = 64
# D50, and the primaries of sRGB adapted to it (ICC.1:2022, annex F), as X, Y, Z
_WHITE = (0.9642, 1.0, 0.8249)
_RED, _GREEN, _BLUE = (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)


@dataclass(frozen=True, slots=True)
class Probe:
    """An image file, and the RGB bytes, row by row, that our decoder makes of it."""

    name: str
    file: bytes
    pixels: bytes

    def as_json(self) -> dict[str, str]:
        encoded = {"file": self.file, "pixels": self.pixels}
        return {"name": self.name} | {
            key: base64.b64encode(value).decode("ascii") for key, value in encoded.items()
        }


def probes(background: tuple[int, int, int]) -> list[Probe]:
    """The JPEG and the PNG, with their pixels on that background."""
    limits = Limits(background=background)
    files = {"JPEG": _jpeg(), "PNG": _png()}
    return [Probe(name, file, decode(file, limits=limits).pixels.tobytes()) for name, file in files.items()]


def _jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    _picture().save(file, "JPEG", quality=85, exif=exif, icc_profile=swapped_profile())
    return file.getvalue()


def _png() -> bytes:
    picture = _picture()
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    file = io.BytesIO()
    picture.save(file, "PNG", icc_profile=swapped_profile())
    return file.getvalue()


def _picture() -> Image.Image:
    """Smooth colours with a rough corner."""
    down, across = np.mgrid[0:SIDE, 0:SIDE] * (255 / (SIDE - 1))
    pixels = np.stack([across, down, (down + 3 * across) % 256], axis=2)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE // 3, SIDE // 3, 3))
    pixels[: SIDE // 3, : SIDE // 3] = noise
    return Image.fromarray(pixels.astype(np.uint8))


def swapped_profile() -> bytes:
    """An ICC profile (version 2, matrix and gamma 1.8) of a screen with red and green exchanged."""
    tone = b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.8 * 256))
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 8) + b"swapped\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"no rights reserved\0",
        b"wtpt": _xyz(_WHITE),
        b"rXYZ": _xyz(_GREEN),
        b"gXYZ": _xyz(_RED),
        b"bXYZ": _xyz(_BLUE),
        b"rTRC": tone,
        b"gTRC": tone,
        b"bTRC": tone,
    }
    place, table, content = 132 + 12 * len(tags), b"", b""
    for name, tag in tags.items():
        padded = tag + bytes(-len(tag) % 4)
        table += struct.pack(">4sII", name, place + len(content), len(tag))
        content += padded
    head = struct.pack(">I4xI4s4s4s", place + len(content), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(_WHITE)[8:]
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + content


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))
