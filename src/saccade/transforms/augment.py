"""Augmentation of training images: every random change, drawn from f(seed, epoch, image index).

How strongly: `strengths.py`. An image passes through STEPS in order. Pixels are changed on uint8, in
`geometry.py` and `appearance.py`.
Only `TrainingBatches` and the preview call this; the evaluation path (`apply`) cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.preprocess import Preprocess
from saccade.transforms.appearance import blur, colour, cutout, grayscale, jpeg, sharpness
from saccade.transforms.automatic import AUTOMATIC
from saccade.transforms.geometry import affine, as_evaluated, crop, flip, mean_colour, perspective
from saccade.transforms.outside import apply_from_outside
from saccade.transforms.resize import shrink
from saccade.transforms.strengths import Augmentation

Generator = np.random.Generator

# Purposes of random streams: two draws for different purposes never share numbers.
PURPOSES = {"order": 0, "augment": 1, "preview": 2, "batches": 3, "mirror": 4, "sampling": 5}
MOST_IN_A_WORD = 2**32 - 1
FIRST_LISTED = 100  # number of the first step of a composition; those below belong to STEPS


def stream(seed: int, purpose: str, *indices: int) -> Generator:
    """A random generator that is a function of its arguments alone, on every machine and in every process."""
    words = [seed, PURPOSES[purpose], *indices]
    if max(words) <= MOST_IN_A_WORD:  # then an array gives the same stream, and sooner
        return np.random.default_rng(np.array(words, dtype=np.uint32))
    return np.random.default_rng(words)


def augment(
    pixels: Tensor, augmentation: Augmentation, *, seed: int, epoch: int, index: int, preprocess: Preprocess
) -> Tensor:
    """One draw: uint8 (C, height, width) -> uint8 (C, size, size), the same for the same arguments.

    uint16 becomes float32, from 0 to 65535.
    """
    ready = ready_for_draws(pixels, augmentation, preprocess)
    return drawn(ready, augmentation, seed=seed, epoch=epoch, index=index, preprocess=preprocess)


def ready_for_draws(image: Tensor, augmentation: Augmentation, preprocess: Preprocess) -> Tensor:
    """What comes before the first draw, done once an image: the evaluation geometry, or where random crops
    take its place, the picture made no larger than they need."""
    if augmentation.crops_at_random:
        return shrink(image, preprocess)
    return as_evaluated(image, preprocess)


def drawn(
    ready: Tensor, augmentation: Augmentation, *, seed: int, epoch: int, index: int, preprocess: Preprocess
) -> Tensor:
    """`augment` of what `ready_for_draws` gave."""
    image = ready.to(torch.float32) if ready.dtype == torch.uint16 else ready  # and stays so
    if augmentation.alternate_flip and augmentation.horizontal_flip:
        mirrored = bool(mirrored_in(epoch, seed=seed, images=index + 1)[index])
        augmentation = replace(augmentation, horizontal_flip=float(mirrored))
    for step in _steps_of(augmentation):
        rng = stream(seed, "augment", epoch, index, step.number)
        image = step.change(image, augmentation, preprocess, rng)
    for number, listed in enumerate(augmentation.steps, FIRST_LISTED):
        rng = stream(seed, "augment", epoch, index, number)
        if rng.random() < listed.probability:
            image = _by_itself(image, augmentation.alone(listed), preprocess, rng)
    return image


def _by_itself(image: Tensor, alone: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """One step of the user's own composition."""
    for step in _steps_of(alone):
        image = step.change(image, alone, preprocess, rng)
    return image


@lru_cache(maxsize=64)
def _steps_of(augmentation: Augmentation) -> tuple[Step, ...]:
    """Those that change anything."""
    return tuple(
        step
        for step in STEPS.values()
        if any(getattr(augmentation, field) != getattr(_NOTHING, field) for field in step.fields)
    )


def mirrored_in(epoch: int, *, seed: int, images: int) -> NDArray[np.bool_]:
    """(images,) which are mirrored in this epoch when flips alternate: the others are in the next.

    Jordan 2024: after two epochs each image was seen both ways, which fresh draws do for half of them.
    """
    first: NDArray[np.bool_] = stream(seed, "mirror").random(images) < 0.5
    return first ^ (epoch % 2 == 0)


def automatic(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """A published policy (AutoAugment, RandAugment, TrivialAugment or AugMix) on the cropped image."""
    if strength.automatic == "none":
        return image
    return AUTOMATIC[strength.automatic](image, fill=mean_colour(preprocess), rng=rng)


def extra(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Augmentations of other packages, last of all."""
    return apply_from_outside(image, strength.extra, rng)


Change = Callable[[Tensor, Augmentation, Preprocess, Generator], Tensor]


@dataclass(frozen=True, slots=True)
class Step:
    """`number` is a part of the random stream, so it never changes; `fields`: it runs where one of them
    differs from "changes nothing"."""

    number: int
    change: Change
    fields: tuple[str, ...]


# In this order. Each draws from its own stream, so switching one on moves no other's draws.
STEPS: dict[str, Step] = {
    "crop": Step(0, crop, ("random_resized_crop", "random_crop")),
    "automatic": Step(1, automatic, ("automatic",)),
    "flip": Step(2, flip, ("horizontal_flip", "vertical_flip")),
    "affine": Step(3, affine, ("rotation", "zoom", "shift", "shear")),
    "perspective": Step(7, perspective, ("perspective",)),
    "colour": Step(4, colour, ("brightness", "contrast", "saturation", "hue")),
    "grayscale": Step(8, grayscale, ("grayscale",)),
    "sharpness": Step(9, sharpness, ("sharpness",)),
    "blur": Step(10, blur, ("blur",)),
    "jpeg": Step(11, jpeg, ("jpeg_quality",)),
    "cutout": Step(5, cutout, ("cutout",)),
    "extra": Step(6, extra, ("extra",)),
}
_NOTHING = Augmentation()
