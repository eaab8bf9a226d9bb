"""Decoded training images on disk, mapped into memory, so that every file is decoded once.

A folder of shards. Each is written by one process, never changed once it stands and never continued by
another: FILE.pixels holds bytes of images one after the other, FILE.index a record an image, appended
after its pixels, with checksums of both. So what a killed writer leaves is not read as an image, and
processes share the folder without waiting. Shards nobody used lately go first when space runs out. It is a
cache and nothing more: damaged, full or read-only, it is done without, never an error.

Measured against LMDB (images of 230 kB): put 0.15 ms here, 0.07 to 0.17 there; get 0.02 ms in both, the
first one 0.12 here with its checksum, 0.02 there without any. LMDB has one writer at a time for all
processes and does not drop old entries: at its bound it refuses to write, even once some have been deleted.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import shutil
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from saccade.caches.store import CHECKSUM_BYTES, KEY_BYTES, checksum, make_room, note_use, stored_files
from saccade.preprocess import RGB, PixelFormat

SHARD_BYTES = 256_000_000
SHARDS_AT_LEAST = 8  # in a full cache, so that dropping one costs little
LEAST_FREE_SHARE = 0.1  # of the disk; the cache leaves at least so much to others
IN_USE_SECONDS = 600.0  # a shard used so lately is not dropped: another process may have it mapped
TOUCH_SECONDS = 60.0  # between two notes of a shard's last use
REFRESH_SECONDS = 1.0  # between two looks at what other processes added

# key, offset, height, width, checksum of the pixels; behind it the record's own checksum
_RECORD = struct.Struct(f"<{KEY_BYTES}sQII{CHECKSUM_BYTES}s")
_RECORD_BYTES = _RECORD.size + CHECKSUM_BYTES

Pixels = NDArray[np.uint8]


def _nobody_listens(text: str) -> None:
    """The default `say`: ignores the message."""


def _always(size: int) -> bool:
    """The default `room`: there is no bound but the cache's own."""
    return True


@dataclass(slots=True)
class _Shard:
    """One file of pixels as this process knows it. `seen` bytes of its index have been read."""

    path: Path
    seen: int = 0
    view: Pixels | None = None
    touched: float = float("-inf")
    used: bool = False

    @property
    def index(self) -> Path:
        return self.path.with_suffix(".index")

    def bytes_at(self, offset: int, length: int) -> Pixels | None:
        """Mapped bytes, private and writable as torch wants them; None where the file is too short."""
        view = self.view  # another thread may map the file anew meanwhile
        if view is None or len(view) < offset + length:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < offset + length:
                    return None
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            self.view = view = np.frombuffer(mapped, dtype=np.uint8)
        return view[offset : offset + length]


@dataclass(slots=True)
class _Place:
    shard: _Shard
    offset: int
    height: int
    width: int
    checksum: bytes
    checked: bool = False


@dataclass(slots=True)
class _Writer:
    """The shard that this process appends to."""

    shard: _Shard
    pixels: BinaryIO
    index: BinaryIO
    process: int
    size: int = 0

    def close(self) -> None:
        for file in (self.pixels, self.index):
            with contextlib.suppress(OSError):
                file.close()

    def __del__(self) -> None:
        self.close()


@dataclass
class PixelCache:
    """Images (height, width, channels) by key; safe in threads and for several processes at once.

    `max_bytes` bounds the folder. `room` says whether so many more bytes fit into what it is a part of
    (`saccade.caches.bound.room_for`). `say` gets one message when images can no longer be kept.
    """

    folder: Path
    max_bytes: int
    say: Callable[[str], None] = _nobody_listens
    shard_bytes: int = SHARD_BYTES
    room: Callable[[int], bool] = _always
    _places: dict[bytes, _Place] = field(default_factory=dict)
    _shards: dict[str, _Shard] = field(default_factory=dict)
    _writer: _Writer | None = None
    _lock: Any = field(default_factory=threading.RLock)
    _looked: float = float("-inf")
    _full: bool = False
    _process: int = field(default_factory=os.getpid)

    def get(self, key: bytes, pixels: PixelFormat = RGB) -> NDArray[Any] | None:
        """The image, mapped and checked once, or None. Do not write into it.

        `pixels` is what was put under this key.
        """
        with self._lock:
            self._look_around(wanted=key)
            place = self._places.get(key)
        if place is None:
            return None
        try:
            found = self._mapped(place, pixels.count * pixels.dtype.itemsize)
        except OSError:  # dropped by another process, or this one has too many files open
            self._forget(place.shard)
            return None
        if found is None:
            self._forget(place.shard)
            _remove(place.shard.path)
            return None
        self._note_use(place.shard)
        if pixels.bits == 16:  # a copy, since it may begin at any byte
            found = np.frombuffer(bytearray(found), pixels.dtype)
        return found.reshape(place.height, place.width, pixels.count)

    def put(self, key: bytes, pixels: NDArray[Any]) -> bool:
        """Keep an image (height, width, channels); False where it is not kept (no room, the disk refuses)."""
        data = np.ascontiguousarray(pixels).data.cast("B")
        summed = checksum(data)
        with self._lock:
            if self._full or key in self._places:
                return key in self._places
            try:
                writer = self._room_for(len(data))
                if writer is None:
                    self._stop_keeping(
                        "its bound (--data.cache-gb), the whole cache's (SACCADE_CACHE_GB) or the disk's "
                        "(a tenth stays free) is reached"
                    )
                    return False
                self._append(writer, key, data, summed, pixels.shape[0], pixels.shape[1])
            except OSError as error:
                self._stop_keeping(error.strerror or str(error))
                return False
        return True

    def close(self) -> None:
        """Close the files this process writes; what is mapped stays mapped."""
        with self._lock:
            if self._writer:
                self._writer.close()
                self._writer = None

    def __getstate__(self) -> dict[str, Any]:
        """A cache that crosses to another process starts afresh there, and says nothing."""
        kept = ("folder", "max_bytes", "shard_bytes", "room")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    # -- reading -----------------------------------------------------------------------------------

    def _look_around(self, *, wanted: bytes) -> None:
        """Read new index records of the folder if `wanted` is not known yet."""
        if wanted in self._places or time.monotonic() - self._looked < REFRESH_SECONDS:
            return
        self._looked = time.monotonic()
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self.folder)):
                if name.endswith(".index"):
                    stem = name.removesuffix(".index")
                    shard = self._shards.setdefault(stem, _Shard(self.folder / f"{stem}.pixels"))
                    with contextlib.suppress(OSError):
                        self._read_index(shard)

    def _read_index(self, shard: _Shard) -> None:
        """Whole records whose checksum holds; a torn last one is left for a later look."""
        with shard.index.open("rb") as file:
            file.seek(shard.seen)
            data = file.read()
        whole = len(data) - len(data) % _RECORD_BYTES
        shard.seen += whole
        for start in range(0, whole, _RECORD_BYTES):
            raw, own = data[start : start + _RECORD.size], data[start + _RECORD.size : start + _RECORD_BYTES]
            if checksum(raw) == own:
                key, offset, height, width, summed = _RECORD.unpack(raw)
                self._places.setdefault(key, _Place(shard, offset, height, width, summed))

    def _mapped(self, place: _Place, pixel_bytes: int) -> Pixels | None:
        found = place.shard.bytes_at(place.offset, place.height * place.width * pixel_bytes)
        if found is not None and not place.checked:
            if checksum(found.data) != place.checksum:
                return None
            place.checked = True
        return found

    def _note_use(self, shard: _Shard) -> None:
        shard.used = True
        if time.monotonic() - shard.touched > TOUCH_SECONDS:
            shard.touched = time.monotonic()
            note_use(shard.path)

    def _forget(self, shard: _Shard) -> None:
        """Drop all knowledge of a shard that is gone or damaged."""
        with self._lock:
            self._places = {key: place for key, place in self._places.items() if place.shard is not shard}
            if self._writer and self._writer.shard is shard:
                self.close()

    # -- writing -----------------------------------------------------------------------------------

    def _append(
        self, writer: _Writer, key: bytes, data: memoryview, summed: bytes, height: int, width: int
    ) -> None:
        """Pixels first, then the record that makes them count."""
        _write_all(writer.pixels, data)
        raw = _RECORD.pack(key, writer.size, height, width, summed)
        _write_all(writer.index, memoryview(raw + checksum(raw)))
        self._places[key] = _Place(writer.shard, writer.size, height, width, summed, checked=True)
        writer.size += len(data)
        self._note_use(writer.shard)

    def _room_for(self, length: int) -> _Writer | None:
        """This process's shard, or a new one when that is full; None when the bound leaves no room."""
        if self._writer and self._writer.process != os.getpid():  # a fork: the parent goes on with it
            self._writer = None
        limit = min(self.shard_bytes, self.max_bytes // SHARDS_AT_LEAST)
        if self._writer and self._writer.size + length > limit:
            self.close()
        if self._writer is None:
            if not self._make_room(max(length, limit)):
                return None
            self._writer = self._new_shard()
        return self._writer

    def _new_shard(self) -> _Writer:
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = f"{time.time_ns():x}-{secrets.token_hex(4)}"
        shard = _Shard(self.folder / f"{stem}.pixels")
        pixels = shard.path.open("xb", buffering=0)
        index = shard.index.open("xb", buffering=0)
        self._shards[stem] = shard
        shard.seen = 2**62  # what this process writes it knows already
        return _Writer(shard, pixels, index, os.getpid())

    def _make_room(self, length: int) -> bool:
        """Drop shards not in use, least recently used first, until `length` more bytes fit."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stored = stored_files(self.folder, "*.pixels")
        total = sum(size for _, size, _ in stored)
        disk = shutil.disk_usage(self.folder)
        excess = max(total + length - self.max_bytes, length - (disk.free - LEAST_FREE_SHARE * disk.total))
        idle = (entry for entry in stored if not self._in_use(entry))
        return make_room(idle, excess, _remove) and self.room(length)

    def _in_use(self, entry: tuple[float, int, Path]) -> bool:
        known = self._shards.get(entry[2].stem)
        return bool(known and known.used) or time.time() - entry[0] < IN_USE_SECONDS

    def _stop_keeping(self, why: str) -> None:
        self._full = True
        self.close()
        if os.getpid() == self._process:
            self.say(f"further decoded images are not kept on disk in {self.folder}: {why}")


def _write_all(file: BinaryIO, data: memoryview) -> None:
    """Unbuffered files may take less than they are given."""
    while data:
        data = data[file.write(data) :]


def _remove(pixels: Path) -> None:
    """Delete the index first: pixels without an index are ignored."""
    for path in (pixels.with_suffix(".index"), pixels):
        with contextlib.suppress(OSError):
            path.unlink()
