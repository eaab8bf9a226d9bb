"""`--method`: the head alone, everything from that head, the classic two phases, or what a trial says."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from saccade.bundle import load_bundle
from saccade.models import build_model
from saccade.models.finetune import freeze_backbone, frozen_hash
from saccade.run_folder import RunFolder
from saccade.testing.tiny import timeless

Saccade = Callable[..., Any]
BACKBONE = "test_efficientnet"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos", images=24)


@pytest.fixture
def flags(tiny_weights: Path) -> Sequence[str]:
    small = ("--image-size", "32", "--batch-size", "16")
    return ("--backbone", BACKBONE, "--weights", str(tiny_weights), *small)


def test_the_head_alone(
    saccade: Saccade, photos: Path, flags: Sequence[str], tiny_weights: Path, tmp_path: Path
) -> None:
    answer = saccade("train", photos, "--out", tmp_path / "run", *flags, "--method", "head")
    assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    rows = run.read_history()  # from the images as they are, then from mirror images as well
    assert [(row.phase, row.epoch, row.lr) for row in rows] == [("head", 1, 0.0), ("head", 2, 0.0)]
    row = min(rows, key=lambda row: row.validation_loss)
    assert row.train_accuracy > 0.6  # random features of three shapes: well above a third
    judged = run.read_metrics("validation")
    assert judged["accuracy"]["value"] == pytest.approx(row.validation_accuracy)
    training = run.read_model()["training"]
    assert training["best"]["validation_loss"] == row.validation_loss
    assert any("head fitted on frozen features" in note for note in training["notes"])
    assert "head fitted on frozen features" in answer.out
    assert "no Traceback" not in answer.err
    promises = run.read_environment()["promises"]
    assert promises["4"]["kept"] is True
    assert promises["5"]["kept"] is None, "nothing was fine-tuned"
    assert promises["8"]["kept"] is True
    bundled = load_bundle(run.bundle).module
    fresh = build_model(BACKBONE, 3, weights=str(tiny_weights), image_size=32).module
    freeze_backbone(bundled)
    freeze_backbone(fresh)
    assert frozen_hash(bundled) == frozen_hash(fresh), "the backbone is the published one, bit for bit"
    assert training["frozen"][0]["before"] == frozen_hash(fresh)


def test_the_same_seed_gives_the_same_model(
    saccade: Saccade, photos: Path, flags: Sequence[str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        words = ("train", photos, "--out", tmp_path / name, *flags, "--method", "head", "--no-export.onnx")
        assert saccade(*words).code == 0
    for file in ("bundle/weights.safetensors", "predictions/test.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_mlp_head(saccade: Saccade, photos: Path, flags: Sequence[str], tmp_path: Path) -> None:
    words = ("--method", "head", "--head", "mlp", "--train.class_weights", "--train.label_smoothing", "0.1")
    answer = saccade("train", photos, "--out", tmp_path / "run", *flags, *words)
    assert answer.code == 0, answer.err
    assert RunFolder(tmp_path / "run").read_history()[0].train_accuracy > 0.6


def test_full_starts_from_the_head_and_is_never_worse(
    saccade: Saccade, photos: Path, flags: Sequence[str], tmp_path: Path
) -> None:
    words = ("--method", "full", "--epochs", "2", "--no-export.onnx")
    answer = saccade("train", photos, "--out", tmp_path / "run", *flags, *words)
    assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    rows = run.read_history()
    assert [row.phase for row in rows] == ["head", "head", "finetune", "finetune"]
    assert run.read_model()["training"]["best"]["validation_loss"] <= min(
        row.validation_loss for row in rows[:2]
    )
    frozen = run.read_model()["training"]["frozen"]
    assert [entry["parameters"] > 0 for entry in frozen] == [True, False]
    verdict = run.read_environment()["promises"]["4"]
    assert verdict["kept"] is True
    assert "head: SHA-256" in verdict["evidence"]
    assert "finetune" not in verdict["evidence"], "where nothing was frozen"


def test_auto_says_in_words_what_it_decided(
    saccade: Saccade, photos: Path, flags: Sequence[str], tmp_path: Path
) -> None:
    words = (*flags, "--method", "auto", "--epochs", "2")
    answer = saccade("train", photos, "--out", tmp_path / "run", *words)
    assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    words = ("little to gain", "may be chance", "fine-tuning helps")
    notes = run.read_model()["training"]["notes"]
    said = [word for word in words if any(word in note for note in notes)]
    assert len(said) == 1
    assert said[0] in answer.out
    phases = {row.phase for row in run.read_history()}
    assert phases == ({"head", "finetune"} if said == ["fine-tuning helps"] else {"head"})


def test_auto_keeps_the_head_where_time_is_short(
    saccade: Saccade, photos: Path, flags: Sequence[str], tmp_path: Path
) -> None:
    answer = saccade(
        "train", photos, "--out", tmp_path / "run", *flags, "--method", "auto", "--time-limit", "0.01"
    )
    assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    assert {row.phase for row in run.read_history()} == {"head"}
    assert "we keep the linear probe; a longer --time-limit allows more" in answer.out
    over = re.search(r"--time-limit 0\.01 s ended (\d+\.\d) s before training began", answer.out)
    assert over, answer.out
    assert over[0] in " ".join(run.read_model()["training"]["notes"])


def test_a_head_on_random_weights_is_refused(saccade: Saccade, photos: Path, tmp_path: Path) -> None:
    words = ("--backbone", "small_cnn", "--method", "head", "--image-size", "16")
    answer = saccade("train", photos, "--out", tmp_path / "run", *words)
    assert answer.code == 2
    assert "starts from scratch" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize(("method", "after_epochs"), [("full", 1), ("tail", 3)])
def test_killed_on_its_way_it_ends_with_the_same_bits(
    saccade: Saccade, photos: Path, flags: Sequence[str], tmp_path: Path, method: str, after_epochs: int
) -> None:
    """Killed after the first head, and after the first epoch that learnt from kept activations."""
    small = ("--epochs", "4", "--checkpoint-every", "20ms", "--no-export.onnx")
    words = ["train", photos, *flags, "--method", method, *small, "--out"]
    assert saccade(*words, tmp_path / "whole").code == 0
    cut = RunFolder(tmp_path / "cut")
    command = [sys.executable, "-m", "saccade.cli", *map(str, words), str(cut.root)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(6000):
        done = len(cut.history.read_text().splitlines()) if cut.history.exists() else 0
        if done >= after_epochs or process.poll() is not None:
            break
        time.sleep(0.01)
    assert process.poll() is None, "it is still learning"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert saccade(*words, cut.root).code == 0
    whole = RunFolder(tmp_path / "whole")
    assert [timeless(r) for r in cut.read_history()] == [timeless(r) for r in whole.read_history()]
    weights = "bundle/weights.safetensors"
    assert (cut.root / weights).read_bytes() == (whole.root / weights).read_bytes()
    one, two = (json.loads(run.model_json.read_text()) for run in (cut, whole))
    assert one["temperature"] == two["temperature"]
