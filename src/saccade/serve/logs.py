"""Logs as one JSON object a line, on stderr, without content of images and without waiting for a reader."""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import time
from typing import Any, TextIO

MOST_WAITING = 10_000  # lines; more are dropped and counted, so that a full pipe never stops the server


class Log:
    """Writes lines in a thread of its own."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.dropped = 0
        self._stream = stream or sys.stderr
        self._lines: queue.Queue[str] = queue.Queue(MOST_WAITING)
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def say(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """One line: time in UTC, level, event and `fields`."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, "level": level, "event": event, **fields}, default=str)
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self, seconds: float = 1.0) -> None:
        """Wait until all is written, or for some seconds where nobody reads."""
        until = time.monotonic() + seconds
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # the reader is gone, which is no reason to stop serving
                self.dropped += 1
            self._lines.task_done()


class LibraryLog(logging.Handler):
    """What uvicorn and others log from WARNING on, in our form."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        problem = record.exc_info[1] if record.exc_info else None
        fields = {"error": type(problem).__name__} if problem else {}
        fields |= {"source": record.name, "message": record.getMessage()}
        self.log.say("library", level=record.levelname.lower(), **fields)
