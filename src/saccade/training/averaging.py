"""An average of the weights: it is validated, kept and shipped, while the raw weights go on training.

Averaging iterates: Polyak and Juditsky 1992. An exponential average whose decay warms up:
Szegedy et al. 2016 (TensorFlow's ExponentialMovingAverage), as timm and torch.optim.swa_utils have it. An
equal average of the last epochs (SWA): Izmailov et al. 2018, as torch.optim.swa_utils has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.models.finetune import learning_tensors
from saccade.models.network import Classifier


@dataclass(slots=True)
class WeightAverage:
    """What learns and its average, both by name; without decay both are empty and nothing costs anything.

    `live` is the network's own memory. `other` is the average, or inside `in_place` the raw weights. `equal`:
    it is that of the last epochs (`follow_epoch`), in place of one that follows each step.
    """

    decay: float
    live: dict[str, Tensor]
    other: dict[str, Tensor]
    warm_up: bool = True
    equal: bool = False

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        *,
        decay: float,
        keep_statistics: bool,
        warm_up: bool = True,
        equal: bool = False,
    ) -> WeightAverage:
        """Begin with the present weights of what learns; frozen parts have no average.

        `warm_up` lets the average soon forget where it began.
        """
        wanted = decay or equal
        live = learning_tensors(classifier, keep_statistics=keep_statistics) if wanted else {}
        return cls(decay, live, {name: tensor.clone() for name, tensor in live.items()}, warm_up, equal)

    def follow(self, step: int) -> None:
        """After the optimizer's step `step` (from 0) of the phase; a GPU is not waited for."""
        if self.live and not self.equal:
            share = 1 - (warmed_up(self.decay, step) if self.warm_up else self.decay)
            torch._foreach_lerp_(list(self.other.values()), list(self.live.values()), share)

    def follow_epoch(self, number: int) -> None:
        """At the end of an epoch, the `number`th of those that are averaged; with 1 the average begins."""
        if self.equal:
            torch._foreach_lerp_(list(self.other.values()), list(self.live.values()), 1 / number)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the network has the averaged weights; then again the raw ones, bit for bit."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the network's weights with the others."""
        for name, weights in self.live.items():
            held = weights.clone()
            weights.copy_(self.other[name])
            self.other[name].copy_(held)

    def go_on(self, raw: Mapping[str, Tensor]) -> None:
        """Where the network came from a checkpoint, and so has the averaged weights: give it the raw ones."""
        for name, weights in raw.items():
            self.live[name].copy_(weights)


def warmed_up(decay: float, step: int) -> float:
    """The decay of a step: low at first, so that the average soon forgets where it began.

    >>> [round(warmed_up(0.99, step), 3) for step in (0, 90, 2000)]
    [0.1, 0.91, 0.99]
    """
    return min(decay, (1 + step) / (10 + step))
