"""Reading image files below a folder.

Every storage (also those of archives, tables and IDX files) reads whole files by their path below the data's
root, survives pickling between worker processes, may be used from several threads at once, and raises
ImageError for a file that cannot be read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from saccade.errors import ImageError
from saccade.files import open_file
from saccade.images.decoder import DEFAULT_MAX_BYTES
from saccade.threads import usable_cores

if TYPE_CHECKING:
    from saccade.records import Storage


@dataclass(frozen=True, slots=True)
class Stored:
    """An image that a storage reads when its turn comes, in the thread that decodes it."""

    storage: Storage
    path: str


def read_ahead(storage: Storage, paths: Sequence[str]) -> Storage:
    """A storage for these paths that begins with them now where reading means waiting.

    For one of as many threads as there are cores.
    """
    begin = getattr(storage, "ahead", None)
    return begin(paths, threads=usable_cores()) if begin else storage


@dataclass(frozen=True, slots=True)
class FolderStorage:
    """Files below a folder. Links that lead out of it are refused unless `outside` is allowed.

    `outside` is for lists, whose rows may name files beside the list's folder on purpose.
    """

    root: Path
    max_bytes: int = DEFAULT_MAX_BYTES
    outside: bool = False

    def read(self, path: str) -> bytes:
        """The file's bytes; raises ImageError when it is gone, unreadable or too large."""
        full = os.path.join(self.root, path)
        try:
            if not self.outside:
                _refuse_escape(full, str(self.root))
            with open_file(full) as file:
                size = os.fstat(file.fileno()).st_size
                refuse_size(size, self.max_bytes)
                return _read_all(file, size, self.max_bytes)
        except OSError as error:
            raise unreadable(error) from None


def _read_all(file: IO[bytes], size: int, max_bytes: int) -> bytes:
    """At most `max_bytes` and one more of a file that had `size` bytes.

    Not asked for at once: Python makes room for all that is asked for, which takes longer than a small file.
    """
    data = file.read(size + 1)
    return data if len(data) <= size else data + file.read(max(0, max_bytes - size))


def _refuse_escape(full: str, root: str) -> None:
    """Raise ImageError where the file lies outside of the root once all links are followed."""
    folder, name = os.path.split(full)
    plain = name not in ("", os.curdir, os.pardir) and not os.path.islink(full)
    real, real_root = _real_folder(folder) if plain else os.path.realpath(full), _real_folder(root)
    if os.path.commonpath([real, real_root]) != real_root:
        raise ImageError("a link that leads out of the data's folder", "Copy the file into the folder")


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    """Looked up once a process: it costs as much as reading a small file."""
    return os.path.realpath(folder)


def refuse_size(size: int, max_bytes: int) -> None:
    """Raise ImageError for a file of more bytes than allowed, before any is read."""
    if size > max_bytes:
        raise ImageError(
            f"{size / 1e6:,.0f} MB, more than the limit of {max_bytes / 1e6:,.0f} MB for one file; not read",
            "Scale it down to use it",
        )


def unreadable(error: OSError) -> ImageError:
    """What to say when the system refuses to open or read a file."""
    if isinstance(error, FileNotFoundError):
        return ImageError(
            "no longer there, or moved, since the folder was listed", "Restore it, or run again without it"
        )
    if isinstance(error, IsADirectoryError) or error.errno == errno.EINVAL:
        return ImageError("not a regular file (a pipe, socket, device or folder)", "Remove it")
    if isinstance(error, PermissionError):
        return ImageError("not readable (permission denied)", "Allow it with: chmod u+r FILE")
    return ImageError(f"cannot be read ({error.strerror})", "Check the disk, then copy the file again")
