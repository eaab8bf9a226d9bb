"""Which of several processes this is, and what is refused before anything begins."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from saccade.cli import main
from saccade.errors import RecipeError
from saccade.pipeline import slurm
from saccade.pipeline.helping import Meeting, help_out
from saccade.pipeline.slurm import slurm_script, without_own_flags
from saccade.processes import ALONE, Place, place, require_divisible, started_again
from saccade.recipe import Recipe

MASTER = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"} | MASTER
SRUN = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "1"}
BATCH_STEP = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}  # in the batch script itself, without srun


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ALONE),
        (TORCHRUN, Place(3, 4, 1, "torchrun", near=False)),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "4"}, Place(3, 4, 1, "torchrun")),
        (SRUN, Place(1, 2, 1, "srun")),
        (BATCH_STEP, ALONE),
        ({"RANK": "0", "WORLD_SIZE": "1"}, ALONE),
    ],
)
def test_the_launcher_says_which_process_this_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Place
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert place() == expected


def test_devices_are_those_of_the_flag_or_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place(2) == Place(0, 2)
    with pytest.raises(RecipeError, match="--devices -1"):
        place(-1)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert place(4).count == 4
    with pytest.raises(RecipeError, match="--devices 2, but torchrun has started 4 processes"):
        place(2)


@pytest.mark.parametrize("name", MASTER)
def test_processes_that_could_not_meet_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for key, value in TORCHRUN.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv(name)
    with pytest.raises(RecipeError, match="MASTER_ADDR or MASTER_PORT is not"):
        place()


def test_a_helper_says_in_one_line_what_ended_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("no\nsuch")

    monkeypatch.setattr("saccade.pipeline.helping.signal.signal", lambda *_: None)
    monkeypatch.setattr(Meeting, "join", broken)
    with warnings.catch_warnings():
        assert help_out(Place(1, 2), Meeting("gloo"), "cpu") == 2
    said = capsys.readouterr().err
    assert "error: process 2 of 2: KeyError: 'no\\nsuch'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_command_that_is_started_again_goes_on_in_its_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    from saccade.cli.parsing import parsed

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "photos-3").mkdir(parents=True)
    assert parsed(["train", "photos"])[1].arguments["out"] == "runs/photos-4"
    monkeypatch.setenv(name, "1")
    assert started_again()
    assert parsed(["train", "photos"])[1].arguments["out"] == "runs/photos-3"


def test_a_batch_that_cannot_be_divided_is_refused_with_the_divisors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["train", str(tmp_path), "--out", str(tmp_path / "run"), "--batch-size", "10", "--devices", "4"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "train.batch_size = 10 cannot be divided among 4 processes" in said
    assert "use 1, 2, 5 or 10 processes, or train.batch_size = 8" in said
    assert not (tmp_path / "run").exists()
    require_divisible(10, 5)


def test_the_batch_file_starts_one_task_a_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.processes.usable_cores", lambda: 8)
    file, words = tmp_path / "job.sh", ["train", "my photos", "--out", "runs/a", "--time-limit", "3600"]
    words += ["--device", "cpu", "--devices", "2", "--slurm-script", str(file)]
    assert main(words) == 0
    assert f"sbatch {file}" in capsys.readouterr().out
    lines = file.read_text().splitlines()
    headers = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", "\n".join(lines), re.MULTILINE))
    assert lines[0] == "#!/bin/bash"
    assert headers == {
        "job-name": "a",
        "nodes": "1",
        "ntasks": "2",
        "cpus-per-task": "4",
        "time": "01:02:00",
        "signal": "TERM@60",
        "requeue": "",
        "open-mode": "append",
    }
    assert "srun saccade train 'my photos' --out runs/a --time-limit 3600 --device cpu" in lines
    assert not (tmp_path / "runs").exists(), "nothing is trained"


def test_without_a_driver_there_are_no_gpus_to_ask_torch_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(slurm, "DRIVERS", ())
    monkeypatch.setattr("saccade.runtime.resolve_device", lambda asked: pytest.fail("torch was asked"))
    assert not slurm._has_gpus(Recipe())


def test_a_batch_file_asks_for_gpus_only_where_they_are_used() -> None:
    words = ["train", "photos", "--out", "runs/a"]
    with_gpus = slurm_script(words, Recipe(), processes=4, run="runs/a", gpus=True)
    assert "#SBATCH --gpus-per-task=1" in with_gpus
    assert "--time" not in with_gpus, "the queue's own limit"
    assert "gpus" not in slurm_script(words, Recipe(), processes=4, run="runs/a", gpus=False)
    assert without_own_flags(["train", "a", "--devices=2", "--slurm-script", "f"]) == ["train", "a"]
