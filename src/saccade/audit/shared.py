"""A scan that a cluster carries out: the same results, image by image.

What the cache of this machine holds is taken from there. The rest is computed by `examine_chunk` in the
workers, whose results come back as parts and are kept in the cache as those of any scan.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from saccade.audit.scan import (
    Chunk,
    ScannedFile,
    ScanTask,
    crashed,
    empty_chunk,
    examine_chunk,
    place_of,
    recall_by_stamp,
    scan_version,
    stamp_of,
)
from saccade.caches.scans import ScanCache
from saccade.part_files import Cluster, Job, Packed, map_chunks
from saccade.sources.storage import FolderStorage

CHUNK_IMAGES = 128


def scanned_by(
    cluster: Cluster, task: ScanTask, paths: Sequence[str]
) -> Iterator[tuple[Sequence[str], Chunk]]:
    """Chunks of paths with their results, in order; raises EngineError."""
    chunks = [paths[start : start + CHUNK_IMAGES] for start in range(0, len(paths), CHUNK_IMAGES)]
    recalled = dict(_recalled(task, chunks))
    todo = [chunk for number, chunk in enumerate(chunks) if number not in recalled]
    found = map_chunks(cluster, scan_job(task), todo)
    for number, chunk in enumerate(chunks):
        if number in recalled:
            yield chunk, recalled.pop(number)
            continue
        left = len(chunk)
        while left:
            some, result = next(found)
            left -= len(some)
            yield some, result
    for _ in found:  # its end
        raise AssertionError("more results than chunks")


def _recalled(task: ScanTask, chunks: Sequence[Sequence[str]]) -> Iterator[tuple[int, Chunk]]:
    """The chunks of which the cache has every image."""
    if task.cache_folder is None or not task.warm:
        return
    with ScanCache(task.cache_folder) as cache:
        for number, paths in enumerate(chunks):
            chunk = empty_chunk(len(paths))
            recall_by_stamp(cache, task, paths, chunk)
            if all(chunk.cached):
                yield number, chunk


def scan_job(task: ScanTask) -> Job[str, Chunk]:
    """Examining files, without the cache, which may lie on another machine."""
    storage = task.storage
    if isinstance(storage, FolderStorage):
        storage = replace(storage, root=storage.root.absolute())
    task = replace(task, storage=storage, cache_folder=None, version=scan_version(task.limits))
    this_command = os.urandom(8).hex()
    return Job(partial(_examiner, task), _pack, _unpack, crashed, partial(_key, task, this_command))


def _examiner(task: ScanTask) -> partial[Chunk]:
    return partial(examine_chunk, task)


def _key(task: ScanTask, this_command: str, paths: Sequence[str]) -> list[Any]:
    """What has no stamp may have changed when the next command comes."""
    places = [[os.fsdecode(place_of(task.storage, path)), stamp_of(task.storage, path)] for path in paths]
    known = all(stamp for _, stamp in places)
    return ["scan", task.version, str(task.limits), places, "" if known else this_command]


def _pack(chunk: Chunk) -> Packed:
    arrays = [chunk.values, *chunk.descriptions.arrays().values()]
    return [chunk.examined, chunk.stamps], b"".join(array.tobytes() for array in arrays)


def _unpack(values: Any, data: bytes) -> Chunk:
    examined, stamps = values
    chunk = empty_chunk(len(examined))
    at = 0
    for array in (chunk.values, *chunk.descriptions.arrays().values()):
        array[...] = np.frombuffer(data[at : at + array.nbytes], array.dtype).reshape(array.shape)
        at += array.nbytes
    chunk.examined[:] = [ScannedFile(*found) for found in examined]
    chunk.stamps[:] = [tuple(stamp) if stamp else None for stamp in stamps]
    return chunk
