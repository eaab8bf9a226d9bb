"""Several trained networks as one: the mean of their probabilities, given as its logarithm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SMALLEST = 1e-30  # of a probability, whose logarithm is taken


class Ensemble(nn.Module):
    """Images (B, 3, S, S) -> logits (B, classes) whose softmax is the mean of the members' probabilities.

    `temperatures` are the members' own, which divide their logits before the softmax.
    """

    def __init__(self, members: Sequence[nn.Module], temperatures: Sequence[float]) -> None:
        super().__init__()
        assert len(members) == len(temperatures) > 0, "a temperature for each member"
        self.members = nn.ModuleList(members)
        self.temperatures = tuple(temperatures)

    def forward(self, images: Tensor) -> Tensor:
        answers = [
            (member(images) / temperature).softmax(dim=1)
            for member, temperature in zip(self.members, self.temperatures, strict=True)
        ]
        return torch.stack(answers).mean(dim=0).clamp(min=SMALLEST).log()
