"""A tiny network and tiny data that behave like the real ones: a convolution with BatchNorm, and two patterns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.config import Recipe
from saccade.models import Classifier
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.training import FitResult, fit

SIDE = 8
CLASSES = 3


class TinyBackbone(nn.Module):
    """Two convolutions with BatchNorm, averaged: (B, 3, 8, 8) -> (B, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images)).mean(dim=(2, 3))


def tiny_classifier(seed: int = 0) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Classifier(TinyBackbone(), nn.Sequential(nn.Dropout(0.2), nn.Linear(6, CLASSES)))


@dataclass(frozen=True)
class TinyData:
    """Noise with a bright channel that tells the class. Order and noise are functions of (seed, epoch)."""

    images: int = 24
    batch_size: int = 8
    seed: int = 0
    augmented: bool = True
    spoil: tuple[int, int] | None = None  # (epoch, image) that turns into NaN

    @property
    def labels(self) -> Tensor:
        return torch.arange(self.images) % CLASSES

    @property
    def paths(self) -> list[str]:
        return [f"class{label}/{index:03d}.png" for index, label in enumerate(self.labels.tolist())]

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    def pixels(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + (1000 * epoch if self.augmented else 0))
        images = torch.randn(self.images, 3, SIDE, SIDE, generator=generator)
        images[torch.arange(self.images), self.labels] += 1.5
        if self.spoil and self.spoil[0] == epoch:
            images[self.spoil[1]] = torch.nan
        return images

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, tuple[str, ...]]]:
        images = self.pixels(epoch)
        order = torch.randperm(self.images, generator=torch.Generator().manual_seed(epoch))
        for start in range(0, self.images, self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield images[chosen], self.labels[chosen], tuple(self.paths[i] for i in chosen.tolist())

    def validation(self) -> Iterator[tuple[Tensor, Tensor, tuple[str, ...]]]:
        return TinyData(self.images, self.batch_size, seed=77, augmented=False).epoch(0)


def tiny_recipe(**dotted: Any) -> Recipe:
    """Dotted keys with __ (train__epochs=2) over a recipe that fits the tiny data."""
    defaults: dict[str, Any] = {"train__epochs": 3, "train__head_epochs": 2, "train__batch_size": 8, "train__lr": 0.02}
    return Recipe().replaced(**{**defaults, **dotted})


def run_fit(
    folder: Path,
    *,
    recipe: Recipe | None = None,
    data: TinyData | None = None,
    classifier: Classifier | None = None,
    pretrained: bool = True,
    device: str = "cpu",
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> tuple[Classifier, FitResult]:
    """`fit` on tiny data; returns the trained network and the result."""
    recipe = recipe or tiny_recipe()
    data = data or TinyData()
    network = classifier or tiny_classifier()
    result = fit(
        network,
        train=data,
        validation=data.validation,
        validation_images=data.images,
        class_counts={f"class{i}": data.images // CLASSES for i in range(CLASSES)},
        recipe=recipe,
        pretrained=pretrained,
        runtime=Runtime.create(device, recipe.precision),
        run=RunFolder(folder),
        callbacks=callbacks,
        **options,
    )
    return network, result


@pytest.fixture
def fit_tiny(tmp_path: Path) -> Callable[..., tuple[Classifier, FitResult]]:
    """`run_fit` in a folder of the test (`name` picks it)."""

    def fitted(name: str = "run", **options: Any) -> tuple[Classifier, FitResult]:
        return run_fit(tmp_path / name, **options)

    return fitted
