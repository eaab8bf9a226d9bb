"""Objects in a bucket or behind HTTP: listed, read and copied.

What is one object's own fault (it is gone, it may not be read, its server answers with an error) is an
ImageError, as for a file. Where the service cannot be reached or does not know the credentials, SourceError
ends the command: other objects would fail alike, and the same command goes on later.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from saccade.caches.bound import VARIABLE, hold, room_for
from saccade.caches.scans import Stamp
from saccade.caches.store import cache_folder
from saccade.errors import ImageError, MissingExtraError, SaccadeError, SourceError
from saccade.images.decoder import DEFAULT_MAX_BYTES
from saccade.records import Storage
from saccade.sources.addresses import is_remote, parted
from saccade.sources.connections import (
    COPY_SECONDS,
    REQUEST_SECONDS,
    ForkedError,
    connection,
    get,
    get_range,
    not_listed,
    not_read,
)
from saccade.sources.storage import refuse_size
from saccade.terminal import printable, warn_caller

READ_AHEAD = 8  # objects under way at once for each core
_LISTED_AT_ONCE = 1000
_COPIED_AT_ONCE = 1 << 20


class Listed(NamedTuple):
    """One object: its path below what was listed, bytes, ETag ("" without one), when it was written (ns)."""

    path: str
    size: int
    etag: str
    modified: int


def listed(location: str) -> Iterator[Listed]:
    """The objects below an address, as they come; raises SourceError."""
    root, prefix = parted(location)
    skipped = len(prefix) + 1 if prefix else 0
    store = connection(root)
    try:
        for some in store.list(prefix or None, chunk_size=_LISTED_AT_ONCE):
            for meta in some:
                yield Listed(meta["path"][skipped:], meta["size"], meta["e_tag"] or "", _written(meta))
    except Exception as error:
        raise not_listed(error, location) from None


def stamp_of(found: Listed) -> Stamp:
    """What is another as soon as the object is: its size, a number made of its ETag, when it was written."""
    tag = hashlib.sha256(found.etag.encode()).digest()[:6]
    return found.size, int.from_bytes(tag), found.modified


def _written(meta: Mapping[str, Any]) -> int:
    return int(meta["last_modified"].timestamp() * 1000) * 1_000_000


@dataclass(frozen=True, slots=True)
class RemoteStorage:
    """Objects below the address `root`; a path that is an address stands for itself.

    Only the address travels to worker processes, each of which connects for itself.
    """

    root: str = ""
    max_bytes: int = DEFAULT_MAX_BYTES

    def read(self, path: str) -> bytes:
        """The object's bytes; raises ImageError where it fails alone, SourceError where its service does."""
        address = path if is_remote(path) else f"{self.root}/{path}"
        try:
            found = get(address, REQUEST_SECONDS)
            refuse_size(found.meta["size"], self.max_bytes)
            return bytes(found.bytes())
        except (ImageError, SourceError, MissingExtraError, ForkedError):
            raise
        except Exception as error:
            raise not_read(error, address) from None

    def ahead(self, paths: Iterable[str], *, threads: int = 1) -> Storage:
        """A storage that begins to read these paths now, each once, a few at a time for each of `threads`."""
        readers = _readers(os.getpid(), threads)
        return _Ahead(self, {path: readers.submit(self.read, path) for path in dict.fromkeys(paths)})


@dataclass(frozen=True, slots=True)
class LinkedStorage:
    """Another storage, for a list that also names addresses."""

    storage: Storage

    def read(self, path: str) -> bytes:
        """The bytes of a file or object; raises ImageError when it cannot be read."""
        return (RemoteStorage() if is_remote(path) else self.storage).read(path)

    def ahead(self, paths: Iterable[str], *, threads: int = 1) -> Storage:
        """A storage that begins to read those of these paths now that are addresses."""
        readers = _readers(os.getpid(), threads)
        return _Ahead(self, {path: readers.submit(self.read, path) for path in paths if is_remote(path)})


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What is being read for somebody who will ask soon."""

    storage: Storage
    reading: dict[str, Future[bytes]]

    def read(self, path: str) -> bytes:
        """As the storage behind it, which is asked for what was not to be read ahead, or is wanted again."""
        begun = self.reading.pop(path, None)
        return begun.result() if begun else self.storage.read(path)


@lru_cache(maxsize=2)
def _readers(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READ_AHEAD * threads, "objects")


# -- copies of single objects ------------------------------------------------------------------------------


class Copy(NamedTuple):
    """An object on this disk, and what tells its states apart."""

    path: Path
    state: str


def copies_of(address: str) -> Path:
    """The folder in the cache that holds copies of what lies below an address."""
    return cache_folder() / "remote" / hashlib.sha256(address.encode()).hexdigest()[:16]


def note_of(copy: str | Path) -> Path:
    """The file beside a copy that says what it is a copy of: size, ETag (or time), address."""
    return Path(f"{copy}.state")


def copied(address: str, *, below: str) -> Copy:
    """The object as a file in the cache's folder, under its path `below` an address; copied once a state.

    For archives, lists and tables, of which most is read anyway. An archive that finds no room there is
    read where it lies (`object_of`). Raises SourceError.
    """
    folder = copies_of(below)
    target = folder / address[len(below) :].lstrip("/")
    hold(target)
    try:
        found = get(address, COPY_SECONDS)
        meta = found.meta
        state = json.dumps([meta["size"], meta["e_tag"] or _written(meta), address])
        if not (target.is_file() and _noted(target) == state):
            _copy(found, target, state)
    except SaccadeError:
        raise
    except FileNotFoundError:
        raise SourceError(
            f"{printable(address)}: there is no such object", hint="check the address"
        ) from None
    except OSError as error:
        raise SourceError(
            f"{printable(address)}: cannot be copied to {folder} ({error.strerror})",
            hint="check that disk, or name another folder in SACCADE_CACHE",
        ) from None
    except Exception as error:
        raise not_listed(error, address) from None
    return Copy(target, state)


def _noted(copy: Path) -> str:
    try:
        return note_of(copy).read_text("utf-8")
    except FileNotFoundError:
        return ""


def _copy(found: Any, target: Path, state: str) -> None:
    """A copy without a note of its state is made again; a note without a copy stands for the object."""
    note, size = note_of(target), found.meta["size"]
    target.parent.mkdir(parents=True, exist_ok=True)
    if not room_for(size) or shutil.disk_usage(target.parent).free < size:
        _say_no_room(cache_folder())
        if target.suffix in (".tar", ".zip"):
            target.unlink(missing_ok=True)
            note.write_text(state, "utf-8")
            return
    if target.exists():  # of another state: never beside a note that says what is not so
        note.unlink(missing_ok=True)
    _write(found, target)
    note.write_text(state, "utf-8")


@lru_cache(maxsize=1)
def _say_no_room(folder: Path) -> None:
    """Once a process."""
    warn_caller(
        f"the cache {folder} has no room for more (its bound is {VARIABLE}, or the disk is full): archives "
        "are read at their addresses, which takes longer; lists and tables are copied nevertheless"
    )


class ObjectFile(io.RawIOBase):
    """An object as a file that is read where it lies, in the state of `etag`: each read is one request."""

    def __init__(self, address: str, size: int, etag: str = "") -> None:
        self._address, self._size, self._etag, self._at = address, size, etag, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = (0, self._at, self._size)[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As many bytes as there are; raises ImageError, SourceError."""
        wanted = min(len(buffer), max(0, self._size - self._at))
        data = get_range(self._address, self._at, wanted, etag=self._etag) if wanted else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def object_of(copy: str) -> ObjectFile | None:
    """The object that a file which is not there would be a copy of; None where it is no copy."""
    try:
        size, tag, address = json.loads(note_of(copy).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return ObjectFile(address, size, tag if isinstance(tag, str) else "")  # or a time, without an ETag


def _write(found: Any, target: Path) -> None:
    """What an answer brings, as a file: whole or not at all."""
    size = found.meta["size"]
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < size:
        raise OSError(0, f"it has {size:,} bytes, more than are free")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            for some in found.stream(min_chunk_size=_COPIED_AT_ONCE):
                file.write(some)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def fetch(address: str, target: Path) -> bool:
    """Copy an object to a file; False where there is none. Raises SourceError."""
    try:
        _write(get(address, COPY_SECONDS), target)
    except FileNotFoundError:
        return False
    except (SourceError, MissingExtraError, OSError):
        raise
    except Exception as error:
        raise not_listed(error, address) from None
    return True
