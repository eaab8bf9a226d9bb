"""Progress in a notebook: all lines and one bar below them, in one output that is updated in place.

Plain HTML, without widgets, so it looks the same in Jupyter, VS Code and Colab, and stays in the saved file.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Iterator
from html import escape
from typing import Any

from saccade.terminal import Progress, Terminal, duration, printable, wrapped

UPDATE_SECONDS = 0.25  # what is sent to a browser more often only makes it slow
LOG_STYLE = "white-space: pre-wrap; font-family: monospace; font-size: 0.85em; line-height: 1.4; margin: 0"
COLUMNS = 118
BAR_CHARACTERS = 30  # where there is no HTML


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; a terminal with IPython is none.

    >>> in_notebook()
    False
    """
    ipython = sys.modules.get("IPython")  # where nobody imported it, no notebook runs
    shell = ipython.get_ipython() if ipython else None
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)


def terminal_for(quiet: bool | None) -> Terminal:
    """Says what a person asked to see; None is to be quiet everywhere but in a notebook.

    >>> terminal_for(None).quiet
    True
    """
    if quiet is not True and in_notebook():
        return NotebookTerminal()
    return Terminal(quiet=quiet is not False)


class NotebookTerminal(Terminal):
    """Says things in one output of the cell, which appears with the first of them."""

    def __init__(self) -> None:
        super().__init__()
        # of tqdm, which others import: widgets are not needed for the bar here
        warnings.filterwarnings("ignore", message="IProgress not found")
        self._lines: list[str] = []
        self._current: _Bar | None = None
        self._display: Any = None

    def say(self, *lines: str) -> None:
        self._lines += [wrapped(printable(line), COLUMNS) for line in lines or ("",)]
        self.show()

    @contextlib.contextmanager
    def progress(self, what: str, unit: str = "images", *, own_time: bool = True) -> Iterator[Progress]:
        """A bar with count, rate and time left (its own, or all that its detail tells); gone when done."""
        outer, self._current = self._current, _Bar(self, what, unit, own_time=own_time)
        try:
            yield self._current
        finally:
            self._current = outer
            self.show()

    def show(self) -> None:
        """The output of the cell, anew."""
        from IPython.display import display

        content = {"text/html": self._html(), "text/plain": self._text()}
        if self._display is None:
            self._display = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._display.update(content, raw=True)

    def _html(self) -> str:
        log = escape("\n".join(self._lines))
        bar = self._current.html() if self._current else ""
        return f'<pre style="{LOG_STYLE}">{log}</pre>{bar}'

    def _text(self) -> str:
        return "\n".join([*self._lines, *([self._current.text()] if self._current else [])])


class _Bar:
    """How far a piece of work is."""

    def __init__(self, terminal: NotebookTerminal, what: str, unit: str, *, own_time: bool) -> None:
        self._terminal, self._what, self._unit, self._own_time = terminal, what, unit, own_time
        self._started = time.monotonic()
        self._shown = self._started - UPDATE_SECONDS
        self._done, self._total, self._detail = 0, 0, ""

    def __call__(self, done: int, total: int, detail: str = "") -> None:
        self._done, self._total, self._detail = done, total, printable(detail)
        now = time.monotonic()
        if now - self._shown >= UPDATE_SECONDS:
            self._shown = now
            self._terminal.show()

    def html(self) -> str:
        return (
            '<div style="display: flex; gap: 0.8em; align-items: center; font-size: 0.9em">'
            f'<progress value="{self._done}" max="{self._total or 1}" style="width: 16em"></progress>'
            f"<span>{escape(self._words())}</span></div>"
        )

    def text(self) -> str:
        filled = round(BAR_CHARACTERS * self._done / (self._total or 1))
        return f"[{'#' * filled:<{BAR_CHARACTERS}}] {self._words()}"

    def _words(self) -> str:
        rate = self._done / max(time.monotonic() - self._started, 1e-9)
        left = (self._total - self._done) / rate if rate else 0.0
        told = [
            f"{self._what}: {self._done:,}/{self._total:,} {self._unit}",
            f"{rate:,.0f}/s" if rate >= 1 else "",
            f"{duration(left)} left" if self._own_time and left >= 1 else "",
            self._detail,
        ]
        return ", ".join(part for part in told if part)
