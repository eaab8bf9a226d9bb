"""Fine-tuned weights averaged with those that fine-tuning began from: the pretrained backbone and its head.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT). All learning weights are moved by
one share along the line between the two networks. The share is chosen on the validation part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.bundle import weights_sha256
from saccade.plan import FINETUNE
from saccade.training.job import TrainingJob
from saccade.training.loop import FitResult
from saccade.training.monitors import accuracy, calibrated_loss

SHARES = (0.2, 0.4, 0.6, 0.8)  # of the pretrained weights, which "auto" tries
NOTHING_TUNED = "nothing to average with the pretrained weights: the best epoch is not one of fine-tuning"

Answers = Callable[[], tuple[NDArray[np.float32], NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class Averaged:
    """Validation figures of the fine-tuned weights, and of the average with this `share` of the pretrained.

    `kept`: the average is what the run ends with. `losses` are those of all shares that were tried. Each loss
    is calibrated: averages are less sure of themselves, which is no merit, since a temperature follows.
    """

    share: float
    kept: bool
    loss: float
    accuracy: float
    tuned_loss: float
    tuned_accuracy: float
    losses: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        figures = (
            f"calibrated validation loss {self.tuned_loss:.4f} to {self.loss:.4f}, accuracy "
            f"{self.tuned_accuracy:.1%} to {self.accuracy:.1%}"
        )
        if self.kept:
            return f"weights averaged with a share of {self.share:g} of the pretrained ones: {figures}"
        return (
            f"averaging with the pretrained weights was tried and not kept (share {self.share:g}: {figures})"
        )


def average_with_start(job: TrainingJob, result: FitResult, answers: Answers) -> FitResult:
    """The result with the average in place of the fine-tuned weights, where the plan wants one.

    "auto" keeps the best of SHARES only where the calibrated loss of validation falls; a given share is kept
    as it is. `answers` gives logits (n, classes) and labels (n,) of validation for what the classifier holds
    now.
    """
    wanted = job.plan.average_with_pretrained
    if not wanted:
        return result
    start = job.checkpoints.start_weights() if result.best.phase == FINETUNE else None
    if start is None:
        return replace(result, notes=(*result.notes, NOTHING_TUNED))
    tuned = {name: tensor.detach().clone() for name, tensor in job.classifier.state_dict().items()}
    before = _figures(*answers())
    figures = {}
    for share in SHARES if wanted == "auto" else (wanted,):
        job.watch.stop.check()
        job.classifier.load_state_dict(between(tuned, start, share))
        figures[share] = _figures(*answers())
    best = min(figures, key=lambda share: figures[share][0])
    kept = wanted != "auto" or figures[best][0] < before[0]
    job.classifier.load_state_dict(between(tuned, start, best) if kept else tuned)
    losses = {f"{share:g}": loss for share, (loss, _) in figures.items()}
    averaged = Averaged(best, kept, *figures[best], *before, losses)
    return replace(
        result,
        averaged=averaged.as_json(),
        notes=(*result.notes, str(averaged)),
        weights_sha256=weights_sha256(job.classifier),
    )


def _figures(logits: NDArray[np.float32], labels: NDArray[Any]) -> tuple[float, float]:
    return calibrated_loss(logits, labels), accuracy(logits, labels)


def shares_tried(wanted: float | str) -> int:
    """How often `average_with_start` answers validation.

    >>> shares_tried("auto"), shares_tried(0.5), shares_tried(0.0)
    (5, 2, 0)
    """
    return 1 + len(SHARES) if wanted == "auto" else 2 * bool(wanted)


def between(tuned: Mapping[str, Tensor], start: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the line from `tuned` (share 0) to `start` (share 1); what is equal stays equal."""
    return {
        name: torch.lerp(tensor, start[name].to(tensor.device), share)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in tuned.items()
    }
