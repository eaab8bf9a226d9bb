"""Decode every image of a data set once and record hashes, size, format and measurements.

A bad file never stops a scan: it is set aside with the reason and a remedy. Several processes share the work
when that saves time; the number of processes does not change the results.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.audit.quality import (
    MEASURE_SIDE,
    MEASURING_VERSION,
    PIXEL_VALUES,
    Measurements,
    blank_values,
    measure_images,
    reduce_to_side,
)
from saccade.caches.scans import ScanCache, Stamp
from saccade.caches.store import decoded_by, entry_key, made_by
from saccade.errors import ImageError
from saccade.images.decoder import DEFAULT_LIMITS, Limits, decode, pixel_sha256
from saccade.images.rendering import as_rgb
from saccade.near_duplicates.descriptors import (
    DESCRIBING_VERSION,
    Descriptions,
    describe,
    describe_many,
    empty_descriptions,
    stack,
)
from saccade.near_duplicates.stored import let_go
from saccade.records import Dataset, ImageRecord, Storage
from saccade.sources.remote import RemoteStorage
from saccade.sources.storage import FolderStorage
from saccade.terminal import Progress, silent
from saccade.threads import available_cores
from saccade.workers import map_chunks

EXAMINING_VERSION = 1  # rises with every change of what is written down of a file, or of its layout
CHUNK_IMAGES = 32  # small enough that large photos show progress, enough to measure small ones together
LARGEST_CHUNK, CHUNK_SECONDS = 128, 0.5  # of the work that processes share
CHUNKS_AT_LEAST = 256  # where their size is chosen before anything is known of the images
ALONE_SECONDS = 1.0  # work this long before thinking about more processes
WORTH_SECONDS = 2.0  # start them when at least so much work for one process is left
WORTH_IMAGES = 300  # from here processes are worth starting where this one is busy
FRESH_NS = 2_000_000_000  # a file changed so lately may change again without its stamp changing


class Scan(NamedTuple):
    """A data set whose records are filled in, and what was measured on each image."""

    dataset: Dataset
    measurements: Measurements


class ScannedFile(NamedTuple):
    """What one file turned out to be; `refusal` is empty for an image that can be used."""

    sha256: str = ""
    pixel_sha256: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    note: str = ""
    refusal: str = ""
    camera: str = ""
    compression: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Results for a few files, row i for file i. `cached` marks those from the cache."""

    examined: list[ScannedFile]
    values: NDArray[Any]
    descriptions: Descriptions
    stamps: list[Stamp | None]
    cached: list[bool]


class Stamped(str):
    """A path that brings the stamp of its object along, also to another process."""

    stamp: Stamp

    @classmethod
    def of(cls, path: str, stamps: Mapping[str, Stamp]) -> str:
        """The path itself where there is no stamp for it."""
        if path not in stamps:
            return path
        stamped = cls(path)
        stamped.stamp = stamps[path]
        return stamped


@dataclass(frozen=True, slots=True)
class ScanTask:
    """What a worker must know besides the paths; crosses process boundaries."""

    storage: Storage
    limits: Limits
    cache_folder: Path | None = None
    trust_stamps: bool = True
    version: str = ""  # everything besides the file's bytes and extension that the results depend on
    warm: bool = True  # whether the cache held anything as the scan began; nothing is looked up if not


# Chunks of paths with their results, in order, computed in another way than by processes of this machine.
Share = Callable[[ScanTask, Sequence[str]], Iterator[tuple[Sequence[str], Chunk]]]


def scan(
    dataset: Dataset,
    *,
    limits: Limits = DEFAULT_LIMITS,
    workers: int | None = None,
    cache: Path | None = None,
    verify: bool = False,
    beside: bool = False,
    share: Share | None = None,
    progress: Progress = silent,
) -> Scan:
    """Every image decoded once: records get hashes, size, mode, notes; what cannot be used is set aside.

    `workers` processes share the work; None: as many as there are cores, once it is worth it. `cache` is
    a folder that keeps results by content hash. A file whose size and times are unchanged since the last
    scan is not read again, unless `verify` asks for it. `beside` says that this process is busy with other
    things: processes then share the work from the beginning. `share`: who does it instead.
    """
    if beside and workers is None and len(dataset.records) >= WORTH_IMAGES:
        workers = available_cores()
    task = ScanTask(dataset.storage, limits, cache, not verify, scan_version(limits) if cache else "")
    paths = [Stamped.of(record.path, dataset.stamps) for record in dataset.records]
    examined: list[ScannedFile] = []
    values, descriptions = blank_values(len(paths)), empty_descriptions(len(paths))
    share = share or partial(_computed_chunks, workers=workers, beside=beside)
    for chunk in _examined_chunks(task, paths, share):
        rows = slice(len(examined), len(examined) + len(chunk.examined))
        values[rows] = chunk.values
        descriptions.put(rows, chunk.descriptions)
        let_go(descriptions.thumbnails)
        examined += chunk.examined
        progress(len(examined), len(paths))
    records = [_filled(record, found) for record, found in zip(dataset.records, examined, strict=True)]
    measurements = Measurements(
        values=values,
        formats=tuple(found.format for found in examined),
        cameras=tuple(found.camera for found in examined),
        compressions=tuple(found.compression for found in examined),
        descriptions=descriptions,
    )
    return Scan(dataset.with_records(records), measurements)


def scan_version(limits: Limits) -> str:
    """What results depend on besides the files."""
    versions = {"examining": EXAMINING_VERSION, "measuring": MEASURING_VERSION}
    return made_by(**versions, describing=DESCRIBING_VERSION, decoded=decoded_by(limits))


def _examined_chunks(task: ScanTask, paths: Sequence[str], share: Share) -> Iterator[Chunk]:
    """Chunks of results in order; new ones are kept in the cache as they come."""
    if task.cache_folder is None:
        yield from (chunk for _, chunk in share(task, paths))
        return
    with ScanCache(task.cache_folder) as cache:
        task = replace(task, warm=cache.holds_results())
        for some, chunk in share(task, paths):
            _keep(cache, task, some, chunk)
            yield chunk


def _computed_chunks(
    task: ScanTask, paths: Sequence[str], workers: int | None, beside: bool
) -> Iterator[tuple[Sequence[str], Chunk]]:
    """Alone at first; shared between processes once what is left is worth starting them."""
    started = time.perf_counter()
    work = partial(examine_chunk, task)
    if beside and workers:
        size = min(LARGEST_CHUNK, max(CHUNK_IMAGES, len(paths) // CHUNKS_AT_LEAST))
        yield from map_chunks(work, _chunks(paths, size), workers=workers, on_crash=crashed)
        return
    done = 0
    while done < len(paths):
        some = paths[done : done + CHUNK_IMAGES]
        yield some, work(some)
        done += len(some)
        seconds = time.perf_counter() - started
        count = _worthwhile_workers(seconds, done, len(paths), workers)
        if count > 1:
            size = min(LARGEST_CHUNK, max(1, int(CHUNK_SECONDS * done / seconds)))
            yield from map_chunks(work, _chunks(paths[done:], size), workers=count, on_crash=crashed)
            return


def _worthwhile_workers(seconds: float, done: int, total: int, workers: int | None) -> int:
    """Number of processes to start once the first `done` of `total` files took `seconds`; 1 means none."""
    if workers is not None:
        return workers if done < total else 1
    left_seconds = seconds / done * (total - done)
    return available_cores() if seconds >= ALONE_SECONDS and left_seconds >= WORTH_SECONDS else 1


def crashed(path: str) -> Chunk:
    refusal = ImageError("the decoder crashed on it", "Re-export it to use it")
    chunk = empty_chunk(1)
    chunk.examined[0] = ScannedFile(refusal=str(refusal))
    return chunk


def empty_chunk(size: int) -> Chunk:
    nothing = ScannedFile()
    return Chunk(
        [nothing] * size, blank_values(size), empty_descriptions(size), [None] * size, [False] * size
    )


def examine_chunk(task: ScanTask, paths: Sequence[str]) -> Chunk:
    """Read, decode and measure a few files, or find their results in the cache."""
    chunk = empty_chunk(len(paths))
    if task.cache_folder is None or not task.warm:
        _examine(task, paths, chunk, None)
    else:
        with ScanCache(task.cache_folder) as cache:
            recall_by_stamp(cache, task, paths, chunk)
            _examine(task, paths, chunk, cache)
    return chunk


def _examine(task: ScanTask, paths: Sequence[str], chunk: Chunk, cache: ScanCache | None) -> None:
    """Fill in every row that is not from the cache yet."""
    storage = task.storage
    if isinstance(storage, RemoteStorage):
        storage = storage.ahead(path for row, path in enumerate(paths) if not chunk.cached[row])
    small: dict[int, NDArray[np.uint8]] = {}  # reduced at once, so that a chunk of large photos stays small
    whole: list[int] = []  # rows that needed no reducing
    for row, path in enumerate(paths):
        if chunk.cached[row]:
            continue
        try:
            data, chunk.stamps[row] = _read(storage, path)
            sha256 = hashlib.sha256(data)
            if cache and _recall(cache, _key(task, path, sha256.digest()), chunk, row):
                continue
            chunk.values["file_bytes"][row] = len(data)
            chunk.examined[row] = ScannedFile(sha256=sha256.hexdigest())
            pixels = _decode_into(chunk, row, data, path, task.limits)
            small[row] = reduce_to_side(pixels, MEASURE_SIDE)
            if small[row] is pixels:
                whole.append(row)
            else:
                chunk.descriptions.put(slice(row, row + 1), stack([describe(pixels)]))
        except ImageError as error:
            chunk.examined[row] = chunk.examined[row]._replace(refusal=str(error))
    chunk.descriptions.put(whole, describe_many([small[row] for row in whole]))
    measured = measure_images(list(small.values()))
    for name in PIXEL_VALUES:
        chunk.values[name][list(small)] = measured[name]


def _decode_into(chunk: Chunk, row: int, data: bytes, path: str, limits: Limits) -> NDArray[np.uint8]:
    """Write down what one file's bytes turn out to be; returns its pixels as they are looked at, in RGB."""
    decoded = decode(data, limits=limits, name=path)
    chunk.examined[row] = chunk.examined[row]._replace(
        pixel_sha256=pixel_sha256(decoded.pixels),
        width=decoded.width,
        height=decoded.height,
        mode=decoded.mode,
        format=decoded.format,
        note="; ".join(decoded.notes),
        camera=decoded.camera,
        compression=decoded.compression,
    )
    chunk.values["jpeg_quality"][row] = decoded.quality or np.nan
    chunk.values["gray_peak"][row] = decoded.gray_peak if decoded.gray_peak >= 0 else np.nan
    return as_rgb(decoded.pixels)


def _read(storage: Storage, path: str) -> tuple[bytes, Stamp | None]:
    """The file's bytes, and its stamp; raises ImageError when it changed while it was read."""
    before = stamp_of(storage, path)
    data = storage.read(path)
    if stamp_of(storage, path) != before:
        raise ImageError("the file changed while it was read", "Run again when nothing writes to it")
    return data, before


def _filled(record: ImageRecord, found: ScannedFile) -> ImageRecord:
    """The record with the results of the scan, its notes after those of the source."""
    if not record.used:  # a list that names a missing file says it with the line
        return record
    record = replace(
        record,
        sha256=found.sha256,
        pixel_sha256=found.pixel_sha256,
        width=found.width,
        height=found.height,
        mode=found.mode,
        note="; ".join(note for note in (record.note, found.note) if note),
    )
    return record.set_aside(found.refusal) if found.refusal else record


def _chunks(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (paths[start : start + size] for start in range(0, len(paths), size))


# -- the cache ---------------------------------------------------------------------------------


def recall_by_stamp(cache: ScanCache, task: ScanTask, paths: Sequence[str], chunk: Chunk) -> None:
    """Fill in the files that look as they did at the last scan, without reading them."""
    if not task.trust_stamps:
        return
    stamps = {}
    for row, path in enumerate(paths):
        if stamp := stamp_of(task.storage, path):
            chunk.stamps[row] = stamp
            stamps[place_of(task.storage, path)] = stamp
    hashes = cache.known_hashes(stamps)
    for row, path in enumerate(paths):
        sha256 = hashes.get(place_of(task.storage, path))
        if sha256 and _recall(cache, _key(task, path, sha256), chunk, row):
            chunk.stamps[row] = None  # kept already


def _recall(cache: ScanCache, key: bytes, chunk: Chunk, row: int) -> bool:
    """Fill in one row from the cache; False when nothing is there."""
    payload = cache.payload(key)
    if payload is None:
        return False
    arrays = [chunk.values, *chunk.descriptions.arrays().values()]
    start = 0
    for array in arrays:
        length = array[row].nbytes
        array[row] = np.frombuffer(payload[start : start + length], array.dtype).reshape(array[row].shape)
        start += length
    chunk.examined[row] = ScannedFile(*json.loads(payload[start:]))
    chunk.cached[row] = True
    return True


def _keep(cache: ScanCache, task: ScanTask, paths: Sequence[str], chunk: Chunk) -> None:
    """Put a chunk's new results into the cache; files that could not be read have no hash: not kept."""
    payloads, stamps = {}, {}
    for row, path in enumerate(paths):
        found = chunk.examined[row]
        if not found.sha256:
            continue
        sha256 = bytes.fromhex(found.sha256)
        if not chunk.cached[row]:
            text = json.dumps(found, ensure_ascii=True).encode("ascii")
            rows = [array[row].tobytes() for array in (chunk.values, *chunk.descriptions.arrays().values())]
            payloads[_key(task, path, sha256)] = b"".join([*rows, text])
        stamp = chunk.stamps[row]
        if stamp and time.time_ns() - max(stamp[1:]) > FRESH_NS:
            stamps[place_of(task.storage, path)] = (stamp, sha256)
    cache.add(payloads, stamps)


def _key(task: ScanTask, path: str, sha256: bytes) -> bytes:
    """Content key: the bytes, the extension (the decoder notes one that does not fit) and all versions."""
    suffix = os.path.splitext(path)[1].lower()
    return entry_key(f"{sha256.hex()};{os.fsencode(suffix).hex()}", task.version)


def stamp_of(storage: Storage, path: str) -> Stamp | None:
    """Size and times of a file in a folder, or what was listed; None for what is not there or has none."""
    if isinstance(path, Stamped):
        return path.stamp
    if not isinstance(storage, FolderStorage):
        return None
    try:
        status = os.stat(os.path.join(storage.root, path))
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def place_of(storage: Storage, path: str) -> bytes:
    if isinstance(storage, RemoteStorage):
        return os.fsencode(f"{storage.root}/{path}")
    root = storage.root if isinstance(storage, FolderStorage) else ""
    return os.fsencode(os.path.abspath(os.path.join(root, path)))
