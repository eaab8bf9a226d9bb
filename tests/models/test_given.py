"""What --weights may name, where weights come from, and licences that must be accepted."""

from __future__ import annotations

import json
import socket

import pytest
import timm
import torch
from safetensors.torch import save_file

from saccade.errors import ModelError, RecipeError
from saccade.models import build_model, preparation, pretrained, weights_origin
from saccade.models.origin import Origin
from saccade.recipe import DEFAULT_BACKBONE, Recipe
from saccade.selection.at_hand import Candidate, cached_backbones, weights_at_hand

NAME = "test_resnet"
CONFIG = {
    "architecture": NAME,
    "num_classes": 1000,
    "pretrained_cfg": {
        "tag": "of_mine",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.2, 0.3],
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "input_size": [3, 96, 96],
        "license": "cc-by-nc-4.0",
    },
}


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    def unreachable(*arguments: object, **settings: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def write(path, state, metadata=None, **config):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata=metadata)
    if config:
        (path.parent / "config.json").write_text(json.dumps(config))
    return path


def same(built, network) -> bool:
    wanted = network.state_dict()
    own = built.module.backbone.state_dict()
    return len(own) > 20 and all(torch.equal(tensor, wanted[name]) for name, tensor in own.items())


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "state_dict.", "state_dict.model.", "module._orig_mod."]
)
def test_what_trainers_put_before_every_name_is_taken_off(tmp_path, prefix):
    network = timm.create_model(NAME, num_classes=7)  # and another number of classes
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    file = write(tmp_path / "w.safetensors", state)
    assert same(build_model(NAME, 3, weights=str(file)), network)


def test_one_name_without_the_prefix_is_no_wrapper(tmp_path):
    state = {"model." + name: tensor for name, tensor in timm.create_model(NAME).state_dict().items()}
    file = write(tmp_path / "w.safetensors", {**state, "loss.weight": torch.ones(2)})
    with pytest.raises(ModelError, match="not known to it"):
        build_model(NAME, 3, weights=str(file))


def test_weights_for_other_channels_are_refused_in_words(tmp_path):
    file = write(tmp_path / "w.safetensors", timm.create_model(NAME, in_chans=4).state_dict())
    with pytest.raises(ModelError, match=r"images of 4 channels \(conv1.*\), and ours have 3"):
        build_model(NAME, 3, weights=str(file))


@pytest.mark.parametrize("header", [{}, {"kwargs": '{"in_chans": 1}'}])
def test_weights_for_grayscale_images_answer_gray_images_as_before(tmp_path, header):
    network = timm.create_model(NAME, in_chans=1, num_classes=0).eval()
    file = write(tmp_path / "w.safetensors", network.state_dict(), header)
    built = build_model(NAME, 3, weights=str(file))
    assert any("made for grayscale images" in note for note in built.notes)
    gray = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        ours = built.module.backbone.eval()(gray.expand(-1, 3, -1, -1))
        torch.testing.assert_close(ours, network(gray), rtol=1e-4, atol=1e-5)


def test_a_folder_with_a_config_says_architecture_preprocessing_and_licence(tmp_path):
    network = timm.create_model(NAME)
    write(tmp_path / "mine" / "model.safetensors", network.state_dict(), {"format": "pt"}, **CONFIG)
    folder = str(tmp_path / "mine")
    built = build_model(NAME, 3, weights=folder, accept_licence="CC-BY-NC-4.0")
    assert same(built, network)
    assert built.origin == Origin(folder, "cc-by-nc-4.0")
    assert built.preprocess == preparation(NAME, weights=folder)[0]
    assert built.preprocess.mean == (0.4, 0.5, 0.6)
    assert (built.preprocess.size, built.preprocess.crop_fraction) == (96, 0.9)
    with pytest.raises(
        ModelError, match=r"holds weights of timm/test_resnet, but the backbone is timm/resnet18"
    ):
        build_model("resnet18", 3, weights=folder)
    with pytest.raises(ModelError, match=r"cc-by-nc-4\.0, which auto never chooses"):
        weights_at_hand(folder)


def test_an_old_flat_config_and_what_the_file_itself_says_first(tmp_path):
    flat = {"architecture": NAME, "mean": [0.1, 0.1, 0.1], "crop_pct": 0.8, "license": "mit"}
    state = timm.create_model(NAME).state_dict()
    write(tmp_path / "f" / "model.safetensors", state, {"mean": "0.3"}, **flat)
    built = build_model(NAME, 3, weights=str(tmp_path / "f"))
    assert (built.preprocess.mean[0], built.preprocess.crop_fraction) == (0.3, 0.8)
    assert built.origin.licence == "mit"
    assert weights_at_hand(str(tmp_path / "f")).candidates == (
        Candidate(f"timm/{NAME}", str(tmp_path / "f")),
    )


def test_a_folder_of_one_file_is_that_file_and_of_two_is_refused(tmp_path):
    network = timm.create_model(NAME)
    write(tmp_path / "a.safetensors", network.state_dict())
    built = build_model(NAME, 3, weights=str(tmp_path))
    assert same(built, network)
    assert built.weights_sha256
    write(tmp_path / "b.safetensors", network.state_dict())
    with pytest.raises(ModelError, match=r"folder with 2 safetensors files and no config.json.*\n.*auto"):
        build_model(NAME, 3, weights=str(tmp_path))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "resnet", "architectures": ["X"]}, "no architecture of timm: model type resnet"),
        ({"architecture": 3}, "no architecture of timm"),
        ({"architecture": NAME, "model_args": {"act_layer": "os.system"}}, "act_layer must be one of"),
        ({"architecture": NAME, "mean": "x"}, "mean must be numbers"),
    ],
)
def test_a_config_that_does_not_hold_is_refused(tmp_path, config, words):
    write(tmp_path / "model.safetensors", {"a": torch.ones(1)}, **config)
    with pytest.raises(ModelError, match=words):
        build_model(NAME, 3, weights=str(tmp_path))


def test_a_config_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        build_model(NAME, 3, weights=str(tmp_path))


def test_published_weights_by_name_are_the_backbone_with_that_tag(no_hub):
    network = timm.create_model(NAME)
    repository = timm.get_pretrained_cfg(f"{NAME}.r160_in1k").hf_hub_id
    place = no_hub / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    write(place / "snapshots" / ("0" * 40) / "model.safetensors", network.state_dict())
    built = build_model(NAME, 3, weights=f"timm/{NAME}.r160_in1k")
    assert same(built, network)
    assert built.architecture["backbone"] == f"{NAME}.r160_in1k"
    assert built.origin == Origin(f"timm/{NAME}.r160_in1k", "apache-2.0")
    assert built.notes[0] == f"weights: timm/{NAME}.r160_in1k, licence apache-2.0"
    with pytest.raises(ModelError, match="but the backbone is timm/resnet18"):
        build_model("resnet18", 3, weights=f"timm/{NAME}.r160_in1k")


def test_named_weights_choose_the_backbone_unless_one_is_named():
    assert Recipe.from_mapping({"model.weights": "timm/resnet18.a1_in1k"}).model.backbone == "timm/resnet18"
    assert Recipe.from_mapping({"model.weights": "timm/w.safetensors"}).model.backbone == DEFAULT_BACKBONE
    with pytest.raises(RecipeError, match="'auto' compares files"):
        Recipe.from_mapping({"model.weights": "timm/resnet18.a1_in1k", "model.backbone": "auto"})


def test_a_licence_that_is_not_free_must_be_accepted_by_its_name(no_hub):
    with pytest.raises(ModelError, match=r"cc-by-nc-4.0\n.*--accept-licence cc-by-nc-4.0") as refused:
        build_model("convnextv2_atto", 3)
    assert "timm/convnextv2_atto.fcmae_ft_in1k" in str(refused.value)
    with pytest.raises(ModelError, match="and mit was accepted"):
        build_model("convnextv2_atto", 3, accept_licence="mit")
    with pytest.raises(ModelError, match="could not be fetched"):
        build_model("convnextv2_atto", 3, accept_licence="cc-by-nc-4.0")


def test_origins_and_licences_of_published_weights():
    assert weights_origin("resnet18") == Origin("timm/resnet18.a1_in1k", "apache-2.0")
    assert weights_origin("regnety_008").licence == "mit"
    assert weights_origin("torchvision/resnet18") == Origin(
        "torchvision/resnet18.IMAGENET1K_V1", "bsd-3-clause"
    )
    assert weights_origin("torchvision/vit_h_14").licence == "cc-by-nc-4.0"
    assert not weights_origin("res2net50_14w_8s").is_permissive  # "unknown"
    assert weights_origin("small_cnn") is None
    assert weights_origin(DEFAULT_BACKBONE).licence == "apache-2.0"


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("Apache License 2.0", True),
        ("BSD-3-Clause", True),
        ("a network of somebody (Apache-2.0)", True),
        ("", True),
        ("mitsubishi", False),
        ("CC-BY-NC-4.0, the code is MIT", False),
    ],
)
def test_what_counts_as_a_free_licence(licence, free):
    assert Origin("x", licence).is_permissive is free


def test_auto_never_chooses_another_licence(monkeypatch):
    monkeypatch.setattr("saccade.selection.at_hand.WELL_TRIED", ("timm/convnextv2_atto", "timm/resnet18"))
    monkeypatch.setattr(pretrained, "is_cached", lambda library, name: True)
    assert cached_backbones() == (Candidate("timm/resnet18"),)
