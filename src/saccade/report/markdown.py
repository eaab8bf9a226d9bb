"""Markdown out of names and texts of any kind: shown as they are, never as markup."""

from __future__ import annotations

import re
from collections.abc import Sequence

from saccade.report.origins import one_line

ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP = re.compile(r"[\\`*_\[\]#|~$@]|:(?=//)")
_LIST = re.compile(r"^(\d*)([-+.)])(?=\s|$)")  # at the beginning of a text


def plain(text: str) -> str:
    r"""The text in one line, with no character that Markdown takes for a mark of its own.

    >>> plain("a|b\n<i>"), plain("`x` *y*"), plain("- one")
    ('a\\|b &lt;i&gt;', '\\`x\\` \\*y\\*', '\\- one')
    """
    shown = "".join(ENTITIES.get(c, c) for c in one_line(text))
    return _LIST.sub(r"\1\\\2", _MARKUP.sub(r"\\\g<0>", shown))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are any text; "" without rows."""
    if not rows:
        return ""
    lines = [head, *rows]
    shown = [f"| {' | '.join(plain(cell) for cell in line)} |" for line in lines]
    return "\n".join([shown[0], f"|{'---|' * len(head)}", *shown[1:]])


def left_open(what: str) -> str:
    """A place that the run cannot fill."""
    return f"> **To be written by you:** {what}."
