"""What to say about a better way than the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.recipe import ModelConfig, Recipe
from saccade.records import Dataset, ImageRecord

SMALL_SIDE_PIXELS = 64  # of the median image: what `fast_cnn` is for


def shorter_side(records: Sequence[ImageRecord]) -> int:
    """Pixels of the median image's shorter side; 0 where there is no image."""
    sides = sorted(min(record.width, record.height) for record in records)
    return sides[len(sides) // 2] if sides else 0


def small_images_hint(dataset: Dataset, recipe: Recipe) -> str:
    """What to say where small images are about to be enlarged for the default pretrained backbone, or ""."""
    model = recipe.model
    if not recipe.starts_pretrained or model.weights or model.backbone != ModelConfig().backbone:
        return ""
    side = shorter_side(dataset.used("train"))
    if not 0 < side <= SMALL_SIDE_PIXELS:
        return ""
    return (
        f"the images are small ({side} pixels): --backbone fast_cnn trains on such images "
        "from scratch in minutes"
    )
