"""What Windows lacks, taken away here: the lock of a run, writing, memory. Windows itself was not at hand."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest

from saccade import threads
from saccade.errors import RunError
from saccade.run_folder import RunFolder, write_bytes


class Windows:
    """`msvcrt.locking` by what its documentation says: of one byte, for one open file at a time."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: dict[tuple[int, int, int], int] = {}

    def locking(self, handle: int, mode: int, length: int) -> None:
        assert (mode, length) == (self.LK_NBLCK, 1)
        file = os.fstat(handle)
        place = (file.st_dev, file.st_ino, os.lseek(handle, 0, os.SEEK_CUR))
        if self.held.setdefault(place, handle) != handle:
            raise OSError("locked")


@pytest.fixture(autouse=True)
def _as_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("msvcrt")
    vars(module).update(LK_NBLCK=Windows.LK_NBLCK, locking=Windows().locking)
    monkeypatch.setitem(sys.modules, "msvcrt", module)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    for name in ("fchmod", "pread", "pwrite", "sysconf"):
        monkeypatch.delattr(os, name)


def test_a_run_is_held_by_one_process_and_files_are_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.locked():
        write_bytes(run.root / "a.txt", b"written")
        with pytest.raises(RunError, match=f"in use by process {os.getpid()}"), run.locked():
            pass
    assert (run.root / "a.txt").read_bytes() == b"written"


def test_the_memory_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(answer: object) -> None:
        values = answer._obj  # type: ignore[attr-defined]
        assert (values[0], len(bytes(values))) == (64, 64)
        values[1] = 7_000_000

    kernel = types.SimpleNamespace(GlobalMemoryStatusEx=status)
    monkeypatch.setattr("ctypes.windll", types.SimpleNamespace(kernel32=kernel), raising=False)
    assert threads.memory_bytes() == 7_000_000
