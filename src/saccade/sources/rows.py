"""The rows of a Parquet list, however many: each column passes by and leaves a number a row.

What is held is a few flat arrays. Texts (paths, groups, hashes) become 64 bits of their BLAKE2b, so that two
of ten million differ but share these with a probability of 3 in a million.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.errors import SourceError
from saccade.records import PARTS, Finding
from saccade.run_folder import replacing
from saccade.sources.addresses import HAS_SECRETS, has_secrets, is_remote, without_secrets
from saccade.sources.columns import ROOT_KEY, parquet_is_list, stored_root
from saccade.sources.elsewhere import copies_at
from saccade.sources.grouping import SHOWN_PATHS, compiled_pattern, group_in, no_group
from saccade.sources.lists import check_columns, columns_not_used, folder_of_paths
from saccade.sources.naming import SHOWN_PROBLEMS, as_text, check_classes, suffix, unfit, unusable_rows
from saccade.sources.parts import PART_COLUMNS, PartColumn, find_part_column
from saccade.sources.tables import (
    MEASURED,
    Columns,
    Table,
    column_names,
    not_parquet,
    parquet_columns,
    parquet_module,
    with_usual_names,
)
from saccade.terminal import printable, say_problem
from saccade.threads import usable_memory

LARGE_ROWS = 1_000_000  # a list of more is divided without an object a row
ROWS_AT_A_TIME = 65_536
RECORD_BYTES = 1700  # a row takes where it is read into a record; measured, with paths of 30 characters
MOST_ROWS = 2**31 - 1  # have a number of 32 bits
CLUSTER = "cluster"  # a column of near-duplicates that somebody else has found
COPIES_BY_ETAG = "s3://"  # where an ETag says what an object holds

Keys = NDArray[np.uint64]
Numbers = NDArray[np.int32]
Codes = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Rows:
    """A Parquet list: its columns by their usual names, and where its paths begin.

    manifest: rows without a label are left out, as long as any has one.
    """

    path: Path
    count: int
    root: str
    columns: Mapping[str, str]
    manifest: bool = False
    group_pattern: str = ""
    part_column: PartColumn = field(default_factory=PartColumn)
    findings: tuple[Finding, ...] = ()

    @property
    def where(self) -> str:
        return printable(str(self.path))

    # -- columns as numbers ------------------------------------------------------------------------

    def path_keys(self, seed: int) -> Keys:
        """(rows,) where the seed's order has each path; raises SourceError for bad ones."""
        problems: list[str] = []
        bad = 0
        keys = np.zeros(self.count, dtype=np.uint64)
        for start, batch in self._batches(self.columns["path"]):
            paths = [as_text(value) for value in batch.column(0).to_pylist()]
            keys[start : start + len(paths)] = hashed(paths, before=f"{seed}/")
            for row, path in enumerate(paths, start + 1):
                if why := _bad_path(path):
                    bad += 1
                    if len(problems) < SHOWN_PROBLEMS:
                        problems.append(f"row {row}: {why}")
        if bad:
            raise unusable_rows(problems, self.where, count=bad)
        return keys

    def keys(self, name: str, seed: int = 0) -> Keys:
        """(rows,) equal for rows of the same group, sha256, etag (and size) or cluster; 0 without one."""
        keys = np.zeros(self.count, dtype=np.uint64)
        for start, texts, index in self._texts(name):
            keys[start : start + len(index)] = hashed(texts, before=f"{seed}/")[index]
        return keys

    def labels(self, *, min_classes: int = 2) -> tuple[tuple[str, ...], Numbers]:
        """Class names in order of appearance, and (rows,) the number of each row's, -1 without a label.

        Raises SourceError for labels that cannot be any.
        """
        names, codes = self._codes("label")
        blank = np.flatnonzero(codes < 0)
        if len(blank) and (not self.manifest or not names):
            problems = [
                f"row {row + 1}: no label; fill it in or remove the row" for row in blank[:20].tolist()
            ]
            raise unusable_rows(problems, self.where, count=len(blank))
        check_classes(names, self.where, min_classes=min_classes)
        return names, codes

    def parts(self) -> Codes:
        """(rows,) the place in PARTS of each row's part, -1 without one; raises SourceError."""
        column = self.part_column
        if not column.name:
            return np.full(self.count, -1, dtype=np.int8)
        names, codes = self._codes(column.name)
        unknown = [name for name in names if column.part(name) is None]
        if unknown:
            count = int(np.isin(codes, [names.index(name) for name in unknown]).sum())
            problem = f"unknown part {unknown[0]!r}; use {', '.join(PARTS)}, or leave it blank"
            raise unusable_rows([problem], self.where, count=count)
        places = [PARTS.index(part) if (part := column.part(name)) else -1 for name in names]
        return np.array([*places, -1], dtype=np.int8)[codes]  # -1, no value, is the last place

    def paths_of(self, rows: Sequence[int]) -> list[str]:
        """The paths of a few rows."""
        wanted = np.asarray(rows, dtype=np.int64)
        found: dict[int, str] = {}
        for start, batch in self._batches(self.columns["path"]):
            for row in wanted[(wanted >= start) & (wanted < start + len(batch))].tolist():
                found[row] = as_text(batch.column(0)[row - start].as_py())
        return [found[row] for row in rows]

    def groups_of(self, rows: Sequence[int]) -> list[str]:
        """The groups of a few rows."""
        wanted = np.asarray(rows, dtype=np.int64)
        found: dict[int, str] = {}
        for start, texts, index in self._texts("group"):
            for row in wanted[(wanted >= start) & (wanted < start + len(index))].tolist():
                found[row] = texts[index[row - start]]
        return [found[row] for row in rows]

    def has(self, name: str) -> bool:
        """Whether rows can be told to belong together by this: group, sha256, etag or cluster."""
        if name == "group":
            return bool(self.group_pattern or self.columns.get("group"))
        if name == "etag":  # that of other services says nothing of the content
            return {"etag", "size"} <= set(self.columns) and self.root.startswith(COPIES_BY_ETAG)
        return name in self.columns

    # -- passes ------------------------------------------------------------------------------------

    def _codes(self, name: str) -> tuple[tuple[str, ...], Numbers]:
        """Distinct values in order of appearance, and (rows,) the number of each row's, -1 for none."""
        number: dict[str, int] = {}
        codes = np.empty(self.count, dtype=np.int32)
        for start, texts, index in self._texts(name):
            these = [number.setdefault(text, len(number)) if text else -1 for text in texts]
            codes[start : start + len(index)] = np.array(these, dtype=np.int32)[index]
        return tuple(number), codes

    def _texts(self, name: str) -> Iterator[tuple[int, list[str], NDArray[np.int64]]]:
        """By batch: its first row, distinct values as text, and (rows,) which of these each row has."""
        if name == "group" and self.group_pattern:
            yield from self._groups_in_paths()
            return
        columns = [self.columns.get(name, name)] + ([self.columns["size"]] if name == "etag" else [])
        for start, batch in self._batches(*columns):
            values = _tagged(batch) if name == "etag" else batch.column(0)
            yield start, *self._distinct(values, name)

    def _distinct(self, values: Any, name: str) -> tuple[list[str], NDArray[np.int64]]:
        import pyarrow

        if pyarrow.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pyarrow.types.is_nested(values.type):
            raise SourceError(f"{self.where}: {unfit(values[0].as_py(), name)}", hint="correct the column")
        coded = values.dictionary_encode(null_encoding="encode")
        found = coded.dictionary.to_pylist()
        if why := next(filter(None, (unfit(value, name) for value in found)), ""):
            raise SourceError(f"{self.where}: {why}", hint="correct these rows")
        return [as_text(value).strip() for value in found], coded.indices.to_numpy().astype(np.int64)

    def _groups_in_paths(self) -> Iterator[tuple[int, list[str], NDArray[np.int64]]]:
        pattern = compiled_pattern(self.group_pattern)
        first: list[str] = []
        failed = 0
        for start, batch in self._batches(self.columns["path"]):
            paths = [as_text(value) for value in batch.column(0).to_pylist()]
            groups = [group_in(path, pattern) for path in paths]
            missing = [path for path, group in zip(paths, groups, strict=True) if group is None]
            failed += len(missing)
            first += missing[: SHOWN_PATHS - len(first)]
            number: dict[str, int] = {}
            index = [number.setdefault(group or "", len(number)) for group in groups]
            yield start, list(number), np.array(index, dtype=np.int64)
        if failed:
            raise no_group(self.group_pattern, first, failed, self.count)

    def _batches(self, *columns: str) -> Iterator[tuple[int, Any]]:
        return batches(self.path, columns)

    # -- the list that comes of it -----------------------------------------------------------------

    def write(self, out: Path, parts: Codes, names: Sequence[str], labels: Numbers) -> None:
        """Write the rows that have a part: path, label, part, group, and what a manifest knows of the files.

        parts: (rows,) places in PARTS, -1 for rows to leave out. labels: (rows,) places in `names`.
        """
        import pyarrow

        text = pyarrow.string()
        kept = [name for name in MEASURED if name in self.columns]
        schema = pyarrow.schema([(name, text) for name in ("path", "label", "part", "group")])
        known = parquet_module(self.where).read_schema(self.path)
        for name in kept:
            schema = schema.append(known.field(self.columns[name]).with_name(name))
        schema = schema.with_metadata({ROOT_KEY: self.root.encode("utf-8", "surrogateescape")})
        columns = [self.columns["path"], *(self.columns[name] for name in kept)]
        part_names, label_names = pyarrow.array(PARTS, text), pyarrow.array(names, text)
        with replacing(out) as file, parquet_module(str(out)).ParquetWriter(file, schema) as writer:
            groups = self._texts("group") if self.has("group") else None
            for start, batch in self._batches(*columns):
                here = slice(start, start + len(batch))
                empty = start, [""], np.zeros(len(batch), dtype=np.int64)
                group = _text_column(next(groups) if groups else empty, text)
                keep = parts[here] >= 0
                arrays = [
                    batch.column(0).cast(text),
                    label_names.take(pyarrow.array(labels[here].clip(0))),
                    part_names.take(pyarrow.array(parts[here].clip(0))),
                    group,
                    *batch.columns[1:],
                ]
                table = pyarrow.Table.from_arrays(arrays, schema=schema)
                writer.write_table(table.filter(pyarrow.array(keep)))


def batches(path: Path, columns: Iterable[str]) -> Iterator[tuple[int, Any]]:
    """The first row of each batch of a Parquet file, and the batch; raises SourceError."""
    where, start, wanted = printable(str(path)), 0, list(columns)
    try:
        with parquet_module(where).ParquetFile(path, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=wanted):
                yield start, batch.select(wanted)
                start += len(batch)
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        raise not_parquet(where, error) from None


def hashed(texts: Sequence[str], *, before: str = "") -> Keys:
    """(texts,) 64 bits of BLAKE2b of each text behind `before`; 0 for an empty text.

    >>> hashed(["", "a.jpg", "a.jpg"]).tolist()
    [0, 18322877502207469449, 18322877502207469449]
    """
    digests = (
        hashlib.blake2b(f"{before}{text}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
        if text
        else bytes(8)
        for text in texts
    )
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def _bad_path(path: str) -> str:
    if not path.strip():
        return "no path; fill it in or remove the row"
    if is_remote(path) and has_secrets(path):
        return f"{HAS_SECRETS}; write it without"
    return ""


def _tagged(batch: Any) -> Any:
    """ETag and size of each row as one text, "" without an ETag."""
    import pyarrow
    import pyarrow.compute as compute

    tags, sizes = batch.column(0).cast(pyarrow.string()), batch.column(1).cast(pyarrow.string())
    both = compute.binary_join_element_wise(tags, sizes, " ")
    return compute.if_else(compute.equal(tags, ""), "", both)


def _text_column(found: tuple[int, list[str], NDArray[np.int64]], text: Any) -> Any:
    import pyarrow

    _, texts, index = found
    return pyarrow.array(texts, text).take(pyarrow.array(index))


# -- what the file is ------------------------------------------------------------------------------------


def on_this_disk(location: str, columns: Columns) -> tuple[str, Columns]:
    """A list in Parquet at an address by its copy, whose paths begin beside it; all else as it is."""
    place = without_secrets(location)
    if not is_remote(place) or suffix(place) != "parquet":
        return location, columns
    copies = copies_at(place)
    copy = copies.paths[0]
    if len(copies.paths) > 1 or not parquet_is_list(copy):
        return location, columns
    return str(copy), replace(columns, root=columns.root or ("" if stored_root(copy) else copies.root))


def large_rows(location: str, columns: Columns) -> int:
    """The number of rows of a Parquet list on this disk that is large, else 0."""
    path = Path(location).expanduser().absolute()
    if is_remote(location) or path.suffix.lower() != ".parquet" or not path.is_file():
        return 0
    names, count = parquet_columns(path)
    return count if count > LARGE_ROWS and (columns.path or "path" in names) else 0


def mind_memory(location: str, columns: Columns) -> None:
    """Of a large list: warn of the memory that a record of each row takes; raises SourceError without it."""
    count = large_rows(location, columns)
    if not count:
        return
    needed, free = count * RECORD_BYTES, usable_memory()
    records = f"their records alone take {needed / 1e9:.1f} GB of memory"
    said = f"{printable(location)} has {count:,} rows; {records}"
    remedy = (
        "give a list of fewer rows, or take a machine with more memory (`saccade index`, `split`, `plan` and "
        "`predict` hold no records)"
    )
    if free and needed > free:
        raise SourceError(f"{said}, and {free / 1e9:.1f} GB are free", hint=remedy)
    say_problem("warning", said, hint=f"where that is too much, {remedy}")


def open_rows(location: str, columns: Columns, *, group_pattern: str = "") -> Rows:
    """The list at a location; raises SourceError for columns that it lacks or that cannot be."""
    path = Path(location).expanduser().absolute()
    where = printable(str(path))
    if columns.group and group_pattern:
        raise SourceError("--group and --group-pattern both name the groups", hint="give one of them")
    there, count = parquet_columns(path)
    named = column_names(there, where)
    usual = with_usual_names(Table(named, ()), columns, where).columns
    group = "" if group_pattern else check_columns(Table(usual, ()), where, columns.group, named)
    check_columns(Table(usual, ()), where, "", named)
    if count > MOST_ROWS:
        raise SourceError(f"{where}: more than {MOST_ROWS:,} rows", hint="divide lists of fewer rows each")
    meant = dict(zip(usual, there, strict=True))
    stored = "" if columns.path else stored_root(path)
    root = columns.root or stored
    place = without_secrets(root) if is_remote(root) else os.path.abspath(folder_of_paths(path, root))
    known = {name: meant[name] for name in ("path", "label", *MEASURED, CLUSTER) if name in meant}
    rows = Rows(path, count, place, {**known, **({"group": meant[group]} if group else {})}, bool(stored))
    rows = replace(rows, group_pattern=group_pattern, part_column=_part_column(rows, meant, group))
    used = {"path", "label", "part", rows.part_column.name, group, *MEASURED, CLUSTER}
    unused = columns_not_used(path.name, [name for name in usual if name not in used])
    return replace(rows, findings=(*rows.part_column.findings, *unused))


def _part_column(rows: Rows, meant: Mapping[str, str], group: str) -> PartColumn:
    """Which column names the parts, by its distinct values."""
    values = {
        name: {text for _, texts, _ in rows._texts(column) for text in texts}
        for name, column in meant.items()
        if name.casefold() in PART_COLUMNS and name != group
    }
    found = find_part_column(values, rows.where)
    return replace(found, name=meant[found.name]) if found.name else found
