"""Lists in which an image may have several labels: how cells become sets of names, and when a list looks so.

Three forms, which may be mixed: a cell with several names and a mark between them, a column for each label
(one-hot), and rows that repeat a path. An empty label is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from saccade.errors import SourceError
from saccade.label_sets import join_labels, split_labels
from saccade.records import Finding, ImageRecord
from saccade.sources.naming import as_text, doubt, some
from saccade.sources.tables import Columns, Table
from saccade.terminal import printable

HAS, HAS_NOT = frozenset({"1", "true"}), frozenset({"", "0", "false"})
MARKS = (",", ";", "|")


def with_label_sets(table: Table, columns: Columns, where: str) -> Table:
    """The table with a set of names as text in column `label`, where `columns` say that there are several.

    Raises SourceError for one-hot columns that are not there.

    >>> table = Table(("path", "cat", "dog"), ((2, {"path": "a.jpg", "cat": "1", "dog": "0"}),))
    >>> with_label_sets(table, Columns(one_hot="cat,dog"), "my.csv").rows
    ((2, {'path': 'a.jpg', 'label': 'cat'}),)
    """
    if not columns.several:
        return table
    if columns.one_hot:
        return _from_one_hot(table, columns.one_hot, where)
    rows = (
        (line, {**row, "label": _as_set(row.get("label"), columns.delimiter)}) for line, row in table.rows
    )
    return replace(table, rows=tuple(rows)) if "label" in table.columns else table


def _as_set(value: Any, delimiter: str) -> Any:
    """One cell as a set of names; a list, as JSON and Parquet have it, is one already."""
    if isinstance(value, list | tuple | set):
        return join_labels(dict.fromkeys(name for one in value if (name := as_text(one).strip())))
    text = as_text(value).strip()
    return join_labels(split_labels(text, delimiter) if delimiter else [text] if text else [])


def _from_one_hot(table: Table, wanted: str, where: str) -> Table:
    names = _one_hot_columns(table.columns, wanted, where)
    if "label" in table.columns and "label" not in names:
        raise SourceError(
            f"{where}: --label-columns {wanted!r} and a column label both name the labels",
            hint="remove one of them from the list",
        )
    rows, problems = [], list(table.problems)
    for line, row in table.rows:
        odd = [name for name in names if _one_hot_text(row.get(name)) not in HAS | HAS_NOT]
        problems += [
            f"line {line}: {printable(as_text(row[name]))!r} in column {name}; use 1 or 0" for name in odd
        ]
        kept = {name: value for name, value in row.items() if name not in names}
        held = [name for name in names if _one_hot_text(row.get(name)) in HAS]
        rows.append((line, {**kept, "label": join_labels(held)}))
    there = (*(name for name in table.columns if name not in names), "label")
    return Table(there, tuple(rows), tuple(problems))


def _one_hot_columns(there: Sequence[str], wanted: str, where: str) -> list[str]:
    """The columns that names and patterns mean, in the list's order; raises SourceError for an absent one."""
    patterns = [pattern.strip() for pattern in wanted.split(",") if pattern.strip()]
    absent = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in there)]
    if absent or not patterns:
        raise SourceError(
            f"{where}: no column {some(absent)} for --label-columns; its columns are: {some(there)}",
            hint="give names or patterns of columns with commas between, such as cat,dog or is_*",
        )
    found = [name for name in there if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if reserved := [name for name in found if name in ("path", "part", "group")]:
        raise SourceError(
            f"{where}: --label-columns {wanted!r} also means the column {some(reserved)}",
            hint="name the columns of labels, or a pattern of theirs alone",
        )
    return found


def _one_hot_text(value: Any) -> str:
    return as_text(value).strip().casefold()


# -- records ---------------------------------------------------------------------------------------------


def joined(first: ImageRecord, again: ImageRecord) -> ImageRecord:
    """One image with the labels of both rows."""
    return replace(first, label=join_labels(dict.fromkeys([*first.labels, *again.labels])))


def names_in(records: Iterable[ImageRecord]) -> set[str]:
    """Every label that an image has."""
    return {label for record in records for label in record.labels}


def in_order(records: Iterable[ImageRecord], classes: Sequence[str]) -> tuple[ImageRecord, ...]:
    """The records with the names of each set in the order of the classes: equal sets are equal texts."""
    place = {label: number for number, label in enumerate(classes)}
    return tuple(replace(r, label=join_labels(sorted(r.labels, key=place.__getitem__))) for r in records)


# -- lists that look as if ----------------------------------------------------------------------------------


def looks_like_sets(labels: Sequence[str]) -> tuple[Finding, ...]:
    """Said where most labels of a list hold the same mark and what it parts comes again in other labels.

    >>> looks_like_sets(["cat,dog", "cat,bird", "dog,bird", "bird,dog,cat"])[0].remedy
    'Where each is a label of its own, add --label-delimiter ","'
    >>> looks_like_sets(["Smith, John", "Doe, Jane"])
    ()
    """
    for mark in MARKS:
        held = [label for label in labels if mark in label]
        names = {name for label in labels for name in split_labels(label, mark)}
        if 2 * len(held) > len(labels) and len(names) < len(set(labels)):
            message = (
                f"{len(held):,} of {len(labels):,} labels look like several names in one, such as "
                f"{printable(held[0])!r}; each is read as one class"
            )
            return (doubt(message, f'Where each is a label of its own, add --label-delimiter "{mark}"'),)
    return ()


def one_hot_hint(table: Table) -> str:
    """The flag for columns that hold only 0 and 1, in a list without labels; "" where there are not two."""
    rows = [row for _, row in table.rows]
    found = [name for name in table.columns if _is_one_hot(name, rows)]
    return f'--label-columns "{",".join(found)}"' if len(found) > 1 else ""


def _is_one_hot(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    values = {_one_hot_text(row.get(name)) for row in rows}
    return bool(values & HAS) and values <= HAS | HAS_NOT
