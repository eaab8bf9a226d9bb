"""One bound for the cache's folder: what was used longest ago goes first, what is in use stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from saccade.caches import bound
from saccade.caches.pixels import PixelCache
from saccade.caches.store import entry_key
from saccade.errors import RecipeError

HOLD = "import sys, pathlib, time; from saccade.caches.bound import hold; hold(pathlib.Path(sys.argv[1])); \
print('held', flush=True); time.sleep(60)"
FILL = """
import os, sys
from pathlib import Path
from saccade.caches.bound import room_for
for number in range(40):
    if room_for(1000):
        path = Path(os.environ["SACCADE_CACHE"], f"{sys.argv[1]}-{number}")
        path.write_bytes(b"x" * 1000)
        os.utime(path, (number, number))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that may hold 1,000 bytes."""
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    monkeypatch.setenv("SACCADE_CACHE_GB", "1e-6")
    return tmp_path


def put(path: Path, size: int, *, hours_ago: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - 3600 * hours_ago
    os.utime(path, (then, then))
    return path


def test_the_longest_unused_go_first_and_together(cache: Path) -> None:
    new = put(cache / "remote/1/new.tar", 300, hours_ago=1)
    old = [put(cache / f"pixels/a.{end}", 200, hours_ago=5) for end in ("index", "pixels")]
    older = [put(cache / f"remote/1/old.tar{end}", 100, hours_ago=9) for end in ("", ".state")]
    assert bound.usage(cache).total == 900
    assert bound.room_for(100)
    assert all(path.exists() for path in (new, *old, *older))
    assert bound.room_for(250)
    assert [path.exists() for path in (new, *old, *older)] == [True, True, True, False, False]
    assert bound.room_for(400)
    assert [path.exists() for path in (new, *old)] == [True, False, False]


def test_nothing_is_dropped_where_it_would_not_do(cache: Path) -> None:
    kept = [put(cache / name, 300, hours_ago=9) for name in ("scan.sqlite", "outputs/1/a.csv", "b.tar")]
    assert not bound.room_for(701)
    assert all(path.exists() for path in kept)


def test_what_was_used_lately_stays(cache: Path) -> None:
    lately = put(cache / "lately.safetensors", 600, hours_ago=0.1)
    assert not bound.room_for(500)
    assert lately.exists()


def test_what_a_living_process_holds_stays(cache: Path) -> None:
    held = put(cache / "remote/1/a b.tar", 600, hours_ago=1)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(held)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "held\n"
    put(held, 600, hours_ago=1)  # as if it had been read long ago
    assert not bound.room_for(500)
    assert held.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert bound.room_for(500)
    assert not held.exists()
    assert not list((cache / "in_use").iterdir())


def test_the_note_of_an_archive_without_a_copy_is_held_with_it(cache: Path) -> None:
    note = put(cache / "remote/1/large.tar.state", 100, hours_ago=9)
    other = put(cache / "pixels/a.pixels", 600, hours_ago=5)
    bound.hold(cache / "remote/1/large.tar")
    os.utime(note, (1, 1))  # the copy is held, whatever its note's age
    assert bound.room_for(800)
    assert [note.exists(), other.exists()] == [True, False]


def test_processes_fill_a_cache_together(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_CACHE_GB", "20e-6")
    started = [subprocess.Popen([sys.executable, "-c", FILL, str(number)]) for number in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert 15_000 <= bound.usage(cache).total <= 23_000  # each may write what it was promised


def test_the_usual_bound_and_one_that_is_no_number(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_CACHE_GB", "lots")
    with pytest.raises(RecipeError, match="SACCADE_CACHE_GB is no number of gigabytes: lots"):
        bound.room_for(1)
    monkeypatch.delenv("SACCADE_CACHE_GB")
    usage = type("Usage", (), {"free": 10**10, "total": 10**11})
    monkeypatch.setattr(bound.shutil, "disk_usage", lambda place: usage)
    assert bound.bound_bytes(tmp_path / "not there yet", 2 * 10**9) == 6 * 10**9
    usage.free = 10**12
    assert bound.bound_bytes(tmp_path, 0) == 50 * 10**9


def test_decoded_images_are_not_kept_where_the_cache_has_no_room(tmp_path: Path) -> None:
    said: list[str] = []
    cache = PixelCache(tmp_path, 10**7, say=said.append, room=lambda size: False)
    for number in range(3):
        assert not cache.put(entry_key(str(number), ""), np.zeros((4, 4, 3), np.uint8))
    assert len(said) == 1
    assert "SACCADE_CACHE_GB" in said[0]
