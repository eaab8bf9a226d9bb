"""Networks for other channels than red, green and blue; pretrained filters as timm adapts them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models import adapt_input_conv
from torch import nn

from saccade import extensions
from saccade.errors import ModelError
from saccade.models import build_model, rebuild
from saccade.models.channels import adapted, for_channels, take_channels
from saccade.preprocess import PixelFormat

BACKBONES = [
    "small_cnn",
    "fast_cnn",
    "timm/test_efficientnet",
    "timm/test_vit",
    "torchvision/mobilenet_v2",
]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 13])
def test_filters_are_adapted_as_timm_does(channels: int) -> None:
    filters = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(adapted(filters, channels), adapt_input_conv(channels, filters.clone()))


def test_a_gray_image_is_answered_as_its_three_copies_were() -> None:
    filters = torch.randn(8, 3, 3, 3)
    gray = torch.rand(2, 1, 9, 9)
    three = nn.functional.conv2d(gray.repeat(1, 3, 1, 1), filters)
    assert torch.allclose(nn.functional.conv2d(gray, adapted(filters, 1)), three, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("channels", ["gray", "5"])
def test_a_network_takes_them_and_is_rebuilt_from_its_description(backbone: str, channels: str) -> None:
    pixels = PixelFormat(channels, 16)
    size = 160 if "vit" in backbone else 32
    built = build_model(backbone, 3, pretrained=False, image_size=size, pixels=pixels)
    images = torch.randn(2, pixels.count, size, size)
    assert built.module.eval()(images).shape == (2, 3)
    assert built.preprocess.pixels == pixels
    assert len(built.preprocess.mean) == pixels.count
    assert built.architecture["channels"] == pixels.count
    again = rebuild(built.architecture).eval()
    again.load_state_dict(built.module.state_dict())
    assert torch.equal(again(images), built.module(images))


def test_an_rgb_network_says_nothing_of_channels() -> None:
    assert "channels" not in build_model("small_cnn", 2, pretrained=False, image_size=32).architecture


@pytest.mark.parametrize(
    ("channels", "told"), [("gray", "summed for 1 channel"), ("5", "scaled for 5 channels")]
)
def test_rgb_weights_from_a_file_are_adapted_and_it_is_said(tmp_path: Path, channels: str, told: str) -> None:
    rgb = build_model(
        "timm/test_efficientnet", 2, pretrained=False, image_size=32, seed=3
    ).module.backbone.state_dict()
    save_file(rgb, tmp_path / "rgb.safetensors")
    pixels = PixelFormat(channels)
    built = build_model(
        "timm/test_efficientnet", 2, weights=str(tmp_path / "rgb.safetensors"), image_size=32, pixels=pixels
    )
    first = built.module.backbone.state_dict()["conv_stem.weight"]
    assert torch.equal(first, adapt_input_conv(pixels.count, rgb["conv_stem.weight"]))
    assert any(told in note for note in built.notes)
    if channels == "gray":
        assert built.preprocess.mean == (pytest.approx(0.449, abs=1e-6),)
        assert built.preprocess.std == (pytest.approx(0.226, abs=1e-6),)


def test_weights_for_the_same_channels_are_loaded_as_they_are(tmp_path: Path) -> None:
    five = build_model("timm/test_efficientnet", 2, pretrained=False, image_size=32, pixels=PixelFormat("5"))
    tensors = five.module.backbone.state_dict()
    save_file(
        tensors,
        tmp_path / "five.safetensors",
        metadata={"arch": "test_efficientnet", "kwargs": '{"in_chans": 5}'},
    )
    place = str(tmp_path / "five.safetensors")
    built = build_model("timm/test_efficientnet", 2, weights=place, image_size=32, pixels=PixelFormat("5"))
    assert torch.equal(built.module.backbone.state_dict()["conv_stem.weight"], tensors["conv_stem.weight"])
    for other in ("gray", "rgb", "4"):
        with pytest.raises(ModelError, match="made for images of 5 channels"):
            build_model("timm/test_efficientnet", 2, weights=place, image_size=32, pixels=PixelFormat(other))


def test_a_network_without_a_first_convolution_is_refused() -> None:
    with pytest.raises(ModelError, match="no first convolution of 3 channels"):
        take_channels(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), 5)


def test_only_the_first_filters_are_adapted() -> None:
    network = nn.Sequential(nn.Conv2d(5, 4, 3), nn.Conv2d(4, 4, 3, groups=4))
    tensors = dict(nn.Sequential(nn.Conv2d(3, 4, 3), network[1]).state_dict())
    fitting, note = for_channels(network, tensors, "a file")
    assert fitting["0.weight"].shape == (4, 5, 3, 3)
    assert fitting["1.weight"] is tensors["1.weight"]
    assert "5 channels" in note


def test_a_backbone_from_outside_is_asked_for_its_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    def rgb_alone(classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))

    def any_channels(classes: int, *, channels: int = 3) -> nn.Module:
        layers = [nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)]
        return nn.Sequential(*layers)

    builders = {"rgb_alone": rgb_alone, "any_channels": any_channels}
    monkeypatch.setitem(extensions._registered, "backbones", builders)
    with pytest.raises(ModelError, match="takes images of 3 channels, not of 5"):
        build_model("rgb_alone", 2, pretrained=False, image_size=32, pixels=PixelFormat("5"))
    built = build_model("any_channels", 2, pretrained=False, image_size=32, pixels=PixelFormat("5"))
    assert built.module.eval()(torch.zeros(1, 5, 32, 32)).shape == (1, 2)
