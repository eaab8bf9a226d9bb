"""The quick uint8 resize of training images, the working copy, and the order of colours in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as nn
from torchvision.transforms.v2 import InterpolationMode, functional

from saccade.preprocess import Interpolation, Preprocess

# Random crops enlarge what they cut out; a copy this much larger than evaluation's keeps them sharp.
DETAIL = 1.25


def resized(image: Tensor, height: int, width: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """uint8 (C, H, W), antialiased; channels that lie side by side in memory do so afterwards.

    float32 stays float32, uint16 is resized in it.
    """
    if image.shape[-2:] == (height, width):
        return image
    if image.dtype == torch.uint16:
        return in_float(lambda values: resized(values, height, width, interpolation), image)
    if interpolation == "bilinear" and width > 1:
        # what torchvision comes to, without the long way there
        return nn.interpolate(batch_of_one(image), (height, width), mode="bilinear", antialias=True)[0]
    mode = InterpolationMode(interpolation)
    small: Tensor = functional.resize(image, [height, width], interpolation=mode, antialias=True)
    return small


def in_float(change: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """`change` of uint16 pixels, for which torch has few functions, by way of float32."""
    changed = change(image.to(torch.float32))
    return changed.round_().clamp_(0, 65535).to(torch.uint16)


def batch_of_one(image: Tensor) -> Tensor:
    """(1, 3, H, W) in the same memory. Of `image[None]` torch does not see that colours lie side by side, and
    takes twice as long to resize it."""
    length = max(side * stride for side, stride in zip(image.shape, image.stride(), strict=True))
    return image.as_strided((1, *image.shape), (length, *image.stride()))


def side_by_side(image: Tensor) -> Tensor:
    """(C, H, W) as contiguous (H, W, C): the same memory where it lies so already."""
    if image.stride(0) == 1:
        return image.permute(1, 2, 0).contiguous()
    return torch.stack(image.unbind(0), -1)  # of planes a quarter of the time


def shrink(image: Tensor, preprocess: Preprocess) -> Tensor:
    """The working copy of a training image, no larger than training needs: uint8 (3, H, W), never enlarged.

    It is evaluation's resized image times DETAIL, aspect kept.
    """
    height, width = image.shape[-2:]
    if preprocess.resize == "pad":
        factor = DETAIL * preprocess.size / max(height, width)
    else:
        factor = DETAIL * preprocess.resize_pixels / min(height, width)
    if factor >= 1:
        return image
    return resized(image, max(1, round(factor * height)), max(1, round(factor * width)))
