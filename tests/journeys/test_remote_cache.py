"""Copies of archives in the cache: within its bound, and done without where it has no room."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.errors import SourceError
from saccade.sources import load_source, remote

pytestmark = pytest.mark.usefixtures("let_in")
Saccade = Callable[..., Any]


@pytest.fixture(scope="module")
def packed(server: Any, tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    """36 photos in a tar and a zip, here and below s3://images/packed2."""
    root = tmp_path_factory.mktemp("data")
    photos, folder = photo_writer(root / "photos"), root / "packed"
    folder.mkdir()
    for name in ("a.tar", "b.tar"):
        with tarfile.open(folder / name, "w") as archive:
            archive.add(photos, "photos")
    with zipfile.ZipFile(folder / "c.zip", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, path.relative_to(photos))
    server.put(folder, "packed2")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    remote._say_no_room.cache_clear()
    return tmp_path / "cache"


def test_archives_are_read_where_they_lie_when_the_cache_has_no_room(
    saccade: Saccade, packed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_CACHE_GB", "0")

    def read_all() -> None:
        for name in ("a.tar", "c.zip"):
            there, here = load_source(f"s3://images/packed2/{name}"), load_source(packed / name)
            assert there.records == here.records
            assert len(there.records) == 36
            for record in there.records:
                assert there.storage.read(record.path) == here.storage.read(record.path)
        assert saccade("audit", "s3://images/packed2/a.tar", "--no-cache").code == 0

    with pytest.warns(UserWarning, match="has no room for more") as said:
        read_all()
    assert len(said) == 1
    assert not [path for path in cache.rglob("*") if path.suffix in (".tar", ".zip")]


def test_an_archive_that_changes_while_it_is_read_is_named(
    packed: Path, server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SACCADE_CACHE_GB", "0")
    (tmp_path / "changing").mkdir()
    archive = tmp_path / "changing" / "d.tar"
    archive.write_bytes((packed / "a.tar").read_bytes())
    server.put(tmp_path / "changing", "packed3")
    with pytest.warns(UserWarning, match="has no room"):
        there = load_source("s3://images/packed3/d.tar")
    assert there.storage.read(there.records[0].path)
    archive.write_bytes(archive.read_bytes()[::-1])
    server.put(tmp_path / "changing", "packed3")
    with pytest.raises(SourceError, match=r"d\.tar: has changed while it was read"):
        there.storage.read(there.records[-1].path)


def test_the_copy_used_longest_ago_goes_first(
    saccade_process: Saccade, packed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (packed / "a.tar").stat().st_size
    monkeypatch.setenv("SACCADE_CACHE_GB", str(1.8 * size / 1e9))
    for name, there in (("a.tar", ["a.tar"]), ("b.tar", ["b.tar"])):
        answer = saccade_process("audit", f"s3://images/packed2/{name}", "--no-cache")
        assert (answer.code, answer.err) == (0, "")
        assert [path.name for path in cache.rglob("*.tar")] == there
        for path in cache.rglob("*.*"):
            os.utime(path, (1, 1))
