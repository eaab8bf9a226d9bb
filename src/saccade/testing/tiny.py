"""A network, data and predictions so small that a training takes a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saccade.models.network import Classifier
from saccade.records import EpochRow
from saccade.training.job import TrainingData
from saccade.transforms.batches import Batch

SIDE_PIXELS = 8
CLASSES = 3


def timeless(row: EpochRow) -> tuple[float | str, ...]:
    """A history row without the seconds, which differ from run to run."""
    return (
        row.phase,
        row.epoch,
        row.lr,
        row.train_loss,
        row.train_accuracy,
        row.validation_loss,
        row.validation_accuracy,
        *(() if row.monitored is None else (row.monitored,)),
    )


class TinyBackbone(nn.Module):
    """Two convolutions with BatchNorm, averaged over the picture: (B, 3, S, S) -> (B, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.second(self.first(images))
        return features.mean(dim=(2, 3))


def tiny_classifier(seed: int = 0) -> Classifier:
    """A `Classifier` with 400 weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(TinyBackbone(), nn.Sequential(nn.Dropout(0.2), nn.Linear(6, CLASSES)))


@dataclass(frozen=True)
class TinyData:
    """Noise in which a brighter channel tells the class. Order and noise are functions of (seed, epoch)."""

    images: int = 24
    batch_size: int = 8
    seed: int = 0

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    @property
    def labels(self) -> Tensor:
        return torch.arange(self.images) % CLASSES

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(f"class{label}/{index:03d}.png" for index, label in enumerate(self.labels.tolist()))

    @property
    def class_counts(self) -> dict[str, int]:
        return {f"class{label}": int((self.labels == label).sum()) for label in range(CLASSES)}

    def pixels(self, epoch: int) -> Tensor:
        """(images, 3, 8, 8)."""
        generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
        images = torch.randn(self.images, 3, SIDE_PIXELS, SIDE_PIXELS, generator=generator)
        images[torch.arange(self.images), self.labels] += 1.5
        return images

    def epoch(self, epoch: int, *, start_batch: int = 0) -> Iterator[Batch]:
        images = self.pixels(epoch)
        order = torch.randperm(self.images, generator=torch.Generator().manual_seed(epoch))
        for start in range(start_batch * self.batch_size, self.images, self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield Batch(images[chosen], self.labels[chosen], tuple(self.paths[i] for i in chosen.tolist()))

    def validation(self) -> Iterator[Batch]:
        """Always the same images, other than those of any epoch."""
        return TinyData(self.images, self.batch_size, seed=self.seed + 7).epoch(0)

    def as_training_data(self) -> TrainingData:
        """For a training job; how many images validate is left unsaid, as it may be."""
        return TrainingData(self, self.validation, self.class_counts)
