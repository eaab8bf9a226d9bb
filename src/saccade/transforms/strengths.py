"""How strongly training images are augmented: one value, with no "auto" left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, cast

from saccade.recipe import AugmentConfig
from saccade.recipe.augmentation import (
    AUTOMATIC_STEPS,
    CROP_STEP,
    OWN_STEPS,
    STEP_STRENGTHS,
    AugmentStep,
)
from saccade.transforms.mix import Mixing

Automatic = Literal["none", "auto_augment", "rand_augment", "trivial_augment", "aug_mix"]
UNCOVERING = ("rotation", "zoom", "shift", "shear", "perspective", "random_crop")
FillMode = Literal["mean", "constant", "nearest", "reflect", "wrap"]


class ListedStep(NamedTuple):
    """A step of the user's own composition; `strength` is what its field would hold, 1 where it has none."""

    name: str
    probability: float = 1.0
    strength: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """Resolved strengths: no "auto" left. The defaults change nothing."""

    random_resized_crop: float = 1.0
    random_crop: float = 0.0
    crop_border: Literal["fill", "mean", "reflect"] = "fill"
    horizontal_flip: float = 0.0
    alternate_flip: bool = False
    vertical_flip: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    fill_mode: FillMode = "mean"
    fill_colour: tuple[int, int, int] = (0, 0, 0)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    sharpness: float = 0.0
    blur: float = 0.0
    jpeg_quality: int = 100
    automatic: Automatic = "none"
    cutout: float = 0.0
    mix_up: float = 0.0
    cut_mix: float = 0.0
    mix_switch: float = 0.5
    mix_until: float = 1.0
    extra: tuple[str, ...] = ()
    steps: tuple[ListedStep, ...] = ()

    @classmethod
    def from_config(cls, config: AugmentConfig) -> Augmentation:
        """The named policy, with every field of the recipe that is not "auto" put over it; or the recipe's
        own steps."""
        strengths = config.strengths()
        listed = [_listed(step) for step in strengths.pop("steps", ())]
        if listed and listed[0].name == CROP_STEP:  # which gives images their size, before all else
            strengths[CROP_STEP] = listed.pop(0).strength
        return cls(**strengths, steps=tuple(listed))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Augmentation:
        """What `as_json` gave, after it went through a file."""
        strengths: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        steps = tuple(ListedStep(*step) for step in strengths.pop("steps", ()))
        return cls(**strengths, steps=steps)

    def as_json(self) -> dict[str, Any]:
        """What "auto" became, for `environment.json`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def crops_at_random(self) -> bool:
        """Whether a random crop takes the place of evaluation's geometry."""
        return self.random_resized_crop < 1

    @property
    def mirrors(self) -> bool:
        """Whether images are flipped left to right."""
        listed = any(step.name == "horizontal_flip" and step.probability for step in self.steps)
        return listed or self.horizontal_flip > 0

    @property
    def uncovers(self) -> bool:
        """Whether something beyond the image's edge may come into view."""
        moves = (self.rotation, self.zoom, self.shift, self.shear, self.perspective)
        listed = any(step.name in UNCOVERING for step in self.steps)
        return listed or any(moves) or (self.random_crop > 0 and self.crop_border == "fill")

    @property
    def border(self) -> str:
        """How `random_crop` fills its padding: "reflect" of `crop_border` does not repeat the edge."""
        if self.crop_border == "fill":
            return self.fill_mode
        return "mean" if self.crop_border == "mean" else "inner reflect"

    @property
    def mixing(self) -> Mixing:
        """What is done to whole batches."""
        return Mixing(self.mix_up, self.cut_mix, self.mix_switch, self.mix_until)

    def alone(self, listed: ListedStep) -> Augmentation:
        """What does nothing but a step of the composition."""
        fill = Augmentation(fill_mode=self.fill_mode, fill_colour=self.fill_colour)
        if listed.name in AUTOMATIC_STEPS:
            return replace(fill, automatic=cast(Automatic, listed.name))
        if listed.name in OWN_STEPS:
            strength: Any = {listed.name: listed.strength}
            return replace(fill, **strength)
        return replace(fill, extra=(listed.name,))


def _listed(step: AugmentStep) -> ListedStep:
    usual = STEP_STRENGTHS.get(step.name, 1.0)
    return ListedStep(step.name, step.probability, usual if step.strength == "auto" else step.strength)
