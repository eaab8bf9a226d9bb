"""How pixels become the network's input: one frozen definition, stored with the weights.

Training, evaluation, the exported graph and serving all read sizes and offsets from here.
Everything is integer arithmetic, floored, so that torch and ONNX can do exactly the same.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from saccade.errors import ModelError

ResizeMode = Literal["crop", "pad", "squash"]
Interpolation = Literal["bilinear", "bicubic"]

# Pixel values are 0 to 1. Inputs far outside of what networks are made for end in infinite statistics.
SMALLEST_STD, LARGEST_MEAN = 1e-3, 1e3
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
COLOUR, GRAY = "rgb", "gray"
MOST_CHANNELS = 64


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """What a decoded image holds: `channels` is "rgb", "gray" or a number of others; `bits` of each.

    Raises ModelError for another number of channels, or of bits.

    >>> PixelFormat("5", 16).count, PixelFormat("gray").largest
    (5, 255)
    """

    channels: str = COLOUR
    bits: int = 8

    def __post_init__(self) -> None:
        known = self.channels in (COLOUR, GRAY)
        if not known and not (isinstance(self.channels, str) and is_channel_number(self.channels)):
            raise ModelError(
                f'channels must be "rgb", "gray" or a number from "2" to "{MOST_CHANNELS}" as text, got '
                f"{self.channels!r}",
                hint="correct it",
            )
        if type(self.bits) is not int or self.bits not in (8, 16) or (self.is_colour and self.bits != 8):
            raise ModelError(
                f"channels have 8 bits, or 16 where they are not rgb, got {self.bits}", hint="correct it"
            )

    @property
    def is_colour(self) -> bool:
        """Whether the channels are red, green and blue of 8 bits, as in photos."""
        return self.channels == COLOUR

    @property
    def count(self) -> int:
        """Channels of an image."""
        return {COLOUR: 3, GRAY: 1}.get(self.channels) or int(self.channels)

    @property
    def largest(self) -> int:
        """The value that is 1 once pixels are scaled: 255 or 65535."""
        return (1 << self.bits) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return np.dtype(f"uint{self.bits}")

    def __str__(self) -> str:
        names = {COLOUR: "RGB", GRAY: "gray"}
        return f"{names.get(self.channels, f'{self.channels} channels')} of {self.bits} bits"


def is_channel_number(text: str) -> bool:
    """Whether `text` is a number of channels as it stands in a recipe: 2 to 64, in its shortest form."""
    return text.isdecimal() and 2 <= int(text) <= MOST_CHANNELS and text == str(int(text))


RGB = PixelFormat()


@dataclass(frozen=True, slots=True)
class Geometry:
    """Integer plan for one image: resize to `height` x `width`, then cut or pad to the square.

    `top` and `left` are the offsets of the square inside the resized image for "crop",
    and of the resized image inside the square for "pad"; both 0 for "squash".
    """

    height: int
    width: int
    top: int
    left: int


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Resize, crop or pad, and normalise; pixel values are scaled to 0..1 before mean and std.

    `size` is the side of the square input in pixels. `crop_fraction` is timm's `crop_pct`: with
    resize "crop" the short side becomes `size / crop_fraction` pixels, then the centre is cut out.
    "pad" fits the long side and fills with the mean colour; "squash" ignores the aspect.
    `mean` and `std` have a value for each channel of `pixels`: red, green, blue where nothing else is said.
    Raises ModelError for values that do not hold.

    >>> Preprocess(224, crop_fraction=0.875).resize_pixels
    256
    """

    size: int
    resize: ResizeMode = "crop"
    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 0.875
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    pixels: PixelFormat = field(default=RGB, repr=False)  # not in keys of caches: they name it themselves

    def __post_init__(self) -> None:
        problems = []
        if self.size < 1:
            problems.append(f"size must be at least 1 pixel, got {self.size}")
        if self.resize not in get_args(ResizeMode):
            problems.append(f"resize must be one of {', '.join(get_args(ResizeMode))}, got {self.resize!r}")
        if self.interpolation not in get_args(Interpolation):
            names = ", ".join(get_args(Interpolation))
            problems.append(f"interpolation must be one of {names}, got {self.interpolation!r}")
        if not 0.1 <= self.crop_fraction <= 1:
            problems.append(f"crop_fraction must lie between 0.1 and 1, got {self.crop_fraction}")
        if {len(self.mean), len(self.std)} != {self.pixels.count}:
            needed = "three values" if self.pixels.is_colour else f"a value for each of {self.pixels.count}"
            problems.append(f"mean and std need {needed} each, got {self.mean} and {self.std}")
        if not all(abs(value) <= LARGEST_MEAN for value in self.mean):
            problems.append(f"every mean must lie within {LARGEST_MEAN:g} of 0, got {self.mean}")
        if not all(SMALLEST_STD <= value < math.inf for value in self.std):
            problems.append(f"every std must be at least {SMALLEST_STD:g}, got {self.std}")
        if problems:
            raise ModelError(
                f"the preprocessing is not valid: {'; '.join(problems)}", hint="correct these values"
            )

    @property
    def resize_pixels(self) -> int:
        """Length of the short side after the resize of mode "crop", before the centre is cut out."""
        return max(self.size, int(self.size / self.crop_fraction))

    def geometry(self, height: int, width: int) -> Geometry:
        """Plan for an image of `height` x `width` pixels; all divisions floored, no side below 1 pixel.

        >>> Preprocess(224).geometry(480, 640)
        Geometry(height=256, width=341, top=16, left=58)
        """
        size = self.size
        if self.resize == "squash":
            return Geometry(size, size, 0, 0)
        if self.resize == "crop":
            short = self.resize_pixels
            shorter = min(height, width)
            new_height = short * height // shorter
            new_width = short * width // shorter
            return Geometry(new_height, new_width, (new_height - size) // 2, (new_width - size) // 2)
        longer = max(height, width)
        new_height = max(1, size * height // longer)
        new_width = max(1, size * width // longer)
        return Geometry(new_height, new_width, (size - new_height) // 2, (size - new_width) // 2)

    def as_json(self) -> dict[str, Any]:
        """Plain values, as they stand in `model.json` and in the metadata of `model.onnx`.

        >>> Preprocess(224).as_json()["resize"]
        'crop'
        """
        values = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        if self.pixels.is_colour:
            del values["pixels"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocess:
        """Read what `as_json` wrote; unknown or missing keys are refused with a ModelError.

        >>> Preprocess.from_json(Preprocess(224).as_json()) == Preprocess(224)
        True
        """
        try:
            pixels = PixelFormat(**values.get("pixels", {}))
            sides = {"mean": tuple(values["mean"]), "std": tuple(values["std"]), "pixels": pixels}
            return cls(**{**values, **sides})
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise ModelError(
                f"the stored preprocessing cannot be read ({error})",
                hint="export the model again",
            ) from None
