"""`fast_cnn`: a small network that learns images of 64 pixels and less in a few passes over them.

After Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU": a first layer that whitens patches and
never learns, three blocks of two convolutions that begin as identities, and norms that learn no scale.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from saccade.errors import ModelError

PATCH = 2  # pixels a side
WIDTH = 64
WIDER = 4  # blocks 2 and 3 have so many times the channels of block 1
POOLINGS = 3
SMALLEST_SIDE = 2**POOLINGS + PATCH - 1
FEATURE_SCALE = 1 / 9
NORM_MEMORY = 0.6  # share of the running statistics that a step keeps
WHITENING_EPSILON = 5e-4


def fast_cnn(
    classes: int,
    *,
    weights: str = "",
    image_size: int = 32,
    head: str = "linear",
    width: int = WIDTH,
    channels: int = 3,
) -> nn.Module:
    """Whitening 2x2, then blocks of `width`, 4 `width` and 4 `width` channels.

    Input (B, channels, image_size, image_size), output logits (B, classes); the side must be 9 pixels or
    more.
    1,971,362 parameters at width 64 and 10 classes.
    `head` changes nothing here: either head replaces the last layer. `whiten` of the first layer must be
    called on training images once; until then it passes patches on as they are.
    """
    if weights:
        raise ModelError(
            f"fast_cnn has no pretrained weights, got --weights {weights}",
            hint="leave --weights out",
        )
    if image_size < SMALLEST_SIDE:
        raise ModelError(
            f"fast_cnn needs images of at least {SMALLEST_SIDE} pixels, got {image_size}",
            hint="choose a larger --image-size",
        )
    if type(width) is not int or not 4 <= width <= 1024:
        raise ModelError(
            f"width of fast_cnn must be a whole number from 4 to 1024, got {width!r}",
            hint="change --model.options width=N",
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["whitening"] = whitening = Whitening(channels)
    layers["whitening_gelu"] = nn.GELU()
    incoming = len(whitening.weight)
    for number, outgoing in enumerate((width, WIDER * width, WIDER * width), start=1):
        layers[f"block{number}"] = _block(incoming, outgoing)
        incoming = outgoing
    layers["top"] = LargestScaled(FEATURE_SCALE)
    layers["classifier"] = nn.Linear(incoming, classes)
    return nn.Sequential(layers)


class Whitening(nn.Module):
    """(B, C, S, S) -> (B, 8 C, S - 1, S - 1): each 2x2 patch along its principal directions, to variance 1.

    The filters are a buffer, so nothing trains them and every checkpoint and bundle holds them; the bias
    learns.
    """

    weight: Tensor

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.register_buffer("weight", _both_signs(torch.eye(channels * PATCH**2)))
        self.bias = nn.Parameter(torch.zeros(len(self.weight)))  # of every direction, once with each sign

    def forward(self, images: Tensor) -> Tensor:
        mixed: Tensor = nn.functional.conv2d(images, self.weight, self.bias)
        return mixed

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Take the filters from normalised training images (n, C, S, S); same images, same filters."""
        self.weight.copy_(_both_signs(whitening_directions(images)))


def whitening_directions(images: Tensor, *, epsilon: float = WHITENING_EPSILON) -> Tensor:
    """(4 C, 4 C) rows that turn 2x2 patches of `images` into uncorrelated values of about variance 1.

    Each row's sign is that of its largest entry. `epsilon` keeps directions without variance (gray images
    have eight) from growing without bound.
    """
    patches = nn.functional.unfold(images.to(torch.float64), PATCH).transpose(1, 2).flatten(0, 1)
    variances, directions = torch.linalg.eigh(torch.cov(patches.T, correction=0))
    rows = directions.T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    scale = (variances.flip(0).clamp(min=0) + epsilon).rsqrt()
    white: Tensor = (rows * largest.sign() * scale[:, None]).to(torch.float32)
    return white


def _both_signs(directions: Tensor) -> Tensor:
    filters = directions.reshape(len(directions), -1, PATCH, PATCH)
    return torch.cat([filters, -filters])


class ShiftNorm(nn.BatchNorm2d):
    """BatchNorm whose scale stays 1; only the shift learns."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=1 - NORM_MEMORY)
        del self.weight
        self.register_buffer("weight", torch.ones(channels), persistent=False)


class LargestScaled(nn.Module):
    """(B, C, H, W) -> (B, C): the largest value of each channel, times `scale`."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, maps: Tensor) -> Tensor:
        return maps.amax(dim=(2, 3)) * self.scale


def _block(incoming: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=_identity_convolution(incoming, channels),
            pool=nn.MaxPool2d(2),
            norm1=ShiftNorm(channels),
            gelu1=nn.GELU(),
            conv2=_identity_convolution(channels, channels),
            norm2=ShiftNorm(channels),
            gelu2=nn.GELU(),
        )
    )


def _identity_convolution(incoming: int, outgoing: int) -> nn.Conv2d:
    """3x3 without bias; the first filters, one an input, begin by passing it on, the others at random."""
    convolution = nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=math.sqrt(5))
    nn.init.dirac_(convolution.weight.data[: min(incoming, outgoing)])
    return convolution
