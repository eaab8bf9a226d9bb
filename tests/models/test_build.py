from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from saccade.errors import ModelError
from saccade.models import BACKBONES, backbones, build_model, preparation, rebuild
from saccade.models import build as building
from saccade.models.backbones import find_backbone
from saccade.models.pretrained import crop_fraction
from saccade.preprocess import IMAGENET_MEAN, IMAGENET_STD

SMALL = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A complete weights file for a small timm network with padding "same", classifier included."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model(SMALL, num_classes=7, pad_type="same")
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    metadata = {
        "arch": f"timm.{SMALL}",
        "kwargs": "pad_type=same,num_classes=7",
        "mean": "0.5",
        "std": "[0.5, 0.25, 0.5]",
        "crop_pct": "0.9",
        "interpolation": "bilinear",
        "input_size": "3,64,64",
    }
    save_file(network.state_dict(), path, metadata=metadata)
    return path


def test_weights_from_a_file_bring_their_own_preprocessing_and_options(published):
    built = build_model(SMALL, 3, weights=str(published))
    made = built.preprocess
    assert (made.mean, made.std) == ((0.5, 0.5, 0.5), (0.5, 0.25, 0.5))
    assert (made.size, made.crop_fraction, made.interpolation, made.resize) == (64, 0.9, "bilinear", "crop")
    assert built.architecture["options"] == {"pad_type": "same"}
    assert any("does not say resize" in note and "crop" in note for note in built.notes)
    assert built.pretrained


def test_weights_from_a_file_give_the_features_of_the_network_they_came_from(published):
    import timm
    from safetensors.torch import load_file

    original = timm.create_model(SMALL, num_classes=7, pad_type="same")
    original.load_state_dict(load_file(published))
    images = torch.randn(2, 3, 64, 64)
    features = original.eval().forward_head(original.forward_features(images), pre_logits=True)
    built = build_model(SMALL, 3, weights=str(published))
    assert torch.allclose(built.module.eval().backbone(images), features, rtol=1e-4, atol=1e-6)
    assert built.module(images).shape == (2, 3)
    other = build_model(SMALL, 3, weights=str(published), options={"pad_type": ""})
    assert not torch.allclose(other.module.eval().backbone(images), features, rtol=0.1, atol=1e-6)
    assert any("overrules the header: pad_type = '' instead of 'same'" in note for note in other.notes)


def test_the_architecture_is_json_and_enough_to_rebuild(published):
    built = build_model(SMALL, 3, weights=str(published), head="mlp", image_size=48)
    again = rebuild(json.loads(json.dumps(built.architecture)))
    again.load_state_dict(built.module.state_dict())
    images = torch.randn(2, 3, 48, 48)
    assert torch.equal(again.eval()(images), built.module.eval()(images))
    assert built.preprocess.size == built.architecture["image_size"] == 48


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": "no_such_net"}, "unknown backbone"),
        ({"library": "os"}, "unknown library"),
        ({"options": {"act_layer": "os.system"}}, "act_layer must be one of"),
        ({"options": {"cls": "x"}}, "unknown build option"),
        ({"classes": "three"}, "classes must be a whole number from 1 to 1000000, got 'three'"),
        ({"image_size": 10**9}, "image_size must be a whole number from 1 to 4096"),
        ({"dropout": []}, "is not valid"),
        ({"head": "eval"}, "unknown head"),
    ],
)
def test_a_stored_architecture_that_does_not_hold_is_refused(change, words):
    built = build_model(SMALL, 3, pretrained=False, image_size=32)
    with pytest.raises(ModelError, match=words):
        rebuild({**built.architecture, **change})
    with pytest.raises(ModelError, match="KeyError"):
        rebuild({"library": "timm", "backbone": SMALL})


def test_weights_of_another_architecture_are_refused(published):
    with pytest.raises(ModelError, match=rf"holds weights of timm/{SMALL}(?s:.*)use --backbone timm/{SMALL}"):
        build_model("resnet18", 3, weights=str(published))


def test_weights_that_do_not_fit_are_listed(published, tmp_path):
    from safetensors.torch import load_file

    tensors = load_file(published)
    del tensors["conv_stem.weight"]
    tensors["extra.weight"] = torch.zeros(2)
    tensors["conv_head.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "odd.safetensors", metadata={"kwargs": "pad_type=same"})
    with pytest.raises(ModelError) as raised:
        build_model(SMALL, 3, weights=str(tmp_path / "odd.safetensors"))
    message = str(raised.value)
    assert "1 missing: conv_stem.weight" in message
    assert "1 not known to it: extra.weight" in message
    assert "conv_head.bias is (3,) instead of (1024,)" in message


def test_a_file_without_classifier_and_without_counters_loads(published, tmp_path):
    from safetensors.torch import load_file

    kept = {
        name: tensor
        for name, tensor in load_file(published).items()
        if not name.startswith("classifier") and not name.endswith("num_batches_tracked")
    }
    save_file(kept, tmp_path / "backbone.safetensors", metadata={"kwargs": '{"pad_type": "same"}'})
    built = build_model(SMALL, 3, weights=str(tmp_path / "backbone.safetensors"))
    whole = build_model(SMALL, 3, weights=str(published))
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(built.module.eval().backbone(images), whole.module.eval().backbone(images))
    note = next(note for note in built.notes if "does not say" in note)
    assert "mean, std" in note
    assert "ImageNet's" in note


def test_what_the_header_does_not_say_is_the_architectures_own():
    built = build_model("torchvision/squeezenet1_1", 3, pretrained=False)
    made = built.preprocess
    assert (made.mean, made.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (made.size, made.resize_pixels, made.interpolation) == (224, 256, "bilinear")
    assert built.notes == ("torchvision/squeezenet1_1 starts from random weights",)


def test_the_preprocessing_can_be_had_without_building(published):
    built = build_model(SMALL, 3, weights=str(published), image_size=40)
    preprocess, notes = preparation(SMALL, weights=str(published), image_size=40)
    assert preprocess == built.preprocess
    assert set(notes) < set(built.notes)
    assert preparation("small_cnn", image_size=40)[0] == build_model("small_cnn", 3, image_size=40).preprocess
    with pytest.raises(ModelError, match="holds weights of"):
        preparation("resnet18", weights=str(published))


def test_squeezenet_gives_pooled_features_although_its_classifier_is_a_convolution():
    built = build_model("squeezenet1_1", 3, pretrained=False, image_size=64)
    features = built.module.eval().backbone(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 512)
    assert built.architecture["library"] == "torchvision"
    assert not any(isinstance(m, nn.Dropout) for m in built.module.backbone.modules())
    assert built.module.head.dropout.p == 0.2


def test_names_and_libraries():
    assert str(find_backbone("resnet18")) == "timm/resnet18"
    assert str(find_backbone("torchvision/resnet18")) == "torchvision/resnet18"
    assert str(find_backbone("resnet18.a1_in1k")) == "timm/resnet18.a1_in1k"
    assert str(find_backbone("small_cnn")) == "small_cnn"
    with pytest.raises(ModelError, match=r"efficientnet_bo\nhint: did you mean efficientnet_b"):
        find_backbone("efficientnet_bo")
    with pytest.raises(ModelError, match=r"did you mean.*resnet18\.a"):
        find_backbone("resnet18.a9_in1k")
    with pytest.raises(ModelError, match="unknown library 'keras'"):
        find_backbone("keras/resnet18")


def test_the_listing_names_all_libraries_and_matches_patterns():
    rows = backbones()
    assert len(rows) > 1000
    assert {row.library for row in rows} == {"saccade", "timm", "torchvision"}
    assert [row.name for row in backbones("small_cnn")] == ["small_cnn"]
    assert {row.name for row in backbones("squeezenet1_?")} == {"squeezenet1_0", "squeezenet1_1"}
    squeezenet = backbones("squeezenet1_1")[0]
    assert (squeezenet.parameters, squeezenet.image_size, squeezenet.pretrained) == (1_235_496, 224, True)
    assert all("resnet18" in row.name for row in backbones("resnet18"))


def test_options_are_checked_before_anything_is_built():
    with pytest.raises(ModelError, match=r"unknown build option 'pad_typ'; did you mean pad_type\?"):
        build_model(SMALL, 3, pretrained=False, options={"pad_typ": "same"})
    with pytest.raises(ModelError, match=r"cannot be built with patch_size = 16(?s:.*)change model.options"):
        build_model(SMALL, 3, pretrained=False, options={"patch_size": 16})


def test_contradictions_and_impossible_sizes():
    with pytest.raises(ModelError, match="exclude each other"):
        build_model(SMALL, 3, pretrained=False, weights="x.safetensors")
    with pytest.raises(ModelError, match=r"does not take images of 64 x 64(?s:.*)--image-size"):
        build_model("torchvision/vit_b_32", 3, pretrained=False, image_size=64)


def test_a_vision_transformer_takes_another_size():
    built = build_model("vit_tiny_patch16_224", 3, pretrained=False, image_size=64)
    images = torch.randn(2, 3, 64, 64)
    logits = built.module.eval()(images)
    again = rebuild(built.architecture)
    again.load_state_dict(built.module.state_dict())
    assert torch.equal(again.eval()(images), logits)


def test_a_strangers_backbone_is_one_line(monkeypatch):
    def tiny(classes: int, *, weights: str = "", width: int = 4) -> nn.Module:
        pool = nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(nn.Conv2d(3, width, 3), pool, nn.Flatten(), nn.Linear(width, classes))

    monkeypatch.setitem(BACKBONES, "tiny", tiny)
    built = build_model("tiny", 5, options={"width": 6}, image_size=16, dropout=0.1)
    assert built.module.head.dense.in_features == 6
    assert rebuild(built.architecture).head.dense.in_features == 6
    with pytest.raises(ModelError, match=r"cannot be built with \{'depth': 2\}(?s:.*)change model.options"):
        build_model("tiny", 5, options={"depth": 2})


def test_the_crop_fraction_gives_back_the_resize_exactly():
    for size in range(32, 512):
        for short in (size, size + 8, size + 32, int(size * 1.14)):
            assert int(size / crop_fraction(size, short)) == short


def test_what_cannot_be_followed_is_said():
    from saccade.models.preparation import Defaults, choose_preprocess
    from saccade.models.weights import Header

    own = Defaults(224, 1.1, "spiral", "lanczos", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    preprocess, notes = choose_preprocess(own, Header(), name="x", weights="", image_size=0)
    assert (preprocess.crop_fraction, preprocess.interpolation, preprocess.resize) == (1.0, "bicubic", "crop")
    assert len(notes) == 3
    assert all("not offered" in note for note in notes)


def test_timm_and_torchvision_are_not_imported_for_our_own_network():
    import subprocess
    import sys

    code = (
        "import sys, saccade.models as m;"
        "m.rebuild(m.build_model('small_cnn', 3, image_size=16).architecture);"
        "print([name for name in ('timm', 'torchvision') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
    assert building.HEAD_DROPOUT == 0.2


def test_a_size_that_was_asked_for_is_not_called_the_architectures_own(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(building.build_model(SMALL, 2, pretrained=False).module.backbone.state_dict(), path)
    asked = " ".join(preparation(SMALL, weights=str(path), image_size=64)[1])
    own = " ".join(preparation(SMALL, weights=str(path))[1])
    assert "interpolation bicubic, size 224" in own
    assert "interpolation bicubic, resize crop" in asked
