"""A picture of what the model will see: a row an image, first as evaluated, then as training may draw it; and
below, a row for each step by itself."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from saccade.images.decoder import Limits, read_pixels
from saccade.preprocess import Preprocess
from saccade.recipe.augmentation import BY_CHANCE, STEP_STRENGTHS
from saccade.records import ImageRecord, Storage
from saccade.transforms.apply import channels_first, normalise, pictures, to_input
from saccade.transforms.augment import STEPS, augment
from saccade.transforms.mix import MIXINGS, mix, soft_targets
from saccade.transforms.strengths import Augmentation

GAP_PIXELS = 4
CAPTION_PIXELS = 16

Pixels = NDArray[np.uint8]


class Row(NamedTuple):
    """Tiles (side, side, 3) beside each other, and the line above them."""

    caption: str
    tiles: list[Pixels]


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
    """A PNG: a row an image; first column as evaluated, then `draws` epochs of training, mixing included.

    Below that a row for each step that is on, by itself and as if its probability were 1, of the first image.
    """
    pixels = [read_pixels(storage, record, limits or Limits()) for record in records]
    tiles = training_tiles(pixels, augmentation, preprocess, draws=draws, seed=seed)
    captions = ["as evaluated", *(f"training {number + 1}" for number in range(draws))]
    rows = rows_alone(pixels, augmentation, preprocess, draws=draws, seed=seed)
    return _as_png(_sheet(tiles, captions, rows))


def training_tiles(
    pixels: Sequence[Pixels], augmentation: Augmentation, preprocess: Preprocess, *, draws: int, seed: int
) -> list[Pixels]:
    """Tiles (n, side, side, 3) of images as evaluated, then of some epochs of training, mixing included."""
    columns = [torch.stack([to_input(image, preprocess) for image in pixels])]
    for epoch in range(draws):
        columns.append(_training_column(pixels, augmentation, preprocess, seed=seed, epoch=epoch))
    return [pictures(column, preprocess) for column in columns]


def rows_alone(
    pixels: Sequence[Pixels], augmentation: Augmentation, preprocess: Preprocess, *, draws: int, seed: int
) -> list[Row]:
    """A row for each step that is on: the first image as evaluated, then changed by that step alone.

    `pixels`: uint8 (height, width, 3) each; mixing takes the others too.
    """
    rows = []
    for caption, strength in alone(augmentation):
        given = pixels if strength.mixing.on else pixels[:1]
        columns = training_tiles(given, strength, preprocess, draws=draws, seed=seed)
        if len(given) > 1 or not strength.mixing.on:  # one image has nothing to be mixed with
            rows.append(Row(caption, [column[0] for column in columns]))
    return rows


def alone(augmentation: Augmentation) -> Iterator[tuple[str, Augmentation]]:
    """(name with strength, what does nothing else) of each step that is on; what may happen does."""
    nothing = replace(
        Augmentation(),
        crop_border=augmentation.crop_border,
        fill_mode=augmentation.fill_mode,
        fill_colour=augmentation.fill_colour,
    )
    for field in (field for step in STEPS.values() for field in step.fields if field != "extra"):
        value: Any = getattr(augmentation, field)
        if value != getattr(nothing, field):
            only: dict[str, Any] = {field: 1.0 if field in BY_CHANCE else value}
            yield f"{field} {value}", replace(nothing, **only)
    for listed in augmentation.steps:
        strength = f" {listed.strength:g}" if listed.name in STEP_STRENGTHS else ""
        often = "" if listed.probability == 1 else f", probability {listed.probability:g}"
        yield f"{listed.name}{strength}{often}", augmentation.alone(listed)
    for name in augmentation.extra:
        yield name, replace(nothing, extra=(name,))
    for field in MIXINGS:
        if value := getattr(augmentation, field):
            mixed: dict[str, Any] = {field: value}
            yield f"{field} {value}", replace(nothing, **mixed)


def _training_column(
    pixels: Sequence[Pixels],
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


def _sheet(columns: Sequence[Pixels], captions: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    count, size = columns[0].shape[:2]
    step = size + GAP_PIXELS
    begin = CAPTION_PIXELS + GAP_PIXELS + count * step  # of the rows with captions of their own
    height = begin + len(rows) * (step + CAPTION_PIXELS)
    sheet = Image.new("RGB", (step * len(columns) + GAP_PIXELS, height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, caption in enumerate(captions):
        pen.text((GAP_PIXELS + column * step, 3), caption, fill="black")
    for number in range(count):
        tiles = [column[number] for column in columns]
        _paste(sheet, tiles, CAPTION_PIXELS + GAP_PIXELS + number * step)
    for number, row in enumerate(rows):
        top = begin + number * (step + CAPTION_PIXELS)
        pen.text((GAP_PIXELS, top + 1), row.caption, fill="black")
        _paste(sheet, row.tiles, top + CAPTION_PIXELS)
    return sheet


def _paste(sheet: Image.Image, tiles: Sequence[Pixels], top: int) -> None:
    for column, tile in enumerate(tiles):
        sheet.paste(Image.fromarray(tile), (GAP_PIXELS + column * (len(tile) + GAP_PIXELS), top))


def _as_png(sheet: Image.Image) -> bytes:
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
