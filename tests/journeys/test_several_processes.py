"""`saccade train --devices 2` and torchrun: as one process trains; stopped, killed, continued with one."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from saccade.run_folder import RunFolder

pytestmark = pytest.mark.slow

FLAGS = (
    *("--backbone", "small_cnn", "--image-size", "16", "--batch-size", "8", "--epochs", "6"),
    *("--train.early_stopping", "0", "--no-export.onnx", "--augment.mix_up", "0.2"),
)
ENOUGH = 200
TORCHRUN = ("torch.distributed.run", "--nproc-per-node", "2", "-m")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos", images=40)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> RunFolder:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    answer = subprocess.run(command(photos, out), capture_output=True, text=True, timeout=ENOUGH)
    assert answer.returncode == 0, answer.stderr
    return RunFolder(out)


def command(photos: Path, out: Path, *flags: str, launcher: Sequence[str] = ()) -> list[str]:
    words = ["saccade.cli", "train", str(photos), "--out", str(out), *FLAGS, *flags]
    return [sys.executable, "-m", *launcher, *words]


@contextlib.contextmanager
def started(words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Where it still runs at the end, a test has failed: it ends, and all that it has started."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for number in (process.pid, *below(process.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, signal.SIGKILL)


def epochs(out: Path) -> int:
    history = RunFolder(out).history
    return len(history.read_text().splitlines()) if history.exists() else 0


def until(process: subprocess.Popen[str], out: Path, count: int) -> None:
    give_up = time.monotonic() + ENOUGH
    while epochs(out) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)


def below(parent: int) -> Iterator[int]:
    """Processes that this one has started, and theirs."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                yield int(entry.name)
                yield from below(int(entry.name))


def helpers(process: subprocess.Popen[str]) -> list[int]:
    """Those that compute: multiprocessing's tracker of resources does not."""
    words = {child: Path(f"/proc/{child}/cmdline").read_text() for child in below(process.pid)}
    return [child for child, text in words.items() if "spawn_main" in text]


def assert_gone(processes: Sequence[int]) -> None:
    """Within 20 seconds; a container may have nobody who takes note of what has ended (Z)."""
    left, give_up = [*processes], time.monotonic() + 20
    while left and time.monotonic() < give_up:
        time.sleep(0.1)
        left = [number for number in left if state(number) not in ("", "Z")]
    assert not left, [Path(f"/proc/{number}/cmdline").read_text() for number in left]


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def assert_like(run: RunFolder, alone: RunFolder) -> None:
    """The same steps of the same images; tests/training has the weights.

    Later losses of this network differ: in float32 its BatchNorms make much of the last bits.
    """
    for part in ("validation", "test"):
        assert run.read_predictions(part).paths == alone.read_predictions(part).paths
    rows, ones = run.read_history(), alone.read_history()
    assert [(row.epoch, row.lr) for row in rows] == [(row.epoch, row.lr) for row in ones]
    assert rows[0].train_loss == pytest.approx(ones[0].train_loss, rel=0.01)
    assert rows[-1].train_loss == pytest.approx(ones[-1].train_loss, rel=0.2)


@pytest.mark.parametrize("launcher", [(), TORCHRUN])
def test_two_processes_train_as_one(
    tmp_path: Path, photos: Path, alone: RunFolder, launcher: Sequence[str]
) -> None:
    out, flags = tmp_path / "run", () if launcher else ("--devices", "2")
    words = command(photos, out, *flags, launcher=launcher)
    answer = subprocess.run(words, capture_output=True, text=True, timeout=ENOUGH)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("Processes 2") == 1, "only process 0 speaks"
    assert "Gloo" not in answer.stdout
    run = RunFolder(out)
    assert run.read_record().ranks == 2
    assert_like(run, alone)
    again = subprocess.run(words, capture_output=True, text=True, timeout=ENOUGH)
    assert (again.returncode, "is finished" in again.stdout) == (0, True), again.stderr


def test_a_killed_helper_ends_all_and_nothing_is_lost(tmp_path: Path, photos: Path, alone: RunFolder) -> None:
    out = tmp_path / "run"
    with started(command(photos, out, "--devices", "2")) as process:
        until(process, out, 2)
        everybody, kill = list(below(process.pid)), helpers(process)
        assert len(kill) == 1
        os.kill(kill[0], signal.SIGKILL)
        began = time.monotonic()
        _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 30
    assert process.returncode == 2
    assert re.search(r"error: process 2 of 2 was killed \(SIGKILL\): process 1 of 2 cannot go on", said), said
    assert f"saccade train --resume {out}" in said
    assert_gone(everybody)
    kept = epochs(out)
    assert kept >= 2
    answer = subprocess.run(command(photos, out), capture_output=True, text=True, timeout=ENOUGH)
    assert answer.returncode == 0, answer.stderr
    assert "this run began with number of processes 2 (now 1)" in answer.stdout
    assert_like(RunFolder(out), alone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_helpers_end_with_process_0(tmp_path: Path, photos: Path, number: int) -> None:
    """And the same command ends bit for bit like one that was never stopped."""
    out, straight = tmp_path / "run", tmp_path / "straight"
    with started(command(photos, out, "--devices", "2")) as process:
        until(process, out, 2)
        everybody = list(below(process.pid))
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert f"saccade train --resume {out} --devices 2" in said
    assert_gone(everybody)
    for folder in (out, straight):
        words = command(photos, folder, "--devices", "2")
        answer = subprocess.run(words, capture_output=True, text=True, timeout=ENOUGH)
        assert answer.returncode == 0, answer.stderr
    weights = [(folder / "bundle" / "weights.safetensors").read_bytes() for folder in (out, straight)]
    assert weights[0] == weights[1]


def test_torchrun_starts_all_again_and_the_run_goes_on(
    tmp_path: Path, photos: Path, alone: RunFolder
) -> None:
    out = tmp_path / "run"
    launcher = (*TORCHRUN[:-1], "--max-restarts", "1", TORCHRUN[-1])
    with started(command(photos, out, launcher=launcher)) as process:
        until(process, out, 2)
        environments = {child: Path(f"/proc/{child}/environ").read_text() for child in below(process.pid)}
        helper = next(child for child, text in environments.items() if "\0RANK=1\0" in f"\0{text}")
        os.kill(helper, signal.SIGKILL)
        told, said = process.communicate(timeout=ENOUGH)
    assert process.returncode == 0, said
    assert "continues where it was stopped" in told
    assert_like(RunFolder(out), alone)
