"""Locks that the kernel drops when their process ends, however it ends."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

from saccade.files import lock_file

PAUSE_SECONDS = 0.05


class FileLock:
    """A lock on a file, one holder at a time: `with` and `acquire` wait for it. Optuna's journal takes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> bool:
        while not self.take():
            time.sleep(PAUSE_SECONDS)
        return True

    def take(self) -> bool:
        """Lock it without waiting; False where another process (or another FileLock) holds it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        if lock_file(handle):
            self._handle = handle
            return True
        os.close(handle)
        return False

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
