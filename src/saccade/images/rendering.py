"""Images of any channels as RGB that people and the audit can look at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 0.1, 99.9  # percentiles that become black and white, of 16 bits
_MEASURED_VALUES = 1 << 16


def as_rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 (height, width, 3) of uint8 or uint16 (height, width, channels); RGB is given back as it is.

    Red, green and blue are the means of the first, second and last third of the channels; gray is all three.
    16 bits are stretched, plane by plane, since few cameras use all of them.
    """
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels
    thirds = [part for part in np.array_split(np.arange(pixels.shape[2]), 3) if len(part)]
    planes = [_eight_bits(pixels[..., part]) for part in thirds]
    while len(planes) < 3:
        planes.append(planes[-1])
    return np.stack(planes, axis=-1)


def _eight_bits(channels: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 (height, width): the mean of some channels."""
    plane = channels[..., 0] if channels.shape[2] == 1 else channels.mean(axis=2)
    if channels.dtype == np.uint8:
        return np.asarray(np.rint(plane), dtype=np.uint8)
    step = max(1, int((plane.size / _MEASURED_VALUES) ** 0.5))
    low, high = np.percentile(plane[::step, ::step], (LOWEST, HIGHEST))
    stretched = (plane.astype(np.float32) - low) * (255 / max(1.0, high - low))
    return np.asarray(np.rint(np.clip(stretched, 0, 255)), dtype=np.uint8)
