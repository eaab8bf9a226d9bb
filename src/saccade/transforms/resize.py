"""The quick uint8 resize of training images, and the order of their colours in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as nn
from torchvision.transforms.v2 import InterpolationMode, functional

from saccade.preprocess import Interpolation


def resized(image: Tensor, height: int, width: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """uint8 (3, H, W), antialiased; colours that lie side by side in memory do so afterwards."""
    if image.shape[-2:] == (height, width):
        return image
    if interpolation == "bilinear" and width > 1:
        # what torchvision comes to, without the long way there
        return nn.interpolate(batch_of_one(image), (height, width), mode="bilinear", antialias=True)[0]
    mode = InterpolationMode(interpolation)
    small: Tensor = functional.resize(image, [height, width], interpolation=mode, antialias=True)
    return small


def batch_of_one(image: Tensor) -> Tensor:
    """(1, 3, H, W) in the same memory. Of `image[None]` torch does not see that colours lie side by side, and
    takes twice as long to resize it."""
    length = max(side * stride for side, stride in zip(image.shape, image.stride(), strict=True))
    return image.as_strided((1, *image.shape), (length, *image.stride()))


def side_by_side(image: Tensor) -> Tensor:
    """uint8 (3, H, W) as contiguous (H, W, 3): the same memory where it lies so already."""
    if image.stride(0) == 1:
        return image.permute(1, 2, 0).contiguous()
    return torch.stack(image.unbind(0), -1)  # of planes a quarter of the time
