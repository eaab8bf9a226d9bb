"""What pixels look like: colours, sharpness, compression, and what is covered.

uint8 (C, S, S) both ways; 16 bits come as float32 from 0 to 65535, and stay so.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from saccade.preprocess import PixelFormat, Preprocess
from saccade.transforms.geometry import mean_colour_plane, random_box
from saccade.transforms.strengths import Augmentation

Generator = np.random.Generator

CUTOUT_AREA = (0.02, 1 / 3)  # Zhong et al. 2017, "Random erasing data augmentation"
CUTOUT_RATIO = (0.3, 1 / 0.3)
BLUR_REACH = 3  # standard deviations, beyond which a Gaussian is nothing

_LUMA = torch.tensor((0.299, 0.587, 0.114))  # ITU-R BT.601


def colour(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, in an order drawn for the image; rounded once."""
    draws = rng.uniform(-1, 1, len(_JITTERS))
    changed = image.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    pixels = preprocess.pixels
    for number in rng.permutation(len(_JITTERS)):
        name, change = _JITTERS[number]
        strongest = getattr(strength, name)
        if strongest and (pixels.is_colour or name not in OF_COLOURS):
            changed = change(changed, float(draws[number]) * strongest, pixels)
    return changed.round_().to(image.dtype)


# float32 (C, H, W) from 0 to the largest value, changed in place; the amount is 0 where nothing changes


def _brighten(image: Tensor, amount: float, pixels: PixelFormat) -> Tensor:
    return image.mul_(1 + amount).clamp_(0, pixels.largest)


def _contrast(image: Tensor, amount: float, pixels: PixelFormat) -> Tensor:
    means = image.mean((1, 2))
    mean_gray = float(torch.dot(_LUMA, means) if pixels.is_colour else means.mean())
    return image.mul_(1 + amount).sub_(amount * mean_gray).clamp_(0, pixels.largest)


def _saturate(image: Tensor, amount: float, pixels: PixelFormat) -> Tensor:
    gray = (_LUMA @ image.flatten(1)).view(image.shape[1:])
    return image.mul_(1 + amount).sub_(gray.mul_(amount)).clamp_(0, pixels.largest)


def _turn_hue(image: Tensor, amount: float, pixels: PixelFormat) -> Tensor:
    turned: Tensor = functional.adjust_hue(image.div_(255), amount)
    return turned.mul_(255).clamp_(0, 255)


OF_COLOURS = ("saturation", "hue", "grayscale")  # change nothing where pixels are not RGB
_JITTERS: tuple[tuple[str, Callable[[Tensor, float, PixelFormat], Tensor]], ...] = (
    ("brightness", _brighten),
    ("contrast", _contrast),
    ("saturation", _saturate),
    ("hue", _turn_hue),
)


def grayscale(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Gray by luma, with its probability."""
    if rng.random() >= strength.grayscale or not preprocess.pixels.is_colour:
        return image
    gray: Tensor = functional.rgb_to_grayscale(image, num_output_channels=3)
    return gray


def sharpness(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Sharper, or smoother by a 3 x 3 mean."""
    amount = rng.uniform(-strength.sharpness, strength.sharpness)
    changed: Tensor
    if preprocess.pixels.is_colour:
        changed = functional.adjust_sharpness(image, 1 + amount)
        return changed
    scale = preprocess.pixels.largest if image.is_floating_point() else 1  # of float32 it wants 0 to 1
    changed = functional.adjust_sharpness(image[:, None] / scale if scale > 1 else image[:, None], 1 + amount)
    return changed[:, 0] * scale


def blur(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Gaussian blur, its standard deviation up to a share of the side; mirrored at the edge."""
    side = image.shape[-1]
    deviation = rng.random() * strength.blur * side
    reach = min(math.ceil(BLUR_REACH * deviation), side - 1)
    if reach < 1:
        return image
    weights = _gaussian_rows(side, deviation, reach)
    blurred = weights @ image.to(torch.float32) @ weights.T  # in 0.4 of the time of two convolutions
    return blurred.round_().clamp_(0, preprocess.pixels.largest).to(image.dtype)


def _gaussian_rows(side: int, deviation: float, reach: int) -> Tensor:
    """(side, side): row i weighs the pixels around i, mirrored at the edge pixels."""
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    places = torch.from_numpy(np.pad(np.arange(side), reach, mode="reflect")).unfold(0, len(kernel), 1)
    return torch.zeros(side, side).scatter_add_(1, places, kernel.expand(side, -1))


def jpeg(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Compressed as a JPEG file and read again, at a quality from `jpeg_quality` to 100.

    Channels that are not RGB are gray files each; 16 bits stay as they are, since JPEG has 8.
    """
    quality = int(rng.integers(int(strength.jpeg_quality), 101))
    if strength.jpeg_quality == 100 or image.is_floating_point():
        return image
    if preprocess.pixels.is_colour:
        return _compressed(image.permute(1, 2, 0), quality).permute(2, 0, 1)
    return torch.stack([_compressed(plane, quality) for plane in image])


def _compressed(picture: Tensor, quality: int) -> Tensor:
    """(H, W) or (H, W, 3) through a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "JPEG", quality=quality)
    with Image.open(file) as compressed:
        return torch.from_numpy(np.array(compressed))


def cutout(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Cover a random rectangle with the mean colour."""
    if rng.random() >= strength.cutout:
        return image
    height, width = image.shape[-2:]
    top, left, box_height, box_width = random_box(height, width, CUTOUT_AREA, CUTOUT_RATIO, rng)
    fill = mean_colour_plane(preprocess).to(image.dtype)
    covered: Tensor = functional.erase(image, top, left, box_height, box_width, fill)
    return covered
