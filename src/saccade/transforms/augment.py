"""Augmentation of training images: every random change, drawn from f(seed, epoch, image index).

A policy is a row of one table; each field of the recipe overrides its part. An image passes through STEPS
in order: crop, automatic policy, flips, one affine map (rotation, zoom, shift, shear), colour, cutout.
Pixels are changed by torchvision's `transforms.v2.functional` on uint8. What an affine map, padding or cutout
uncovers is filled with the mean colour, which is 0 after normalisation, as in resize mode "pad".
Only `TrainingBatches` and the preview call this; the evaluation path (`apply`) cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from saccade.config import AugmentConfig
from saccade.preprocess import Preprocess
from saccade.transforms.automatic import AUTOMATIC

Automatic = Literal["none", "auto_augment", "rand_augment", "trivial_augment"]
Generator = np.random.Generator

# Purposes of random streams: two draws for different purposes never share numbers.
PURPOSES = {"order": 0, "augment": 1, "preview": 2}

CROP_RATIO = (3 / 4, 4 / 3)  # Szegedy et al. 2015, "Going deeper with convolutions"
CROP_TRIES = 10
CUTOUT_AREA = (0.02, 1 / 3)  # Zhong et al. 2017, "Random erasing data augmentation"
CUTOUT_RATIO = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Augmentation:
    """Resolved strengths: no "auto" left. The defaults change nothing."""

    random_resized_crop: float = 1.0
    random_crop: float = 0.0
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    automatic: Automatic = "none"
    cutout: float = 0.0
    mix_up: float = 0.0
    cut_mix: float = 0.0

    @classmethod
    def from_config(cls, config: AugmentConfig) -> Augmentation:
        """The named policy, with every field of the recipe that is not "auto" put over it."""
        chosen = {name: value for name, value in config.model_dump().items() if value != "auto"}
        policy = POLICIES[chosen.pop("policy")]
        return cls(**{**policy, **chosen})

    def as_json(self) -> dict[str, Any]:
        """What "auto" became, for `environment.json`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


# name -> strengths that differ from "changes nothing"
POLICIES: dict[str, dict[str, Any]] = {
    "none": {},
    "light": {"random_resized_crop": 0.7, "horizontal_flip": 0.5},
    "medium": {
        "random_resized_crop": 0.5,
        "horizontal_flip": 0.5,
        "rotation": 10.0,
        "brightness": 0.2,
        "contrast": 0.2,
        "saturation": 0.2,
    },
    "strong": {
        "random_resized_crop": 0.25,
        "horizontal_flip": 0.5,
        "rotation": 15.0,
        "brightness": 0.3,
        "contrast": 0.3,
        "saturation": 0.3,
        "automatic": "trivial_augment",
        "cutout": 0.25,
        "mix_up": 0.2,
        "cut_mix": 1.0,
    },
}


def stream(seed: int, purpose: str, *indices: int) -> Generator:
    """A random generator that is a function of its arguments alone, on every machine and in every process."""
    return np.random.default_rng([seed, PURPOSES[purpose], *indices])


def augment(
    pixels: Tensor, augmentation: Augmentation, *, seed: int, epoch: int, index: int, preprocess: Preprocess
) -> Tensor:
    """One draw: uint8 (3, height, width) -> uint8 (3, size, size), the same for the same arguments."""
    image = pixels
    for number, step in enumerate(STEPS.values()):
        rng = stream(seed, "augment", epoch, index, number)
        image = step(image, augmentation, preprocess, rng)
    return image.contiguous()


def crop(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """To the square input: a random crop of random aspect, or as evaluated and then a padded random crop."""
    if strength.random_resized_crop < 1:
        image = _random_resized_crop(image, strength.random_resized_crop, preprocess, rng)
    else:
        image = as_evaluated(image, preprocess)
    return _padded_crop(image, strength.random_crop, preprocess, rng) if strength.random_crop else image


def automatic(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """A published policy (AutoAugment, RandAugment or TrivialAugment) on the cropped image."""
    if strength.automatic == "none":
        return image
    return AUTOMATIC[strength.automatic](image, fill=mean_colour(preprocess), rng=rng)


def flip(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Mirror left to right and top to bottom, each with its probability."""
    horizontal, vertical = rng.random(2)
    if horizontal < strength.horizontal_flip:
        image = functional.horizontal_flip(image)
    if vertical < strength.vertical_flip:
        image = functional.vertical_flip(image)
    return image


def affine(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Rotation, zoom, shift and shear about the centre in one resampling."""
    if not (strength.rotation or strength.zoom or strength.shift or strength.shear):
        return image
    angle, zoom, shift_x, shift_y, shear = rng.uniform(-1, 1, 5)
    side = image.shape[-1]
    # about the mean colour, so that the edge fades into it; torchvision's own fill leaves a dark line there
    fill = _mean_colour_plane(preprocess)
    moved: Tensor = functional.affine(
        image - fill,
        angle=angle * strength.rotation,
        translate=[round(shift_x * strength.shift * side), round(shift_y * strength.shift * side)],
        scale=1 + zoom * strength.zoom,
        shear=[shear * strength.shear, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    return (moved + fill).round_().clamp_(0, 255).to(torch.uint8)


def colour(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Brightness, contrast, saturation and hue, in an order drawn for the image."""
    draws = rng.uniform(-1, 1, len(_JITTERS))
    for number in rng.permutation(len(_JITTERS)):
        name, change, neutral = _JITTERS[number]
        largest = getattr(strength, name)
        if largest:
            image = change(image, neutral + float(draws[number]) * largest)
    return image


def cutout(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Cover a random rectangle with the mean colour."""
    if rng.random() >= strength.cutout:
        return image
    height, width = image.shape[-2:]
    boxes = _boxes(height, width, CUTOUT_AREA, CUTOUT_RATIO, rng)
    top, left, box_height, box_width = _first_that_fits(boxes, height, width, rng)
    fill = _mean_colour_plane(preprocess).to(torch.uint8)
    covered: Tensor = functional.erase(image, top, left, box_height, box_width, fill)
    return covered


Step = Callable[[Tensor, Augmentation, Preprocess, Generator], Tensor]

# In this order. Each draws from its own stream, so switching one on moves no other's draws.
STEPS: dict[str, Step] = {
    "crop": crop,
    "automatic": automatic,
    "flip": flip,
    "affine": affine,
    "colour": colour,
    "cutout": cutout,
}

# (field, change, value that changes nothing)
_JITTERS: tuple[tuple[str, Callable[[Tensor, float], Tensor], float], ...] = (
    ("brightness", functional.adjust_brightness, 1.0),
    ("contrast", functional.adjust_contrast, 1.0),
    ("saturation", functional.adjust_saturation, 1.0),
    ("hue", functional.adjust_hue, 0.0),
)


def mean_colour(preprocess: Preprocess) -> list[float]:
    """The colour (0 to 255) that becomes 0 after normalisation, to the nearest level."""
    return [float(round(255 * value)) for value in preprocess.mean]


def _mean_colour_plane(preprocess: Preprocess) -> Tensor:
    return torch.tensor(mean_colour(preprocess)).view(3, 1, 1)


def as_evaluated(image: Tensor, preprocess: Preprocess) -> Tensor:
    """The evaluation geometry in uint8 (quicker; within a level or so of the float path)."""
    plan = preprocess.geometry(*image.shape[-2:])
    image = _resized(image, plan.height, plan.width, preprocess)
    if preprocess.resize == "pad":
        return _on_square(image, plan.top, plan.left, preprocess.size, preprocess)
    return image[..., plan.top : plan.top + preprocess.size, plan.left : plan.left + preprocess.size]


def _resized(image: Tensor, height: int, width: int, preprocess: Preprocess) -> Tensor:
    mode = InterpolationMode(preprocess.interpolation)
    resized: Tensor = functional.resize(image, [height, width], interpolation=mode, antialias=True)
    return resized


def _on_square(image: Tensor, top: int, left: int, side: int, preprocess: Preprocess) -> Tensor:
    height, width = image.shape[-2:]
    borders = [left, top, side - width - left, side - height - top]
    padded: Tensor = functional.pad(image, borders, fill=mean_colour(preprocess))
    return padded


def _random_resized_crop(image: Tensor, smallest: float, preprocess: Preprocess, rng: Generator) -> Tensor:
    height, width = image.shape[-2:]
    if preprocess.resize == "pad":
        side = max(height, width)
        image = _on_square(image, (side - height) // 2, (side - width) // 2, side, preprocess)
        height = width = side
    # "squash" ignores the aspect, so its crops vary about the image's own
    middle = width / height if preprocess.resize == "squash" else 1.0
    ratio = (CROP_RATIO[0] * middle, CROP_RATIO[1] * middle)
    boxes = _boxes(height, width, (smallest, 1.0), ratio, rng)
    top, left, box_height, box_width = _first_that_fits(boxes, height, width, rng)
    size = [preprocess.size, preprocess.size]
    mode = InterpolationMode(preprocess.interpolation)
    cropped: Tensor = functional.resized_crop(
        image, top, left, box_height, box_width, size, interpolation=mode, antialias=True
    )
    return cropped


def _padded_crop(image: Tensor, share: float, preprocess: Preprocess, rng: Generator) -> Tensor:
    border = round(share * preprocess.size)
    top, left = rng.integers(0, 2 * border + 1, 2)
    padded: Tensor = functional.pad(image, [border] * 4, fill=mean_colour(preprocess))
    return padded[..., top : top + preprocess.size, left : left + preprocess.size]


def _boxes(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], rng: Generator
) -> list[tuple[int, int]]:
    """Tries of (box height, box width): area uniform, aspect log-uniform."""
    areas = rng.uniform(*area, CROP_TRIES) * height * width
    ratios = np.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]), CROP_TRIES))
    sides = np.stack([np.sqrt(areas / ratios), np.sqrt(areas * ratios)], axis=1)
    return [(max(1, round(h)), max(1, round(w))) for h, w in sides.tolist()]


def _first_that_fits(
    boxes: list[tuple[int, int]], height: int, width: int, rng: Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width) at a random place; a box that never fits is cut to the image."""
    fitting = [box for box in boxes if box[0] <= height and box[1] <= width]
    box_height, box_width = fitting[0] if fitting else (min(boxes[0][0], height), min(boxes[0][1], width))
    down, right = rng.random(2)
    return int(down * (height - box_height + 1)), int(right * (width - box_width + 1)), box_height, box_width
