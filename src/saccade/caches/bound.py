"""One bound for all that the cache's folder keeps: what was used longest ago goes first.

$SACCADE_CACHE_GB says how much; without it, half of what this disk has left for it, and at most 50 GB. The
bound is looked at where much is added: copies of archives, decoded images. What a command needs stays: files
that it holds (`hold`) until its process ends, and whatever was used in the last ten minutes. Notes, and what
has a bound of its own, are counted and never dropped. A lock keeps processes from holding and dropping at
once.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from saccade.caches.store import cache_folder, make_room, note_use
from saccade.errors import RecipeError
from saccade.files import lock_file

VARIABLE = "SACCADE_CACHE_GB"
MOST_BYTES = 50_000_000_000
SHARE_OF_DISK = 0.5  # of what is free there and what the cache has already
IN_USE_SECONDS = 600.0
LOCK_SECONDS = 10.0
_HELD = "in_use"  # a file a process: what it holds
_NEVER_DROPPED = (_HELD, "outputs", "ray", "scan.sqlite", "endings.json", "backbone-times.json", ".lock")


class Entry(NamedTuple):
    """Files that go together: when they were last used (seconds since 1970), and their bytes."""

    used: float
    size: int
    files: tuple[Path, ...]


class Usage(NamedTuple):
    """What a cache holds: what may be dropped, the longest unused first, and the bytes of all."""

    entries: list[Entry]
    total: int


def stated_bytes() -> int | None:
    """The bound that $SACCADE_CACHE_GB says; None without it. Raises RecipeError for what is no number."""
    given = os.environ.get(VARIABLE, "").strip()
    if not given:
        return None
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise RecipeError(f"{VARIABLE} is no number of gigabytes: {given}", hint=f"for example {VARIABLE}=20")
    return int(gigabytes * 1e9)


def bound_bytes(folder: Path, total: int) -> int:
    """The most that a cache of `total` bytes may hold."""
    stated = stated_bytes()
    if stated is not None:
        return stated
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return min(MOST_BYTES, int(SHARE_OF_DISK * (shutil.disk_usage(there).free + total)))


def usage(folder: Path) -> Usage:
    """What lies in a cache's folder; what another process removes meanwhile is left out."""
    files: dict[Path, list[Path]] = {}
    kept = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.relative_to(folder).parts[0].startswith(_NEVER_DROPPED):
                kept += _size(path)
            else:
                files.setdefault(_main_file(path), []).append(path)
    entries = sorted(entry for together in files.values() if (entry := _entry(together)))
    return Usage(entries, kept + sum(entry.size for entry in entries))


def _main_file(path: Path) -> Path:
    """The file that another one belongs to: an index to its pixels, a note to the copy that it is about."""
    if path.suffix == ".index":
        return path.with_suffix(".pixels")
    return path.with_suffix("") if path.suffix == ".state" else path


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _entry(files: list[Path]) -> Entry | None:
    try:
        found = [path.lstat() for path in files]
    except OSError:
        return None
    used = max(max(status.st_mtime, status.st_atime) for status in found)
    return Entry(used, sum(status.st_size for status in found), tuple(sorted(files)))


# -- dropping ----------------------------------------------------------------------------------------------


def room_for(size: int) -> bool:
    """Whether `size` more bytes fit, once enough of what no command uses is dropped.

    Where not enough can be dropped, nothing is. Raises RecipeError as `stated_bytes` does.
    """
    folder = cache_folder()
    found = usage(folder)
    if found.total + size <= bound_bytes(folder, found.total):
        return True
    try:
        with _alone(folder) as alone:
            return alone and _make_room(folder, size)
    except OSError:  # a cache that cannot be written to
        return False


def _make_room(folder: Path, size: int) -> bool:
    found, held = usage(folder), _held(folder)
    excess = found.total + size - bound_bytes(folder, found.total)
    long_ago = time.time() - IN_USE_SECONDS
    idle = [
        entry
        for entry in found.entries
        if entry.used < long_ago and not held.intersection((*entry.files, *map(_main_file, entry.files)))
    ]
    return sum(entry.size for entry in idle) >= excess and make_room(idle, excess, _drop)


def _drop(files: tuple[Path, ...]) -> None:
    for path in files:  # sorted: an index goes before its pixels, a copy before its note
        with contextlib.suppress(OSError):
            path.unlink()


# -- what is in use ----------------------------------------------------------------------------------------

_own: dict[tuple[Path, int], int] = {}  # this process's list of a cache's folder, open and locked


def hold(path: Path) -> None:
    """Keep a file of the cache, there or still to come, from being dropped until this process ends."""
    folder = cache_folder()
    if folder not in path.parents:
        return
    with contextlib.suppress(OSError), _alone(folder):
        os.write(_own_list(folder), os.fsencode(path.relative_to(folder)) + b"\n")
    note_use(path)


def _own_list(folder: Path) -> int:
    key = folder, os.getpid()  # a forked process has a list of its own
    if key not in _own:
        place = folder / _HELD
        place.mkdir(exist_ok=True)
        handle = os.open(place / f"{os.getpid()}-{time.time_ns():x}", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        lock_file(handle)  # until the process ends, also by kill -9
        _own[key] = handle
    return _own[key]


def _held(folder: Path) -> set[Path]:
    """What any living process holds; lists of others are removed."""
    found: set[Path] = set()
    for place in (folder / _HELD).glob("*"):
        with contextlib.suppress(FileNotFoundError), place.open("r+b") as file:
            if lock_file(file.fileno()):
                place.unlink()
            else:
                found |= {folder / os.fsdecode(line) for line in file.read().splitlines()}
    return found


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Within it no other process holds or drops anything; False where the lock cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        end = time.monotonic() + LOCK_SECONDS
        while not (locked := lock_file(handle)) and time.monotonic() < end:
            time.sleep(0.02)
        yield locked
    finally:
        os.close(handle)
