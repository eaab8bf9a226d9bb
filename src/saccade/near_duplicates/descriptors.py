"""What the search for near-duplicates keeps of an image, and the vectors it is compared by.

An image is kept as a 64 x 64 gray thumbnail and the width of its uniform border (4 kB). All else is
computed from that in batches: gradient-orientation grids of the whole picture and of parts of it, of its
mirror image and of quarter turns.

The grid is the one of SIFT and HOG, once over the whole picture: Lowe, "Distinctive Image Features from
Scale-Invariant Keypoints", IJCV 2004; square root after Arandjelovic and Zisserman, CVPR 2012.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.near_duplicates.stored import chosen_rows, fit_in_memory, stored_array

DESCRIBING_VERSION = 1  # rises with every change of what `describe` makes of pixels
THUMBNAIL_SIDE = 64
GRID_SIDE = 32  # gradients are taken at this size
BINS = 8  # of orientation, modulo 180 degrees, so that an inverted image has the same grid
CELLS = 4
GRID_LENGTH = BINS * CELLS * CELLS

BORDER_TOLERANCE = 6  # levels by which a border may vary
SMALLEST_KEPT = 12  # pixels of a side that trimming always leaves
EQUAL_CHANNELS = (1 / 3, 1 / 3, 1 / 3, 0)  # gray that a change of hue moves less than it moves luma
BORDER_UNITS = 256
SMALLEST_BORDER = 5  # units; less is not worth a second look
WORKING_SIDE = 128  # a photo is reduced until its shorter side is just above this

Floats = NDArray[np.float32]
Indices = NDArray[np.integer[Any]]

WHOLE_BOX = np.array([-1, 1, -1, 1], np.float32)


@dataclass(frozen=True)
class Description:
    """One image; the fields are rows of those of Descriptions."""

    thumbnail: NDArray[np.uint8]
    border: NDArray[np.uint8]
    size: NDArray[np.int32]


@dataclass(frozen=True)
class Descriptions:
    """Many images, one row each; plain arrays that can be indexed, joined, saved and loaded.

    `thumbnails` uint8 (n, 64, 64), gray. `borders` uint8 (n, 4): 256ths of the side that are a border of one
    colour at the top, bottom, left and right. `sizes` int32 (n, 2): height and width in pixels.
    """

    thumbnails: NDArray[np.uint8]
    borders: NDArray[np.uint8]
    sizes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.thumbnails)

    def __getitem__(self, rows: Any) -> Descriptions:
        """The rows named by a slice, an integer array or a boolean array."""
        return Descriptions(self.thumbnails[rows], self.borders[rows], self.sizes[rows])

    def some(self, rows: NDArray[np.int64]) -> Descriptions:
        """These rows; thumbnails of more than fit in memory stay on disk."""
        if len(rows) == len(self):
            return self
        if fit_in_memory(len(rows)):
            return self[rows]
        return Descriptions(chosen_rows([self.thumbnails], rows), self.borders[rows], self.sizes[rows])

    def put(self, rows: Any, some: Descriptions) -> None:
        """Write other descriptions into these rows."""
        for name, array in self.arrays().items():
            array[rows] = some.arrays()[name]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The plain arrays by name, fit for `numpy.savez`."""
        return {"thumbnails": self.thumbnails, "borders": self.borders, "sizes": self.sizes}


def empty_descriptions(count: int = 0) -> Descriptions:
    """All zero; thumbnails of more than fit in memory lie on disk."""
    zeros = np.zeros if fit_in_memory(count) else stored_array
    return Descriptions(
        zeros((count, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8),
        np.zeros((count, 4), np.uint8),
        np.zeros((count, 2), np.int32),
    )


def describe(pixels: NDArray[np.uint8]) -> Description:
    """Thumbnail and border of an upright RGB image, uint8 (height, width, 3)."""
    assert pixels.dtype == np.uint8, f"pixels must be uint8, got {pixels.dtype}"
    assert pixels.shape[2:] == (3,), f"pixels must be (height, width, 3), got {pixels.shape}"
    reduced = _reduce(Image.fromarray(pixels))
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    thumbnail = reduced.convert("L", EQUAL_CHANNELS).resize(side, Image.Resampling.BILINEAR)
    top, bottom, left, right = _inside_border(np.asarray(reduced))
    width, height = reduced.size
    cut = np.array([top / height, 1 - bottom / height, left / width, 1 - right / width])
    return Description(
        np.asarray(thumbnail),
        np.floor(cut * BORDER_UNITS).astype(np.uint8),
        np.array(pixels.shape[:2], np.int32),
    )


def describe_many(images: Sequence[NDArray[np.uint8]]) -> Descriptions:
    """Descriptions of many images, one row each, in order; equal to `describe` of each.

    Small square images of one size are described together, in a quarter of the time.
    """
    described = empty_descriptions(len(images))
    by_shape: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, pixels in enumerate(images):
        by_shape[pixels.shape].append(row)
    for shape, rows in by_shape.items():
        small = shape[0] == shape[1] <= WORKING_SIDE  # what is not square, Pillow may resize columns first
        chosen = [images[row] for row in rows]
        described.put(
            np.array(rows), _describe_small(np.stack(chosen)) if small else _described_alone(chosen)
        )
    return described


def _described_alone(images: Sequence[NDArray[np.uint8]]) -> Descriptions:
    return stack([describe(pixels) for pixels in images])


def _describe_small(pixels: NDArray[np.uint8]) -> Descriptions:
    """Of RGB images of one size (n, height, width, 3) that `_reduce` leaves as they are."""
    count, height, width, _ = pixels.shape
    borders = np.zeros((count, 4), np.uint8)
    edges = (pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1])
    framed = np.logical_or.reduce([_of_one_colour(edge) for edge in edges])
    for row in np.flatnonzero(framed).tolist():
        borders[row] = describe(pixels[row]).border
    sizes = np.tile(np.array([height, width], np.int32), (count, 1))
    return Descriptions(_thumbnails(pixels), borders, sizes)


def _of_one_colour(lines: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n,) of lines (n, length, 3): whether there may be a border behind them."""
    spread = lines.max(axis=1) - lines.min(axis=1)
    uniform: NDArray[np.bool_] = spread.max(axis=1) <= 2 * BORDER_TOLERANCE
    return uniform


def _thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 64, 64) as `describe` makes them: all resized along one axis, then all along the other."""
    side = THUMBNAIL_SIDE
    gray: NDArray[np.uint8] = ((pixels.sum(axis=3, dtype=np.uint16) + 1) // 3).astype(np.uint8)
    for _ in range(2):
        count, lines, length = gray.shape
        image = Image.fromarray(gray.reshape(count * lines, length))
        resized = image.resize((side, count * lines), Image.Resampling.BILINEAR)
        gray = np.asarray(resized, np.uint8).reshape(count, lines, side).swapaxes(1, 2)
    return gray


def stack(descriptions: Sequence[Description]) -> Descriptions:
    """Rows out of single descriptions."""
    if not descriptions:
        return empty_descriptions()
    return Descriptions(
        np.stack([each.thumbnail for each in descriptions]),
        np.stack([each.border for each in descriptions]),
        np.stack([each.size for each in descriptions]),
    )


def _reduce(image: Image.Image) -> Image.Image:
    """Averaged over whole blocks until the shorter side is just above WORKING_SIDE pixels."""
    factor = min(image.size) // WORKING_SIDE
    return image.reduce(factor) if factor > 1 else image


def _inside_border(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of what a border of one colour encloses; (height, width, 3) uint8.

    A row or column belongs to the border while every value lies within the tolerance of that side's
    outermost line. A sky that only shades off slowly is therefore no border.
    """
    top, bottom, left, right = 0, pixels.shape[0], 0, pixels.shape[1]
    top += _border_lines(pixels[: max(0, bottom - SMALLEST_KEPT)])
    bottom -= _border_lines(pixels[top + SMALLEST_KEPT :][::-1])
    columns = pixels[top:bottom].swapaxes(0, 1)
    left += _border_lines(columns[: max(0, right - SMALLEST_KEPT)])
    right -= _border_lines(columns[left + SMALLEST_KEPT :][::-1])
    return top, bottom, left, right


def _border_lines(lines: NDArray[np.uint8]) -> int:
    """How many of the first lines, (lines, length, 3), have the colour of the outermost one."""
    if len(lines) == 0 or np.ptp(lines[0], axis=0).max() > 2 * BORDER_TOLERANCE:
        return 0  # whatever its colour is, the outermost line itself does not keep to it
    colour = np.median(lines[0], axis=0)
    low, high = colour - BORDER_TOLERANCE, colour + BORDER_TOLERANCE
    for count, line in enumerate(lines):
        if (line < low).any() or (line > high).any():
            return count
    return len(lines)


@dataclass(frozen=True)
class Variants:
    """Pictures to compare: every image as it is, then once more without its border where it has one.

    `thumbnails` (m, 64, 64), `sizes` (m, 2), `image` (m,) the row of Descriptions, `trimmed` (m,). `boxes`
    (m, 4): left, right, top, bottom of what is no border, on a picture that spans -1..1.
    """

    thumbnails: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    image: NDArray[np.int64]
    trimmed: NDArray[np.bool_]
    boxes: Floats

    def __len__(self) -> int:
        return len(self.thumbnails)

    def __getitem__(self, rows: Any) -> Variants:
        """Some of the pictures; an index array or a boolean array."""
        columns = (self.thumbnails, self.sizes, self.image, self.trimmed, self.boxes)
        return Variants(*(column[rows] for column in columns))

    @classmethod
    def chosen(cls, sources: Sequence[tuple[Variants, NDArray[np.bool_]]]) -> Variants:
        """The rows that are true, of each source; thumbnails are copied once, for there may be many."""
        count = sum(int(rows.sum()) for _, rows in sources)
        thumbnails = np.empty((count, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
        done = 0
        for source, rows in sources:
            place = thumbnails[done : done + int(rows.sum())]
            np.take(source.thumbnails, np.flatnonzero(rows), axis=0, out=place, mode="clip")  # unbuffered
            done += len(place)
        return cls(
            thumbnails,
            np.concatenate([source.sizes[rows] for source, rows in sources]),
            np.concatenate([source.image[rows] for source, rows in sources]),
            np.concatenate([source.trimmed[rows] for source, rows in sources]),
            np.concatenate([source.boxes[rows] for source, rows in sources]),
        )


def variants(descriptions: Descriptions) -> tuple[Variants, Variants]:
    """The pictures as they are, and those that have a border without it.

    Both are kept because what looks like a border is sometimes a part of the photo (a dark background), and
    noise or compression may hide it in one copy.
    """
    top, bottom, left, right = descriptions.borders.T.astype(np.float32) / BORDER_UNITS
    boxes = np.stack([2 * left - 1, 1 - 2 * right, 2 * top - 1, 1 - 2 * bottom], axis=1)
    count = len(descriptions)
    everything, no_images = np.arange(count), np.zeros(count, bool)
    whole = Variants(descriptions.thumbnails, descriptions.sizes, everything, no_images, boxes)
    bordered = np.flatnonzero(descriptions.borders.max(axis=1, initial=0) >= SMALLEST_BORDER)
    kept = np.stack([1 - top - bottom, 1 - left - right], axis=1)[bordered]
    inside = Variants(
        np.array([_without_border(descriptions, row) for row in bordered.tolist()], np.uint8).reshape(
            -1, THUMBNAIL_SIDE, THUMBNAIL_SIDE
        ),
        np.rint(descriptions.sizes[bordered] * kept).astype(np.int32),
        bordered,
        np.ones(len(bordered), bool),
        np.tile(WHOLE_BOX, (len(bordered), 1)),
    )
    return whole, inside


def _without_border(descriptions: Descriptions, row: int) -> NDArray[np.uint8]:
    side = THUMBNAIL_SIDE
    top, bottom, left, right = (descriptions.borders[row] / BORDER_UNITS * side).tolist()
    thumbnail = Image.fromarray(descriptions.thumbnails[row])
    box = (left, top, side - right, side - bottom)
    return np.asarray(thumbnail.resize((side, side), Image.Resampling.BILINEAR, box=box))


# --- from thumbnails to vectors ---------------------------------------------------------------------------


def shrink(pictures: NDArray[np.uint8], side: int) -> Floats:
    """(n, larger, larger) averaged over blocks to float32 (n, side, side)."""
    block = pictures.shape[1] // side
    total = np.zeros((len(pictures), side, side), np.uint16)
    for row in range(block):
        for column in range(block):
            total += pictures[:, row::block, column::block]
    return total.astype(np.float32) * np.float32(1 / block**2)


def orientation_maps(gray: Floats) -> Floats:
    """(n, side, side) to (n, 8, side, side): gradient magnitude, shared by the two nearest orientations."""
    padded = np.pad(gray, ((0, 0), (1, 1), (1, 1)), mode="edge")
    along_x = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    along_y = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    magnitude = np.hypot(along_x, along_y)
    angle = np.arctan2(along_y, along_x) * np.float32(BINS / np.pi)
    angle %= BINS
    maps = np.empty((len(gray), BINS, *gray.shape[1:]), np.float32)
    for orientation in range(BINS):
        distance = np.abs(angle - orientation)
        if orientation == 0:  # orientation 8 is orientation 0 again
            np.minimum(distance, BINS - angle, out=distance)
        np.subtract(1, distance, out=distance)
        np.maximum(distance, 0, out=distance)
        np.multiply(distance, magnitude, out=maps[:, orientation])
    return maps


def pooling_matrix(start: float, length: float, *, cells: int = CELLS, side: int = GRID_SIDE) -> Floats:
    """(cells, side) triangular weights of the pixels for each cell of the stretch [start, start + length].

    Positions are shares of the side. Pixels outside the stretch weigh nothing.
    """
    centre = (np.arange(side) + 0.5) / side
    width = length / cells
    cell_centre = start + (np.arange(cells) + 0.5) * width
    weight = np.maximum(0, 1 - np.abs(centre - cell_centre[:, None]) / width)
    low, high = centre - 0.5 / side, centre + 0.5 / side
    covered = np.clip((np.minimum(high, start + length) - np.maximum(low, start)) * side, 0, 1)
    matrix: Floats = (weight * covered).astype(np.float32)
    return matrix


def pool(maps: Floats, along_y: Floats, along_x: Floats) -> Floats:
    """(n, 8, side, side) to (n, 8, rows, columns) by a (rows, side) and a (columns, side) matrix."""
    count, bins, side, _ = maps.shape
    columns = (maps.reshape(-1, side) @ along_x.T).reshape(count * bins, side, len(along_x))
    pooled: Floats = np.matmul(along_y, columns).reshape(count, bins, len(along_y), len(along_x))
    return pooled


def unit_grid(pooled: Floats) -> Floats:
    """(n, 8, 4, 4) to unit vectors (n, 128) of square roots; zero where there is no gradient at all."""
    return unit(np.sqrt(pooled).reshape(len(pooled), -1))


def unit(vectors: Floats) -> Floats:
    """Rows scaled to length 1; rows of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = (vectors / np.maximum(length, 1e-9)).astype(np.float32, copy=False)
    return scaled


@dataclass(frozen=True)
class Symmetry:
    """Mirrored left to right if `mirrored`, then `quarter_turns` counter-clockwise."""

    mirrored: bool = False
    quarter_turns: int = 0

    @property
    def matrix(self) -> Floats:
        """(2, 2): where in the original (x right, y down) a point of the changed picture comes from."""
        turn = np.array([[0, -1], [1, 0]], np.float32)
        flip = np.diag(np.array([-1 if self.mirrored else 1, 1], np.float32))
        matrix: Floats = (flip @ np.linalg.matrix_power(turn, self.quarter_turns)).astype(np.float32)
        return matrix

    def images(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The changed pictures, (n, side, side)."""
        return np.rot90(pixels[:, :, ::-1] if self.mirrored else pixels, self.quarter_turns, axes=(1, 2))

    def grid(self, grids: Floats) -> Floats:
        """Grids (n, 128) of the changed pictures, from those of the originals."""
        if not self.mirrored and not self.quarter_turns:
            return grids
        cells = grids.reshape(-1, BINS, CELLS, CELLS)
        bins = np.arange(BINS)
        if self.mirrored:
            cells = cells[:, -bins % BINS, :, ::-1]
        if self.quarter_turns % 2:
            cells = cells[:, (bins + BINS // 2) % BINS]
        turned = np.rot90(cells, self.quarter_turns, axes=(2, 3))
        changed: Floats = np.ascontiguousarray(turned).reshape(len(grids), -1)
        return changed


def symmetry_list(count: int) -> tuple[Symmetry, ...]:
    """The first 1, 2 or 8: as it is, mirrored, and these with quarter turns."""
    assert count in (1, 2, 8), f"symmetries must be 1, 2 or 8, got {count}"
    turns = (0,) if count < 8 else (0, 1, 2, 3)
    mirrorings = (False,) if count == 1 else (False, True)
    return tuple(Symmetry(mirrored, turn) for turn in turns for mirrored in mirrorings)


def in_batches(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover range(count)."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
