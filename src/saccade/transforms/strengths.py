"""How strongly training images are augmented: one value, with no "auto" left, and the named policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from saccade.recipe import AugmentConfig
from saccade.transforms.mix import Mixing

Automatic = Literal["none", "auto_augment", "rand_augment", "trivial_augment", "aug_mix"]
FillMode = Literal["mean", "constant", "nearest", "reflect", "wrap"]


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

    @classmethod
    def from_config(cls, config: AugmentConfig) -> Augmentation:
        """The named policy, with every field of the recipe that is not "auto" put over it."""
        chosen = {name: value for name, value in config.model_dump().items() if value != "auto"}
        policy = POLICIES[chosen.pop("policy")]
        return cls(**{**policy, **chosen})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Augmentation:
        """What `as_json` gave, after it went through a file."""
        return cls(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        )

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
        return self.horizontal_flip > 0

    @property
    def uncovers(self) -> bool:
        """Whether something beyond the image's edge may come into view."""
        moves = (self.rotation, self.zoom, self.shift, self.shear, self.perspective)
        return any(moves) or (self.random_crop > 0 and self.crop_border == "fill")

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
