"""--out with an address in a bucket: what a command writes is there in the end, and nowhere half."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.cli import outputs
from saccade.errors import SourceError
from saccade.files import lock_file
from saccade.sources import load_source, rows
from saccade.sources.outputs import place_of

pytestmark = pytest.mark.usefixtures("let_in")
Saccade = Callable[..., Any]
SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "16")


@pytest.fixture(scope="module")
def photos(server: Any, tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    """36 photos in a folder, and the same ones below s3://images/answered."""
    folder = photo_writer(tmp_path_factory.mktemp("data") / "photos")
    server.put(folder, "answered")
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_a_table_of_answers_is_uploaded_and_an_upload_that_failed_is_made_again(
    saccade: Saccade,
    server: Any,
    photos: Path,
    tmp_path: Path,
    make_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_model(tmp_path / "model.onnx")
    assert saccade("predict", "model.onnx", photos, "--out", "here.csv").code == 0
    real, words = outputs.upload, ("predict", "model.onnx", photos, "--out", "s3://images/out/there.csv")

    def fail(file: Path, address: str) -> None:
        raise SourceError("s3://images: does not answer")

    monkeypatch.setattr(outputs, "upload", fail)
    stopped = saccade(*words)
    assert (stopped.code, "does not answer" in stopped.err) == (2, True)
    assert list(tmp_path.glob("cache/outputs/*/there.csv"))
    monkeypatch.setattr(outputs, "upload", real)
    again = saccade(*words)
    assert again.code == 0, again.err
    assert "only its upload is left" in again.out
    assert "predictions written" not in again.out
    assert "Uploaded s3://images/out/there.csv (1 file" in " ".join(again.out.split())
    assert server.ask("GET", "images/out/there.csv") == Path("here.csv").read_bytes()
    assert not list(tmp_path.glob("cache/outputs/*"))
    assert not Path("s3:").exists()


def test_two_commands_do_not_share_a_place(saccade: Saccade, photos: Path, tmp_path: Path) -> None:
    address = "s3://images/out/shared.csv"
    place = place_of(address).parent
    place.mkdir(parents=True)
    with open(place / ".lock", "a+b") as file:
        assert lock_file(file.fileno())
        refused = saccade("split", "s3://images/answered", "--out", address)
    assert (refused.code, "another saccade is writing for s3://images/out/shared.csv" in refused.err) == (
        2,
        True,
    )
    (place / "shared.csv.failed.csv").write_text("of another command")
    (place / ".finished.json").write_text('{"command": ["elsewhere"], "code": 0}')
    done = saccade("split", "s3://images/answered", "--out", address)
    assert done.code == 0, done.err
    assert "(1 file" in " ".join(done.out.split())


def test_an_audit_a_split_and_a_manifest_in_a_bucket(saccade: Saccade, server: Any, photos: Path) -> None:
    assert saccade("audit", photos, "--out", "s3://images/out/audit").code == 0
    assert json.loads(server.ask("GET", "images/out/audit/audit.json"))["findings"] is not None
    assert b"<html" in server.ask("GET", "images/out/audit/audit.html")
    words = ("split", "s3://images/answered", "--out", "s3://images/split.csv")
    assert saccade(*words).code == 0
    first = server.ask("GET", "images/split.csv")
    assert first.count(b"s3://images/answered/") == 36
    assert "36 images kept the part they had" in saccade(*words).out
    assert server.ask("GET", "images/split.csv") == first
    assert saccade("audit", "s3://images/split.csv").code == 0
    words = ("index", "s3://images/answered", "--out", "s3://images/manifest.parquet")
    assert saccade(*words).code == 0
    assert "36 unchanged, 0 new" in " ".join(saccade(*words).out.split())


def test_a_finished_run_is_uploaded_with_its_manifest_last(
    saccade: Saccade, server: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, order = outputs.upload, []

    def watched(file: Path, address: str) -> None:
        order.append(address)
        real(file, address)

    monkeypatch.setattr(outputs, "upload", watched)
    words = ("train", photos, "--out", "s3://images/runs/one", *SMALL, "--no-export.onnx")
    answer = saccade(*words)
    assert answer.code == 0, answer.err
    assert order[-1] == "s3://images/runs/one/manifest.json"
    named = json.loads(server.ask("GET", "images/runs/one/manifest.json"))["files"]
    assert "bundle/weights.safetensors" in named
    (folder,) = Path("runs").glob("s3-images-runs-one-??????")
    for name in named:
        here = (folder / name).read_bytes()
        assert server.ask("GET", f"images/runs/one/{name}") == here, name
    assert not [address for address in order if "checkpoints" in address or "/.lock" in address]
    order.clear()
    resumed = saccade("train", "--resume", folder)
    assert resumed.code == 0, resumed.err
    assert order[-1] == "s3://images/runs/one/manifest.json"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("split", "{}", "--out", "s3://images/here.csv"), "lies on this disk"),
        (("audit", "{}", "--out", "s3://nowhere/audit"), "no bucket"),
        (("audit", "{}", "--out", "https://host/audit"), "HTTP takes no files"),
        (("audit", "{}", "--out", "s3://images"), "nothing in it"),
        (("predict", "model.onnx", "{}", "--sort-into", "s3://images/x"), "only --out may be an address"),
        (("search", "{}", "--out", "s3://images/x"), "writes into a folder"),
    ],
)
def test_what_cannot_be_uploaded_is_refused(
    saccade: Saccade, photos: Path, words: tuple[str, ...], said: str
) -> None:
    answer = saccade(*(word.format(photos) for word in words))
    assert answer.code == 2
    assert said in answer.err
    assert not Path("s3:").exists()


def test_a_large_manifest_in_a_bucket_is_divided_there(
    saccade: Saccade, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LARGE_ROWS", 30)
    words = ("--out", "s3://images/out/divided.parquet", "--group-pattern", r"_0(\d\d)")
    assert saccade("index", "s3://images/answered", "--out", "s3://images/out/listed.parquet").code == 0
    answer = saccade("split", "s3://images/out/listed.parquet", *words)
    assert (answer.code, "no group or ETag with size is in two parts" in answer.out) == (0, True), answer.err
    there = load_source("s3://images/out/divided.parquet")
    assert (str(there.root), there.given_parts) == ("s3:/images/answered", ("train", "validation", "test"))
    again = saccade("split", "s3://images/out/listed.parquet", *words)
    assert "36 images kept the part they had" in again.out
    assert saccade("index", photos, "--out", "m.parquet").code == 0
    here = saccade("split", "m.parquet", *words)
    assert (here.code, "names images on this disk" in here.err) == (2, True)
