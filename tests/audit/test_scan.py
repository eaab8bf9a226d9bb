"""A scan sees every file once, survives all of them, and remembers what it saw."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.audit.scan import Scan, ScanTask, examine_chunk, scan
from saccade.caches.scans import ScanCache
from saccade.images.decoder import decode, pixel_sha256
from saccade.records import Dataset, ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.workers import map_chunks


def folder_dataset(root: Path) -> Dataset:
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    records = tuple(ImageRecord(path, path.split("/")[0]) for path in paths)
    return Dataset(root, records, tuple(sorted({r.label for r in records})), FolderStorage(root))


def fingerprint(result: Scan) -> tuple[object, ...]:
    """Everything a scan says, comparable; `pixel_sha256` is left out by the record's own equality."""
    dataset, measurements = result
    hashes = tuple(record.pixel_sha256 for record in dataset.records)
    descriptions = tuple(array.tobytes() for array in measurements.descriptions.arrays().values())
    texts = (measurements.formats, measurements.cameras, measurements.compressions)
    return dataset.records, hashes, measurements.values.tobytes(), descriptions, texts


def age(root: Path) -> None:
    """Make files look as if they were written long ago; their change times still tell the truth."""
    for path in root.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files just written count as settled, so that their stamps are trusted at once."""
    monkeypatch.setattr("saccade.audit.scan.FRESH_NS", 0)


def test_records_hold_what_an_independent_decode_says(make_photos: Callable[..., Path]) -> None:
    root = make_photos(suffix=".jpg")
    dataset, measurements = scan(folder_dataset(root))
    assert len(dataset.records) == len(measurements) == 36
    for record in dataset.records:
        pixels = decode((root / record.path).read_bytes()).pixels
        assert record.pixel_sha256 == pixel_sha256(pixels)
        assert (record.width, record.height) == (pixels.shape[1], pixels.shape[0])
    assert set(measurements.formats) == {"JPEG"}
    sizes = [(root / record.path).stat().st_size for record in dataset.records]
    assert measurements.values["file_bytes"].tolist() == sizes


def test_no_number_of_workers_changes_the_result(make_photos: Callable[..., Path]) -> None:
    root = make_photos(images=30)
    (root / "bar" / "bad.jpg").write_bytes(b"\xff\xd8\xff no picture")
    dataset = folder_dataset(root)
    assert fingerprint(scan(dataset, workers=1)) == fingerprint(scan(dataset, workers=2))


def test_one_bad_file_is_set_aside_and_the_rest_goes_on(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    (root / "bar" / "empty.png").write_bytes(b"")
    dataset, measurements = scan(folder_dataset(root))
    (bad,) = [record for record in dataset.records if not record.used]
    assert bad.path == "bar/empty.png"
    assert "Left out" in bad.note
    row = dataset.records.index(bad)
    assert np.isnan(measurements.values["brightness"][row])
    assert np.isfinite(np.delete(measurements.values["brightness"], row)).all()


def test_a_file_that_vanishes_is_named(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    dataset = folder_dataset(root)
    (root / "bar" / "bar_000.png").unlink()
    (gone,) = [record for record in scan(dataset).dataset.records if not record.used]
    assert gone.path == "bar/bar_000.png"
    assert "no longer there" in gone.note


def test_a_file_that_changes_while_it_is_read_is_named(make_photos: Callable[..., Path]) -> None:
    class Touching(FolderStorage):
        def read(self, path: str) -> bytes:
            data = FolderStorage.read(self, path)
            (self.root / path).write_bytes(data + b"more")
            return data

    root = make_photos()
    chunk = examine_chunk(ScanTask(Touching(root), scan.__kwdefaults__["limits"]), ["bar/bar_000.png"])
    assert "changed while it was read" in chunk.examined[0].refusal


def test_extreme_shapes_are_set_aside(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a").mkdir()
    Image.new("RGB", (2100, 100)).save(tmp_path / "a" / "strip.png")
    Image.new("RGB", (2000, 100)).save(tmp_path / "a" / "long.png")
    by_path = {record.path: record for record in scan(folder_dataset(tmp_path)).dataset.records}
    assert not by_path["a/strip.png"].used
    assert "2,100 x 100" in by_path["a/strip.png"].note
    assert by_path["a/long.png"].used


def test_progress_counts_every_file(make_photos: Callable[..., Path]) -> None:
    seen: list[tuple[int, int]] = []
    scan(
        folder_dataset(make_photos(images=40)),
        progress=lambda done, total, detail="": seen.append((done, total)),
    )
    assert seen == [(32, 120), (64, 120), (96, 120), (120, 120)]


# -- the cache ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("settled")
def test_a_second_scan_reads_no_file_and_says_the_same(
    make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_photos(suffix=".jpg")
    (root / "bar" / "bad.jpg").write_bytes(b"no picture")
    dataset = folder_dataset(root)
    first = scan(dataset, cache=tmp_path / "cache")
    monkeypatch.setattr(FolderStorage, "read", lambda self, path: pytest.fail(f"read {path} again"))
    assert fingerprint(scan(dataset, cache=tmp_path / "cache")) == fingerprint(first)


@pytest.mark.usefixtures("settled")
def test_only_new_files_are_decoded(
    make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_photos()
    scan(folder_dataset(root), cache=tmp_path / "cache")
    (root / "bar" / "new.png").write_bytes((root / "bar" / "bar_000.png").read_bytes() + b"tail")
    decoded: list[str] = []

    def watched(data: bytes, *, limits: object, name: str) -> object:
        decoded.append(name)
        return decode(data, name=name)

    monkeypatch.setattr("saccade.audit.scan.decode", watched)
    scan(folder_dataset(root), cache=tmp_path / "cache")
    assert decoded == ["bar/new.png"]


@pytest.mark.usefixtures("settled")
def test_a_copied_folder_is_recognised_by_content(
    make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    root = make_photos()
    first = scan(folder_dataset(root), cache=tmp_path / "cache")
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.setattr("saccade.audit.scan.decode", lambda *_, **__: pytest.fail("decoded again"))
    assert fingerprint(scan(folder_dataset(tmp_path / "copy"), cache=tmp_path / "cache")) == fingerprint(
        first
    )


@pytest.mark.usefixtures("settled")
def test_verify_finds_a_changed_pixel_behind_an_unchanged_stamp(
    make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    root = make_photos(suffix=".bmp")
    changed = root / "bar" / "bar_000.bmp"
    # A clock set back or a copied disk image can restore every time; here the change time is left out.
    monkeypatch.setattr(
        "saccade.audit.scan.stamp_of", lambda storage, path: (os.stat(storage.root / path).st_size, 1, 1)
    )
    before = scan(folder_dataset(root), cache=tmp_path / "cache").dataset.records[0]
    image = Image.open(changed)
    image.putpixel((0, 0), (1, 2, 3))
    image.save(changed)
    trusting = scan(folder_dataset(root), cache=tmp_path / "cache").dataset.records[0]
    verified = scan(folder_dataset(root), cache=tmp_path / "cache", verify=True).dataset.records[0]
    assert before.path == "bar/bar_000.bmp"
    assert trusting.sha256 == before.sha256
    assert verified.sha256 != before.sha256
    assert verified.pixel_sha256 != before.pixel_sha256


@pytest.mark.usefixtures("settled")
def test_size_and_modification_time_alone_are_not_trusted(
    make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    from PIL import Image

    root = make_photos(suffix=".bmp")
    age(root)
    before = scan(folder_dataset(root), cache=tmp_path / "cache").dataset.records[0]
    time.sleep(0.02)
    image = Image.open(root / before.path)
    image.putpixel((0, 0), (1, 2, 3))
    image.save(root / before.path)
    age(root)
    assert scan(folder_dataset(root), cache=tmp_path / "cache").dataset.records[0].sha256 != before.sha256


def test_a_file_just_written_is_read_again(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    root = make_photos()
    scan(folder_dataset(root), cache=tmp_path / "cache")
    with ScanCache(tmp_path / "cache") as cache:
        place = os.fsencode(root / "bar" / "bar_000.png")
        status = os.stat(place)
        assert not cache.known_hashes({place: (status.st_size, status.st_mtime_ns, status.st_ctime_ns)})


@pytest.mark.parametrize("damage", [b"", b"not a database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_cache_is_remade(make_photos: Callable[..., Path], tmp_path: Path, damage: bytes) -> None:
    root, folder = make_photos(), tmp_path / "cache"
    expected = fingerprint(scan(folder_dataset(root)))
    folder.mkdir()
    (folder / "scan.sqlite").write_bytes(damage)
    assert fingerprint(scan(folder_dataset(root), cache=folder)) == expected
    with ScanCache(folder) as cache:
        cache.add({b"k": b"value"}, {})
        assert cache.payload(b"k") == b"value"


def damaged(data: bytes, kind: str, rng: random.Random) -> bytes:
    """A cache file as a bad disk, a full one or a lost write would leave it."""
    changed = bytearray(data)
    if kind == "cut":
        return data[: rng.randrange(len(data))]
    if kind == "overwritten":
        start = rng.randrange(len(data) - 512)
        changed[start : start + 512] = rng.randbytes(512)
    elif kind == "a path":  # a row of the table no longer is the one its index stands for
        changed[data.rindex(b"photos", 0, rng.randrange(len(data) // 2, len(data)))] ^= 1 << rng.randrange(7)
    else:
        for _ in range(50):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("kind", ["cut", "overwritten", "a path", "flipped"])
@pytest.mark.usefixtures("settled")
def test_no_damage_to_the_cache_stops_a_scan(
    make_photos: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    root, folder = make_photos(images=5), tmp_path / "cache"
    expected = fingerprint(scan(folder_dataset(root), cache=folder))
    whole, rng = (folder / "scan.sqlite").read_bytes(), random.Random(kind)
    for _ in range(20):
        (folder / "scan.sqlite").write_bytes(damaged(whole, kind, rng))
        for _ in range(2):
            assert fingerprint(scan(folder_dataset(root), cache=folder)) == expected
        with ScanCache(folder) as cache:
            cache.add({b"k": b"value"}, {})
        with ScanCache(folder) as cache:  # remade, where it was not whole
            assert cache.payload(b"k") == b"value"


def test_a_damaged_result_is_replaced(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 8
    for _ in range(2):
        with ScanCache(tmp_path) as cache:
            cache.add({b"k": payload}, {})
            assert cache.payload(b"k") == payload
        file = tmp_path / "scan.sqlite"
        file.write_bytes(file.read_bytes().replace(payload[:200], payload[:199] + b"?"))


def test_a_flipped_bit_in_the_cache_is_noticed(tmp_path: Path) -> None:
    payload = bytes(range(256)) * 40
    with ScanCache(tmp_path) as cache:
        cache.add({b"k": payload}, {})
    file = tmp_path / "scan.sqlite"
    data = bytearray(file.read_bytes())
    at = data.index(payload[:200])
    data[at + 100] ^= 1
    file.write_bytes(data)
    with ScanCache(tmp_path) as cache:
        assert cache.payload(b"k") is None


def test_the_cache_stays_within_its_bound(tmp_path: Path) -> None:
    with ScanCache(tmp_path, max_bytes=2_000_000) as cache:
        for i in range(80):
            cache.add({f"{i}-{j}".encode(): os.urandom(5000) for j in range(10)}, {})
        assert cache.payload(b"0-0") is None
        assert cache.payload(b"79-9") is not None
    assert (tmp_path / "scan.sqlite").stat().st_size < 2_500_000


def test_a_cache_that_cannot_be_written_is_gone_without(
    make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    root = make_photos()
    assert len(scan(folder_dataset(root), cache=tmp_path / "file" / "cache").dataset.used()) == 36


def test_another_limit_is_another_result(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    from saccade.images.decoder import Limits

    root = make_photos()
    scan(folder_dataset(root), cache=tmp_path / "cache")
    strict = scan(folder_dataset(root), cache=tmp_path / "cache", limits=Limits(max_pixels=100), verify=True)
    assert not strict.dataset.used()


# -- several processes -------------------------------------------------------------------------


def test_beside_other_work_processes_find_the_same(
    make_photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade.audit import scan as scanning

    data, started = folder_dataset(make_photos()), []
    plain = scan(data)

    def counted(*args: Any, **options: Any) -> Any:
        started.append(options["workers"])
        return map_chunks(*args, **options)

    monkeypatch.setattr(scanning, "map_chunks", counted)
    monkeypatch.setattr(scanning, "WORTH_IMAGES", len(data.records) + 1)
    scan(data, beside=True)
    assert started == []
    monkeypatch.setattr(scanning, "WORTH_IMAGES", 1)
    beside = scan(data, beside=True)
    assert len(started) == 1
    assert beside.dataset == plain.dataset
    assert beside.measurements.values.tobytes() == plain.measurements.values.tobytes()


def deadly_sum(numbers: Sequence[int]) -> int:
    """Stands for a decoder with a memory error: 13 kills the process."""
    if 13 in numbers:
        os._exit(3)
    return sum(numbers)


def test_a_crash_costs_one_item() -> None:
    chunks = [[1, 2], [12, 13], [14, 15]]
    results = map_chunks(deadly_sum, chunks, workers=1, on_crash=lambda number: -number)
    assert list(results) == [([1, 2], 3), ([12], 12), ([13], -13), ([14, 15], 29)]


def test_a_script_needs_no_main_guard(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys\n"
        "from saccade.audit.scan import scan\n"
        "from saccade.sources.storage import FolderStorage\n"
        "from saccade.records import Dataset, ImageRecord\n"
        "print('once')\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "paths = sorted(p.relative_to(root).as_posix() for p in root.rglob('*.png'))\n"
        "data = Dataset(root, tuple(ImageRecord(p, 'a') for p in paths), ('a',), FolderStorage(root))\n"
        "print(len(scan(data, workers=2).dataset.used()))\n"
    )
    root = make_photos(images=40)
    run = subprocess.run(
        [sys.executable, script, root], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.split() == ["once", "120"]


def test_every_dirty_file_is_used_or_refused_by_name(shared_data: Callable[[str], Path]) -> None:
    root = shared_data("data/dirty")
    dataset, measurements = scan(folder_dataset(root))
    assert len(dataset.records) > 800
    for record, brightness in zip(dataset.records, measurements.values["brightness"], strict=True):
        assert record.used == bool(np.isfinite(brightness)), record.path
        assert record.used == bool(record.pixel_sha256)
        assert record.used or "Left out" in record.note


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text(
        "import os, pathlib, time\n"
        "def wait(chunk):\n"
        "    pathlib.Path(chunk[0], str(os.getpid())).touch()\n"
        "    time.sleep(60)\n"
    )
    script = "import sys, helper; from saccade.workers import map_chunks; " + (
        "list(map_chunks(helper.wait, [[sys.argv[1]]] * 2, workers=2, on_crash=print))"
    )
    started = tmp_path / "started"
    started.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    parent = subprocess.Popen(
        [sys.executable, "-c", script, started], env=environment, stderr=subprocess.DEVNULL
    )
    assert eventually(lambda: len(os.listdir(started)) == 2)
    parent.kill()
    parent.wait()
    assert eventually(lambda: not any(alive(int(name)) for name in os.listdir(started)))


def eventually(holds: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it comes to hold in time."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def threads_of(numbers: Sequence[int]) -> list[tuple[str | None, int]]:
    """What a worker's linear algebra was given, once numpy is there, and how many threads it has."""
    from threadpoolctl import threadpool_info

    found = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return [(os.environ.get("OMP_NUM_THREADS"), max(found)) for _ in numbers]


def test_workers_compute_with_one_thread_and_this_process_keeps_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Libraries read it when they are loaded, and another thread may be loading one just now."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    changed: list[object] = []
    monkeypatch.setattr(os, "putenv", lambda *change: changed.append(change))
    results = list(map_chunks(threads_of, [[1], [2, 3]], workers=2, on_crash=lambda number: []))
    assert [result for _, result in results] == [[("1", 1)], [("1", 1)] * 2]
    assert not changed
