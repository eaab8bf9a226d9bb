"""Muon: steps of equal size in every direction of a weight matrix. Jordan et al. 2024, "Muon".

For filters and matrices behind a norm; what is no such matrix (biases, the head) takes SGD steps with
Nesterov momentum at shares of the same rate, so that a schedule drives both.

torch.optim.Muon (2.15) takes matrices only. timm's flattens filters as here, but does not keep their length,
computes in bfloat16, and takes AdamW steps for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Odd polynomial a s + b s^3 + c s^5 that lifts singular values 0 < s <= 1 towards 1 (Jordan 2024).
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
FILTER_MOMENTUM = 0.6
# Rates of the rest, as shares of the filters' rate (Jordan 2024, airbench94_muon: 0.24, 0.67, 0.053).
HEAD_SHARE, VECTOR_SHARE = 2.8, 0.22


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` True get orthogonalised steps, others SGD with Nesterov momentum.

    A group's `rate_share` multiplies its rate. Filters (out, in, h, w) are matrices (out, in h w); they keep
    the length they began with, since a norm that follows makes it meaningless, and steps are shares of it.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "rate_share": 1.0}
        super().__init__(groups, {**defaults, "orthogonal": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group)
        return loss

    def _step_one(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
            if group["orthogonal"]:
                state["length"] = parameter.norm()
        rate = group["lr"] * group["rate_share"]
        direction = nesterov(gradient, state["momentum_buffer"], group["momentum"])
        if group["orthogonal"]:
            matrix = newton_schulz(direction.flatten(1))
            share = state["length"] / min(matrix.shape) ** 0.5  # the matrix's own length is about that root
            parameter.mul_(state["length"] / parameter.norm().clamp(min=1e-12))
            parameter.sub_(matrix.view_as(parameter) * (rate * share))
        else:
            parameter.mul_(1 - group["weight_decay"] * group["lr"])  # decoupled, as in AdamW
            parameter.sub_(direction, alpha=rate)


def nesterov(gradient: Tensor, buffer: Tensor, momentum: float) -> Tensor:
    """The gradient plus `momentum` times the running sum, which is moved on in place."""
    buffer.mul_(momentum).add_(gradient)
    return gradient.add(buffer, alpha=momentum)


def newton_schulz(matrix: Tensor) -> Tensor:
    """(m, n) with the singular vectors of `matrix` and singular values near 1 (0.7 to 1.2).

    Newton-Schulz on the smaller Gram matrix: with G = X X^T every X_(k+1) = P_k X_k is a product of
    polynomials of G, so that n enters in two multiplications instead of fifteen. Float32.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return newton_schulz(matrix.T).T
    unit = matrix.float()
    unit = unit / unit.norm().clamp(min=1e-7)
    gram = unit @ unit.T
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    product = identity = torch.eye(len(gram), device=gram.device)
    for _ in range(NEWTON_SCHULZ_STEPS):
        polynomial = a * identity + b * gram + c * (gram @ gram)
        product = polynomial @ product
        gram = polynomial @ gram @ polynomial
    result: Tensor = (product @ unit).to(matrix.dtype)
    return result
