"""What is minimised in training, and what is measured on the validation part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from saccade.evaluation.calibration import log_loss_of_logits
from saccade.plan import LossPlan

LOSSES = ("cross_entropy", "bce", "focal", "asymmetric")
ASYMMETRIC_MARGIN = 0.05  # probabilities below it cost nothing where a class is absent (Ridnik et al. 2021)
_SMALLEST = 1e-8  # of a probability that is raised to a power: at 0 the gradient of a small power is infinite


@dataclass(frozen=True, slots=True)
class Loss:
    """From logits (B, classes) and targets (B, classes), soft or of several classes, to (B,) float32.

    "cross_entropy" compares a softmax with targets that sum to 1. The others ask each class by itself, by a
    sigmoid, and add up over the classes: "bce" (binary cross-entropy), "focal" (Lin et al. 2017) and
    "asymmetric" (Ridnik et al. 2021). `gamma` is their focusing power: of focal for every class, of
    asymmetric for those an image does not show. `smoothing` spreads that share of the target over all
    classes. `class_weights` (classes,) multiply the term of a class that an image shows. `adjustment`
    (classes,) is added to the logits, in training only.
    """

    name: str = "cross_entropy"
    gamma: float = 0.0
    smoothing: float = 0.0
    class_weights: Tensor | None = None
    adjustment: Tensor | None = None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        values = logits.float() if self.adjustment is None else logits.float() + self.adjustment
        if self.name == "cross_entropy":
            return classification_loss(
                values, targets, class_weights=self.class_weights, smoothing=self.smoothing
            )
        if self.smoothing:
            targets = targets * (1 - self.smoothing) + self.smoothing / targets.shape[1]
        present, absent = self._terms(values)
        weights = 1.0 if self.class_weights is None else self.class_weights
        return (weights * targets * present + (1 - targets) * absent).sum(1)

    def _terms(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, classes) each: the loss where a class is shown, and where it is not."""
        if self.name == "focal":
            return focal_term(-values, self.gamma), focal_term(values, self.gamma)
        if self.name == "asymmetric":
            return functional.softplus(-values), shifted_term(values, self.gamma, ASYMMETRIC_MARGIN)
        return functional.softplus(-values), functional.softplus(values)

    def to(self, device: torch.device) -> Loss:
        """The same with its tensors on a device."""
        tensors = (self.class_weights, self.adjustment)
        weights, adjustment = (None if tensor is None else tensor.to(device) for tensor in tensors)
        return replace(self, class_weights=weights, adjustment=adjustment)

    def unsmoothed(self) -> Loss:
        """The same on targets as they are."""
        return replace(self, smoothing=0.0)


CROSS_ENTROPY = Loss()


def focal_term(values: Tensor, gamma: float) -> Tensor:
    """-log(1 - p) p^gamma for p = sigmoid(values): what a class of probability p costs that is absent."""
    wrong = torch.sigmoid(values).clamp(min=_SMALLEST)
    return functional.softplus(values) * wrong**gamma


def shifted_term(values: Tensor, gamma: float, margin: float) -> Tensor:
    """`focal_term` of probabilities that are lowered by `margin`, at most to 0: there it costs nothing."""
    wrong = (torch.sigmoid(values) - margin).clamp(min=_SMALLEST)
    return -torch.log1p(-wrong) * wrong**gamma


MOST_POSITIVE_WEIGHT = 100.0  # of labels that hardly any image has


def classification_loss(
    logits: Tensor, targets: Tensor, *, class_weights: Tensor | None, smoothing: float
) -> Tensor:
    """Cross-entropy of each image, (B,) float32, for soft targets (B, classes) that sum to 1.

    Each class's term is multiplied by its weight; `smoothing` spreads that share of the target over all.
    """
    return functional.cross_entropy(
        logits.float(), targets, weight=class_weights, label_smoothing=smoothing, reduction="none"
    )


def make_loss(
    plan: LossPlan, class_counts: Mapping[str, int], *, extra: Tensor | None = None, several: int = 0
) -> Loss:
    """The loss of a plan, for training images by class, in class order; tensors are on the CPU.

    `extra` (classes,) multiplies the class weights. `several`: the number of images that may have several
    labels, of which a class is then weighed against the images without it; 0 where each has one.
    """
    weights = class_weights(plan.class_weights, class_counts, several=several)
    if extra is not None:
        weights = extra if weights is None else weights * extra
    adjustment = plan.logit_adjustment * log_shares(class_counts) if plan.logit_adjustment else None
    return Loss(plan.name, plan.gamma, plan.label_smoothing, weights, adjustment)


def class_weights(
    asked: str | Mapping[str, float], class_counts: Mapping[str, int], *, several: int = 0
) -> Tensor | None:
    """(classes,) float32: "auto" by inverse frequency, or by name (else 1); None for "none"."""
    if asked == "none":
        return None
    if isinstance(asked, str) and several:
        return positive_weights(tuple(class_counts.values()), several)
    if isinstance(asked, str):
        return inverse_frequency(tuple(class_counts.values()))
    return torch.tensor([asked.get(label, 1.0) for label in class_counts], dtype=torch.float32)


def inverse_frequency(class_counts: Sequence[int]) -> Tensor:
    """(classes,) float32 weights, proportional to 1 / count and of mean 1 over the images; 0 where empty."""
    counts = torch.tensor(class_counts, dtype=torch.float64)
    present = counts > 0
    weights = torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0)
    return weights.to(torch.float32)


def log_shares(class_counts: Mapping[str, int]) -> Tensor:
    """(classes,) float32 logarithms of each class's share of the images; an empty class counts as one image.

    Added to the logits in training, they make the logits those for classes that are equally common. Source:
    Menon et al., Long-tail learning via logit adjustment, ICLR 2021.
    """
    counts = torch.tensor(tuple(class_counts.values()), dtype=torch.float64).clamp(min=1)
    return (counts / counts.sum()).log().to(torch.float32)


def positive_weights(class_counts: Sequence[int], images: int) -> Tensor:
    """(classes,) float32 weights of images with each label: number without to number with, at most 100."""
    counts = torch.tensor(class_counts, dtype=torch.float64)
    weights = torch.where(counts > 0, (images - counts) / counts.clamp(min=1), 1.0)
    return weights.clamp(min=1 / MOST_POSITIVE_WEIGHT, max=MOST_POSITIVE_WEIGHT).to(torch.float32)


def label_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each image, (B,), the mean over its labels; both are (B, classes)."""
    targets = targets.to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


def image_figures(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) float64 plain loss of each image, and (B,) whether it is answered rightly.

    labels: (B,) class indices; or (B, classes) of 0 and 1, where all of them must be right.
    """
    exact = logits.double()
    if labels.ndim == 2:
        return label_losses(exact, labels), ((logits > 0) == (labels > 0.5)).all(1)
    return functional.cross_entropy(exact, labels, reduction="none"), logits.argmax(1) == labels


def log_loss_and_accuracy(logits: NDArray[np.float32], labels: NDArray[Any]) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers: plain figures, without smoothing or weights.

    labels: (n,) class indices; or (n, classes) of 0 and 1, of which all must be right.
    """
    if labels.ndim == 2:
        losses, right = image_figures(torch.from_numpy(logits), torch.from_numpy(labels))
        return float(losses.mean()), float(right.double().mean())
    loss = log_loss_of_logits(logits.astype(np.float64), labels, 1.0)
    return loss, float((logits.argmax(axis=1) == labels).mean())
