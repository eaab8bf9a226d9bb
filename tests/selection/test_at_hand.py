"""Which weights are at hand: a folder's files by header or name, the libraries' caches; never the network."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from saccade.errors import ModelError
from saccade.models import build_model, pretrained
from saccade.selection.at_hand import WELL_TRIED, Candidate, cached_backbones, weights_at_hand


@pytest.fixture
def empty_caches(monkeypatch, tmp_path):
    """No cache holds anything, and asking the network fails the test."""

    def asked(*arguments: object, **settings: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("saccade.models.packages.PACKAGES", {})
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


def test_the_name_before_the_first_dot_or_the_header_says_the_architecture(tiny, tmp_path):
    shutil.copy(tiny, tmp_path / "test_resnet.of.mine.safetensors")
    network = timm.create_model("test_efficientnet")
    save_file(network.state_dict(), tmp_path / "a.safetensors", metadata={"arch": "timm.test_efficientnet"})
    found = weights_at_hand(str(tmp_path))
    assert [(c.backbone, c.label) for c in found.candidates] == [
        ("timm/test_efficientnet", "a"),
        ("timm/test_resnet", "test_resnet.of.mine"),
    ]
    assert found.left_out == ()


def test_what_cannot_be_used_is_named_and_left_out(tiny, tmp_path):
    shutil.copy(tiny, tmp_path / "test_resnet.safetensors")
    (tmp_path / "resnet18.safetensors").write_bytes(b"not weights at all, but long enough for a header")
    shutil.copy(tiny, tmp_path / "no_such_network.safetensors")
    shutil.copy(tiny, tmp_path / "small_cnn.safetensors")
    (tmp_path / "resnet50.pth").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "classes.txt").write_text("not meant as weights")
    (tmp_path / ".resnet18.safetensors").write_text("hidden")
    found = weights_at_hand(str(tmp_path))
    assert [c.label for c in found.candidates] == ["test_resnet"]
    reasons = "\n".join(found.left_out)
    assert len(found.left_out) == 4
    for words in ("no_such_network", "not a sound safetensors", "small_cnn has no", "resnet50.pth: only"):
        assert words in reasons


def test_one_file_is_a_choice_of_one(tiny, tmp_path):
    file = tmp_path / "test_resnet.safetensors"
    shutil.copy(tiny, file)
    assert weights_at_hand(str(file)).candidates == (Candidate("timm/test_resnet", str(file)),)


def test_nothing_at_hand_says_what_to_do(empty_caches):
    with pytest.raises(
        ModelError, match=r"caches of .*\nhint: install some.*name a backbone.*--weights FOLDER"
    ):
        weights_at_hand()
    (empty_caches / "folder").mkdir()
    with pytest.raises(ModelError, match=r"no weights in .*folder\n.*--weights FOLDER"):
        weights_at_hand(str(empty_caches / "folder"))
    with pytest.raises(ModelError, match="cannot be read"):
        weights_at_hand(str(empty_caches / "absent"))


def test_every_well_tried_backbone_exists_and_publishes_weights():
    assert len(WELL_TRIED) > 15
    for name in WELL_TRIED:
        library, _, bare = name.partition("/")
        assert pretrained.has(library, bare), name
        if library == "timm":
            assert timm.get_pretrained_cfg(bare).hf_hub_id, name


def test_the_hubs_local_cache_is_read_without_network(empty_caches):
    """A cache as the hub's client lays it out, with random weights of the right shapes."""
    name = "mobilenetv3_small_100"
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    place = empty_caches / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
    network = timm.create_model(name)
    save_file(network.state_dict(), place / "snapshots" / ("0" * 40) / "model.safetensors")
    assert cached_backbones() == (Candidate(f"timm/{name}"),)
    built = build_model(f"timm/{name}", 3)
    assert torch.equal(built.module.backbone.conv_stem.weight, network.conv_stem.weight)


def test_a_file_of_torchs_own_hub_is_taken_checked_and_not_fetched(empty_caches, monkeypatch):
    from torchvision import models

    network = models.get_model("squeezenet1_1", weights=None)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    digest = hashlib.sha256(file.getvalue()).hexdigest()[:8]
    place = empty_caches / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    published = models.get_model_weights("squeezenet1_1").DEFAULT.url
    (place / published.rpartition("/")[2]).write_bytes(file.getvalue())
    assert cached_backbones() == (Candidate("torchvision/squeezenet1_1"),)
    with pytest.raises(ModelError, match="damaged"):  # its name promises another hash
        build_model("torchvision/squeezenet1_1", 3)
    (place / f"squeezenet1_1-{digest}.pth").write_bytes(file.getvalue())
    target = Path(empty_caches / "cache" / "kept.safetensors")
    pretrained._keep_as_safetensors(f"https://example.org/squeezenet1_1-{digest}.pth", digest, target)
    assert target.exists()
