"""Work in chunks whose results are files in a folder that all machines see; what an engine carries out.

A part holds the result of one chunk under a name made of all that the result depends on. So what was computed
before a command was stopped is not computed again, and results never pass through the engine.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from saccade import errors
from saccade._version import __version__
from saccade.caches.store import cache_folder, entry_key, made_by, sealed, stored_files, unsealed
from saccade.errors import EngineError, SaccadeError
from saccade.run_folder import write_bytes
from saccade.workers import carefully

T = TypeVar("T")
R = TypeVar("R")
Packed = tuple[Any, bytes]  # plain values for JSON, and the bytes of arrays

ENDING, BEGUN, SHARED = ".part", ".begun", ".shared"
KEPT_SECONDS = 7 * 24 * 3600.0  # a part that nobody came back for
LATE_SECONDS = 20.0  # until a network file system shows every file
WAIT_SECONDS = 0.02
WINDOW_CHUNKS = 4096  # handed to an engine at once
_HEAD = struct.Struct("<QQQ")  # items, length of the JSON, length of the bytes behind it


@dataclass(frozen=True, slots=True)
class Job(Generic[T, R]):
    """What is to be done with chunks; every field crosses process boundaries.

    make: gives the function of a chunk; called once a worker. pack, unpack: a result as a part's content, and
    back. on_crash: stands for an item that kills its process. key: all that the result of a chunk depends on,
    as plain values.
    """

    make: Callable[[], Callable[[Sequence[T]], R]]
    pack: Callable[[R], Packed]
    unpack: Callable[[Any, bytes], R]
    on_crash: Callable[[T], R]
    key: Callable[[Sequence[T]], Any]

    def name(self, chunk: Sequence[T]) -> str:
        """Of the part of a chunk."""
        return entry_key(json.dumps(self.key(chunk)), made_by(saccade=__version__)).hex()


class Row(NamedTuple):
    """What an engine carries: references to some images, and the name of the part for their results."""

    name: str
    chunk: Sequence[Any]


class Running(Protocol):
    """An engine at work on rows, each by `PartWriter.write`."""

    def wait(self, seconds: float) -> bool:
        """Wait a moment; whether all rows have been written."""
        ...

    def finish(self) -> None:
        """Wait for the end; raises EngineError where the engine failed."""
        ...


class Cluster(Protocol):
    """Carries out jobs on several processes or machines."""

    def start(self, job: Job[Any, Any], rows: Sequence[Row], folder: Path) -> Running:
        """Begin with these rows; raises EngineError."""
        ...


def map_chunks(
    cluster: Cluster,
    job: Job[T, R],
    chunks: Iterable[Sequence[T]],
    *,
    check: Callable[[], object] = lambda: None,
) -> Iterator[tuple[Sequence[T], R]]:
    """Each chunk with its result, in order, as `workers.map_chunks` gives them, computed by a cluster.

    Parts are removed once all results of many chunks have been taken; one that another command on the same
    images removed is computed again. check: called while results are waited for; may raise. Raises
    EngineError, and whatever SaccadeError a worker met.
    """
    folder = _folder()
    rows = (Row(job.name(chunk), chunk) for chunk in chunks)
    while window := list(itertools.islice(rows, WINDOW_CHUNKS)):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old(folder)
        parts = [folder / f"{row.name}{ENDING}" for row in window]
        todo = [row for row, part in zip(window, parts, strict=True) if read_part(part) is None]
        running = cluster.start(job, todo, folder) if todo else None
        for row, part in zip(window, parts, strict=True):
            again = partial(cluster.start, job, [row], folder)
            yield from _results(job, row.chunk, part, _awaited(part, running, again, check))
        if running:
            running.finish()
        for part in parts:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def shared_file(content: bytes) -> Iterator[Path]:
    """A file beside the parts, for all workers of this command; removed in the end."""
    file = _folder() / f"{os.getpid()}-{time.time_ns():x}{SHARED}"
    write_bytes(file, content)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def _folder() -> Path:
    return (cache_folder() / "ray").absolute()


def _awaited(
    part: Path, running: Running | None, again: Callable[[], Running], check: Callable[[], object]
) -> list[Piece]:
    """The content of a part as soon as it is there; raises EngineError where it will not come."""
    late, asked_again = 0.0, False
    while True:
        check()
        if (pieces := read_part(part)) is not None:
            return pieces
        if running is None or running.wait(WAIT_SECONDS):
            if running:
                running.finish()
            late = late or time.monotonic() + LATE_SECONDS
            if time.monotonic() > late and not asked_again:
                running, late, asked_again = again(), 0.0, True
            elif time.monotonic() > late:
                raise EngineError(
                    f"all work is done, and its results are not in {part.parent}",
                    hint="SACCADE_CACHE must name a folder that all machines of the cluster share",
                )
            time.sleep(WAIT_SECONDS)


def _results(
    job: Job[T, R], chunk: Sequence[T], part: Path, pieces: Sequence[Piece]
) -> Iterator[tuple[Sequence[T], R]]:
    """The chunk in as many pieces as it was computed in."""
    at = 0
    for piece in pieces:
        if not piece.items:
            part.unlink(missing_ok=True)  # the next command tries again
            raise _error(*piece.values)
        yield chunk[at : at + piece.items], job.unpack(piece.values, piece.data)
        at += piece.items


# -- parts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """A result as it stands in a part: of how many items, and what `Job.unpack` takes."""

    items: int
    values: Any
    data: bytes = b""


class PartWriter(Generic[T, R]):
    """One worker's way through the chunks that it is given."""

    def __init__(self, job: Job[T, R], folder: Path) -> None:
        self._job, self._folder = job, folder
        self._function: Callable[[Sequence[T]], R] | None = None

    def write(self, name: str, chunk: Sequence[T]) -> None:
        """Compute a chunk into its part, unless that is there.

        Where a process died with this chunk, it is computed in a process of its own, in the end item by item.
        A SaccadeError is written down in place of results.
        """
        part, begun = self._folder / f"{name}{ENDING}", self._folder / f"{name}{BEGUN}"
        if read_part(part) is not None:
            return
        try:
            if begun.exists():
                afresh = partial(_afresh, self._job.make)
                found = list(carefully(afresh, chunk, self._job.on_crash))
            else:
                begun.touch()
                self._function = self._function or self._job.make()
                found = [(chunk, self._function(chunk))]
            pieces = [Piece(len(some), *self._job.pack(result)) for some, result in found]
        except SaccadeError as error:
            pieces = [Piece(0, [type(error).__name__, list(error.args), error.__dict__])]
        write_bytes(part, sealed(b"".join(map(_framed, pieces))))
        begun.unlink(missing_ok=True)


def _afresh(make: Callable[[], Callable[[Sequence[T]], R]], chunk: Sequence[T]) -> R:
    return make()(chunk)


def _framed(piece: Piece) -> bytes:
    text = json.dumps(piece.values).encode("ascii")
    return _HEAD.pack(piece.items, len(text), len(piece.data)) + text + piece.data


def read_part(part: Path) -> list[Piece] | None:
    """What a part holds; None where it is not there or not whole."""
    try:
        content = unsealed(part.read_bytes())
    except OSError:
        return None
    if content is None:
        return None
    pieces, at = [], 0
    while at < len(content):
        items, text, data = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        values = json.loads(content[at : at + text])
        pieces.append(Piece(items, values, content[at + text : at + text + data]))
        at += text + data
    return pieces


def _error(kind: str, arguments: Sequence[str], state: dict[str, Any]) -> SaccadeError:
    made: SaccadeError = Exception.__new__(getattr(errors, kind), *arguments)
    made.__dict__.update(state)
    return made


def _remove_old(folder: Path) -> None:
    """Drop what commands left that nobody continued."""
    for pattern in (f"*{ENDING}", f"*{BEGUN}", f"*{SHARED}"):
        for used, _, path in stored_files(folder, pattern):
            if time.time() - used > KEPT_SECONDS:
                path.unlink(missing_ok=True)
