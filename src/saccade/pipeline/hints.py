"""What to say about a better way than the one that was asked for."""

from __future__ import annotations

from saccade.config import ModelConfig, Recipe
from saccade.records import Dataset

SMALL_SIDE_PIXELS = 64  # of the median image: what `fast_cnn` is for


def small_images_hint(dataset: Dataset, recipe: Recipe) -> str:
    """What to say where small images are about to be enlarged for the default pretrained backbone, or ""."""
    model = recipe.model
    if not model.pretrained or model.weights or model.backbone != ModelConfig().backbone:
        return ""
    sides = sorted(min(record.width, record.height) for record in dataset.used("train"))
    if not sides or sides[len(sides) // 2] > SMALL_SIDE_PIXELS:
        return ""
    return (
        f"the images are small ({sides[len(sides) // 2]} pixels): --backbone fast_cnn learns such images "
        "from scratch in minutes"
    )
