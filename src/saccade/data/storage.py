"""Where the bytes of a data set's images lie: a folder, an archive, a table.

Every storage reads whole files by their path below the data's root, survives pickling between
worker processes, may be used from several threads at once, and raises ImageError for a file
that cannot be read. Nothing is ever extracted to disk.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from saccade.data.images import DEFAULT_MAX_BYTES
from saccade.errors import ImageError


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
                _refuse_escape(full, os.path.realpath(self.root))
            status = os.stat(full)
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
                raise ImageError("not a regular file (a pipe, socket, device or folder)", "Remove it")
            if status.st_size > self.max_bytes:
                raise too_large(status.st_size, self.max_bytes)
            with open(full, "rb") as file:
                return file.read(self.max_bytes + 1)
        except OSError as error:
            raise unreadable(error) from None


def _refuse_escape(full: str, real_root: str) -> None:
    real = os.path.realpath(full)
    if os.path.commonpath([real, real_root]) != real_root:
        raise ImageError("a link that leads out of the data's folder", "Copy the file into the folder")


def too_large(size: int, max_bytes: int) -> ImageError:
    """What to say of a file that is not read because of its size, in bytes."""
    return ImageError(
        f"{size / 1e6:,.0f} MB, more than the limit of {max_bytes / 1e6:,.0f} MB for one file; not read",
        "Scale it down to use it",
    )


def unreadable(error: OSError) -> ImageError:
    """What to say when the system refuses to open or read a file."""
    if isinstance(error, FileNotFoundError):
        return ImageError(
            "no longer there, or moved, since the folder was listed", "Restore it, or run again"
        )
    if isinstance(error, PermissionError):
        return ImageError("not readable (permission denied)", "Allow it with: chmod u+r FILE")
    return ImageError(f"cannot be read ({error.strerror})", "Check the disk, then copy the file again")
