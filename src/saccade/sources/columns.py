"""Tables with an image column: Parquet, and folders saved by Hugging Face `datasets` (Arrow).

Read with pyarrow alone. The image column holds bytes, or structs {bytes, path}; a label column of integers
takes its names from the ClassLabel feature in the metadata.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from saccade.caches.scans import Stamp
from saccade.errors import ImageError, MissingExtraError, SourceError
from saccade.files import parse_json, read_file
from saccade.images.decoder import DEFAULT_MAX_BYTES
from saccade.records import Dataset
from saccade.sources.lists import columns_not_used
from saccade.sources.naming import natural_key, some
from saccade.sources.parts import PART_COLUMNS, parts_of_files
from saccade.sources.remote import Listed, stamp_of
from saccade.sources.storage import refuse_size, unreadable
from saccade.sources.tables import (
    USUAL_COLUMNS,
    Columns,
    Row,
    find_column,
    labelled,
    parquet_module,
)
from saccade.terminal import printable

_MOST_ROW_GROUP_BYTES = 2_000_000_000
_LARGE_GROUP = "a row group of more than 2 GB; write it with smaller ones"
_NO_BYTES = ("the table holds no bytes for this row", "Save it with the images embedded")
_BUFFER_BYTES = 1 << 20
_ROWS_AT_A_TIME = 16
ROOT_KEY = b"saccade.root"  # in the metadata of a manifest
_IMAGE_NAMES = ("image", "img", "picture", "photo")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which column is which; `names` are the class names behind integer labels, () for text."""

    image: str
    label: str
    names: tuple[str, ...]
    group: str
    parts: tuple[str, ...]


def parquet_files(root: Path) -> tuple[Path, ...]:
    """Parquet files in a folder, down to its second level (as hubs lay them out), in natural order."""
    found = [*root.glob("*.parquet"), *root.glob("*/*.parquet")]
    return tuple(sorted(found, key=lambda path: natural_key(str(path))))


def parquet_is_list(path: Path) -> bool:
    """Whether a Parquet file is a list with a path column rather than a table of images."""
    return "path" in _schema(path).names


def stored_root(path: Path) -> str:
    """The folder or address in which the paths of a manifest begin; "" for another table."""
    root: bytes = (_schema(path).metadata or {}).get(ROOT_KEY, b"")
    return root.decode("utf-8", "replace")


def stored_stamps(path: Path) -> dict[str, Stamp]:
    """What a manifest says of the state of each object, by its path; not of those where a cell is empty."""
    columns = ["path", "size", "etag", "modified"]
    if not set(columns) <= set(_schema(path).names):
        return {}
    table = parquet_module(str(path)).read_table(path, columns=columns)
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return {row[0]: stamp_of(Listed(*row)) for row in rows if None not in row}


def image_column(path: Path) -> tuple[str, int]:
    """The one image column of a Parquet file ("" without one), and the number of rows; raises SourceError."""
    where = printable(str(path))
    found = _image_columns(_schema(path))
    if len(found) > 1:
        raise SourceError(
            f"{where}: holds {len(found)} columns of images: {some(found)}", hint="write it with one of them"
        )
    try:
        with parquet_module(where).ParquetFile(path) as file:
            return (found[0] if found else ""), file.metadata.num_rows
    except (OSError, ValueError) as error:
        raise SourceError(f"{where}: cannot be read ({error})", hint="save it again") from None


def stream_images(path: Path, column: str) -> Iterator[bytes | ImageError]:
    """The content of each row's image in the order of the rows, read a few rows at a time.

    Where the file cannot be read on, the last one is an ImageError that says so.
    """
    try:
        with parquet_module(str(path)).ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            _refuse_large_groups(file.metadata)
            for group in range(file.metadata.num_row_groups):  # alone, so that a damaged one harms no other
                for batch in file.iter_batches(_ROWS_AT_A_TIME, row_groups=[group], columns=[column]):
                    for value in _image_values(batch.column(0)):
                        yield value.as_py() or ImageError(*_NO_BYTES)
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        reason = " ".join(str(error).split())[:200]
        yield ImageError(f"this row and what follows cannot be read ({reason})", "Write the table again")


def _refuse_large_groups(metadata: Any) -> None:
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    if any(group.total_byte_size > _MOST_ROW_GROUP_BYTES for group in groups):
        raise ValueError(_LARGE_GROUP)


def load_saved(root: Path, *, columns: Columns = USUAL_COLUMNS, min_classes: int = 2) -> Dataset:
    """A folder written by `save_to_disk`: Arrow files, read in place."""
    files = tuple(sorted([*root.glob("*.arrow"), *root.glob("*/*.arrow")], key=lambda p: natural_key(str(p))))
    return load_columns(root, files, named=columns, min_classes=min_classes)


def load_columns(
    root: Path, files: Iterable[Path], *, named: Columns = USUAL_COLUMNS, min_classes: int = 2
) -> Dataset:
    """The rows of all files as one data set; paths are FILE/ROW."""
    tables = tuple(files)
    where = printable(str(tables[0] if len(tables) == 1 else root))
    if not tables:
        raise SourceError(f"{where}: no table in it", hint="save the data set again")
    _refuse_several(named, where)
    schema = _schema(tables[0])
    columns = _find_columns(schema, _features(root, tables[0]), where, named)
    names = {table: table.relative_to(root).as_posix() for table in tables}
    parts = _parts(root, names, where)
    rows = [row for table, name in names.items() for row in _rows(table, name, columns, parts[name], where)]
    found = labelled(
        rows, where, min_classes=min_classes, unlabelled="rows without a label", remedy="remove them"
    )
    known = {columns.image, columns.label, columns.group, *columns.parts}
    unused = [name for name in schema.names if name not in known]
    return Dataset(
        root,
        found.records,
        found.classes,
        ColumnStorage(root, columns.image),
        found.given_parts,
        listed=found.listed,
        findings=(*found.findings, *columns_not_used(where, unused)),
    )


def _refuse_several(named: Columns, where: str) -> None:
    """Raise SourceError where rows that hold their image are said to have several labels."""
    if not named.several:
        return
    flag = "--label-delimiter" if named.delimiter else "--label-columns" if named.one_hot else "--multi-label"
    raise SourceError(
        f"{where}: a table that holds the images has one label a row, so {flag} means nothing",
        hint="leave it out; where images have several labels, save them as files and list these",
    )


def _parts(root: Path, names: Mapping[Path, str], where: str) -> dict[str, str]:
    """The part each table's folder or name says; raises SourceError where they name parts of other names."""
    parts = parts_of_files(names.values(), where)
    if any(parts.values()):
        return parts
    splits = {_split_name(path, name) for path, name in names.items()} - {""}
    if len(splits) > 1:
        raise SourceError(
            f"{where}: its tables name the parts {some(sorted(splits))}",
            hint="rename these to train, validation and test, or give the tables of one part alone",
        )
    return parts


def _split_name(table: Path, name: str) -> str:
    """Its split by the customs of `datasets`: SPLIT-00000-of-00002, or a folder with state.json."""
    numbered = re.fullmatch(r"(.+)-\d{5}-of-\d{5}", table.stem)
    folder = name.rpartition("/")[0]
    if table.suffix == ".arrow":
        return folder if (table.parent / "state.json").is_file() else ""
    return f"{folder}/{numbered[1]}".lstrip("/") if numbered else ""


def _image_columns(schema: Any) -> list[str]:
    """Columns of structs with bytes, and columns of bytes that are called like images."""
    import pyarrow

    def holds_images(name: str) -> bool:
        kind = schema.field(name).type
        if pyarrow.types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        binary = pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
        return bool(binary and name.lower() in _IMAGE_NAMES)

    return [name for name in schema.names if holds_images(name)]


def _label_columns(schema: Any, features: dict[str, Any], where: str, named: Columns) -> list[str]:
    """The column that is named; else what is called label, else what `datasets` declares to be one."""
    if named.label:
        return [find_column(named.label, schema.names, where, flag="--label-column")]
    class_labels = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and name in schema.names
    ]
    return [name for name in ("label", "labels") if name in schema.names] or class_labels


def _find_columns(schema: Any, features: dict[str, Any], where: str, named: Columns) -> _Columns:
    """Image, label and group column; raises SourceError that names the columns there are."""
    group = named.group
    images = _image_columns(schema)
    labels = _label_columns(schema, features, where, named)
    has = some(schema.names)
    if named.path or named.root:
        raise SourceError(
            f"{where}: holds the images themselves, so --path-column and --root mean nothing",
            hint="leave them out",
        )
    if len(images) != 1:
        raise SourceError(
            f"{where}: needs one image column (structs with bytes), has {len(images)} among {has}",
            hint="a list of files names the column of the files with --path-column",
        )
    if len(labels) != 1:
        raise SourceError(
            f"{where}: which column is the label? Its columns are: {has}",
            hint="say it with --label-column NAME",
        )
    if group and group not in schema.names:
        raise SourceError(f"{where}: no column {group!r}", hint=f"its columns are: {has}")
    feature = features.get(labels[0])
    names = tuple(feature.get("names") or ()) if isinstance(feature, dict) else ()
    parts = tuple(name for name in schema.names if name.casefold() in PART_COLUMNS and name != group)
    group = group or ("group" if "group" in schema.names else "")
    return _Columns(images[0], labels[0], names, group, parts)


def _rows(path: Path, name: str, columns: _Columns, part: str, where: str) -> Iterator[Row]:
    """The rows of one table; integer labels by their class names."""
    wanted = list(dict.fromkeys([columns.label, *filter(None, [columns.group]), *columns.parts]))
    try:
        table = _read_columns(path, wanted)
        values = {column: table.column(column).to_pylist() for column in wanted}
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors derive from these
        raise SourceError(f"{printable(str(path))}: cannot be read ({error})", hint="save it again") from None
    groups = values[columns.group] if columns.group else [""] * len(table)
    for row, (value, group) in enumerate(zip(values[columns.label], groups, strict=True)):
        fields = {column: values[column][row] for column in columns.parts}
        yield Row(f"{name}/{row:07d}", _named(value, columns.names, where), group, part, fields)


def _named(value: Any, names: tuple[str, ...], where: str) -> Any:
    """The class name behind an integer label; "" for -1, which `datasets` writes for a missing one."""
    if not names or not isinstance(value, int):
        return value
    if value >= len(names):
        raise SourceError(f"{where}: label {value} has no name among {len(names)}", hint="save it again")
    return names[value] if value >= 0 else ""


def _read_columns(path: Path, names: list[str]) -> Any:
    if path.suffix == ".arrow":
        import pyarrow

        with pyarrow.memory_map(str(path)) as mapped:
            return pyarrow.ipc.open_stream(mapped).read_all().select(names)
    return parquet_module(str(path)).read_table(path, columns=names)


def _schema(path: Path) -> Any:
    where = printable(str(path))
    try:
        if path.suffix == ".arrow":
            import pyarrow

            with pyarrow.memory_map(str(path)) as mapped:
                return pyarrow.ipc.open_stream(mapped).schema
        return parquet_module(where).read_schema(path)
    except ImportError:
        raise MissingExtraError("pyarrow", "train", f"reading {where}") from None
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        raise SourceError(f"{where}: cannot be read ({error})", hint="save it again") from None


def _features(root: Path, table: Path) -> dict[str, Any]:
    """The features as `datasets` describes them, from the folder or from the table's own metadata."""
    for folder in (table.parent, root):
        info = folder / "dataset_info.json"
        if info.is_file():
            try:
                features = parse_json(read_file(info)).get("features")
            except (OSError, ValueError, AttributeError):
                continue
            if isinstance(features, dict):
                return features
    metadata = (_schema(table).metadata or {}).get(b"huggingface", b"{}")
    try:
        features = parse_json(metadata).get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    return features if isinstance(features, dict) else {}


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
            raise ImageError(*_NO_BYTES)
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
            raise ValueError(_LARGE_GROUP)
        return _image_bytes(file.read_row_group(group, columns=[column]), column)


@lru_cache(maxsize=64)
def _arrow_column(full: str, column: str, stamp: int) -> Any:
    import pyarrow

    with pyarrow.memory_map(full) as mapped:  # the columns keep the mapping alive; nothing is copied
        table = pyarrow.ipc.open_stream(mapped).read_all()
    table.validate()
    return _image_bytes(table, column)


def _image_bytes(table: Any, column: str) -> Any:
    return _image_values(table.column(column))


def _image_values(values: Any) -> Any:
    """The binary values of a column of bytes, or of structs {bytes, path} as `datasets` writes them."""
    import pyarrow
    import pyarrow.compute as compute

    return compute.struct_field(values, "bytes") if pyarrow.types.is_struct(values.type) else values
