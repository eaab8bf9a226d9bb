"""Files that are given as a model and are none, or one that does harm: the command refuses each in words.

The kinds of graphs stand in `test_hostile_models.py`; here are files, metadata and what is shown of them.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import pickle
import resource
import time
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import saccade
from saccade.artefact import Artefact
from saccade.errors import ModelError
from saccade.predict.command import predict_command
from saccade.terminal import Terminal

MakeModel = Callable[..., Path]
CANARY = b"untouched"


@pytest.fixture
def model(make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A sound model in the current folder, beside a file that nothing may read from or write to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "canary.bin").write_bytes(CANARY)
    Image.new("RGB", (9, 6), (220, 30, 30)).save("a.png")
    yield make_model(tmp_path / "model.onnx")
    assert (tmp_path / "canary.bin").read_bytes() == CANARY
    assert not (tmp_path / "written.bin").exists()


def with_external(location: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        made = onnx.load_from_string(data)
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        return made.SerializeToString()

    return change


def with_tensor(**fields: object) -> Callable[[bytes], bytes]:
    """Fields of the weights that do not go with the others."""

    def change(data: bytes) -> bytes:
        made = onnx.load_from_string(data)
        (weight,) = (tensor for tensor in made.graph.initializer if tensor.name.endswith("weight"))
        for name, value in fields.items():
            setattr(weight, name, value)
        return made.SerializeToString()

    return change


def with_metadata(key: str, value: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        made = onnx.load_from_string(data)
        made.metadata_props.add(key=key, value=value)
        return made.SerializeToString()

    return change


def instead(key: str, value: object) -> Callable[[bytes], bytes]:
    """Other metadata under a name that is there."""

    def change(data: bytes) -> bytes:
        made = onnx.load_from_string(data)
        entry = next(entry for entry in made.metadata_props if entry.key == key)
        entry.value = value if isinstance(value, str) else json.dumps(value)
        return made.SerializeToString()

    return change


class Writes:
    """What a pickle does when it is read."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("written.bin", "w")


def torch_file(_: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Writes()))
    return file.getvalue()


def safetensors(_: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


LONG = "x" * 11_000_000
DEEP = "[" * 100_000
FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "PyTorch": (torch_file, "is not an ONNX file: it is a zip file, as PyTorch"),
    "pickle": (lambda _: pickle.dumps(Writes()), "it is a pickle"),
    "Keras": (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(99), "it is an HDF5 file"),
    "TensorFlow Lite": (lambda _: b"\x1c\0\0\0TFL3" + bytes(99), "it is a TensorFlow Lite model"),
    "safetensors": (safetensors, "it is a safetensors file"),
    "GGUF": (lambda _: b"GGUF\x03" + bytes(99), "it is a GGUF model"),
    "onnxruntime's own format": (lambda _: b"\x20\0\0\0ORTM" + bytes(99), "onnxruntime's own format"),
    "gzip": (lambda _: b"\x1f\x8b\x08" + bytes(99), "it is packed by gzip"),
    "Git LFS": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
    "HTML": (lambda _: b"<!doctype html><title>404", "it is HTML or XML"),
    "JSON": (lambda _: b'{"ir_version": 8}', "it is JSON"),
    "program": (lambda _: b"\x7fELF" + bytes(99), "it is a program"),
    "empty": (lambda _: b"", "is not an ONNX file, or is cut short"),
    "cut": (lambda data: data[: len(data) // 2], "is not an ONNX file, or is cut short"),
    "another behind": (lambda data: data + b"\x0f" * 9, "is not an ONNX file, or is cut short"),
    "twice": (lambda data: data + data, "has two metadata entries called 'saccade.schema'"),
    "external: beside": (with_external("canary.bin"), "another file (external data)"),
    "external: ..": (with_external("../canary.bin"), "another file (external data)"),
    "external: absolute": (with_external("/etc/passwd"), "another file (external data)"),
    "external: URL": (with_external("file:///etc/passwd"), "another file (external data)"),
    "data shorter than sides": (with_tensor(raw_data=b"\0" * 20), "cannot be loaded by onnxruntime"),
    "data longer than sides": (with_tensor(raw_data=b"\0" * 64), "cannot be loaded by onnxruntime"),
    "a type that is none": (with_tensor(data_type=99), "cannot be loaded by onnxruntime"),
    "text for numbers": (with_tensor(data_type=8), "cannot be loaded by onnxruntime"),
    "metadata: too much": (with_metadata("note", LONG), "has more than 10 MB of metadata"),
    "metadata: one name twice": (with_metadata("saccade.classes", '["a"]'), "two metadata entries called"),
    "metadata: two escapes": (with_metadata("\x1b[2J", "") , "answers"),
    "metadata: nested without end": (instead("saccade.preprocess", DEEP), "is not JSON"),
    "metadata: another schema": (instead("saccade.schema", 7), "has schema version 7"),
    "metadata: a newer saccade": (instead("saccade.version", "99.0"), "written by saccade 99.0"),
    "classes: one too many": (instead("saccade.classes", list("abcd")), "gives 3 probabilities but names 4"),
    "classes: one twice": (instead("saccade.classes", list("aab")), "must be different words"),
    "classes: no words": (instead("saccade.classes", [1, 2, 3]), "must be different words"),
    "classes: no list": (instead("saccade.classes", {"a": 1}), "must be different words"),
    "classes: a hundred thousand": (
        instead("saccade.classes", list(map(str, range(100_000)))), "gives 3 probabilities but names 100000",
    ),
    "classes: a number of many digits": (instead("saccade.classes", "9" * 10_000), "is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_sound_model_is_refused_in_words(name: str, model: Path) -> None:
    change, words = FILES[name]
    Path("evil.onnx").write_bytes(change(model.read_bytes()))
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if words == "answers":  # what is foreign and not used does no harm
        assert predict_command("evil.onnx", ["a.png"], Terminal(stream=io.StringIO())) == 0
        return
    with pytest.raises(ModelError) as caught:
        predict_command("evil.onnx", ["a.png"], Terminal(stream=io.StringIO()))
    assert words in caught.value.args[0]
    assert "evil.onnx" in caught.value.args[0]
    assert caught.value.hint
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_the_kinds_of_evil_files_are_many() -> None:
    assert len(FILES) >= 30


def test_places_that_are_no_file_are_refused_without_waiting(model: Path) -> None:
    os.mkdir("folder.onnx")
    os.mkfifo("pipe.onnx")
    os.symlink("gone.onnx", "link.onnx")
    os.symlink("round.onnx", "round.onnx")
    words = {
        "folder.onnx": "neither a run folder nor",
        "pipe.onnx": "it is a pipe, socket or device",
        "/dev/zero": "it is a pipe, socket or device",
        "link.onnx": "does not exist",
        "round.onnx": "cannot be read",
        "model.onnx/x": "cannot be read",
        "x" * 5000: "cannot be read",
    }
    for name, said in words.items():
        started = time.monotonic()
        with pytest.raises(ModelError, match=said):
            predict_command(name, ["a.png"], Terminal(stream=io.StringIO()))
        assert time.monotonic() - started < 2


def test_a_link_to_a_model_is_the_model(model: Path) -> None:
    os.symlink("model.onnx", "linked.onnx")
    assert predict_command("linked.onnx", ["a.png"], Terminal(stream=io.StringIO())) == 0


def test_no_more_than_the_start_of_a_large_file_of_another_kind_is_read(model: Path) -> None:
    for start in (b"", b"PK\x03\x04"):
        with open("large.onnx", "wb") as file:
            file.write(start)
            file.truncate(2_000_000_000)  # takes no space
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ModelError, match="is not an ONNX file"):
            Artefact.open("large.onnx")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("content", ["[]", "{", '{"sha256": 5}', '{"sha256": "' + "0" * 64 + '"}'])
def test_a_certificate_that_does_not_fit_is_refused(content: str, model: Path) -> None:
    Path("model.onnx.certificate.json").write_text(content)
    with pytest.raises(ModelError, match="certificate"):
        Artefact.open("model.onnx")


# ── what computes for too long ───────────────────────────────────────────────────────────────────────


def test_a_graph_that_computes_without_end_is_ended(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand products of 400 x 400 numbers, in a file of some kilobytes; each must follow the other."""
    made = onnx.load("model.onnx")
    nodes = [helper.make_node("Expand", ["one", "sides"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{i}", "m0"], [f"m{i + 1}"]) for i in range(2000)]
    nodes += [helper.make_node("ReduceSum", ["m2000"], ["sum"], keepdims=0)]
    nodes += [helper.make_node("Mul", ["sum", "none"], ["nothing"])]
    last = next(node for node in made.graph.node if "probabilities" in node.output)
    last.output[0] = "before"
    made.graph.node.extend([*nodes, helper.make_node("Add", ["before", "nothing"], ["probabilities"])])
    made.graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(0), "one"),
            numpy_helper.from_array(np.float32(0), "none"),
            numpy_helper.from_array(np.array([400, 400]), "sides"),
        ]
    )
    Path("slow.onnx").write_bytes(made.SerializeToString())
    monkeypatch.setattr("saccade.run_limit.MOST_RUN_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"slow\.onnx cannot predict 1 images of 9 x 6 pixels within"):
        saccade.load("slow.onnx").predict("a.png")
    assert time.monotonic() - started < 20


# ── what is shown ────────────────────────────────────────────────────────────────────────────────────

NAMES = (
    "\x1b[31mred\x1b]0;title\x07\r",
    "<img src=x onerror=alert(1)>\u202e",
    '=HYPERLINK("x")\x9b2J',
)


class Text(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_of_classes_are_shown_as_text(model: Path) -> None:
    """On the terminal and on the page nothing obeys them; tables keep them, and no cell is a formula."""
    Path("evil.onnx").write_bytes(instead("saccade.classes", NAMES)(model.read_bytes()))
    stream = io.StringIO()
    assert predict_command("evil.onnx", ["a.png"], Terminal(stream=stream), top_k=3) == 0
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().strip().isprintable()
    assert "\\x1b[31mred" in stream.getvalue()
    run = {"contact_sheet": "page.html", "out": "o.csv", "top_k": 3}
    assert predict_command("evil.onnx", ["a.png"], Terminal(stream=stream), **run) == 0  # type: ignore[arg-type]
    page = Path("page.html").read_text("utf-8")
    assert Text(page).tags.count("img") == 1
    assert not set("\x1b\x07\x9b\u202e\r") & set(page)
    with open("o.csv", encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert {row["predicted"], row["predicted_2"], row["predicted_3"]} == {NAMES[0], NAMES[1], f"'{NAMES[2]}"}
    assert [name for name in row if name.startswith("p_")] == [f"p_{name}" for name in NAMES]
    assert predict_command("evil.onnx", ["a.png"], Terminal(stream=stream), out="o.jsonl") == 0
    line = Path("o.jsonl").read_text("utf-8")
    assert "\x1b" not in line
    assert list(json.loads(line)["probabilities"]) == list(NAMES)


def test_a_model_is_opened_by_one_door() -> None:
    """Prediction, the server and `bench` open models that others made; each does it by Artefact.open."""
    package = Path(saccade.__file__).parent
    for file in [*package.glob("serve/*.py"), *package.glob("predict/*.py"), package / "export" / "bench.py"]:
        calls = [
            node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Attribute)
        ]
        doors = {call.attr for call in calls} & {
            "InferenceSession",
            "read_model",
            "load_model",
            "from_bytes_unsafe",
        }
        assert not doors, f"{file} opens a model by {doors}"
    assert any("Artefact.open" in file.read_text("utf-8") for file in package.glob("predict/*.py"))
