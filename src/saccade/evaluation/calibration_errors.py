"""How far confidences lie from the share that is right: three estimates with intervals, and class by class.

Binned: 15 equally wide bins of the confidence. Adaptive: 15 bins with about as many images each. Smooth: no
bins, but a kernel as wide as the error itself. All three are 0 for confidences that mean what they say, and
come out higher by chance alone the fewer the images; the intervals allow for that.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.answers import Answers
from saccade.evaluation.calibration import BINS, bin_index, image_losses, softmax
from saccade.evaluation.class_counts import ClassSums, share
from saccade.evaluation.intervals import RESAMPLES, sum_of_sizes_interval
from saccade.evaluation.metric_intervals import bounds

NAMES = ("binned", "adaptive", "smooth")
CELLS = 256  # of the confidence, for the smooth error
TERMS, GRID = 128, 128  # cosines of the kernel, places where the smoothed error is looked at
HALVINGS = 16  # of the kernel's width, from 1: to 0.00002
SMALLEST = 1e-300  # a probability whose logarithm is taken
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def adaptive_index(confidence: Floats, *, bins: int = BINS) -> NDArray[np.int64]:
    """(images,) number of the bin of each, all with about as many images; equal confidences share one.

    >>> adaptive_index(np.array([0.9, 0.2, 0.9, 0.4]), bins=2).tolist()
    [1, 0, 1, 0]
    """
    lasts = -(-len(confidence) * np.arange(1, bins) // bins) - 1  # of each bin but the highest
    edges = np.sort(confidence)[lasts]
    return np.asarray(np.searchsorted(edges, confidence, side="left"), dtype=np.int64)


class CalibrationErrors:
    """The three errors of some answers: each is a sum of sizes of gaps, right minus sure.

    confidence: (images,) probability of each answer. correct: (images,) whether it is right.

    >>> errors = CalibrationErrors(np.full(4, 0.9), np.arange(4) > 0)  # 90 % sure, 75 % right
    >>> [round(float(value), 2) for value in errors.values()]
    [0.15, 0.15, 0.15]
    """

    def __init__(self, confidence: Floats, correct: Bools) -> None:
        self._gap = correct - confidence
        rows = np.arange(len(confidence))
        self._bins = np.zeros((len(confidence), 2 * BINS))
        self._bins[rows, bin_index(confidence)] = self._gap
        self._bins[rows, BINS + adaptive_index(confidence)] = self._gap
        self._cells = ClassSums(np.minimum((confidence * CELLS).astype(np.int64), CELLS - 1), CELLS)
        _, there, places = _cosines()
        waves = (self._cells.of(self._gap[None, :]) / len(correct)) @ there
        self._smoothing = there * _damping(waves[0]) @ places / GRID

    def gaps(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """(resamples, bins), (resamples, bins), (resamples, places), for weights (resamples, images).

        The smooth ones have the kernel's width of all images.
        """
        total = weights.sum(axis=1, keepdims=True)
        binned = weights @ self._bins / total
        smooth = self._cells.of(weights * self._gap) / total @ self._smoothing
        return binned[:, :BINS], binned[:, BINS:], smooth

    def values(self) -> list[float]:
        """Binned, adaptive, smooth."""
        return [float(np.abs(gaps).sum()) for gaps in self.gaps(np.ones((1, len(self._gap))))]


def _damping(waves: Floats) -> Floats:
    """(terms,) by how much a reflected Gaussian damps each cosine of a gap, at the width that is right here.

    The width is that which equals the mean size of the smoothed gap: its smooth error. It is found by
    halving, as a wider kernel leaves less of the gap.
    Source: J. Blasiok and P. Nakkiran, Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing,
    ICLR 2024, definition 2 and section 4.
    """
    frequencies, _, places = _cosines()
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        width = (low + high) / 2
        wider = np.abs(waves * _kernel(width, frequencies) @ places).mean() > width
        low, high = (width, high) if wider else (low, width)
    return _kernel((low + high) / 2, frequencies)


def _kernel(width: float, frequencies: Floats) -> Floats:
    return np.asarray(np.exp(-((width * frequencies) ** 2) / 2))


@cache
def _cosines() -> tuple[Floats, Floats, Floats]:
    """(terms,) frequencies, (cells, terms) their weights in each cell, (terms, places) their heights."""
    frequencies = np.pi * np.arange(TERMS)
    middles, places = ((np.arange(size) + 0.5) / size for size in (CELLS, GRID))
    there = 2 * np.cos(np.outer(middles, frequencies))
    there[:, 0] /= 2
    return np.asarray(frequencies, np.float64), there, np.cos(np.outer(frequencies, places))


def calibration_figures(
    data: Answers, *, temperature: float | None, seed: int, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """What metrics/*.json holds of it: errors and log loss as answered, and `before` temperature scaling.

    temperature: what the logits were divided by, where that is all that was done to them; None: unknown.
    """
    cases = {"after": data.probabilities}
    if temperature and temperature != 1:
        cases["before"] = softmax(temperature * np.log(np.maximum(data.probabilities, SMALLEST)))
    errors = {case: CalibrationErrors(values.max(axis=1), data.correct) for case, values in cases.items()}
    classes = _ClassErrors(data)
    drawn: dict[str, list[tuple[Floats, ...]]] = {name: [] for name in (*cases, "classes")}
    for weights in data.groups.resampled(seed=seed, resamples=resamples):
        for case, found in errors.items():
            drawn[case].append(found.gaps(weights))
        drawn["classes"].append((classes.gaps(weights),))
    all_drawn = {name: [np.concatenate(x) for x in zip(*y, strict=True)] for name, y in drawn.items()}
    told = {case: _case(data, cases[case], errors[case], all_drawn[case]) for case in cases}
    return {
        "temperature": temperature,
        "before": None,
        **told,
        "per_class": classes.rows(all_drawn["classes"][0]),
    }


def _case(data: Answers, values: Floats, errors: CalibrationErrors, drawn: list[Floats]) -> dict[str, Any]:
    once = errors.gaps(np.ones((1, len(data.truth))))
    ranges = [_range(gaps[0], resampled, data) for gaps, resampled in zip(once, drawn, strict=True)]
    return {
        **dict(zip(NAMES, errors.values(), strict=True)),
        "log_loss": float(image_losses(values, data.truth).mean()),
        "intervals": dict(zip(NAMES, ranges, strict=True)),
    }


def _range(parts: Floats, drawn: Floats, data: Answers) -> list[float] | None:
    """95 % [low, high] of the sum of the sizes of some gaps; none of one group, which varies by nothing."""
    groups = data.groups.count
    return bounds(sum_of_sizes_interval(parts, drawn, groups)) if groups > 1 else None


class _ClassErrors:
    """Binned error of the images that are called each class."""

    def __init__(self, data: Answers) -> None:
        self._data, self._classes = data, len(data.classes)
        self._gap = data.correct - data.confidence
        place = data.predicted * BINS + bin_index(data.confidence)
        self._bins = ClassSums(place, self._classes * BINS)
        self._called = ClassSums(data.predicted, self._classes)

    def gaps(self, weights: Floats) -> Floats:
        """(resamples, classes, bins), 0 for a class that is never named."""
        sums = self._bins.of(weights * self._gap).reshape(-1, self._classes, BINS)
        return share(sums, np.broadcast_to(self._called.of(weights)[:, :, None], sums.shape))

    def rows(self, drawn: Floats) -> list[dict[str, Any]]:
        """Images called each class, how sure of it and how often right, and the error with its interval."""
        data, ones = self._data, np.ones((1, len(self._data.truth)))
        images, once = self._called.of(ones)[0], self.gaps(ones)[0]
        sure, right = (
            share(self._called.of(values[None, :].astype(np.float64))[0], images)
            for values in (data.confidence, data.correct)
        )
        errors, ranges = (
            np.abs(once).sum(axis=1),
            [_range(once[i], drawn[:, i], data) for i in range(len(once))],
        )
        columns = zip(data.classes, images, sure, right, errors, ranges, strict=True)
        return [
            _row(label, int(n), float(c), float(r), float(e), ends) for label, n, c, r, e, ends in columns
        ]


def _row(
    label: str, images: int, sure: float, right: float, error: float, ends: list[float] | None
) -> dict[str, Any]:
    names, low_high = ("confidence", "right", "ece", "low", "high"), ends or (None, None)
    values = (sure, right, error, *low_high) if images else (None,) * len(names)
    return {"label": label, "images": images, **dict(zip(names, values, strict=True))}
