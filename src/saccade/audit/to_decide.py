"""A template of `audit-decisions.csv`: one row for each finding that a person can decide about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from saccade.audit.decisions import COLUMNS, DROP, KEEP, NOT_A_DUPLICATE, read_decisions
from saccade.errors import DataError
from saccade.records import Audit, Finding
from saccade.spreadsheet import write_spreadsheet

HEADER = (*COLUMNS, "choose from", "finding")
MOST_ROWS = 500
_PAIRS = ("leak", "look_alike", "near_duplicate_conflict", "near_duplicates", "possible_duplicates")
_SINGLE = ("label_conflict", "blank", "too_dark", "too_bright", "blurred", "tiny")

Row = tuple[str, str, str, str, str]


def rows_to_decide(findings: Iterable[Finding]) -> list[Row]:
    """path, other, "", what can be chosen, and the finding, worst first; nothing is decided yet.

    >>> from saccade.audit.findings import finding
    >>> rows_to_decide([finding("blurred", "a.jpg is blurred", paths=["a.jpg"])])
    [('a.jpg', '', '', 'keep | drop', 'blurred')]
    """
    rows = (row for found in findings for row in _rows_of(found))
    unique = {row[:2]: row for row in rows}
    return list(islice(unique.values(), MOST_ROWS))


def _rows_of(found: Finding) -> Iterator[Row]:
    if found.kind in _PAIRS:
        for first, second, *_ in found.figure.get("pairs", ()):
            yield first, second, "", NOT_A_DUPLICATE, found.kind
    elif found.kind in _SINGLE:
        for path in found.paths:
            yield path, "", "", f"{KEEP} | {DROP}", found.kind


def write_template(audit: Audit, path: Path) -> str:
    """Write the rows to `path` and return what to do with them; a file that is filled in stays as it is.

    "" where there is nothing to decide.
    """
    rows = rows_to_decide(audit.findings)
    if _is_filled_in(path):
        return f"{path} is filled in and stays as it is; {_place(audit, path)}"
    if not rows:
        return ""
    write_spreadsheet(path, HEADER, rows)
    return f"{path}: fill in the column decision of its {len(rows)} rows, then {_place(audit, path)}"


def _is_filled_in(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        return bool(read_decisions(path))
    except DataError:  # somebody's work, if not quite right
        return True


def _place(audit: Audit, path: Path) -> str:
    """Where decisions must lie to be taken into account."""
    beside = audit.dataset.root / path.name
    if not audit.dataset.root.is_dir():
        return f"name it: --data.decisions {path}"
    if beside == path.absolute():
        return "it is taken into account from there"
    return f"{'add its rows to' if beside.is_file() else 'put it beside the data as'} {beside}"
