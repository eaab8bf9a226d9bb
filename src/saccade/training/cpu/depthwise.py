"""Depthwise convolutions whose backward pass is quick in bfloat16 on a CPU, and exactly the same gradients.

oneDNN has no fast bfloat16 kernel for two gradients: that of the weights of a 5x5 depthwise convolution, and
that of the input of one with stride 2. Both can be had from kernels that are fast: docs/fast-training.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

EXACT_KERNELS = (3, 5, 7)
FAST_KERNELS = (3, 5)  # a 7x7 takes nine calls, and oneDNN is not slow there
STRIDES = (1, 2)
SAME_PADDING = ("Conv2dSame",)  # timm's: pads by what the image's size needs, in its forward
BLOCK = 3  # side of the pieces that a larger kernel's gradient is put together from

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, None, None]


class Shape(NamedTuple):
    """What a depthwise convolution is, besides its numbers: channels, and stride and padding of both axes."""

    channels: int
    stride: int
    padding: int


class DepthwiseConvolution(torch.autograd.Function):
    """`conv2d(x, weight, bias, stride, padding, groups=C)` for x (B, C, H, W) and weight (C, 1, k, k).

    k is 3, 5 or 7, stride 1 or 2, dilation 1; all tensors have one dtype.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = Shape(len(weight), stride, padding)
        return functional.conv2d(x, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Gradients:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        return (
            _input_gradient(gradient, x, weight, ctx.shape) if wants_x else None,
            _weight_gradient(gradient, x, weight, ctx.shape) if wants_weight else None,
            gradient.sum((0, 2, 3)) if wants_bias else None,
            None,
            None,
        )


def depthwise_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> Tensor:
    """`conv2d` of x (B, C, H, W) with a kernel (C, 1, k, k) for each channel, its gradients the quick way."""
    result: Tensor = DepthwiseConvolution.apply(x, weight, bias, stride, padding)
    return result


@contextlib.contextmanager
def fast_depthwise_backward(module: nn.Module, *, always: bool = False) -> Iterator[int]:
    """Within it, the module's plain 3x3 and 5x5 depthwise layers have the quick backward; yields how many.

    It acts only where gradients are wanted on a CPU in bfloat16 autocast (`always`: in any arithmetic).
    Parameters, their names and evaluation stay as they are; afterwards so does everything else.
    """
    layers = [layer for layer in module.modules() if is_plain_depthwise(layer)]
    forward = _forward_always if always else _forward
    for layer in layers:
        layer.forward = MethodType(forward, layer)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def is_plain_depthwise(layer: nn.Module) -> bool:
    """Whether a layer is a 3x3 or 5x5 depthwise convolution without dilation that pads with zeros."""
    if not isinstance(layer, nn.Conv2d) or "forward" in layer.__dict__:
        return False
    padding = layer.padding
    padded = type(layer).__name__ in SAME_PADDING or (
        type(layer) is nn.Conv2d and isinstance(padding, tuple) and len(set(padding)) == 1
    )
    return (
        padded
        and layer.groups == layer.in_channels == layer.out_channels > 1
        and layer.kernel_size in [(k, k) for k in FAST_KERNELS]
        and layer.stride in [(s, s) for s in STRIDES]
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and (type(layer) is not nn.Conv2d or int(padding[0]) < layer.kernel_size[0])
    )


def _forward(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The layer's own forward, or in training in bfloat16 on a CPU the one with the quick backward."""
    wanted = torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad)
    if not wanted or x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return type(layer).forward(layer, x)
    if torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return type(layer).forward(layer, x)
    return _forward_always(layer, x, torch.bfloat16)


def _forward_always(layer: nn.Conv2d, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if dtype:
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    stride = layer.stride[0]
    if type(layer).__name__ in SAME_PADDING:
        return depthwise_convolution(
            pad_as_needed(x, layer.kernel_size[0], stride), weight, bias, stride=stride
        )
    return depthwise_convolution(x, weight, bias, stride=stride, padding=int(layer.padding[0]))


def pad_as_needed(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around x (B, C, H, W) as TensorFlow's "SAME": ceil(H / stride) rows come out, more below."""
    height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
    around = (width // 2, width - width // 2, height // 2, height - height // 2)
    return functional.pad(x, around) if height or width else x


def _input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """Stride 2 as a convolution of stride 1 over the gradient with zeros between its values."""
    if shape.stride == 1:
        return _oneDNN(gradient, x, weight, shape, (True, False))
    kernel, stride = weight.shape[-1], shape.stride
    rows, columns = gradient.shape[-2:]
    first = kernel - 1 - shape.padding
    size = (*x.shape[:2], x.shape[2] + kernel - 1, x.shape[3] + kernel - 1)
    spread = gradient.new_zeros(size).contiguous(memory_format=torch.channels_last)
    last_row, last_column = first + (rows - 1) * stride + 1, first + (columns - 1) * stride + 1
    spread[:, :, first:last_row:stride, first:last_column:stride] = gradient
    return functional.conv2d(spread, weight.flip(2, 3), None, 1, 0, 1, shape.channels)


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """A 5x5 or 7x7 kernel's gradient from those of 3x3 kernels; where these overlap they are equal."""
    kernel = weight.shape[-1]
    if kernel == BLOCK:
        return _oneDNN(gradient, x, weight, shape, (False, True))
    padded = functional.pad(x, (shape.padding,) * 4)
    rows, columns = ((side - 1) * shape.stride + BLOCK for side in gradient.shape[-2:])
    whole, bare = torch.empty_like(weight), shape._replace(padding=0)
    for top in range(0, kernel - 1, 2):
        for left in range(0, kernel - 1, 2):
            seen = padded[:, :, top : top + rows, left : left + columns]
            seen = seen.contiguous(memory_format=torch.channels_last)
            block = (slice(None), slice(None), slice(top, top + BLOCK), slice(left, left + BLOCK))
            whole[block] = _oneDNN(gradient, seen, weight[block].contiguous(), bare, (False, True))
    return whole


def _oneDNN(gradient: Tensor, x: Tensor, weight: Tensor, shape: Shape, wanted: tuple[bool, bool]) -> Tensor:
    """The input's or the weights' gradient as torch computes it."""
    stride, padding = [shape.stride] * 2, [shape.padding] * 2
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, [1, 1], False, [0, 0], shape.channels, [*wanted, False]
    )
    result: Tensor = found[0] if wanted[0] else found[1]
    return result
