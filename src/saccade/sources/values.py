"""Values of table cells: as text, and what makes one unfit to be a label, a part or a path."""

from __future__ import annotations

import re
from typing import Any

from saccade.sources.names import is_utf8, printable


def as_text(value: Any) -> str:
    """A cell as text; nothing for a missing one (NaN included), no ".0" behind whole numbers."""
    if value is None or value != value:  # NaN is the one value that differs from itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def unfit(value: Any, column: str) -> str:
    """Why a value cannot stand in this column, "" where it can."""
    if isinstance(value, list | tuple | set):
        if column != "label":
            return f"a list as {column}; write one value"
        count = f"{len(value)} labels" if len(value) != 1 else "a list with 1 label"
        return f"{count}; one image has one class here: write one label as text"
    if isinstance(value, dict):
        return f"an object as {column}; write one value as text"
    text = as_text(value)
    if column in ("label", "part", "group") and not is_utf8(text):
        return f"{column} {printable(text)} is not UTF-8; {_remedy(text)}"
    return ""


def _remedy(text: str) -> str:
    """Bytes of another encoding are U+DC80 to U+DCFF here (PEP 383); other surrogates are half a pair."""
    if re.search("[\ud800-\udc7f\udd00-\udfff]", text):
        return "a character is cut in half (a lone surrogate): write the name again"
    return "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
