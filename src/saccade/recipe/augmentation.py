"""The recipe's section on augmentation, and the named policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from saccade.recipe.fields import Refusal, Section
from saccade.recipe.sections import Auto, NotNegative, Positive, Probability, Share

Level = Annotated[int, Field(ge=0, le=255)]
CROP_STEP = "random_resized_crop"
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


# step of your own composition -> its strength where none is given
STEP_STRENGTHS: dict[str, float] = {
    "random_resized_crop": 0.5,
    "random_crop": 0.1,
    "rotation": 15.0,
    "zoom": 0.2,
    "shift": 0.1,
    "shear": 10.0,
    "perspective": 0.3,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "hue": 0.05,
    "sharpness": 0.5,
    "blur": 0.01,
    "jpeg_quality": 50,
}
# steps that happen or not
BY_CHANCE = ("horizontal_flip", "vertical_flip", "grayscale", "cutout")
AUTOMATIC_STEPS = ("auto_augment", "rand_augment", "trivial_augment", "aug_mix")
OWN_STEPS = (*STEP_STRENGTHS, *BY_CHANCE, *AUTOMATIC_STEPS)
# fields that count beside steps of your own; the others are the policy's
BESIDE_STEPS = (
    *("steps", "fill_mode", "fill_colour", "mix_up", "cut_mix", "mix_switch", "mix_until", "extra"),
)


class AugmentStep(Section):
    """One step of your own composition.

    `name` is that of a field below [augment], of an automatic policy, or of an augmentation from outside.
    `strength` is what the field would hold; "auto" is a usual one.

    >>> AugmentStep(name="rotation", probability=0.5).strength
    'auto'
    """

    name: str
    probability: Probability = 1.0
    strength: float | Auto = "auto"

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        """A text is a name; other keys are named with those that there are."""
        if isinstance(value, str):
            return {"name": value}
        unknown = value.keys() - cls.model_fields.keys() if isinstance(value, Mapping) else ()
        if unknown:
            raise Refusal(
                f"augment.steps: unknown key {sorted(unknown)[0]!r}",
                hint="a step has a name, and may have a probability and a strength",
            )
        return value

    @model_validator(mode="after")
    def _hold(self) -> AugmentStep:
        if not self.name:
            raise Refusal("augment.steps: a step without a name", hint=f"known: {', '.join(OWN_STEPS)}")
        if self.strength != "auto" and self.name not in STEP_STRENGTHS:
            raise Refusal(
                f"augment.steps: {self.name} has no strength, but one is given: {self.strength:g}",
                hint="give a probability, or leave it out",
            )
        if self.name == CROP_STEP and self.probability < 1:
            raise Refusal(
                f"augment.steps: {CROP_STEP} gives images their size, so its probability is 1, "
                f"not {self.probability:g}",
                hint="leave the probability out",
            )
        return self


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
    """Names of augmentations from outside, applied last and in this order: those of installed packages,
    registered in Python, or package.module:function (docs/extending.md).
    """
    steps: tuple[AugmentStep, ...] = ()
    """Your own composition in place of the policy: [[augment.steps]] in a recipe file, each with a name, a
    probability and a strength, in their order. As a flag: names with commas between (docs/augmentation.md).
    """

    @model_validator(mode="after")
    def _compose(self) -> AugmentConfig:
        for number, step in enumerate(self.steps):
            if number and step.name == CROP_STEP:
                raise Refusal(
                    f"augment.steps: {CROP_STEP} stands in place {number + 1}",
                    hint="let it be the first step: it gives images their size",
                )
            if step.strength != "auto":
                _check_strength(step.name, step.strength)
        return self

    def strengths(self) -> dict[str, Any]:
        """The policy's strengths by field, with every field that is not "auto" put over them; where steps are
        given, only what counts beside them.

        >>> AugmentConfig(policy="light", rotation=20).strengths()["horizontal_flip"]
        0.5
        """
        chosen = {name: value for name, value in self if value != "auto"}
        if self.steps:
            return {name: value for name, value in chosen.items() if name in BESIDE_STEPS}
        return {**POLICIES[chosen.pop("policy")], **chosen}

    @property
    def flips(self) -> frozenset[Flip]:
        """By which flips and turns an image keeps its class, as augmentation has it."""
        strengths = self.strengths()
        for step in self.steps:
            if step.probability and step.name in OWN_STEPS:
                usual = STEP_STRENGTHS.get(step.name, 1.0)
                strengths[step.name] = usual if step.strength == "auto" else step.strength
        return frozenset(flip for flip, (name, least) in FLIPPED_BY.items() if strengths.get(name, 0) > least)

    @property
    def from_outside(self) -> tuple[str, ...]:
        """Names that others' packages, or the user's own functions, must offer."""
        return (*self.extra, *(step.name for step in self.steps if step.name not in OWN_STEPS))


def _check_strength(name: str, strength: float) -> None:
    """A step's strength is one that its field could hold."""
    try:
        AugmentConfig.model_validate({name: strength})
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Input ")
        raise Refusal(
            f"augment.steps: the strength of {name} {said}: {strength:g}",
            hint=f"`saccade train --help augment.{name}` says what it takes",
        ) from None
