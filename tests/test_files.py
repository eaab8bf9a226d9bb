"""A pipe, an endless device or a folder where a file was named: refused, and never waited for."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from saccade.audit.decisions import read_decisions
from saccade.bundle import load_bundle
from saccade.errors import SaccadeError
from saccade.files import open_file, parse_json, read_file, read_text
from saccade.images.decoder import DEFAULT_LIMITS
from saccade.models.weights import read_weights
from saccade.predict import Predictor, pixels_of
from saccade.predict import read_file as read_image
from saccade.recipe import read_recipe_file
from saccade.run_folder import RunFolder, read_csv, read_json, read_predictions, write_json
from saccade.sources import load_source


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it waited for a pipe, or read a device without end")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def silent_terminal(path: Path) -> None:
    path.symlink_to("/dev/ptmx")


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def gone(path: Path) -> None:
    path.symlink_to("nowhere")


def server(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(path.parent)  # such a path may have some hundred characters only
        listening.bind(path.name)
        os.chdir(here)


PLACED = (pipe, endless, silent_terminal, folder, loop, gone, server)


@pytest.mark.parametrize("place", PLACED)
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, place: Callable[[Path], None]) -> None:
    place(tmp_path / "x")
    for read in (open_file, read_file, read_text):
        with pytest.raises(OSError, match=r".") as caught:
            read(tmp_path / "x")
        assert caught.value.strerror
        assert not isinstance(caught.value, TimeoutError)


def test_a_file_is_read_whole_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("x")
    assert read_file(tmp_path / "x", max_bytes=10) == read_file(tmp_path / "link") == b"0123456789"
    with pytest.raises(OSError, match="10 bytes, more than the 9 allowed"):
        read_file(tmp_path / "x", max_bytes=9)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "{", "nonsense", b"\xff\xfe\xfd"])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def of_run(name: str) -> Callable[[Path], Any]:
    """Reads one file of the run whose file this is."""
    return lambda path: getattr(RunFolder(path.parent), name)()


READERS: dict[str, Callable[[Path], Any]] = {
    "recipe": read_recipe_file,
    "decisions": read_decisions,
    "model": Predictor,
    "image": lambda path: read_image(str(path), DEFAULT_LIMITS),
    "list.csv": lambda path: load_source(str(path)),
    "list.jsonl": lambda path: load_source(str(path)),
    "list.parquet": lambda path: load_source(str(path)),
    "images.zip": lambda path: load_source(str(path)),
    "images.tar": lambda path: load_source(str(path)),
    "recipe.toml": of_run("read_recipe"),
    "environment.json": of_run("read_environment"),
    "audit.json": of_run("read_audit"),
    "history.jsonl": of_run("read_history"),
    "dataset.csv": of_run("read_dataset"),
    "predictions.csv": read_predictions,
    "rows.csv": read_csv,
    "object.json": read_json,
}


@pytest.mark.parametrize("place", [pipe, endless, folder])
@pytest.mark.parametrize("name", READERS)
def test_no_named_file_hangs_or_fills_the_memory(
    tmp_path: Path, name: str, place: Callable[[Path], None]
) -> None:
    place(tmp_path / name)
    with pytest.raises(SaccadeError) as caught:
        READERS[name](tmp_path / name)
    assert "\n" not in caught.value.args[0]


@pytest.mark.parametrize("place", [pipe, endless])
@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_no_file_of_a_bundle_hangs(tmp_path: Path, name: str, place: Callable[[Path], None]) -> None:
    place(tmp_path / name)
    with pytest.raises(SaccadeError, match="cannot be read"):
        read_weights(tmp_path / name) if name == "weights.safetensors" else load_bundle(tmp_path)


@pytest.mark.parametrize("place", [pipe, endless])
def test_no_certificate_hangs(
    make_model: Callable[..., Path], tmp_path: Path, place: Callable[[Path], None]
) -> None:
    model = make_model(tmp_path / "m.onnx")
    place(tmp_path / "m.onnx.certificate.json")
    with pytest.raises(SaccadeError, match=r"m\.onnx\.certificate\.json cannot be read"):
        Predictor(model)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "[]", "3", "\x00"])
@pytest.mark.parametrize("name", ["environment.json", "audit.json", "history.jsonl", "recipe.toml"])
def test_damaged_files_of_a_run_are_named(tmp_path: Path, name: str, text: str) -> None:
    RunFolder(tmp_path).write(tmp_path / name, text.encode())  # as a faulty program would have left it
    with pytest.raises(SaccadeError, match=name.replace(".", r"\.")):
        READERS[name](tmp_path / name)


def test_a_recipe_that_is_nested_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(SaccadeError, match="nested too deeply"):
        read_recipe_file(tmp_path / "r.toml")


def test_a_row_that_never_ends_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('path,label\n"' + "x" * 200_000)
    with pytest.raises(SaccadeError, match=r"p\.csv is damaged"):
        read_csv(tmp_path / "p.csv")


def test_an_image_that_is_a_pipe_is_an_answer(tmp_path: Path) -> None:
    pipe(tmp_path / "a.jpg")
    assert "not a regular file" in str(pixels_of("a", str(tmp_path / "a.jpg"), DEFAULT_LIMITS))


def test_json_is_valid_utf8_whatever_a_name_is(tmp_path: Path) -> None:
    for values in ({"path": "bad\udce9.png", "label": "Käfer"}, {"path": "Käfer/1.png"}):
        write_json(tmp_path / "a.json", values)
        assert json.loads((tmp_path / "a.json").read_bytes().decode("utf-8")) == values
    assert "Käfer" in (tmp_path / "a.json").read_text("utf-8"), "read by people, too"
