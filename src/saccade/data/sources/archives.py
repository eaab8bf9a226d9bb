"""Zip and tar archives: their members listed once, read in place later, nothing extracted."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from saccade.data.sources.layout import arrange
from saccade.data.sources.listing import Collector, Listing
from saccade.data.sources.lists import load_list_inside
from saccade.data.sources.naming import PART_OF_FOLDER, printable, some, suffix
from saccade.data.sources.tables import TEXT_SUFFIXES, parse_text_table
from saccade.data.storage import TarMember, TarStorage, ZipMember, ZipStorage
from saccade.errors import ImageError, SourceError
from saccade.records import Dataset

Archive = ZipStorage | TarStorage


@dataclass(slots=True)
class Index:
    """What an archive holds: regular files by path, folders, and members that are not followed."""

    files: dict[str, Any] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def load_zip(path: Path, **options: Any) -> Dataset:
    """The data set inside a zip file; see `load_archive` for `options`."""
    index = zip_index(path)
    return _load_archive(path, index, partial(ZipStorage, str(path)), **options)


def load_tar(path: Path, **options: Any) -> Dataset:
    """The data set inside an uncompressed tar file; see `load_archive` for `options`."""
    index = tar_index(path)
    return _load_archive(path, index, partial(TarStorage, (str(path),)), **options)


def _load_archive(
    path: Path,
    index: Index,
    make_storage: Callable[[dict[str, Any]], Archive],
    *,
    group: str | None,
    drop_empty: bool,
    min_classes: int,
) -> Dataset:
    """The layout below the archive's root; a single folder around everything is looked through."""
    where = printable(str(path))
    inner, prefix = _without_wrapper(index)
    storage = make_storage(inner.files)
    table_name = _list_at_root(inner)
    if table_name:
        table = parse_text_table(_read(storage, table_name, where), f"{where}: {table_name}")
        return load_list_inside(
            table, table_name, path, storage, inner.files.__contains__, group=group, min_classes=min_classes
        )
    if group:
        raise SourceError(f"{where}: has no columns, so --group {group!r} means nothing; use --group-pattern")
    listing = _listing(inner)
    layout = arrange(listing, where, drop_empty=drop_empty, min_classes=min_classes)
    said = (f"{where}: everything lies in {printable(prefix)}/; paths are given below it",) if prefix else ()
    return Dataset(
        path,
        layout.records,
        layout.classes,
        make_storage({record.path: inner.files[record.path] for record in layout.records}),
        layout.given_parts,
        ignored=listing.ignored,
        listed=(*said, *layout.listed),
        empty_classes=layout.empty_classes,
    )


def _read(storage: Archive, name: str, where: str) -> bytes:
    try:
        return storage.read(name)
    except ImageError as error:
        raise SourceError(f"{where}: {printable(name)}: {error.reason}. {error.remedy}") from None


def _list_at_root(index: Index) -> str:
    """A list (path,label) that lies beside the images' folders; "" when there is none, or several."""
    names = [name for name in index.files if "/" not in name and suffix(name) in TEXT_SUFFIXES]
    return names[0] if len(names) == 1 else ""


def _listing(index: Index) -> Listing:
    """The archive's names as a Listing, by the same rules as a folder on disk."""
    found = Collector()
    found.listed += index.passed_over
    accepted: dict[str, bool] = {"": True}

    def accept(folder: str) -> bool:
        if folder not in accepted:
            parent = folder.rpartition("/")[0]
            accepted[folder] = accept(parent) and found.folder(folder)
        return accepted[folder]

    for folder in sorted(index.folders):
        accept(folder)
    for name in sorted(index.files):
        if accept(name.rpartition("/")[0]):
            found.file(name)
    return found.listing()


def _without_wrapper(index: Index) -> tuple[Index, str]:
    """The index below the one folder that holds everything, and that folder; as it is without one."""
    prefix = ""
    while True:
        tops = {name.split("/")[0] for name in (*index.files, *index.folders)}
        inner_folders = any(name.count("/") > 1 for name in index.files)
        tops -= {"__MACOSX"}
        top = next(iter(tops), "")
        if len(tops) != 1 or top in index.files or not inner_folders or top.casefold() in PART_OF_FOLDER:
            return index, prefix
        prefix = f"{prefix}/{top}" if prefix else top
        index = Index(
            {name[len(top) + 1 :]: at for name, at in index.files.items() if name.startswith(top + "/")},
            [name[len(top) + 1 :] for name in index.folders if name.startswith(top + "/")],
            index.passed_over,
        )


def clean_names(names: Iterable[str], where: str) -> dict[str, str]:
    """Path by member name; raises SourceError for names that lead out of the archive, and for twins."""
    paths: dict[str, str] = {}
    evil, twins, seen = [], [], set()
    for name in names:
        path = name.replace("\\", "/").removeprefix("./").rstrip("/")
        pieces = path.split("/")
        if path.startswith("/") or ".." in pieces or path[1:2] == ":" or "\0" in path:
            evil.append(name)
        elif path and path in seen:
            twins.append(name)
        seen.add(path)
        paths[name] = "/".join(piece for piece in pieces if piece not in ("", "."))
    if evil:
        raise SourceError(f"{where}: names that lead out of the archive: {some(evil)}; do not trust it")
    if twins:
        raise SourceError(f"{where}: several members of one name: {some(twins)}; pack it again")
    return paths


def zip_index(path: Path) -> Index:
    """The members of a zip file by path; raises SourceError when its directory cannot be read."""
    where = printable(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, zlib.error) as error:
        raise SourceError(
            f"{where}: cannot be read as zip ({error}); copy it again from its source"
        ) from None
    paths = clean_names((info.filename for info in infos), where)
    index = Index()
    for info in infos:
        name = paths[info.filename]
        if info.flag_bits & 1:
            raise SourceError(f"{where}: is encrypted; unpack it and give the folder")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            index.passed_over.append(f"{printable(name)}: a link or device inside the archive; not followed")
        elif info.is_dir():
            index.folders.append(name)
        else:
            index.files[name] = ZipMember(
                info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type
            )
    return index


def tar_index(path: Path, *, file_number: int = 0) -> Index:
    """The members of an uncompressed tar file by path; one pass over its headers."""
    where = printable(str(path))
    try:
        with tarfile.open(path, "r:") as archive:
            infos = archive.getmembers()
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise SourceError(
            f"{where}: cannot be read as tar ({error}); copy it again from its source"
        ) from None
    paths = clean_names((info.name for info in infos), where)
    index = Index()
    for info in infos:
        name = paths[info.name]
        if info.isdir():
            index.folders.append(name)
        elif info.isreg() and not info.issparse():
            index.files[name] = TarMember(file_number, info.offset_data, info.size)
        else:
            index.passed_over.append(f"{printable(name)}: a link or device inside the archive; not followed")
    return index


def refuse_packed_tar(path: Path) -> None:
    """Raise SourceError for a tar inside gzip and the like: it cannot be read in place."""
    raise SourceError(
        f"{printable(str(path))}: a packed tar cannot be read in place; "
        "do: unpack it and give the folder, or keep a plain .tar (gunzip, unxz, bunzip2)"
    )
