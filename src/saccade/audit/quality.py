"""Measurements of single images (light, sharpness, border, file), and findings about images that teach
little.

All values are measured at a common scale: the longer side is reduced to at most `MEASURE_SIDE` pixels. The
audit uses them for findings (blurred, dark, blank, ...) and in its search for shortcuts (a property that
gives the label away). Luma is that of ITU-R BT.601; levels are scaled to 0..1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.audit.findings import finding, naming_background, some
from saccade.near_duplicates.descriptors import Descriptions
from saccade.records import Dataset, Finding
from saccade.terminal import counted

MEASURING_VERSION = 1  # rises with every change of what `measure_images` makes of pixels
MEASURE_SIDE = 256
UNIFORM_RANGE = 6  # levels; an edge line of pixels with no larger range in any channel is a border

VALUES = np.dtype(
    [
        ("brightness", np.float32),  # mean luma
        ("contrast", np.float32),  # standard deviation of luma
        ("darkest", np.float32),  # 1st percentile of luma
        ("brightest", np.float32),  # 99th percentile of luma
        ("sharpness", np.float32),  # standard deviation of the luma's Laplacian
        ("saturation", np.float32),  # mean of (max - min) / max over the channels
        ("border", np.float32),  # share of the rows and columns that are a uniform border, 0..1
        ("border_brightness", np.float32),  # mean luma of the outermost ring of pixels
        ("jpeg_quality", np.float32),  # as the decoder estimates it; NaN: no JPEG
        ("gray_peak", np.float32),  # largest value of a 16-bit grey image; NaN: any other
        ("file_bytes", np.int64),
    ]
)
FILE_VALUES = ("jpeg_quality", "gray_peak", "file_bytes")  # facts of the file, not of the upright pixels
PIXEL_VALUES = tuple(name for name in VALUES.names or () if name not in FILE_VALUES)


@dataclass(frozen=True, slots=True)
class Measurements:
    """Measured values of a data set's images, row i for `dataset.records[i]`.

    `values` is a structured array with the fields of `VALUES`; rows of images that could not be decoded
    hold NaN. `formats`, `cameras` and `compressions` (a hash of the JPEG's tables) are "" where unknown.
    `descriptions` are what the search for near-duplicates compares; a row of an image that could not be
    decoded is all zero.
    """

    values: NDArray[Any]
    formats: tuple[str, ...]
    cameras: tuple[str, ...]
    compressions: tuple[str, ...]
    descriptions: Descriptions

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> NDArray[np.float64]:
        """(images,) one measured value, as float64."""
        return self.values[name].astype(np.float64)


def blank_values(count: int) -> NDArray[Any]:
    """Rows for images of which nothing is known: NaN, and 0 bytes."""
    values = np.zeros(count, VALUES)
    for name in VALUES.names or ():
        if name != "file_bytes":
            values[name] = np.nan
    return values


def measure_images(images: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
    """Measured values of upright RGB images, each uint8 (height, width, 3); one row an image.

    Images of one size are measured together, which is what makes thousands of small ones cheap.
    FILE_VALUES are facts of the file, not of the pixels: left at NaN and 0.
    """
    values = blank_values(len(images))
    by_shape: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    reduced = [reduce_to_side(image, MEASURE_SIDE) for image in images]
    for row, image in enumerate(reduced):
        by_shape[image.shape].append(row)
    for rows in by_shape.values():
        _measure_stack(np.stack([reduced[row] for row in rows]), values, np.array(rows))
    return values


def reduce_to_side(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The image reduced (area average) so that its longer side has at most `side` pixels; never enlarged."""
    height, width = pixels.shape[:2]
    longer = max(height, width)
    if longer <= side:
        return pixels
    size = (max(1, round(width * side / longer)), max(1, round(height * side / longer)))
    reduced = Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(reduced, dtype=np.uint8)


def _measure_stack(stack: NDArray[np.uint8], values: NDArray[Any], rows: NDArray[np.int64]) -> None:
    planes = np.ascontiguousarray(stack.transpose(3, 0, 1, 2))  # (3, n, height, width): several times quicker
    luma = _luma(planes)
    offset = (np.arange(len(luma), dtype=np.int64) * 256)[:, None]
    histogram = np.bincount((luma.reshape(len(luma), -1) + offset).ravel(), minlength=len(luma) * 256)
    levels = np.arange(256) / 255.0
    levels_of = histogram.reshape(-1, 256).astype(np.float64)  # pixels at each level
    share = levels_of / levels_of.sum(axis=1, keepdims=True)
    mean = share @ levels
    cumulative = share.cumsum(axis=1)
    values["brightness"][rows] = mean
    values["contrast"][rows] = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0))
    values["darkest"][rows] = (cumulative >= 0.01).argmax(axis=1) / 255.0
    values["brightest"][rows] = (cumulative >= 0.99 - 1e-12).argmax(axis=1) / 255.0
    values["sharpness"][rows] = _laplacian_deviation(luma)
    values["saturation"][rows] = _saturation(planes)
    values["border"][rows] = _border_share(planes)
    ring = np.concatenate([luma[:, 0], luma[:, -1], luma[:, :, 0], luma[:, :, -1]], axis=1)
    values["border_brightness"][rows] = ring.mean(axis=1) / 255.0


def _luma(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, height, width) BT.601 luma in levels, by integer arithmetic in 16 bits: 77 + 150 + 29 = 256."""
    total: NDArray[np.uint16] = np.multiply(planes[0], 77, dtype=np.uint16)
    total += np.multiply(planes[1], 150, dtype=np.uint16)
    total += np.multiply(planes[2], 29, dtype=np.uint16)
    total >>= 8
    return total.astype(np.uint8)


def _laplacian_deviation(luma: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n,) standard deviation of the 4-neighbour Laplacian, luma in 0..1; 0 below 3 pixels a side."""
    if min(luma.shape[1:]) < 3:
        return np.zeros(len(luma))
    wide = luma.astype(np.int16)
    inner = wide[:, 1:-1, 1:-1] * np.int16(4)
    inner -= wide[:, :-2, 1:-1]
    inner -= wide[:, 2:, 1:-1]
    inner -= wide[:, 1:-1, :-2]
    inner -= wide[:, 1:-1, 2:]
    deviation: NDArray[np.float64] = inner.reshape(len(luma), -1).std(axis=1, dtype=np.float32) / 255.0
    return deviation


def _saturation(planes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n,) mean saturation of HSV over the pixels."""
    high, low = planes.max(axis=0), planes.min(axis=0)
    ratio = (high - low).astype(np.float32)
    ratio /= np.maximum(high, 1).astype(np.float32)
    mean: NDArray[np.float64] = ratio.reshape(len(ratio), -1).mean(axis=1)
    return mean


def _border_share(planes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n,) uniform rows and columns counted from the four edges, as a share of all rows and columns."""
    _, count, height, width = planes.shape
    share = np.zeros(count)
    edges = (planes[:, :, 0], planes[:, :, -1], planes[..., 0], planes[..., -1])  # each (3, n, pixels)
    framed = np.logical_or.reduce([_uniform(edge, axis=2) for edge in edges])
    if framed.any():  # most photos have no border, and looking at every line costs more than all the rest
        chosen = planes[:, framed]
        uniform = _from_both_ends(_uniform(chosen, axis=3)) + _from_both_ends(_uniform(chosen, axis=2))
        share[framed] = uniform / (height + width)
    return share


def _uniform(pixels: NDArray[np.uint8], *, axis: int) -> NDArray[np.bool_]:
    """Whether the levels along `axis` keep within `UNIFORM_RANGE` in every channel (the first axis)."""
    spread = pixels.max(axis=axis) - pixels.min(axis=axis)
    within: NDArray[np.bool_] = spread.max(axis=0) <= UNIFORM_RANGE
    return within


def _from_both_ends(lines: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) length of the runs of True at the two ends of each row, never more than the row."""
    runs = np.logical_and.accumulate(lines, axis=1).sum(axis=1)
    runs = runs + np.logical_and.accumulate(lines[:, ::-1], axis=1).sum(axis=1)
    capped: NDArray[np.int64] = np.minimum(runs, lines.shape[1])
    return capped


# -- quality ---------------------------------------------------------------------------------------------
# Images that teach little or the wrong thing: blank, dark, bright, blurred, tiny, of odd shape or size.
# Thresholds were set on 2,690 photos of flowers of 143 to 640 px, of which one is called blurred and none
# dark, bright or blank. A Gaussian blur of 0.5, 1, 1.5 % of the longer side, saved as JPEG 85, is found in
# 18, 91, 98 % of 500 of them. Below about 64 px blur cannot be told from low resolution.


DARK_BRIGHTEST = 0.18  # 99 of 100 pixels are darker than this luma
BRIGHT_DARKEST = 0.85  # 99 of 100 pixels are brighter than this luma
BLANK_BORDER = 0.999  # every row and every column is uniform
BLUR_SHARPNESS = 0.10  # deviation of the Laplacian over that of the luma; a blur of 1 % of the side: 0.06
BLUR_CONTRAST = 0.04  # below, what is left of the rounding to whole levels decides the ratio
# What rounding alone gives a Laplacian of weights 4, -1, -1, -1, -1: a variance of 1/12 level for the luma,
# and as much for each channel, weighted by the squares of 0.30, 0.59 and 0.11.
ROUNDING = (20 * (1 + 0.45) / 12) ** 0.5 / 255
TINY_SIDE = 16  # pixels of the shorter side, where the others have at least twice as many
FULL_RANGE = 65535
LEAST_OF_RANGE = 4  # no 16-bit image above a quarter of the range: at most 64 of 256 levels are left
LIKELY_MAXIMA = (255, 1023, 4095, 16383, 65535)  # 8, 10, 12, 14 bits
ODD_ASPECT = 2.5  # times as long or as wide as the median shape
ODD_AREA = 16.0  # times as many or as few pixels as the median image
ONE_SIZE = 0.98  # share of images of exactly one size from which on any other size is odd


def image_quality(
    dataset: Dataset,
    measurements: Measurements,
    *,
    accepted: Collection[str] = (),
    gray_maximum: int = 0,
    keeps_16_bits: bool = False,
) -> list[Finding]:
    """One finding a kind, with the images concerned; `accepted` paths were looked at and kept.

    `gray_maximum` is the value that the decoder took for white in 16-bit images, 0 for the full range;
    `keeps_16_bits` says that none of their levels is lost.
    """
    rows = np.array(
        [i for i, record in enumerate(dataset.records) if record.used and record.path not in accepted],
        np.int64,
    )
    if not len(rows):
        return []
    white = gray_maximum or FULL_RANGE
    low = _low_levels(dataset, measurements, rows, white, keeps_16_bits=keeps_16_bits)
    # few levels make an image black or blank through the conversion, which deleting it does not mend
    lit = rows[np.isnan(measurements.column("gray_peak")[rows])] if low else rows
    return [
        *low,
        *_light(dataset, measurements, lit),
        *_shape(dataset, rows),
    ]


def _light(dataset: Dataset, measurements: Measurements, rows: NDArray[np.int64]) -> list[Finding]:
    column = {name: measurements.column(name)[rows] for name in PIXEL_VALUES}
    blank = column["border"] >= BLANK_BORDER
    dark = ~blank & (column["brightest"] < DARK_BRIGHTEST)
    bright = ~blank & (column["darkest"] > BRIGHT_DARKEST)
    contrast = column["contrast"]
    sharpness = np.sqrt(np.maximum(column["sharpness"] ** 2 - ROUNDING**2, 0))
    relative = sharpness / np.maximum(contrast, 1e-6)
    blurred = ~blank & ~dark & (contrast > BLUR_CONTRAST) & (relative < BLUR_SHARPNESS)
    return [
        *_about(dataset, rows, "blank", "of one colour, nothing to learn from", blank, -contrast),
        *_about(dataset, rows, "too_dark", "almost black", dark, -column["brightness"]),
        *_about(dataset, rows, "too_bright", "almost white", bright, column["brightness"]),
        *_about(dataset, rows, "blurred", "blurred", blurred, -relative),
    ]


def _low_levels(
    dataset: Dataset,
    measurements: Measurements,
    rows: NDArray[np.int64],
    white: int,
    *,
    keeps_16_bits: bool,
) -> list[Finding]:
    """One finding where no 16-bit image comes near white: 10 or 12 bits in 16-bit files, most likely."""
    peaks = measurements.column("gray_peak")[rows]
    deep = ~np.isnan(peaks)
    if not deep.any() or LEAST_OF_RANGE * (peak := int(peaks[deep].max())) >= white:
        return []
    likely = next(maximum for maximum in LIKELY_MAXIMA if maximum >= peak)
    paths = [dataset.records[row].path for row in rows[deep]]
    levels = (peak * 255 + white // 2) // white + 1
    cost = f"{counted(levels, 'grey level')} of 256 left"
    if keeps_16_bits:
        cost = "all levels are kept, but pretrained weights take them for nearly black"
    return [
        finding(
            "low_levels",
            f"{counted(len(paths), '16-bit image')}, none with a value above {peak:,} of {white:,}: "
            f"{cost}: {some(paths)}",
            remedy=f"Say what means white (--data.gray_maximum {likely} for {likely.bit_length()} bits), "
            "or rescale the files to the full range",
            paths=paths,
            figure={"images": len(paths), "peak": peak, "white": white, "levels": levels},
        )
    ]


def _shape(dataset: Dataset, rows: NDArray[np.int64]) -> list[Finding]:
    width = np.array([dataset.records[i].width for i in rows], np.float64)
    height = np.array([dataset.records[i].height for i in rows], np.float64)
    shorter, aspect, area = np.minimum(width, height), width / height, width * height
    tiny = (shorter < TINY_SIDE) & (shorter * 2 <= np.median(shorter))
    stretch = _factor(aspect, float(np.median(aspect)))
    odd_shape = ~tiny & (np.minimum(stretch, _factor(1 / aspect, float(np.median(aspect)))) > ODD_ASPECT)
    enlarged = _factor(area, float(np.median(area)))
    sizes = width * 1e6 + height
    values, counts = np.unique(sizes, return_counts=True)
    usual, share = sizes == values[counts.argmax()], counts.max() / len(sizes)
    odd_area = ~tiny & ((enlarged > ODD_AREA) | (~usual & (share >= ONE_SIZE)))
    return [
        *_about(dataset, rows, "tiny", f"less than {TINY_SIDE} pixels wide or high", tiny, -shorter),
        *_about(dataset, rows, "odd_aspect", "much longer or wider than the others", odd_shape, stretch),
        *_about(dataset, rows, "odd_size", "of another resolution than the others", odd_area, enlarged),
    ]


def _factor(values: NDArray[np.float64], reference: float) -> NDArray[np.float64]:
    """How many times larger or smaller than the reference; at least 1."""
    factor: NDArray[np.float64] = np.maximum(values / reference, reference / values)
    return factor


def _about(
    dataset: Dataset,
    rows: NDArray[np.int64],
    kind: str,
    what: str,
    chosen: NDArray[np.bool_],
    strength: NDArray[np.float64],
) -> list[Finding]:
    """One finding about the chosen images, the strongest case first; none without any."""
    if not chosen.any():
        return []
    order: Sequence[int] = np.flatnonzero(chosen)[np.argsort(-strength[chosen], kind="stable")].tolist()
    paths = [dataset.records[rows[i]].path for i in order]
    share = len(paths) / len(rows)
    message = f"{counted(len(paths), 'image')} {what}: {some(paths)}"
    figure = {"images": len(paths), "share": share}
    found = finding(kind, message, paths=paths, confidence="likely", figure=figure)
    return [naming_background(found, dataset.records)]
