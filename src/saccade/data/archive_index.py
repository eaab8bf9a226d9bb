"""The members of zip and tar files by path, listed without extracting; each index is made once a process."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from saccade.data.names import printable, some
from saccade.errors import SourceError


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
    """What an archive holds: regular files by path, folders, and members that are not followed."""

    where: str
    files: dict[str, Any] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
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
            self.passed_over.append(f"{printable(path)}: a link or device inside the archive; not followed")
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
                f"{self.where}: names that lead out of the archive: {some(self.evil)}; do not trust it"
            )
        if self.twins:
            raise SourceError(f"{self.where}: several members of one name: {some(self.twins)}; pack it again")


def archive_index(file: str) -> Index:
    """The index of a .zip or .tar file, kept until the file changes; raises SourceError, OSError."""
    return _index(file, os.stat(file).st_mtime_ns)


@lru_cache(maxsize=1024)  # shards are many and small
def _index(file: str, stamp: int) -> Index:
    return zip_index(file) if file.lower().endswith(".zip") else tar_index(file)


def zip_index(file: str) -> Index:
    """The members of a zip file by path; raises SourceError when its directory cannot be read."""
    where = printable(file)
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, zlib.error) as error:
        raise SourceError(
            f"{where}: cannot be read as zip ({error}); copy it again from its source"
        ) from None
    found = Index(where)
    for info in infos:
        if info.flag_bits & 1:
            raise SourceError(f"{where}: is encrypted; unpack it and give the folder")
        linked = stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
        member = ZipMember(
            info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type
        )
        found.take(info.filename, None if linked else "" if info.is_dir() else member)
    found.refuse_bad_names()
    return found


def tar_index(file: str) -> Index:
    """The members of an uncompressed tar file by path; one pass over its headers."""
    where = printable(file)
    try:
        with tarfile.open(file, "r:") as archive:
            infos = archive.getmembers()
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise SourceError(
            f"{where}: cannot be read as tar ({error}); copy it again from its source"
        ) from None
    found = Index(where)
    for info in infos:
        plain = info.isreg() and not info.issparse()
        member = TarMember(info.offset_data, info.size)
        found.take(info.name, member if plain else "" if info.isdir() else None)
    found.refuse_bad_names()
    return found
