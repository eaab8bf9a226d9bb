"""Stopping on request: a signal handler sets a flag, the loop looks at it before every step."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.errors import Interrupted


@dataclass(slots=True)
class StopRequest:
    """Set from a signal handler; training then ends before its next step.

    >>> stop = StopRequest()
    >>> previous = signal.signal(signal.SIGTERM, lambda number, frame: stop.set(number))  # doctest: +SKIP
    """

    signal: int = 0

    def set(self, signal: int) -> None:
        self.signal = signal

    def check(self) -> None:
        """Raises Interrupted once a signal has come."""
        if self.signal:
            raise Interrupted(self.signal)
