"""`small_cnn`: the network of the textbooks, for training from scratch on small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from saccade.errors import ModelError

CHANNELS = (32, 64, 128)
DENSE = 512
SMALLEST_SIDE = 2 ** len(CHANNELS)


def small_cnn(
    classes: int, *, weights: str = "", image_size: int = 224, head: str = "linear", channels: int = 3
) -> nn.Module:
    """Three blocks of (Conv 3x3, ReLU, BatchNorm) x 2, MaxPool, Dropout 0.25; Dense 512, Dense `classes`.

    Input (B, channels, image_size, image_size), output logits (B, classes). 51,674,794 parameters at 224
    pixels and 10 classes. With head "mlp" the blocks are averaged over the picture, not flattened into Dense
    512.
    """
    if weights:
        raise ModelError(
            f"small_cnn has no pretrained weights, got --weights {weights}",
            hint="leave --weights out",
        )
    if image_size < SMALLEST_SIDE:
        raise ModelError(
            f"small_cnn needs images of at least {SMALLEST_SIDE} pixels, got {image_size}",
            hint="choose a larger --image-size",
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    incoming = channels
    for number, outgoing in enumerate(CHANNELS, start=1):
        layers[f"block{number}"] = _block(incoming, outgoing)
        incoming = outgoing
    layers["top"] = (
        _average() if head == "mlp" else _flatten_and_dense(incoming * (image_size // SMALLEST_SIDE) ** 2)
    )
    layers["classifier"] = nn.Linear(CHANNELS[-1] if head == "mlp" else DENSE, classes)
    return nn.Sequential(layers)


def _block(incoming: int, channels: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in (1, 2):
        layers[f"conv{number}"] = nn.Conv2d(incoming, channels, kernel_size=3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"norm{number}"] = nn.BatchNorm2d(channels)
        incoming = channels
    layers["pool"] = nn.MaxPool2d(2)
    layers["dropout"] = nn.Dropout(0.25)
    return nn.Sequential(layers)


def _flatten_and_dense(features: int) -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = [
        ("flatten", nn.Flatten()),
        ("dense", nn.Linear(features, DENSE)),
        ("relu", nn.ReLU()),
        ("norm", nn.BatchNorm1d(DENSE)),
        ("dropout", nn.Dropout(0.5)),
    ]
    return nn.Sequential(OrderedDict(layers))


def _average() -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = [("average", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
    return nn.Sequential(OrderedDict(layers))
