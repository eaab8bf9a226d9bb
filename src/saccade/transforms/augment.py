"""Augmentation of training images: every random change, drawn from f(seed, epoch, image index).

A policy is a row of one table; each field of the recipe overrides its part. An image passes through STEPS
in order: crop, automatic policy, flips, one affine map (rotation, zoom, shift, shear), colour, cutout, those
of other packages.
Pixels are changed by torchvision's `transforms.v2.functional` on uint8. What an affine map, padding or cutout
uncovers is filled with the mean colour, which is 0 after normalisation, as in resize mode "pad".
Only `TrainingBatches` and the preview call this; the evaluation path (`apply`) cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as nn
from torchvision.transforms.v2 import functional

from saccade.preprocess import Preprocess
from saccade.recipe import AugmentConfig
from saccade.transforms.automatic import AUTOMATIC
from saccade.transforms.outside import apply_from_outside
from saccade.transforms.resize import resized, shrink

Automatic = Literal["none", "auto_augment", "rand_augment", "trivial_augment"]
Generator = np.random.Generator

# Purposes of random streams: two draws for different purposes never share numbers.
PURPOSES = {"order": 0, "augment": 1, "preview": 2, "batches": 3, "mirror": 4}
MOST_IN_A_WORD = 2**32 - 1

CROP_RATIO = (3 / 4, 4 / 3)  # Szegedy et al. 2015, "Going deeper with convolutions"
CROP_TRIES = 10
CUTOUT_AREA = (0.02, 1 / 3)  # Zhong et al. 2017, "Random erasing data augmentation"
CUTOUT_RATIO = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Augmentation:
    """Resolved strengths: no "auto" left. The defaults change nothing."""

    random_resized_crop: float = 1.0
    random_crop: float = 0.0
    crop_border: Literal["mean", "reflect"] = "mean"
    horizontal_flip: float = 0.0
    alternate_flip: bool = False
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
    extra: tuple[str, ...] = ()

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
    "small": {
        "random_crop": 1 / 16,
        "crop_border": "reflect",
        "horizontal_flip": 0.5,
        "alternate_flip": True,
    },
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
    words = [seed, PURPOSES[purpose], *indices]
    if max(words) <= MOST_IN_A_WORD:  # then an array gives the same stream, and sooner
        return np.random.default_rng(np.array(words, dtype=np.uint32))
    return np.random.default_rng(words)


def augment(
    pixels: Tensor, augmentation: Augmentation, *, seed: int, epoch: int, index: int, preprocess: Preprocess
) -> Tensor:
    """One draw: uint8 (3, height, width) -> uint8 (3, size, size), the same for the same arguments."""
    ready = ready_for_draws(pixels, augmentation, preprocess)
    return drawn(ready, augmentation, seed=seed, epoch=epoch, index=index, preprocess=preprocess)


def ready_for_draws(image: Tensor, augmentation: Augmentation, preprocess: Preprocess) -> Tensor:
    """What comes before the first draw, done once an image: the evaluation geometry, or where random crops
    take its place, the picture made no larger than they need."""
    crops = augmentation.random_resized_crop < 1
    return shrink(image, preprocess) if crops else as_evaluated(image, preprocess)


def drawn(
    ready: Tensor, augmentation: Augmentation, *, seed: int, epoch: int, index: int, preprocess: Preprocess
) -> Tensor:
    """`augment` of what `ready_for_draws` gave."""
    image = ready
    if augmentation.alternate_flip and augmentation.horizontal_flip:
        mirrored = bool(mirrored_in(epoch, seed=seed, images=index + 1)[index])
        augmentation = replace(augmentation, horizontal_flip=float(mirrored))
    for number, step in _steps_of(augmentation):
        image = step(image, augmentation, preprocess, stream(seed, "augment", epoch, index, number))
    return image


@lru_cache(maxsize=64)
def _steps_of(augmentation: Augmentation) -> tuple[tuple[int, Step], ...]:
    """(number, step) of those that change anything."""
    return tuple(
        (number, step)
        for number, (name, step) in enumerate(STEPS.items())
        if any(getattr(augmentation, field) != getattr(_NOTHING, field) for field in STRENGTHS[name])
    )


def mirrored_in(epoch: int, *, seed: int, images: int) -> NDArray[np.bool_]:
    """(images,) which are mirrored in this epoch when flips alternate: the others are in the next.

    Jordan 2024: after two epochs each image was seen both ways, which fresh draws do for half of them.
    """
    first: NDArray[np.bool_] = stream(seed, "mirror").random(images) < 0.5
    return first ^ (epoch % 2 == 0)


def crop(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """To the square input: a random crop of random aspect, or as evaluated and then a padded random crop."""
    if strength.random_resized_crop < 1:
        image = _random_resized_crop(image, strength.random_resized_crop, preprocess, rng)
    return _padded_crop(image, strength, preprocess, rng) if strength.random_crop else image


def automatic(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """A published policy (AutoAugment, RandAugment or TrivialAugment) on the cropped image."""
    if strength.automatic == "none":
        return image
    return AUTOMATIC[strength.automatic](image, fill=mean_colour(preprocess), rng=rng)


def flip(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Mirror left to right and top to bottom, each with its probability."""
    horizontal, vertical = rng.random(2)
    if horizontal < strength.horizontal_flip:
        image = image.flip(-1)
    if vertical < strength.vertical_flip:
        image = image.flip(-2)
    return image


def affine(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Rotation, zoom, shift and shear about the centre in one resampling."""
    angle, zoom, shift_x, shift_y, shear = rng.uniform(-1, 1, 5)
    side = image.shape[-1]
    back = _inverse_map(
        math.radians(angle * strength.rotation),
        math.tan(math.radians(shear * strength.shear)),
        1 + zoom * strength.zoom,
        round(shift_x * strength.shift * side) * 2 / side,
        round(shift_y * strength.shift * side) * 2 / side,
    )
    # about the mean colour, so that the edge fades into it
    fill = _mean_colour_plane(preprocess)
    moved = nn.grid_sample((image - fill)[None], _grid(back, side), align_corners=False)[0]
    return moved.add_(fill).round_().to(torch.uint8)  # a mean of values in 0..255 stays there


def _inverse_map(
    angle: float, shear: float, scale: float, shift_x: float, shift_y: float
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Where a point of the result comes from; the map is turn x shear x scale, then the shift."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    rows = ((cos - sin * shear, sin + cos * shear), (-sin, cos))
    first, second = ((x, y, -x * shift_x - y * shift_y) for x, y in rows)
    return first, second


def _grid(rows: tuple[tuple[float, float, float], ...], side: int) -> Tensor:
    """(1, side, side, 2): where each pixel comes from, in -1..1; as `affine_grid`, but quicker."""
    centres = _centres(side)
    grid = torch.empty(1, side, side, 2)
    for axis, (x, y, shift) in enumerate(rows):
        torch.add(centres * x, (centres * y + shift)[:, None], out=grid[0, :, :, axis])
    return grid


@lru_cache(maxsize=8)
def _centres(side: int) -> Tensor:
    return (torch.arange(side) * 2 + 1) / side - 1


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


def cutout(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Cover a random rectangle with the mean colour."""
    if rng.random() >= strength.cutout:
        return image
    height, width = image.shape[-2:]
    top, left, box_height, box_width = _random_box(height, width, CUTOUT_AREA, CUTOUT_RATIO, rng)
    fill = _mean_colour_plane(preprocess).to(torch.uint8)
    covered: Tensor = functional.erase(image, top, left, box_height, box_width, fill)
    return covered


def extra(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Augmentations of other packages, last of all."""
    return apply_from_outside(image, strength.extra, rng)


Step = Callable[[Tensor, Augmentation, Preprocess, Generator], Tensor]

# In this order. Each draws from its own stream, so switching one on moves no other's draws.
STEPS: dict[str, Step] = {
    "crop": crop,
    "automatic": automatic,
    "flip": flip,
    "affine": affine,
    "colour": colour,
    "cutout": cutout,
    "extra": extra,
}

# step -> fields; it runs where one of them differs from "changes nothing"
STRENGTHS: dict[str, tuple[str, ...]] = {
    "crop": ("random_resized_crop", "random_crop"),
    "automatic": ("automatic",),
    "flip": ("horizontal_flip", "vertical_flip"),
    "affine": ("rotation", "zoom", "shift", "shear"),
    "colour": ("brightness", "contrast", "saturation", "hue"),
    "cutout": ("cutout",),
    "extra": ("extra",),
}
_NOTHING = Augmentation()

_LUMA = torch.tensor((0.299, 0.587, 0.114))  # ITU-R BT.601
_JITTERS: tuple[tuple[str, Callable[[Tensor, float], Tensor]], ...] = (
    ("brightness", _brighten),
    ("contrast", _contrast),
    ("saturation", _saturate),
    ("hue", _turn_hue),
)


def mean_colour(preprocess: Preprocess) -> list[float]:
    """The colour (0 to 255) that becomes 0 after normalisation, to the nearest level."""
    return [float(round(255 * value)) for value in preprocess.mean]


@lru_cache(maxsize=8)
def _mean_colour_plane(preprocess: Preprocess) -> Tensor:
    return torch.tensor(mean_colour(preprocess)).view(3, 1, 1)


def as_evaluated(image: Tensor, preprocess: Preprocess) -> Tensor:
    """The evaluation geometry in uint8 (quicker; within a level or so of the float path)."""
    plan = preprocess.geometry(*image.shape[-2:])
    image = resized(image, plan.height, plan.width, preprocess.interpolation)
    if preprocess.resize == "pad":
        return _on_square(image, plan.top, plan.left, preprocess.size, preprocess)
    return image[..., plan.top : plan.top + preprocess.size, plan.left : plan.left + preprocess.size]


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
    top, left, box_height, box_width = _random_box(height, width, (smallest, 1.0), ratio, rng)
    box = image[..., top : top + box_height, left : left + box_width]
    return resized(box, preprocess.size, preprocess.size, preprocess.interpolation)


def _padded_crop(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    border = round(strength.random_crop * preprocess.size)
    top, left = rng.integers(0, 2 * border + 1, 2)
    padded: Tensor
    if strength.crop_border == "reflect":
        padded = functional.pad(image, [border] * 4, padding_mode="reflect")
    else:
        padded = functional.pad(image, [border] * 4, fill=mean_colour(preprocess))
    return padded[..., top : top + preprocess.size, left : left + preprocess.size]


def _random_box(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], rng: Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width) at a random place: area uniform, aspect log-uniform. Of CROP_TRIES the first
    that fits; where none does, the first is cut to the image."""
    draws = rng.random(2 * CROP_TRIES + 2)  # at once: each call lets other threads in between
    low, high = math.log(ratio[0]), math.log(ratio[1])
    areas = ((area[0] + (area[1] - area[0]) * draws[:CROP_TRIES]) * height * width).tolist()
    ratios = np.exp(low + (high - low) * draws[CROP_TRIES:-2]).tolist()
    tries = (_sides(*one) for one in zip(areas, ratios, strict=True))
    fitting = next((box for box in tries if box[0] <= height and box[1] <= width), None)
    box_height, box_width = fitting or _sides(areas[0], ratios[0])
    box_height, box_width = min(box_height, height), min(box_width, width)
    down, right = draws[-2:].tolist()
    return int(down * (height - box_height + 1)), int(right * (width - box_width + 1)), box_height, box_width


def _sides(area: float, ratio: float) -> tuple[int, int]:
    """Height and width."""
    return max(1, round(math.sqrt(area / ratio))), max(1, round(math.sqrt(area * ratio)))
