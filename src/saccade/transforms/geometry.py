"""Where pixels go: evaluation's geometry in uint8, crops, flips, affine maps and perspective.

What a map or padding uncovers is filled as `fill_mode` says, in the sense of Keras: "reflect" repeats the
edge (scipy's reflect, numpy's symmetric), "wrap" begins at the other side again. "mean" is the colour that
is 0 after normalisation, as the bars of resize mode "pad".
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as nn
from torchvision.transforms.v2 import functional

from saccade.preprocess import Preprocess
from saccade.transforms.resize import in_float, resized
from saccade.transforms.strengths import Augmentation

Generator = np.random.Generator

CROP_RATIO = (3 / 4, 4 / 3)  # Szegedy et al. 2015, "Going deeper with convolutions"
CROP_TRIES = 10
# what numpy.pad calls it, of borders that are made of the image
NUMPY_PADDING = {"nearest": "edge", "reflect": "symmetric", "wrap": "wrap", "inner reflect": "reflect"}
CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
TORCH_PADDING = {"nearest": "border", "reflect": "reflection", "wrap": "border"}


def crop(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """To the square input: a random crop of random aspect, or as evaluated and then a padded random crop."""
    if strength.crops_at_random:
        image = _random_resized_crop(image, strength.random_resized_crop, preprocess, rng)
    return _padded_crop(image, strength, preprocess, rng) if strength.random_crop else image


def flip(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Mirror left to right and top to bottom, each with its probability."""
    horizontal, vertical = rng.random(2)
    if horizontal < strength.horizontal_flip:
        image = image.flip(-1)
    if vertical < strength.vertical_flip:
        image = image.flip(-2)
    return image


def affine(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Rotation, zoom, shift and shear about the centre in one resampling."""
    angle, zoom, shift_x, shift_y, shear = rng.uniform(-1, 1, 5)
    side = image.shape[-1]
    back = _inverse_map(
        math.radians(angle * strength.rotation),
        math.tan(math.radians(shear * strength.shear)),
        1 + zoom * strength.zoom,
        round(shift_x * strength.shift * side) * 2 / side,
        round(shift_y * strength.shift * side) * 2 / side,
    )
    return _moved(image, _grid(back, side), strength, preprocess)


def perspective(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    """Each corner moves inwards, along both sides, by up to a share of half the side."""
    inwards = rng.uniform(0, strength.perspective, (4, 2))
    corners = CORNERS * (1 - inwards)
    return _moved(image, _projected(corners, image.shape[-1]), strength, preprocess)


def _projected(corners: NDArray[np.float64], side: int) -> Tensor:
    """(1, side, side, 2): where each pixel comes from when a picture's corners move to `corners` (4, 2)."""
    x, y = corners.T
    u, v = CORNERS.T
    none, one = np.zeros(4), np.ones(4)
    # u = (a x + b y + c) / (g x + h y + 1), and v alike
    of_u = np.stack([x, y, one, none, none, none, -u * x, -u * y], axis=1)
    of_v = np.stack([none, none, none, x, y, one, -v * x, -v * y], axis=1)
    a, b, c, d, e, f, g, h = np.linalg.solve(np.concatenate([of_u, of_v]), np.concatenate([u, v])).tolist()
    centres = _centres(side)
    depth = centres * g + (centres * h + 1)[:, None]
    across = (centres * a + (centres * b + c)[:, None]) / depth
    down = (centres * d + (centres * e + f)[:, None]) / depth
    return torch.stack([across, down], dim=-1)[None]


def _moved(image: Tensor, grid: Tensor, strength: Augmentation, preprocess: Preprocess) -> Tensor:
    """(C, S, S) resampled at `grid` (1, S, S, 2), in -1..1; what lies outside is filled."""
    if strength.fill_mode in TORCH_PADDING:
        if strength.fill_mode == "wrap":
            image, grid = _wrapped(image, grid)
        padding = TORCH_PADDING[strength.fill_mode]
        moved = nn.grid_sample(image[None].float(), grid, padding_mode=padding, align_corners=False)[0]
        return moved.round_().to(image.dtype)
    # about the colour, so that the edge fades into it
    fill = fill_plane(strength, preprocess)
    moved = nn.grid_sample((image - fill)[None], grid, align_corners=False)[0]
    return moved.add_(fill).round_().to(image.dtype)  # a mean of values in 0..255 stays there


def _wrapped(image: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """The first row and column once more at the end, to blend into, and the places within that."""
    side = image.shape[-1]
    image = torch.cat([image, image[:, :1]], dim=1)
    image = torch.cat([image, image[:, :, :1]], dim=2)
    places = ((grid + 1) * side / 2 - 0.5).remainder_(side)
    return image, (places + 0.5) * 2 / (side + 1) - 1


def _inverse_map(
    angle: float, shear: float, scale: float, shift_x: float, shift_y: float
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Where a point of the result comes from; the map is turn x shear x scale, then the shift."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    rows = ((cos - sin * shear, sin + cos * shear), (-sin, cos))
    first, second = ((x, y, -x * shift_x - y * shift_y) for x, y in rows)
    return first, second


def _grid(rows: tuple[tuple[float, float, float], ...], side: int) -> Tensor:
    """(1, side, side, 2): where each pixel comes from, in -1..1; as `affine_grid`, but quicker."""
    centres = _centres(side)
    grid = torch.empty(1, side, side, 2)
    for axis, (x, y, shift) in enumerate(rows):
        torch.add(centres * x, (centres * y + shift)[:, None], out=grid[0, :, :, axis])
    return grid


@lru_cache(maxsize=8)
def _centres(side: int) -> Tensor:
    return (torch.arange(side) * 2 + 1) / side - 1


def mean_colour(preprocess: Preprocess) -> list[float]:
    """The colour (0 to 255) that becomes 0 after normalisation, to the nearest level; a value a channel."""
    return [float(round(preprocess.pixels.largest * value)) for value in preprocess.mean]


@lru_cache(maxsize=8)
def mean_colour_plane(preprocess: Preprocess) -> Tensor:
    """`mean_colour` as float32 (C, 1, 1)."""
    return torch.tensor(mean_colour(preprocess)).view(-1, 1, 1)


def fill_plane(strength: Augmentation, preprocess: Preprocess) -> Tensor:
    """The colour, float32 (C, 1, 1), that fill modes mean and constant put down."""
    if strength.fill_mode == "mean":
        return mean_colour_plane(preprocess)
    return torch.tensor(constant_colour(strength, preprocess)).view(-1, 1, 1)


def constant_colour(strength: Augmentation, preprocess: Preprocess) -> list[float]:
    """`fill_colour`, a value a channel; its mean where the channels are not red, green and blue."""
    pixels, colour = preprocess.pixels, [float(value) for value in strength.fill_colour]
    return colour if pixels.is_colour else [sum(colour) / 3 * (pixels.largest // 255)] * pixels.count


def as_evaluated(image: Tensor, preprocess: Preprocess) -> Tensor:
    """The evaluation geometry in uint8 (quicker; within a level or so of the float path), or in uint16."""
    if image.dtype == torch.uint16:
        return in_float(lambda values: as_evaluated(values, preprocess), image)
    plan = preprocess.geometry(*image.shape[-2:])
    image = resized(image, plan.height, plan.width, preprocess.interpolation)
    if preprocess.resize == "pad":
        return _on_square(image, plan.top, plan.left, preprocess.size, preprocess)
    return image[..., plan.top : plan.top + preprocess.size, plan.left : plan.left + preprocess.size]


def _on_square(image: Tensor, top: int, left: int, side: int, preprocess: Preprocess) -> Tensor:
    height, width = image.shape[-2:]
    borders = [left, top, side - width - left, side - height - top]
    padded: Tensor = functional.pad(image, borders, fill=mean_colour(preprocess))
    return padded


def _random_resized_crop(image: Tensor, smallest: float, preprocess: Preprocess, rng: Generator) -> Tensor:
    height, width = image.shape[-2:]
    if preprocess.resize == "pad":
        side = max(height, width)
        image = _on_square(image, (side - height) // 2, (side - width) // 2, side, preprocess)
        height = width = side
    # "squash" ignores the aspect, so its crops vary about the image's own
    middle = width / height if preprocess.resize == "squash" else 1.0
    ratio = (CROP_RATIO[0] * middle, CROP_RATIO[1] * middle)
    top, left, box_height, box_width = random_box(height, width, (smallest, 1.0), ratio, rng)
    box = image[..., top : top + box_height, left : left + box_width]
    return resized(box, preprocess.size, preprocess.size, preprocess.interpolation)


def _padded_crop(image: Tensor, strength: Augmentation, preprocess: Preprocess, rng: Generator) -> Tensor:
    border = round(strength.random_crop * preprocess.size)
    top, left = rng.integers(0, 2 * border + 1, 2)
    if strength.border in NUMPY_PADDING:
        places = np.pad(np.arange(preprocess.size), border, mode=NUMPY_PADDING[strength.border])  # type: ignore[call-overload]
        rows, columns = (torch.from_numpy(places[start:][: preprocess.size]) for start in (top, left))
        return image[:, rows][:, :, columns]
    means = strength.border == "mean"
    colour = mean_colour(preprocess) if means else constant_colour(strength, preprocess)
    padded: Tensor = functional.pad(image, [border] * 4, fill=colour)
    return padded[..., top : top + preprocess.size, left : left + preprocess.size]


def random_box(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float], rng: Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width) at a random place: area uniform, aspect log-uniform. Of CROP_TRIES the first
    that fits; where none does, the first is cut to the image."""
    draws = rng.random(2 * CROP_TRIES + 2)  # at once: each call lets other threads in between
    low, high = math.log(ratio[0]), math.log(ratio[1])
    areas = ((area[0] + (area[1] - area[0]) * draws[:CROP_TRIES]) * height * width).tolist()
    ratios = np.exp(low + (high - low) * draws[CROP_TRIES:-2]).tolist()
    tries = (_sides(*one) for one in zip(areas, ratios, strict=True))
    fitting = next((box for box in tries if box[0] <= height and box[1] <= width), None)
    box_height, box_width = fitting or _sides(areas[0], ratios[0])
    box_height, box_width = min(box_height, height), min(box_width, width)
    down, right = draws[-2:].tolist()
    return int(down * (height - box_height + 1)), int(right * (width - box_width + 1)), box_height, box_width


def _sides(area: float, ratio: float) -> tuple[int, int]:
    """Height and width."""
    return max(1, round(math.sqrt(area / ratio))), max(1, round(math.sqrt(area * ratio)))
