"""Hubs that cannot be reached, published files, and real weights on real photos."""

from __future__ import annotations

import hashlib
import io
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from saccade.errors import ModelError
from saccade.models import build_model, pretrained
from saccade.preprocess import Preprocess
from saccade.recipe import DEFAULT_BACKBONE
from saccade.transforms import to_input


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Every name is unknown and every cache empty, as on a machine without network."""

    def unknown(*arguments: object, **settings: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "torchvision/squeezenet1_1"])
def test_a_hub_that_cannot_be_reached_says_what_to_do_at_once(no_network, name):
    start = time.perf_counter()
    with pytest.raises(ModelError, match=r"could not be fetched \(.+\)\n.*--weights FILE.*--no-pretrained"):
        build_model(name, 3)
    assert time.perf_counter() - start < 15  # the hub's own client alone retries for 23 s


@pytest.mark.parametrize(("installed", "said"), [(Path("w.pth"), True), (None, False)])
def test_a_network_whose_weights_are_installed_is_offered(no_network, monkeypatch, installed, said):
    monkeypatch.setattr(pretrained.packages.WeightsPackage, "installed_file", lambda package: installed)
    with pytest.raises(ModelError, match="could not be fetched") as caught:
        pretrained.published_weights("torchvision", "squeezenet1_1")
    assert ("use tf_efficientnet_lite0, whose weights are installed, or train" in caught.value.hint) == said


def test_a_network_without_published_weights_says_so(no_network):
    with pytest.raises(ModelError, match=r"mobilenetv2_035 has no weights(?s:.*)--weights FILE"):
        build_model("mobilenetv2_035", 3)


def test_only_safetensors_are_asked_of_the_hub(monkeypatch, tmp_path):
    asked = []

    def record(repository: str, filename: str, **settings: object) -> str:
        asked.append((repository, filename))
        raise FileNotFoundError(filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", record)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, **settings: None)
    for name in ("resnet18.a1_in1k", "vit_base_patch16_clip_224.openai"):
        with pytest.raises(ModelError, match="could not be fetched"):
            pretrained.published_weights("timm", name)
    assert len(asked) == 4
    assert all(filename.endswith(".safetensors") for _, filename in asked)
    assert pretrained.safetensors_name("open_clip_pytorch_model.bin") == "open_clip_pytorch_model.safetensors"


def test_a_repository_with_pickles_only_is_refused(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    def absent(url: str, **settings: object) -> None:
        response = __import__("httpx2").Response(404, request=__import__("httpx2").Request("HEAD", url))
        raise RemoteEntryNotFoundError("404", response=response)

    def not_cached(*arguments: object, **settings: object) -> str:
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", absent)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", not_cached)
    with pytest.raises(ModelError, match="pickled weights are never read"):
        pretrained.published_weights("timm", "resnet18.a1_in1k")


class Answer(io.BytesIO):
    """What urlopen gives."""


def published(name: str) -> tuple[bytes, str]:
    """The bytes and the hash of a file such as torchvision publishes."""
    from torchvision import models

    network = models.get_model(name, weights=None)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.getvalue(), hashlib.sha256(file.getvalue()).hexdigest()[:8]


@pytest.fixture
def torchvision_site(monkeypatch, tmp_path):
    """A stand-in for the site: the answer to any address is a real state of squeezenet1_1."""
    data, digest = published("squeezenet1_1")
    opened = []

    def urlopen(url: str, timeout: float) -> Answer:
        assert timeout <= 10
        opened.append(url)
        return Answer(data)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    return data, digest, opened


def test_torchvisions_weights_are_checked_kept_as_safetensors_and_fetched_once(
    torchvision_site, monkeypatch, tmp_path
):
    _, digest, opened = torchvision_site
    weights = type("Weights", (), {"url": f"https://example.org/models/squeezenet1_1-{digest}.pth"})
    monkeypatch.setattr(pretrained, "_torchvision_weights", lambda name: weights)
    first = pretrained.published_weights("torchvision", "squeezenet1_1")
    again = pretrained.published_weights("torchvision", "squeezenet1_1")
    assert len(opened) == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"squeezenet1_1-{digest}.safetensors"]
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_torchvisions_weights_with_another_hash_are_refused(torchvision_site, tmp_path):
    with pytest.raises(ModelError, match=r"instead of the published b8a52dc0.*not used"):
        build_model("torchvision/squeezenet1_1", 3)
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_that_runs_code_is_not_read(monkeypatch, tmp_path):
    canary = tmp_path / "canary"
    data = f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()  # os.system("touch ...") when unpickled
    digest = hashlib.sha256(data).hexdigest()[:8]
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: Answer(data))
    with pytest.raises(ModelError, match="more than tensors"):
        pretrained._keep_as_safetensors("https://example.org/x.pth", digest, tmp_path / "x.safetensors")
    assert not canary.exists()


def answers(
    built, tensors, names: tuple[str, str], paths: list[Path], preprocess: Preprocess
) -> torch.Tensor:
    """(photos, 1000) log probabilities of ImageNet's classes, by the file's own classifier."""
    weight, bias = (tensors[name] for name in names)
    images = torch.stack(
        [to_input(np.asarray(Image.open(path).convert("RGB")), preprocess) for path in paths]
    )
    with torch.no_grad():
        features = built.module.eval().backbone(images)
    return (features @ weight.flatten(1).T + bias).log_softmax(1)


def daisies(shared_data) -> list[Path]:
    paths = sorted(shared_data("data/flowers5/val/daisy").glob("*.jpg"))[:16]
    assert len(paths) == 16
    return paths


def test_real_weights_know_a_daisy_and_know_it_less_when_prepared_wrongly(shared_data):
    file = shared_data("weights/mobilenetv2_100.safetensors")
    labels = shared_data("weights/imagenet_classes.txt").read_text().splitlines()
    daisy = next(i for i, label in enumerate(labels) if "daisy" in label)
    names = ("classifier.weight", "classifier.bias")
    tensors = load_file(file)
    built = build_model("mobilenetv2_100", 5, weights=str(file))
    assert built.preprocess.mean == (0.5, 0.5, 0.5)
    assert built.architecture["options"] == {"pad_type": "same"}
    paths = daisies(shared_data)
    right = answers(built, tensors, names, paths, built.preprocess)
    assert (right.argmax(1) == daisy).float().mean() >= 0.7
    certainty = right[:, daisy].mean()
    assert answers(built, tensors, names, paths, Preprocess(224))[:, daisy].mean() < certainty - 0.2
    padded = build_model("mobilenetv2_100", 5, weights=str(file), options={"pad_type": ""})
    assert answers(padded, tensors, names, paths, built.preprocess)[:, daisy].mean() < certainty - 0.05


def test_the_default_backbone_knows_a_daisy(shared_data, monkeypatch, tmp_path):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    built = build_model(DEFAULT_BACKBONE, 5)
    tensors = pretrained.published_weights("timm", DEFAULT_BACKBONE)
    names = ("classifier.weight", "classifier.bias")
    paths = daisies(shared_data)
    right = answers(built, tensors, names, paths, built.preprocess)
    assert (right.argmax(1) == 985).float().mean() >= 0.75
    wrong = answers(built, tensors, names, paths, Preprocess(224))  # ImageNet's mean and std
    assert wrong[:, 985].mean() < right[:, 985].mean() - 0.3


def test_real_squeezenet_weights_know_a_daisy(shared_data):
    file = shared_data("weights/squeezenet1_1.safetensors")
    built = build_model("squeezenet1_1", 5, weights=str(file))
    paths = daisies(shared_data)
    # its classifier is a convolution before the pooling; pooled first, its last ReLU is all that differs
    names = ("classifier.1.weight", "classifier.1.bias")
    found = answers(built, load_file(file), names, paths, built.preprocess)
    assert (found.argmax(1) == 985).float().mean() >= 0.6


def test_the_backbone_only_file_loads(shared_data):
    built = build_model(
        "mobilenetv2_035", 5, weights=str(shared_data("weights/mobilenetv2_035.backbone.safetensors"))
    )
    assert built.pretrained
    assert built.preprocess.mean == (0.5, 0.5, 0.5)
    assert any("does not say crop_fraction, interpolation" in note for note in built.notes)
