"""Faults that a user meets: a loss that is not finite, a clock that goes back."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.errors import NotFiniteError
from saccade.run_folder import RunFolder

Saccade = Callable[..., Any]
SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "8")


def test_a_run_that_nan_stops_names_the_command_that_names_the_layer(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    answer = saccade("train", make_photos(), "--out", out, *SMALL, "--lr", "1e38")
    assert answer.code == 2
    assert re.search(r"error: the (loss|gradient) is NaN or infinite in epoch 1 \(phase main\)", answer.err)
    assert not RunFolder(out).model_json.exists()
    assert not list(RunFolder(out).checkpoints.glob("best-*")), "it is never kept as the best"
    words = shlex.split(re.search(r"`(saccade replay .*?)`", answer.err)[1])
    for again in (words[1:], ["replay", out / "debug" / "nan"]):
        replayed = saccade(*again)
        assert replayed.code == 0, replayed.err
        assert "8 images, on cpu in float32" in replayed.out
        assert re.search(r"Layer     \S+ \(\w+\), for \d NaN or infinite: \w+/\w+\.png", replayed.out)
    assert "debug/" not in RunFolder(out).manifest.read_text()


def test_a_run_that_nothing_stopped_has_no_step_to_replay(saccade: Saccade, tmp_path: Path) -> None:
    answer = saccade("replay", tmp_path)
    assert (answer.code, "holds no step to take again" in answer.err) == (2, True)


def test_a_run_with_the_name_of_that_folder_is_looked_into(saccade: Saccade, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "nan")
    run.not_finite.mkdir(parents=True)
    (run.not_finite / "step.json").write_text("{}")
    answer = saccade("replay", run.root)
    assert (answer.code, "debug/nan/step.json is damaged" in answer.err) == (2, True)


def test_a_phase_that_left_bfloat16_is_said_and_recorded(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade.training import loop

    plain = loop.train_step

    def spoilt(learner: Any, batch: Any, step: int) -> Any:
        if learner.runtime.precision == "bfloat16" and step == 2:
            raise NotFiniteError("the loss is NaN or infinite")
        return plain(learner, batch, step)

    monkeypatch.setattr(loop, "train_step", spoilt)
    run = RunFolder(tmp_path / "run")
    answer = saccade("train", make_photos(), "--out", run.root, *SMALL, "--precision", "bfloat16")
    assert answer.code == 0, answer.err
    assert "finite in float32, and the phase went on in float32" in answer.out
    assert run.read_environment()["in_float32"] == [{"phase": "main", "epoch": 1, "step": 2}]
    assert not run.not_finite.exists()


def test_a_step_on_kept_activations_is_taken_again_without_the_frozen_stages(
    saccade: Saccade,
    make_photos: Callable[..., Path],
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from saccade.training import loop

    def spoilt(learner: Any, batch: Any, step: int) -> Any:
        raise NotFiniteError("the loss is NaN or infinite")

    run = RunFolder(tmp_path / "run")
    network = ("--backbone", "test_efficientnet", "--weights", tiny_weights, "--image-size", "32")
    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", spoilt)
        command = ("train", make_photos(), "--out", run.root, *network, "--method", "tail", "--epochs", "1")
        assert saccade(*command).code == 2
    assert json.loads((run.not_finite / "step.json").read_text())["activations"]
    answer = saccade("replay", run.root)
    assert (answer.code, answer.err) == (1, "")
    assert "Layer     finite" in answer.out
    assert answer.out.endswith("loss and gradient are finite this time\n")
    facts = run.not_finite / "step.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "device": "cuda:77", "torch": "2.1"}))
    answer = saccade("replay", run.root)
    assert f"time; device is cpu, was cuda:77; torch is {torch.__version__}, was 2.1\n" in answer.out


def everything(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of each file and folder: that of a folder changes when a file in it comes or goes."""
    found = [folder, *folder.rglob("*")]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_a_clock_that_goes_back_changes_nothing_and_images_are_left_as_they_are(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, run = make_photos(), RunFolder(tmp_path / "run")
    before = everything(photos)
    assert saccade("train", photos, "--out", run.root, *SMALL).code == 0
    weights = run.weights.read_bytes()
    for path in (run.weights, run.model_json):
        path.unlink()
    shutil.rmtree(run.checkpoints)
    now, days = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: now() - 86_400 * next(days))  # a day back each time it is asked
    answer = saccade("train", photos, "--out", run.root, *SMALL)
    assert answer.code == 0, answer.err
    assert "no checkpoint is left, so training starts again" in answer.out
    assert run.weights.read_bytes() == weights
    assert all(0 <= row.seconds < 600 for row in run.read_history())
    assert everything(photos) == before
    named = json.loads(run.model_json.read_text())["weights_sha256"]
    assert named == hashlib.sha256(weights).hexdigest()
    assert named in run.report.read_text(), "the report prints the hash of the weights"
