"""What an optimizer remembers, as named tensors and numbers for a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saccade.errors import TrainingError

GROUP = "group"  # in names: what a whole group of weights remembers, and not each weight


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What an optimizer remembers as named tensors and named numbers: "3/exp_avg", "group/0/step".

    Raises TrainingError where it remembers what is neither: a run could not go on from that.
    """
    found = optimizer.state_dict()
    named = {
        f"{index}/{key}": value for index, entry in found["state"].items() for key, value in entry.items()
    }
    groups = found["param_groups"]
    named |= {f"{GROUP}/{i}/step": group["step"] for i, group in enumerate(groups) if "step" in group}
    named = {name: value for name, value in named.items() if value is not None}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    numbers = {name: value for name, value in named.items() if isinstance(value, int | float)}
    if other := sorted(named.keys() - tensors.keys() - numbers.keys()):
        raise TrainingError(
            f"optimizer {type(optimizer).__name__} keeps {other[0]}, which is neither a tensor nor a number",
            hint="use another train.optimizer: a run that was stopped could not go on with this one",
        )
    return tensors, numbers


def unflatten_optimizer(
    tensors: Mapping[str, Tensor], numbers: Mapping[str, float]
) -> tuple[dict[int, dict[str, Any]], dict[int, Any]]:
    """The inverse of `flatten_optimizer`: the state by weight, and the steps by group."""
    state: dict[int, dict[str, Any]] = {}
    steps: dict[int, Any] = {}
    for name, value in (*tensors.items(), *numbers.items()):
        index, key = name.split("/", 1)
        if index == GROUP:
            steps[int(key.split("/")[0])] = value
        else:
            state.setdefault(int(index), {})[key] = value
    return state, steps
