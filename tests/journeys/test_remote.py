"""Data in a bucket: moto's S3 server on this machine, and what the commands make of what lies there."""

from __future__ import annotations

import csv
import json
import tarfile
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from saccade.audit import scan
from saccade.sources import load_source, remote

pytestmark = pytest.mark.usefixtures("let_in")

Saccade = Callable[..., Any]
KEY, SECRET = "AKIATHISISATESTKEY00", "a-secret/of+the+test"
HEAD = ("--image-size", "32", "--batch-size", "16", "--method", "head")


@pytest.fixture(scope="module")
def photos(server: Any, tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    """60 photos in a folder, and the same ones below s3://images/photos."""
    folder = photo_writer(tmp_path_factory.mktemp("data") / "photos", images=20)
    (folder / "disc/Thumbs.db").write_bytes(b"x")
    (folder / "bar/notes.doc").write_bytes(b"x")
    server.put(folder, "photos")
    return folder


@pytest.fixture
def flags(tiny_weights: Path) -> Sequence[str]:
    return ("--backbone", "test_efficientnet", "--weights", str(tiny_weights), *HEAD)


def files_with(words: Sequence[str], folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in found if any(word.encode() in path.read_bytes() for word in words)]


def test_audit_and_split_are_those_of_the_folder(saccade: Saccade, photos: Path, tmp_path: Path) -> None:
    for name, data in (("here", photos), ("there", "s3://images/photos")):
        assert saccade("audit", data, "--out", tmp_path / name).code == 1  # notes.doc is not used
        assert saccade("split", data, "--out", tmp_path / f"{name}.csv").code == 0
    audits = [json.loads((tmp_path / name / "audit.json").read_text()) for name in ("here", "there")]
    assert audits[0] == audits[1]
    here, there = (
        [*csv.reader((tmp_path / f"{name}.csv").read_text("utf-8").splitlines())]
        for name in ("here", "there")
    )
    assert len(here) == 61
    named = [["s3://images/photos/" + "/".join(path.split("/")[-2:]), *rest] for path, *rest in here[1:]]
    assert there[1:] == named
    again = saccade("split", "s3://images/photos", "--out", tmp_path / "there.csv")
    assert "60 images kept the part they had" in again.out


def test_training_is_that_of_the_folder_and_no_secret_is_kept(
    saccade: Saccade, photos: Path, flags: Sequence[str], tmp_path: Path
) -> None:
    said = [
        saccade("train", data, "--out", tmp_path / name, *flags)
        for name, data in (
            ("here", photos),
            ("there", "s3://images/photos/"),
        )
    ]
    assert [answer.code for answer in said] == [0, 0], said[1].err
    for file in ("dataset.csv", "bundle/weights.safetensors", "predictions/test.csv", "metrics/test.json"):
        assert (tmp_path / "there" / file).read_bytes() == (tmp_path / "here" / file).read_bytes(), file
    stored = json.loads((tmp_path / "there/environment.json").read_text())
    assert (stored["data"], stored["root"]) == ("s3://images/photos", "s3://images/photos")
    assert files_with([KEY, SECRET], tmp_path) == []
    assert KEY not in said[1].out + said[1].err
    measured = saccade("evaluate", tmp_path / "there", "s3://images/photos", "--name", "again")
    assert measured.code == 0, measured.err
    assert saccade("train", "s3://images/photos", "--out", tmp_path / "there", *flags).code == 0


@pytest.mark.slow
def test_processes_that_load_images_give_way_to_threads(
    saccade: Saccade, photos: Path, tmp_path: Path
) -> None:
    small = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--train.workers", "2")
    words = ("train", "s3://images/photos", "--out", tmp_path / "run", *small, "--no-export.onnx")
    answer = saccade(*words, "--no-train.cache_images")
    assert answer.code == 0, answer.err


def test_a_deleted_object_is_set_aside_by_name(
    saccade: Saccade, server: Any, photos: Path, tmp_path: Path
) -> None:
    server.put(photos, "fewer")
    assert saccade("split", "s3://images/fewer", "--out", tmp_path / "split.csv").code == 0
    server.ask("DELETE", "images/fewer/disc/disc_003.png")
    answer = saccade("audit", tmp_path / "split.csv")
    assert answer.code == 1
    assert "s3://images/fewer/disc/disc_003.png: no longer there" in " ".join(answer.out.split())


def test_archives_shards_and_lists_are_those_of_the_folder(
    server: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    packed = tmp_path / "packed"
    (packed / "shards").mkdir(parents=True)
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    with tarfile.open(packed / "photos.tar", "w") as archive:
        archive.add(photos, "photos")
    for number in range(2):
        with tarfile.open(packed / f"shards/train-00{number}.tar", "w") as shard:
            for name in names[number::2]:
                (tmp_path / "label").write_text(name.partition("/")[0])
                shard.add(photos / name, f"{name.replace('/', '-')}")
                shard.add(tmp_path / "label", f"{name.replace('/', '-').removesuffix('.png')}.cls")
    server.put(packed, "packed")
    server.ask(
        "PUT",
        "images/list.csv",
        "".join(["path,label\n", *(f"photos/{n},{n[:3]}\n" for n in names)]).encode(),
    )
    rows = "".join(f"s3://images/photos/{name},{name[:3]}\n" for name in names)
    (tmp_path / "addresses.csv").write_text(f"path,label\n{rows}")
    pairs = (
        ("photos.tar", packed / "photos.tar"),
        ("shards", packed / "shards"),
        ("shards/train-{000..001}.tar", packed / "shards"),
    )
    for there, here in pairs:
        ours, theirs = load_source(f"s3://images/packed/{there}"), load_source(here)
        assert ours.records == theirs.records
        assert len(ours.records) == 60
        first = ours.records[0].path
        assert ours.storage.read(first) == theirs.storage.read(first)
    for place in (tmp_path / "addresses.csv", "s3://images/list.csv"):
        listed = load_source(place)
        assert len(listed.records) == 60
        assert listed.storage.read(listed.records[0].path) == (photos / names[0]).read_bytes()
    asked = []
    monkeypatch.setattr(remote, "_copy", lambda *given: asked.append(given))
    load_source("s3://images/packed/photos.tar")
    assert asked == []  # copied once


def test_wrong_credentials_are_said_without_what_they_are(
    saccade_process: Saccade, server: Any, photos: Path, tmp_path: Path
) -> None:
    server.ask("POST", "moto-api/reset-auth", b"0")
    try:
        answer = saccade_process("audit", "s3://images/photos", "--out", tmp_path / "audit")
    finally:
        server.ask("POST", "moto-api/reset-auth", b"inf")
    assert answer.code == 2
    assert "access refused" in answer.err
    assert "AWS_SECRET_ACCESS_KEY" in answer.err
    assert SECRET not in answer.out + answer.err
    assert KEY not in answer.out + answer.err


def test_what_is_not_there_is_named(saccade: Saccade, photos: Path) -> None:
    assert "no bucket" in saccade("audit", "s3://nowhere/photos").err
    assert "no objects below" in saccade("audit", "s3://images/nothing").err


class Locked(BaseHTTPRequestHandler):
    """One archive behind a password and a token."""

    archive: bytes

    def do_GET(self) -> None:
        let_in = self.headers.get("Authorization") == "Basic bWU6bXlzdGVyeQ=="  # me:mystery
        right = let_in and self.path == "/data/photos.tar?token=hush"
        self.send_response(200 if right else 401)
        self.send_header("Content-Length", str(len(self.archive) if right else 0))
        self.send_header("Last-Modified", "Mon, 05 Jan 2026 10:00:00 GMT")
        self.end_headers()
        self.wfile.write(self.archive if right else b"")

    def log_message(self, *words: object) -> None:
        """Nothing is said."""


def test_an_archive_behind_a_password(
    saccade: Saccade, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_ADDRESS_SECRETS", "{}")
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(photos, "photos")
    Locked.archive = (tmp_path / "photos.tar").read_bytes()
    web = ThreadingHTTPServer(("127.0.0.1", 0), Locked)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    host, path = f"127.0.0.1:{web.server_port}", "data/photos.tar"
    refused = saccade("audit", f"http://{host}/{path}")
    assert refused.code == 2
    assert "access refused (status 401)" in refused.err
    small = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--no-export.onnx")
    address = f"http://me:mystery@{host}/{path}?token=hush"
    answer = saccade("train", address, "--out", tmp_path / "run", *small)
    web.shutdown()
    web.server_close()
    assert answer.code == 0, answer.err
    stored = json.loads((tmp_path / "run/environment.json").read_text())
    assert stored["data"] == stored["root"] == f"http://{host}/{path}"
    assert files_with(["mystery", "hush", "bXlzdGVyeQ"], tmp_path / "run") == []
    assert "mystery" not in answer.out + answer.err


def test_a_manifest_of_a_bucket_trains_like_the_bucket(
    saccade: Saccade, server: Any, photos: Path, tmp_path: Path
) -> None:
    server.put(photos, "grown")
    out = tmp_path / "manifest.parquet"
    first = saccade("index", "s3://images/grown", "--out", out, "--hash")
    assert "60 images of s3://images/grown in 3 classes" in first.out
    assert "60 images read" in first.out
    server.ask("PUT", "images/grown/bar/new.png", (photos / "bar/bar_000.png").read_bytes() + b"x")
    second = " ".join(saccade("index", "s3://images/grown", "--out", out, "--hash").out.split())
    assert "60 unchanged, 1 new, 0 changed, 0 gone" in second
    assert "1 image read" in second
    ours, theirs = load_source(out), load_source("s3://images/grown")
    assert ours.records == theirs.records
    assert ours.storage == theirs.storage
    assert ours.stamps == theirs.stamps


def test_a_second_audit_reads_what_has_changed(
    saccade: Saccade, server: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FRESH_NS", 0)
    server.put(photos, "twice")
    assert saccade("audit", "s3://images/twice").code == 1
    server.ask("PUT", "images/twice/bar/bar_003.png", (photos / "bar/bar_004.png").read_bytes())
    read, real = [], remote.RemoteStorage.read

    def watched(storage: remote.RemoteStorage, path: str) -> bytes:
        read.append(path)
        return real(storage, path)

    monkeypatch.setattr(remote.RemoteStorage, "read", watched)
    again = saccade("audit", "s3://images/twice")
    assert again.code == 1
    assert read == ["bar/bar_003.png"]
    assert "bar/bar_004.png" in again.out  # the same as bar_003 by now
