"""Which preprocessing belongs to which weights: what their header says, then the architecture's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from saccade.models.weights import Header
from saccade.preprocess import IMAGENET_MEAN, IMAGENET_STD, Interpolation, PixelFormat, Preprocess, ResizeMode

RESIZE_MODES: dict[str, ResizeMode] = {"center": "crop", "squash": "squash", "border": "pad"}
CROP_FRACTIONS = (0.1, 1.0)
# field of Defaults -> its name in Preprocess, for the notes
FIELDS = {
    "mean": "mean",
    "std": "std",
    "crop_fraction": "crop_fraction",
    "interpolation": "interpolation",
    "image_size": "size",
    "crop_mode": "resize",
}


@dataclass(frozen=True)
class Defaults:
    """How a library itself prepares images for an architecture, in timm's words."""

    image_size: int
    crop_fraction: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def choose_preprocess(
    own: Defaults, header: Header, *, name: str, weights: str, image_size: int
) -> tuple[Preprocess, tuple[str, ...]]:
    """The preprocessing, and in words what was not said by the weights or cannot be followed to the letter.

    `image_size` above 0 overrules the weights' own. Raises ModelError for values that do not hold.
    """
    chosen: dict[str, Any] = {field: getattr(header, field) or getattr(own, field) for field in FIELDS}
    asked = {"image_size"} if image_size else set()
    absent = [field for field in FIELDS if not getattr(header, field) and field not in asked]
    fraction, fraction_notes = _fraction(chosen["crop_fraction"])
    interpolation, interpolation_notes = _interpolation(chosen["interpolation"])
    resize, resize_notes = _resize(chosen["crop_mode"])
    preprocess = Preprocess(
        size=image_size or chosen["image_size"],
        resize=resize,
        interpolation=interpolation,
        crop_fraction=fraction,
        mean=chosen["mean"],
        std=chosen["std"],
    )
    said = (_absent_note(preprocess, absent, name, weights),) if weights and absent else ()
    return preprocess, (*said, *fraction_notes, *interpolation_notes, *resize_notes)


def made_for(pixels: PixelFormat, rgb: Preprocess) -> Preprocess:
    """The preprocessing of RGB weights for other pixels. Gray takes the mean of their three figures.

    Nothing is known of other channels: 0.5 and 0.25 stand in, until the training images say more.
    """
    if pixels.is_colour:
        return rgb
    count = pixels.count
    gray = count == 1
    mean = (round(sum(rgb.mean) / 3, 6),) if gray else (0.5,) * count
    std = (round(sum(rgb.std) / 3, 6),) if gray else (0.25,) * count
    return replace(rgb, mean=mean, std=std, pixels=pixels)


def _absent_note(preprocess: Preprocess, absent: list[str], name: str, weights: str) -> str:
    fields = [FIELDS[field] for field in absent]
    values = ", ".join(f"{field} {_plain(getattr(preprocess, field))}" for field in fields)
    imagenet = (preprocess.mean, preprocess.std) == (IMAGENET_MEAN, IMAGENET_STD)
    whose = f"{name}'s own are used" + (
        " (mean and std are ImageNet's)" if imagenet and "mean" in absent else ""
    )
    return f"the header of {weights} does not say {', '.join(fields)}; {whose}: {values}"


def _plain(value: Any) -> str:
    return ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)


def _interpolation(word: str) -> tuple[Interpolation, tuple[str, ...]]:
    if word == "bilinear":
        return "bilinear", ()
    if word == "bicubic":
        return "bicubic", ()
    return "bicubic", (f"the weights want interpolation {word!r}, which is not offered; bicubic is used",)


def _fraction(value: float) -> tuple[float, tuple[str, ...]]:
    least, most = CROP_FRACTIONS
    if least <= value <= most:
        return value, ()
    nearest = min(max(value, least), most)
    return nearest, (
        f"the weights want a crop fraction of {value:g}, which is not offered; {nearest:g} is used",
    )


def _resize(word: str) -> tuple[Literal["crop", "pad", "squash"], tuple[str, ...]]:
    if word in RESIZE_MODES:
        return RESIZE_MODES[word], ()
    return "crop", (f"the weights want crop mode {word!r}, which is not offered; the centre is cut out",)
