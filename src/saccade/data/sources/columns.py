"""Tables with an image column: Parquet, and the folders that Hugging Face `datasets` saves (Arrow).

Read with pyarrow alone. The image column holds bytes, or structs {bytes, path}; a label column of
integers takes its names from the ClassLabel feature in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.data.names import natural_key, printable, some
from saccade.data.sources.layout import classes_missing_in_parts
from saccade.data.sources.naming import PART_OF_FOLDER, check_classes
from saccade.data.sources.tables import as_text, parquet_module
from saccade.data.storage import ColumnStorage
from saccade.errors import MissingExtraError, SourceError
from saccade.records import PARTS, Dataset, ImageRecord

_IMAGE_NAMES = ("image", "img", "picture", "photo")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which column is which; `names` are the class names behind integer labels, () for text."""

    image: str
    label: str
    names: tuple[str, ...]
    group: str


def parquet_files(root: Path) -> tuple[Path, ...]:
    """Parquet files in a folder, down to its second level (as hubs lay them out), in natural order."""
    found = [*root.glob("*.parquet"), *root.glob("*/*.parquet")]
    return tuple(sorted(found, key=lambda path: natural_key(str(path))))


def parquet_is_list(path: Path) -> bool:
    """Whether a Parquet file is a list with a path column rather than a table of images."""
    return "path" in _schema(path).names


def looks_saved(root: Path) -> bool:
    """Whether `datasets` saved this folder (one table, or one folder for each part)."""
    return (root / "dataset_dict.json").is_file() or (
        (root / "state.json").is_file() and (root / "dataset_info.json").is_file()
    )


def load_saved(root: Path, *, group: str | None = None, min_classes: int = 2) -> Dataset:
    """A folder written by `save_to_disk`: Arrow files, read in place."""
    files = tuple(sorted([*root.glob("*.arrow"), *root.glob("*/*.arrow")], key=lambda p: natural_key(str(p))))
    return load_columns(root, files, group=group, min_classes=min_classes)


def load_columns(
    root: Path, files: Iterable[Path], *, group: str | None = None, min_classes: int = 2
) -> Dataset:
    """The rows of all files as one data set; paths are FILE/ROW."""
    tables = tuple(files)
    where = printable(str(tables[0] if len(tables) == 1 else root))
    if not tables:
        raise SourceError(f"{where}: no table in it; do: save the data set again")
    columns = _find_columns(_schema(tables[0]), _features(root, tables[0]), where, group)
    parts = _parts(root, tables)
    records: list[ImageRecord] = []
    unlabelled: list[str] = []
    for table, part in zip(tables, parts, strict=True):
        name = table.relative_to(root).as_posix()
        for row, (label, its_group) in enumerate(_labels(table, columns, where)):
            path = f"{name}/{row:07d}"
            if not label:
                unlabelled.append(path)
            records.append(ImageRecord(path, label, part, its_group))
    if unlabelled:
        raise SourceError(
            f"{where}: {len(unlabelled):,} rows without a label: {some(unlabelled, most=5)}; remove them"
        )
    records.sort(key=lambda record: record.path)
    classes = check_classes({record.label for record in records}, where, min_classes=min_classes)
    given = tuple(part for part in PARTS if part in parts)
    listed = tuple(classes_missing_in_parts(records, classes, given))
    return Dataset(root, tuple(records), classes, ColumnStorage(root, columns.image), given, listed=listed)


def _parts(root: Path, tables: tuple[Path, ...]) -> list[str]:
    """The part each table's folder or name says (train-00000-of-00002.parquet); "" unless each says one."""
    parts = []
    for table in tables:
        names = [*table.relative_to(root).parts[:-1], table.stem.partition("-")[0]]
        parts.append(next((PART_OF_FOLDER[n.lower()] for n in names if n.lower() in PART_OF_FOLDER), ""))
    return parts if all(parts) else [""] * len(parts)


def _find_columns(schema: Any, features: dict[str, Any], where: str, group: str | None) -> _Columns:
    """Image, label and group column; raises SourceError that names the columns there are."""
    import pyarrow

    def holds_images(name: str) -> bool:
        kind = schema.field(name).type
        if pyarrow.types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        binary = pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
        return bool(binary and name.lower() in _IMAGE_NAMES)

    images = [name for name in schema.names if holds_images(name)]
    class_labels = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and name in schema.names
    ]
    labels = [name for name in ("label", "labels") if name in schema.names] or class_labels
    has = some(schema.names)
    if len(images) != 1:
        raise SourceError(f"{where}: needs one image column (structs with bytes), its columns are: {has}")
    if len(labels) != 1:
        raise SourceError(f"{where}: which column is the label? Call it 'label'; its columns are: {has}")
    if group and group not in schema.names:
        raise SourceError(f"{where}: no column {group!r}; its columns are: {has}")
    feature = features.get(labels[0])
    names = tuple(feature.get("names") or ()) if isinstance(feature, dict) else ()
    return _Columns(images[0], labels[0], names, group or ("group" if "group" in schema.names else ""))


def _labels(path: Path, columns: _Columns, where: str) -> Iterator[tuple[str, str]]:
    """Label and group of each row; "" for a label that is missing."""
    wanted = [columns.label] + ([columns.group] if columns.group else [])
    try:
        table = _read_columns(path, wanted)
        labels = table.column(columns.label).to_pylist()
        groups = table.column(columns.group).to_pylist() if columns.group else [""] * len(labels)
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors derive from these
        raise SourceError(f"{printable(str(path))}: cannot be read ({error}); save it again") from None
    for value, its_group in zip(labels, groups, strict=True):
        if columns.names and isinstance(value, int):
            if value >= len(columns.names):
                raise SourceError(
                    f"{where}: label {value} has no name among {len(columns.names)}; save it again"
                )
            label = columns.names[value] if value >= 0 else ""
        else:
            label = as_text(value).strip()
        yield label, as_text(its_group).strip()


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
        raise SourceError(f"{where}: cannot be read ({error}); save it again") from None


def _features(root: Path, table: Path) -> dict[str, Any]:
    """The features as `datasets` describes them, from the folder or from the table's own metadata."""
    for folder in (table.parent, root):
        info = folder / "dataset_info.json"
        if info.is_file():
            try:
                features = json.loads(info.read_text("utf-8")).get("features")
            except (OSError, ValueError, AttributeError):
                continue
            if isinstance(features, dict):
                return features
    metadata = (_schema(table).metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(metadata).get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    return features if isinstance(features, dict) else {}
