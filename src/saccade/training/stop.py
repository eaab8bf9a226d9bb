"""Stopping on request: a signal handler sets a flag, the loop looks at it before every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from saccade.errors import Interrupted


@dataclass(slots=True)
class StopRequest:
    """Set from a signal handler; training then ends before its next step.

    >>> stop = StopRequest()
    >>> previous = signal.signal(signal.SIGTERM, lambda number, frame: stop.set(number))  # doctest: +SKIP
    """

    signal: int = 0
    immediate: bool = False

    def set(self, signal: int) -> None:
        """Called by a signal handler; raises Interrupted by itself the second time, or within `at_once`."""
        if self.signal or self.immediate:
            raise Interrupted(signal)
        self.signal = signal

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it a signal interrupts what runs: for long work that never asks."""
        self.check()
        self.immediate = True
        try:
            yield
        finally:
            self.immediate = False

    def check(self) -> None:
        """Raises Interrupted once a signal has come."""
        if self.signal:
            raise Interrupted(self.signal)
