"""Rows of tables and samples of shards as records: labels checked, parts found, all problems at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saccade.errors import SourceError
from saccade.records import PARTS, Finding, ImageRecord
from saccade.sources.layout import classes_missing_in_parts
from saccade.sources.names import printable, some
from saccade.sources.naming import check_classes
from saccade.sources.part_columns import PartColumn, find_part_column
from saccade.sources.said import damaged_names, doubt, unusable_rows
from saccade.sources.values import as_text, unfit


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
        raise SourceError(f"{where}: {len(blank):,} {unlabelled}: {some(blank, most=5)}; {remedy}")
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
    why = unfit(row.label, "label") or unfit(row.group, "group")
    if why or column.part(row.fields.get(column.name)) is not None:
        return why
    return f"unknown part {as_text(row.fields[column.name])!r}; use {', '.join(PARTS)}, or leave it blank"


def _record(row: Row, column: PartColumn) -> ImageRecord:
    part = row.part or column.part(row.fields.get(column.name)) or ""
    return ImageRecord(row.path, as_text(row.label).strip(), part, as_text(row.group).strip())
