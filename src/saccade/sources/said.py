"""Findings that a source makes while it reads, before any image is decoded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from saccade.errors import SourceError
from saccade.records import Finding
from saccade.sources.names import some
from saccade.terminal import counted

SHOWN_PROBLEMS = 20


def how_it_is_read(message: str, remedy: str) -> Finding:
    """Something was understood in one of several ways."""
    return Finding("reading", "info", message, remedy)


def doubt(
    message: str, remedy: str, *, paths: Sequence[str] = (), figure: Mapping[str, Any] | None = None
) -> Finding:
    """Something is not used, or read in a way that may be wrong."""
    return Finding("not_used", "warning", message, remedy, tuple(paths), figure=figure or {})


def damaged_names(classes: Collection[str]) -> tuple[Finding, ...]:
    """Said of labels in which an earlier conversion replaced letters."""
    damaged = [label for label in classes if "\N{REPLACEMENT CHARACTER}" in label]
    if not damaged:
        return ()
    message = f"letters of class names were lost before saccade read them: {some(damaged)}"
    return (doubt(message, "Write the list again from its source, as UTF-8"),)


def unusable_rows(problems: Sequence[str], where: str) -> SourceError:
    """The refusal of a list or table with a line for each of the first bad rows."""
    more = len(problems) - SHOWN_PROBLEMS
    rest = [f"and {more:,} more"] if more > 0 else []
    rows = counted(len(problems), "row")
    return SourceError(f"{where}: {rows} cannot be used; correct:", *problems[:SHOWN_PROBLEMS], *rest)
