"""Names of files and classes: their order, and how they can be printed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from saccade.terminal import printable as printable


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which 2 comes before 10, and which never ties two different names.

    >>> sorted(["10", "2", "1", "b", "B"], key=natural_key)
    ['1', '2', '10', 'B', 'b']
    """
    pieces = re.split(r"(\d+)", name)
    key = [
        (0, int(piece), "") if piece.isdecimal() else (1, 0, piece.casefold()) for piece in pieces if piece
    ]
    return (*key, (2, 0, name))


def is_utf8(name: str) -> bool:
    """Whether the name can be written as UTF-8; bytes that were no text cannot (PEP 383)."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def some(names: Iterable[str], *, most: int = 20) -> str:
    """The first names, comma-separated and printable, with how many more there are."""
    every = list(names)
    shown = ", ".join(printable(name) for name in every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most:,} more"
