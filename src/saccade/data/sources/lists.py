"""Lists of images: CSV, TSV, JSON Lines or Parquet with path,label[,part][,group].

Paths are relative to the folder of the list. All problems are reported at once, with their lines.
A row whose file is missing is set aside by name, a repeated row is used once; both are listed. Rows
that contradict each other, name no label or an unknown part, or an absolute path elsewhere stop the
run, since nobody can say what was meant. A path may lead out of the list's folder with "../" (a list
written by `saccade split` does when it lies elsewhere); that is listed with its line.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.data.sources.layout import classes_missing_in_parts
from saccade.data.sources.naming import PART_OF_FOLDER, check_classes, printable, some
from saccade.data.storage import FolderStorage
from saccade.errors import MissingExtraError, SourceError
from saccade.records import PARTS, Dataset, ImageRecord

LIST_SUFFIXES = ("csv", "tsv", "jsonl", "ndjson")
SHOWN_PROBLEMS = 20

Fields = dict[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a list with the line each begins on (1 is the first line of the file)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, Fields], ...]
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Gathered:
    """What reading the rows brings together."""

    records: dict[str, ImageRecord] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    missing: int = 0


def load_list(path: Path, *, group: str | None = None, min_classes: int = 2) -> Dataset:
    """The data set that a list names; raises SourceError with every problem and its line."""
    table = read_table(path)
    group_column = _check_columns(table, path, group)
    gathered = _Gathered(problems=list(table.problems))
    for line, fields in table.rows:
        _take_row(gathered, line, fields, path, group_column)
    _raise_problems(gathered, path)
    return _as_dataset(gathered, table, path, group_column, min_classes)


def _as_dataset(
    gathered: _Gathered, table: Table, path: Path, group_column: str, min_classes: int
) -> Dataset:
    where = printable(str(path))
    records = tuple(gathered.records[key] for key in sorted(gathered.records))
    classes = check_classes({record.label for record in records}, where, min_classes=min_classes)
    given = tuple(part for part in PARTS if any(record.part == part for record in records))
    unused = [name for name in table.columns if name not in ("path", "label", "part", group_column)]
    listed = [*gathered.listed, *classes_missing_in_parts(records, classes, given)]
    if unused:
        listed.append(f"{printable(path.name)}: columns not used: {some(unused)}")
    root = path.parent
    return Dataset(root, records, classes, FolderStorage(root, outside=True), given, listed=tuple(listed))


def _check_columns(table: Table, path: Path, group: str | None) -> str:
    """The name of the group column, "" without one; raises SourceError where a column is absent."""
    wanted = ["path", "label"] + ([group] if group else [])
    absent = [name for name in wanted if name not in table.columns]
    if absent:
        raise SourceError(
            f"{printable(str(path))}: no column {some(absent)}; it has {some(table.columns)}. "
            "The first line must name the columns: path,label and, where wanted, part,group"
        )
    return group or ("group" if "group" in table.columns else "")


def _take_row(found: _Gathered, line: int, fields: Fields, list_path: Path, group_column: str) -> None:
    """Check one row and add its record, or say with its line what is wrong."""
    label = fields["label"].strip()
    part = _part_name(fields.get("part", ""))
    path, problem = _relative_path(fields["path"], list_path.parent)
    if not label:
        problem = problem or "no label; fill it in or remove the row"
    if part is None:
        problem = problem or f"unknown part {fields['part']!r}; use {', '.join(PARTS)}, or leave it blank"
    if problem or part is None:
        found.problems.append(f"line {line}: {problem}")
        return
    record = ImageRecord(path, label, part, fields.get(group_column, "").strip())
    if path in found.records:
        _repeated_row(found, line, record)
        return
    found.lines[path] = line
    found.records[path] = _with_file_checked(found, line, record, list_path)


def _repeated_row(found: _Gathered, line: int, record: ImageRecord) -> None:
    """The same path again: harmless when all agrees, a contradiction otherwise."""
    first, name = found.records[record.path], printable(record.path)
    if (record.label, record.part, record.group) == (first.label, first.part or record.part, first.group):
        found.listed.append(f"{name}: line {line} repeats line {found.lines[record.path]}; used once")
        return
    found.problems.append(
        f"line {line}: {name} is {_said(record)} here and {_said(first)} in line {found.lines[record.path]}; "
        "keep one of the rows"
    )


def _said(record: ImageRecord) -> str:
    values = [record.label, record.part and f"part {record.part}", record.group and f"group {record.group}"]
    return printable(", ".join(value for value in values if value))


def _with_file_checked(found: _Gathered, line: int, record: ImageRecord, list_path: Path) -> ImageRecord:
    name = printable(record.path)
    if not os.path.isfile(os.path.join(list_path.parent, record.path)):
        found.missing += 1
        found.listed.append(f"{name}: no such file (line {line}); set aside, restore it or remove the row")
        return record.set_aside(f"no such file (line {line} of {printable(list_path.name)})")
    if record.path.startswith("../"):
        found.listed.append(f"{name}: outside the folder of the list (line {line}); used")
    return record


def _relative_path(text: str, root: Path) -> tuple[str, str]:
    """The path with forward slashes below (or beside) the list's folder, and what is wrong with it."""
    if not text.strip():
        return "", "no path; fill it in or remove the row"
    if "\0" in text:
        return "", "a zero byte in the path; write the list again"
    if os.path.isabs(text):
        inside = os.path.relpath(text, root)
        if inside.startswith(".."):
            return (
                "",
                f"absolute path {printable(text)} outside the list's folder; write it relative to the list",
            )
        text = inside
    return os.path.normpath(text.replace("\\", "/") if os.sep == "\\" else text).replace(os.sep, "/"), ""


def _part_name(text: str) -> str | None:
    """One of PARTS, "" for a blank; None when the name is unknown."""
    name = text.strip().casefold()
    return PART_OF_FOLDER.get(name) if name else ""


def _raise_problems(found: _Gathered, path: Path) -> None:
    where = printable(str(path))
    if not found.records and not found.problems:
        raise SourceError(f"{where}: no rows below the header; do: add one row path,label for each image")
    if found.missing and found.missing == len(found.records) and not found.problems:
        first = printable(next(iter(found.records)))
        raise SourceError(
            f"{where}: none of the {found.missing:,} files it names exist; the first is {first}. "
            f"Paths are relative to the list's folder, {printable(str(path.parent))}; "
            "move the list or correct them"
        )
    if found.problems:
        shown = "\n  ".join(found.problems[:SHOWN_PROBLEMS])
        more = len(found.problems) - SHOWN_PROBLEMS
        rest = f"\n  and {more:,} more" if more > 0 else ""
        raise SourceError(
            f"{where}: {len(found.problems):,} rows cannot be used; correct them:\n  {shown}{rest}"
        )


# --- reading the three kinds of file -------------------------------------------------------------


def read_table(path: Path) -> Table:
    """The rows of a CSV, TSV, JSON Lines or Parquet file as text fields by lower-case column name."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _parquet_table(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{printable(str(path))}: cannot be opened ({error.strerror})") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError(f"{printable(str(path))}: is UTF-16 text; save it as UTF-8 (CSV UTF-8)")
    # surrogateescape: file names that are not UTF-8 still find their file
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    return _json_table(text, path) if ending in (".jsonl", ".ndjson") else _csv_table(text, path)


def _delimiter(header: str) -> str:
    """The separator that the first line uses most; a comma where there is none."""
    return max(",;\t", key=lambda mark: (header.count(mark), mark == ","))


def _csv_table(text: str, path: Path) -> Table:
    first_line = text.lstrip("\r\n").partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(first_line), strict=True)
    columns: tuple[str, ...] = ()
    rows, problems = [], []
    line = 1
    try:
        for values in reader:
            start, line = line, reader.line_num + 1
            if not any(value.strip() for value in values):
                continue
            if not columns:
                columns = _column_names(values, path)
            elif len(values) > len(columns):
                problems.append(
                    f"line {start}: {len(values)} fields, the header names {len(columns)}; quote paths"
                )
            else:
                padded = values + [""] * (len(columns) - len(values))
                rows.append((start, dict(zip(columns, padded, strict=True))))
    except csv.Error as error:
        problems.append(f"line {line}: cannot be read ({error}); look for a quote that is not closed")
    return Table(columns, tuple(rows), tuple(problems))


def _column_names(values: Iterable[str], path: Path) -> tuple[str, ...]:
    """Names as the user wrote them, but the four known ones in lower case."""
    known = ("path", "label", "part", "group")
    names = [value.strip() for value in values]
    names = [name.lower() if name.lower() in known else name for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(f"{printable(str(path))}: column {some(twice)} appears twice; keep one")
    return tuple(names)


def _json_table(text: str, path: Path) -> Table:
    rows: list[tuple[int, Fields]] = []
    problems: list[str] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            problems.append(f'line {number}: not a JSON object; write {{"path": "...", "label": "..."}}')
            continue
        names = _column_names(value, path)
        columns.update(dict.fromkeys(names))
        rows.append((number, dict(zip(names, map(_as_text, value.values()), strict=True))))
    complete = tuple((number, {**dict.fromkeys(columns, ""), **fields}) for number, fields in rows)
    return Table(tuple(columns), complete, tuple(problems))


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)


def _parquet_table(path: Path) -> Table:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "train", "reading Parquet") from None
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        raise SourceError(f"{printable(str(path))}: cannot be read as Parquet ({error})") from None
    columns = _column_names(table.column_names, path)
    values = [[_as_text(value) for value in column.to_pylist()] for column in table.columns]
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))
    return Table(columns, tuple(enumerate(rows, start=1)))
