"""Optimizers by name: five of our own, and those of `timm.optim` (recipe/optimizers.py lists them).

Norms and biases get no weight decay, frozen parameters get no optimizer at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from saccade.errors import RecipeError
from saccade.models.finetune import parameter_groups
from saccade.models.network import Classifier
from saccade.plan import OptimizerPlan
from saccade.training.muon import FILTER_MOMENTUM, HEAD_SHARE, VECTOR_SHARE, Muon

Groups = list[dict[str, Any]]


def adam(groups: Groups, learning_rate: float, settings: OptimizerPlan) -> torch.optim.Optimizer:
    """Adam with weight decay as part of the gradient. Kingma and Ba 2015."""
    return torch.optim.Adam(groups, lr=learning_rate, fused=_fused(groups))


def adamw(groups: Groups, learning_rate: float, settings: OptimizerPlan) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay. Loshchilov and Hutter 2019."""
    return torch.optim.AdamW(groups, lr=learning_rate, fused=_fused(groups))


def sgd(groups: Groups, learning_rate: float, settings: OptimizerPlan) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum (plain where the momentum is 0)."""
    momentum = settings.momentum
    return torch.optim.SGD(
        groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0, fused=_fused(groups)
    )


def rmsprop(groups: Groups, learning_rate: float, settings: OptimizerPlan) -> torch.optim.Optimizer:
    """Steps divided by the root of the mean square of recent gradients, with momentum. Hinton 2012."""
    return torch.optim.RMSprop(groups, lr=learning_rate, alpha=0.9, momentum=settings.momentum)


def _fused(groups: Groups) -> bool:
    """One pass over memory a step, where torch has it: on a CPU nine times quicker for 50 million weights."""
    return all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])


def muon(groups: Groups, learning_rate: float, settings: OptimizerPlan) -> torch.optim.Optimizer:
    """Orthogonalised momentum for filters, SGD with Nesterov momentum for head, norms and biases."""
    return Muon(
        [part for group in groups for part in _by_shape(group)], lr=learning_rate, momentum=settings.momentum
    )


def _by_shape(group: dict[str, Any]) -> Groups:
    """Filters (4 dimensions), other matrices (the head), vectors: each with its share of the rate."""
    filters = [p for p in group["params"] if p.ndim == 4]
    matrices = [p for p in group["params"] if p.ndim in (2, 3)]
    vectors = [p for p in group["params"] if p.ndim not in (2, 3, 4)]
    parts: Groups = [
        {"params": filters, "orthogonal": True, "momentum": FILTER_MOMENTUM},
        {"params": matrices, "rate_share": HEAD_SHARE},
        {"params": vectors, "rate_share": VECTOR_SHARE},
    ]
    return [{**group, **part} for part in parts if part["params"]]


def from_timm(groups: Groups, learning_rate: float, settings: OptimizerPlan) -> torch.optim.Optimizer:
    """The optimizer of this name in `timm.optim`, with timm's own settings for all but rate and momentum.

    Raises RecipeError where the installed timm has none of that name.
    """
    from timm.optim import create_optimizer_v2

    name = settings.name.removeprefix("timm/")
    try:
        made = create_optimizer_v2(groups, opt=name, lr=learning_rate, momentum=settings.momentum)
    except ValueError as error:
        raise RecipeError(
            f"train.optimizer = {settings.name} cannot be made by the installed timm ({error})",
            hint="install a newer timm, or use another optimizer",
        ) from None
    assert isinstance(made, torch.optim.Optimizer)
    return made


# name in the recipe -> builder; all others are timm's
OPTIMIZERS: dict[str, Callable[[Groups, float, OptimizerPlan], torch.optim.Optimizer]] = {
    "adam": adam,
    "adamw": adamw,
    "sgd": sgd,
    "rmsprop": rmsprop,
    "muon": muon,
}

# tensors that each remembers for a weight; of timm's none remembers more than four (Adan)
MOMENTS = {"adam": 2, "adamw": 2, "sgd": 1, "rmsprop": 2, "muon": 1, "lion": 1, "lamb": 2, "nadamw": 2}
MOST_MOMENTS = 4


def build_optimizer(
    classifier: Classifier, learning_rate: float, settings: OptimizerPlan
) -> torch.optim.Optimizer:
    """The optimizer of the plan over what is not frozen."""
    groups = parameter_groups(classifier, settings.weight_decay, settings.layer_decay)
    return OPTIMIZERS.get(settings.name, from_timm)(groups, learning_rate, settings)
