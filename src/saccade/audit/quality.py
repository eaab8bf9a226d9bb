"""Images that teach little or the wrong thing: blank, dark, bright, blurred, tiny, of odd shape or size.

Thresholds were set on 2,690 photos of flowers of 143 to 640 px, of which one is called blurred and none dark,
bright or blank. A Gaussian blur of 0.5, 1, 1.5 % of the longer side, saved as JPEG 85, is found in 18, 91,
98 % of 500 of them. Below about 64 px blur cannot be told from low resolution.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.audit.kinds import count_of, finding, naming_background, some
from saccade.audit.measure import Measurements
from saccade.records import Dataset, Finding

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
) -> list[Finding]:
    """One finding a kind, with the images concerned; `accepted` paths were looked at and kept.

    `gray_maximum` is the value that the decoder took for white in 16-bit images, 0 for the full range.
    """
    rows = np.array(
        [i for i, record in enumerate(dataset.records) if record.used and record.path not in accepted],
        np.int64,
    )
    if not len(rows):
        return []
    low = _low_levels(dataset, measurements, rows, gray_maximum or FULL_RANGE)
    # few levels make an image black or blank through the conversion, which deleting it does not mend
    lit = rows[np.isnan(measurements.column("gray_peak")[rows])] if low else rows
    return [
        *low,
        *_light(dataset, measurements, lit),
        *_shape(dataset, rows),
    ]


def _light(dataset: Dataset, measurements: Measurements, rows: NDArray[np.int64]) -> list[Finding]:
    def column(name: str) -> NDArray[np.float64]:
        return measurements.column(name)[rows]

    blank = column("border") >= BLANK_BORDER
    dark = ~blank & (column("brightest") < DARK_BRIGHTEST)
    bright = ~blank & (column("darkest") > BRIGHT_DARKEST)
    contrast = column("contrast")
    relative = _without_rounding(column("sharpness")) / np.maximum(contrast, 1e-6)
    blurred = ~blank & ~dark & (contrast > BLUR_CONTRAST) & (relative < BLUR_SHARPNESS)
    return [
        *_about(dataset, rows, "blank", "of one colour, nothing to learn from", blank, -contrast),
        *_about(dataset, rows, "too_dark", "almost black", dark, -column("brightness")),
        *_about(dataset, rows, "too_bright", "almost white", bright, column("brightness")),
        *_about(dataset, rows, "blurred", "blurred", blurred, -relative),
    ]


def _low_levels(
    dataset: Dataset, measurements: Measurements, rows: NDArray[np.int64], white: int
) -> list[Finding]:
    """One finding where no 16-bit image comes near white: 10 or 12 bits in 16-bit files, most likely."""
    peaks = measurements.column("gray_peak")[rows]
    deep = ~np.isnan(peaks)
    if not deep.any() or LEAST_OF_RANGE * (peak := int(peaks[deep].max())) >= white:
        return []
    likely = next(maximum for maximum in LIKELY_MAXIMA if maximum >= peak)
    paths = [dataset.records[row].path for row in rows[deep]]
    levels = (peak * 255 + white // 2) // white + 1
    return [
        finding(
            "low_levels",
            f"{count_of(len(paths), '16-bit image')}, none with a value above {peak:,} of {white:,}: "
            f"{count_of(levels, 'grey level')} of 256 left: {some(paths)}",
            remedy=f"Say what means white (--data.gray_maximum {likely} for {likely.bit_length()} bits), "
            "or rescale the files to the full range",
            paths=paths,
            figure={"images": len(paths), "peak": peak, "white": white, "levels": levels},
        )
    ]


def _without_rounding(sharpness: NDArray[np.float64]) -> NDArray[np.float64]:
    remaining: NDArray[np.float64] = np.sqrt(np.maximum(sharpness**2 - ROUNDING**2, 0))
    return remaining


def _shape(dataset: Dataset, rows: NDArray[np.int64]) -> list[Finding]:
    width = np.array([dataset.records[i].width for i in rows], np.float64)
    height = np.array([dataset.records[i].height for i in rows], np.float64)
    shorter, aspect, area = np.minimum(width, height), width / height, width * height
    tiny = (shorter < TINY_SIDE) & (shorter * 2 <= np.median(shorter))
    stretch = _factor(aspect, float(np.median(aspect)))
    odd_shape = ~tiny & (np.minimum(stretch, _factor(1 / aspect, float(np.median(aspect)))) > ODD_ASPECT)
    enlarged = _factor(area, float(np.median(area)))
    usual, share = _usual_size(width, height)
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


def _usual_size(width: NDArray[np.float64], height: NDArray[np.float64]) -> tuple[NDArray[np.bool_], float]:
    """Which images have the most common size, and their share."""
    sizes = width * 1e6 + height
    values, counts = np.unique(sizes, return_counts=True)
    usual: NDArray[np.bool_] = sizes == values[counts.argmax()]
    return usual, float(counts.max() / len(sizes))


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
    message = f"{count_of(len(paths), 'image')} {what}: {some(paths)}"
    figure = {"images": len(paths), "share": share}
    found = finding(kind, message, paths=paths, confidence="likely", figure=figure)
    return [naming_background(found, dataset.records)]
