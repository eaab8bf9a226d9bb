"""A forward pass over some rows of a batch that computes what it would over the whole batch.

Two things in a network look beyond one image. BatchNorm takes mean and variance of the whole batch: the
processes add up theirs, also in the backward pass (torch's SyncBatchNorm does that on GPUs only). Dropout and
drop path draw a mask: each process draws that of the whole batch and takes its rows, so that a mask stays a
function of (seed, step). On a CPU it has the bits that one process draws; on GPUs dropout draws others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

FEATURES = {functional.dropout1d: 3, functional.dropout2d: 4, functional.dropout3d: 5}  # -> dimensions


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of `images` that this process computes, and how it adds up numbers with the others.

    `number`: which of `processes` it is.
    """

    start: int
    stop: int
    images: int
    number: int
    processes: int
    add_up: Callable[[Tensor], Tensor]

    @property
    def count(self) -> int:
        return self.stop - self.start


class GlobalBatch(TorchFunctionMode):
    """Within it a network sees `rows` of a batch as a part of the whole batch."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if function is functional.batch_norm:
            return self._batch_norm(*args, **named)
        if function is functional.dropout:
            return self._dropout(*args, **named)
        if function in FEATURES:
            return self._feature_dropout(function, *args, **named)
        if function is Tensor.bernoulli_:
            return self._bernoulli(*args, **named)
        return function(*args, **named)

    def _batch_norm(
        self,
        values: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        # without statistics of its own it is no BatchNorm: standardised filters are made by the same function
        if not training or running_mean is None or running_var is None or not self._by_image(values):
            return functional.batch_norm(
                values, running_mean, running_var, weight, bias, training, momentum, eps
            )
        with torch.no_grad():
            mean, variance = pooled(values.detach(), self.rows)
            total = values.numel() // values.shape[1] * self.rows.images // self.rows.count
            unbiased = variance * (total / max(1, total - 1))
            running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
            running_var.mul_(1 - momentum).add_(unbiased, alpha=momentum)
        normed: Tensor = WholeBatchNorm.apply(values, weight, bias, mean, variance, eps, total, self.rows)
        return normed

    def _dropout(
        self, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or not 0 < p < 1 or not self._by_image(values):
            return functional.dropout(values, p, training, inplace)
        noise = self._drawn(values, values.shape, 1 - p).div_(1 - p)
        return values.mul_(noise) if inplace else values * noise

    def _feature_dropout(
        self, function: Any, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        whole = values.ndim == FEATURES[function] and self._by_image(values)
        if not training or not 0 < p < 1 or not whole:
            unchanged: Tensor = function(values, p, training, inplace)
            return unchanged
        shape = (*values.shape[:2], *(1 for _ in values.shape[2:]))
        noise = self._drawn(values, shape, 1 - p).div_(1 - p)
        return values.mul_(noise) if inplace else values * noise

    def _bernoulli(self, values: Tensor, p: Any = 0.5, **named: Any) -> Tensor:
        """Drop path, of timm and torchvision alike, fills a tensor of a number an image."""
        if named or isinstance(p, Tensor) or not self._by_image(values):
            return values.bernoulli_(p, **named)
        return values.copy_(self._drawn(values, values.shape, p))

    def _by_image(self, values: Tensor) -> bool:
        """Whether the first dimension is that of images, or of as many parts of each."""
        return bool(values.ndim and values.shape[0] and values.shape[0] % self.rows.count == 0)

    def _drawn(self, like: Tensor, shape: Sequence[int], keep: float) -> Tensor:
        """Ones and zeros of the whole batch, of which the rows of this process are given."""
        each = shape[0] // self.rows.count
        whole = torch.empty((each * self.rows.images, *shape[1:]), dtype=like.dtype, device=like.device)
        if like.ndim == 4 and not like.is_contiguous() and list(shape) == list(like.shape):
            whole = whole.to(memory_format=torch.channels_last)
        return whole.bernoulli_(keep)[each * self.rows.start : each * self.rows.stop]


def pooled(values: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of each channel over the whole batch, float32, the same on every process."""
    mean, variance = _own(values.float())
    table = torch.zeros(rows.processes, 2 * len(mean) + 1, dtype=torch.float64, device=values.device)
    table[rows.number] = torch.cat([mean.double(), variance.double(), mean.new_full((1,), rows.count)])
    rows.add_up(table)
    means, variances, share = table[:, : len(mean)], table[:, len(mean) : -1], table[:, -1:] / rows.images
    whole = (share * means).sum(0)
    spread = (share * (variances + (means - whole) ** 2)).sum(0)
    return whole.float(), spread.float()


def _own(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of each channel of these rows.

    By the kernel of BatchNorm: its running figures at momentum 1 are those of the batch, with the variance of
    a sample. On a CPU that takes an eighth of the time of torch.var_mean.
    """
    count = values.numel() // values.shape[1]
    if count < 2:
        variance, mean = torch.var_mean(values, _but_channels(values), correction=0)
        return mean, variance
    mean, variance = values.new_zeros(values.shape[1]), values.new_zeros(values.shape[1])
    functional.batch_norm(values, mean, variance, training=True, momentum=1.0)
    return mean, variance * ((count - 1) / count)


class WholeBatchNorm(torch.autograd.Function):
    """BatchNorm by mean and variance that were taken of the whole batch, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        total: int,
        rows: Rows,
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, variance)
        ctx.eps, ctx.total, ctx.rows, ctx.has_bias = eps, total, rows, bias is not None
        return functional.batch_norm(values, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """d/dx = w/s (g - mean(g) - z mean(g z)), with z the normed values and means over the whole batch."""
        (gradient,) = gradients
        values, given, mean, variance = ctx.saved_tensors
        weight = torch.ones_like(mean) if given is None else given
        _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        sums = ctx.rows.add_up(torch.stack([by_weight.double(), by_bias.double()]))
        mean_product, mean_gradient = (sums / ctx.total).float()
        inverse = (variance + ctx.eps).rsqrt()
        scale = weight.float() * inverse
        slope = -scale * inverse * mean_product
        shift = -scale * mean_gradient - slope * mean
        shape = [1, -1, *(1 for _ in values.shape[2:])]
        moved = torch.addcmul(shift.view(shape), values, slope.view(shape))
        into = torch.addcmul(moved, gradient, scale.view(shape)).to(values.dtype)
        learnt = (None if given is None else by_weight, by_bias if ctx.has_bias else None)
        return (into, *learnt, None, None, None, None, None)


def _but_channels(values: Tensor) -> list[int]:
    return [0, *range(2, values.ndim)]
