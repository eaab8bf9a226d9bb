"""A manifest: a Parquet list of the images below a folder or an address, made from their listing alone.

It is written a group of rows at a time, so that ten million images take no more memory than ten thousand. The
listing comes in the order of the paths, and so does an earlier manifest: the two are compared as they pass,
and rows of images that have not changed stay as they are. Part and class of an image follow from its folder,
which needs the whole listing; so they are put in when the rows are copied to their place.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from saccade.errors import ImageError, SourceError
from saccade.files import is_utf8
from saccade.records import Storage
from saccade.sources.addresses import is_remote
from saccade.sources.columns import ROOT_KEY, stored_root
from saccade.sources.elsewhere import is_folder
from saccade.sources.layout import Place, places
from saccade.sources.listing import Listing
from saccade.sources.naming import kind_of
from saccade.sources.remote import READ_AHEAD, Listed, RemoteStorage, listed
from saccade.sources.storage import FolderStorage
from saccade.sources.tables import parquet_module
from saccade.terminal import Progress, printable, silent

ROWS_A_GROUP = 65_536
_SAMPLED_IMAGES = 10_000  # stand for all where the layout is told from the folders
_FOUND = {"path": "string", "size": "int64", "etag": "string", "modified": "int64", "sha256": "string"}


@dataclass(slots=True)
class Indexed:
    """What an index came to: images by class, and how they compare with an earlier manifest."""

    root: str
    rows: int = 0
    unchanged: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0
    read: int = 0
    without_class: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    folders: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)


class _Row(NamedTuple):
    found: Listed
    sha256: str = ""


def write_index(location: str, out: Path, *, hashes: bool = False, progress: Progress = silent) -> Indexed:
    """The manifest of the images at a location, in the place of an earlier one at `out`, whole or not at all.

    hashes: also read what is new or changed, for its SHA-256. Raises SourceError.
    """
    root = _root_of(location)
    where = printable(root)
    parquet = parquet_module(where)
    known = out if out.is_file() and _is_of(out, root) else None
    parts = [out.with_name(f".{out.name}.{kind}.{os.getpid()}.part") for kind in ("listed", "labelled")]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            indexed = _list_into(parts[0], entries(root), root, known, hashes, progress)
        except _Unordered:
            indexed = _list_into(parts[0], sorted(entries(root)), root, known, hashes, progress)
        if not indexed.rows:
            raise SourceError(f"{where}: no images found", hint="check the location")
        _label(parquet, parts[0], parts[1], _place_of(indexed, where), indexed)
        os.replace(parts[1], out)
    except OSError as error:
        raise SourceError(f"{out} cannot be written ({error.strerror})", hint="check that disk") from None
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return indexed


def _root_of(location: str) -> str:
    if is_remote(location):
        if is_folder(location):
            return location
    elif os.path.isdir(location):
        return os.path.abspath(location)
    raise SourceError(
        f"{printable(location)}: is no folder", hint="an index is made of a folder, or of a bucket's address"
    )


def _is_of(out: Path, root: str) -> bool:
    """Whether `out` is a manifest of the same images; raises SourceError for a file of somebody else's."""
    before = stored_root(out)
    if before != root:
        of = f"a manifest of {printable(before)}" if before else "no manifest of saccade"
        raise SourceError(f"{out} is {of}", hint="give --out another name, or remove it")
    return True


# -- listing -----------------------------------------------------------------------------------------------


class _Unordered(Exception):
    """A listing that does not come in the order of its paths, as some services give it."""


def entries(root: str) -> Iterator[Listed]:
    """Every file below a folder or address, in the order of the paths; raises SourceError."""
    return listed(root) if is_remote(root) else _files(root, "")


def _files(root: str, folder: str) -> Iterator[Listed]:
    """In the order of whole paths, in which the files of `a-b` come before those of `a`."""
    try:
        with os.scandir(os.path.join(root, folder)) as inside:
            names = sorted(entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in inside)
    except OSError as error:
        place = printable(os.path.join(root, folder))
        why = error.strerror
        raise SourceError(f"{place}: cannot be opened ({why})", hint="check its permissions") from None
    for name in names:
        path = f"{folder}{name}"
        if not name.endswith("/"):
            with contextlib.suppress(OSError):  # gone since, or a link that leads nowhere
                status = os.stat(os.path.join(root, path))
                if stat.S_ISREG(status.st_mode):
                    yield Listed(path, status.st_size, "", status.st_mtime_ns)
        elif kind_of(name[:-1]) != "junk":
            yield from _files(root, path)


def _images(found: Iterable[Listed], indexed: Indexed) -> Iterator[Listed]:
    """Those that are images by their names, as where data are read; counts what is passed over."""
    last = ""
    for one in found:
        if one.path < last:
            raise _Unordered
        last = one.path
        folders, _, name = one.path.rpartition("/")
        kind = "junk" if _in_junk(folders) else kind_of(name)
        if kind == "image" and is_utf8(one.path):
            indexed.folders[folders] += 1
            yield one
        else:
            indexed.passed_over["names that are not UTF-8" if kind == "image" else kind] += 1


@lru_cache(maxsize=4096)
def _in_junk(folders: str) -> bool:
    return any(kind_of(folder) == "junk" for folder in folders.split("/")) if folders else False


def _list_into(
    part: Path,
    found: Iterable[Listed],
    root: str,
    known: Path | None,
    hashes: bool,
    progress: Progress,
) -> Indexed:
    """Write path, size, ETag, time and hash of every image, a group of rows at a time."""
    import pyarrow

    indexed = Indexed(root)
    storage: Storage = RemoteStorage(root) if is_remote(root) else FolderStorage(Path(root))
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in _FOUND.items()])
    rows = _compared(_images(found, indexed), _known(known) if known else iter(()), indexed)
    parquet = parquet_module(root)
    with parquet.ParquetWriter(part, schema) as writer, ThreadPoolExecutor(READ_AHEAD) as readers:
        for group in _groups(rows):
            if hashes:
                group = _hashed(group, storage, readers, indexed)
            columns = zip(*((*row.found, row.sha256) for row in group), strict=True)
            arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            indexed.rows += len(group)
            progress(indexed.rows, 0)
    return indexed


def _groups(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    group: list[_Row] = []
    for row in rows:
        group.append(row)
        if len(group) == ROWS_A_GROUP:
            yield group
            group = []
    if group:
        yield group


# -- what was known before ---------------------------------------------------------------------------------


def _known(manifest: Path) -> Iterator[_Row]:
    with parquet_module(str(manifest)).ParquetFile(manifest) as file:
        for batch in file.iter_batches(ROWS_A_GROUP, columns=list(_FOUND)):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield _Row(Listed(*values[:-1]), values[-1])


def _compared(found: Iterator[Listed], known: Iterator[_Row], indexed: Indexed) -> Iterator[_Row]:
    """Rows with the hash that they had where path, size and ETag (else time) are the same."""
    before = next(known, None)
    for one in found:
        while before and before.found.path < one.path:
            indexed.gone += 1
            before = next(known, None)
        if not before or before.found.path != one.path:
            indexed.new += 1
            yield _Row(one)
            continue
        same = _state(before.found) == _state(one)
        indexed.unchanged += same
        indexed.changed += not same
        yield _Row(one, before.sha256 if same else "")
        before = next(known, None)
    indexed.gone += bool(before) + sum(1 for _ in known)


def _state(found: Listed) -> tuple[int, str | int]:
    return found.size, found.etag or found.modified


def _hashed(group: list[_Row], storage: Storage, readers: ThreadPoolExecutor, indexed: Indexed) -> list[_Row]:
    """The rows with their hashes; an image that cannot be read is named and has none."""

    def hashed(row: _Row) -> _Row | str:
        if row.sha256:
            return row
        try:
            data = storage.read(row.found.path)
            return _Row(row.found, hashlib.sha256(data).hexdigest())
        except ImageError as error:
            return f"{printable(row.found.path)}: {error.reason}"

    done = list(readers.map(hashed, group))
    indexed.read += sum(not row.sha256 for row in group)
    indexed.unread += [why for why in done if isinstance(why, str)]
    return [row if isinstance(one, str) else one for row, one in zip(group, done, strict=True)]


# -- classes -----------------------------------------------------------------------------------------------


def _place_of(indexed: Indexed, where: str) -> Callable[[str], Place]:
    """Part and class by folder, told from images of the folders in proportion: of all, no more is needed."""
    total = sum(indexed.folders.values())
    sampled = []
    for folder, count in indexed.folders.items():
        for number in range(math.ceil(count * min(1.0, _SAMPLED_IMAGES / total))):
            sampled.append(f"{folder}/{number}".lstrip("/"))
    folders = {folder[:at] for folder in indexed.folders for at in _ends(folder)}
    return places(Listing(tuple(sorted(sampled)), tuple(sorted(folders)), {}, ()), where)


def _ends(folder: str) -> list[int]:
    return [*(at for at, mark in enumerate(folder) if mark == "/"), *([len(folder)] if folder else [])]


def _label(
    parquet: Any, source: Path, target: Path, place_of: Callable[[str], Place], indexed: Indexed
) -> None:
    """Copy the rows, each with its part and class, "" for an image beside the class folders."""
    import pyarrow

    by_folder = {folder: place_of(folder) for folder in indexed.folders}
    for folder, count in indexed.folders.items():
        indexed.classes[by_folder[folder][1]] += count
    indexed.without_class = indexed.classes.pop("", 0)
    with parquet.ParquetFile(source) as file:
        kinds = {name: file.schema_arrow.field(name).type for name in _FOUND}
        kinds = {"path": kinds.pop("path"), "label": pyarrow.string(), "part": pyarrow.string(), **kinds}
        schema = pyarrow.schema(list(kinds.items())).with_metadata({ROOT_KEY: indexed.root.encode()})
        with parquet.ParquetWriter(target, schema) as writer:
            for batch in file.iter_batches(ROWS_A_GROUP):
                found = [by_folder[path.rpartition("/")[0]] for path in batch.column("path").to_pylist()]
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                columns["label"] = pyarrow.array([label for _, label in found], pyarrow.string())
                columns["part"] = pyarrow.array([part for part, _ in found], pyarrow.string())
                arrays = [columns[name] for name in schema.names]
                writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
