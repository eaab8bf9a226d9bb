"""Arrays that lie in files, for data sets whose pictures do not fit in memory.

A file has no name: it is gone with the array in it, also after a kill. What was read or written of it counts
as memory of this process until it is let go; the system may keep it cached.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from typing import IO, Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from saccade.caches.store import cache_folder
from saccade.errors import DataError
from saccade.files import file_size

IN_MEMORY_IMAGES = 1_000_000  # up to here pictures are compared in memory (11 kB an image), beyond on disk


def fit_in_memory(images: int) -> bool:
    """Whether so many are compared in memory: the same on every machine, for a few pairs depend on it."""
    return images <= IN_MEMORY_IMAGES


class Stored(np.memmap[Any, Any]):
    """An array in a file, whose rows `rows_of` reads without the pages around them."""

    file: IO[bytes] | None = None

    def __del__(self) -> None:
        if self.file is not None:
            self.file.close()


def stored_array(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Zeros in a file of its own. Raises DataError where there is no room for it."""
    size = max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
    file = nameless_file(size)
    mapped = np.memmap(file, dtype, "r+", shape=(max(1, shape[0]), *shape[1:]))
    array = mapped[: shape[0]].view(Stored)
    array.file = file  # of a part of the array nothing is known
    return array


def rows_of(array: NDArray[Any], rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """A copy of these rows. Mapped pages would count as memory, up to 2 MB for each row."""
    file = getattr(array, "file", None)
    if file is None or not len(rows) or not hasattr(os, "preadv"):
        return np.asarray(array[rows])
    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    places, row_bytes = found.reshape(len(rows), -1).view(np.uint8), found[:1].nbytes
    begins = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()  # of rows in a row
    for begin, end in pairwise([*begins, len(rows)]):
        os.preadv(file.fileno(), [places[begin:end].data], int(rows[begin]) * row_bytes)
    return found


def nameless_file(size: int = 0) -> IO[bytes]:
    """A file below the cache's folder, with room for `size` bytes. Raises DataError where there is none."""
    folder = cache_folder() / "near-duplicates"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif size:
            file.truncate(size)
    except OSError as error:
        raise DataError(
            f"near-duplicates of so many images need {file_size(size)} more on disk, in {folder}: "
            f"{error.strerror or error}",
            hint="Set SACCADE_CACHE to a folder on a disk with more room",
        ) from None
    return cast(IO[bytes], file)


def let_go(*arrays: Any) -> None:
    """Give back the memory that was taken to read or write these; nothing is lost."""
    for array in arrays:
        if isinstance(array, Chosen):
            let_go(*array.parts)
        mapping = getattr(array, "_mmap", None)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


class Chosen:
    """Rows of arrays that follow one another, copied when they are asked for.

    >>> chosen = Chosen([np.arange(3), np.arange(10, 13)], np.array([4, 0, 2]))
    >>> chosen[1:].tolist(), chosen[np.array([0, 0])].tolist(), len(chosen)
    ([0, 2], [11, 11], 3)
    """

    def __init__(self, parts: Sequence[Any], rows: NDArray[np.integer[Any]]) -> None:
        self.parts, self.rows = parts, rows
        self.shape = (len(rows), *parts[0].shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Any) -> NDArray[Any]:
        rows, first = self.rows[which], 0
        found = np.empty((len(rows), *self.shape[1:]), self.parts[0][:0].dtype)
        for part in self.parts:
            inside = np.flatnonzero((rows >= first) & (rows < first + len(part)))
            found[inside] = rows_of(part, rows[inside] - first)
            first += len(part)
        return found


def chosen_rows(parts: Sequence[Any], rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
    """`Chosen`, for those who index, slice and measure it as an array."""
    return cast(NDArray[Any], Chosen(parts, rows))
