"""Confidences that mean what they say: softmax, one temperature, reliability and its error (ECE)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.answer import Answer

BINS = 15
# Outside, a softmax is a hard vote (below) or all but uniform (above): no network in use needs more.
TEMPERATURE_BOUNDS = (0.05, 20.0)
# Regularisation: the log temperature is held to 0 as by a normal distribution of this spread, so that a few
# images cannot move it far; from some hundred images on it no longer matters.
TEMPERATURE_SPREAD = 0.5
# With fewer images a temperature may only make a model less certain: being too certain is the costly mistake.
SHARPENING_IMAGES = 50
LEAST_IMAGES, TEMPERATURE_FOLDS = 10, 5
NEAR_BOUND = 0.01  # of the logarithms of a temperature and of a bound
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
    """(images, classes) probabilities in float64; a temperature above 1 makes them less certain.

    logits: (images, classes), before the softmax.

    >>> softmax([[2.0, 0.0]]).round(2).tolist(), softmax([[2.0, 0.0]], temperature=2).round(2).tolist()
    ([[0.88, 0.12]], [[0.73, 0.27]])
    """
    return Answer("softmax", (temperature,)).probabilities(logits)


def image_losses(probabilities: NDArray[np.float64], label_indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """(images,) minus the log of the true class's probability, natural logarithm.

    probabilities: (images, classes). label_indices: (images,) column of each true class.

    >>> image_losses(np.array([[0.5, 0.5]]), np.array([0])).round(2).tolist()
    [0.69]
    """
    true = np.take_along_axis(probabilities, label_indices[:, None], axis=1)[:, 0]
    return np.asarray(-np.log(np.clip(true, SMALLEST_PROBABILITY, 1.0)))


@dataclass(frozen=True, slots=True)
class Temperature:
    """What divides the logits, and what is to be said about it ("" where it was simply fitted)."""

    value: float
    note: str = ""


def choose_temperature(
    logits: ArrayLike, label_indices: ArrayLike, groups: Sequence[str] | None = None
) -> Temperature:
    """A regularised temperature, kept only where it lowers the log loss of validation images held out.

    logits: (images, classes) of the validation part. label_indices: (images,) column of each true class.
    groups: (images,) names of what is held out together (copies, near-duplicates, declared groups).

    >>> choose_temperature([[2.0, 0.0]] * 3, [0, 0, 1]).note
    'temperature left at 1: 3 validation images are too few to fit it'
    """
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(label_indices, dtype=np.int64)
    few = f"temperature left at 1: {len(values)} validation images are too few to fit it"
    if len(values) < LEAST_IMAGES:
        return Temperature(1.0, few)
    fold_of = held_out_folds(groups or [str(image) for image in range(len(values))])
    if fold_of.max() == 0:
        return Temperature(1.0, f"{few} (they all belong together)")
    held_out = [
        (_regularised(values[fold_of != fold], truth[fold_of != fold]), fold_of == fold)
        for fold in range(fold_of.max() + 1)
    ]
    after = sum(log_loss_of_logits(values[out], truth[out], t) * out.sum() for t, out in held_out) / len(
        values
    )
    before = log_loss_of_logits(values, truth, 1.0)
    if after >= before:
        return Temperature(
            1.0,
            "temperature left at 1: on held-out validation images it did not lower the log loss "
            f"({before:.3f} without, {after:.3f} with)",
        )
    fitted = _regularised(values, truth)
    if fitted < 1 and len(values) < SHARPENING_IMAGES:
        return Temperature(
            1.0,
            f"temperature left at 1: {len(values)} validation images are too few to make a model more "
            "certain",
        )
    return Temperature(fitted, _at_a_bound(fitted))


def _at_a_bound(temperature: float) -> str:
    """What to say of a temperature that would have gone further still; "" for any other."""
    if all(abs(math.log(temperature / bound)) > NEAR_BOUND for bound in TEMPERATURE_BOUNDS):
        return ""
    flat = temperature > 1
    told = "these confidences say nothing" if flat else "the outputs of the network are almost equal"
    return f"the temperature stands at its bound, {temperature:.3g}: {told}"


def _regularised(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The temperature held to 1; for an all but perfect part, no lower than the rule of succession allows."""
    fitted = fit_temperature(logits, truth, spread=TEMPERATURE_SPREAD)
    perfect = bool((logits.argmax(axis=1) == truth).all())
    return max(fitted, min(1.0, fit_temperature(logits, truth))) if perfect else fitted


def held_out_folds(groups: Sequence[str]) -> NDArray[np.int64]:
    """(images,) fold of each: groups whole, largest first, each into the fold with fewest images.

    groups: name of the group of each image.

    >>> held_out_folds(["ann", "bob", "bob", "cy", "ann", "bob"]).tolist()
    [1, 0, 0, 2, 1, 0]
    """
    names, group_of, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    folds = min(TEMPERATURE_FOLDS, len(names))
    filled, fold_of_group = np.zeros(folds, np.int64), np.zeros(len(names), np.int64)
    for group in np.argsort(-counts, kind="stable"):
        fold_of_group[group] = filled.argmin()
        filled[fold_of_group[group]] += counts[group]
    return fold_of_group[group_of]


def fit_temperature(
    logits: ArrayLike,
    label_indices: ArrayLike,
    *,
    bounds: tuple[float, float] = TEMPERATURE_BOUNDS,
    spread: float = math.inf,
) -> float:
    """The temperature of least log loss on validation logits (images, classes); ranks never change.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2. The log loss is
    convex in 1/temperature, so a bracketing search finds the minimum. When every image is right there is
    none: the temperature would fall to 0 and every confidence rise to 1. The mean confidence is then set
    to what n right of n show, (n + 1) / (n + 2) (Laplace's rule of succession).

    A finite `spread` regularises: that of a normal distribution of the log temperature around 0.
    `bounds` are the lowest and the highest temperature.

    >>> round(fit_temperature([[3.0, 0.0]] * 4, [0, 0, 0, 1]), 2)  # 95 % sure, 75 % right
    2.73
    """
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(label_indices, dtype=np.int64)
    if len(values) == 0 or values.shape[1] < 2:
        return 1.0
    if math.isinf(spread) and bool((values.argmax(axis=1) == truth).all()):
        goal = (len(values) + 1) / (len(values) + 2)
        return _bisect(lambda t: goal - float(softmax(values, t).max(axis=1).mean()), bounds)

    def objective(t: float) -> float:
        return log_loss_of_logits(values, truth, t) + (math.log(t) / spread) ** 2 / (2 * len(values))

    return _golden_section(objective, bounds)


def bin_index(confidence: NDArray[np.float64], *, bins: int = BINS) -> NDArray[np.int64]:
    """(images,) number of the equal-width bin (low, high] each confidence falls into.

    >>> bin_index(np.array([0.1, 0.5, 0.95]), bins=10).tolist()
    [0, 4, 9]
    """
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.asarray(np.digitize(confidence, edges, right=True), dtype=np.int64)


def reliability(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], *, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """The bins that hold an image, from low to high confidence.

    confidence: (images,). correct: (images,) whether each prediction is right.

    >>> reliability(np.full(4, 0.85), np.arange(4) > 0, bins=10)[0].accuracy
    0.75
    """
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

    >>> round(calibration_error(np.full(4, 0.9), np.arange(4) > 0), 3)  # 90 % sure, 75 % right
    0.15
    """
    weigh = np.ones(len(confidence)) if weights is None else weights
    gaps = np.bincount(
        bin_index(confidence, bins=bins), weights=weigh * (correct - confidence), minlength=bins
    )
    return float(np.abs(gaps).sum() / weigh.sum())


def ece(probabilities: NDArray[np.float64], label_indices: NDArray[np.int64], *, bins: int = BINS) -> float:
    """Expected calibration error of (images, classes) probabilities.

    label_indices: (images,) column of each true class.

    >>> round(ece(np.array([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1])), 3)
    0.15
    """
    correct = probabilities.argmax(axis=1) == label_indices
    return calibration_error(probabilities.max(axis=1), correct, bins=bins)


def log_loss_of_logits(logits: NDArray[np.float64], truth: NDArray[np.int64], temperature: float) -> float:
    """Mean negative log-probability of the true classes.

    `logits` (images, classes) are divided by `temperature`; `truth` (images,) holds the index of each true
    class.

    >>> round(log_loss_of_logits(np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([0, 1]), 1.0), 3)
    0.41
    """
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
