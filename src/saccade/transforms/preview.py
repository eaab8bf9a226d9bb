"""A picture of what the model will see: a row an image, first as evaluated, then as training may draw it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from saccade.images.decoder import Limits, read_pixels
from saccade.preprocess import Preprocess
from saccade.records import ImageRecord, Storage
from saccade.transforms.apply import channels_first, normalise, pictures, to_input
from saccade.transforms.augment import augment
from saccade.transforms.mix import mix, soft_targets
from saccade.transforms.strengths import Augmentation

GAP_PIXELS = 4
CAPTION_PIXELS = 16


def preview(
    storage: Storage,
    records: Sequence[ImageRecord],
    augmentation: Augmentation,
    preprocess: Preprocess,
    *,
    draws: int = 6,
    seed: int = 0,
    limits: Limits | None = None,
) -> bytes:
    """A PNG: a row an image; first column as evaluated, then `draws` epochs of training, mixing included."""
    pixels = [read_pixels(storage, record, limits or Limits()) for record in records]
    evaluated = torch.stack([to_input(image, preprocess) for image in pixels])
    columns = [evaluated]
    for epoch in range(draws):
        columns.append(_training_column(pixels, augmentation, preprocess, seed=seed, epoch=epoch))
    tiles = [pictures(column, preprocess) for column in columns]
    return _grid(tiles, ["as evaluated", *(f"training {number + 1}" for number in range(draws))])


def _training_column(
    pixels: Sequence[NDArray[np.uint8]],
    augmentation: Augmentation,
    preprocess: Preprocess,
    *,
    seed: int,
    epoch: int,
) -> Tensor:
    drawn = [
        augment(
            channels_first(image),
            augmentation,
            seed=seed,
            epoch=epoch,
            index=index,
            preprocess=preprocess,
        )
        for index, image in enumerate(pixels)
    ]
    images = normalise(torch.stack(drawn), preprocess)
    targets = soft_targets(torch.arange(len(drawn)), len(drawn))
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return mix(
        images,
        targets,
        mix_up_alpha=augmentation.mix_up,
        cut_mix_alpha=augmentation.cut_mix,
        switch=augmentation.mix_switch,
        generator=generator,
    )[0]


def _grid(columns: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> bytes:
    rows, size = columns[0].shape[:2]
    step = size + GAP_PIXELS
    sheet = Image.new(
        "RGB", (step * len(columns) + GAP_PIXELS, step * rows + GAP_PIXELS + CAPTION_PIXELS), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for column, (tiles, caption) in enumerate(zip(columns, captions, strict=True)):
        left = GAP_PIXELS + column * step
        pen.text((left, 3), caption, fill="black")
        for row, tile in enumerate(tiles):
            sheet.paste(Image.fromarray(tile), (left, CAPTION_PIXELS + GAP_PIXELS + row * step))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
