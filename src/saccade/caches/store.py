"""What all caches share: folder, keys, checksum, eviction.

A cache is optional: saccade continues without an entry that is damaged, or a cache that is full or read-only.
The key of an entry is a hash of its source (a file, weights) and of `made_by`: version constants, library
versions, settings. A version constant stands beside the code that decides the content (for example
`images.decoder.DECODING_VERSION`) and is raised whenever that code makes something else;
tests/caches/test_versions.py compares. So editing a comment keeps all caches, and changing pixels invalidates
them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy

from saccade.images.decoder import DECODING_VERSION, Limits
from saccade.images.plugins import decoder_versions

KEY_BYTES = 16
CHECKSUM_BYTES = 4

T = TypeVar("T")


def cache_folder() -> Path:
    """What is kept between commands: $SACCADE_CACHE, else $XDG_CACHE_HOME/saccade, else ~/.cache/saccade."""
    given = os.environ.get("SACCADE_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saccade"


def made_by(**parts: object) -> str:
    """What an entry depends on besides its source, as text.

    >>> made_by(decoding=1, pillow="12.3")
    'decoding=1;pillow=12.3'
    """
    return ";".join(f"{name}={value}" for name, value in parts.items())


def decoded_by(limits: Limits) -> str:
    """What decoded pixels depend on besides the file."""
    made = made_by(decoding=DECODING_VERSION, **decoder_versions(), numpy=numpy.__version__, limits=limits)
    if limits.pixels.is_colour:
        return made
    return f"{made};{made_by(pixels=limits.pixels, any_bits=limits.any_bits)}"


def entry_key(source: str, made: str) -> bytes:
    """Key of an entry: the hash of its source (a file, weights), and what `made_by` says of the rest."""
    return hashlib.blake2b(f"{len(source)};{source};{made}".encode(), digest_size=KEY_BYTES).digest()


def checksum(data: bytes | memoryview) -> bytes:
    """CRC-32, which finds what a crash or a bad disk leaves; it is no proof against intent."""
    return zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "big")


def sealed(data: bytes) -> bytes:
    """The checksum, and the data behind it."""
    return checksum(data) + data


def unsealed(kept: object) -> bytes | None:
    """The data that `sealed` kept; None where it is not whole.

    >>> unsealed(sealed(b"row")), unsealed(sealed(b"row")[:-1])
    (b'row', None)
    """
    if not isinstance(kept, bytes) or kept[:CHECKSUM_BYTES] != checksum(kept[CHECKSUM_BYTES:]):
        return None
    return kept[CHECKSUM_BYTES:]


def make_room(entries: Iterable[tuple[float, int, T]], excess: float, drop: Callable[[T], object]) -> bool:
    """Drop entries (last use, bytes, entry), in the order given, until `excess` bytes are free.

    Returns whether they are.

    >>> dropped = []
    >>> make_room([(1.0, 40, "old"), (2.0, 40, "new")], 30, dropped.append), dropped
    (True, ['old'])
    """
    for _, size, entry in entries:
        if excess <= 0:
            break
        drop(entry)
        excess -= size
    return excess <= 0


def stored_files(folder: Path, pattern: str) -> list[tuple[float, int, Path]]:
    """(last use, bytes, file) of every file of a cache, the longest unused first."""
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # dropped by another process just now
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return sorted(found)


def note_use(path: Path) -> None:
    """A file's time of change is its last use."""
    with contextlib.suppress(OSError):
        os.utime(path)
