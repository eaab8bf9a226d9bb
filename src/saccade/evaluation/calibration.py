"""Confidences that mean what they say: softmax, one temperature, reliability and its error (ECE)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 15
# Outside, a softmax is a hard vote (below) or all but uniform (above): no network in use needs more.
TEMPERATURE_BOUNDS = (0.05, 20.0)
# Float64's spacing at 1, as in scikit-learn: one certain and wrong answer costs 36, not infinity.
SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Images whose confidence lies in (low, high]: how confident the model was, how often it was right."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def softmax(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """(images, classes) probabilities in float64; a temperature above 1 makes them less certain."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def image_losses(probabilities: NDArray[np.float64], label_indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """(images,) minus the log of the true class's probability, natural logarithm."""
    true = np.take_along_axis(probabilities, label_indices[:, None], axis=1)[:, 0]
    return np.asarray(-np.log(np.clip(true, SMALLEST_PROBABILITY, 1.0)))


def fit_temperature(
    logits: ArrayLike,
    label_indices: ArrayLike,
    *,
    bounds: tuple[float, float] = TEMPERATURE_BOUNDS,
) -> float:
    """The temperature of least log loss on validation logits (images, classes); ranks never change.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2. The log loss is
    convex in 1/temperature, so a bracketing search finds the minimum. When every image is right there is
    none: the temperature would fall to 0 and every confidence rise to 1. The mean confidence is then set
    to what n right of n show, (n + 1) / (n + 2) (Laplace's rule of succession).
    """
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(label_indices, dtype=np.int64)
    if len(values) == 0 or values.shape[1] < 2:
        return 1.0
    if bool((values.argmax(axis=1) == truth).all()):
        goal = (len(values) + 1) / (len(values) + 2)
        return _bisect(lambda t: goal - float(softmax(values, t).max(axis=1).mean()), bounds)
    return _golden_section(lambda t: _log_loss_of_logits(values, truth, t), bounds)


def bin_index(confidence: NDArray[np.float64], *, bins: int = BINS) -> NDArray[np.int64]:
    """(images,) number of the equal-width bin (low, high] each confidence falls into."""
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.asarray(np.digitize(confidence, edges, right=True), dtype=np.int64)


def reliability(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], *, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """The bins that hold an image, from low to high confidence."""
    place = bin_index(confidence, bins=bins)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, weights=confidence, minlength=bins)
    right = np.bincount(place, weights=correct.astype(np.float64), minlength=bins)
    return tuple(
        ReliabilityBin(
            i / bins, (i + 1) / bins, int(counts[i]), float(sums[i] / counts[i]), float(right[i] / counts[i])
        )
        for i in range(bins)
        if counts[i]
    )


def calibration_error(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    *,
    weights: NDArray[np.int64] | None = None,
    bins: int = BINS,
) -> float:
    """ECE: mean distance of confidence and accuracy over the bins, weighted by their images.

    Source: Naeini et al., AAAI 2015. `weights` (images,) count an image several times (for resampling).
    """
    weigh = np.ones(len(confidence)) if weights is None else weights
    gaps = np.bincount(
        bin_index(confidence, bins=bins), weights=weigh * (correct - confidence), minlength=bins
    )
    return float(np.abs(gaps).sum() / weigh.sum())


def ece(probabilities: NDArray[np.float64], label_indices: NDArray[np.int64], *, bins: int = BINS) -> float:
    """Expected calibration error of (images, classes) probabilities."""
    correct = probabilities.argmax(axis=1) == label_indices
    return calibration_error(probabilities.max(axis=1), correct, bins=bins)


def _log_loss_of_logits(logits: NDArray[np.float64], truth: NDArray[np.int64], temperature: float) -> float:
    # by log-sum-exp, since a probability may underflow at the lower bound
    scaled = logits / temperature
    top = scaled.max(axis=1)
    log_sums = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((log_sums - np.take_along_axis(scaled, truth[:, None], axis=1)[:, 0]).mean())


def _golden_section(loss: Callable[[float], float], bounds: tuple[float, float]) -> float:
    """Minimum of a function with one valley, searched on a log scale to 1e-6."""
    shrink = (math.sqrt(5) - 1) / 2
    low, high = math.log(bounds[0]), math.log(bounds[1])
    left, right = high - shrink * (high - low), low + shrink * (high - low)
    left_loss, right_loss = loss(math.exp(left)), loss(math.exp(right))
    while high - low > 1e-6:
        if left_loss <= right_loss:
            high, right, right_loss = right, left, left_loss
            left = high - shrink * (high - low)
            left_loss = loss(math.exp(left))
        else:
            low, left, left_loss = left, right, right_loss
            right = low + shrink * (high - low)
            right_loss = loss(math.exp(right))
    return math.exp((low + high) / 2)


def _bisect(rising: Callable[[float], float], bounds: tuple[float, float]) -> float:
    """Zero of a rising function on a log scale to 1e-6; the nearer bound where there is none."""
    low, high = math.log(bounds[0]), math.log(bounds[1])
    while high - low > 1e-6:
        middle = (low + high) / 2
        if rising(math.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)
