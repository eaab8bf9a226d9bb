"""Stopping on request: a signal handler sets a flag, the loop looks at it before every step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from saccade.errors import Interrupted


@dataclass(slots=True)
class StopRequest:
    """Set from a signal handler; training then ends before its next step. `immediate`: at once.

    >>> stop = StopRequest()
    >>> previous = signal.signal(signal.SIGTERM, lambda number, frame: stop.set(number))  # doctest: +SKIP
    """

    signal: int = 0
    immediate: bool = False

    def set(self, signal: int) -> None:
        """Called by a signal handler; raises Interrupted by itself the second time, or within `at_once`."""
        if self.signal or self.immediate:
            self.immediate = True
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


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """SIGTERM and Ctrl-C end training before its next step; a second one ends it at once."""
    stop = StopRequest()

    def handle(number: int, frame: object) -> None:
        stop.set(number)

    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python delivers signals to the main thread only
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
        stop.check()  # a signal after the last step
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
