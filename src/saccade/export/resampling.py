"""Antialiased resize as two matrix products, in operators that every engine has.

ONNX's own Resize can antialias, but engines that do not know that attribute leave it out without a word
(OpenVINO on CPU, TensorRT) or refuse the file (WebGPU). Here the weights of the source pixels are computed
in the graph from the image's size, so nothing can be left out. They are those of torch and Pillow: a filter
as wide as the reduction, cut off at the border and divided by its sum.

Positions are whole numbers: with pixel centres at odd multiples of 1 / (2 * new) of the side, the distance
between source pixel j and result pixel i is ((2 j + 1) new - (2 i + 1) length) / (2 new) source pixels.
int64 holds it exactly, and only the quotient is rounded. The same in float32 from the start would be off
by 1e-3 of a pixel on a photo of 4,000 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from saccade.export.graph import Part, Value
from saccade.preprocess import Interpolation

TILE = 16  # rows of the result that share a window of source rows; 8 and 32 were no quicker
SUPPORT: dict[Interpolation, int] = {"bilinear": 1, "bicubic": 2}


@dataclass(frozen=True)
class Side:
    """One direction of the resize, every value int64 (1,).

    `length` source pixels become `new`, and of these `count` from `start` on are wanted.
    """

    length: Value
    new: Value
    start: Value
    count: Value


@dataclass(frozen=True)
class Windows:
    """Where each tile of the result comes from.

    `first` (tiles, 1, 1) and `width` (1,): the source pixels of a tile; `weights` (tiles, rows of a tile,
    width) float32: what each of them counts in each row of the result.
    """

    tiles: Value
    first: Value
    width: Value
    weights: Value

    @property
    def positions(self) -> Value:
        """(tiles, 1, width) positions of the source pixels."""
        return self.first + self.width.counted()


def add_resize(
    part: Part,
    image: str,
    height: Side,
    width: Side,
    interpolation: Interpolation,
    *,
    whole_tiles: bool,
    channels: int = 3,
) -> Value:
    """`image` (batch, height, width, channels) to float32 (batch, channels, height.count, width.count).

    Rows come first, a tile at a time, because a whole matrix would be nearly all zeros on a photo. Columns
    take one product. `whole_tiles` says that height.count is a multiple of TILE.
    """
    columns = _windows(part, width, interpolation, tile=width.count)
    rows = _windows(part, height, interpolation, tile=part.number(TILE))
    begin = columns.first.reshaped(-1)
    read = part.node("Slice", [image, begin, begin + columns.width, part.number(2)], "columns")
    tall = _shrunk_rows(read, rows, columns.width, channels)
    if not whole_tiles:
        tall = part.node("Slice", [tall, part.number(0), height.count, part.number(1)])
    planes = tall.apply("Transpose", perm=[0, 3, 1, 2])
    weights = columns.weights.reshaped(width.count, -1).apply("Transpose", perm=[1, 0])
    return part.node("MatMul", [planes, weights], "resized")


def _shrunk_rows(image: Value, rows: Windows, width: Value, channels: int) -> Value:
    """(batch, height, width, channels) to (batch, tiles * TILE, width, channels) float32."""
    lines = image.reshaped(0, 0, -1)
    read = lines.apply("Gather", rows.positions.reshaped(-1), axis=1).as_float()
    tiled = read.reshaped(0, rows.tiles, rows.width, -1)
    return rows.weights.apply("MatMul", tiled).reshaped(0, rows.tiles * TILE, width, channels)


def _windows(part: Part, side: Side, interpolation: Interpolation, *, tile: Value) -> Windows:
    """The last tile repeats the last row where `tile` does not divide the count."""
    tiles = (side.count + tile - 1) // tile
    wanted = (tiles * tile).counted().at_most(side.count - 1) + side.start
    centres = ((wanted * 2 + 1) * side.length).reshaped(tiles, tile, 1)
    unit = side.length.at_least(side.new) * 2  # the filter's unit: wider than a pixel where it reduces
    reach = unit * SUPPORT[interpolation]
    # From the first row's lowest pixel to the last row's highest, and one for each rounding.
    width = (((tile - 1) * side.length + reach) // side.new + 2).at_most(side.length)
    lowest = part.node("Slice", [centres, part.number(0), part.number(1), part.number(1)]) - reach
    first = (lowest.at_least(0) // (side.new * 2)).at_most(side.length - width)
    odd = (first + width.counted()) * 2 + 1
    distances = (odd * side.new - centres).as_float() / unit.as_float()
    return Windows(tiles, first, width, _weights(distances.apply("Abs"), interpolation))


def _weights(distances: Value, interpolation: Interpolation) -> Value:
    """The filter at these distances, each row divided by its sum."""
    values = _triangle(distances) if interpolation == "bilinear" else _cubic(distances)
    return values / values.apply("ReduceSum", -1, keepdims=1)


def _triangle(distances: Value) -> Value:
    return (distances * -1.0 + 1.0).apply("Relu")


def _cubic(distances: Value) -> Value:
    """Twice Keys' cubic with a = -0.5 (1981), which torch and Pillow use; ONNX's own default is -0.75.

    Its two pieces, below 1 and from 1 to 2, are one sum: u^2 (u - 1) for both, and for the inner one
    2 v^2 (1 - 2 v) on top, where u and v are what is left to 2 and to 1, or 0.
    """
    outer = (distances * -1.0 + 2.0).apply("Relu")
    inner = (distances * -1.0 + 1.0).apply("Relu")
    return outer * outer * (outer - 1.0) + inner * inner * (inner * -4.0 + 2.0)
