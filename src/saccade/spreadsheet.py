"""CSV files for people: what a spreadsheet must not run as a formula, and the mark that Excel needs."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from saccade.files import is_utf8

_T = TypeVar("_T")
_VALUES_A_BLOCK = 100_000
FORMULA_STARTS = "=+-@\t\r"


def spreadsheet_safe(text: str) -> str:
    """The text so that no spreadsheet takes it for a formula: one ' in front, which `from_spreadsheet` drops.

    Quotes alone do not help: spreadsheets drop them and run the formula (OWASP, "CSV Injection").

    >>> spreadsheet_safe("=1+1"), spreadsheet_safe("tulip"), spreadsheet_safe("'=1")
    ("'=1+1", 'tulip', "''=1")
    """
    return f"'{text}" if _looks_like_formula(text) else text


def from_spreadsheet(text: str) -> str:
    """What `spreadsheet_safe` was given."""
    return text[1:] if text.startswith("'") and _looks_like_formula(text) else text


def _looks_like_formula(text: str) -> bool:
    bare = text.lstrip("'")
    return bare[:1] in tuple(FORMULA_STARTS)


def write_spreadsheet(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV for people: no cell is run as a formula, and Excel shows letters beyond ASCII as they are.

    Excel takes a CSV for UTF-8 only where it begins with a byte order mark. So files with such letters get
    one; others stay plain, and so do names that are no UTF-8, of which the mark would say what is not so.
    `rows` is gone through twice.
    """
    texts = (value for row in rows for value in row if isinstance(value, str))
    write_rows(path, header, rows, marked=needs_mark(itertools.chain(header, texts)))


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, marked: bool) -> None:
    """Header and rows, block by block; floats with 9 significant digits. `marked`: with a byte order mark."""
    from saccade.run_folder import csv_bytes, replacing  # brings pydantic, which only writing needs

    def cell(value: Any) -> str:
        return f"{value:.9g}" if isinstance(value, float) else spreadsheet_safe(value)

    with replacing(path) as file:
        file.write((codecs.BOM_UTF8 if marked else b"") + csv_bytes(None, [header]))
        for block in in_blocks(rows, len(header)):
            file.write(csv_bytes(None, [[cell(value) for value in row] for row in block]))


def in_blocks(rows: Iterable[_T], columns: int) -> Iterator[list[_T]]:
    """The rows in lists of about as many values, however wide a row is."""
    rows = iter(rows)
    while block := list(itertools.islice(rows, max(100, min(20_000, _VALUES_A_BLOCK // columns)))):
        yield block


def needs_mark(texts: Iterable[str]) -> bool:
    """Whether there are letters beyond ASCII, and all is UTF-8."""
    beyond = False
    for text in texts:
        if not text.isascii():
            beyond = True
            if not is_utf8(text):
                return False
    return beyond
