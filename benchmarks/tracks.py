"""A set whose images come in hidden series: each photo becomes a track of frames, as a camera sees a sign.

    python benchmarks/tracks.py FLOWERS12 --out tracks [--frames 20] [--train 7] [--validation 3] [--seed 0]

Parts are divided by photo (folders train/ and val/), and nothing in the data says which frames belong
together but their names, TRACK_FRAME.jpg. Within a track the camera comes nearer: it shows less of the
photo, in more pixels, and moves, turns, blurs and changes its exposure a little from frame to frame.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

FRAMES, TRAIN_PHOTOS, VALIDATION_PHOTOS = 20, 7, 3
FAR_SIDE, NEAR_SIDE = 60, 160  # pixels
FAR_SHARE, NEAR_SHARE = 0.85, 0.45  # of the photo's side that a frame shows
TURN = 8.0  # degrees
BLUR = 2.0  # percent of the side
WIND, CALMING = 0.04, 0.8  # share of the side; of the wind that is left a frame later
NOISE = 8.0  # of 255
QUALITY = 85


def walk(rng: np.random.Generator, frames: int, step: float, bound: float) -> NDArray[np.float64]:
    """A random walk (frames,) from a random start, reflected at +-`bound`."""
    places = rng.uniform(-bound, bound) + np.cumsum(rng.normal(0, step, frames))
    return np.asarray(np.abs((places + bound) % (4 * bound) - 2 * bound) - bound)


def track(photo: Image.Image, rng: np.random.Generator, frames: int = FRAMES) -> Iterator[Image.Image]:
    """The frames of one photo, far to near."""
    bound = np.cos(np.deg2rad(TURN)) + np.sin(np.deg2rad(TURN))  # of a turned window
    across, down, turn = walk(rng, frames, 0.3, 1), walk(rng, frames, 0.3, 1), walk(rng, frames, 4, TURN)
    light, warmth = walk(rng, frames, 0.25, 0.8), walk(rng, frames, 0.05, 0.2)
    blur, wind = np.abs(walk(rng, frames, 0.5, BLUR)), rng.normal(0, WIND, (2, 3, 3))
    for number, near in enumerate(np.linspace(0, 1, frames)):
        shown = min(photo.size) * (FAR_SHARE + (NEAR_SHARE - FAR_SHARE) * near)
        slack = (min(photo.size) - shown * bound) / 2
        centre = np.array(photo.size) / 2 + slack * np.array([across[number], down[number]])
        size = round(FAR_SIDE + (NEAR_SIDE - FAR_SIDE) * near)
        wind = CALMING * wind + np.sqrt(1 - CALMING**2) * rng.normal(0, WIND, wind.shape)
        seen = _seen(np.asarray(photo, np.float64), centre, shown, turn[number], size, wind)
        soft = gaussian_filter(seen, (blur[number] * size / 100, blur[number] * size / 100, 0))
        yield _exposed(soft, light[number], warmth[number], rng)


def _seen(
    photo: NDArray[np.float64],
    centre: NDArray[np.float64],
    shown: float,
    turn: float,
    size: int,
    wind: NDArray[np.float64],
) -> NDArray[np.float64]:
    """A window of `shown` pixels around `centre`, turned by degrees, moved by the wind (2, 3, 3)."""
    moved = zoom(wind, (1, size / 3, size / 3), order=2)[:, :size, :size]
    down, across = (np.mgrid[0:size, 0:size] + 0.5) / size - 0.5 + moved
    angle = np.deg2rad(turn)
    x = centre[0] + shown * (across * np.cos(angle) - down * np.sin(angle))
    y = centre[1] + shown * (across * np.sin(angle) + down * np.cos(angle))
    channels = [
        map_coordinates(channel, (y, x), order=1, mode="reflect") for channel in photo.transpose(2, 0, 1)
    ]
    return np.stack(channels, axis=2)


def _exposed(seen: NDArray[np.float64], light: float, warmth: float, rng: np.random.Generator) -> Image.Image:
    """Under other light: a gamma of 2 to the power of `light`, red against blue, and noise of the sensor."""
    pixels = (seen.clip(0, 255) / 255) ** (2.0**light) * 255
    pixels *= np.array([1 + warmth, 1, 1 - warmth])
    pixels += rng.normal(0, NOISE, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_tracks(
    photos: dict[str, list[Path]], out: Path, *, train: int, validation: int, frames: int, seed: int
) -> None:
    """Folders train/CLASS and val/CLASS of frames; photos by class name, drawn without repetition."""
    number = 0
    for label, paths in sorted(photos.items()):
        order = np.random.default_rng([seed, number]).permutation(len(paths))[: train + validation]
        for place, index in enumerate(order):
            folder = out / ("train" if place < train else "val") / label
            folder.mkdir(parents=True, exist_ok=True)
            with Image.open(paths[index]) as opened:
                photo = opened.convert("RGB")
            for frame, image in enumerate(track(photo, np.random.default_rng([seed, number]), frames)):
                image.save(folder / f"{number:05d}_{frame:05d}.jpg", quality=QUALITY)
            number += 1


def photos_of(root: Path) -> dict[str, list[Path]]:
    """Files by class of a folder of classes, or of its train/ folder."""
    folder = root / "train" if (root / "train").is_dir() else root
    return {inner.name: sorted(inner.iterdir()) for inner in sorted(folder.iterdir()) if inner.is_dir()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--train", type=int, default=TRAIN_PHOTOS, help="photos of a class")
    parser.add_argument("--validation", type=int, default=VALIDATION_PHOTOS, help="photos of a class")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_tracks(
        photos_of(given.photos),
        given.out,
        train=given.train,
        validation=given.validation,
        frames=given.frames,
        seed=given.seed,
    )
    for part in ("train", "val"):
        print(f"{part}: {sum(1 for _ in (given.out / part).rglob('*.jpg')):,} frames")


if __name__ == "__main__":
    main()
