"""`saccade search`: trials of several processes on one study, and the run of the best."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.search.locks import FileLock
from saccade.search.study import open_study

from .conftest import tiny_flags

Saccade = Callable[..., Any]
SHORT = ("--epochs", "1", "--batch-size", "8")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos", images=14)


def result_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "search" / "result.json").read_text())
    return found


def test_the_path_of_a_search(saccade: Saccade, photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("search", photos, "--out", out, "--trials", "2", *tiny_flags(tiny_weights), *SHORT)
    answer = saccade(*words)
    assert answer.code == 0, answer.err
    found = result_of(out)
    assert found["counted"] == 2
    first = found["trials"][0]
    assert (first["params"]["method"], first["params"]["augment"]) == ("tail", "medium"), "the usual recipe"
    assert [rung["method"] for rung in first["rungs"]] == ["head", "tail"]
    losses = [rung["log_loss"] for row in found["trials"] for rung in row["rungs"]]
    assert found["best"]["log_loss"] == min(losses)
    run = RunFolder(out)
    record = run.read_record()
    assert record.finished
    assert run.read_certificate()["passed"]
    assert record.evidence["7"]["looked_at"] == 0 == found["test_images_read"]
    assert record.promises["7"]["state"] == "kept"
    assert "none of the 2 trials" in record.promises["7"]["evidence"]
    assert 'id="search"' in run.report.read_text()
    best = run.read_model()["training"]["best"]
    kept = next(row for row in run.read_history() if row.epoch == best["epoch"])
    assert kept.monitored == found["best"]["log_loss"]

    recipe = Recipe.from_toml((out / "best.toml").read_text())
    assert recipe.train.method == found["best"]["method"]
    finished = saccade(*words)
    assert finished.code == 0
    assert "is finished; this is its result" in finished.out


@pytest.mark.slow
def test_the_best_recipe_gives_the_same_model(
    saccade: Saccade, photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = ("search", photos, "--out", tmp_path / "run", "--trials", "3", *tiny_flags(tiny_weights), *SHORT)
    assert saccade(*words).code == 0
    recipe = tmp_path / "run" / "best.toml"
    again = saccade("train", photos, "--out", tmp_path / "again", "--recipe", recipe)
    assert again.code == 0, again.err
    weights = [RunFolder(tmp_path / name).weights.read_bytes() for name in ("run", "again")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_the_time_limit_is_kept(saccade: Saccade, photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    words = ("search", photos, "--out", tmp_path / "run", "--trials", "500", *tiny_flags(tiny_weights))
    began = time.monotonic()
    assert saccade(*words, "--time-limit", "40").code == 0
    assert time.monotonic() - began < 40
    assert result_of(tmp_path / "run")["counted"] >= 1


def test_limits_leave_models_out(saccade: Saccade, photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    words = ("search", photos, "--out", tmp_path / "run", "--trials", "1", "--method", "head", "--no-train")
    answer = saccade(*words, *tiny_flags(tiny_weights), "--max-mb", "0.1")
    assert answer.code == 2
    assert "over the limit of megabytes" in answer.err
    other = saccade(*words, *tiny_flags(tiny_weights), "--max-mb", "100")
    assert other.code == 2
    assert "other backbones or limits" in other.err


def test_the_latency_is_measured_on_images_of_the_models_channels(
    saccade: Saccade, photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = ("search", photos, "--out", tmp_path / "run", "--trials", "1", "--method", "head", "--no-train")
    limits = ("--channels", "gray", "--max-latency-ms", "0.0001")
    answer = saccade(*words, *tiny_flags(tiny_weights), *limits)
    assert "over the limit of latency_ms" in answer.err


def test_what_a_search_cannot_do_is_refused(saccade: Saccade, photos: Path, tmp_path: Path) -> None:
    answer = saccade("search", photos, "--out", tmp_path / "run", "--trials", "0")
    assert answer.code == 2
    assert "--trials must be at least 1" in answer.err
    answer = saccade("search", photos, "--out", tmp_path / "run", "--backbones", "no_such_network")
    assert answer.code == 2
    assert "no_such_network" in answer.err
    assert not (tmp_path / "run").exists()


def command(photos: Path, out: Path, weights: Path, trials: int) -> list[str]:
    words = ["search", str(photos), "--out", str(out), "--trials", str(trials), "--no-train"]
    return [sys.executable, "-m", "saccade.cli", *words, *tiny_flags(weights), *SHORT]


def started(words: Sequence[str], cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
    )


@pytest.mark.slow
def test_two_processes_share_a_study(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    both = [started(command(photos, out, tiny_weights, 6), tmp_path / "cache") for _ in range(2)]
    said = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = result_of(out)
    assert found["counted"] == 6
    tried = [str(sorted(row["params"].items())) for row in found["trials"] if row["same_as"] is None]
    assert len(tried) == len(set(tried)) == 6, "no setting twice"
    assert all("Trial " in text for text in said), "both worked"
    assert sum("Recipe " in text for text in said) >= 1


@pytest.mark.slow
def test_the_trial_of_a_killed_process_is_tried_again(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    killed = started(command(photos, out, tiny_weights, 2), tmp_path / "cache")
    until = time.monotonic() + 400
    while not any((out / "search" / "trials").glob("*/*/recipe.toml")):
        assert time.monotonic() < until
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = started(command(photos, out, tiny_weights, 2), tmp_path / "cache")
    said = done.communicate(timeout=400)[0]
    assert done.returncode == 0, said
    rows = result_of(out)["trials"]
    assert rows[0]["state"] == "fail"
    retried = next(row for row in rows if row["retry_of"] == 0)
    assert retried["params"] == rows[0]["params"]
    assert sum(row["state"] != "fail" for row in rows if row["same_as"] is None) == 2


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "a.lock"), FileLock(tmp_path / "a.lock")
    with one:
        assert not other.take()
    assert other.take()
    other.release()


def test_a_study_is_read_again(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 0.5)
    assert len(open_study(tmp_path).trials) == 1
