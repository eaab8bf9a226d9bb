"""How strongly training images are augmented: one value, with no "auto" left."""

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
        return cls(**config.strengths())

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
