"""Damage small image files in 20,000 ways; the decoder may answer with pixels or an ImageError, within 1 s.

    python benchmarks/fuzz_decoder.py [--mutations 20000] [--seed 0]

Makes its own seed files. Prints one line with the counts, exits 1 at the first other exception,
at a warning, or when one file takes longer than a second. Mutation i of seed s is the same in every run.
"""

from __future__ import annotations

import argparse
import io
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
from PIL import Image

from saccade.errors import ImageError
from saccade.images.decoder import decode

MOST_SECONDS = 1.0


def picture(mode: str, *, width: int = 61, height: int = 43) -> Image.Image:
    """A smooth picture with some noise in any of Pillow's modes."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(1).integers(0, 40, (height, width, 4))
    base = np.stack([x * 3, y * 4, (x + y) * 2, 255 - x], axis=-1)
    pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels, "RGBA").convert("RGB" if mode == "CMYK" else mode).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seed_files() -> dict[str, bytes]:
    """Small files that cover the formats, modes and compressions that are read; 34 with all packages."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Model"
    frames = [picture("RGB"), picture("L").convert("RGB")]
    return {
        "jpeg": saved(picture("RGB"), "JPEG", exif=exif),
        "jpeg_gray": saved(picture("L"), "JPEG", quality=30),
        "jpeg_cmyk": saved(picture("CMYK"), "JPEG"),
        "jpeg_progressive": saved(picture("RGB"), "JPEG", progressive=True),
        "jpeg_restart": saved(picture("RGB"), "JPEG", restart_marker_blocks=2),
        "jpeg_icc": saved(picture("RGB"), "JPEG", icc_profile=bytes(200)),
        "png": saved(picture("RGB"), "PNG"),
        "png_gray": saved(picture("L"), "PNG"),
        "png_alpha": saved(picture("RGBA"), "PNG", exif=exif),
        "png_la": saved(picture("LA"), "PNG"),
        "png_palette": saved(picture("P"), "PNG", transparency=3),
        "png_bits": saved(picture("1"), "PNG"),
        "png_16": saved(picture("I;16"), "PNG"),
        "apng": saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "webp": saved(picture("RGB"), "WEBP", exif=exif),
        "webp_lossless": saved(picture("RGBA"), "WEBP", lossless=True),
        "webp_animated": saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "gif": saved(picture("P"), "GIF"),
        "gif_animated": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "bmp": saved(picture("RGB"), "BMP"),
        "bmp_palette": saved(picture("P"), "BMP"),
        "tiff": saved(picture("RGB"), "TIFF"),
        "tiff_16": saved(picture("I;16"), "TIFF"),
        "tiff_lzw": saved(picture("RGB"), "TIFF", compression="tiff_lzw"),
        "tiff_deflate": saved(picture("L"), "TIFF", compression="tiff_adobe_deflate"),
        "tiff_jpeg": saved(picture("RGB"), "TIFF", compression="jpeg"),
        "tiff_fax": saved(picture("1"), "TIFF", compression="group4"),
        "tiff_pages": saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "ppm": saved(picture("RGB"), "PPM"),
        "avif": saved(picture("RGB"), "AVIF", exif=exif),
        **(heic_files(exif) if find_spec("pillow_heif") else {}),
        **(jxl_files(exif) if find_spec("pillow_jxl") else {}),
    }


def heic_files(exif: Image.Exif) -> dict[str, bytes]:
    """A turned photo with EXIF, and one with transparency."""
    from pillow_heif import from_pillow

    files = {}
    for name, mode in (("heic", "RGB"), ("heic_alpha", "RGBA")):
        buffer = io.BytesIO()
        from_pillow(picture(mode)).save(buffer, exif=exif.tobytes())
        files[name] = buffer.getvalue()
    return files


def jxl_files(exif: Image.Exif) -> dict[str, bytes]:
    """A bare code stream, and one in a container with EXIF."""
    import pillow_jxl  # noqa: F401 - registers itself

    return {
        "jxl": saved(picture("RGB"), "JXL", effort=1),
        "jxl_container": saved(picture("RGBA"), "JXL", use_container=True, exif=exif.tobytes(), effort=1),
    }


def mutate(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """One damaged copy: one to four of the usual accidents, and some malice."""
    broken = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        if not broken:
            break
        place = _place(len(broken), random)
        length = int(random.integers(1, 64))
        kind = int(random.integers(0, 8))
        if kind == 0:
            broken[place] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            broken[place : place + length] = random.bytes(length)
        elif kind == 2:
            del broken[place:]
        elif kind == 3:
            del broken[place : place + length]
        elif kind == 4:
            broken[place:place] = broken[place : place + length] * int(random.integers(1, 5))
        elif kind == 5:
            extreme = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]
            value = extreme[int(random.integers(0, len(extreme)))]
            order = "<" if random.integers(0, 2) else ">"
            broken[place : place + 4] = struct.pack(order + "I", value)
        elif kind == 6:
            start = int(random.integers(0, max(1, len(other))))
            broken[place : place + length] = other[start : start + length]
        else:
            broken[place : place + length] = bytes(length)
    return bytes(broken)


def _place(length: int, random: np.random.Generator) -> int:
    """A position in the file; half of them in its first 256 bytes, where the structure stands."""
    end = min(length, 256) if random.integers(0, 2) else length
    return int(random.integers(0, end))


def repaired_png(data: bytes) -> bytes:
    """The same PNG with right checksums again, so that damage gets past them."""
    pieces, position = [data[:8]], 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if end > len(data):
            break
        body = data[position + 4 : end - 4]
        pieces += [data[position : position + 4], body, struct.pack(">I", zlib.crc32(body))]
        position = end
    return b"".join(pieces) + data[position:]


def mutations(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files in turn over the seeds, each with its name."""
    files = seed_files()
    names = sorted(files)
    for number in range(count):
        random = np.random.default_rng((seed, number))
        name = names[number % len(names)]
        other = files[names[int(random.integers(0, len(names)))]]
        broken = mutate(files[name], other, random)
        if "png" in name and random.integers(0, 2):
            broken = repaired_png(broken)
        yield f"{name}#{number}", broken


def run(count: int, seed: int = 0) -> tuple[Counter[str], float]:
    """Decode every mutation; raises AssertionError for a wrong answer. Counts, and the longest time in s."""
    outcomes: Counter[str] = Counter()
    longest = 0.0
    for name, broken in mutations(count, seed):
        start = time.perf_counter()
        try:
            decoded = decode(broken, name=name)
            outcomes["noted" if decoded.notes else "decoded"] += 1
        except ImageError as error:
            outcomes["refused"] += 1
            if not (error.reason.isprintable() and error.remedy):
                raise AssertionError(f"{name}: an error without words: {error!r}") from error
        except BaseException as error:
            raise AssertionError(f"{name}: {error!r}") from error
        seconds = time.perf_counter() - start
        assert seconds <= MOST_SECONDS, f"{name}: took {seconds:.2f} s"
        longest = max(longest, seconds)
    return outcomes, longest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        outcomes, longest = run(options.mutations, options.seed)
    total = sum(outcomes.values())
    print(
        f"{total:,} damaged files: {dict(outcomes)}; longest {longest * 1000:.0f} ms; {len(leaked)} warnings"
    )
    for warning in leaked[:5]:
        print(f"  leaked: {warning.message}")
    return 1 if leaked else 0


if __name__ == "__main__":
    sys.exit(main())
