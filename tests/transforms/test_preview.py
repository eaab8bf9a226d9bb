from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from saccade import extensions
from saccade.preprocess import Preprocess
from saccade.recipe import AugmentConfig
from saccade.records import ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.transforms import Augmentation
from saccade.transforms.apply import denormalise, to_input
from saccade.transforms.preview import (
    CAPTION_PIXELS,
    GAP_PIXELS,
    alone,
    preview,
    rows_alone,
    training_tiles,
)
from saccade.transforms.strengths import ListedStep

SIZE = 32
PREPROCESS = Preprocess(SIZE)


def photos(make_photos) -> tuple[FolderStorage, list[ImageRecord]]:
    root = make_photos(images=1, side=40)
    paths = sorted(root.rglob("*.png"))
    return FolderStorage(root), [ImageRecord(p.relative_to(root).as_posix(), p.parent.name) for p in paths]


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    step = SIZE + GAP_PIXELS
    top, left = CAPTION_PIXELS + GAP_PIXELS + row * step, GAP_PIXELS + column * step
    return sheet[top : top + SIZE, left : left + SIZE]


def drawn(make_photos, policy: str) -> np.ndarray:
    storage, records = photos(make_photos)
    augmentation = Augmentation.from_config(AugmentConfig(policy=policy))
    png = preview(storage, records, augmentation, PREPROCESS, draws=3)
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_first_column_is_what_evaluation_sees(make_photos):
    sheet = drawn(make_photos, "strong")
    storage, records = photos(make_photos)
    for row, record in enumerate(records):
        pixels = np.asarray(Image.open(storage.root / record.path))
        expected = denormalise(to_input(pixels, PREPROCESS), PREPROCESS).permute(1, 2, 0).numpy()
        assert np.array_equal(tile(sheet, row, 0), expected)


def parts(png: bytes, images: int) -> tuple[np.ndarray, int]:
    """The sheet, and how many rows of single steps stand below those of the images."""
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    above = CAPTION_PIXELS + GAP_PIXELS + images * (SIZE + GAP_PIXELS)
    rows, rest = divmod(len(sheet) - above, CAPTION_PIXELS + GAP_PIXELS + SIZE)
    assert rest == 0
    return sheet[above:], rows


def alone_tile(below: np.ndarray, row: int, column: int) -> np.ndarray:
    step = SIZE + GAP_PIXELS
    top, left = row * (step + CAPTION_PIXELS) + CAPTION_PIXELS, GAP_PIXELS + column * step
    return below[top : top + SIZE, left : left + SIZE]


@pytest.mark.parametrize(
    ("augmentation", "names"),
    [
        (Augmentation(), []),
        (Augmentation(rotation=30.0, fill_mode="wrap", grayscale=0.2), ["rotation 30.0", "grayscale 0.2"]),
        (Augmentation(horizontal_flip=0.5, alternate_flip=True), ["horizontal_flip 0.5"]),
        (Augmentation(automatic="aug_mix", cut_mix=1.0), ["automatic aug_mix", "cut_mix 1.0"]),
        (Augmentation(steps=(ListedStep("hue", 0.5, 0.1),)), ["hue 0.1, probability 0.5"]),
        (
            Augmentation(steps=(ListedStep("cutout", 0.5),), extra=("white",)),
            ["cutout, probability 0.5", "white"],
        ),
    ],
)
def test_each_step_that_is_on_has_a_row_of_its_own(make_photos, monkeypatch, augmentation, names):
    white = {"white": lambda image, rng: image.fill_(255)}
    monkeypatch.setitem(extensions._registered, "augmentations", white)
    storage, records = photos(make_photos)
    png = preview(storage, records, augmentation, PREPROCESS, draws=4)
    assert [caption for caption, _ in alone(augmentation)] == names
    below, rows = parts(png, len(records))
    assert rows == len(names)
    for row in range(rows):
        tiles = [alone_tile(below, row, column).astype(int) for column in range(5)]
        changed = [np.abs(tile - tiles[0]).mean() > 1 for tile in tiles[1:]]  # rounding differs by less
        assert sum(changed) >= 3  # as if its probability were 1


def test_a_row_is_what_that_step_alone_draws(make_photos):
    storage, records = photos(make_photos)
    pixels = np.asarray(Image.open(storage.root / records[0].path).convert("RGB"))
    strong = Augmentation.from_config(AugmentConfig(policy="document", fill_mode="reflect"))
    rows = dict(rows_alone([pixels], strong, PREPROCESS, draws=3, seed=5))
    assert len(rows) == 10
    for name in ("rotation", "jpeg_quality"):
        only = replace(Augmentation(fill_mode="reflect"), **{name: getattr(strong, name)})
        drawn = training_tiles([pixels], only, PREPROCESS, draws=3, seed=5)
        tiles = rows[f"{name} {getattr(strong, name)}"]
        assert all(np.array_equal(tile, column[0]) for tile, column in zip(tiles, drawn, strict=True))


def test_one_image_alone_shows_no_mixing(make_photos):
    storage, records = photos(make_photos)
    png = preview(storage, records[:1], Augmentation(mix_up=0.5, rotation=10.0), PREPROCESS, draws=2)
    assert parts(png, 1)[1] == 1


def test_the_other_columns_are_training_draws(make_photos):
    sheet = drawn(make_photos, "strong")
    tiles = [tile(sheet, 0, column).tobytes() for column in range(4)]
    assert len(set(tiles)) == 4
    calm = drawn(make_photos, "none")
    assert len({tile(calm, 0, column).tobytes() for column in range(1, 4)}) == 1
