"""Ends what onnxruntime computes for too long: a graph can ask for years of work in little memory."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

MOST_RUN_SECONDS = 600.0  # one batch; a hundred times what a large network needs for it on one core
_LOOK_SECONDS = 0.2

_lock = threading.Lock()
_running: dict[int, tuple[float, onnxruntime.RunOptions]] = {}  # by identity: when it began, its switch
_watcher: threading.Thread | None = None


@contextlib.contextmanager
def ended_in_time(options: onnxruntime.RunOptions) -> Iterator[None]:
    """A run with `options` inside is told to end, between two operators, after MOST_RUN_SECONDS.

    onnxruntime then raises an error about its terminate flag.
    """
    global _watcher
    with _lock:
        _running[id(options)] = (time.monotonic(), options)
        if _watcher is None or not _watcher.is_alive():  # not in a process that was forked
            _watcher = threading.Thread(target=_watch, name="run limit", daemon=True)
            _watcher.start()
    try:
        yield
    finally:
        with _lock:
            del _running[id(options)]


def _watch() -> None:
    """One thread for all runs; it ends when none is left."""
    global _watcher
    while True:
        time.sleep(_LOOK_SECONDS)
        with _lock:
            if not _running:
                _watcher = None
                return
            for began, options in _running.values():
                options.terminate = time.monotonic() - began > MOST_RUN_SECONDS
