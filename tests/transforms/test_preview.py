from __future__ import annotations

import io

import numpy as np
from PIL import Image

from saccade.preprocess import Preprocess
from saccade.recipe import AugmentConfig
from saccade.records import ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.transforms import Augmentation
from saccade.transforms.apply import denormalise, to_input
from saccade.transforms.preview import CAPTION_PIXELS, GAP_PIXELS, preview

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


def test_the_other_columns_are_training_draws(make_photos):
    sheet = drawn(make_photos, "strong")
    tiles = [tile(sheet, 0, column).tobytes() for column in range(4)]
    assert len(set(tiles)) == 4
    calm = drawn(make_photos, "none")
    assert len({tile(calm, 0, column).tobytes() for column in range(1, 4)}) == 1
