"""Zip and tar archives: their members listed once, read in place later, nothing extracted."""

from __future__ import annotations

from pathlib import Path

from saccade.data.archive_index import Index, archive_index
from saccade.data.names import printable
from saccade.data.sources.layout import arrange
from saccade.data.sources.listing import Collector, Listing
from saccade.data.sources.lists import load_list_inside
from saccade.data.sources.naming import PART_OF_FOLDER, suffix
from saccade.data.sources.tables import TEXT_SUFFIXES, parse_text_table
from saccade.data.storage import ArchiveStorage
from saccade.errors import ImageError, SourceError
from saccade.records import Dataset


def load_archive(path: Path, *, group: str | None, drop_empty: bool, min_classes: int) -> Dataset:
    """The data set inside a zip or tar file; a single folder around everything is looked through."""
    where = printable(str(path))
    inner, folder = _without_wrapper(archive_index(str(path)))
    storage = ArchiveStorage(str(path), folder)
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
    said = (f"{where}: everything lies in {printable(folder)}/; paths are given below it",) if folder else ()
    return Dataset(
        path,
        layout.records,
        layout.classes,
        storage,
        layout.given_parts,
        ignored=listing.ignored,
        listed=(*said, *layout.listed),
        empty_classes=layout.empty_classes,
    )


def _read(storage: ArchiveStorage, name: str, where: str) -> bytes:
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
            index.where,
            {name[len(top) + 1 :]: at for name, at in index.files.items() if name.startswith(top + "/")},
            [name[len(top) + 1 :] for name in index.folders if name.startswith(top + "/")],
            index.passed_over,
        )


def refuse_packed_tar(path: Path) -> None:
    """Raise SourceError for a tar inside gzip and the like: it cannot be read in place."""
    raise SourceError(
        f"{printable(str(path))}: a packed tar cannot be read in place; "
        "do: unpack it and give the folder, or keep a plain .tar (gunzip, unxz, bunzip2)"
    )
