"""The contracts hold for what we ship, and break for what breaks them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saccade.preprocess import Preprocess
from saccade.testing import check_augmentation, check_mixing
from saccade.transforms.augment import STEPS
from saccade.transforms.automatic import AUTOMATIC
from saccade.transforms.mix import MIXINGS
from saccade.transforms.strengths import Augmentation

SIDE = 32
PREPROCESS = Preprocess(SIDE, crop_fraction=1.0)
ON = {
    "crop": Augmentation(random_resized_crop=0.5),
    "automatic": Augmentation(automatic="trivial_augment"),
    "flip": Augmentation(horizontal_flip=0.5, vertical_flip=0.5),
    "affine": Augmentation(rotation=30, zoom=0.2, shift=0.1, shear=10),
    "colour": Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1),
    "perspective": Augmentation(perspective=0.4),
    "grayscale": Augmentation(grayscale=0.5),
    "sharpness": Augmentation(sharpness=0.5),
    "blur": Augmentation(blur=0.05),
    "jpeg": Augmentation(jpeg_quality=20),
    "cutout": Augmentation(cutout=0.5),
}


@pytest.mark.parametrize("name", [name for name in STEPS if name != "extra"])  # other packages' own
def test_every_step_keeps_the_contract(name):
    step = STEPS[name].change
    check_augmentation(
        lambda image, rng: step(image, ON[name], PREPROCESS, rng),
        off=lambda image, rng: step(image, Augmentation(), PREPROCESS, rng),
        side=SIDE,
    )


@pytest.mark.parametrize("name", AUTOMATIC)
def test_every_automatic_policy_keeps_the_contract(name):
    check_augmentation(lambda image, rng: AUTOMATIC[name](image, fill=[9.0, 9.0, 9.0], rng=rng))


@pytest.mark.parametrize("name", MIXINGS)
def test_every_mixing_keeps_the_contract(name):
    check_mixing(MIXINGS[name])


def noisy(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return image + torch.randint(0, 2, image.shape, dtype=torch.uint8)


def in_place(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return image.mul_(0)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda image, rng: image, "nothing changed"),
        (lambda image, rng: image[:, 1:], "the shape"),
        (lambda image, rng: image.float(), "became torch.float32"),
        (noisy, "global generator"),
        (in_place, "in place"),
    ],
)
def test_a_broken_augmentation_is_found(broken, words):
    with pytest.raises(AssertionError, match=words):
        check_augmentation(broken)


def test_an_augmentation_that_cannot_be_switched_off_is_found():
    with pytest.raises(AssertionError, match="strength 0 changed"):
        check_augmentation(lambda image, rng: image.flip(2), off=lambda image, rng: image.flip(2))


def lossy(images, targets, *, alpha, generator):
    return images * 0.5, targets * (0.5 if alpha else 1.0)


def careless(images, targets, *, alpha, generator):
    order = torch.randperm(len(images), generator=generator)
    return images[order], targets[order]


@pytest.mark.parametrize(("broken", "words"), [(lossy, "sum to 1"), (careless, "alpha 0 changed")])
def test_a_broken_mixing_is_found(broken, words):
    with pytest.raises(AssertionError, match=words):
        check_mixing(broken)
