"""In what two verified pictures differ, in words, read from how one had to be laid onto the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.descriptors import Floats, Variants
from saccade.near_duplicates.registration import WINDOWS, Fits

NOTICED_CROP = 0.94  # share of the side; less is called a crop
NOTICED_SHIFT = 0.06  # of the half side
NOTICED_TURN = 2.5  # degrees
NOTICED_RESIZE = 1.5


def relation_words(among: Variants, fits: Fits, correlation: Floats) -> list[str]:
    """One text a pair: "mirrored, cropped to 80 %", "the same framing" when nothing differs."""
    determinant = fits.maps[:, 0, 0] * fits.maps[:, 1, 1] - fits.maps[:, 0, 1] * fits.maps[:, 1, 0]
    mirrored = determinant < 0
    turned, angle = _angles(fits.maps, mirrored)
    scale = np.sqrt(np.abs(determinant))
    scale = np.minimum(scale, 1 / scale)
    shift = np.abs(fits.maps[:, :, 2]).max(axis=1)
    bordered = among.trimmed[fits.template] != among.trimmed[fits.other]
    sides = among.sizes.min(axis=1).astype(float)
    resized = sides[fits.template] / np.maximum(sides[fits.other], 1)
    covered = [name for name in WINDOWS if name != "whole"]
    texts = []
    for i in range(len(fits)):
        cropped = scale[i] < NOTICED_CROP
        said = {
            "mirrored": mirrored[i],
            f"turned by {turned[i]} degrees": turned[i] != 0,
            f"cropped to about {round(scale[i] * 100)} %": cropped,
            "shifted": shift[i] > NOTICED_SHIFT and not cropped,
            f"rotated by about {round(abs(angle[i]))} degrees": abs(angle[i]) > NOTICED_TURN,
            "inverted": correlation[i] < 0,
            "border removed": bordered[i],
            "different size": not 1 / NOTICED_RESIZE < resized[i] < NOTICED_RESIZE,
        }
        if fits.window[i]:
            said[f"the same in the {covered[fits.window[i] - 1]} three quarters only"] = True
        texts.append(", ".join(word for word, holds in said.items() if holds) or "the same framing")
    return texts


def _angles(maps: Floats, mirrored: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Quarter turns in degrees (0, 90, 180, 270), and the rest of the rotation in degrees."""
    a, b, c, d = (maps[:, i, j] for i in (0, 1) for j in (0, 1))
    angle = np.degrees(np.where(mirrored, np.arctan2(-(b + c), d - a), np.arctan2(c - b, a + d)))
    quarter = np.rint(angle / 90)
    return (quarter.astype(np.int64) * 90) % 360, angle - quarter * 90
