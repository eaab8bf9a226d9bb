"""Members of zip and tar files: listed once per process and read in place, nothing extracted."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from saccade.errors import ImageError, SourceError
from saccade.files import open_file
from saccade.images.decoder import DEFAULT_MAX_BYTES
from saccade.sources.naming import some
from saccade.sources.remote import ObjectFile, note_of, object_of
from saccade.sources.storage import refuse_size, unreadable
from saccade.terminal import printable

_UTF8_NAME = 0x800  # flag of a zip member
OBJECT_PIECE_BYTES = 1 << 20
_CERTAIN_NAMES = 4  # different names of another encoding that are all valid UTF-8: less than 1 in 10,000


class TarMember(NamedTuple):
    """Where a member's bytes lie in its tar file."""

    offset: int
    size: int


class ZipMember(NamedTuple):
    """Where a member's local header lies, and what its packed and unpacked bytes must be."""

    offset: int
    packed: int
    size: int
    crc: int
    method: int


@dataclass(slots=True)
class Index:
    """What an archive holds: regular files by path, folders, and members that are not followed.

    `undeclared` are names, as read, whose encoding the archive does not say.
    """

    where: str
    files: dict[str, Any] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    undeclared: list[str] = field(default_factory=list)
    evil: list[str] = field(default_factory=list)
    twins: list[str] = field(default_factory=list)

    def take(self, name: str, member: TarMember | ZipMember | Literal[""] | None) -> None:
        """Take in one member: a file, a folder (""), or a link or device (None)."""
        path = name.replace("\\", "/")
        pieces = [piece for piece in path.split("/") if piece not in ("", ".")]
        if path.startswith("/") or ".." in pieces or path[1:2] == ":" or "\0" in path:
            self.evil.append(name)
            return
        path = "/".join(pieces)
        if member is None:
            self.passed_over.append(path)
        elif member == "":
            self.folders.append(path)
        elif path in self.files:
            self.twins.append(path)
        else:
            self.files[path] = member

    def refuse_bad_names(self) -> None:
        """Raise SourceError for names that lead out of the archive, and for two members of one name."""
        if self.evil:
            raise SourceError(
                f"{self.where}: names that lead out of the archive: {some(self.evil)}", hint="do not trust it"
            )
        if self.twins:
            raise SourceError(
                f"{self.where}: several members of one name: {some(self.twins)}", hint="pack it again"
            )


def archive_index(file: str) -> Index:
    """The index of a .zip or .tar file, kept until the file changes; raises SourceError, OSError."""
    try:
        return _index(file, os.stat(file).st_mtime_ns)
    except FileNotFoundError:
        return _index(file, os.stat(note_of(file)).st_mtime_ns)


def _open(file: str) -> BinaryIO:
    """An archive; where it is a copy that found no room in the cache, the object itself."""
    try:
        return open_file(file)
    except FileNotFoundError:
        away = object_of(file)
        if away is None:
            raise
        return cast(BinaryIO, away)


def _open_for_index(file: str) -> BinaryIO:
    """The same, to be read in small pieces: an object a megabyte at a time."""
    opened = _open(file)
    whole = isinstance(opened, ObjectFile)
    return cast(BinaryIO, io.BufferedReader(opened, OBJECT_PIECE_BYTES)) if whole else opened


@lru_cache(maxsize=1024)  # shards are many and small
def _index(file: str, stamp: int) -> Index:
    return zip_index(file) if file.lower().endswith(".zip") else tar_index(file)


def zip_index(file: str) -> Index:
    """The members of a zip file by path; raises SourceError when its directory cannot be read."""
    where = printable(file)
    try:
        with _open_for_index(file) as opened, zipfile.ZipFile(opened) as archive:
            infos = archive.infolist()
    except Exception as error:  # zipfile trusts what stands in the archive, and fails in many ways
        raise SourceError(
            f"{where}: cannot be read as zip ({error})", hint="copy it again from its source"
        ) from None
    found = Index(where)
    for info, name in zip(infos, _names(infos, found), strict=True):
        if info.flag_bits & 1:
            raise SourceError(f"{where}: is encrypted", hint="unpack it and give the folder")
        linked = stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
        member = ZipMember(
            info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type
        )
        found.take(name, None if linked else "" if info.is_dir() else member)
    found.refuse_bad_names()
    return found


def _names(infos: list[zipfile.ZipInfo], found: Index) -> list[str]:
    """The members' names; those of unknown encoding are written down in `found`.

    Without the UTF-8 flag a name is in code page 437 by the standard, in the packer's own by custom; macOS
    writes UTF-8. All are read as UTF-8 or none is. Few and short names may be valid UTF-8 by chance.
    """
    unflagged = [
        info.filename for info in infos if not info.flag_bits & _UTF8_NAME and not info.filename.isascii()
    ]
    read = {name: _as_utf8(name) for name in unflagged}
    pieces = {piece for name in unflagged for piece in name.split("/") if not piece.isascii()}
    if not all(read.values()):
        read = dict.fromkeys(unflagged, "")
    if not all(read.values()) or len(pieces) < _CERTAIN_NAMES:
        found.undeclared += [utf8 or name for name, utf8 in read.items()]
    return [read.get(info.filename) or info.filename for info in infos]


def _as_utf8(name: str) -> str:
    """A name that was read as code page 437 read as UTF-8, "" where it is none."""
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return ""


def tar_index(file: str) -> Index:
    """The members of an uncompressed tar file by path; one pass over its headers."""
    where = printable(file)
    try:
        with _open_for_index(file) as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            infos = archive.getmembers()
    except Exception as error:  # tarfile trusts what extended (pax) headers say, and fails in many ways
        raise SourceError(
            f"{where}: cannot be read as tar ({error})", hint="copy it again from its source"
        ) from None
    found = Index(where)
    sound = (info for info in infos if info.size >= 0 and info.offset_data >= 0)
    plain = {info.name: info for info in sound if info.isreg() and not info.issparse()}
    for info in infos:
        stored = plain.get(info.linkname) if info.islnk() else plain.get(info.name)  # a second name is a link
        member = TarMember(stored.offset_data, stored.size) if stored else None
        found.take(info.name, "" if info.isdir() else member)
    found.refuse_bad_names()
    return found


MOST_UNPACKED_RATIO = 100  # of a zip member above the size below; photographs reach about 2


_RATIO_MATTERS_BYTES = 1_000_000


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
        with _open(file) as opened:
            opened.seek(offset)
            return opened.read(size)
    except OSError as error:
        raise unreadable(error) from None
