"""Results of earlier scans by content hash, so that a second audit decodes new files only.

One SQLite file: safe for several processes, atomic. If it is damaged, it is made again; if it is locked or
full, the scan runs without it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from saccade.caches.bound import stated_bytes
from saccade.caches.store import make_room, sealed, unsealed

DEFAULT_MAX_BYTES = 4_000_000_000
SHARE_OF_CACHE = 0.25  # where a bound of the whole cache is stated
KEPT_SHARE = 0.9  # of the bound, once old payloads have gone
LOCK_SECONDS = 10
_FILE_NAME = "scan.sqlite"
_SEARCHES = 20  # kept at most
# What a damaged file makes sqlite3 raise: also its words may be no text any more
BROKEN = (sqlite3.Error, UnicodeError, OverflowError)
REFUSED = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_IOERR),
}
_MANY = 500  # values in one query; SQLite allows 999 in its oldest versions

Stamp = tuple[int, int, int]  # size in bytes, modification time, time of last change of its entry (both ns)

_TABLES = """
CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS stamps (
    path BLOB PRIMARY KEY, size INTEGER, modified INTEGER, changed INTEGER, sha256 BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS searches (
    id INTEGER PRIMARY KEY AUTOINCREMENT, version BLOB NOT NULL, members BLOB UNIQUE, pairs BLOB NOT NULL
);
"""
_COLUMNS = {
    "results": "key, payload",
    "stamps": "path, size, modified, changed, sha256",
    "searches": "id, version, members, pairs",
}


class ScanCache:
    """Payloads by content key, and content hashes by path and stamp; a context manager.

    `max_bytes` bounds the file: when it is reached, the oldest payloads go until a tenth of it is free. None:
    4 GB, or a quarter of $SACCADE_CACHE_GB where that is less.
    """

    def __init__(self, folder: Path, *, max_bytes: int | None = None) -> None:
        self._path = folder / _FILE_NAME
        self._max_bytes = _usual_bound() if max_bytes is None else max_bytes
        self._database = _open(self._path)

    def __enter__(self) -> ScanCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def holds_results(self) -> bool:
        """Whether any payload is kept."""
        return any(self._rows("SELECT 1 FROM results LIMIT 1"))

    def payload(self, key: bytes) -> bytes | None:
        """The payload kept under a key, if it is there and whole."""
        for (payload,) in self._select("SELECT payload FROM results WHERE key IN", [key]):
            return unsealed(payload)
        return None

    def known_hashes(self, stamps: Mapping[bytes, Stamp]) -> dict[bytes, bytes]:
        """SHA-256 of the files whose stamp is the one last seen, by path."""
        query = "SELECT path, sha256, size, modified, changed FROM stamps WHERE path IN"
        rows = list(self._select(query, list(stamps)))
        if any(path not in stamps or not isinstance(sha256, bytes) for path, sha256, *_ in rows):
            self._give_up(sqlite3.DatabaseError("rows that nobody asked for"))
            return {}
        return {path: sha256 for path, sha256, *stamp in rows if tuple(stamp) == stamps[path]}

    def add(self, payloads: Mapping[bytes, bytes], stamps: Mapping[bytes, tuple[Stamp, bytes]]) -> None:
        """Keep payloads by key, and by path the stamp with the file's SHA-256."""
        if self._database is None:
            return
        results = [(key, sealed(payload)) for key, payload in payloads.items()]
        files = [(path, *stamp, sha256) for path, (stamp, sha256) in stamps.items()]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", results)
                self._database.executemany("INSERT OR REPLACE INTO stamps VALUES (?, ?, ?, ?, ?)", files)
                self._stay_within_bounds()
        except BROKEN as error:  # full disk, lost lock, damage: the scan goes on without its cache
            self._give_up(error)

    def searches(self, version: bytes) -> list[tuple[bytes, bytes]]:
        """(members, pairs) of earlier searches of this version, the latest first."""
        query = "SELECT members, pairs FROM searches WHERE version IN"
        rows = list(self._select(query, [version], "ORDER BY id DESC"))
        whole = ((unsealed(members), unsealed(pairs)) for members, pairs in rows)
        return [(members, pairs) for members, pairs in whole if members is not None and pairs is not None]

    def add_search(self, version: bytes, members: bytes, pairs: bytes) -> None:
        """Keep a search; only the latest few are kept."""
        if self._database is None:
            return
        try:
            with self._database:
                self._database.execute(
                    "INSERT OR REPLACE INTO searches (version, members, pairs) VALUES (?, ?, ?)",
                    (version, sealed(members), sealed(pairs)),
                )
                self._database.execute(
                    "DELETE FROM searches WHERE id <= (SELECT max(id) FROM searches) - ?", (_SEARCHES,)
                )
        except BROKEN as error:
            self._give_up(error)

    def _stay_within_bounds(self) -> None:
        database = self._database
        assert database is not None, "called with an open database"
        (pages,), (free,), (size,) = (
            database.execute(f"PRAGMA {name}").fetchone()
            for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size <= self._max_bytes:
            return
        excess = (pages - free) * size - KEPT_SHARE * self._max_bytes
        old: list[tuple[int]] = []
        rows = database.execute("SELECT rowid, length(payload), rowid FROM results ORDER BY rowid")
        make_room(rows, excess, lambda row: old.append((row,)))
        database.executemany("DELETE FROM results WHERE rowid = ?", old)
        oldest = "SELECT rowid FROM stamps ORDER BY rowid LIMIT 1 + (SELECT count(*) FROM stamps) / 10"
        database.execute(f"DELETE FROM stamps WHERE rowid IN ({oldest})")

    def _select(self, query: str, values: Sequence[bytes], order: str = "") -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(values), _MANY):
            some = values[start : start + _MANY]
            yield from self._rows(f"{query} ({','.join('?' * len(some))}) {order}", some)

    def _rows(self, query: str, values: Sequence[bytes] = ()) -> list[tuple[Any, ...]]:
        if self._database is None:
            return []
        try:
            return self._database.execute(query, values).fetchall()
        except BROKEN as error:
            self._give_up(error)
            return []

    def _give_up(self, error: Exception) -> None:
        """Go on without; a damaged file is removed, so that the next scan makes a new one."""
        if self._database is not None:
            with contextlib.suppress(*BROKEN):
                self._database.close()
            self._database = None
        if not _refused(error):
            _remove(self._path)


def _usual_bound() -> int:
    stated = stated_bytes()
    return DEFAULT_MAX_BYTES if stated is None else min(DEFAULT_MAX_BYTES, int(SHARE_OF_CACHE * stated))


def _refused(error: Exception) -> bool:
    """Whether the file may well be whole, and the system or another process keeps this one from it."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF  # the rest says more of the same
    return isinstance(error, OSError) or code in REFUSED


def _open(path: Path) -> sqlite3.Connection | None:
    """The database, remade when it is damaged; None when there can be none."""
    for _ in range(2):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, timeout=LOCK_SECONDS)
            try:
                # lost power may cost the cache, nothing else; and who reads need not wait for who writes
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = OFF")
                database.executescript(_TABLES)
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
                for table, columns in _COLUMNS.items():  # raises where they are not ours
                    database.execute(f"SELECT {columns} FROM {table} LIMIT 1").fetchone()
            except BROKEN:
                database.close()
                raise
            return database
        except (OSError, *BROKEN) as error:
            if _refused(error):
                return None  # cannot be written there, or another process holds it for long
            with contextlib.suppress(OSError):
                _remove(path)
    return None


def _remove(path: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
