from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from saccade.errors import RecipeError
from saccade.models import (
    Classifier,
    build_model,
    freeze_backbone,
    frozen_hash,
    layers,
    parameter_groups,
    set_training_mode,
    stages,
    unfreeze,
)

SMALL = "mobilenetv3_small_050"


@pytest.fixture
def network() -> Classifier:
    return build_model(SMALL, 3, pretrained=False, image_size=32).module


@pytest.fixture
def transformer() -> Classifier:
    return build_model("vit_tiny_patch16_224", 3, pretrained=False, image_size=32).module


def learning(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def train_two_steps(network: Classifier) -> None:
    optimiser = torch.optim.SGD(parameter_groups(network, 0.01), lr=0.1)
    set_training_mode(network)
    for step in range(2):
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        nn.functional.cross_entropy(network(images), torch.tensor([0, 1, 2, 0])).backward()
        optimiser.step()
        optimiser.zero_grad()


def test_stages_are_those_of_the_architecture(network):
    assert list(stages(network)) == [
        "conv_stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5", "conv_head",
    ]  # fmt: skip
    assert stages(network)["conv_stem"] == ("backbone.conv_stem", "backbone.bn1")  # its norm goes with it
    found = [name for group in stages(network).values() for name in group]
    assert found == list(layers(network))


def test_stages_of_other_families(transformer):
    assert list(stages(transformer)) == ["patch_embed", *(f"blocks.{n}" for n in range(12))]
    assert "backbone.norm" in stages(transformer)["blocks.11"]
    resnet = build_model("torchvision/resnet18", 3, pretrained=False, image_size=32).module
    assert list(stages(resnet)) == ["conv1", "layer1", "layer2", "layer3", "layer4"]


def test_two_stages(network):
    chosen = unfreeze(network, "2")
    assert chosen == stages(network)["blocks.5"] + stages(network)["conv_head"]
    for name in learning(network):
        assert name.startswith(("backbone.blocks.5.", "backbone.conv_head.", "head."))
    assert learning(network) >= {"head.dense.weight", "backbone.conv_head.weight"}
    assert unfreeze(network, "0") == ()
    assert learning(network) == {"head.dense.weight", "head.dense.bias"}


def test_shares_and_layer_counts(network):
    names = layers(network)
    assert unfreeze(network, "0.3") == names[-math.ceil(0.3 * len(names)) :]
    assert len(names) == 87
    assert unfreeze(network, "layers:-50") == names[50:]
    assert unfreeze(network, "layers:5") == names[-5:]
    assert unfreeze(network, "1.0") == names
    assert unfreeze(network, " all ") == names
    assert len(learning(network)) == len(list(network.parameters()))


def test_all_reaches_parameters_that_stand_in_no_layer(transformer):
    unfreeze(transformer, "all")
    assert {"backbone.cls_token", "backbone.pos_embed"} <= learning(transformer)
    unfreeze(transformer, "3")
    assert not {"backbone.cls_token", "backbone.pos_embed"} & learning(transformer)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("20", "there are 8 stages: conv_stem, blocks.0"),
        ("1.5", "a share lies between 0 and 1"),
        ("layers:-87", "there are 87 layers"),
        ("layers:x", "layers:-100"),
        ("some", '"all"'),
        ("-1", "share"),
        ("nan", "share"),
    ],
)
def test_what_cannot_be_unfrozen_is_said(network, spec, words):
    with pytest.raises(RecipeError, match=words):
        unfreeze(network, spec)


@pytest.mark.parametrize("spec", ["0", "2", "0.3", "layers:-50"])
def test_promise_4_frozen_weights_and_statistics_do_not_move(network, spec):
    unfreeze(network, spec)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seal = frozen_hash(network)
    train_two_steps(network)
    assert frozen_hash(network) == seal
    changed = {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}
    allowed = learning(network)
    moving = tuple(name.rpartition(".")[0] + "." for name in allowed)
    assert changed
    assert all(name in allowed or name.startswith(moving) for name in changed)
    if spec != "0":
        assert "backbone.bn2.running_mean" in changed or "backbone.blocks.5.0.bn1.running_mean" in changed


def test_the_hash_sees_weights_and_statistics(network):
    freeze_backbone(network)
    seal = frozen_hash(network)
    assert seal == frozen_hash(network)
    with torch.no_grad():
        network.head.dense.weight.add_(1)
    assert frozen_hash(network) == seal  # the head learns
    with torch.no_grad():
        network.backbone.bn1.running_mean.add_(1)
    moved = frozen_hash(network)
    assert moved != seal
    with torch.no_grad():
        network.backbone.conv_stem.weight.add_(1e-6)
    assert frozen_hash(network) not in (seal, moved)


def test_plain_training_mode_would_break_the_promise(network):
    freeze_backbone(network)
    seal = frozen_hash(network)
    network.train()
    network(torch.randn(4, 3, 32, 32))
    assert frozen_hash(network) != seal


def test_modes(network):
    unfreeze(network, "1")
    set_training_mode(network)
    assert network.training
    assert network.head.training
    assert network.backbone.conv_head.training
    assert not network.backbone.blocks.training
    assert not network.backbone.bn1.training
    assert not any(module.training for module in network.backbone.blocks.modules())
    unfreeze(network, "all")
    set_training_mode(network)
    assert all(module.training for module in network.modules())


def test_a_norm_without_weights_stands_still_in_a_frozen_part():
    backbone = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network = Classifier(backbone, nn.Linear(4, 2))
    freeze_backbone(network)
    seal = frozen_hash(network)
    set_training_mode(network)
    network(torch.randn(4, 3, 8, 8))
    assert frozen_hash(network) == seal


def test_decay_spares_norms_biases_and_embeddings(transformer):
    decayed, spared = parameter_groups(transformer, 0.05)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    names = {id(parameter): name for name, parameter in transformer.named_parameters()}
    decayed_names = {names[id(parameter)] for parameter in decayed["params"]}
    spared_names = {names[id(parameter)] for parameter in spared["params"]}
    assert decayed_names | spared_names == set(names.values())
    assert "head.dense.weight" in decayed_names
    assert not any("norm" in name or name.endswith("bias") for name in decayed_names)
    assert {"backbone.pos_embed", "backbone.cls_token", "head.dense.bias"} <= spared_names


def test_only_what_learns_is_given_to_the_optimiser(network):
    freeze_backbone(network)
    groups = parameter_groups(network, 0.01)
    assert sum(len(group["params"]) for group in groups) == 2
