"""`saccade train --folds K`: a run a fold, held-out predictions of every image, one certified model."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from saccade.artefact import Artefact
from saccade.evaluation.metrics import measure
from saccade.images.decoder import decode
from saccade.run_folder import RunFolder
from saccade.tracking import TRACKERS, Tracker
from saccade.tracking.facts import RunFacts

from .conftest import tiny_flags

Saccade = Callable[..., Any]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos", images=20)


class Noted(Tracker):
    """Its package is always there."""

    tool, package = "noted", "json"
    begun: ClassVar[list[str]] = []
    numbers: ClassVar[dict[str, Mapping[str, float]]] = {}

    def open(self, run: RunFacts, folder: Path) -> None:
        self.begun.append(run.name)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        self.numbers[self.begun[-1]] = numbers

    def conclude(self, run: RunFacts, folder: Path) -> None:
        assert self.begun[-1] == run.name
        self.numbers[run.name] = run.numbers


def test_the_path_of_a_cross_validation(
    saccade: Saccade, photos: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "noted", Noted)
    words = ("train", photos, "--out", tmp_path / "run", *tiny_flags(tiny_weights), "--method", "head")
    answer = saccade(*words, "--folds", "3", "--track", "noted")
    assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    parts = {record.path: record.part for record in run.read_dataset()}
    assert set(parts.values()) == {"train", "test"}
    learnt = {path for path, part in parts.items() if part == "train"}
    held_out = run.read_predictions("folds")
    assert set(held_out.paths) == learnt, "each image outside of the test part was held out"
    assert len(held_out) == len(learnt), "once"
    for number in (1, 2, 3):
        fold = run.fold(number)
        own = fold.read_predictions("validation")
        rows = {path: row for row, path in enumerate(held_out.paths)}
        assert np.array_equal(held_out.probabilities[[rows[p] for p in own.paths]], own.probabilities)
        assert not {r.path for r in fold.read_dataset() if r.used} - learnt, "a fold sees no test image"
        assert fold.read_certificate()["passed"]
        assert fold.report.is_file()
    figures = run.read_metrics("folds")
    assert figures["accuracy"]["value"] == measure(held_out).accuracy.value
    accuracies = [row["accuracy"] for row in figures["folds"]]
    assert figures["over_folds"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert figures["over_folds"]["accuracy"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert "Nadeau" in figures["interval_method"]
    record = run.read_record()
    assert record.folds["kind"] == "average"
    assert record.folds["milliseconds"] > 0
    assert run.read_certificate()["passed"]
    assert record.evidence["7"]["looked_at"] == 0
    states = {number: promise["state"] for number, promise in record.promises.items()}
    assert "broken" not in states.values()
    assert [states[n] for n in ("1", "2", "3", "4", "6", "7", "8", "9", "10")] == ["kept"] * 9
    assert 'id="folds"' in run.report.read_text()

    told = ["run-fold-1", "run-fold-2", "run-fold-3", "run"]
    assert Noted.begun == told
    assert Noted.numbers["run-fold-1"]["validation/accuracy"] == accuracies[0]
    assert Noted.numbers["run"]["folds/accuracy_low"] == figures["accuracy"]["low"]
    assert any("Noted" in name for name in record.callbacks)
    assert saccade("track", tmp_path / "run", "--to", "noted").code == 0
    assert Noted.begun == [*told, *told], "also afterwards"

    again = saccade(*words, "--folds", "3")
    assert again.code == 0
    assert "is finished; this is its result" in again.out
    metrics = run.metrics("folds").read_bytes()
    run.metrics("folds").unlink()
    assert saccade("evaluate", tmp_path / "run").code == 0
    assert run.metrics("folds").read_bytes() == metrics, "remade from predictions/folds.csv"


@pytest.mark.slow
def test_networks_that_cannot_be_averaged_become_one_graph(
    saccade: Saccade, photos: Path, tmp_path: Path
) -> None:
    small = ("--backbone", "small_cnn", "--image-size", "24", "--epochs", "8", "--batch-size", "8")
    answer = saccade(
        "train",
        photos,
        "--out",
        tmp_path / "run",
        *small,
        "--lr",
        "0.01",
        "--folds",
        "2",
        "--split.test",
        "0",
    )
    assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    record = run.read_record()
    assert record.folds["kind"] == "ensemble"
    assert record.folds["log_loss_average"] > record.folds["log_loss_ensemble"]
    assert run.read_certificate()["passed"]
    path = run.read_dataset()[0].path
    image = decode((photos / path).read_bytes()).pixels
    answers = [
        Artefact.open(place.onnx).probabilities([image])[0] for place in (run, run.fold(1), run.fold(2))
    ]
    assert answers[0] == pytest.approx(np.mean(answers[1:], axis=0), abs=1e-5)
    assert run.onnx.stat().st_size > 1.5 * run.fold(1).onnx.stat().st_size


@pytest.mark.slow
def test_a_killed_cross_validation_goes_on_where_it_was(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    flags = [*tiny_flags(tiny_weights), "--method", "tail", "--epochs", "3", "--batch-size", "8"]

    def command(out: str) -> list[str]:
        words = ["train", str(photos), "--out", str(tmp_path / out), "--folds", "2", *flags]
        return [sys.executable, "-m", "saccade.cli", *words]

    killed = subprocess.Popen(command("run"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    run = RunFolder(tmp_path / "run")
    until = time.monotonic() + 400
    while not any(run.fold(2).checkpoints.glob("last-*.json")):
        assert time.monotonic() < until
        assert killed.poll() is None, killed.communicate()[0].decode()
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    first = run.fold(1).weights
    written = first.stat().st_mtime_ns
    done = subprocess.run(command("run"), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "1 of 2 is trained" in done.stdout
    assert first.stat().st_mtime_ns == written
    whole = subprocess.run(command("whole"), capture_output=True, text=True, timeout=400)
    assert whole.returncode == 0, whole.stderr
    other = RunFolder(tmp_path / "whole")
    for part in ("folds", "test"):
        assert run.predictions(part).read_bytes() == other.predictions(part).read_bytes()
    assert run.weights.read_bytes() == other.weights.read_bytes()


def test_a_given_validation_part_is_divided_too_and_the_test_part_is_not(
    saccade: Saccade, tiny_weights: Path, tmp_path: Path, photo_writer: Callable[..., Path]
) -> None:
    for seed, (part, images) in enumerate({"train": 8, "val": 4, "test": 4}.items()):
        photo_writer(tmp_path / "data" / part, images=images, seed=seed)
    words = ("train", tmp_path / "data", "--out", tmp_path / "run", *tiny_flags(tiny_weights))
    answer = saccade(*words, "--method", "head", "--folds", "2", "--no-export.onnx")
    assert answer.code == 0, answer.err
    paths = RunFolder(tmp_path / "run").read_predictions("folds").paths
    assert len(paths) == 3 * (8 + 4)
    assert {path.partition("/")[0] for path in paths} == {"train", "val"}
    assert len(RunFolder(tmp_path / "run").read_predictions("test")) == 12


def test_what_cannot_be_divided_is_refused(saccade: Saccade, photos: Path, tmp_path: Path) -> None:
    answer = saccade("train", photos, "--out", tmp_path / "run", "--folds", "1")
    assert answer.code == 2
    assert "needs 2 folds or more" in answer.err
    small = ("--backbone", "small_cnn", "--image-size", "16")
    answer = saccade("train", photos, "--out", tmp_path / "run", *small, "--folds", "200")
    assert answer.code == 2
    assert "cannot fill 200 folds" in answer.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_folds_in_python(photos: Path, tmp_path: Path) -> None:
    from saccade import ImageClassifier

    model = ImageClassifier(
        backbone="small_cnn", image_size=16, epochs=1, batch_size=16, folds=2, out=str(tmp_path / "run")
    ).fit(str(photos))
    assert model.metrics_["folds"]["images"] == len(model.run_.read_predictions("folds"))
    assert set(model.history_["phase"]) == {"fold 1 main", "fold 2 main"}
    assert model.predict_proba([str(next(photos.rglob("*.png")))]).shape == (1, 3)
