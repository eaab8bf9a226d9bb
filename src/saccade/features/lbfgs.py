"""L-BFGS for several smooth convex problems of one shape at once (Liu and Nocedal 1989).

Each problem has its own steps and its own end; only the products are shared. scipy's takes 0.9 s of a core to
import, more than it takes to fit a head, and torch's first imports torch's compiler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SUFFICIENT = 1e-4  # share of the decrease that the slope promises which a step must bring (Armijo)
MOST_HALVINGS = 20  # of a step; then rounding is all that is left
LEAST_CURVATURE = 1e-10  # of a step, else it teaches nothing about the problem

# numbers (problems, n) -> values (problems,) and gradients (problems, n)
Objective = Callable[[Tensor], tuple[Tensor, Tensor]]


class _Step(NamedTuple):
    """A step, the change of the gradient (problems, n), and 1 / their product (problems, 1).

    That is 0 for problems about which the step taught nothing.
    """

    moved: Tensor
    turned: Tensor
    scale: Tensor

    @classmethod
    def of(cls, moved: Tensor, turned: Tensor) -> _Step:
        product = _dot(moved, turned)
        taught = product > LEAST_CURVATURE * _dot(turned, turned)
        return cls(moved, turned, torch.where(taught, 1 / product, 0.0))


def minimise(
    objective: Objective,
    start: Tensor,
    *,
    iterations: int,
    tolerance: float,
    gradient_tolerance: float,
    remembered: int,
) -> Tensor:
    """The minimum of each problem, from `start` (problems, n).

    A problem ends when a step gains less than `tolerance` times its value (or 1, if that is more), when no
    number of its gradient is above `gradient_tolerance`, or when no step along the slope gains anything.
    """
    numbers = start.double()
    value, gradient = objective(numbers)
    steps: deque[_Step] = deque(maxlen=remembered)
    running = gradient.abs().amax(1) > gradient_tolerance
    for _ in range(iterations):
        if not running.any():
            break
        direction = torch.where(running[:, None], -_towards_minimum(gradient, steps), 0.0)
        found = _search(objective, numbers, value, gradient, direction)
        steps.append(_Step.of(found.numbers - numbers, found.gradient - gradient))
        gained = value - found.value
        running &= gained > tolerance * found.value.abs().clamp(min=1.0)
        numbers, value, gradient = found
        running &= gradient.abs().amax(1) > gradient_tolerance
    return numbers


class _Found(NamedTuple):
    numbers: Tensor
    value: Tensor
    gradient: Tensor


def _search(
    objective: Objective, numbers: Tensor, value: Tensor, gradient: Tensor, direction: Tensor
) -> _Found:
    """The first of halved steps that is good enough, problem by problem; where none is, nothing moves."""
    slope = _dot(direction, gradient)[:, 0]
    size = torch.ones_like(value)
    found = _Found(numbers, value, gradient)
    open_ = slope < 0
    for _ in range(MOST_HALVINGS):
        tried = _Found(numbers + size[:, None] * direction, *objective(numbers + size[:, None] * direction))
        good = open_ & (tried.value <= value + SUFFICIENT * size * slope)
        found = _Found(
            torch.where(good[:, None], tried.numbers, found.numbers),
            torch.where(good, tried.value, found.value),
            torch.where(good[:, None], tried.gradient, found.gradient),
        )
        open_ &= ~good
        if not open_.any():
            break
        size = torch.where(open_, size / 2, 0.0)
    return found


def _towards_minimum(gradient: Tensor, steps: deque[_Step]) -> Tensor:
    """The gradient (problems, n) times the inverse of the curvature that the last steps showed."""
    found, shares = gradient.clone(), []
    for step in reversed(steps):
        shares.append(step.scale * _dot(step.moved, found))
        found -= shares[-1] * step.turned
    found *= _first_scale(gradient, steps)
    for step, share in zip(steps, reversed(shares), strict=True):
        found += (share - step.scale * _dot(step.turned, found)) * step.moved
    return found


def _first_scale(gradient: Tensor, steps: deque[_Step]) -> Tensor:
    """(problems, 1): of the last step that taught something; without one, steps of length 1 at most."""
    scale: Tensor = 1 / gradient.norm(dim=1, keepdim=True).clamp(min=1.0)
    for step in steps:
        curvature = 1 / (step.scale * _dot(step.turned, step.turned))
        scale = torch.where(step.scale > 0, curvature, scale)
    return scale


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """(problems, 1)."""
    product: Tensor = (one * other).sum(1, keepdim=True)
    return product
