"""About 300 photos of the kinds that decoders read differently, made from ordinary ones.

    python -m benchmarks.odd_photos FOLDER

EXIF orientations, CMYK, palettes, alpha, 16 bits, colour profiles, gamma, odd sizes, 1xN, animations, and the
formats that not everybody reads. With SACCADE_DATA also real files of Pillow's own tests (data/dirty). A file
is named KIND--NAME. The same files each time.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.pictures import insect
from numpy.typing import NDArray
from PIL import Image

from saccade.export.probes import swapped_profile

Pixels = NDArray[Any]
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def main() -> None:
    files = write_odd_photos(Path(sys.argv[1]))
    print(f"{len(files)} photos in {sys.argv[1]}")


def write_odd_photos(folder: Path, *, photos: int = 4, found: bool = True) -> list[Path]:
    """Write them, of so many ordinary photos, and those `found` elsewhere; in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, photo in enumerate(islice(ordinary_photos(), photos)):
        for maker in (
            _turned,
            _jpegs,
            _palettes,
            _transparent,
            _sixteen_bits,
            _profiled,
            _sized,
            _moving,
            _rare,
        ):
            maker(photo, folder, number)
    _narrow(folder)
    if found:
        _of_pillow(folder)
    return sorted(folder.iterdir())


def kind_of(path: Path) -> str:
    """The kind that stands in the name of an odd photo."""
    return path.name.partition("--")[0]


def ordinary_photos() -> Iterator[Image.Image]:
    """Four small photos: of flowers5 where it lies at hand, else drawn."""
    source = Path(os.environ.get("SACCADE_DATA", "")) / "data" / "flowers5" / "val"
    paths = sorted(source.rglob("*.jpg"))[::70][:4] if source.is_dir() else []
    if not paths:
        yield from (insect(kind % 3, np.random.default_rng(kind), side=150) for kind in range(4))
    for path in paths:
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        photo.thumbnail((201, 173))
        yield photo


def _turned(photo: Image.Image, folder: Path, number: int) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        kind = "webp" if number == 3 else "jpg"
        options = {"lossless": True} if kind == "webp" else {"quality": 90}
        photo.save(folder / f"exif--{number}-{orientation}.{kind}", exif=exif, **options)
        if number == 0:
            photo.save(folder / f"exif-png--{orientation}.png", exif=exif)


def _jpegs(photo: Image.Image, folder: Path, number: int) -> None:
    for mode in ("CMYK", "L"):
        photo.convert(mode).save(folder / f"{mode.lower()}--{number}.jpg", quality=92)
    stretched = np.array(photo.convert("CMYK"))
    stretched[..., 3] = np.random.default_rng(number).integers(0, 200, stretched.shape[:2]) // 20 * 20
    Image.fromarray(stretched, "CMYK").save(folder / f"cmyk--black-{number}.jpg", quality=95)
    for sampling in range(3):
        for progressive in (False, True):
            name = f"jpeg--{number}-{sampling}{'-progressive' if progressive else ''}.jpg"
            photo.save(folder / name, quality=85, subsampling=sampling, progressive=progressive)
    photo.save(folder / f"jpeg--{number}-poor.jpg", quality=4)
    photo.save(folder / f"jpeg--{number}-best.jpg", quality=100, subsampling=0)
    photo.save(folder / f"jpeg--{number}-restarts.jpg", quality=80, restart_marker_rows=1)


def _palettes(photo: Image.Image, folder: Path, number: int) -> None:
    for colours in (2, 4, 16, 200):
        flat = photo.quantize(colours)
        flat.save(folder / f"palette--{number}-{colours}.png")
        if colours in (16, 200):
            flat.save(folder / f"palette--{number}-{colours}.gif")
            flat.save(folder / f"palette-transparent--{number}-{colours}.png", transparency=3)
            flat.save(folder / f"palette-transparent--{number}-{colours}.gif", transparency=3)
            steps = bytes(int(255 * place / colours) for place in range(colours))
            flat.save(folder / f"palette-alpha--{number}-{colours}.png", transparency=steps)
    photo.convert("1").save(folder / f"palette--{number}-bits.png")
    photo.convert("L").save(folder / f"palette-transparent--{number}-gray.png", transparency=90)


def _transparent(photo: Image.Image, folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    noise = Image.fromarray(rng.integers(0, 256, (photo.height, photo.width), dtype=np.uint8))
    slope = Image.linear_gradient("L").resize(photo.size)
    for name, alpha in (("noise", noise), ("slope", slope), ("full", noise.point(lambda _: 255))):
        image = photo.copy()
        image.putalpha(alpha)
        image.save(folder / f"alpha--{number}-{name}.png")
        image.convert("LA").save(folder / f"alpha--{number}-{name}-gray.png")
        image.save(folder / f"alpha-webp--{number}-{name}.webp", lossless=True, exact=True)
        if number == 0:
            image.save(folder / f"alpha-webp--{number}-{name}-lossy.webp", quality=80)


def _sixteen_bits(photo: Image.Image, folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    colour = np.asarray(photo).astype(np.uint16) * 257
    colour = (colour.astype(int) + rng.integers(-128, 129, colour.shape)).clip(0, 65535).astype(np.uint16)
    gray = colour.mean(axis=2).astype(np.uint16)
    alpha = rng.integers(0, 65536, gray.shape).astype(np.uint16)
    _write_png(folder / f"16-bit-gray--{number}.png", gray[..., None], 0)
    _write_png(folder / f"16-bit-gray--{number}-low.png", (gray // 40)[..., None], 0)
    _write_png(folder / f"16-bit-gray--{number}-interlaced.png", gray[..., None], 0, interlaced=True)
    _write_png(folder / f"16-bit--{number}.png", colour, 2)
    _write_png(folder / f"16-bit-alpha--{number}.png", np.dstack([colour, alpha]), 6)
    _write_png(folder / f"16-bit-alpha--{number}-gray.png", np.dstack([gray, alpha]), 4)
    _write_png(folder / f"interlaced--{number}.png", np.asarray(photo), 2, interlaced=True)


def _profiled(photo: Image.Image, folder: Path, number: int) -> None:
    profile = swapped_profile()
    photo.save(folder / f"profile--{number}.jpg", icc_profile=profile, quality=90)
    photo.save(folder / f"profile--{number}.png", icc_profile=profile)
    photo.save(folder / f"profile--{number}.webp", icc_profile=profile, lossless=True)
    photo.convert("L").save(folder / f"profile-gray--{number}.jpg", icc_profile=profile)
    gamma = (b"gAMA", struct.pack(">I", 100000))
    _write_png(folder / f"gamma--{number}.png", np.asarray(photo), 2, chunks=[gamma])
    _write_png(
        folder / f"gamma--{number}-gray.png", np.asarray(photo.convert("L"))[..., None], 0, chunks=[gamma]
    )


def _sized(photo: Image.Image, folder: Path, number: int) -> None:
    for width, height in ((17, 23), (8, 8), (33, 64)):
        small = photo.resize((width + number, height))
        small.save(folder / f"odd-size--{number}-{width}.jpg", quality=90)
        small.save(folder / f"odd-size--{number}-{width}.webp", quality=80)


def _moving(photo: Image.Image, folder: Path, number: int) -> None:
    frames = [photo.rotate(90 * turn) for turn in range(3)]
    for kind in ("gif", "webp", "png"):
        path = folder / f"animated-{kind}--{number}.{kind}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def _rare(photo: Image.Image, folder: Path, number: int) -> None:
    import pillow_heif

    photo.save(folder / f"bmp--{number}.bmp")
    photo.quantize(64).save(folder / f"bmp--{number}-palette.bmp")
    photo.save(folder / f"webp--{number}.webp", quality=80)
    photo.save(folder / f"webp--{number}-lossless.webp", lossless=True)
    photo.save(folder / f"avif--{number}.avif", quality=85)
    photo.save(folder / f"tiff--{number}.tif")
    photo.save(folder / f"ppm--{number}.ppm")
    pillow_heif.from_pillow(photo).save(folder / f"heic--{number}.heic", quality=85)


def _narrow(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for width, height in (
        (1, 1),
        (1, 2),
        (1, 7),
        (1, 20),
        (20, 1),
        (7, 1),
        (2, 3),
        (3, 50),
        (1, 21),
        (300, 4),
    ):
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for kind in ("png", "jpg", "gif", "bmp"):
            image.save(folder / f"narrow--{width}x{height}.{kind}")


def _of_pillow(folder: Path) -> None:
    """Pillow's own test files of the formats that browsers know, turned photos, and near-duplicates."""
    root = Path(os.environ.get("SACCADE_DATA", "")) / "data" / "dirty"
    found = [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix in (".jpg", ".png", ".gif", ".webp", ".bmp", ".avif")
    ]
    for path in found:
        shutil.copyfile(path, folder / f"found-{path.suffix[1:]}--{path.parent.name}-{path.name}")


# -- PNG, as Pillow does not write it ----------------------------------------------------------------------


def _write_png(
    path: Path,
    pixels: Pixels,
    colour_type: int,
    *,
    chunks: Sequence[tuple[bytes, bytes]] = (),
    interlaced: bool = False,
) -> None:
    """(height, width, channels) of 8 or 16 bits, each row with another filter (PNG 1.2, chapters 6 and 8)."""
    height, width = pixels.shape[:2]
    depth = 8 * pixels.dtype.itemsize
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    steps = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    raw = b"".join(_filtered(pixels[top::down, left::right]) for left, top, right, down in steps)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, parts)))


def _chunk(part: tuple[bytes, bytes]) -> bytes:
    name, data = part
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _filtered(pixels: Pixels) -> bytes:
    if 0 in pixels.shape:
        return b""
    step = pixels.shape[2] * pixels.dtype.itemsize
    rows = np.frombuffer(pixels.astype(pixels.dtype.newbyteorder(">")).tobytes(), np.uint8)
    rows = rows.reshape(len(pixels), -1).astype(int)
    up = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    left, corner = (
        np.hstack([np.zeros((len(rows), step), int), part])[:, : rows.shape[1]] for part in (rows, up)
    )
    guess = left + up - corner
    near = np.stack([abs(guess - left), abs(guess - up), abs(guess - corner)]).argmin(axis=0)
    predicted = [np.zeros_like(rows), left, up, (left + up) // 2, np.choose(near, [left, up, corner])]
    return b"".join(
        bytes([number % 5])
        + ((rows[number] - predicted[number % 5][number]) % 256).astype(np.uint8).tobytes()
        for number in range(len(rows))
    )


if __name__ == "__main__":
    main()
