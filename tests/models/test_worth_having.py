"""Backbones worth having: each keeps the contract, takes weights in the hub's layout, trains and exports.

All weights here are random: what is tested is that the parts fit, not how well they see.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from saccade.cli import main
from saccade.errors import ModelError
from saccade.models import build_model, frozen_hash, set_training_mode, stages, unfreeze, weights_origin
from saccade.models.origin import Origin
from saccade.selection.at_hand import Candidate, weights_at_hand
from saccade.testing import check_backbone

# name with tag -> the smallest side that shows it works
SIZES = {
    "hgnetv2_b0.ssld_stage2_ft_in1k": 64,
    "hgnetv2_b1.ssld_stage2_ft_in1k": 64,
    "hgnetv2_b2.ssld_stage2_ft_in1k": 64,
    "levit_128.fb_dist_in1k": 224,
    "levit_256.fb_dist_in1k": 224,
    "mobilenetv4_conv_medium.e500_r256_in1k": 64,
    "mobilenetv4_hybrid_medium.e200_r256_in12k_ft_in1k": 64,
    "tiny_vit_5m_224.dist_in22k_ft_in1k": 64,
    "tiny_vit_11m_224.dist_in22k": 64,  # the one for 21,841 classes
    "edgenext_small.usi_in1k": 64,
    "convnext_tiny.in12k_ft_in1k": 64,
    "convnext_tiny.dinov3_lvd1689m": 64,
    "vit_small_patch14_dinov2.lvd142m": 56,
    "vit_small_patch16_dinov3.lvd1689m": 64,
    "vit_pe_core_tiny_patch16_384.fb": 64,
    "vit_pe_core_small_patch16_384.fb": 64,
    "vit_base_patch16_siglip_224.v2_webli": 32,
}
# one of each kind: feature maps all the way, and tokens
TAILS = ("hgnetv2_b0.ssld_stage2_ft_in1k", "levit_128.fb_dist_in1k", "vit_pe_core_tiny_patch16_384.fb")
QUICK = ("hgnetv2_b0.ssld_stage2_ft_in1k", "edgenext_small.usi_in1k")
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in SIZES]
TRAINED = [*((name, "full") for name in SIZES), *((name, "tail") for name in TAILS)]
SOON = (("hgnetv2_b0.ssld_stage2_ft_in1k", "full"), ("levit_128.fb_dist_in1k", "tail"))


def awake(name: str) -> nn.Module:
    """timm's network with random weights, none of which is 0, and statistics of its own."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.abs().max() < 1e-3:
                parameter.normal_(std=0.02)
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    return network


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[[str], tuple[nn.Module, str]]:
    """A network, and the folder that timm writes of it: config.json and model.safetensors."""

    def save(name: str) -> tuple[nn.Module, str]:
        network = awake(name)
        save_for_hf(network, tmp_path / "weights", safe_serialization=True)
        return network, str(tmp_path / "weights")

    return save


def test_there_are_as_many_as_there_should_be() -> None:
    assert len(SIZES) == 17
    assert all(name in timm.list_pretrained(f"{name.partition('.')[0]}.*") for name in SIZES)


@pytest.mark.parametrize("name", CASES)
def test_it_keeps_the_contract(name: str) -> None:
    def build(classes: int, *, image_size: int, head: str, **settings: Any) -> nn.Module:
        return build_model(f"timm/{name}", classes, pretrained=False, image_size=image_size, head=head).module

    check_backbone(build, image_size=SIZES[name])


@pytest.mark.parametrize("name", CASES)
def test_its_weights_as_the_hub_lays_them_out_give_its_own_features(
    name: str, on_disk: Callable[[str], tuple[nn.Module, str]]
) -> None:
    network, folder = on_disk(name)
    licence = timm.get_pretrained_cfg(name).license
    built = build_model(f"timm/{name}", 3, weights=folder, image_size=SIZES[name], accept_licence=licence)
    assert built.origin == Origin(folder, licence)
    cfg = network.pretrained_cfg
    assert (built.preprocess.mean, built.preprocess.crop_fraction) == (cfg["mean"], cfg["crop_pct"])
    if hasattr(network, "set_input_size"):
        network.set_input_size(img_size=(SIZES[name],) * 2)
    images = torch.randn(2, 3, SIZES[name], SIZES[name])
    with torch.inference_mode():
        own = network.forward_head(network.forward_features(images), pre_logits=True)
        ours = built.module.eval().backbone(images)
    assert own.std() > 0
    torch.testing.assert_close(ours, own)
    check_that_frozen_is_frozen(built.module, images)
    if built.origin.is_permissive:
        assert weights_at_hand(folder).candidates == (Candidate(f"timm/{cfg['architecture']}", folder),)


def check_that_frozen_is_frozen(module: nn.Module, images: torch.Tensor) -> None:
    """One step of the last two stages, its statistics included, moves nothing before them."""
    assert len(stages(module)) >= 4
    unfreeze(module, "2")
    set_training_mode(module)
    before = frozen_hash(module)
    torch.nn.functional.cross_entropy(module(images.clone()), torch.tensor([0, 1])).backward()
    torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1).step()
    assert frozen_hash(module) == before


@pytest.mark.parametrize(
    ("name", "method"),
    [pytest.param(*each, marks=pytest.mark.slow if each in SOON else pytest.mark.long) for each in TRAINED],
)
def test_a_run_trains_and_its_file_is_certified(
    name: str, method: str, on_disk: Callable[..., Any], make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    _, folder = on_disk(name)
    words = ["--backbone", f"timm/{name}", "--weights", folder, "--image-size", SIZES[name]]
    words += ["--method", method, "--epochs", 1, "--out", tmp_path / "run"]
    words += ["--accept-licence", timm.get_pretrained_cfg(name).license]
    photos = make_photos(images=10)
    assert main(["train", str(photos), *map(str, words)]) == 0
    certificate = json.loads((tmp_path / "run/export/certificate.json").read_text())
    assert certificate["passed"]
    assert certificate["max_probability_difference"] < 1e-3


# -- tags and licences --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("tiny_vit_5m_224", "dist_in22k_ft_in1k"),  # timm's own default has 21,841 classes
        ("tiny_vit_11m_224", "dist_in22k_ft_in1k"),
        ("hgnetv2_b1", "ssld_stage2_ft_in1k"),
        ("mobilenetv4_hybrid_medium", "e200_r256_in12k_ft_in1k"),
        ("convnext_tiny", "in12k_ft_in1k"),
    ],
)
def test_a_bare_name_means_weights_that_were_finetuned_on_imagenet(name: str, tag: str) -> None:
    assert weights_origin(name) == Origin(f"timm/{name}.{tag}", "apache-2.0")


def test_a_tag_that_is_named_is_taken() -> None:
    assert weights_origin("tiny_vit_11m_224.dist_in22k").source == "timm/tiny_vit_11m_224.dist_in22k"


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("vit_small_patch16_dinov3", "dinov3-license"),
        ("convnext_tiny.dinov3_lvd1689m", "dinov3-license"),
        ("convnext_tiny.eupe_lvd1689m", "fair-noncommercial-research-license"),
    ],
)
def test_encoders_of_another_licence_are_asked_for(name: str, licence: str) -> None:
    with pytest.raises(ModelError, match=rf"not Apache, MIT or BSD: {licence}\n.*--accept-licence {licence}"):
        build_model(name, 3)


@pytest.mark.parametrize(
    "name",
    ["vit_small_patch14_dinov2", "vit_base_patch16_siglip_224", "vit_pe_core_tiny_patch16_384"],
)
def test_encoders_with_a_free_licence_are_not(name: str) -> None:
    assert weights_origin(name).licence == "apache-2.0"
    assert weights_origin(name).is_permissive


def test_a_network_of_one_size_says_which() -> None:
    with pytest.raises(
        ModelError, match=r"images of 128 x 128 pixels.*\n.*leave --image-size out; its size is 224"
    ):
        build_model("levit_128", 3, pretrained=False, image_size=128)
