"""Rows of CSV, TSV, JSON Lines and Parquet files with their lines, and how rows become records."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.errors import MissingExtraError, SourceError
from saccade.files import open_file, read_file
from saccade.records import PARTS, Finding, ImageRecord
from saccade.sources.layout import classes_missing_in_parts
from saccade.sources.naming import as_text, check_classes, damaged_names, doubt, some, unfit, unusable_rows
from saccade.sources.parts import PartColumn, find_part_column
from saccade.terminal import printable

TEXT_SUFFIXES = ("csv", "tsv", "jsonl", "ndjson")

MEASURED = ("size", "etag", "modified", "sha256")  # columns of a manifest that are no labels or groups
_BUFFER_BYTES = 1 << 20
_UTF16_SEEN_BYTES = 200  # text in UTF-16 or UTF-32 has zero bytes near its beginning, also without a mark

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as values by column; lines count from 1, the header included (Parquet: rows from 1)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, Fields], ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """What the user calls the columns of a list; "" is the usual name.

    path, label: columns of the files' names and of the classes. group: the column of what must stay
    together. root: the folder that paths are relative to; "" is the folder of the list. several: an image may
    have several labels, as delimiter (the mark between them in a cell) and one_hot (columns of 0 and 1) say
    by themselves.
    """

    path: str = ""
    label: str = ""
    group: str = ""
    root: str = ""
    several: bool = False
    delimiter: str = ""
    one_hot: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "several", self.several or bool(self.delimiter or self.one_hot))


USUAL_COLUMNS = Columns()


def with_usual_names(table: Table, columns: Columns, where: str) -> Table:
    """The table with the columns that `columns` names called path and label.

    Raises SourceError, which says what columns there are, for one that is absent.

    >>> table = Table(("file", "species"), ((2, {"file": "a.jpg", "species": "cat"}),))
    >>> with_usual_names(table, Columns("file", "species"), "my.csv").rows
    ((2, {'path': 'a.jpg', 'label': 'cat'}),)
    """
    if not table.columns or not (columns.path or columns.label):
        return table
    usual = {}
    for name, wanted in (("path", columns.path), ("label", columns.label)):
        if wanted:
            usual[find_column(wanted, table.columns, where, flag=f"--{name}-column")] = name
    taken = set(usual.values())
    names = {
        column: usual.get(column, f"{column} (not used)" if column in taken else column)
        for column in table.columns
    }
    rows = ((line, {names[column]: value for column, value in row.items()}) for line, row in table.rows)
    return Table(tuple(names.values()), tuple(rows), table.problems)


def find_column(wanted: str, there: Sequence[str], where: str, *, flag: str) -> str:
    """The column `wanted`, also where only upper and lower case differ; raises SourceError without one."""
    alike = [name for name in there if name.casefold() == wanted.strip().casefold()]
    if wanted in there or len(alike) == 1:
        return wanted if wanted in there else alike[0]
    raise SourceError(
        f"{where}: no column {wanted!r}; its columns are: {some(there)}",
        hint=column_meant(wanted, there, flag),
    )


def column_meant(wanted: str, there: Sequence[str], flag: str) -> str:
    """What to do where no column is called `wanted`: the flag with the nearest name.

    >>> column_meant("sitee", ["image", "site"], "--group")
    'did you mean --group site?'
    """
    close = difflib.get_close_matches(wanted, there, n=1)
    return f"did you mean {flag} {printable(close[0])}?" if close else f"name one of them with {flag}"


def refuse_columns(columns: Columns, what: str) -> None:
    """Raise SourceError where a column is named for data that have none.

    what: the data, as the first word of a sentence.

    >>> refuse_columns(Columns(label="species"), "a folder")
    Traceback (most recent call last):
    saccade.errors.SourceError: a folder has no columns, so --label-column 'species' means nothing
    hint: leave it out
    """
    flags = {
        "--group": columns.group,
        "--path-column": columns.path,
        "--label-column": columns.label,
        "--root": columns.root,
        "--label-delimiter": columns.delimiter,
        "--label-columns": columns.one_hot,
    }
    if columns.several and not (columns.delimiter or columns.one_hot):
        raise SourceError(
            f"{what} has one label an image, so --multi-label means nothing", hint="leave it out"
        )
    for flag, value in flags.items():
        if value:
            raise SourceError(
                f"{what} has no columns, so {flag} {value!r} means nothing",
                hint="use --group-pattern" if flag == "--group" else "leave it out",
            )


def read_text_table(path: Path) -> Table:
    """The rows of a CSV, TSV or JSON Lines file; raises SourceError when it cannot be opened."""
    try:
        data = read_file(path)
    except OSError as error:
        raise _not_opened(printable(str(path)), error) from None
    return parse_text_table(data, printable(str(path)))


def parse_text_table(data: bytes, where: str) -> Table:
    """The rows of a text table: JSON Lines when it begins with a brace, else separated values."""
    _refuse_utf16(data[:_UTF16_SEEN_BYTES], where)
    # surrogateescape: file names that are not UTF-8 still find their file
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    columns: dict[str, None] = {}
    rows: list[tuple[int, Fields]] = []
    problems = []
    for line, row in _text_rows(io.StringIO(text, newline=""), where):
        if isinstance(row, str):
            problems.append(f"line {line}: {row}")
            continue
        columns.update(dict.fromkeys(row))
        if isinstance(row, dict):
            rows.append((line, row))
    complete = ((line, {**dict.fromkeys(columns, ""), **row}) for line, row in rows)
    return Table(tuple(columns), tuple(complete), tuple(problems))


def stream_text_table(path: Path) -> Iterator[tuple[int, Fields]]:
    """The rows of a CSV, TSV or JSON Lines file with their lines, one by one, however long it is.

    Raises SourceError when it cannot be opened, and at the first row that cannot be read.
    """
    where = printable(str(path))
    try:
        with open_file(path) as file:
            _refuse_utf16(file.read(_UTF16_SEEN_BYTES), where)
            file.seek(0)
            text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
            for line, row in _text_rows(text, where):
                if isinstance(row, str):
                    raise SourceError(f"{where}: line {line}: {row}", hint="correct that line")
                if isinstance(row, dict):
                    yield line, row
    except OSError as error:
        raise _not_opened(where, error) from None


def _not_opened(where: str, error: OSError) -> SourceError:
    return SourceError(
        f"{where}: cannot be opened ({error.strerror})", hint="check the path and its permissions"
    )


def _refuse_utf16(start: bytes, where: str) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
        raise SourceError(f"{where}: is UTF-16 text", hint="save it as UTF-8 (in a spreadsheet: CSV UTF-8)")


def _delimiter(header: str) -> str:
    """The separator that the first line uses most; a comma where there is none."""
    return max(",;\t", key=lambda mark: (header.count(mark), mark == ","))


# A line, and what stands there: the names of the columns, a row's values, or what is wrong with it
_TextRow = tuple[int, tuple[str, ...] | Fields | str]


def _text_rows(lines: Iterable[str], where: str) -> Iterator[_TextRow]:
    """JSON Lines when they begin with a brace, else separated values below a header."""
    lines, seen = iter(lines), []
    for line in lines:
        seen.append(line)
        if line.strip():
            break
    first = seen[-1] if seen else ""
    every = itertools.chain(seen, lines)
    if first.lstrip().startswith("{"):
        yield from _json_rows(every, where)
    else:
        yield from _csv_rows(every, _delimiter(first), where)


def _csv_rows(lines: Iterable[str], delimiter: str, where: str) -> Iterator[_TextRow]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    columns: tuple[str, ...] = ()
    line = 1
    try:
        for values in reader:
            start, line = line, reader.line_num + 1  # a quoted newline makes a row of several lines
            if not any(value.strip() for value in values):
                continue
            if not columns:
                columns = column_names(values, where)
                yield start, columns
            elif len(values) > len(columns):
                yield (
                    start,
                    f"{len(values)} fields where the header names {len(columns)}; "
                    "quote a path that holds the separator",
                )
            else:
                padded = values + [""] * (len(columns) - len(values))
                yield start, dict(zip(columns, padded, strict=True))
    except csv.Error as error:
        yield line, f"cannot be read ({error}); close the quote that is open"


def _json_rows(lines: Iterable[str], where: str) -> Iterator[_TextRow]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            yield number, dict(zip(column_names(value, where), value.values(), strict=True))
        else:
            yield number, 'no JSON object; write {"path": "...", "label": "..."}'


def column_names(values: Iterable[str], where: str) -> tuple[str, ...]:
    """Names as the user wrote them, but the four known ones in lower case."""
    known = ("path", "label", "part", "group")
    names = [value.strip() for value in values]
    names = [name.lower() if name.lower() in known else name for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(f"{where}: column {some(twice)} appears twice", hint="keep one")
    return tuple(names)


def parquet_module(where: str) -> Any:
    """pyarrow.parquet; raises MissingExtraError where it is not installed."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "train", f"reading {where}") from None
    return parquet


def stream_parquet_column(path: Path, column: str) -> Iterator[Any]:
    """The values of one column, read a thousand at a time; raises SourceError."""
    where = printable(str(path))
    try:
        with parquet_module(where).ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            for batch in file.iter_batches(batch_size=1000, columns=[column]):
                yield from batch.column(0).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        raise not_parquet(where, error) from None


def parquet_columns(path: Path) -> tuple[list[str], int]:
    """The columns as in `read_parquet_table`, and the number of rows; raises SourceError."""
    where = printable(str(path))
    try:
        with parquet_module(where).ParquetFile(path) as file:
            return file.schema_arrow.names, file.metadata.num_rows
    except (OSError, ValueError) as error:
        raise not_parquet(where, error) from None


def not_parquet(where: str, error: Exception) -> SourceError:
    return SourceError(f"{where}: cannot be read as Parquet ({error})", hint="write it again")


def read_parquet_table(path: Path, *, manifest: bool = False) -> Table:
    """The rows of a Parquet list; of a manifest those with a label, where any has one."""
    where = printable(str(path))
    try:
        parquet = parquet_module(where)
        wanted = [name for name in parquet.read_schema(path).names if name not in MEASURED]
        table = parquet.read_table(path, columns=wanted if manifest else None)
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
        raise not_parquet(where, error) from None
    columns = column_names(table.column_names, where)
    values = [column.to_pylist() for column in table.columns]
    rows = tuple(enumerate((dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)), 1))
    labelled = tuple(numbered for numbered in rows if numbered[1].get("label")) if manifest else ()
    return Table(columns, labelled or rows)


# -- rows ------------------------------------------------------------------------------------------------
# Rows of tables and samples of shards as records: labels checked, parts found, all problems at once.


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a table or shard; `part` is what its file's name says, `fields` may name the part, too."""

    path: str
    label: Any
    group: Any = ""
    part: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Records in path order and what belongs to them in a Dataset."""

    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    given_parts: tuple[str, ...]
    listed: tuple[str, ...]
    findings: tuple[Finding, ...]


def labelled(rows: Sequence[Row], where: str, *, min_classes: int, unlabelled: str, remedy: str) -> Labelled:
    """Raises SourceError with every row whose label cannot be one.

    `unlabelled` is what a row without a label is called, `remedy` what to do about it.
    """
    column = _part_column(rows, where)
    if problems := [f"{printable(row.path)}: {why}" for row in rows if (why := _unfit(row, column))]:
        raise unusable_rows(problems, where)
    blank = [row.path for row in rows if not as_text(row.label).strip()]
    if blank:
        raise SourceError(f"{where}: {len(blank):,} {unlabelled}: {some(blank, most=5)}", hint=remedy)
    records = sorted((_record(row, column) for row in rows), key=lambda record: record.path)
    classes = check_classes({record.label for record in records}, where, min_classes=min_classes)
    given = tuple(part for part in PARTS if any(record.part == part for record in records))
    listed = tuple(classes_missing_in_parts(records, classes, given))
    findings = (*column.findings, *damaged_names(classes))
    return Labelled(tuple(records), classes, given, listed, findings)


def _part_column(rows: Sequence[Row], where: str) -> PartColumn:
    """The column that names the parts; it does not count where the files' names do."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        for name, value in row.fields.items():
            columns[name].append(value)
    column = find_part_column(columns, where)
    if not column.name or not any(row.part for row in rows):
        return column
    other = [row.path for row in rows if column.part(row.fields.get(column.name)) not in ("", row.part)]
    if not other:
        return PartColumn()
    message = (
        f"column {printable(column.name)} names another part than the file for {len(other):,} rows, "
        f"{some(other, most=2)} first; the files' names count"
    )
    return PartColumn(findings=(doubt(message, "Rename the files, or remove the column"),))


def _unfit(row: Row, column: PartColumn) -> str:
    listed = "list the images as files, with --multi-label"
    why = unfit(row.label, "label", several=listed) or unfit(row.group, "group")
    if why or column.part(row.fields.get(column.name)) is not None:
        return why
    return f"unknown part {as_text(row.fields[column.name])!r}; use {', '.join(PARTS)}, or leave it blank"


def _record(row: Row, column: PartColumn) -> ImageRecord:
    part = row.part or column.part(row.fields.get(column.name)) or ""
    return ImageRecord(row.path, as_text(row.label).strip(), part, as_text(row.group).strip())
