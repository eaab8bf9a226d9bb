from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.errors import ModelError
from saccade.models import as_text, build_model, rebuild, summary


def test_the_published_size_has_exactly_its_parameters():
    built = build_model("small_cnn", 10, image_size=224)
    table = summary(built.module, 224)
    assert table.trainable == table.total == 51_674_794
    assert sum(row.parameters for row in table.rows) == 51_674_794
    text = as_text(table)
    assert "trainable parameters: 51,674,794" in text
    assert "128 x 28 x 28" in text


def test_layers_stand_in_the_order_of_the_textbook():
    built = build_model("small_cnn", 10, image_size=32)
    block = ["Conv2d", "ReLU", "BatchNorm2d"] * 2 + ["MaxPool2d", "Dropout"]
    top = ["Flatten", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"]
    kinds = [row.kind for row in summary(built.module, 32).rows]
    assert kinds == block * 3 + top
    dropouts = [m.p for m in built.module.modules() if isinstance(m, nn.Dropout)]
    assert dropouts == [0.25, 0.25, 0.25, 0.5]
    convolutions = [m for m in built.module.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [32, 32, 64, 64, 128, 128]
    assert all(m.bias is not None and m.kernel_size == (3, 3) and m.padding == (1, 1) for m in convolutions)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_small_images_and_both_heads(head):
    built = build_model("small_cnn", 4, image_size=33, head=head)
    images = torch.randn(2, 3, 33, 33)
    built.module.eval()
    logits = built.module(images)
    assert logits.shape == (2, 4)
    assert built.module.backbone(images).shape == (2, 512 if head == "linear" else 128)
    assert torch.equal(built.module.head(built.module.backbone(images)), logits)
    again = rebuild(built.architecture)
    again.load_state_dict(built.module.state_dict())
    assert torch.equal(again.eval()(images), logits)


def test_the_mlp_head_is_the_one_described():
    head = build_model("small_cnn", 4, image_size=32, head="mlp").module.head
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert (head[0].out_features, head[2].p) == (256, 0.5)


def test_it_starts_from_scratch_and_says_so():
    built = build_model("small_cnn", 3)
    assert built.pretrained is False
    assert built.notes == ("small_cnn starts from random weights",)
    assert (built.preprocess.size, built.preprocess.resize) == (224, "squash")
    with pytest.raises(ModelError, match=r"no pretrained weights(?s:.*)leave --weights out"):
        build_model("small_cnn", 3, weights="x.safetensors")
    with pytest.raises(ModelError, match="at least 8 pixels, got 7"):
        build_model("small_cnn", 3, image_size=7)


def test_random_weights_are_f_of_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = build_model("small_cnn", 3, image_size=16, seed=1).module.state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(6)
    again = build_model("small_cnn", 3, image_size=16, seed=1).module.state_dict()
    other = build_model("small_cnn", 3, image_size=16, seed=2).module.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.dense.weight"], other["head.dense.weight"])
