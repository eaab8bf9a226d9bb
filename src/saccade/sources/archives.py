"""Zip and tar archives: their members listed once, read in place later, nothing extracted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saccade.errors import ImageError, SourceError
from saccade.records import Dataset, Finding
from saccade.sources.archive_index import Index, archive_index
from saccade.sources.layout import arrange
from saccade.sources.listing import Collector, Listing
from saccade.sources.lists import load_list_inside
from saccade.sources.names import printable, some
from saccade.sources.naming import suffix
from saccade.sources.part_names import part_hint
from saccade.sources.said import doubt
from saccade.sources.storage import ArchiveStorage
from saccade.sources.tables import TEXT_SUFFIXES, parse_text_table

NOT_FOLLOWED = "a link or device inside the archive; not followed, pack what it names"


def load_archive(path: Path, *, group: str | None, drop_empty: bool, min_classes: int) -> Dataset:
    """The data set inside a zip or tar file; a single folder around everything is looked through."""
    where = printable(str(path))
    index = archive_index(str(path))
    inner, folder = _without_wrapper(index)
    undeclared = _undeclared_names(index)
    storage = ArchiveStorage(str(path), folder)
    table_name = _list_at_root(inner)
    if table_name:
        table = parse_text_table(_read(storage, table_name, where), f"{where}: {table_name}")
        dataset = load_list_inside(
            table, table_name, path, storage, inner.files, group=group, min_classes=min_classes
        )
        return replace(dataset, findings=(*undeclared, *dataset.findings))
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
        lost=layout.lost,
        findings=(*undeclared, *layout.findings),
    )


def _means_part(name: str) -> bool:
    hint = part_hint(name)
    return bool(hint and hint.exact)


def _undeclared_names(index: Index) -> tuple[Finding, ...]:
    """Said where names may read otherwise than they were written; they become class names of the model."""
    names = index.undeclared
    if not names:
        return ()
    return (
        doubt(
            f"{len(names):,} names in this archive have no declared encoding and read as "
            f"{some(names, most=3)}",
            "If that is wrong, unpack it with the right encoding, or zip it again with UTF-8 names",
        ),
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
    for path in index.passed_over:
        found.lose(path, NOT_FOLLOWED, folder=not suffix(path))
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
        if len(tops) != 1 or top in index.files or not inner_folders or _means_part(top):
            return index, prefix
        prefix = f"{prefix}/{top}" if prefix else top
        index = Index(
            index.where,
            {name[len(top) + 1 :]: at for name, at in index.files.items() if name.startswith(top + "/")},
            [name[len(top) + 1 :] for name in index.folders if name.startswith(top + "/")],
            [name[len(top) + 1 :] for name in index.passed_over if name.startswith(top + "/")],
        )


def refuse_packed_tar(path: Path) -> None:
    """Raise SourceError for a tar inside gzip and the like: it cannot be read in place."""
    raise SourceError(
        f"{printable(str(path))}: a packed tar cannot be read in place; "
        "do: unpack it and give the folder, or keep a plain .tar (gunzip, unxz, bunzip2)"
    )
