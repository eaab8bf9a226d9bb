from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from saccade.caches import pixels as pixel_cache
from saccade.caches.pixels import PixelCache
from saccade.caches.store import entry_key

BOUND = 10**7


def image(number: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def key(number: int) -> bytes:
    return entry_key(f"{number:064x}", "made by a test")


def test_what_was_put_comes_back_here_and_in_another_process(tmp_path):
    cache = PixelCache(tmp_path, BOUND)
    assert cache.get(key(0)) is None
    for number in range(5):
        assert cache.put(key(number), image(number, 10 + number))
    assert all(np.array_equal(cache.get(key(n)), image(n, 10 + n)) for n in range(5))
    later = pickle.loads(pickle.dumps(cache))
    assert all(np.array_equal(later.get(key(n)), image(n, 10 + n)) for n in range(5))
    assert later.get(key(5)) is None


def test_keys_tell_files_and_ways_apart():
    assert len({entry_key("a", "x"), entry_key("b", "x"), entry_key("a", "y")}) == 3


def test_an_image_is_mapped_not_copied(tmp_path):
    cache = PixelCache(tmp_path, BOUND)
    cache.put(key(0), image(0))
    assert np.shares_memory(cache.get(key(0)), cache.get(key(0)))
    cache.get(key(0))[:] = 0  # torch wants writable memory; the file must not change by it
    assert np.array_equal(PixelCache(tmp_path, BOUND).get(key(0)), image(0))


def test_what_another_process_adds_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_cache, "REFRESH_SECONDS", 0.0)
    first, second = PixelCache(tmp_path, BOUND), PixelCache(tmp_path, BOUND)
    assert first.get(key(0)) is None
    second.put(key(0), image(0))
    assert np.array_equal(first.get(key(0)), image(0))
    second.put(key(1), image(1))
    assert np.array_equal(first.get(key(1)), image(1))


def spoil(path: Path, change) -> None:
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data))


def flipped(data: bytearray) -> bytes:
    data[len(data) // 2] ^= 1
    return bytes(data)


@pytest.mark.parametrize("change", [flipped, lambda data: bytes(data[:-1]), lambda data: b""])
@pytest.mark.parametrize("which", ["*.pixels", "*.index"])
def test_damage_is_never_read_as_an_image(tmp_path, which, change):
    PixelCache(tmp_path, BOUND).put(key(0), image(0))
    (file,) = tmp_path.glob(which)
    spoil(file, change)
    cache = PixelCache(tmp_path, BOUND)
    assert cache.get(key(0)) is None
    assert cache.put(key(0), image(0))
    assert np.array_equal(PixelCache(tmp_path, BOUND).get(key(0)), image(0))


WRITER = """
import sys, numpy as np
from pathlib import Path
from saccade.caches.pixels import PixelCache
from saccade.caches.store import entry_key
first, count = int(sys.argv[2]), int(sys.argv[3])
cache = PixelCache(Path(sys.argv[1]), 10**8)
for number in range(first, first + count):
    pixels = np.random.default_rng(number).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    assert cache.put(entry_key(f"{number:064x}", "made by a test"), pixels)
    print(number, flush=True)
"""


def writer(folder: Path, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_at_once_and_one_is_killed(tmp_path):
    killed, finished = writer(tmp_path, 0, 10_000), writer(tmp_path, 50, 100)  # 50 to 149 by both
    said = [int(killed.stdout.readline()) for _ in range(60)]
    killed.send_signal(signal.SIGKILL)
    said += [int(line) for line in killed.stdout.read().split() if line.isdecimal()]
    assert finished.wait(60) == 0
    assert killed.wait(60) == -signal.SIGKILL
    cache = PixelCache(tmp_path, 10**8)
    promised = sorted({*said[:-1], *range(50, 150)})
    assert all(np.array_equal(cache.get(key(n)), image(n, 100, 150)) for n in promised)
    others = [cache.get(key(n)) for n in range(150, 400) if n not in promised]
    assert all(
        found is None or np.array_equal(found, image(n, 100, 150)) for n, found in enumerate(others, 150)
    )
    finished.stdout.close()
    killed.stdout.close()


def test_threads_share_one_cache(tmp_path):
    cache = PixelCache(tmp_path, BOUND, shard_bytes=20_000)
    threads = [
        threading.Thread(
            target=lambda some: [cache.put(key(n), image(n)) for n in some], args=(range(i, 80, 4),)
        )
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.glob("*.pixels"))) > 5
    later = PixelCache(tmp_path, BOUND)
    assert all(np.array_equal(later.get(key(n)), image(n)) for n in range(80))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.pixels"))


def test_the_bound_holds_and_the_longest_unused_go_first(tmp_path):
    old = PixelCache(tmp_path, 100_000, shard_bytes=12_000)
    for number in range(40):  # 1,800 bytes each
        assert old.put(key(number), image(number))
    long_ago = time.time() - 10_000
    for path in tmp_path.glob("*.pixels"):
        os.utime(path, (long_ago, long_ago))
    second = PixelCache(tmp_path, 100_000, shard_bytes=12_000)
    assert second.get(key(0)) is not None  # in use again
    for number in range(100, 130):
        assert second.put(key(number), image(number))
        assert size_of(tmp_path) <= 100_000
    later = PixelCache(tmp_path, 100_000)
    kept = [n for n in range(40) if later.get(key(n)) is not None]
    assert 0 in kept
    assert 0 < len(kept) < 40
    assert all(later.get(key(n)) is not None for n in range(100, 130))


def test_what_is_in_use_is_not_dropped_for_more(tmp_path):
    said: list[str] = []
    cache = PixelCache(tmp_path, 100_000, say=said.append)
    kept = [number for number in range(100) if cache.put(key(number), image(number))]
    assert 40 < len(kept) < 60
    assert kept == list(range(len(kept)))
    assert all(cache.get(key(number)) is not None for number in kept)
    assert size_of(tmp_path) <= 100_000
    assert len(said) == 1
    assert "not kept" in said[0]
    assert "--data.cache-gb" in said[0]


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    cache = PixelCache(tmp_path / "file" / "pixels", BOUND, say=said.append)
    assert cache.get(key(0)) is None
    assert not cache.put(key(0), image(0))
    assert not cache.put(key(1), image(1))
    assert len(said) == 1
    assert "file" in said[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_said_once_and_what_is_there_stays(tmp_path):
    said: list[str] = []
    cache = PixelCache(tmp_path, BOUND, say=said.append)
    cache.put(key(0), image(0))
    cache._writer.pixels.close()
    cache._writer.pixels = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    assert not cache.put(key(1), image(1))
    assert not cache.put(key(2), image(2))
    assert len(said) == 1
    assert "No space left" in said[0]
    assert np.array_equal(cache.get(key(0)), image(0))
    assert cache.get(key(1)) is None
