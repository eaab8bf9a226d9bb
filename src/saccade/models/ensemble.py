"""Several trained networks as one, which gives the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saccade.answer import Answer

SMALLEST = 1e-7  # of a probability, and of what it lacks to 1, before a logarithm is taken


class Ensemble(nn.Module):
    """Images (B, 3, S, S) -> (B, classes): the activation gives the mean of the members' probabilities.

    `answers` say how each member's outputs become probabilities; their activation is the same. Softmax of the
    logarithm of probabilities gives these again, and sigmoid does of their log odds.
    """

    def __init__(self, members: Sequence[nn.Module], answers: Sequence[Answer]) -> None:
        super().__init__()
        assert len(members) == len(answers) > 0, "an answer for each member"
        self.members = nn.ModuleList(members)
        self.answers = tuple(answers)

    def forward(self, images: Tensor) -> Tensor:
        pairs = zip(self.members, self.answers, strict=True)
        mean = torch.stack([_probabilities(member(images), answer) for member, answer in pairs]).mean(dim=0)
        if self.answers[0].activation == "softmax":
            return mean.clamp(min=SMALLEST**4).log()
        mean = mean.clamp(SMALLEST, 1 - SMALLEST)
        return mean.log() - (1 - mean).log()


def _probabilities(logits: Tensor, answer: Answer) -> Tensor:
    """(B, classes) in float32."""
    scaled = logits / logits.new_tensor(answer.temperatures)
    if answer.offsets:
        scaled = scaled + logits.new_tensor(answer.offsets)
    return scaled.softmax(dim=1) if answer.activation == "softmax" else scaled.sigmoid()
