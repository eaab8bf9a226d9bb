"""What `train.monitor` names, computed from the validation part's answers: it chooses the best epoch.

A new one is a line in FIGURES, one in `records.HIGHER_IS_BETTER`, and its name in the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.errors import RecipeError
from saccade.evaluation.calibration import TEMPERATURE_SPREAD, fit_temperature
from saccade.evaluation.label_metrics import mean_label_f1, mean_precision
from saccade.evaluation.metrics import mean_f1, mean_recall
from saccade.training.losses import image_figures

Logits = NDArray[np.float32]
Labels = NDArray[Any]  # int64 (n,); of several labels 0 and 1, (n, classes)

TOP = 5
FITTED_ANSWERS = 10_000  # of many, evenly chosen: enough for one number


def calibrated_loss(logits: Logits, labels: Labels) -> float:
    """Log loss with a temperature fitted to these images: what is left when confidence is put right.

    The loss of a network rises when it grows too sure of itself, long before it errs more often. A
    temperature is fitted after training anyway. It is held to 1 by `TEMPERATURE_SPREAD`: without that, the
    loss of images that are all right would have no minimum. With some hundred images, some of them wrong,
    that no longer matters. Source: Berta et al., Rethinking Early Stopping: Refine, Then Calibrate (2025).
    """
    return float(calibrated_losses(logits, labels).mean())


def calibrated_losses(
    logits: Logits, labels: Labels, *, spread: float = TEMPERATURE_SPREAD
) -> NDArray[np.float64]:
    """(images,) log loss of each with one temperature for all; of several labels an image, their mean.

    logits: (images, classes). `spread`: as for `fit_temperature`.
    """
    answers, truth = logits, labels
    if labels.ndim == 2:  # each label as one of two classes, with the logits of yes and no
        yes = logits.reshape(-1)
        answers, truth = np.stack([np.zeros_like(yes), yes], axis=1), (labels > 0.5).reshape(-1).astype(int)
    every = -(-len(truth) // FITTED_ANSWERS)
    while labels.ndim == 2 and math.gcd(every, labels.shape[1]) > 1:  # else it would pass labels over
        every += 1
    temperature = fit_temperature(answers[::every], truth[::every], spread=spread)
    scaled = torch.from_numpy(logits.astype(np.float64) / temperature)
    return image_figures(scaled, torch.from_numpy(labels))[0].numpy()


def accuracy(logits: Logits, labels: Labels) -> float:
    """Share of right answers; of several labels, where all are right."""
    if labels.ndim == 2:
        return float(((logits > 0) == (labels > 0.5)).all(axis=1).mean())
    return float((logits.argmax(axis=1) == labels).mean())


def balanced_accuracy(logits: Logits, labels: Labels) -> float:
    """Mean recall over the classes that have images here."""
    return mean_recall(_confusion(logits, labels))


def macro_f1(logits: Logits, labels: Labels) -> float:
    """Mean F1 over the classes that occur, as true or as predicted class; of several labels, from 0.5 on."""
    if labels.ndim == 2:
        return mean_label_f1(labels > 0.5, logits > 0)
    return mean_f1(_confusion(logits, labels))


def top5(logits: Logits, labels: Labels) -> float:
    """Share of images whose class is among the five with the highest logits; ties count against it."""
    true = np.take_along_axis(logits, labels[:, None], axis=1)
    return float(((logits >= true).sum(axis=1) <= TOP).mean())


def mean_average_precision(logits: Logits, labels: Labels) -> float:
    """Mean over the labels that have images of their average precision."""
    return mean_precision(labels > 0.5, logits.astype(np.float64))


def _confusion(logits: Logits, labels: Labels) -> NDArray[np.int64]:
    classes = logits.shape[1]
    cells = np.bincount(labels * classes + logits.argmax(axis=1), minlength=classes**2)
    return cells.reshape(classes, classes)


# name in the recipe -> figure of logits (n, classes) and labels (n,); the loss is measured anyway
FIGURES: dict[str, Callable[[Logits, Labels], float]] = {
    "calibrated_loss": calibrated_loss,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "top5": top5,
    "mean_average_precision": mean_average_precision,
}


def watched(name: str, logits: Logits, labels: Labels) -> dict[str, Any]:
    """The fields of an `EpochRow` that hold what is watched; none where that is the loss."""
    return {} if name == "loss" else {"monitor": name, "monitored": FIGURES[name](logits, labels)}


def check_monitor(name: str, classes: int) -> None:
    """Raise RecipeError for a figure that is the same for every network with so many classes."""
    if name == "top5" and classes <= TOP:
        raise RecipeError(
            f"train.monitor = top5 is always 1 with {classes} classes", hint="use accuracy, or leave it out"
        )
