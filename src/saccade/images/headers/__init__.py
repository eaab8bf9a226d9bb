"""What a file says of itself, read within bounds before any decoder runs."""

from __future__ import annotations

from collections.abc import Callable

from saccade.images.headers.foreign import is_avif, not_an_image, refuse_foreign
from saccade.images.headers.header import Header, SizeCheck
from saccade.images.headers.jpeg import read_jpeg
from saccade.images.headers.others import read_avif, read_bmp, read_gif, read_ppm, read_webp
from saccade.images.headers.png import SIGNATURE, read_png
from saccade.images.headers.tiff import read_tiff

__all__ = ["Header", "SizeCheck", "read_header"]

# how a format begins -> what reads it
_READERS: tuple[tuple[bytes, Callable[[bytes, SizeCheck], Header]], ...] = (
    (b"\xff\xd8\xff", read_jpeg),
    (SIGNATURE, read_png),
    (b"GIF87a", read_gif),
    (b"GIF89a", read_gif),
    (b"II*\0", read_tiff),
    (b"MM\0*", read_tiff),
    (b"II+\0", read_tiff),
    (b"MM\0+", read_tiff),
    (b"BM", read_bmp),
    *((b"P" + kind, read_ppm) for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"f", b"F")),
)


def read_header(data: bytes, check_size: SizeCheck) -> Header:
    """Format, size and the rest of what the file says; raises ImageError for what is not read.

    `check_size` runs before anything that takes time in proportion to the file.
    """
    refuse_foreign(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return read_webp(data, check_size)
    if is_avif(data):
        return read_avif(data)
    for magic, read in _READERS:
        if data.startswith(magic):
            return read(data, check_size)
    raise not_an_image(data)
