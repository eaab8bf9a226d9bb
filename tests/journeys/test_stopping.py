"""Promise 9: a run that is really killed, or asked to stop, ends bit for bit like one that never was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.pipeline.continuing import as_it_began
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.runtime import in_threads
from saccade.terminal import Terminal

FLAGS = (
    *("--backbone", "small_cnn", "--image-size", "16", "--batch-size", "8", "--epochs", "8"),
    *("--train.early_stopping", "0", "--no-export.onnx"),
)
Saccade = Callable[..., Any]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos", images=40)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> RunFolder:
    """The run that was never stopped."""
    from saccade.cli import main

    out = tmp_path_factory.mktemp("straight") / "run"
    assert main(["train", str(photos), "--out", str(out), *FLAGS]) == 0
    return RunFolder(out)


def start_and_signal(
    photos: Path,
    out: Path,
    number: int,
    *,
    after_epochs: int = 0,
    after_file: str = "",
    flags: Sequence[str] = FLAGS,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Start `saccade train` in a process of its own and send it a signal once it has come so far.

    `after_file`: a pattern below `out`.
    """
    command = [sys.executable, "-m", "saccade.cli", "train", str(photos), "--out", str(out), *flags]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )
    history = RunFolder(out).history
    give_up = time.monotonic() + 300
    while (after_file and not any(out.glob(after_file))) or (
        after_epochs and not (history.exists() and len(history.read_text().splitlines()) >= after_epochs)
    ):
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < give_up, "not so far within 300 seconds"
        time.sleep(0.005)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def assert_same_result(run: RunFolder, straight: RunFolder) -> None:
    for name in ("bundle/weights.safetensors", "predictions/validation.csv", "predictions/test.csv"):
        assert (run.root / name).read_bytes() == (straight.root / name).read_bytes(), name
    figures = (
        "phase",
        "epoch",
        "lr",
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
    )
    rows, wanted = run.read_history(), straight.read_history()
    assert [[getattr(r, f) for f in figures] for r in rows] == [
        [getattr(r, f) for f in figures] for r in wanted
    ]


@pytest.mark.parametrize(
    ("after_epochs", "workers", "later"), [pytest.param(1, 0, 0, marks=pytest.mark.slow), (3, 2, 1)]
)
def test_a_killed_run_continues_bit_for_bit(
    saccade: Saccade,
    photos: Path,
    straight: RunFolder,
    tmp_path: Path,
    after_epochs: int,
    workers: int,
    later: int,
) -> None:
    """At once, although its workers were left behind, with another number of threads and of workers."""
    out, flags = tmp_path / "run", (*FLAGS, "--train.workers", str(workers), "--checkpoint-every", "10ms")
    threads = straight.read_environment()["threads"]
    environment = {"OMP_NUM_THREADS": str(threads)}
    code, _ = start_and_signal(
        photos, out, signal.SIGKILL, after_epochs=after_epochs, flags=flags, env=environment
    )
    assert code == -signal.SIGKILL
    assert not RunFolder(out).model_json.exists(), "it was killed too late to show anything"
    with in_threads(threads + 1):
        answer = saccade("train", photos, "--out", out, *FLAGS, "--train.workers", str(later))
        assert torch.get_num_threads() == threads + 1
    assert answer.code == 0, answer.err
    assert "continues where it was stopped" in answer.out
    assert f"Threads   {threads}, as when this run began (now {threads + 1})" in answer.out
    assert_same_result(RunFolder(out), straight)


def test_another_processor_is_said(
    straight: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path)
    run.write_environment({**straight.read_environment(), "device_name": "CPU, AVX"})
    with as_it_began(run, Recipe(device="cpu"), Terminal()):
        pass
    assert "began with device name CPU, AVX (now CPU, " in capsys.readouterr().out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_how_to_continue(
    saccade: Saccade, photos: Path, straight: RunFolder, tmp_path: Path, number: int, code: int
) -> None:
    """After an epoch, or inside one, of which the steps are kept."""
    out = tmp_path / "run"
    inside = {"after_file": "checkpoints/last-*.*.json", "flags": (*FLAGS, "--checkpoint-every", "10ms")}
    after: dict[str, Any] = {"after_epochs": 2} if number == signal.SIGINT else inside
    returned, output = start_and_signal(photos, out, number, **after)
    assert returned == code
    assert f"to continue: saccade train --resume {out}" in output
    assert "Traceback" not in output
    assert saccade("train", photos, "--out", out, *FLAGS).code == 0
    assert_same_result(RunFolder(out), straight)


@pytest.mark.slow
def test_a_run_that_is_stopped_while_it_is_judged_says_how_to_continue(
    saccade: Saccade, photos: Path, straight: RunFolder, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, output = start_and_signal(photos, out, signal.SIGTERM, after_file="bundle/model.json")
    assert (code, output.count("to continue: saccade train")) == (143, 1)
    assert "Traceback" not in output
    assert not RunFolder(out).read_environment()["finished"], "it was stopped too late to show anything"
    assert saccade("train", photos, "--out", out, *FLAGS).code == 0
    assert_same_result(RunFolder(out), straight)


def test_a_run_that_is_stopped_before_it_began_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    code, output = start_and_signal(photos, tmp_path / "run", signal.SIGTERM, after_file=".lock")
    assert (code, output.count("to start again: saccade train")) == (143, 1)
    assert not (tmp_path / "run").exists()


def test_a_run_whose_reader_goes_is_finished_all_the_same(
    saccade: Saccade, photos: Path, straight: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        answer = saccade("train", photos, "--out", tmp_path / "run", *FLAGS)
    assert (answer.code, answer.err) == (0, "")
    assert RunFolder(tmp_path / "run").read_environment()["finished"]
    assert_same_result(RunFolder(tmp_path / "run"), straight)


def test_temporary_files_of_a_killed_write_break_no_promise(
    saccade: Saccade, photos: Path, straight: RunFolder, tmp_path: Path
) -> None:
    shutil.copytree(straight.root, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    run.write_environment({**run.read_environment(), "finished": False})
    (run.checkpoints / ".last-00009.safetensors.abcd1234.part").touch()
    answer = saccade("train", photos, "--out", run.root, *FLAGS)
    assert answer.code == 0
    assert "BROKEN" not in answer.out
    assert run.read_environment()["promises"]["10"]["kept"]


def test_images_that_changed_since_are_named(saccade: Saccade, tmp_path: Path, make_photos: Saccade) -> None:
    photos, out = make_photos(images=8), tmp_path / "run"
    assert saccade("train", photos, "--out", out, *FLAGS).code == 0
    run = RunFolder(out)
    run.write_environment({**run.read_environment(), "finished": False})
    (run.root / "bundle" / "model.json").unlink()
    changed = next((photos / "bar").glob("*.png"))
    changed.write_bytes((photos / "disc" / "disc_000.png").read_bytes())
    answer = saccade("train", photos, "--out", out, *FLAGS)
    assert answer.code == 2
    assert f"bar/{changed.name} has other bytes" in answer.err
    changed.unlink()
    answer = saccade("train", photos, "--out", out, *FLAGS)
    assert f"began: bar/{changed.name} is gone\nhint: put" in answer.err, "said once"


def test_an_audit_does_not_overwrite_that_of_a_run(
    saccade: Saccade, tmp_path: Path, photos: Path, straight: RunFolder
) -> None:
    before = straight.audit.read_bytes()
    answer = saccade("audit", photos, "--out", straight.root)
    assert answer.code == 2
    assert "give --out another folder" in answer.err
    assert straight.audit.read_bytes() == before


def test_data_named_by_another_way_to_the_same_folder_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade.pipeline.train import identity

    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    assert identity("../photos") == identity("./../photos/") == {"data": str(tmp_path / "photos")}
    assert identity("torchvision:MNIST") == {"data": "torchvision:MNIST"}


def test_a_run_in_use_is_refused_with_the_process_that_holds_it(
    saccade: Saccade, straight: RunFolder, photos: Path
) -> None:
    with straight.locked():
        code = "import sys; from saccade.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "train", str(photos), "--out", str(straight.root), *FLAGS]
        second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 2
    assert "in use by process" in second.stderr


def test_a_torn_checkpoint_falls_back_to_the_one_before(
    saccade: Saccade, photos: Path, straight: RunFolder, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    start_and_signal(photos, out, signal.SIGKILL, after_epochs=3)
    last = max(RunFolder(out).checkpoints.glob("last-*.safetensors"))
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    answer = saccade("train", photos, "--out", out, *FLAGS)
    assert answer.code == 0, answer.err
    assert_same_result(RunFolder(out), straight)
    notes = json.loads(RunFolder(out).model_json.read_text())["training"]["notes"]
    assert any(last.stem in note for note in notes), notes
