"""Real photos, real weights: the exported file repeats torch's evaluation, and a wrong one is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from saccade.bundle import Bundle
from saccade.export.certify import certify
from saccade.export.onnx import PREPROCESS_PREFIX, write_onnx
from saccade.export.quantize import quantize
from saccade.images.decoder import decode
from saccade.models import build_model
from saccade.records import Predictions
from saccade.transforms.apply import to_input

SharedData = Callable[[str], Path]
CLASSES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


def photos(root: Path, part: str, per_class: int) -> list[Path]:
    return [path for label in CLASSES for path in sorted((root / part / label).iterdir())[:per_class]]


def network_bytes(path: Path) -> int:
    """Of the file without its preprocessing, which stays as it is in an int8 file."""
    graph = onnx.load(path).graph
    parts = [*graph.node, *graph.initializer]
    return path.stat().st_size - sum(p.ByteSize() for p in parts if p.name.startswith(PREPROCESS_PREFIX))


@pytest.fixture(scope="module")
def case(shared_data: SharedData) -> tuple[Bundle, dict[str, Predictions], Path]:
    """mobilenetv2_035 with a head fitted in one step to its own features, and its answers on photos."""
    root = shared_data("data/flowers5")
    weights = shared_data("weights/mobilenetv2_035.backbone.safetensors")
    built = build_model("mobilenetv2_035", len(CLASSES), weights=str(weights), image_size=128)
    bundle = Bundle(built.module.eval(), CLASSES, built.preprocess, built.architecture)

    def inputs(paths: list[Path]) -> torch.Tensor:
        return torch.stack([to_input(decode(p.read_bytes()).pixels, built.preprocess) for p in paths])

    train, validation = photos(root, "train", 12), photos(root, "val", 20)
    with torch.inference_mode():
        features = built.module.backbone(inputs(train)).flatten(1)
    wanted = 8.0 * torch.eye(len(CLASSES))[[CLASSES.index(path.parent.name) for path in train]]
    solution = torch.linalg.lstsq(features, wanted, driver="gelsd").solution
    head = [module for module in built.module.head.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        head.weight.copy_(solution.T)
        head.bias.zero_()
        probabilities = built.module(inputs(validation)).softmax(1).double().numpy()
    names = tuple(str(path.relative_to(root)) for path in validation)
    labels = tuple(path.parent.name for path in validation)
    return bundle, {"validation": Predictions(names, labels, CLASSES, probabilities)}, root


@pytest.mark.slow
@pytest.mark.real_data("data/flowers5", "weights")
def test_float_int8_and_a_wrong_file(
    case: tuple[Bundle, dict[str, Predictions], Path], tmp_path: Path
) -> None:
    bundle, predictions, root = case

    def read(path: str) -> bytes:
        return (root / path).read_bytes()

    exact = write_onnx(bundle, tmp_path / "model.onnx")
    certificate = certify(exact, predictions, read)
    assert certificate.passed
    assert certificate.images == 100
    assert certificate.max_probability_difference < 1e-4
    assert certificate.extra["validation_accuracy_before"] > 0.5, (
        "far better than the fifth that chance gives"
    )

    reduced = quantize(
        exact, tmp_path / "int8.onnx", (decode(p.read_bytes()).pixels for p in photos(root, "train", 6))
    )
    assert network_bytes(reduced) < 0.4 * network_bytes(exact)
    judged = certify(reduced, predictions, read, kind="int8", max_drop=0.1)
    assert judged.passed, judged.extra["problems"]

    for wrong in (
        replace(bundle.preprocess, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        replace(bundle.preprocess, crop_fraction=1.0),
        replace(bundle.preprocess, interpolation="bilinear"),
    ):
        other = write_onnx(replace(bundle, preprocess=wrong), tmp_path / "wrong.onnx")
        certificate = certify(other, predictions, read)
        assert not certificate.passed, wrong
        assert np.isfinite(certificate.max_probability_difference)
