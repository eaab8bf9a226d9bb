"""Remake docs/pictures/augmentation/: a strip for each augmentation, on a scene that is drawn here.

python benchmarks/augmentation_pictures.py
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from saccade.preprocess import Preprocess
from saccade.recipe import POLICIES
from saccade.records import ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.transforms.preview import GAP_PIXELS, preview, rows_alone, training_tiles
from saccade.transforms.strengths import Augmentation

FOLDER = Path(__file__).parents[1] / "docs" / "pictures" / "augmentation"
SIDE, DRAWS = 88, 5
PREPROCESS = Preprocess(SIDE, crop_fraction=1.0)
FILLED = {"rotation": 40.0, "shift": 0.2}
MOST_BYTES = 400_000

# name of the picture -> what is on
ALONE: dict[str, dict[str, object]] = {
    "random_resized_crop": {"random_resized_crop": 0.3},
    "random_crop": {"random_crop": 0.15},
    "horizontal_flip": {"horizontal_flip": 0.5},
    "vertical_flip": {"vertical_flip": 0.5},
    "rotation": {"rotation": 30.0},
    "zoom": {"zoom": 0.3},
    "shift": {"shift": 0.2},
    "shear": {"shear": 20.0},
    "perspective": {"perspective": 0.5},
    "fill_mode_mean": {**FILLED, "fill_mode": "mean"},
    "fill_mode_constant": {**FILLED, "fill_mode": "constant"},
    "fill_mode_nearest": {**FILLED, "fill_mode": "nearest"},
    "fill_mode_reflect": {**FILLED, "fill_mode": "reflect"},
    "fill_mode_wrap": {**FILLED, "fill_mode": "wrap"},
    "brightness": {"brightness": 0.5},
    "contrast": {"contrast": 0.7},
    "saturation": {"saturation": 0.9},
    "hue": {"hue": 0.3},
    "grayscale": {"grayscale": 1.0},
    "sharpness": {"sharpness": 1.0},
    "blur": {"blur": 0.03},
    "jpeg_quality": {"jpeg_quality": 5},
    "cutout": {"cutout": 1.0},
    "mix_up": {"mix_up": 1.0},
    "cut_mix": {"cut_mix": 1.0},
    "auto_augment": {"automatic": "auto_augment"},
    "rand_augment": {"automatic": "rand_augment"},
    "trivial_augment": {"automatic": "trivial_augment"},
    "aug_mix": {"automatic": "aug_mix"},
}

Pixels = NDArray[np.uint8]


def scene(night: bool = False, side: int = 176) -> Pixels:
    """A house, a tree and a sun, with the sign "R": left, right, up and down can be told apart."""
    top, bottom = ((20, 24, 70), (90, 80, 140)) if night else ((80, 140, 220), (205, 225, 245))
    share = np.linspace(0, 1, side)[:, None, None]
    sky = np.array(top) * (1 - share) + np.array(bottom) * share
    rng = np.random.default_rng(1)
    ground = np.array((50, 70, 60) if night else (95, 150, 70)) + rng.normal(0, 12, (side, side, 3))
    pixels = np.where(
        np.arange(side)[:, None, None] < side * 0.72, np.broadcast_to(sky, ground.shape), ground
    )
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    unit = side / 100
    box = [value * unit for value in (14, 48, 56, 82)]
    pen.rectangle(box, fill=(150, 70, 60) if night else (215, 120, 90))
    pen.polygon([value * unit for value in (9, 50, 35, 26, 61, 50)], fill=(90, 45, 50))
    pen.rectangle([value * unit for value in (20, 60, 31, 82)], fill=(70, 50, 40))
    pen.rectangle([value * unit for value in (39, 57, 50, 68)], fill=(250, 220, 130))
    pen.rectangle([value * unit for value in (76, 58, 81, 84)], fill=(95, 70, 45))
    pen.ellipse([value * unit for value in (63, 32, 94, 64)], fill=(45, 90, 60) if night else (60, 140, 60))
    sun = (235, 235, 220) if night else (255, 225, 80)
    pen.ellipse([value * unit for value in (74, 7, 90, 23)], fill=sun)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)))


def batch() -> list[Pixels]:
    """The scene, and others for it to be mixed with."""
    night = scene(night=True)
    return [scene(), night, night[:, ::-1].copy(), night]


def strip(strengths: dict[str, object]) -> Image.Image:
    """The scene as evaluated, then as changed."""
    augmentation = Augmentation(**strengths)  # type: ignore[arg-type]
    rows = rows_alone(batch(), augmentation, PREPROCESS, draws=DRAWS, seed=2)
    if len(rows) == 1:
        return beside(rows[0].tiles)
    return policy_strip(augmentation)


def policy_strip(augmentation: Augmentation) -> Image.Image:
    """All of it together."""
    columns = training_tiles(batch(), augmentation, PREPROCESS, draws=DRAWS, seed=2)
    return beside([column[0] for column in columns])


def beside(tiles: list[Pixels]) -> Image.Image:
    step = SIDE + GAP_PIXELS
    picture = Image.new("RGB", (len(tiles) * step - GAP_PIXELS, SIDE), "white")
    for number, tile in enumerate(tiles):
        picture.paste(Image.fromarray(tile), (number * step, 0))
    return picture


def pictures() -> Iterator[tuple[str, Image.Image]]:
    for name, strengths in ALONE.items():
        yield name, strip(strengths)
    for name, strengths in POLICIES.items():
        if name != "none":
            yield f"policy_{name}", policy_strip(Augmentation(**strengths))
    yield "sheet", sheet()


def sheet() -> Image.Image:
    """What `saccade augment` writes, for policy document."""
    with tempfile.TemporaryDirectory() as folder:
        for number, pixels in enumerate(batch()[:2]):
            Image.fromarray(pixels).save(Path(folder) / f"{number}.png")
        records = [ImageRecord(f"{number}.png", "house") for number in range(2)]
        document = Augmentation(**POLICIES["document"])
        png = preview(FolderStorage(Path(folder)), records, document, PREPROCESS, draws=DRAWS)
    return Image.open(io.BytesIO(png))


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name, picture in pictures():
        picture.save(FOLDER / f"{name}.webp", quality=72, method=6)
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{len(list(FOLDER.iterdir()))} pictures, {size / 1000:.0f} kB")
    assert size < MOST_BYTES, size


if __name__ == "__main__":
    main()
