"""Files that somebody named: opened only where they are regular files, read only up to a bound.

A name can lead to a pipe, which waits for ever, or to a device, which never ends. Errors are OSError with a
`strerror` in words, so that a caller treats them as it treats a missing file.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any, BinaryIO

MOST_TEXT_BYTES = 1_000_000_000  # a list, a history, predictions: far more than any that was seen
MOST_WEIGHT_BYTES = 20_000_000_000

FileName = str | os.PathLike[str]


def open_file(path: FileName) -> BinaryIO:
    """The file, open for reading; raises OSError for a pipe, socket, device or folder without waiting."""
    _refuse_irregular(os.stat(path), path)  # first: opening a device can do something
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _refuse_irregular(os.fstat(file.fileno()), path)  # again, of what was opened
    except OSError:
        file.close()
        raise
    return file


def read_file(path: FileName, *, max_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """The file's bytes; raises OSError where it is absent, no regular file, or larger than `max_bytes`."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(
                errno.EFBIG, f"it has {size:,} bytes, more than the {max_bytes:,} allowed", os.fspath(path)
            )
        data = file.read(size + 1)  # Python makes room for all that is asked for
        return data if len(data) <= size else data + file.read(max_bytes - len(data))


def read_text(
    path: FileName, *, encoding: str = "utf-8", errors: str = "strict", max_bytes: int = MOST_TEXT_BYTES
) -> str:
    """The file's text, line ends as they are; raises what `read_file` does, and UnicodeDecodeError."""
    return read_file(path, max_bytes=max_bytes).decode(encoding, errors)


def parse_json(text: str | bytes, **options: Any) -> Any:
    """What `json.loads` reads; raises ValueError, and nothing else, where it cannot."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_text(values: Any) -> str:
    """Indented JSON that is valid UTF-8: where a name in it is not (PEP 383), all beyond ASCII is escaped.

    >>> json_text(chr(0xDCE9)).isascii(), json_text(chr(0xE9)).isascii()
    (True, False)
    """
    text = json.dumps(values, indent=2, ensure_ascii=False)
    return (text if is_utf8(text) else json.dumps(values, indent=2)) + "\n"


def is_utf8(text: str) -> bool:
    """Whether the text can be written as UTF-8; bytes that were no text cannot (PEP 383)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def file_size(size_bytes: int) -> str:
    """For people.

    >>> [file_size(size) for size in (812, 45_300, 7_340_000)]
    ['812 bytes', '45.3 kB', '7.3 MB']
    """
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    return f"{size_bytes / 1e3:.1f} kB" if size_bytes < 1e6 else f"{size_bytes / 1e6:,.1f} MB"


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted by name; raises OSError for a link, pipe, socket or device."""
    found = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    for path in found:
        _refuse_irregular(os.lstat(path), path)
    return found


def replace_folder(made: Path, target: Path, aside: Path) -> None:
    """Put `made` in the place of `target`, all on one disk: the name never stands for half of a folder.

    What was there goes `aside`, a free name, and is removed. Raises OSError.
    """
    if target.exists():
        os.rename(target, aside)
    os.rename(made, target)
    shutil.rmtree(aside, ignore_errors=True)


def _refuse_irregular(status: os.stat_result, path: FileName) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        kind = "it is a pipe, socket or device, not a regular file"
        raise OSError(errno.EINVAL, kind, os.fspath(path))


def lock_file(handle: int) -> bool:
    """Lock an open file for this process without waiting; False where another process holds it."""
    try:
        import fcntl
    except ModuleNotFoundError:
        return _lock_on_windows(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock_on_windows(handle: int) -> bool:
    """Lock a byte far behind the end: what is locked cannot be read, and the start says whose it is."""
    import msvcrt

    windows: Any = msvcrt  # its functions are declared on Windows alone
    os.lseek(handle, 1 << 30, os.SEEK_SET)
    try:
        windows.locking(handle, windows.LK_NBLCK, 1)
    except OSError:
        return False
    finally:
        os.lseek(handle, 0, os.SEEK_SET)
    return True
