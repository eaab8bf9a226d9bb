"""From a location to a Dataset: what is listed, labelled and assigned to parts, without decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saccade.errors import SourceError
from saccade.records import Dataset
from saccade.sources.archives import is_shard, load_archive, load_shards, refuse_packed_tar, shards_at
from saccade.sources.columns import load_columns, load_saved, looks_saved, parquet_files, parquet_is_list
from saccade.sources.groups import with_groups
from saccade.sources.layout import arrange
from saccade.sources.listing import list_folder
from saccade.sources.lists import load_list
from saccade.sources.named import PREFIX, load_named
from saccade.sources.naming import natural_key
from saccade.sources.storage import FolderStorage
from saccade.sources.tables import TEXT_SUFFIXES, read_parquet_table, read_text_table
from saccade.terminal import printable

__all__ = ["load_source", "natural_key", "printable"]

_PACKED_TARS = (".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def load_source(
    location: str | Path,
    *,
    group: str | None = None,
    group_pattern: str | None = None,
    drop_empty: bool = False,
    min_classes: int = 2,
) -> Dataset:
    """The data set at `location`; raises SourceError with every problem that was found.

    A location is a folder of class folders (alone or below train/, val/, test/), a list (CSV, TSV,
    JSON Lines, Parquet) with path,label[,part][,group], a zip or tar archive of either, WebDataset
    shards (a folder, a tar or a pattern such as `train-{000..009}.tar`), a folder saved by Hugging
    Face `datasets`, Parquet with an image column, or `torchvision:NAME`.

    `group` names a column; `group_pattern` is a regular expression on the relative path.
    `drop_empty` leaves class folders without an image out instead of stopping.
    """
    if group and group_pattern:
        raise SourceError("--group and --group-pattern both name the groups; give one of them")
    if not str(location).strip():
        raise SourceError("the place of the data is empty; give a folder, list or archive")
    options = {"group": group, "min_classes": min_classes}
    dataset = _load(str(location), drop_empty, options)
    if group_pattern:
        dataset = dataset.with_records(with_groups(dataset.records, group_pattern))
    return dataset


def _load(location: str, drop_empty: bool, options: dict[str, Any]) -> Dataset:
    if location.startswith(PREFIX):
        return load_named(location)
    path = Path(location).expanduser().absolute()
    if path.is_dir():
        return _load_folder(path, drop_empty, options)
    if path.is_file():
        return _load_file(path, drop_empty, options)
    shards = shards_at(path)  # a pattern
    if shards:
        return load_shards(path.parent, shards, **options)
    raise SourceError(f"{printable(location)}: no such file or folder; do: check the path")


def _load_file(path: Path, drop_empty: bool, options: dict[str, Any]) -> Dataset:
    name, ending = path.name.lower(), path.suffix.lower().lstrip(".")
    if ending in TEXT_SUFFIXES:
        return load_list(read_text_table(path), path, **options)
    if ending == "parquet":
        if parquet_is_list(path):
            return load_list(read_parquet_table(path), path, **options)
        return load_columns(path.parent, (path,), **options)
    if ending == "zip":
        return load_archive(path, drop_empty=drop_empty, **options)
    if name.endswith(_PACKED_TARS):
        refuse_packed_tar(path)
    if ending == "tar":
        if is_shard(path):
            return load_shards(path.parent, (path,), **options)
        return load_archive(path, drop_empty=drop_empty, **options)
    raise SourceError(
        f"{printable(str(path))}: not a data set that is read; do: give a folder of class folders, a list "
        "(.csv, .tsv, .jsonl, .parquet) with path,label, or an archive (.zip, .tar)"
    )


def _load_folder(root: Path, drop_empty: bool, options: dict[str, Any]) -> Dataset:
    where = printable(str(root))
    if looks_saved(root):
        return load_saved(root, **options)
    listing = list_folder(root)
    if not listing.files:
        shards, tables = shards_at(root), parquet_files(root)
        if shards:
            return load_shards(root, shards, **options)
        if tables:
            return load_columns(root, tables, **options)
    if options["group"]:
        raise SourceError(
            f"{where}: a folder has no columns, so --group {options['group']!r} means nothing; "
            "use --group-pattern"
        )
    layout = arrange(listing, where, drop_empty=drop_empty, min_classes=options["min_classes"])
    return Dataset(
        root,
        layout.records,
        layout.classes,
        FolderStorage(root),
        layout.given_parts,
        ignored=listing.ignored,
        listed=layout.listed,
        empty_classes=layout.empty_classes,
        lost=layout.lost,
        findings=layout.findings,
    )
