"""The artefact: what it answers, and everything it refuses before onnxruntime sees the bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from saccade.artefact import Artefact, equal_sized_batches
from saccade.errors import ModelError
from saccade.onnx_file import inspect_model
from saccade.threads import usable_cores

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def model(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model.onnx")


def plain(colour: tuple[int, int, int], height: int = 9, width: int = 14) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def changed(model: Path, path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    proto = onnx.load(model)
    change(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def test_answers_by_colour_whatever_the_sizes(model: Path) -> None:
    images = [
        plain((250, 20, 20)),
        plain((20, 20, 250), 30, 3),
        plain((20, 250, 20)),
        plain((250, 0, 0), 1, 1),
    ]
    artefact = Artefact.open(model)
    probabilities = artefact.probabilities(images)
    assert [artefact.classes[i] for i in probabilities.argmax(1)] == ["red", "blue", "green", "red"]
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    alone = np.concatenate([artefact.probabilities([image]) for image in images])
    np.testing.assert_allclose(probabilities, alone, atol=1e-6)


def test_says_what_it_was_made_from(model: Path) -> None:
    artefact = Artefact.open(model)
    assert artefact.classes == ("blue", "green", "red")
    assert artefact.preprocess.size == 8
    assert artefact.fingerprint == "f" * 16
    assert artefact.version[0].isdecimal()
    assert artefact.sha256 == hashlib.sha256(model.read_bytes()).hexdigest()


def test_no_images_give_no_rows(model: Path) -> None:
    assert Artefact.open(model).probabilities([]).shape == (0, 3)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["grey", "rgba", "float", "empty"],
)
def test_refuses_pixels_of_another_kind(model: Path, image: np.ndarray) -> None:
    with pytest.raises(ModelError, match="must be uint8"):
        Artefact.open(model).probabilities([image])


def test_batches_hold_equal_sizes_and_stay_bounded() -> None:
    sizes = [(10, 10)] * 5 + [(20, 10)] * 2 + [(10, 10)] * 2 + [(1000, 1000)]
    batches = list(equal_sized_batches(sizes, max_images=3, max_pixels=250))
    assert sorted(i for batch in batches for i in batch) == list(range(10))
    assert all(len({sizes[i] for i in batch}) == 1 for batch in batches)
    assert [len(batch) for batch in batches] == [2, 2, 2, 1, 1, 1, 1]


def test_cores_follow_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert usable_cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────


def _external(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def _external_in_attribute(proto: onnx.ModelProto) -> None:
    tensor = TensorProto(name="x", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    proto.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))


def _external_in_subgraph(proto: onnx.ModelProto) -> None:
    inner = helper.make_graph(
        [], "inner", [], [], [TensorProto(name="x", data_location=TensorProto.EXTERNAL)]
    )
    proto.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))


def _external_sparse(proto: onnx.ModelProto) -> None:
    values = TensorProto(name="x", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    proto.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, dims=[1]))


def _external_sparse_in_attribute(proto: onnx.ModelProto) -> None:
    indices = TensorProto(name="x", data_type=7, dims=[1], data_location=TensorProto.EXTERNAL)
    node = helper.make_node("Constant", [], ["unused"])
    attribute = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.indices.CopyFrom(indices)
    proto.graph.node.append(node)


def _custom_domain(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("com.evil", 1))


def _custom_node(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].domain = "com.evil"


def _function(proto: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["a"], ["b"])
    proto.functions.append(
        helper.make_function("local", "Evil", ["a"], ["b"], [node], proto.opset_import[:1])
    )


def _training(proto: onnx.ModelProto) -> None:
    proto.training_info.add()


def _old_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 11


def _future_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 99


def _deep(proto: onnx.ModelProto) -> None:
    graph = helper.make_graph([], "leaf", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["d"], then_branch=graph)], "g", [], [])
    proto.graph.node.append(graph.node[0])


EVIL = {
    "external data": (_external, "another file"),
    "external data in an attribute": (_external_in_attribute, "another file"),
    "external data in a subgraph": (_external_in_subgraph, "another file"),
    "external sparse data": (_external_sparse, "another file"),
    "external sparse data in an attribute": (_external_sparse_in_attribute, "another file"),
    "custom domain": (_custom_domain, "domain 'com.evil'"),
    "custom operator": (_custom_node, "domain 'com.evil'"),
    "function": (_function, "own functions"),
    "training": (_training, "training information"),
    "old opset": (_old_opset, "opset 11"),
    "future opset": (_future_opset, "opset 99"),
    "deep nesting": (_deep, "nests graphs"),
}


@pytest.mark.parametrize("name", EVIL)
def test_refuses_a_model_that_reaches_outside(model: Path, tmp_path: Path, name: str) -> None:
    change, words = EVIL[name]
    path = changed(model, tmp_path / "evil.onnx", change)
    with pytest.raises(ModelError, match=words) as caught:
        Artefact.open(path)
    assert "\n" not in caught.value.args[0] + caught.value.hint
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 64, b"PK\x03\x04" + b"x" * 99, b"<!DOCTYPE html>", b"\x80\x04\x95"]
)
def test_refuses_what_is_no_onnx(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is not an ONNX file"):
        Artefact.open(path)


def test_refuses_every_truncation_with_one_line(model: Path) -> None:
    data = model.read_bytes()
    for end in range(0, len(data), 7):
        with pytest.raises(ModelError):
            Artefact.open_bytes(data[:end], name="cut.onnx")


def test_refuses_a_length_that_runs_past_the_end(model: Path) -> None:
    with pytest.raises(ModelError, match="cut short"):
        inspect_model(model.read_bytes()[:-1], name="cut.onnx")


def test_refuses_a_file_of_countless_tiny_fields(model: Path) -> None:
    """Not after minutes: the walk gives up at a million fields."""
    data = model.read_bytes() + b"\x20\x00" * 2_000_000  # model_version, said again and again
    with pytest.raises(ModelError, match="more than 1,000,000 fields"):
        inspect_model(data, name="many.onnx")


def test_mutated_bytes_raise_only_our_error(model: Path) -> None:
    data, rng = model.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        mutated = bytearray(data)
        for position in rng.integers(0, len(data), 4):
            mutated[position] = rng.integers(0, 256)
        try:
            inspect_model(bytes(mutated), name="mutated.onnx")
        except ModelError:
            refused += 1
    assert refused > 50


def test_refuses_a_missing_file_a_folder_and_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model file does not exist"):
        Artefact.open(tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        Artefact.open(tmp_path)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ModelError, match="it is a pipe, socket or device"):
        Artefact.open(tmp_path / "pipe.onnx")


def test_refuses_a_file_above_the_limit(model: Path) -> None:
    with pytest.raises(ModelError, match=r"more than the 1,000"):
        Artefact.open(model, max_bytes=1000)


@pytest.mark.parametrize(
    "key", ["saccade.classes", "saccade.preprocess", "saccade.version", "saccade.data_fingerprint"]
)
def test_refuses_missing_metadata(model: Path, tmp_path: Path, key: str) -> None:
    def drop(proto: onnx.ModelProto) -> None:
        kept = [entry for entry in proto.metadata_props if entry.key != key]
        del proto.metadata_props[:]
        proto.metadata_props.extend(kept)

    with pytest.raises(ModelError, match=f"lacks {key}"):
        Artefact.open(changed(model, tmp_path / "m.onnx", drop))


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"saccade.schema": "2"}, "schema version 2"),
        ({"saccade.version": '"99.0.0"'}, "written by saccade 99.0.0"),
        ({"saccade.version": '"%s"' % ("9" * 5000)}, "written by saccade 99999999999999999999; "),
        ({"saccade.version": "[" * 100_000}, "is not JSON"),
        ({"saccade.classes": "[" * 100_000}, "is not JSON"),
        ({"saccade.classes": '["a", "b", "\\ud800"]'}, "different words"),
        ({"saccade.classes": '["a", "b", ""]'}, "different words"),
        ({"saccade.classes": '["a", "b", 3]'}, "different words"),
        ({"saccade.classes": '{"a": 1}'}, "different words"),
        ({"saccade.preprocess": '{"size": "8"}'}, "preprocessing"),
        ({"saccade.classes": "not json"}, "is not JSON"),
        ({"saccade.classes": '["a", "a", "b"]'}, "different words"),
        ({"saccade.classes": '["a", "b"]'}, "gives 3 probabilities but names 2 classes"),
        ({"saccade.preprocess": "[1]"}, "no JSON object"),
        ({"saccade.preprocess": '{"size": 8}'}, "preprocessing"),
    ],
)
def test_refuses_metadata_that_does_not_hold(
    make_model: MakeModel, tmp_path: Path, metadata: dict[str, str], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        Artefact.open(make_model(tmp_path / "m.onnx", metadata=metadata))


def test_refuses_another_interface(model: Path, tmp_path: Path) -> None:
    def rename(proto: onnx.ModelProto) -> None:
        proto.graph.output[0].name = "logits"
        proto.graph.node[-1].output[0] = "logits"

    with pytest.raises(ModelError, match="does not take one uint8 'image'"):
        Artefact.open(changed(model, tmp_path / "m.onnx", rename))


def test_refuses_what_onnxruntime_refuses_in_one_line(model: Path, tmp_path: Path) -> None:
    def unknown_attribute(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].attribute.append(helper.make_attribute("no_such_attribute", 1))

    with pytest.raises(ModelError, match="cannot be loaded by onnxruntime") as caught:
        Artefact.open(changed(model, tmp_path / "m.onnx", unknown_attribute))
    assert "\n" not in caught.value.args[0] + caught.value.hint


# ── the certificate beside it ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["certificate.json", "model.onnx.certificate.json"])
def test_refuses_a_file_changed_after_its_certificate(
    make_model: MakeModel, tmp_path: Path, name: str
) -> None:
    path = make_model(tmp_path / "model.onnx")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / name).write_text(json.dumps({"kind": "float", "extra": {"sha256": sha256}}))
    assert Artefact.open(path).sha256 == sha256
    make_model(path, temperature=0.2)
    with pytest.raises(ModelError, match="SHA-256 differs"):
        Artefact.open(path)
    assert Artefact.open(path, verify=False).sha256 != sha256


def test_refuses_a_damaged_certificate(make_model: MakeModel, tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.onnx")
    (tmp_path / "m.onnx.certificate.json").write_text("{")
    with pytest.raises(ModelError, match="saccade certify"):
        Artefact.open(path)


MEMORY_LEFT = """
import os, sys
from pathlib import Path
import numpy as np
from saccade.artefact import Artefact

def resident_megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

artefact = Artefact.open(Path(sys.argv[1]))
artefact.probabilities([np.zeros((9, 9, 3), np.uint8)])
before = resident_megabytes()
artefact.probabilities([np.zeros((4000, 6000, 3), np.uint8)])
print(resident_megabytes() - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="reads the resident memory from Linux's /proc"
)
def test_a_large_photo_leaves_no_large_process(model: Path) -> None:
    """In a process of its own: one that trains keeps the memory it was given, by its own wish."""
    command = [sys.executable, "-c", MEMORY_LEFT, str(model)]
    left = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(left) < 100, "the resize alone needs 290 MB"


def test_opening_imports_neither_torch_nor_onnx(model: Path) -> None:
    code = (
        "import sys; from saccade.artefact import Artefact; import numpy as np;"
        f"Artefact.open({str(model)!r}).probabilities([np.zeros((4, 4, 3), np.uint8)]);"
        "heavy = {'torch', 'onnx', 'timm', 'torchvision', 'sklearn'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
