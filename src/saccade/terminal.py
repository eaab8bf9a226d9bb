"""What a person sees while saccade works: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator
from typing import Protocol, TextIO

PLAIN_LINE_SECONDS = 10.0
LABEL_COLUMNS = 10  # "Report    " and the like


class Progress(Protocol):
    """Told how far a piece of work is; watching it never changes the work."""

    def __call__(self, done: int, total: int, detail: str = "") -> None: ...


def silent(done: int, total: int, detail: str = "") -> None:
    """A progress that shows nothing."""


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun: 1 class, 1,200 classes; `many` "" is `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def wrapped(text: str, columns: int) -> str:
    """Lines broken between words, what follows set under the text after the label; paths are never broken.

    >>> print(wrapped("Report    a line that is rather long, to be sure", 34))
    Report    a line that is rather
              long, to be sure
    """
    return "\n".join(_wrapped_line(line, columns) for line in text.split("\n"))


def _wrapped_line(line: str, columns: int) -> str:
    if len(line) <= columns:
        return line
    label = len(line) - len(line.lstrip()) or LABEL_COLUMNS
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=" " * (max(label, LABEL_COLUMNS) if columns > 3 * LABEL_COLUMNS else 0),
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
    )


class Terminal:
    """Says things on stdout; draws bars only where stdout is a terminal."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = stream or sys.stdout
        self.interactive = not quiet and self.stream.isatty()

    def say(self, text: str = "") -> None:
        """One message; characters the terminal cannot show are escaped, never fatal."""
        if self.quiet:
            return
        if self.interactive:
            text = wrapped(text, shutil.get_terminal_size().columns)
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self.stream.flush()

    def warn(self, text: str) -> None:
        """A message that must not be lost: where nothing is said, a Python warning."""
        if self.quiet:
            warnings.warn(" ".join(text.split()), stacklevel=2)
        self.say(text)

    @contextlib.contextmanager
    def progress(self, what: str, unit: str = "images") -> Iterator[Progress]:
        """A bar with count, rate and time left; elsewhere a line every ten seconds."""
        if self.quiet:
            yield silent
        elif self.interactive:
            with self._bar(what, unit) as update:
                yield update
        else:
            yield _PlainProgress(self, what, unit)

    @contextlib.contextmanager
    def _bar(self, what: str, unit: str) -> Iterator[Progress]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        started = time.monotonic()
        with Bar(*columns, console=Console(file=self.stream), transient=True) as bar:
            task = bar.add_task(what, total=None, rate="", detail="")

            def update(done: int, total: int, detail: str = "") -> None:
                rate = done / max(time.monotonic() - started, 1e-9)
                bar.update(task, completed=done, total=total, rate=f"{rate:,.0f}/s", detail=detail)

            yield update


class _PlainProgress:
    """Says a line at most every ten seconds, and never for work shorter than that."""

    def __init__(self, terminal: Terminal, what: str, unit: str) -> None:
        self._terminal, self._what, self._unit = terminal, what, unit
        self._started = self._spoke = time.monotonic()

    def __call__(self, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if now - self._spoke < PLAIN_LINE_SECONDS:
            return
        self._spoke = now
        seconds = now - self._started
        left = seconds * (total - done) / done if done else 0.0
        rate = done / seconds
        line = f"  {self._what}: {done}/{total} {self._unit}, {rate:,.0f}/s, {left:,.0f} s left {detail}"
        self._terminal.say(line.rstrip())
