"""Folders for other programs: the model in two files, OpenVINO's own form, and what timm loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch

from saccade.answer import Answer
from saccade.artefact import INPUT_NAME, Artefact
from saccade.bundle import Bundle
from saccade.errors import ModelError
from saccade.export.formats import FORMATS
from saccade.export.huggingface import engines, write_hf
from saccade.export.onnx import write_onnx
from saccade.models import rebuild
from saccade.preprocess import Preprocess
from saccade.testing.formats import tiny_bundle

SHAPES = ((30, 40), (24, 24), (9, 7), (300, 200), (41, 60))


def _photos() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES]


@pytest.fixture
def model(tmp_path: Path) -> tuple[Bundle, Path]:
    bundle = tiny_bundle(Preprocess(24, interpolation="bicubic"))
    return bundle, write_onnx(bundle, tmp_path / "model.onnx")


def test_the_two_parts_together_are_the_whole_file_bit_by_bit(
    model: tuple[Bundle, Path], tmp_path: Path
) -> None:
    bundle, whole = model
    FORMATS["split"].write(bundle, tmp_path / "split", float_onnx=whole)
    before, after = (
        onnxruntime.InferenceSession(str(tmp_path / "split" / name), providers=["CPUExecutionProvider"])
        for name in ("preprocess.onnx", "network.onnx")
    )
    assert [value.name for value in before.get_outputs()] == ["preprocess/pixels"]
    assert [value.shape for value in after.get_inputs()] == [["batch", 3, 24, 24]]
    artefact = Artefact.open(whole)
    pixels = [before.run(None, {INPUT_NAME: photo[None]})[0] for photo in _photos()]
    for photo, one in zip(_photos(), pixels, strict=True):
        answer = after.run(None, {"preprocess/pixels": one})[0]
        assert np.array_equal(answer, artefact.probabilities([photo]).astype(np.float32))
    together = after.run(None, {"preprocess/pixels": np.concatenate(pixels)})[0]
    assert np.abs(together - artefact.probabilities(_photos())).max() < 1e-6


def test_openvino_says_classes_and_settings_beside_its_files(
    model: tuple[Bundle, Path], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    bundle, whole = model
    FORMATS["openvino"].write(bundle, tmp_path / "ir", float_onnx=whole)
    assert sorted(path.name for path in (tmp_path / "ir").iterdir()) == [
        "classes.json",
        "model.bin",
        "model.xml",
    ]
    beside = json.loads((tmp_path / "ir" / "classes.json").read_text())
    assert beside["classes"] == list(bundle.classes)
    assert beside["openvino"] == {"device": "CPU", "config": {"INFERENCE_PRECISION_HINT": "f32"}}
    weights = bundle.module.state_dict()["head.weight"].numpy().tobytes()
    assert weights in (tmp_path / "ir" / "model.bin").read_bytes(), "float32 weights are kept as they are"


@pytest.fixture
def timm_bundle() -> Callable[..., Bundle]:
    def make(backbone: str, size: int = 64, **values: Any) -> Bundle:
        architecture = {
            "library": "timm",
            "backbone": backbone,
            "options": {},
            "head": "linear",
            "classes": 3,
            "dropout": 0.2,
            "image_size": size,
            **values,
        }
        preprocess = Preprocess(size, mean=(0.4, 0.5, 0.6), crop_fraction=0.9)
        module = rebuild(architecture).eval()
        return Bundle(module, ("zebra", "ant", "mole"), preprocess, architecture, Answer("softmax", (2.5,)))

    return make


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit", "test_mambaout"])
def test_timm_loads_the_calibrated_network(
    timm_bundle: Callable[..., Bundle], backbone: str, tmp_path: Path
) -> None:
    bundle = timm_bundle(backbone)
    write_hf(bundle, tmp_path / "hf", decoding={})
    network = timm.create_model(f"local-dir:{tmp_path / 'hf'}", pretrained=True).eval()
    config = timm.data.resolve_data_config({}, model=network)
    assert (list(config["input_size"]), list(config["mean"])) == ([3, 64, 64], [0.4, 0.5, 0.6])
    assert config["crop_pct"] == 0.9
    assert network.pretrained_cfg["label_names"] == list(bundle.classes)
    pixels = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        expected = (bundle.module(pixels) / 2.5).softmax(dim=1)
        assert (network(pixels).softmax(dim=1) - expected).abs().max() < 1e-6


def test_timm_with_its_own_transforms_is_measured_beside_it(
    timm_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    write_hf(timm_bundle("test_resnet"), tmp_path / "hf", decoding={})
    (ours, theirs), not_run = engines(tmp_path / "hf")
    assert (ours.binding, theirs.binding, not_run) == (True, False, {})
    difference = np.abs(ours.answer(_photos()) - theirs.answer(_photos())).max()
    assert 0 < difference < 0.05


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ({"library": "torchvision", "backbone": "resnet18"}, "torchvision/resnet18 is no network of timm"),
        ({"library": "saccade", "backbone": "small_cnn"}, "small_cnn is no network of timm"),
        ({}, "its own/network is no network of timm"),
        ({"library": "timm", "backbone": "test_resnet", "head": "mlp"}, "a head 'mlp' is not part of timm's"),
        ({"library": "timm", "backbone": "test_resnet", "flip": True}, "mean of an image and its mirror"),
    ],
)
def test_networks_that_timm_does_not_know_are_refused(
    architecture: dict[str, Any], words: str, tmp_path: Path
) -> None:
    bundle = replace(tiny_bundle(Preprocess(24)), architecture=architecture)
    with pytest.raises(ModelError, match=words):
        write_hf(bundle, tmp_path / "hf", decoding={})
    assert not (tmp_path / "hf").exists()


def test_weights_that_answer_otherwise_are_refused(
    timm_bundle: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = timm_bundle("test_resnet")
    bundle.module.head.dense.register_forward_hook(lambda module, inputs, output: output * 3)  # type: ignore[union-attr,operator]
    with pytest.raises(ModelError, match="answers otherwise"):
        write_hf(bundle, tmp_path / "hf", decoding={})
