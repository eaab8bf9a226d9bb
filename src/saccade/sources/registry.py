"""`load_source`: the first of our own sources that matches a location reads it.

Sources of other packages (`saccade.extensions.register_source`, entry points `saccade.sources`) read
locations that begin with their name and a colon. `saccade.testing.check_source` checks such a source.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

from saccade import extensions
from saccade.errors import ImageError, SourceError
from saccade.records import PARTS, Dataset, ImageRecord, Storage
from saccade.sources.addresses import is_remote, without_secrets
from saccade.sources.archives import is_shard, load_archive, load_shards, refuse_packed_tar, shards_at
from saccade.sources.columns import (
    load_columns,
    load_saved,
    parquet_files,
    parquet_is_list,
    stored_root,
    stored_stamps,
)
from saccade.sources.elsewhere import Copies, copies_at, is_folder, listing_below, packed_below
from saccade.sources.grouping import with_groups
from saccade.sources.in_python import is_inputs, load_inputs
from saccade.sources.layout import arrange
from saccade.sources.listing import Listing, list_folder
from saccade.sources.lists import load_list
from saccade.sources.named import PREFIX, load_named
from saccade.sources.naming import how_it_is_read, some
from saccade.sources.remote import RemoteStorage
from saccade.sources.rows import mind_memory
from saccade.sources.storage import FolderStorage
from saccade.sources.tables import (
    TEXT_SUFFIXES,
    USUAL_COLUMNS,
    Columns,
    read_parquet_table,
    read_text_table,
    refuse_columns,
)
from saccade.terminal import printable

_PACKED_TARS = (".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_SHOWN_PROBLEMS = 5
_CORRECT = "Correct the source"


@dataclass(frozen=True, slots=True)
class Asked:
    """How data are to be read: what columns are called, whether empty classes may be left out, whether .npy
    files in folders are images."""

    columns: Columns = USUAL_COLUMNS
    drop_empty: bool = False
    min_classes: int = 2
    read_npy: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """`matches(location)` says whether this source reads it; `load(location, asked)` does."""

    matches: Callable[[str], bool]
    load: Callable[[str, Asked], Dataset]


def load_source(
    location: str | Path,
    *,
    group: str | None = None,
    group_pattern: str | None = None,
    columns: Columns = USUAL_COLUMNS,
    drop_empty: bool = False,
    min_classes: int = 2,
    read_npy: bool = False,
) -> Dataset:
    """The data set at `location`; raises SourceError with every problem that was found.

    A location is a folder of class folders (alone or below train/, val/, test/), a list (CSV, TSV,
    JSON Lines, Parquet) with path,label[,part][,group], a zip or tar archive of either, WebDataset
    shards (a folder, a tar or a pattern such as `train-{000..009}.tar`), a folder saved by Hugging
    Face `datasets`, Parquet with an image column, the address of one of these (s3://, gs://, az://,
    https://), `torchvision:NAME`, or what a registered source reads.

    `group` names a column; `group_pattern` is a regular expression on the relative path. `columns` says what
    the others are called.
    `drop_empty` leaves class folders without an image out instead of stopping; with `read_npy`, .npy files
    in folders are images.
    """
    if (group or columns.group) and group_pattern:
        raise SourceError("--group and --group-pattern both name the groups", hint="give one of them")
    place = without_secrets(str(location))
    if not place.strip():
        raise SourceError("the data path is empty", hint="give a folder, list or archive")
    columns = replace(columns, group=group or columns.group)
    dataset = _source_of(place).load(place, Asked(columns, drop_empty, min_classes, read_npy))
    if group_pattern:
        dataset = dataset.with_records(with_groups(dataset.records, group_pattern))
    return dataset


def _source_of(location: str) -> Source:
    """The first of ours that matches, else what is registered under the name before the colon."""
    for source in SOURCES.values():
        if source.matches(location):
            return source
    name, colon, _ = location.partition(":")
    if colon and (load := extensions.find("sources", name)) is not None:
        return Source(lambda _: True, functools.partial(_load_from_outside, name, load))
    if _path(location).exists():
        raise SourceError(
            f"not a data set that saccade reads: {printable(location)}",
            hint="give a folder of class folders, a list (.csv, .tsv, .jsonl, .parquet) with path,label, or "
            "an archive (.zip, .tar)",
        )
    known = ", ".join(f"{name}:..." for name in extensions.names("sources"))
    also = f"; data sources of installed packages: {known}" if colon and known else ""
    raise SourceError(f"data path does not exist: {printable(location)}", hint=f"check the path{also}")


# -- sources of other packages ---------------------------------------------------------------------


def _load_from_outside(name: str, load: Callable[[str], Dataset], location: str, asked: Asked) -> Dataset:
    """What a source of another package gives for the location behind its name, once it holds."""
    refuse_columns(_without_several(asked.columns), f"data source {name!r}: it")
    with extensions.blaming("sources", name):
        dataset = load(location.partition(":")[2])
    problems = dataset_problems(dataset)
    if not problems:
        problems = _unfit(dataset, asked)
    if problems:
        raise SourceError(
            f"data source {name!r}: {'; '.join(problems[:_SHOWN_PROBLEMS])}",
            hint="correct the source; saccade.testing.check_source says what it must keep to",
        )
    read = how_it_is_read(f"read by the data source {name!r}, which is no part of saccade", "Nothing to do")
    return replace(dataset, storage=GuardedStorage(name, dataset.storage), findings=(read, *dataset.findings))


def _without_several(columns: Columns) -> Columns:
    """Without --multi-label: these data say themselves whether an image may have several labels."""
    return columns if columns.delimiter or columns.one_hot else replace(columns, several=False)


def _unfit(dataset: Dataset, asked: Asked) -> list[str]:
    """Requests of the user that this data set cannot meet."""
    checks = (
        (asked.drop_empty or not dataset.empty_classes, f"no image of {some(dataset.empty_classes)}"),
        (len(dataset.classes) >= asked.min_classes, f"fewer than {asked.min_classes} classes"),
    )
    return [problem for holds, problem in checks if not holds]


@dataclass(frozen=True, slots=True)
class GuardedStorage:
    """The storage of a source from outside: whatever it raises or returns for an image is an ImageError."""

    name: str
    storage: Storage

    def read(self, path: str) -> bytes:
        """The image's bytes; raises ImageError, and nothing else, where there are none."""
        try:
            data = self.storage.read(path)
        except ImageError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {printable(str(error))}"
            raise ImageError(f"the data source {self.name!r} cannot read it ({reason})", _CORRECT) from error
        if not isinstance(data, bytes):
            raise ImageError(f"the data source {self.name!r} gave {type(data).__name__}, not bytes", _CORRECT)
        return data


def dataset_problems(dataset: object) -> list[str]:
    """Reasons why a source's result is not a Dataset as the rest of saccade expects it; empty if it is."""
    if not isinstance(dataset, Dataset):
        return [f"load() returned a {type(dataset).__name__}, not a Dataset"]
    records = dataset.records
    if not records or not all(isinstance(record, ImageRecord) for record in records):
        return ["records are no ImageRecords, or there are none"]
    paths = [record.path for record in records]
    classes, parts = set(dataset.classes), {"", *PARTS}
    unnamed = sorted({label for record in records for label in record.labels} - classes)
    unknown = sorted({record.part for record in records} - parts)
    without = sorted({record.part for record in records} - {"", *dataset.given_parts} - set(unknown))
    checks = (
        (isinstance(dataset.root, Path), "root is no pathlib.Path"),
        (callable(getattr(dataset.storage, "read", None)), "storage has no read(path)"),
        (_pickles(dataset.storage), "storage cannot be pickled, as worker processes need"),
        (len(set(paths)) == len(paths), "paths are not unique"),
        (paths == sorted(paths), "records do not stand in the order of their paths"),
        (all(paths), "a path is empty"),
        (len(classes) == len(dataset.classes), "class names are not unique"),
        (not unnamed, f"labels that are no class: {some(unnamed, most=3)}"),
        (not unknown, f"unknown parts: {some(unknown, most=3)}; parts are called {', '.join(PARTS)}"),
        (not without, f"parts that given_parts does not name: {some(without)}"),
    )
    return [problem for holds, problem in checks if not holds]


def _pickles(storage: Storage) -> bool:
    """Whether it can be handed to a worker process, as multiprocessing itself hands it over."""
    try:
        return bool(ForkingPickler.dumps(storage))
    except Exception:  # it runs code of the object
        return False


# -- our own sources ---------------------------------------------------------------------------------


def _path(location: str) -> Path:
    return Path(location).expanduser().absolute()


def _saved_by_datasets(location: str) -> bool:
    """Whether Hugging Face `datasets` saved this folder (one table, or one folder for each part)."""
    root = _path(location)
    return (root / "dataset_dict.json").is_file() or (
        (root / "state.json").is_file() and (root / "dataset_info.json").is_file()
    )


def _is_file(location: str, *endings: str) -> bool:
    return location.lower().endswith(endings) and _path(location).is_file()


def _load_folder(location: str, asked: Asked) -> Dataset:
    root, where = _path(location), printable(str(_path(location)))
    listing = list_folder(root, read_npy=asked.read_npy)
    if not listing.files:
        shards, tables = shards_at(root), parquet_files(root)
        if shards:
            return _load_shards(root, shards, asked)
        if tables:
            return load_columns(root, tables, named=asked.columns, min_classes=asked.min_classes)
    refuse_columns(asked.columns, f"{where}: a folder")
    return _arranged(root, where, listing, FolderStorage(root), asked)


def _arranged(root: Path, where: str, listing: Listing, storage: Storage, asked: Asked) -> Dataset:
    layout = arrange(listing, where, drop_empty=asked.drop_empty, min_classes=asked.min_classes)
    return Dataset(
        root,
        layout.records,
        layout.classes,
        storage,
        layout.given_parts,
        ignored=listing.ignored,
        listed=layout.listed,
        empty_classes=layout.empty_classes,
        lost=layout.lost,
        findings=layout.findings,
    )


def _load_saved(location: str, asked: Asked) -> Dataset:
    return load_saved(_path(location), columns=asked.columns, min_classes=asked.min_classes)


def _load_inputs(location: str, asked: Asked) -> Dataset:
    refuse_columns(_without_several(asked.columns), f"{printable(location)}: data given in Python")
    return load_inputs(_path(location), min_classes=asked.min_classes)


def _load_list(location: str, asked: Asked) -> Dataset:
    path = _path(location)
    return load_list(read_text_table(path), path, columns=asked.columns, min_classes=asked.min_classes)


def _load_parquet(location: str, asked: Asked) -> Dataset:
    path = _path(location)
    mind_memory(location, asked.columns)
    if not asked.columns.path and (root := stored_root(path)):
        columns = replace(asked.columns, root=asked.columns.root or root)
        table = read_parquet_table(path, manifest=True)
        dataset = load_list(table, path, columns=columns, min_classes=asked.min_classes)
        return replace(dataset, stamps=stored_stamps(path)) if is_remote(columns.root) else dataset
    if asked.columns.path or parquet_is_list(path):
        return load_list(read_parquet_table(path), path, columns=asked.columns, min_classes=asked.min_classes)
    return load_columns(path.parent, (path,), named=asked.columns, min_classes=asked.min_classes)


def _load_archive(location: str, asked: Asked) -> Dataset:
    path = _path(location)
    if path.suffix.lower() == ".tar" and is_shard(path):
        return _load_shards(path.parent, (path,), asked)
    return load_archive(
        path, columns=asked.columns, drop_empty=asked.drop_empty, min_classes=asked.min_classes
    )


def _load_pattern(location: str, asked: Asked) -> Dataset:
    path = _path(location)
    return _load_shards(path.parent, shards_at(path), asked)


def _load_shards(root: Path, shards: Iterable[Path], asked: Asked) -> Dataset:
    refuse_columns(replace(asked.columns, group=""), f"{printable(str(root))}: a WebDataset")
    return load_shards(root, shards, group=asked.columns.group or None, min_classes=asked.min_classes)


def _load_remote(location: str, asked: Asked) -> Dataset:
    """The images below an address in place; archives, lists and tables by copies on this disk."""
    if not is_folder(location):
        return _load_copies(copies_at(location), asked)
    where = printable(location)
    listing, stamps = listing_below(location, read_npy=asked.read_npy)
    if not listing.files and (packed := packed_below(location)).files:
        return _load_copies(packed, asked, several=True)
    refuse_columns(asked.columns, f"{where}: a folder")
    dataset = _arranged(Path(location), where, listing, RemoteStorage(location), asked)
    return replace(dataset, stamps=stamps)


def _load_copies(copies: Copies, asked: Asked, *, several: bool = False) -> Dataset:
    """What copies on this disk hold, said of their originals, beside which a list's paths begin."""
    first, folder = copies.paths[0], copies.folder
    table = first.suffix == ".parquet"
    if (parquet_is_list(first) and not stored_root(first)) if table else is_list(str(first)):
        asked = replace(asked, columns=replace(asked.columns, root=asked.columns.root or copies.root))
    try:
        if not (several or len(copies.files) > 1):
            load = _load_archive if first.suffix in (".tar", ".zip") else _source_of(str(first)).load
            dataset = load(str(first), asked)
        elif first.suffix == ".tar":
            dataset = _load_shards(folder, copies.paths, asked)
        else:
            dataset = load_columns(folder, copies.paths, named=asked.columns, min_classes=asked.min_classes)
    except SourceError as error:
        raise SourceError(*map(copies.here, map(str, error.args)), hint=copies.here(error.hint)) from None
    if not dataset.root.is_relative_to(folder):
        return dataset
    return replace(dataset, root=Path(copies.root, dataset.root.relative_to(folder)))


def _load_torchvision(location: str, asked: Asked) -> Dataset:
    refuse_columns(asked.columns, location)
    return load_named(location)


SOURCES: dict[str, Source] = {  # asked in this order
    "remote": Source(is_remote, _load_remote),
    "torchvision": Source(lambda place: place.startswith(PREFIX), _load_torchvision),
    "saved by datasets": Source(_saved_by_datasets, _load_saved),
    "given in Python": Source(lambda place: is_inputs(_path(place)), _load_inputs),
    "folder": Source(lambda place: _path(place).is_dir(), _load_folder),
    "list": Source(lambda place: _is_file(place, *(f".{end}" for end in TEXT_SUFFIXES)), _load_list),
    "parquet": Source(lambda place: _is_file(place, ".parquet"), _load_parquet),
    "archive": Source(lambda place: _is_file(place, ".zip", ".tar"), _load_archive),
    "packed tar": Source(
        lambda place: _is_file(place, *_PACKED_TARS), lambda place, _: refuse_packed_tar(_path(place))
    ),
    "shards": Source(lambda place: bool(shards_at(_path(place))), _load_pattern),
}


def is_list(location: str) -> bool:
    """Whether a location is a single file with a row for each image."""
    endings = (*(f".{end}" for end in TEXT_SUFFIXES), ".parquet")
    return location.lower().endswith(endings) and (is_remote(location) or _path(location).is_file())
