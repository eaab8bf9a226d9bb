"""Logs as one JSON object a line, on stderr, without content of images and without waiting for a reader."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import deque
from typing import Any, TextIO

MOST_WAITING = 10_000  # lines; more are dropped and counted, so that a full pipe never stops the server
WRITE_SECONDS = 0.1  # between two writes; waking a thread for each line would double what a refusal costs


class Log:
    """Lines are kept, and written together by a thread of its own."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.dropped = 0
        self._stream = stream or sys.stderr
        self._lines: deque[str] = deque()
        self._writing = threading.Lock()
        threading.Thread(target=self._write_for_ever, name="log", daemon=True).start()

    def say(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """One line: time in UTC, level, event and `fields`."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        if len(self._lines) >= MOST_WAITING:
            self.dropped += 1
            return
        self._lines.append(
            json.dumps({"time": stamp, "level": level, "event": event, **fields}, default=str) + "\n"
        )

    def close(self, seconds: float = 1.0) -> None:
        """Write what is left; give up after some seconds where nobody reads."""
        last = threading.Thread(target=self._write, daemon=True)
        last.start()
        last.join(seconds)

    def _write_for_ever(self) -> None:
        while True:
            time.sleep(WRITE_SECONDS)
            self._write()

    def _write(self) -> None:
        with self._writing:
            text = "".join(self._lines.popleft() for _ in range(len(self._lines)))
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # the reader is gone, which is no reason to stop serving
                self.dropped += text.count("\n")


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
