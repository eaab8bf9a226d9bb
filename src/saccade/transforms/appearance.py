"""What pixels look like: colours, sharpness, compression, and what is covered. uint8 (3, S, S) both ways."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as nn
from torchvision.transforms.v2 import functional

from saccade.preprocess import Preprocess
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
    changed = image.to(torch.float32, memory_format=torch.contiguous_format)
    for number in rng.permutation(len(_JITTERS)):
        name, change = _JITTERS[number]
        largest = getattr(strength, name)
        if largest:
            changed = change(changed, float(draws[number]) * largest)
    return changed.round_().to(torch.uint8)


# float32 (3, H, W) in 0..255, changed in place; the amount is 0 where nothing changes


def _brighten(image: Tensor, amount: float) -> Tensor:
    return image.mul_(1 + amount).clamp_(0, 255)


def _contrast(image: Tensor, amount: float) -> Tensor:
    mean_gray = float(torch.dot(_LUMA, image.mean((1, 2))))
    return image.mul_(1 + amount).sub_(amount * mean_gray).clamp_(0, 255)


def _saturate(image: Tensor, amount: float) -> Tensor:
    gray = (_LUMA @ image.flatten(1)).view(image.shape[1:])
    return image.mul_(1 + amount).sub_(gray.mul_(amount)).clamp_(0, 255)


def _turn_hue(image: Tensor, amount: float) -> Tensor:
    turned: Tensor = functional.adjust_hue(image.div_(255), amount)
    return turned.mul_(255).clamp_(0, 255)


_JITTERS: tuple[tuple[str, Callable[[Tensor, float], Tensor]], ...] = (
    ("brightness", _brighten),
    ("contrast", _contrast),
    ("saturation", _saturate),
    ("hue", _turn_hue),
)


def grayscale(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Gray by luma, with its probability."""
    if rng.random() >= strength.grayscale:
        return image
    gray: Tensor = functional.rgb_to_grayscale(image, num_output_channels=3)
    return gray


def sharpness(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Sharper, or smoother by a 3 x 3 mean."""
    amount = rng.uniform(-strength.sharpness, strength.sharpness)
    changed: Tensor = functional.adjust_sharpness(image, 1 + amount)
    return changed


def blur(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Gaussian blur, its standard deviation up to a share of the side; mirrored at the edge."""
    side = image.shape[-1]
    deviation = rng.random() * strength.blur * side
    reach = min(math.ceil(BLUR_REACH * deviation), side - 1)
    if reach < 1:
        return image
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    padded = nn.pad(image.to(torch.float32)[:, None], [reach] * 4, mode="reflect")
    blurred = nn.conv2d(nn.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return blurred[:, 0].round_().clamp_(0, 255).to(torch.uint8)


def jpeg(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Compressed as a JPEG file and read again, at a quality from `jpeg_quality` to 100."""
    quality = int(rng.integers(strength.jpeg_quality, 101))
    if strength.jpeg_quality == 100:
        return image
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    with Image.open(file) as compressed:
        return torch.from_numpy(np.array(compressed)).permute(2, 0, 1)


def cutout(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Cover a random rectangle with the mean colour."""
    if rng.random() >= strength.cutout:
        return image
    height, width = image.shape[-2:]
    top, left, box_height, box_width = random_box(height, width, CUTOUT_AREA, CUTOUT_RATIO, rng)
    fill = mean_colour_plane(preprocess).to(torch.uint8)
    covered: Tensor = functional.erase(image, top, left, box_height, box_width, fill)
    return covered
