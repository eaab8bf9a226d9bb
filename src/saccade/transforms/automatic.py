"""AutoAugment, RandAugment, TrivialAugment and AugMix with every draw taken from the generator passed in.

torchvision's classes draw from the process's one global generator; with worker threads or a resumed run that
would make results depend on what else drew. So the choices are made here and its functions change the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

Generator = np.random.Generator
Fill = list[float]
Operation = Callable[[Tensor, float, Fill], Tensor]

NEAREST = InterpolationMode.NEAREST


class Policy(Protocol):
    """A published policy: uint8 (3, H, W) -> the same shape and type."""

    def __call__(self, image: Tensor, *, fill: Fill, rng: Generator) -> Tensor: ...


def _affine(image: Tensor, fill: Fill, *, degrees: float = 0, x: int = 0, y: int = 0) -> Tensor:
    moved: Tensor = functional.affine(
        image, degrees, [x, y], 1.0, [0.0, 0.0], interpolation=NEAREST, fill=fill
    )
    return moved


def _shear(image: Tensor, fill: Fill, *, x: float = 0, y: float = 0) -> Tensor:
    shear = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    corner = [0, 0]  # the fixed point, as in the published code
    sheared: Tensor = functional.affine(
        image, 0.0, [0, 0], 1.0, shear, interpolation=NEAREST, fill=fill, center=corner
    )
    return sheared


# name -> (image, magnitude, fill) -> image; shifts are in pixels, solarize's threshold is a share of 255
OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, m, fill: image,
    "shear_x": lambda image, m, fill: _shear(image, fill, x=m),
    "shear_y": lambda image, m, fill: _shear(image, fill, y=m),
    "translate_x": lambda image, m, fill: _affine(image, fill, x=int(m)),
    "translate_y": lambda image, m, fill: _affine(image, fill, y=int(m)),
    "rotate": lambda image, m, fill: functional.rotate(image, m, interpolation=NEAREST, fill=fill),
    "brightness": lambda image, m, fill: functional.adjust_brightness(image, 1 + m),
    "colour": lambda image, m, fill: functional.adjust_saturation(image, 1 + m),
    "contrast": lambda image, m, fill: functional.adjust_contrast(image, 1 + m),
    "sharpness": lambda image, m, fill: functional.adjust_sharpness(image, 1 + m),
    "posterize": lambda image, m, fill: functional.posterize(image, int(m)),
    "solarize": lambda image, m, fill: functional.solarize(image, 255 * m),
    "autocontrast": lambda image, m, fill: functional.autocontrast(image),
    "equalize": lambda image, m, fill: functional.equalize(image),
    "invert": lambda image, m, fill: functional.invert(image),
}
SIGNED = {
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "colour",
    "contrast",
    "sharpness",
}

GEOMETRIC = {"identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"}
OF_COLOURS = {"colour"}
OF_256_LEVELS = {"equalize", "posterize"}  # would leave no more than 256 of the levels of 16 bits

# The 25 pairs of Cubuk et al. 2019, "AutoAugment", ImageNet policy: operation, probability, level 0 to 9.
AUTO_AUGMENT_PAIRS = """
posterize .4 8, rotate .6 9 | solarize .6 5, autocontrast .6 0 | equalize .8 0, equalize .6 0
posterize .6 7, posterize .6 6 | equalize .4 0, solarize .2 4 | equalize .4 0, rotate .8 8
solarize .6 3, equalize .6 0 | posterize .8 5, equalize 1 0 | rotate .2 3, solarize .6 8
equalize .6 0, posterize .4 6 | rotate .8 8, colour .4 0 | rotate .4 9, equalize .6 0
equalize 0 0, equalize .8 0 | invert .6 0, equalize 1 0 | colour .6 4, contrast 1 8
rotate .8 8, colour 1 2 | colour .8 8, solarize .8 7 | sharpness .4 7, invert .6 0
shear_x .6 5, equalize 1 0 | colour .4 0, equalize .6 0 | equalize .4 0, solarize .2 4
solarize .6 5, autocontrast .6 0 | invert .6 0, equalize 1 0 | colour .6 4, contrast 1 8
equalize .8 0, equalize .6 0
"""
RAND_AUGMENT_OPERATIONS = tuple(name for name in OPERATIONS if name != "invert")
RAND_AUGMENT_LEVEL = 9 / 30
TRIVIAL_AUGMENT_LEVELS = 31
# without those that common corruptions are made of (colour, contrast, brightness, sharpness)
AUGMIX_OPERATIONS = (
    *("autocontrast", "equalize", "posterize", "rotate", "solarize"),
    *("shear_x", "shear_y", "translate_x", "translate_y"),
)
AUGMIX_CHAINS, AUGMIX_LONGEST, AUGMIX_SEVERITY = 3, 3, 3  # severity 3 of 10


def auto_augment(image: Tensor, *, fill: Fill, rng: Generator) -> Tensor:
    """One of the 25 published pairs of operations. Cubuk et al. 2019, ImageNet policy."""
    pairs = _parsed_pairs()
    for name, probability, level in pairs[rng.integers(len(pairs))]:
        chance, sign = rng.random(2)
        if chance < probability:
            image = _apply(image, name, _moderate(name, level / 9, image.shape[-1]), sign, fill)
    return image


def rand_augment(image: Tensor, *, fill: Fill, rng: Generator) -> Tensor:
    """Two operations drawn with replacement, at magnitude 9 of 30. Cubuk et al. 2020."""
    for _ in range(2):
        name = RAND_AUGMENT_OPERATIONS[rng.integers(len(RAND_AUGMENT_OPERATIONS))]
        image = _apply(image, name, _moderate(name, RAND_AUGMENT_LEVEL, image.shape[-1]), rng.random(), fill)
    return image


def trivial_augment(image: Tensor, *, fill: Fill, rng: Generator) -> Tensor:
    """One operation at one strength, both uniform, from the wide ranges. Mueller and Hutter 2021."""
    name = RAND_AUGMENT_OPERATIONS[rng.integers(len(RAND_AUGMENT_OPERATIONS))]
    level = rng.integers(TRIVIAL_AUGMENT_LEVELS) / (TRIVIAL_AUGMENT_LEVELS - 1)
    return _apply(image, name, _wide(name, level), rng.random(), fill)


def aug_mix(image: Tensor, *, fill: Fill, rng: Generator) -> Tensor:
    """The image blended with a mean of three chains of one to three weak operations.

    Hendrycks et al. 2020, "AugMix", without its consistency loss.
    """
    weights, share = rng.dirichlet([1.0] * AUGMIX_CHAINS), rng.beta(1, 1)
    blended = image.to(torch.float32) * (1 - share)
    for weight in weights.tolist():
        chain = image
        for _ in range(rng.integers(1, AUGMIX_LONGEST + 1)):
            name = AUGMIX_OPERATIONS[rng.integers(len(AUGMIX_OPERATIONS))]
            level, sign = rng.uniform(0.1, AUGMIX_SEVERITY), rng.random()
            chain = _apply(chain, name, _mild(name, level / 10, image.shape[-1]), sign, fill)
        blended += chain * (share * weight)
    return blended.round_().clamp_(0, 65535 if image.is_floating_point() else 255).to(image.dtype)


# name -> policy; each passes `saccade.testing.check_augmentation`.
AUTOMATIC: dict[str, Policy] = {
    "auto_augment": auto_augment,
    "rand_augment": rand_augment,
    "trivial_augment": trivial_augment,
    "aug_mix": aug_mix,
}


def _apply(image: Tensor, name: str, magnitude: float, sign: float, fill: Fill) -> Tensor:
    signed = -magnitude if name in SIGNED and sign < 0.5 else magnitude
    if image.dtype != torch.uint8 or image.shape[0] != 3:
        return _apply_to_planes(image, name, signed, fill)
    return OPERATIONS[name](image, signed, fill)


def _apply_to_planes(image: Tensor, name: str, magnitude: float, fill: Fill) -> Tensor:
    """Of other channels each by itself, as of a gray image; float32 holds 16 bits, from 0 to 65535."""
    if name in GEOMETRIC:
        return OPERATIONS[name](image, magnitude, fill)
    many_levels = image.is_floating_point()
    if name in OF_COLOURS or (many_levels and name in OF_256_LEVELS):
        return image
    planes = image[:, None] / 65535 if many_levels else image[:, None]
    if many_levels and name == "solarize":
        changed = torch.where(planes >= magnitude, 1 - planes, planes)
    else:
        changed = OPERATIONS[name](planes, magnitude, fill)
    return changed[:, 0] * 65535 if many_levels else changed[:, 0]


def _moderate(name: str, share: float, side: int) -> float:
    """Magnitude at `share` (0 to 1) of the ranges of AutoAugment and RandAugment."""
    if name.startswith("translate"):
        return share * side * 150 / 331
    ranges = {"rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3}
    return _levelled(name, share, strongest=ranges.get(name, 0.9), fewest_bits=4)


def _mild(name: str, share: float, side: int) -> float:
    """Magnitude at `share` (0 to 1) of the ranges of AugMix."""
    if name == "posterize":
        return 4 - int(share * 4)
    ranges = {
        "rotate": 30.0,
        "shear_x": 0.3,
        "shear_y": 0.3,
        "translate_x": side / 3,
        "translate_y": side / 3,
    }
    return 1 - share if name == "solarize" else share * ranges.get(name, 0.0)


def _wide(name: str, share: float) -> float:
    """Magnitude at `share` (0 to 1) of the wide ranges of TrivialAugment."""
    ranges = {"translate_x": 32.0, "translate_y": 32.0, "rotate": 135.0}
    return _levelled(name, share, strongest=ranges.get(name, 0.99), fewest_bits=2)


def _levelled(name: str, share: float, *, strongest: float, fewest_bits: int) -> float:
    if name == "posterize":
        return round(8 - share * (8 - fewest_bits))
    return 1 - share if name == "solarize" else share * strongest


def _parsed_pairs() -> list[list[tuple[str, float, int]]]:
    pairs = AUTO_AUGMENT_PAIRS.strip().replace("\n", " | ").split(" | ")
    words = [[operation.split() for operation in pair.split(", ")] for pair in pairs]
    return [[(name, float(chance), int(level)) for name, chance, level in pair] for pair in words]
