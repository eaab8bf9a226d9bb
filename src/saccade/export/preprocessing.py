"""`Preprocess` as a graph: what `transforms.apply` does, with the sizes and offsets of `geometry`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saccade.artefact import INPUT_NAME
from saccade.export.graph import Part, Value, listed
from saccade.export.resampling import TILE, Side, add_resize
from saccade.preprocess import Preprocess


@dataclass(frozen=True)
class _Plan:
    """`Geometry` as values of the graph, each int64 (1,)."""

    height: Side
    width: Side
    top: Value
    left: Value


def add_preprocess(part: Part, preprocess: Preprocess) -> None:
    """Resize, crop or pad, normalise: from the file's input to `pixels`, (batch, C, size, size) float32."""
    plan = _plan(part, preprocess)
    whole_tiles = preprocess.resize != "pad" and preprocess.size % TILE == 0
    resized = add_resize(
        part,
        INPUT_NAME,
        plan.height,
        plan.width,
        preprocess.interpolation,
        whole_tiles=whole_tiles,
        channels=preprocess.pixels.count,
    )
    mean, std = np.array(preprocess.mean), np.array(preprocess.std)
    factors = 1 / (preprocess.pixels.largest * std)
    scale = part.constant("scale", factors.reshape(1, -1, 1, 1), np.float32)
    shift = part.constant("shift", (mean / std).reshape(1, -1, 1, 1), np.float32)
    if preprocess.resize == "pad":
        _add_pad(part, preprocess.size, resized * scale - shift, plan)
    else:
        part.node("Sub", [resized * scale, shift], "pixels")


def _plan(part: Part, preprocess: Preprocess) -> _Plan:
    """Sizes and offsets as `Preprocess.geometry` has them; every value is positive, so `//` floors."""
    size, zero = part.number(preprocess.size), part.number(0)
    lengths = [
        part.node("Shape", [INPUT_NAME], name, start=axis, end=axis + 1)
        for axis, name in ((1, "height"), (2, "width"))
    ]
    if preprocess.resize == "squash":
        height, width = (Side(length, size, zero, size) for length in lengths)
        return _Plan(height, width, zero, zero)
    if preprocess.resize == "crop":
        shorter = lengths[0].at_most(lengths[1])
        news = [part.number(preprocess.resize_pixels) * length // shorter for length in lengths]
        top, left = ((new - size) // 2 for new in news)
        height, width = (Side(*values, size) for values in zip(lengths, news, (top, left), strict=True))
        return _Plan(height, width, zero, zero)
    longer = lengths[0].at_least(lengths[1])
    news = [(size * length // longer).at_least(1) for length in lengths]
    height, width = (Side(length, new, zero, new) for length, new in zip(lengths, news, strict=True))
    return _Plan(height, width, (size - news[0]) // 2, (size - news[1]) // 2)


def _add_pad(part: Part, size: int, normalised: Value, plan: _Plan) -> None:
    """Zeros around the normalised image: the mean colour."""
    whole = part.number(size)
    below, right = whole - plan.height.new - plan.top, whole - plan.width.new - plan.left
    pads = listed(part, 0, 0, plan.top, plan.left, 0, 0, below, right)
    part.node("Pad", [normalised, pads], "pixels", mode="constant")
