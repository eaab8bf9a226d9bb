"""Figures of an epoch under way: as they run, and as a checkpoint inside the epoch holds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.training.schedules import Pace


@dataclass(frozen=True, slots=True)
class Part:
    """How far the epoch under way is: its steps, and its sums, bit for bit.

    `seconds`: of its steps, `elapsed`: of the whole training. `pace`: as a look at the clock inside the epoch
    set it. `ended`: no step is left, and the epoch is in the average of the last ones, if there is one.
    """

    steps: int
    images: int
    loss_sum: float
    right: float
    highest_rate: float
    seconds: float
    elapsed: float
    pace: Pace | None = None
    ended: bool = False


@dataclass(slots=True)
class Tally:
    """Running figures of an epoch. Sums stay on the device until somebody asks."""

    steps: int = 0
    images: int = 0
    loss_sum: Tensor | float = 0.0
    right: Tensor | float = 0.0
    highest_rate: float = 0.0
    seconds: float = 0.0  # since the first batch came

    @classmethod
    def of(cls, part: Part | None) -> Tally:
        """That of an epoch which goes on, or begins."""
        if part is None:
            return cls()
        return cls(part.steps, part.images, part.loss_sum, part.right, part.highest_rate, part.seconds)

    def part(self, *, elapsed: float, pace: Pace | None, ended: bool) -> Part:
        """The figures as they are now."""
        return Part(
            self.steps,
            self.images,
            float(self.loss_sum),
            float(self.right),
            self.highest_rate,
            self.seconds,
            elapsed,
            pace,
            ended,
        )

    def add(self, images: int, losses: Tensor, right: Tensor, rate: float) -> None:
        self.steps += 1
        self.images += images
        exact = torch.float32 if losses.device.type == "mps" else torch.float64  # Apple's GPUs have no 64 bit
        self.loss_sum = self.loss_sum + losses.sum(dtype=exact)
        self.right = self.right + right
        self.highest_rate = max(self.highest_rate, rate)

    @property
    def loss(self) -> float:
        """Mean cross-entropy an image, as on the validation part (with mixing, of the mixed targets)."""
        return float(self.loss_sum) / max(1, self.images)

    @property
    def accuracy(self) -> float:
        """Share of images given their label, or the label with the larger share where two were mixed."""
        return float(self.right) / max(1, self.images)
