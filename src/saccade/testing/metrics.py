"""What a metric must keep to."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from saccade.records import Predictions


def example_predictions(images: int, classes: int, *, seed: int) -> Predictions:
    """Made-up predictions with every label known, sharper where they are right."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(classes, size=images)
    logits = generator.normal(size=(images, classes)) * 2
    logits[np.arange(images), truth] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = tuple(f"class {i}" for i in range(classes))
    paths = tuple(f"{i:05d}.png" for i in range(images))
    return Predictions(paths, tuple(names[i] for i in truth), names, probabilities)


def shuffled(predictions: Predictions, *, seed: int) -> Predictions:
    """The same images in another order."""
    order = np.random.default_rng(seed).permutation(len(predictions))
    return Predictions(
        tuple(predictions.paths[i] for i in order),
        tuple(predictions.labels[i] for i in order),
        predictions.classes,
        predictions.probabilities[order],
    )


def check_metric(
    metric: Callable[[Predictions], float],
    *,
    low: float,
    high: float,
    reference: Callable[[Predictions], float] | None = None,
) -> None:
    """The metric is a float from `low` to `high`, whatever the order of the images, and equals `reference`.

    Raises AssertionError.

    >>> from saccade.evaluation.metrics import accuracy
    >>> check_metric(accuracy, low=0, high=1)
    """
    for seed, (images, classes) in enumerate([(1, 2), (7, 2), (40, 3), (200, 12)]):
        predictions = example_predictions(images, classes, seed=seed)
        value = metric(predictions)
        place = f"on {images} images of {classes} classes (seed {seed})"
        assert isinstance(value, float), f"a metric must return a float, got {type(value).__name__} {place}"
        assert low <= value <= high, f"{value} lies outside {low} to {high} {place}"
        again = metric(shuffled(predictions, seed=seed))
        assert value == again, f"another order of the images changes {value} to {again} {place}"
        if reference is not None:
            expected = reference(predictions)
            assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-12), (
                f"{value} is not {expected} {place}"
            )
