"""What a backbone must keep to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saccade.errors import ModelError
from saccade.export.onnx import export_network
from saccade.extensions import accepted
from saccade.models.backbones import Builder
from saccade.models.network import without_last_layer

EXPORT_TOLERANCE = 1e-4


def check_backbone(
    build: Builder, *, classes: int = 3, image_size: int = 32, export: bool = True, **options: Any
) -> None:
    """`build(classes, *, weights, **options)` builds a network: (batch, 3, S, S) to (batch, classes).

    Checked are shapes, a gradient for every parameter, a head that can be replaced, a state that reloads
    equal, and an ONNX file that answers as torch does at batch 1 and 4. Raises AssertionError.

    >>> from saccade.models.small_cnn import small_cnn
    >>> check_backbone(small_cnn, export=False)
    """
    network = _built(build, classes, image_size, options)
    images = _images(4, image_size)
    logits = network.train()(images)
    assert isinstance(logits, Tensor), f"the network gives a {type(logits).__name__}, not a tensor of logits"
    assert logits.shape == (4, classes), f"4 images gave {tuple(logits.shape)} instead of (4, {classes})"
    _check_gradients(network, logits)
    _check_reload(network, _built(build, classes, image_size, options), images)
    if export:
        _check_export(network, image_size)
    _check_head(network, images, classes)


def _built(build: Builder, classes: int, image_size: int, options: dict[str, Any]) -> nn.Module:
    filled_in = accepted(build, weights="", image_size=image_size, head="linear")
    return build(classes, **{**filled_in, **options})


def _images(count: int, image_size: int) -> Tensor:
    return torch.randn(count, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def _check_gradients(network: nn.Module, logits: Tensor) -> None:
    loss = nn.functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1])
    torch.autograd.backward(loss)
    without = [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not without, f"no finite gradient reaches {', '.join(without)}"


def _check_reload(network: nn.Module, other: nn.Module, images: Tensor) -> None:
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        same = torch.equal(network.eval()(images), other.eval()(images))
    assert same, "a second network with the same state answers differently"


def _check_head(network: nn.Module, images: Tensor, classes: int) -> None:
    """Takes the last layer out, so this check comes last."""
    linear = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    width = linear.out_features if isinstance(linear, nn.Linear) else linear.out_channels
    assert width == classes, f"the last dense layer gives {width} values instead of {classes}: it is no head"
    backbone, name = without_last_layer(network)
    with torch.no_grad():
        features = backbone.eval()(images)
    assert features.ndim == 2, (
        f"without {name} the network gives {tuple(features.shape)}, not one vector an image"
    )


def _check_export(network: nn.Module, image_size: int) -> None:
    import onnxruntime

    try:
        data = export_network(network, image_size).SerializeToString()  # as `saccade export` does it
    except ModelError as error:
        raise AssertionError(str(error)) from None
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for count in (1, 4):
        images = _images(count, image_size)
        (answer,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            expected = network.eval()(images).numpy()
        difference = np.abs(expected - answer).max() / max(1.0, np.abs(expected).max())
        assert difference <= EXPORT_TOLERANCE, (
            f"the exported file differs by {difference:.2g} at batch {count}"
        )
