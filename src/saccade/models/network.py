"""The shape of every network here: a backbone that gives pooled features, and a head that judges them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from saccade.errors import ModelError

MLP_WIDTH = 256
MLP_DROPOUT = 0.5


class Classifier(nn.Module):
    """Images (B, 3, S, S) -> logits (B, classes); `backbone` gives features (B, F), `head` the logits.

    With `flip`, evaluation mode gives the mean of the logits of the images and of their mirror images.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.flip = False

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        if self.flip and not self.training:
            mirrored: Tensor = self.head(self.backbone(images.flip(-1)))
            return (logits + mirrored) / 2
        return logits


class WithFeatures(nn.Module):
    """A classifier that gives the features too: logits (B, classes), and (B, F) of the images as they are.

    `joined`: as one tensor (B, classes + F), for whoever takes one.
    """

    def __init__(self, classifier: Classifier, *, joined: bool = False) -> None:
        super().__init__()
        self.classifier, self.joined = classifier, joined

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        backbone, head = self.classifier.backbone, self.classifier.head
        features: Tensor = backbone(images)
        logits: Tensor = head(features)
        if self.classifier.flip:
            logits = (logits + head(backbone(images.flip(-1)))) / 2
        return torch.cat([logits, features], dim=1) if self.joined else (logits, features)


def make_head(kind: str, features: int, classes: int, *, dropout: float) -> nn.Sequential:
    """linear: Dropout, Dense; mlp: Dense 256, ReLU, Dropout 0.5, Dense. From (B, features) to logits."""
    if kind == "linear":
        layers: list[tuple[str, nn.Module]] = [("dropout", nn.Dropout(dropout))] if dropout else []
        layers.append(("dense", nn.Linear(features, classes)))
        return nn.Sequential(OrderedDict(layers))
    if kind == "mlp":
        layers = [
            ("hidden", nn.Linear(features, MLP_WIDTH)),
            ("relu", nn.ReLU()),
            ("dropout", nn.Dropout(MLP_DROPOUT)),
            ("dense", nn.Linear(MLP_WIDTH, classes)),
        ]
        return nn.Sequential(OrderedDict(layers))
    raise ModelError(
        f"unknown head: {kind}",
        hint="choose from: linear, mlp",
    )


def last_layer(network: nn.Module) -> tuple[str, int]:
    """Name and outputs of the last dense or convolution layer; raises ModelError when there is none."""
    named = [(name, m) for name, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    if not named or not named[-1][0]:
        raise ModelError(
            "no last dense layer was found, so no head can be put in its place",
            hint="use another backbone",
        )
    name, layer = named[-1]
    return name, layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def without_last_layer(network: nn.Module) -> tuple[nn.Module, str]:
    """The network with its last dense or convolution layer taken out, in place, and that layer's name.

    A dropout right before it goes too, since the new head brings its own. ModelError when there is none.
    """
    name, _ = last_layer(network)
    parent_name, _, child = name.rpartition(".")
    parent = network.get_submodule(parent_name)
    siblings = [key for key, _ in parent.named_children()]
    before = siblings[siblings.index(child) - 1] if siblings.index(child) else ""
    if isinstance(parent, nn.Sequential) and before and isinstance(getattr(parent, before), nn.Dropout):
        setattr(parent, before, nn.Identity())
    setattr(parent, child, nn.Identity())
    return network, name


def feature_count(backbone: nn.Module, image_size: int, *, name: str, channels: int = 3) -> int:
    """Width F of the backbone's output, found by one pass over an empty image of `image_size` pixels.

    Raises ModelError when the backbone cannot take that size or does not give one vector an image.
    """
    was_training = backbone.training
    try:
        with torch.no_grad():
            features: Any = backbone.eval()(torch.zeros(1, channels, image_size, image_size))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{name} does not take images of {image_size} x {image_size} pixels ({reason})",
            hint=_size_hint(backbone),
        ) from None
    finally:
        backbone.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = tuple(getattr(features, "shape", ()))
        raise ModelError(
            f"{name} gives {shape} instead of one vector an image",
            hint="use another backbone",
        )
    return int(features.shape[1])


def _size_hint(backbone: nn.Module) -> str:
    known = getattr(backbone, "pretrained_cfg", None) or {}  # as timm's networks have it
    if known.get("fixed_input_size"):
        return f"leave --image-size out; its size is {known['input_size'][-1]}"
    return "choose another --image-size, or leave it out"
