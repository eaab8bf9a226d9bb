"""Grad-CAM: which places of an image raise the score of a class, and whether that depends on the weights.

Sources: R. Selvaraju and others, "Grad-CAM", ICCV 2017 (arXiv:1610.02391); J. Adebayo and others, "Sanity
checks for saliency maps", NeurIPS 2018 (arXiv:1810.03292).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.models.network import Classifier
from saccade.training.inference import evaluation_mode

MOST_PREFIX = 8  # tokens of a transformer that stand for no place: class, distillation, registers
BATCH = 8

Maps = NDArray[np.float32]  # (images, h, w)


@dataclass(frozen=True, slots=True)
class Layer:
    """A module of the backbone that gives a value for each place of an image.

    `order` says how its output holds them: (B, C, h, w), (B, h, w, C), or (B, tokens, C), whose last h w
    tokens are the places.
    """

    name: str
    order: Literal["NCHW", "NHWC", "tokens"]
    grid: tuple[int, int]

    def fits(self, output: Tensor) -> bool:
        """Whether an output of the module holds them; one that is used twice may give others, too."""
        if self.order == "tokens":
            height, width = self.grid
            return output.ndim == 3 and 0 <= output.shape[1] - height * width <= MOST_PREFIX
        places = output.shape[2:] if self.order == "NCHW" else output.shape[1:3]
        return output.ndim == 4 and tuple(places) == self.grid

    def as_maps(self, output: Tensor) -> Tensor:
        """(B, C, h, w)."""
        if self.order == "NCHW":
            return output
        if self.order == "NHWC":
            return output.permute(0, 3, 1, 2)
        height, width = self.grid
        places = output[:, -height * width :]
        return places.transpose(1, 2).reshape(len(output), -1, height, width)


def find_layer(network: Classifier, image: Tensor) -> Layer | None:
    """The last module of the backbone that gives a map of places; None where none is known to be one.

    image: (1, C, S, S). Of a transformer it is the last module of which more than the class token counts.
    """
    with (
        _watched(network.backbone) as outputs,
        _weights_fixed(network),
        evaluation_mode(network),
        torch.enable_grad(),
    ):
        features = network.backbone(image.detach().requires_grad_())
        layers = [
            _layer_of_maps(name, output, features.shape[1], image.shape[-1]) for name, output in outputs
        ]
        for layer, (_, output) in zip(reversed(layers), reversed(outputs), strict=True):
            if layer is None and output.ndim == 3 and output.shape[1] > 1:
                return _layer_of_tokens(outputs, output.shape, layers, network.head(features))
            if layer is not None:
                return layer
    return None


def _layer_of_maps(name: str, output: Tensor, width: int, side: int) -> Layer | None:
    """The layer, where the output is a map: as high as wide, as images are; `width` is that of features."""
    if output.ndim != 4:
        return None
    _, first, second, third = output.shape
    if third == width != first and 1 < first == second <= side:
        return Layer(name, "NHWC", (first, second))
    return Layer(name, "NCHW", (second, third)) if 1 < second == third <= side else None


def _layer_of_tokens(
    outputs: list[tuple[str, Tensor]], shape: torch.Size, layers: list[Layer | None], scores: Tensor
) -> Layer | None:
    """The last output of tokens in this shape whose places count for the scores.

    Their grid is that of a map before them.
    """
    _, count, width = shape
    grids = [layer.grid for layer in layers if layer is not None]
    grid = next(((h, w) for h, w in reversed(grids) if 0 <= count - h * w <= MOST_PREFIX), None)
    if grid is None:
        return None
    tokens = [(name, output) for name, output in outputs if output.shape == (1, count, width)]
    slopes = torch.autograd.grad(scores.max(), [output for _, output in tokens], allow_unused=True)
    for (name, _), slope in zip(reversed(tokens), reversed(slopes), strict=True):
        if slope is not None and slope[:, -grid[0] * grid[1] :].any():
            return Layer(name, "tokens", grid)
    return None


def grad_cam(network: Classifier, layer: Layer, images: Tensor, classes: Tensor) -> Maps:
    """How much each place raises the score (the logit) of its image's class: 0 and more.

    images: (B, C, S, S); classes: (B,) columns. Returns (B, h, w), not scaled.
    """
    pairs = zip(*(values.tensor_split(-(-len(images) // BATCH)) for values in (images, classes)), strict=True)
    return np.concatenate([_of_batch(network, layer, *pair) for pair in pairs])


def _of_batch(network: Classifier, layer: Layer, images: Tensor, classes: Tensor) -> Maps:
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if not layer.fits(output):
            return None
        kept.append(output.detach().requires_grad_())  # the graph begins here
        return kept[-1].clone()  # what follows may change its input in place

    handle = network.backbone.get_submodule(layer.name).register_forward_hook(keep)
    try:
        with torch.enable_grad(), _weights_fixed(network), evaluation_mode(network):
            scores = network.head(network.backbone(images)).gather(1, classes[:, None])
            (slopes,) = torch.autograd.grad(scores.sum(), kept[-1])
    finally:
        handle.remove()
    weights = layer.as_maps(slopes).mean(dim=(2, 3), keepdim=True)
    maps = (weights * layer.as_maps(kept[-1].detach())).sum(dim=1).clamp(min=0)
    return np.asarray(maps.numpy(), np.float32)


# -- whether maps depend on what was learnt --------------------------------------------------------------


def shuffled(network: Classifier, seed: int) -> Classifier:
    """A copy with the values of each weight tensor in random order.

    BatchNorm takes the statistics of the batch, so that signals neither die nor explode on the way.
    """
    other = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in other.parameters():
            order = torch.randperm(weights.numel(), generator=generator)
            weights.copy_(weights.flatten()[order].view_as(weights))
    for module in other.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean = module.running_var = None
    return other


def rank_correlations(first: Maps, second: Maps) -> NDArray[np.float64]:
    """Spearman's correlation of the maps of each image; those with a flat map are left out.

    >>> rising, flat, falling = [[0, 1], [2, 3]], [[1, 1], [1, 1]], [[3, 2], [1, 0]]
    >>> rank_correlations(np.float32([rising, flat]), np.float32([falling, falling]))
    array([-1.])
    """
    from scipy.stats import rankdata

    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    steep = np.logical_and(*(np.ptp(each, axis=1) > 0 for each in ranks))
    one, other = (each[steep] - each[steep].mean(axis=1, keepdims=True) for each in ranks)
    lengths = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.asarray((one * other).sum(axis=1) / lengths, np.float64)


# -- looking into a network ------------------------------------------------------------------------------


@contextlib.contextmanager
def _watched(backbone: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """Within it the outputs of all modules below the backbone, in the order in which they end."""
    outputs: list[tuple[str, Tensor]] = []

    def hook(name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                return None
            outputs.append((name, output))
            return output.clone()  # what follows may change its input in place

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in backbone.named_modules() if name]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _weights_fixed(network: nn.Module) -> Iterator[None]:
    """Within it no gradient of a weight is asked for, which saves time and memory."""
    learning = [weights for weights in network.parameters() if weights.requires_grad]
    try:
        for weights in learning:
            weights.requires_grad_(False)
        yield
    finally:
        for weights in learning:
            weights.requires_grad_(True)
