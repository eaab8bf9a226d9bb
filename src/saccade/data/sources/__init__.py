"""From a location to a Dataset: what is listed, labelled and assigned to parts, without decoding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from saccade.data.sources.groups import with_groups
from saccade.data.sources.layout import arrange
from saccade.data.sources.listing import list_folder
from saccade.data.sources.lists import LIST_SUFFIXES, load_list
from saccade.data.sources.naming import natural_key, printable
from saccade.data.storage import FolderStorage
from saccade.errors import SourceError
from saccade.records import Dataset

__all__ = ["load_source", "natural_key", "printable"]


def load_source(
    location: str | Path,
    *,
    group: str | None = None,
    group_pattern: str | None = None,
    drop_empty: bool = False,
    min_classes: int = 2,
) -> Dataset:
    """The data set at `location`; raises SourceError with every problem that was found.

    `group` names a column of a list; `group_pattern` is a regular expression on the relative path.
    `drop_empty` leaves class folders without an image out instead of stopping.
    """
    if group and group_pattern:
        raise SourceError("--group and --group-pattern both name the groups; give one of them")
    dataset = _load(location, group, drop_empty, min_classes)
    if group_pattern:
        dataset = dataset.with_records(with_groups(dataset.records, group_pattern))
    return dataset


def _load(location: str | Path, group: str | None, drop_empty: bool, min_classes: int) -> Dataset:
    path = Path(location).expanduser().absolute()
    where = printable(str(location))
    if not path.exists():
        raise SourceError(f"{where}: no such file or folder; do: check the path")
    if path.is_file() and path.suffix.lower().lstrip(".") in (*LIST_SUFFIXES, "parquet"):
        return load_list(path, group=group, min_classes=min_classes)
    if not path.is_dir():
        raise SourceError(
            f"{where}: is neither a folder of images nor a list; do: give a folder, or a CSV with path,label"
        )
    if group:
        raise SourceError(
            f"{where}: a folder has no columns, so --group {group!r} means nothing; use --group-pattern"
        )
    return _load_folder(path, where, drop_empty, min_classes)


def _load_folder(root: Path, where: str, drop_empty: bool, min_classes: int) -> Dataset:
    listing = list_folder(root)
    layout = arrange(listing, where, drop_empty=drop_empty, min_classes=min_classes)
    return Dataset(
        root,
        layout.records,
        layout.classes,
        FolderStorage(root),
        layout.given_parts,
        ignored=listing.ignored,
        listed=layout.listed,
        empty_classes=layout.empty_classes,
    )
