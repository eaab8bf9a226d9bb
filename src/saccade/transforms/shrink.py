"""The working copy of a training image: decoded pixels made no larger than training needs."""

from __future__ import annotations

from torch import Tensor

from saccade.preprocess import Preprocess
from saccade.transforms.resize import resized

# Random crops enlarge what they cut out; a copy this much larger than evaluation's keeps them sharp.
DETAIL = 1.25


def shrink(image: Tensor, preprocess: Preprocess) -> Tensor:
    """uint8 (3, H, W), never enlarged: evaluation's resized image times DETAIL, aspect kept."""
    height, width = image.shape[-2:]
    if preprocess.resize == "pad":
        factor = DETAIL * preprocess.size / max(height, width)
    else:
        factor = DETAIL * preprocess.resize_pixels / min(height, width)
    if factor >= 1:
        return image
    return resized(image, max(1, round(factor * height)), max(1, round(factor * width)))
