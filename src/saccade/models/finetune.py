"""Freezing and unfreezing: which parts of a network learn, and that the others do not move (promise 4).

Frozen means parameters and BatchNorm statistics: a frozen module stays in evaluation mode while others train.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from saccade.errors import RecipeError
from saccade.models.network import Classifier

# A child that holds more than this share of the layers is no stage but a container of stages.
CONTAINER_SHARE = 0.8
NORMS = ("Norm", "Frn", "FilterResponse")


def stages(classifier: Classifier) -> dict[str, tuple[str, ...]]:
    """The backbone's stages from input to output, name -> layers: conv_stem, blocks.0, ... conv_head.

    A norm that stands between two stages belongs to the one before it.
    """
    grouped: dict[str, tuple[str, ...]] = {}
    for name, module in _units(classifier.backbone):
        found = tuple(f"backbone.{name}.{inner}".rstrip(".") for inner in _own_layers(module))
        if grouped and _only_norms(module):
            last = next(reversed(grouped))
            grouped[last] += found
        else:
            grouped[name] = found
    return grouped


def layers(classifier: Classifier) -> tuple[str, ...]:
    """Names of the backbone's modules that own parameters themselves, from input to output."""
    return tuple(f"backbone.{name}".rstrip(".") for name in _own_layers(classifier.backbone))


def freeze(part: nn.Module) -> None:
    """Stop every parameter of a part from learning."""
    part.requires_grad_(False)


def freeze_backbone(classifier: Classifier) -> None:
    """Phase 1: only the head learns."""
    freeze(classifier.backbone)
    classifier.head.requires_grad_(True)


def unfreeze(classifier: Classifier, spec: str) -> tuple[str, ...]:
    """Let the head and a part of the backbone learn, freeze the rest; returns those layers' names.

    `spec`: "2" the last two stages, "0.3" the last three tenths of the layers, "layers:-100" all but the
    first 100 layers, "layers:20" the last 20, "all". RecipeError for more than there is, or anything else.
    """
    chosen = _chosen(classifier, spec.strip())
    freeze_backbone(classifier)
    if spec.strip() == "all":
        classifier.backbone.requires_grad_(True)
    for name in chosen:
        for parameter in classifier.get_submodule(name).parameters(recurse=False):
            parameter.requires_grad_(True)
    return chosen


def set_training_mode(classifier: Classifier, *, keep_statistics: bool = False) -> None:
    """Training mode for what learns; frozen modules stay in evaluation mode, BatchNorm statistics too.

    `keep_statistics`: the backbone's other BatchNorms normalise by their stored statistics as well.
    """
    classifier.train()
    for module in _frozen_modules(classifier):
        module.training = False
    for module in classifier.backbone.modules() if keep_statistics else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.training = False


def learning_tensors(classifier: Classifier, *, keep_statistics: bool = False) -> dict[str, Tensor]:
    """What training changes, by its name, sharing its memory: parameters that learn, and the running
    statistics of the BatchNorms that `set_training_mode` lets follow the batches.
    """
    still = {id(module) for module in _frozen_modules(classifier)}
    if keep_statistics:
        still |= {id(module) for module in classifier.backbone.modules()}
    found = {name: p.detach() for name, p in classifier.named_parameters() if p.requires_grad}
    for name, module in classifier.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and id(module) not in still:
            buffers = module.named_buffers(recurse=False)
            found |= {f"{name}.{key}": value for key, value in buffers if value.is_floating_point()}
    return found


def frozen_hash(classifier: Classifier) -> str:
    """SHA-256 over frozen parameters and all buffers of frozen modules; equal before and after a phase."""
    digest = hashlib.sha256()
    for name, tensor in _frozen_tensors(classifier):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def parameter_groups(
    classifier: Classifier, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """What learns, for an optimiser: weights with decay; norms, biases and other vectors without.

    With `layer_decay` below 1 each stage has groups of its own, whose `lr_scale` multiplies the rate.
    """
    spared = _no_decay_names(classifier)
    scales = rate_scales(classifier, layer_decay) if layer_decay < 1 else {}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            vector = parameter.ndim <= 1 or name in spared
            groups.setdefault((scales.get(name, 1.0), vector), []).append(parameter)
    return [
        {"params": found, "weight_decay": 0.0 if vector else weight_decay}
        | ({"lr_scale": scale} if scales else {})
        for (scale, vector), found in sorted(groups.items(), key=lambda entry: entry[0])
    ]


def rate_scales(classifier: Classifier, layer_decay: float) -> dict[str, float]:
    """What multiplies the learning rate of each parameter: `layer_decay` for every stage up to the head.

    The head has 1; what belongs to no stage (a class token) counts with the first. Bao et al. 2022, "BEiT".
    """
    grouped = stages(classifier)
    stages_left = {layer: len(grouped) - i for i, found in enumerate(grouped.values()) for layer in found}
    return {
        name: layer_decay ** stages_left.get(name.rpartition(".")[0], len(grouped))
        if name.startswith("backbone.")
        else 1.0
        for name, _ in classifier.named_parameters()
    }


def _no_decay_names(classifier: Classifier) -> set[str]:
    """Names that the backbone itself exempts (position embeddings, class tokens)."""
    exempt = getattr(classifier.backbone, "no_weight_decay", None)
    return {f"backbone.{name}" for name in exempt()} if callable(exempt) else set()


def _units(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Children with parameters; one that holds nearly all layers is replaced by its own children."""
    total = len(_own_layers(module))
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        count = len(_own_layers(child))
        if not count:
            continue
        if count > CONTAINER_SHARE * total and count > 1 and len(list(child.children())) > 1:
            found += _units(child, f"{prefix}{name}.")
        else:
            found.append((prefix + name, child))
    return found


def _own_layers(module: nn.Module) -> list[str]:
    return [
        name
        for name, inner in module.named_modules()
        if next(inner.parameters(recurse=False), None) is not None
    ]


def _only_norms(module: nn.Module) -> bool:
    owners = [module.get_submodule(name) for name in _own_layers(module)]
    return all(any(mark in type(owner).__name__ for mark in NORMS) for owner in owners)


def _chosen(classifier: Classifier, spec: str) -> tuple[str, ...]:
    names = layers(classifier)
    if spec == "all":
        return names
    try:
        if spec.startswith("layers:"):
            return _by_count(names, int(spec.removeprefix("layers:")))
        if spec.isdigit():
            return _by_stages(stages(classifier), int(spec))
        return _by_share(names, float(spec))
    except ValueError as error:
        raise RecipeError(
            f'train.unfreeze = "{spec}" is not valid ({error})',
            hint=(
                'use a number of stages ("2"), a share of the layers ("0.3"), "layers:-100" (all but the '
                'first 100) or "all"'
            ),
        ) from None


def _by_stages(grouped: dict[str, tuple[str, ...]], count: int) -> tuple[str, ...]:
    if count > len(grouped):
        raise ValueError(f"there are {len(grouped)} stages: {', '.join(grouped)}")
    last = list(grouped.values())[len(grouped) - count :]
    return tuple(name for group in last for name in group)


def _by_share(names: tuple[str, ...], share: float) -> tuple[str, ...]:
    if not 0 <= share <= 1:
        raise ValueError("a share lies between 0 and 1")
    return names[len(names) - math.ceil(share * len(names)) :]


def _by_count(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    if abs(count) >= len(names):
        raise ValueError(f"there are {len(names)} layers")
    return names[-count:] if count < 0 else names[len(names) - count :]


def _frozen_modules(classifier: Classifier) -> Iterable[nn.Module]:
    """Modules whose own parameters are all frozen, and everything below a part in which nothing learns."""
    for module in classifier.modules():
        below = list(module.parameters())
        if below and not any(parameter.requires_grad for parameter in below):
            yield from module.modules()
            continue
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            yield module


def _frozen_tensors(classifier: Classifier) -> list[tuple[str, Tensor]]:
    frozen = {id(module) for module in _frozen_modules(classifier)}
    found = [(name, p.data) for name, p in classifier.named_parameters() if not p.requires_grad]
    for name, module in classifier.named_modules():
        if id(module) in frozen:
            found += [(f"{name}.{key}", value) for key, value in module.named_buffers(recurse=False)]
    return sorted(found, key=lambda pair: pair[0])
