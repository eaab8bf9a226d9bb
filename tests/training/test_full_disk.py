"""A disk that is full from some write on, at every write of a training: nothing that was saved is lost."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.errors import RunError
from saccade.run_folder import RunFolder, write_bytes
from saccade.testing.tiny import TinyData
from saccade.training.state import Checkpoints

CALLS = ((tempfile, "mkstemp"), (os, "fsync"), (os, "replace"))  # of every write: begin it, flush it, put it


class Disk:
    """Counts what a write asks of the disk; from number `full` on, it has no room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.full, self._fsync = 0, 10**9, os.fsync
        for module, name in CALLS:
            monkeypatch.setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*values: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls > self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return None if call is self._fsync else call(*values, **named)  # flushing takes most of the time

        return counted


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def newest(run: RunFolder) -> int:
    """The epoch of the newest checkpoint, which must be whole."""
    found, notes = Checkpoints(run.checkpoints).latest()
    assert notes == ()
    return found.state.epoch if found else 0


def test_at_every_write_the_old_state_stays_and_the_same_command_goes_on(fit_tiny, recipe, disk, tmp_path):
    options = {"recipe": recipe(train__epochs=1, train__head_epochs=1), "data": TinyData(8)}
    _, whole = fit_tiny("whole", **options)
    writes, epochs = disk.calls, []
    assert writes > 30
    for full in range(writes):
        run = RunFolder(tmp_path / str(full))
        disk.calls, disk.full = 0, full
        with pytest.raises(RunError, match=r"No space left on device\); it needs .* free there\nhint: free"):
            fit_tiny(str(full), **options)
        disk.full = 10**9
        epochs.append(newest(run))
        _, result = fit_tiny(str(full), **options)
        assert result.weights_sha256 == whole.weights_sha256, full
        assert [path.name for path in run.root.rglob(".*")] == [], full
    assert epochs == sorted(epochs), "a later write never leaves less"
    assert set(epochs) == {0, 1, 2}


def test_how_much_is_needed_and_free_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "x", b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"x cannot be written \(No space .*\); it needs 2\.0 kB, [\d,.]+ MB"):
        write_bytes(tmp_path / "x", bytes(2000))
    assert (tmp_path / "x").read_bytes() == b"old"


def test_another_refusal_of_the_system_says_nothing_of_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    with pytest.raises(RunError, match=r"x cannot be written \(Read-only file system\)\nhint"):
        write_bytes(tmp_path / "x", b"new")
