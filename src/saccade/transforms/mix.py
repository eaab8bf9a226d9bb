"""Batch mixing: two images and their targets blended into one. Pure functions, randomness passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as nn

Mixed = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Mixing:
    """How batches are mixed in a phase of training.

    `mix_up` and `cut_mix` are alphas, 0 is off. `switch`: probability of CutMix where both are on. `until`:
    up to 1 the share of the phase, above 1 the number of its epochs, after which nothing is mixed.
    """

    mix_up: float = 0.0
    cut_mix: float = 0.0
    switch: float = 0.5
    until: float = 1.0

    @property
    def on(self) -> bool:
        """Whether anything is ever mixed."""
        return self.mix_up > 0 or self.cut_mix > 0

    def at(self, done: float, epoch: int) -> Mixing:
        """That of an epoch of a phase, counted from 0, which begins when a share `done` of it is done.

        >>> Mixing(mix_up=0.2, until=0.9).at(0.9, epoch=9).on, Mixing(mix_up=0.2, until=5).at(0.4, epoch=4).on
        (False, True)
        """
        over = done >= self.until if self.until <= 1 else epoch >= self.until
        return NO_MIXING if over else self


NO_MIXING = Mixing()


def soft_targets(targets: Tensor, classes: int, *, smoothing: float = 0.0) -> Tensor:
    """Class indices (B,) as float32 (B, classes) that sum to 1; `smoothing` is spread over all classes.

    Those of images that may have several labels, (B, classes), are soft targets already.
    """
    if targets.ndim == 2:
        return targets
    hard = nn.one_hot(targets, classes).to(torch.float32)
    return hard * (1 - smoothing) + smoothing / classes


def mix_up(images: Tensor, targets: Tensor, *, alpha: float, generator: torch.Generator) -> Mixed:
    """Blend each image (B, 3, S, S) and its soft target (B, classes) with another of the batch.

    One share per batch from Beta(alpha, alpha); alpha 0 changes nothing. Zhang et al. 2018, "mixup".
    """
    if alpha == 0 or len(images) < 2:
        return images, targets
    share = beta(alpha, generator)
    partner = _partners(images, generator)
    return (
        images * share + images[partner] * (1 - share),
        targets * share + targets[partner] * (1 - share),
    )


def cut_mix(images: Tensor, targets: Tensor, *, alpha: float, generator: torch.Generator) -> Mixed:
    """Paste a rectangle of another image of the batch; targets are weighted by the area that is left.

    The rectangle's wanted area comes from Beta(alpha, alpha); alpha 0 changes nothing. Yun et al. 2019.
    """
    if alpha == 0 or len(images) < 2:
        return images, targets
    height, width = images.shape[-2:]
    top, bottom, left, right = _rectangle(height, width, 1 - beta(alpha, generator), generator)
    partner = _partners(images, generator)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images[partner][..., top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, targets * share + targets[partner] * (1 - share)


def mix(
    images: Tensor,
    targets: Tensor,
    *,
    mix_up_alpha: float,
    cut_mix_alpha: float,
    generator: torch.Generator,
    switch: float = 0.5,
) -> Mixed:
    """MixUp, CutMix, or, with both alphas above 0, one of the two drawn for this batch: CutMix with
    probability `switch`."""
    if mix_up_alpha > 0 and cut_mix_alpha > 0:
        chosen = mix_up if _uniform(generator) < 1 - switch else cut_mix
        alpha = mix_up_alpha if chosen is mix_up else cut_mix_alpha
        return chosen(images, targets, alpha=alpha, generator=generator)
    if cut_mix_alpha > 0:
        return cut_mix(images, targets, alpha=cut_mix_alpha, generator=generator)
    return mix_up(images, targets, alpha=mix_up_alpha, generator=generator)


# name -> mixing; each passes `saccade.testing.check_mixing`.
MIXINGS = {"mix_up": mix_up, "cut_mix": cut_mix}


def beta(alpha: float, generator: torch.Generator) -> float:
    """One draw from Beta(alpha, alpha); a torch generator on the CPU gives the bits, numpy makes the draw."""
    import numpy as np

    bits = int(torch.randint(0, 2**62, (), generator=generator))
    return float(np.random.default_rng(bits).beta(alpha, alpha))


def _partners(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randperm(len(images), generator=generator).to(images.device)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _rectangle(height: int, width: int, area: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    half = math.sqrt(area) / 2
    middle_y, middle_x = _uniform(generator) * height, _uniform(generator) * width
    top, bottom = round(middle_y - half * height), round(middle_y + half * height)
    left, right = round(middle_x - half * width), round(middle_x + half * width)
    return max(0, top), min(height, bottom), max(0, left), min(width, right)
