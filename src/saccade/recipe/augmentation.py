"""The recipe's section on augmentation, and the named policies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from saccade.recipe.fields import Section
from saccade.recipe.sections import Auto, NotNegative, Positive, Probability, Share

Level = Annotated[int, Field(ge=0, le=255)]
Flip = Literal["left to right", "top to bottom", "upside down"]
# what it does -> the field that does it, above this strength
FLIPPED_BY: dict[Flip, tuple[str, float]] = {
    "left to right": ("horizontal_flip", 0),
    "top to bottom": ("vertical_flip", 0),
    "upside down": ("rotation", 150),
}


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
    # pages, labels, forms: a scanner's and a camera's faults, nothing that mirrors or cuts off
    "document": {
        "rotation": 3.0,
        "zoom": 0.05,
        "shift": 0.03,
        "shear": 3.0,
        "perspective": 0.1,
        "fill_mode": "nearest",
        "brightness": 0.2,
        "contrast": 0.3,
        "grayscale": 0.2,
        "blur": 0.005,
        "jpeg_quality": 40,
    },
    # colour may be the finding, the side of the body too: neither is changed
    "medical": {
        "rotation": 10.0,
        "zoom": 0.1,
        "shift": 0.05,
        "fill_mode": "nearest",
        "brightness": 0.1,
        "contrast": 0.15,
        "sharpness": 0.3,
        "blur": 0.005,
    },
    # surfaces, tissue, fields seen from above: no direction is up
    "texture": {
        "random_resized_crop": 0.35,
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "rotation": 180.0,
        "fill_mode": "reflect",
        "brightness": 0.2,
        "contrast": 0.2,
        "saturation": 0.1,
    },
}


class AugmentConfig(Section):
    """How training images, never others, are augmented. A named policy fills every "auto" below it.

    >>> AugmentConfig(policy="light", rotation=20).horizontal_flip
    'auto'
    """

    policy: Literal["none", "small", "light", "medium", "strong", "document", "medical", "texture"] = "medium"
    """Set of augmentations. Each field below overrides its part. small is for images of 64 pixels and
    less: a random crop with a reflected border of 2 pixels in 32, and alternate_flip. document and medical
    never flip; texture has no direction that is up.
    """
    random_resized_crop: Annotated[float, Field(gt=0, le=1)] | Auto = "auto"
    """Smallest share of the area that a random crop of random aspect ratio may keep. 1 is off."""
    random_crop: Share | Auto = "auto"
    """Padding before a random crop of the input's size, as a share of it. 0 is off."""
    crop_border: Literal["fill", "mean", "reflect"] | Auto = "auto"
    """How that padding is filled. fill: as fill_mode says. mean: with the mean colour. reflect: with the
    image reflected at its edge, which is not repeated.
    """
    horizontal_flip: Probability | Auto = "auto"
    """Probability of a horizontal flip (left to right)."""
    alternate_flip: bool | Auto = "auto"
    """Flip each image in every second epoch instead of at random. Which epochs is drawn once for each image.
    Needs horizontal_flip above 0.
    """
    vertical_flip: Probability | Auto = "auto"
    """Probability of a vertical flip (top to bottom)."""
    rotation: Annotated[float, Field(ge=0, le=180)] | Auto = "auto"
    """Largest rotation to either side, in degrees."""
    zoom: Share | Auto = "auto"
    """Largest zoom in or out, as a share: 0.2 is 0.8 to 1.2 times."""
    shift: Share | Auto = "auto"
    """Largest shift in each direction, as a share of the side."""
    shear: Annotated[float, Field(ge=0, lt=90)] | Auto = "auto"
    """Largest shear to either side, in degrees."""
    perspective: Share | Auto = "auto"
    """Largest move of each corner towards the centre, as a share of half the side, along both sides."""
    fill_mode: Literal["mean", "constant", "nearest", "reflect", "wrap"] | Auto = "auto"
    """What rotation, zoom, shift, shear, perspective and random_crop uncover. mean: the mean colour.
    constant: fill_colour. nearest, reflect (the edge is repeated) and wrap repeat the image, as in Keras.
    """
    fill_colour: tuple[Level, Level, Level] = (0, 0, 0)
    """Colour (RGB, 0 to 255) of fill_mode constant."""
    brightness: Probability | Auto = "auto"
    """Largest change of brightness, as a share: 0.2 is 0.8 to 1.2 times."""
    contrast: Probability | Auto = "auto"
    """Largest change of contrast, as a share."""
    saturation: Probability | Auto = "auto"
    """Largest change of saturation, as a share."""
    hue: Annotated[float, Field(ge=0, le=0.5)] | Auto = "auto"
    """Largest shift of the hue, as a share of the full circle. With the three above: colour jitter."""
    grayscale: Probability | Auto = "auto"
    """Probability of taking the colours out."""
    sharpness: Probability | Auto = "auto"
    """Largest change of sharpness, as a share: 0.5 is 0.5 to 1.5 times."""
    blur: Annotated[float, Field(ge=0, le=0.1)] | Auto = "auto"
    """Largest standard deviation of a Gaussian blur, as a share of the side: 0.01 is 2.2 pixels in 224."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | Auto = "auto"
    """Lowest quality of a JPEG compression, drawn from it to 100. 100 is off."""
    automatic: Literal["none", "auto_augment", "rand_augment", "trivial_augment", "aug_mix"] | Auto = "auto"
    """A published automatic policy, applied after the crop and before all else."""
    cutout: Probability | Auto = "auto"
    """Probability of erasing a random rectangle (Cutout, random erasing)."""
    mix_up: NotNegative | Auto = "auto"
    """Alpha of MixUp's Beta distribution. 0 is off. With cut_mix also on, each batch draws one of the two."""
    cut_mix: NotNegative | Auto = "auto"
    """Alpha of CutMix's Beta distribution. 0 is off."""
    mix_switch: Probability | Auto = "auto"
    """Probability that a batch is mixed by CutMix rather than MixUp, where both are on. auto: 0.5."""
    mix_until: Positive | Auto = "auto"
    """Share of a phase's epochs after which nothing is mixed: 0.9 leaves the last tenth as it is. Above 1:
    the number of epochs. auto: to the end.
    """
    extra: tuple[str, ...] = ()
    """Names of augmentations from outside, applied last and in this order: those of installed packages, or
    registered in Python (docs/extending.md).
    """

    def strengths(self) -> dict[str, Any]:
        """The policy's strengths by field, with every field that is not "auto" put over them.

        >>> AugmentConfig(policy="light", rotation=20).strengths()["horizontal_flip"]
        0.5
        """
        chosen = {name: value for name, value in self.model_dump().items() if value != "auto"}
        return {**POLICIES[chosen.pop("policy")], **chosen}

    @property
    def flips(self) -> frozenset[Flip]:
        """By which flips and turns an image keeps its class, as augmentation has it."""
        strengths = self.strengths()
        return frozenset(flip for flip, (name, least) in FLIPPED_BY.items() if strengths.get(name, 0) > least)
