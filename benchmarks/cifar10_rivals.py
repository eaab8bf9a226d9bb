"""Rivals of `benchmarks/cifar10.py`: each learns the same files until its time is over, and writes its curve.

Run by `cifar10.py`, each alone: python -m benchmarks.cifar10_rivals NAME LIST.csv CURVE.csv SECONDS BEGAN.
All are given more than they would have: images decoded once into memory, crops and flips by the batch, a
cosine rate that ends exactly with the time, and a clock that stands still while they are evaluated.
"""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BORDER = 4
FIRST_LOOK_SECONDS, LOOK_FACTOR = 15.0, 1.25


@dataclass(frozen=True)
class Rival:
    """A network with the optimiser and batch size that its documentation recommends."""

    network: Callable[[], nn.Module]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    batch_size: int
    bfloat16: bool = False  # with channels-last


def resnet18() -> nn.Module:
    """timm's ResNet-18 as CIFAR papers use it: a 3x3 first layer, no pooling after it."""
    import timm

    network: Any = timm.create_model("resnet18", num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network  # type: ignore[no-any-return]


def keras_cnn() -> nn.Module:
    """The CNN of Keras tutorials in torch: three times (Conv, Conv, Pool, Dropout), Dense 512, Dense 10."""
    layers: list[nn.Module] = []
    incoming = 3
    for channels in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(incoming, channels, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(channels)]
            incoming = channels
        layers += [nn.MaxPool2d(2), nn.Dropout(0.25)]
    dense = [nn.Flatten(), nn.Linear(2048, 512), nn.ReLU(), nn.BatchNorm1d(512), nn.Dropout(0.5)]
    return nn.Sequential(*layers, *dense, nn.Linear(512, 10))


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


def _adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


RIVALS = {
    "timm ResNet-18": Rival(resnet18, _sgd, 128),
    "timm ResNet-18, bf16 channels-last": Rival(resnet18, _sgd, 128, bfloat16=True),
    "Keras tutorial CNN": Rival(keras_cnn, _adam, 64),
    "Keras tutorial CNN, bf16 channels-last": Rival(keras_cnn, _adam, 64, bfloat16=True),
}


def load(listing: Path, part: str) -> tuple[Tensor, Tensor]:
    """uint8 (n, 3, 32, 32) and class indices (n,) of one part of the list."""
    with listing.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == part]
    names = sorted({row["label"] for row in rows})

    def pixels(row: dict[str, str]) -> np.ndarray[Any, Any]:
        with Image.open(listing.parent / row["path"]) as image:
            return np.asarray(image.convert("RGB"))

    with ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(pixels, rows)))
    labels = torch.tensor([names.index(row["label"]) for row in rows])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def normalised(images: Tensor) -> Tensor:
    """float32 of mean 0 and std 1."""
    return (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch: a crop of the image with 4 pixels around it, and a flip for half of them."""
    padded = nn.functional.pad(images, [BORDER] * 4)
    places = torch.arange(images.shape[-1])
    while True:
        for chosen in torch.randperm(len(images)).split(size):
            if len(chosen) < size:
                continue
            down, right = torch.randint(0, 2 * BORDER + 1, (2, size))
            columns = torch.where(torch.rand(size, 1) < 0.5, places, places.flip(0)) + right[:, None]
            rows = places + down[:, None]
            cut = padded.permute(0, 2, 3, 1)[chosen[:, None, None], rows[:, :, None], columns[:, None]]
            yield normalised(cut.permute(0, 3, 1, 2)), labels[chosen]


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers, float32."""
    network.eval()
    right = sum(
        int((network(normalised(x)).argmax(1) == y).sum())
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    )
    network.train()
    return right / len(labels)


def learn(rival: Rival, listing: Path, curve: Path, seconds: float, began: float) -> None:
    """Train until `seconds` after `began` (monotonic); append (seconds, accuracy) to `curve` at looks."""
    torch.manual_seed(0)
    (images, labels), held_out = load(listing, "train"), load(listing, "validation")
    network = rival.network()
    if rival.bfloat16:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = rival.optimizer(network.parameters())
    highest = optimizer.param_groups[0]["lr"]
    look, standing = FIRST_LOOK_SECONDS, 0.0
    start = time.monotonic() - began
    for x, y in batches(images, labels, rival.batch_size):
        now = time.monotonic() - began - standing
        if now >= look or now >= seconds:
            paused = time.monotonic()
            write(curve, now, accuracy(network, *held_out))
            standing += time.monotonic() - paused
            look = now * LOOK_FACTOR
        if now >= seconds:
            return
        share = (now - start) / (seconds - start)
        optimizer.param_groups[0]["lr"] = highest * 0.5 * (1 + math.cos(math.pi * share))
        order = torch.channels_last if rival.bfloat16 else torch.contiguous_format
        with torch.autocast("cpu", torch.bfloat16, enabled=rival.bfloat16):
            logits = network(x.contiguous(memory_format=order))
        loss = nn.functional.cross_entropy(logits.float(), y)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def write(curve: Path, seconds: float, value: float) -> None:
    with curve.open("a") as file:
        file.write(f"{seconds:.1f},{value:.4f}\n")


if __name__ == "__main__":
    name, listing, curve, seconds, began = sys.argv[1:]
    learn(RIVALS[name], Path(listing), Path(curve), float(seconds), float(began))
