"""The guard of reduced precision: what harms most goes back to float first, as long as there are problems."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from saccade.artefact import Artefact
from saccade.export import parts
from saccade.export.blocks import blocks_of, kept_float
from saccade.export.folding import fold_pads
from saccade.export.half import write_half
from saccade.export.onnx import PIXELS
from saccade.export.quantize import quantize


def _network(weights: Sequence[float]) -> onnx.ModelProto:
    """A chain of 1x1 convolutions, one weight each."""
    nodes, tensors, last = [], [], PIXELS
    for i, weight in enumerate(weights):
        values = np.full((3, 3, 1, 1), weight, np.float32)
        tensors.append(numpy_helper.from_array(values, f"network/w{i}"))
        nodes.append(
            helper.make_node("Conv", [last, f"network/w{i}"], [f"network/c{i}"], name=f"network/c{i}")
        )
        last = f"network/c{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["network/p"], name="network/p"))
    nodes.append(helper.make_node("Flatten", ["network/p"], ["network/logits"], name="network/f"))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(PIXELS, 1, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("network/logits", 1, ["batch", 3])],
        tensors,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


def test_blocks_cover_every_node_behind_the_start_once() -> None:
    network = _network([0.5] * 40)
    blocks = blocks_of(network, start=3)
    assert len(blocks) == 16
    assert [name for block in blocks for name in block] == [node.name for node in network.graph.node][3:]
    assert all(block[0].startswith("network/c") for block in blocks)
    assert len(blocks_of(_network([1.0, 1.0]))) == 2


def test_the_most_harmful_block_goes_back_first() -> None:
    network = _network([0.5] * 6)

    def reduced(kept: Sequence[str]) -> onnx.ModelProto:
        """Every layer is off by a little, the third by much."""
        result = parts.copied(network)
        for i, tensor in enumerate(result.graph.initializer):
            if f"network/c{i}" not in kept:
                off = 0.1 if i == 2 else 0.01
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + off, tensor.name))
        return result

    pixels = [np.random.default_rng(0).random((1, 3, 4, 4), dtype=np.float32)]
    tried: Iterator[list[str]] = kept_float(network, reduced, lambda: pixels)
    assert next(tried) == []
    assert next(tried) == ["network/c2"]
    rest = list(tried)
    assert next(len(names) for names in rest) == 2
    assert all("network/c2" in names for names in rest)


def test_no_image_is_read_while_the_accuracy_holds() -> None:
    def unread() -> list[Any]:
        raise AssertionError("read")

    assert next(kept_float(_network([1.0]), lambda kept: _network([1.0]), unread)) == []


@pytest.fixture
def float_file(tmp_path: Path) -> Path:
    from saccade.export.onnx import write_onnx
    from saccade.preprocess import Preprocess
    from saccade.testing.formats import tiny_bundle

    return write_onnx(tiny_bundle(Preprocess(24)), tmp_path / "model.onnx")


def _photos(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.integers(0, 256, (30, 40, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("write", [quantize, write_half])
def test_layers_go_back_to_float_until_nothing_is_wrong(write: Any, float_file: Path, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def problems(path: Path) -> list[str]:
        asked.append(Artefact.open(path).metadata["saccade.quantization"])
        return ["accuracy"] if len(asked) == 1 else []

    write(float_file, tmp_path / "reduced.onnx", _photos(4), problems=problems)
    assert [bool(note.get("float_nodes")) for note in asked] == [False, True]
    assert Artefact.open(tmp_path / "reduced.onnx").metadata["saccade.quantization"] == asked[-1]


def test_half_weights_are_half_the_size_and_nearly_the_same_answers(float_file: Path, tmp_path: Path) -> None:
    half = write_half(float_file, tmp_path / "half.onnx", [])
    photos = _photos(5)
    exact, reduced = (Artefact.open(path).probabilities(photos) for path in (float_file, half))
    assert 0 < np.abs(exact - reduced).max() < 2e-3
    stored = {tensor.name: tensor for tensor in onnx.load(half).graph.initializer}
    halves = [name for name, tensor in stored.items() if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert len(halves) == 4, "weights and offsets of two layers"
    assert all(name.startswith("network/") for name in halves), "preprocessing and softmax stay float32"


def test_weights_too_large_for_float16_stay_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.export.half import _with_half_weights

    stored = _with_half_weights(_network([1e6, 0.5]), []).graph.initializer
    assert [tensor.data_type for tensor in stored] == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16]


def _padded(value: float, *, auto: bool = False) -> onnx.ModelProto:
    network = _network([0.5])
    convolution = network.graph.node[0]
    if auto:
        convolution.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))
    pad = helper.make_node("Pad", [PIXELS, "widths", "value"], ["padded"], name="pad")
    convolution.input[0] = "padded"
    network.graph.node.insert(0, pad)
    widths = np.array([0, 0, 1, 0, 0, 0, 2, 1], np.int64)
    network.graph.initializer.append(numpy_helper.from_array(widths, "widths"))
    network.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), "value"))
    return network


def test_a_pad_of_zeros_becomes_the_padding_of_its_convolution() -> None:
    pixels = np.random.default_rng(0).random((2, 3, 4, 4), dtype=np.float32)

    def logits(network: onnx.ModelProto) -> np.ndarray:
        session = onnxruntime.InferenceSession(
            network.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        answer: np.ndarray = session.run(None, {PIXELS: pixels})[0]
        return answer

    for network, folds in ((_padded(0), True), (_padded(1), False), (_padded(0, auto=True), False)):
        before = logits(network)
        fold_pads(network)
        assert ("Pad" not in {node.op_type for node in network.graph.node}) is folds
        assert ("widths" not in {tensor.name for tensor in network.graph.initializer}) is folds
        assert np.allclose(logits(network), before, atol=1e-6)


def test_the_note_of_a_reduced_file_is_json(float_file: Path, tmp_path: Path) -> None:
    model = onnx.load(write_half(float_file, tmp_path / "half.onnx", []))
    note = {prop.key: prop.value for prop in model.metadata_props}["saccade.quantization"]
    assert json.loads(note) == {"kind": "fp16", "float_nodes": 0}
