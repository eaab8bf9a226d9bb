"""What a person sees while saccade works: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol, TextIO

PLAIN_LINE_SECONDS = 10.0
LABEL_COLUMNS = 10  # "Report    " and the like
PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
READER_GONE = (errno.EPIPE, errno.EIO)  # of a pipe, of a terminal


class Progress(Protocol):
    """Told how far a piece of work is; watching it never changes the work. `total` 0: nobody knows yet."""

    def __call__(self, done: int, total: int, detail: str = "") -> None: ...


def silent(done: int, total: int, detail: str = "") -> None:
    """A progress that shows nothing.

    >>> silent(3, 10)
    """


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun; `many` "" is `one` with an s.

    >>> counted(1, "class", "classes"), counted(1200, "image")
    ('1 class', '1,200 images')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """For people.

    >>> [duration(seconds) for seconds in (46.3, 200.0, 3600.0, 40000.0)]
    ['46 s', '3 min', '60 min', '11 h']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def shown_default(value: object) -> str:
    """A default as the help shows it.

    >>> [shown_default(value) for value in (True, "", (1, 5), 0.15)]
    ['on', 'none', '1,5', '0.15']
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value in ("", {}) else str(value)


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


def printable(text: str) -> str:
    """The text as one line that only shows itself, whatever somebody put into a name.

    Control characters (a terminal obeys escape sequences), line ends, characters that turn the direction of
    writing or cannot be seen, and bytes that are no UTF-8 become escapes.

    >>> printable("cat\\x1b[2K\\n.jpg")
    'cat\\\\x1b[2K\\\\n.jpg'
    """
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def write_lines(stream: TextIO, lines: Sequence[str]) -> None:
    """Write what is printable; what the stream's encoding lacks is escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = "".join(f"{line}\n" for line in lines)
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def drop_output(stream: TextIO) -> None:
    """From now on all that is written to `stream` vanishes, also what waits in its buffer."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def say_problem(kind: str, message: str, *details: str, hint: str = "") -> None:
    """Write `error: ...` (or warning, stopped) on stderr, a line for each detail, and `hint: ...` last.

    A reader that has gone is no problem: nothing is raised.

    >>> import contextlib, sys
    >>> with contextlib.redirect_stderr(sys.stdout):
    ...     say_problem("error", "data path does not exist: photos", hint="check the path")
    error: data path does not exist: photos
    hint: check the path
    """
    lines = [
        f"{kind}: {message}",
        *(f"  {detail}" for detail in details),
        *([f"hint: {hint}"] if hint else []),
    ]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        write_lines(sys.stderr, [printable(line) for line in lines])


def warn_caller(text: str) -> None:
    """A Python warning that points at the line that called saccade, however deep within saccade this is."""
    frame, level = sys._getframe(1), 2
    # skip_file_prefixes of warnings.warn does the same, from Python 3.12 on
    while frame.f_back and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


class Terminal:
    """Says things on stdout; draws bars only where stdout is a terminal.

    Where the reader has gone (`saccade train ... | head`), work goes on unseen. `lasting` False is for
    commands that do nothing but print: they get a BrokenPipeError.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None, lasting: bool = True) -> None:
        self.lasting = lasting
        self.stream = stream or sys.stdout
        self.quiet = quiet or self.stream is None  # in a process that was started without an output
        self.interactive = not self.quiet and self.stream.isatty()

    def say(self, *lines: str) -> None:
        """Whole lines, made `printable`; what the terminal's encoding lacks is escaped, never fatal."""
        if self.quiet:
            return
        shown = [printable(line) for line in lines or ("",)]
        if self.interactive:
            columns = shutil.get_terminal_size().columns
            shown = [wrapped(line, columns) for line in shown]
        try:
            write_lines(self.stream, shown)
        except OSError as error:
            if error.errno not in READER_GONE or not self.lasting:
                raise
            drop_output(self.stream)

    def warn(self, text: str, *, hint: str = "") -> None:
        """Say `warning: text` and `hint: hint`; where nothing is said, it is a Python warning.

        >>> Terminal(stream=sys.stdout).warn("3 images were trained on", hint="give others")
        warning: 3 images were trained on
        hint: give others
        """
        if self.quiet:
            told = f"{text}; {hint}" if hint else text
            warn_caller(printable(" ".join(told.split())))
        self.say(f"warning: {text}", *([f"hint: {hint}"] if hint else []))

    @contextlib.contextmanager
    def progress(self, what: str, unit: str = "images", *, own_time: bool = True) -> Iterator[Progress]:
        """A bar with count, rate and time left; elsewhere a line every ten seconds.

        `own_time` False: this is a part of longer work, whose time left is in the detail.
        """
        if self.quiet:
            yield silent
        elif self.interactive:
            with self._bar(what, unit, own_time=own_time) as update:
                yield update
        else:
            yield _PlainProgress(self, what, unit, own_time=own_time)

    @contextlib.contextmanager
    def _bar(self, what: str, unit: str, *, own_time: bool) -> Iterator[Progress]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            *([TimeRemainingColumn()] if own_time else []),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        started = time.monotonic()
        with Bar(*columns, console=Console(file=self.stream), transient=True) as bar:
            task = bar.add_task(what, total=None, rate="", detail="")

            def update(done: int, total: int, detail: str = "") -> None:
                rate = done / max(time.monotonic() - started, 1e-9)
                bar.update(
                    task, completed=done, total=total or None, rate=f"{rate:,.0f}/s", detail=printable(detail)
                )

            yield update


class _PlainProgress:
    """Says a line at most every ten seconds, and never for work shorter than that."""

    def __init__(self, terminal: Terminal, what: str, unit: str, *, own_time: bool) -> None:
        self._terminal, self._what, self._unit, self._own_time = terminal, what, unit, own_time
        self._started = self._spoke = time.monotonic()

    def __call__(self, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if now - self._spoke < PLAIN_LINE_SECONDS:
            return
        self._spoke = now
        rate = done / (now - self._started)
        speed = f", {rate:,.0f}/s" if rate >= 1 else ""
        own = self._own_time and 0 < done < total
        left = f", {duration((total - done) / rate)} left" if own else ""
        told = f", {detail}" if detail else ""
        count = f"{done}/{total}" if total else f"{done}"
        self._terminal.say(f"  {self._what}: {count} {self._unit}{speed}{left}{told}")
