"""Lists of images: path,label[,part][,group]; all problems are reported at once.

Paths are relative to the folder of the list. A row whose file is missing is set aside, a repeated row is used
once; both are listed. A path written on another system (backslashes, Unicode form, case) matches the file it
means. Rows that contradict each other, have no label, an unknown part or an absolute path elsewhere stop the
run. A path may lead out of the list's folder with "../" (as in a list that `saccade split` writes elsewhere);
that is listed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from saccade.errors import ImageError, SourceError
from saccade.label_sets import SEPARATOR
from saccade.records import PARTS, Dataset, Finding, ImageRecord, Storage
from saccade.sources.addresses import HAS_SECRETS, has_secrets, is_remote, without_secrets
from saccade.sources.layout import classes_missing_in_parts
from saccade.sources.lookup import FolderLookup, Lookup, MemberLookup, Unseen, find
from saccade.sources.naming import (
    as_text,
    check_classes,
    damaged_names,
    how_it_is_read,
    some,
    unfit,
    unusable_rows,
)
from saccade.sources.parts import PART_COLUMNS, PartColumn, find_part_column
from saccade.sources.remote import LinkedStorage, RemoteStorage
from saccade.sources.several import (
    in_order,
    joined,
    looks_like_sets,
    names_in,
    one_hot_hint,
    with_label_sets,
)
from saccade.sources.storage import FolderStorage
from saccade.sources.tables import USUAL_COLUMNS, Columns, Fields, Table, column_meant, with_usual_names
from saccade.terminal import printable


@dataclass(slots=True)
class _Reading:
    """How the rows are read, and what they bring together."""

    name: str
    root: Path
    lookup: Lookup
    may_leave_root: bool
    addresses: bool = False  # may be paths
    unit: str = "line"
    group_column: str = ""
    several: bool = False
    part_column: PartColumn = field(default_factory=PartColumn)
    contradictions: int = 0  # rows that give a path another label
    gone: int = 0  # files that do not exist
    records: dict[str, ImageRecord] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)
    found_as: dict[str, list[str]] = field(default_factory=dict)


def load_list(table: Table, path: Path, *, columns: Columns = USUAL_COLUMNS, min_classes: int = 2) -> Dataset:
    """The data set that a list names; raises SourceError with every problem and its line.

    path: what the list is called, and where it lies: without `columns.root` its paths begin in that folder.
    """
    where = printable(str(path))
    if is_remote(columns.root):
        address = without_secrets(columns.root)
        reading = _Reading(path.name, Path(address), Unseen(), may_leave_root=False, addresses=True)
        return _load(table, reading, where, RemoteStorage(address), columns, min_classes)
    root = folder_of_paths(path, columns.root)
    reading = _Reading(path.name, root, FolderLookup(root), may_leave_root=True, addresses=True)
    storage = FolderStorage(root, outside=True)
    dataset = _load(table, reading, where, storage, columns, min_classes)
    linked = any(is_remote(record.path) for record in dataset.records)
    return replace(dataset, storage=LinkedStorage(storage)) if linked else dataset


def load_given(table: Table, root: Path, *, several: bool = False, min_classes: int = 2) -> Dataset:
    """The data set of images given in Python: they have rows, counted from 0, and no lines of a file.

    several: each label is a set of names, as `saccade.label_sets` writes it.
    """
    rows = tuple((row, fields) for row, (_, fields) in enumerate(table.rows))
    where = "the images given (rows count from 0)"
    reading = _Reading("the images given", root, FolderLookup(root), may_leave_root=True, unit="row")
    return _load(
        replace(table, rows=rows),
        reading,
        where,
        FolderStorage(root, outside=True),
        Columns(delimiter=SEPARATOR) if several else USUAL_COLUMNS,
        min_classes,
    )


def folder_of_paths(path: Path, given: str) -> Path:
    """The folder that paths begin in; one that is given is looked for here, else beside the list."""
    if not given:
        return path.parent
    places = (Path(given).expanduser().absolute(), path.parent / given)
    root = next((place for place in places if place.is_dir()), None)
    if root is None:
        raise SourceError(
            f"root is no folder: {printable(given)}",
            hint="give the folder that the paths of the list begin in",
        )
    return root


def load_list_inside(
    table: Table,
    name: str,
    root: Path,
    storage: Storage,
    members: Collection[str],
    *,
    columns: Columns = USUAL_COLUMNS,
    min_classes: int = 2,
) -> Dataset:
    """The data set that a list inside an archive names; no path may lead out of the archive."""
    where = printable(f"{root}: {name}")
    if columns.root:
        raise SourceError(
            f"{where}: the paths of a list in an archive begin in the archive, so --root means nothing",
            hint="leave --root out, or unpack the archive",
        )
    reading = _Reading(name, root, MemberLookup(members), may_leave_root=False)
    return _load(table, reading, where, storage, columns, min_classes)


def _load(
    table: Table, reading: _Reading, where: str, storage: Storage, columns: Columns, min_classes: int
) -> Dataset:
    there, group, reading.several = table.columns, columns.group, columns.several
    table = with_label_sets(with_usual_names(table, columns, where), columns, where)
    reading.group_column = check_columns(table, where, group, there)
    reading.part_column = _part_column(table, where, group)
    reading.problems += table.problems
    for line, fields in table.rows:
        _take_row(reading, line, fields)
    _raise_problems(reading, where)
    records = tuple(reading.records[key] for key in sorted(reading.records))
    classes = check_classes(names_in(records), where, min_classes=min_classes)
    records = in_order(records, classes) if reading.several else records
    given = tuple(part for part in PARTS if any(record.part == part for record in records))
    _refuse_mostly_missing(reading, where)
    used = ("path", "label", "part", reading.part_column.name, reading.group_column)
    unused = [name for name in table.columns if name not in used]
    listed = [*reading.listed, *classes_missing_in_parts(records, classes, given)]
    read = [*_found_elsewhere(reading), *_repeats(reading), *columns_not_used(reading.name, unused)]
    findings = (*reading.part_column.findings, *read, *damaged_names(classes))
    if not reading.several:
        findings += looks_like_sets([record.label for record in records])
    return Dataset(
        reading.root,
        records,
        classes,
        storage,
        given,
        listed=tuple(listed),
        findings=findings,
        multi_label=reading.several,
    )


def _part_column(table: Table, where: str, group: str) -> PartColumn:
    named = [name for name in table.columns if name.casefold() in PART_COLUMNS and name != group]
    return find_part_column({name: [row.get(name) for _, row in table.rows] for name in named}, where)


def _refuse_mostly_missing(reading: _Reading, where: str) -> None:
    """Raise SourceError for classes of which more files are missing than there are."""
    named = Counter(label for record in reading.records.values() for label in record.labels)
    gone = {label: n for label, n in reading.missing.items() if 2 * n > named[label]}
    if gone:
        first = next(r for r in reading.records.values() if gone.keys() & set(r.labels) and not r.used)
        counts = some(f"{label} ({n:,} of {named[label]:,})" for label, n in sorted(gone.items()))
        raise SourceError(
            f"{where}: most files of a class do not exist: {counts}; the first is {printable(first.path)}",
            hint="restore them, correct their paths, or remove these rows",
        )


def _found_elsewhere(reading: _Reading) -> tuple[Finding, ...]:
    """Said of paths that name a file in the way of another system."""
    return tuple(
        how_it_is_read(
            f"{len(paths):,} paths of {printable(reading.name)} name files that differ in {what}: "
            f"{some(paths, most=2)}; used",
            "Nothing to do",
        )
        for what, paths in reading.found_as.items()
    )


def _repeats(reading: _Reading) -> tuple[Finding, ...]:
    if not reading.repeated:
        return ()
    rows = "1 row repeats an earlier one"
    if (count := len(reading.repeated)) > 1:
        rows = f"{count:,} rows repeat earlier ones"
    said = f"{printable(reading.name)}: {rows}; used once: {some(reading.repeated, most=3)}"
    return (how_it_is_read(said, "Nothing to do"),)


def columns_not_used(name: str, columns: Sequence[str]) -> tuple[Finding, ...]:
    """Said of columns of a list or table that mean nothing here."""
    if not columns:
        return ()
    said = f"{printable(name)}: columns not used: {some(columns)}"
    return (how_it_is_read(said, "Nothing to do; --group names the column of what belongs together"),)


def check_columns(table: Table, where: str, group: str, there: Sequence[str]) -> str:
    """The name of the group column, "" without one; raises SourceError where a column is absent.

    there: the columns as the file has them, for the message.
    """
    wanted = ["path", "label"] + ([group] if group else [])
    absent = [name for name in wanted if name not in table.columns]
    if absent:
        has = some(there) if there else "none"
        raise SourceError(
            f"{where}: no column {some(absent)}; its columns are: {has}",
            hint=column_meant(group, there, "--group")
            if absent == [group]
            else _naming_hint(absent, there, one_hot_hint(table)),
        )
    return group or ("group" if "group" in table.columns else "")


_LIKE = {
    "path": ("filename", "file_name", "file", "filepath", "file_path", "image", "image_path", "img", "name"),
    "label": ("species", "kind", "class", "class_name", "category", "target", "y", "labels", "classes"),
}


def _naming_hint(absent: Sequence[str], there: Sequence[str], one_hot: str = "") -> str:
    """The flags that name the columns which are absent, with the columns that are likely meant."""
    flags = []
    for name in (name for name in absent if name in _LIKE):
        likely = [column for column in there if column.casefold() in _LIKE[name]]
        if name == "label" and one_hot and not likely:
            flags.append(one_hot)
            continue
        flags.append(f"--{name}-column {printable(likely[0]) if likely else 'NAME'}")
    if not flags or not there:
        return "the first line must name them: path,label and, where wanted, part,group"
    return f"say which they are: {' '.join(flags)}; or call them {' and '.join(absent)} in the first line"


def _take_row(reading: _Reading, line: int, fields: Fields) -> None:
    """Check one row and add its record, or say with its line what is wrong."""
    part_column = reading.part_column
    columns = {"path": "path", "label": "label", "part": part_column.name, "group": reading.group_column}
    bad = [why for what, name in columns.items() if (why := unfit(fields.get(name), what))]
    path, problem = ("", bad[0]) if bad else _relative_path(as_text(fields["path"]), reading)
    label, part = as_text(fields["label"]).strip(), part_column.part(fields.get(part_column.name))
    if not label and not reading.several:
        problem = problem or "no label; fill it in or remove the row"
    if part is None:
        unknown = as_text(fields[part_column.name])
        problem = problem or f"unknown part {unknown!r}; use {', '.join(PARTS)}, or leave it blank"
    if problem or part is None:
        reading.problems.append(f"{reading.unit} {line}: {problem}")
        return
    path, missing = _found(path, reading)
    group = as_text(fields.get(reading.group_column)).strip()
    record = ImageRecord(path, label, part, group, several=reading.several)
    if path in reading.records:
        _repeated_row(reading, line, record)
        return
    reading.lines[path] = line
    reading.records[path] = _with_file_checked(reading, line, record, missing)


def _repeated_row(reading: _Reading, line: int, record: ImageRecord) -> None:
    """The same path again: harmless when all agrees, a contradiction otherwise."""
    first, name = reading.records[record.path], printable(record.path)
    same_part = record.part == first.part or not first.used  # set aside: its part is gone
    if (record.label, record.group) == (first.label, first.group) and same_part:
        earlier = f"{reading.unit} {line} repeats {reading.unit} {reading.lines[record.path]}"
        reading.repeated.append(f"{name}: {earlier}")
        return
    if reading.several and record.group == first.group and same_part:
        reading.records[record.path] = both = joined(first, record)
        if not first.used:  # its file is missing
            reading.missing.update(set(both.labels) - set(first.labels))
        return
    reading.contradictions += record.label != first.label
    reading.problems.append(
        f"{reading.unit} {line}: {name} is {_said(record)} here and {_said(first)} in {reading.unit} "
        f"{reading.lines[record.path]}; keep one of the rows"
    )


def _said(record: ImageRecord) -> str:
    values = [record.label, record.part and f"part {record.part}", record.group and f"group {record.group}"]
    return printable(", ".join(value for value in values if value))


def _found(path: str, reading: _Reading) -> tuple[str, str]:
    """The path of the file that the row means, and the reason if there is none."""
    if is_remote(path):
        return path, ""
    found, how = find(path, reading.lookup)
    if not found:
        return path, how
    if found.startswith("../") and not reading.may_leave_root:
        return path, "no such file"
    if how:
        reading.found_as.setdefault(how, []).append(path)
    return found, ""


def _with_file_checked(reading: _Reading, line: int, record: ImageRecord, missing: str) -> ImageRecord:
    name = printable(record.path)
    if missing:
        reading.missing.update(record.labels)
        reading.gone += 1
        reading.listed.append(
            f"{name}: {missing} ({reading.unit} {line}); set aside, restore it or remove the row"
        )
        where = f"{missing} ({reading.unit} {line} of {printable(reading.name)})"
        return record.set_aside(str(ImageError(where, "Restore it or remove the row")))
    if record.path.startswith("../"):
        reading.listed.append(f"{name}: outside the folder of the list ({reading.unit} {line}); used")
    return record


def _relative_path(text: str, reading: _Reading) -> tuple[str, str]:
    """The path below (or beside) the list's folder with forward slashes, and what is wrong with it."""
    if not text.strip():
        return "", "no path; fill it in or remove the row"
    if is_remote(text):
        return _address(text, reading)
    if "\0" in text:
        return "", "a zero byte in the path; write the list again"
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return "", f"absolute Windows path {printable(text)}; write it relative to the list, with /"
    if os.path.isabs(text):
        if os.path.relpath(text, reading.root).startswith(".."):
            outside = f"absolute path {printable(text)} outside {printable(str(reading.root))}"
            return "", f"{outside}; write it relative to that, or name a folder above it with --root"
        text = os.path.relpath(text, reading.root)
    path = os.path.normpath(text).replace(os.sep, "/")
    if path.startswith("../") and not reading.may_leave_root:
        return "", f"path {printable(text)} leads out of the archive; name a file inside it"
    return path, ""


def _address(text: str, reading: _Reading) -> tuple[str, str]:
    """The address that stands for itself, and what is wrong with it; nothing secret of it is repeated."""
    if has_secrets(text):
        return "", f"{HAS_SECRETS}; write it without"
    if not reading.addresses:
        return "", f"an address ({printable(text)}); name a file inside the archive"
    return without_secrets(text), ""


def _raise_problems(reading: _Reading, where: str) -> None:
    if reading.problems:
        several = "correct these rows; where an image may have several labels, add --multi-label"
        hint = several if reading.contradictions else "correct these rows"
        raise unusable_rows(reading.problems, where, hint=hint)
    if not reading.records:
        raise SourceError(f"{where}: no rows below the header", hint="add one row path,label for each image")
    if reading.gone == len(reading.records):
        first = printable(next(iter(reading.records)))
        raise SourceError(
            f"{where}: none of the {len(reading.records):,} files it names exist; the first is {first}",
            hint=f"paths begin in {printable(str(reading.root))}; name another folder with --root",
        )
