"""What is minimised in training, and what is measured on the validation part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from saccade.evaluation.calibration import log_loss_of_logits


def classification_loss(
    logits: Tensor, targets: Tensor, *, class_weights: Tensor | None, smoothing: float
) -> Tensor:
    """Cross-entropy of each image, (B,) float32, for soft targets (B, classes) that sum to 1.

    Each class's term is multiplied by its weight; `smoothing` spreads that share of the target over all.
    """
    return functional.cross_entropy(
        logits.float(), targets, weight=class_weights, label_smoothing=smoothing, reduction="none"
    )


def inverse_frequency(class_counts: Sequence[int]) -> Tensor:
    """(classes,) float32 weights, proportional to 1 / count and of mean 1 over the images; 0 where empty."""
    counts = torch.tensor(class_counts, dtype=torch.float64)
    present = counts > 0
    weights = torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0)
    return weights.to(torch.float32)


def log_loss_and_accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers: plain figures, without smoothing or weights."""
    loss = log_loss_of_logits(logits.astype(np.float64), labels, 1.0)
    return loss, float((logits.argmax(axis=1) == labels).mean())
