"""Where the bytes of a data set's images lie: a folder, an archive, a table.

Every storage reads whole files by their path below the data's root, survives pickling between
worker processes, may be used from several threads at once, and raises ImageError for a file
that cannot be read. Nothing is ever extracted to disk.
"""

from __future__ import annotations

import errno
import gzip
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from saccade.errors import ImageError, SourceError
from saccade.files import open_file
from saccade.images.decoder import DEFAULT_MAX_BYTES
from saccade.sources.archive_index import TarMember, ZipMember, archive_index

MOST_UNPACKED_RATIO = 100  # of a zip member above the size below; photographs reach about 2
_RATIO_MATTERS_BYTES = 1_000_000
_MOST_ROW_GROUP_BYTES = 2_000_000_000


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


@dataclass(frozen=True, slots=True)
class ArchiveStorage:
    """Members of a zip or an uncompressed tar file below `folder`, read in place.

    Only the file's name travels to worker processes: each makes the index of members once for itself.
    Sizes and checksums of zip members are held against the archive's directory.
    """

    file: str
    folder: str = ""
    max_bytes: int = DEFAULT_MAX_BYTES

    def read(self, path: str) -> bytes:
        """The member's bytes; raises ImageError when it is damaged, too large, or packed too tightly."""
        return read_member(self.file, f"{self.folder}/{path}" if self.folder else path, self.max_bytes)


@dataclass(frozen=True, slots=True)
class ShardStorage:
    """Members of the tar files below a folder; a path is SHARD.tar/MEMBER."""

    root: Path
    max_bytes: int = DEFAULT_MAX_BYTES

    def read(self, path: str) -> bytes:
        """The member's bytes; raises ImageError when it cannot be read."""
        shard, _, name = path.partition(".tar/")
        return read_member(os.path.join(self.root, f"{shard}.tar"), name, self.max_bytes)


def read_member(file: str, name: str, max_bytes: int) -> bytes:
    """The bytes of one member of an archive; raises ImageError when it cannot be read."""
    try:
        member = archive_index(file).files.get(name)
    except SourceError:
        raise ImageError("its archive cannot be read any more", "Copy the archive again") from None
    except OSError as error:
        raise unreadable(error) from None
    if member is None:
        raise ImageError("not in the archive", "Check the name, or run again")
    refuse_size(member.size, max_bytes)
    if isinstance(member, TarMember):
        return read_range(file, member.offset, member.size)
    if member.size > max(_RATIO_MATTERS_BYTES, MOST_UNPACKED_RATIO * member.packed):
        raise ImageError(
            f"packed more than {MOST_UNPACKED_RATIO} to 1, as decompression bombs are",
            "Unpack the archive and give the folder",
        )
    return unpack(_packed(file, member), member)


def _packed(file: str, member: ZipMember) -> bytes:
    """The bytes behind a zip member's local header, which repeats its name and some extra fields."""
    slack = 30 + 512  # nearly always enough for header, name and extra fields: one read
    data = read_up_to(file, member.offset, slack + member.packed)
    if data[:4] != b"PK\x03\x04" or len(data) < 30:
        raise _damaged_member("no local header")
    start = 30 + sum(struct.unpack_from("<HH", data, 26))
    if start > slack:
        return read_range(file, member.offset + start, member.packed)
    return data[start : start + member.packed]


def unpack(packed: bytes, member: ZipMember) -> bytes:
    """A zip member's bytes, which must have its size and checksum; raises ImageError."""
    if member.method == 0:
        data = packed
    elif member.method == 8:
        try:
            data = zlib.decompressobj(-15).decompress(packed, member.size + 1)
        except zlib.error as error:
            raise _damaged_member(str(error)) from None
    else:
        raise ImageError(
            f"packed with zip method {member.method}", "Pack the archive again with deflate, or without"
        )
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise _damaged_member("wrong size or checksum")
    return data


def _damaged_member(what: str) -> ImageError:
    return ImageError(f"damaged in its archive ({what})", "Copy the archive again from its source")


def read_range(file: str, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset`; raises ImageError when there are fewer."""
    data = read_up_to(file, offset, size)
    if len(data) != size:
        raise ImageError("cut off: its archive ends too early", "Copy the archive again from its source")
    return data


def read_up_to(file: str, offset: int, size: int) -> bytes:
    """At most `size` bytes of a file from `offset`; raises ImageError when it cannot be read."""
    try:
        with open_file(file) as opened:
            opened.seek(offset)
            return opened.read(size)
    except OSError as error:
        raise unreadable(error) from None


@dataclass(frozen=True, slots=True)
class ColumnStorage:
    """An image column of Parquet files, or of the Arrow files that `datasets` saves.

    A path is FILE/ROW, FILE relative to `root`. One row group after the other is held in memory, so
    reading in file order is quick and reading at random is slow where row groups are large.
    """

    root: Path
    column: str
    max_bytes: int = DEFAULT_MAX_BYTES

    def read(self, path: str) -> bytes:
        """The bytes in the row's image; raises ImageError when there are none."""
        name, _, row = path.rpartition("/")
        full = os.path.join(self.root, name)
        try:
            stamp = os.stat(full).st_mtime_ns  # a file that was rewritten is read anew
            value = self._value(full, int(row), stamp)
        except OSError as error:
            raise unreadable(error) from None
        except (ValueError, IndexError) as error:
            raise ImageError(f"cannot be read from its table ({error})", "Write the table again") from None
        if value is None:
            raise ImageError("the table holds no bytes for this row", "Save it with the images embedded")
        refuse_size(len(value), self.max_bytes)
        return value

    def _value(self, full: str, row: int, stamp: int) -> bytes | None:
        if full.endswith(".arrow"):
            return _bytes_at(_arrow_column(full, self.column, stamp), row)
        for group, rows in enumerate(_row_groups(full, stamp)):
            if row < rows:
                return _bytes_at(_parquet_column(full, self.column, group, stamp), row)
            row -= rows
        raise IndexError("no such row")


def _bytes_at(column: Any, row: int) -> bytes | None:
    value: bytes | None = column[row].as_py()
    return value


@lru_cache(maxsize=64)
def _row_groups(full: str, stamp: int) -> tuple[int, ...]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(full) as file:
        return tuple(file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups))


@lru_cache(maxsize=3)
def _parquet_column(full: str, column: str, group: int, stamp: int) -> Any:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(full) as file:
        if file.metadata.row_group(group).total_byte_size > _MOST_ROW_GROUP_BYTES:
            raise ValueError("a row group of more than 2 GB; write it with smaller ones")
        return _image_bytes(file.read_row_group(group, columns=[column]), column)


@lru_cache(maxsize=64)
def _arrow_column(full: str, column: str, stamp: int) -> Any:
    import pyarrow

    with pyarrow.memory_map(full) as mapped:  # the columns keep the mapping alive; nothing is copied
        table = pyarrow.ipc.open_stream(mapped).read_all()
    table.validate()
    return _image_bytes(table, column)


def _image_bytes(table: Any, column: str) -> Any:
    """The binary values of a column of bytes, or of structs {bytes, path} as `datasets` writes them."""
    import pyarrow
    import pyarrow.compute as compute

    values = table.column(column)
    if pyarrow.types.is_struct(values.type):
        values = compute.struct_field(values, "bytes")
    return values


@dataclass(frozen=True, slots=True)
class IdxStorage:
    """Gray images of IDX files (the format of MNIST), handed out as PGM. A path is PART/NUMBER.pgm."""

    files: Mapping[str, str]

    def read(self, path: str) -> bytes:
        """The image's bytes as PGM; raises ImageError when there is no such image."""
        part, _, name = path.partition("/")
        try:
            images = read_idx(self.files[part])
            height, width = images.shape[1:]
            pixels: bytes = images[int(name.removesuffix(".pgm"))].tobytes()
        except (KeyError, IndexError, ValueError) as error:
            raise ImageError(f"not in the data set ({error})", "Check the name, or run again") from None
        except OSError as error:
            raise unreadable(error) from None
        return b"P5\n%d %d\n255\n" % (width, height) + pixels


@lru_cache(maxsize=4)
def read_idx(file: str) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, packed with gzip or not; raises ValueError, OSError."""
    try:
        with open_file(file) as raw, gzip.open(raw) if file.endswith(".gz") else raw as opened:
            data = opened.read(_MOST_ROW_GROUP_BYTES)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"damaged gzip: {error}") from None
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise ValueError("not an IDX file of unsigned bytes")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
