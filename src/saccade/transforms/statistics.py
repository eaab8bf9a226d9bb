"""Channel means and standard deviations of the training images, for networks trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from saccade.config import Triple
from saccade.data.images import Limits
from saccade.preprocess import Preprocess
from saccade.records import ImageRecord, Storage
from saccade.transforms.apply import channels_first
from saccade.transforms.augment import as_evaluated
from saccade.transforms.batches import read_pixels

MOST_IMAGES = 1000
SMALLEST_STD = 1 / 255


def channel_statistics_of(
    storage: Storage,
    records: Sequence[ImageRecord],
    preprocess: Preprocess,
    *,
    limits: Limits | None = None,
    most: int = MOST_IMAGES,
) -> tuple[Triple, Triple]:
    """(mean, std) per channel, 0 to 1, over at most `most` images spread evenly over `records`, as evaluated.

    A channel without variation gets a std of one grey level, since nothing can be divided by 0.
    """
    chosen = [
        records[number * len(records) // min(most, len(records))] for number in range(min(most, len(records)))
    ]
    total, squares, count = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0
    for record in chosen:
        image = channels_first(read_pixels(storage, record, limits or Limits()))
        values = as_evaluated(image, preprocess).reshape(3, -1).to(torch.float64) / 255
        total += values.sum(1)
        squares += values.square().sum(1)
        count += values.shape[1]
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(SMALLEST_STD)
    return _triple(mean), _triple(std)


def _triple(values: torch.Tensor) -> Triple:
    red, green, blue = (round(value, 4) for value in values.tolist())
    return red, green, blue
