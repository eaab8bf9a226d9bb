from __future__ import annotations

import torch
from torch import nn

from saccade.models import Classifier, as_text, build_model, freeze_backbone, summary


def test_rows_follow_the_image_and_count_every_parameter_once():
    for name in ("mobilenetv3_small_050", "torchvision/squeezenet1_1", "vit_tiny_patch16_224"):
        network = build_model(name, 3, pretrained=False, image_size=64 if "vit" not in name else 32).module
        table = summary(network, 64 if "vit" not in name else 32)
        total = sum(parameter.numel() for parameter in network.parameters())
        assert table.total == table.trainable == sum(row.parameters for row in table.rows) == total
        assert table.rows[-1].output_shape == (3,)


def test_frozen_parameters_are_counted_apart():
    network = build_model("mobilenetv3_small_050", 3, pretrained=False, image_size=32).module
    freeze_backbone(network)
    table = summary(network, 32)
    assert table.trainable == 1024 * 3 + 3
    assert f"not trainable: {table.not_trainable:,}" in as_text(table)


def test_the_network_is_left_as_it_was():
    network = build_model("small_cnn", 3, image_size=16).module
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    summary(network, 16)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_layer_that_is_used_twice_is_shown_twice_and_counted_once():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(3, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.dense(self.dense(images.mean((2, 3))))

    table = summary(Classifier(Twice(), nn.Linear(3, 2)), 8)
    assert [row.name for row in table.rows] == ["backbone.dense", "backbone.dense", "head"]
    assert [row.parameters for row in table.rows] == [12, 0, 8]


def test_the_text_is_aligned():
    text = as_text(summary(build_model("small_cnn", 3, image_size=16).module, 16))
    table = text.split("\n\n")[0].splitlines()
    assert len({len(line) for line in table}) == 1
    assert table[0].split() == ["layer", "kind", "output", "shape", "parameters"]


def test_our_own_networks_are_shown_at_their_own_size():
    from saccade.models import build_model
    from saccade.models.backbones import backbones

    sides = {row.name: row.image_size for row in backbones("*_cnn") if row.library == "saccade"}
    assert sides == {"small_cnn": 224, "fast_cnn": 32}
    for name, side in sides.items():
        assert build_model(name, 3).preprocess.size == side
