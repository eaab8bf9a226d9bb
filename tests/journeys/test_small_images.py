"""`--backbone fast_cnn` from the command line: certified, continued bit for bit, hinted at."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.pipeline.hints import small_images_hint
from saccade.recipe import AugmentConfig, EvaluateConfig, Recipe, TrainConfig
from saccade.records import Dataset, ImageRecord
from saccade.run_folder import RunFolder
from saccade.sources.storage import FolderStorage

Saccade = Callable[..., Any]
FLAGS = (
    *("--backbone", "fast_cnn", "--model.options", "width=4", "--epochs", "4", "--batch-size", "8"),
    *("--precision", "bfloat16", "--no-split.near_duplicates"),
)


@pytest.fixture(scope="module")
def gray_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gray 28-pixel pictures, as MNIST's: bars across and bars down, in noise."""
    folder, rng = tmp_path_factory.mktemp("gray"), np.random.default_rng(2)
    for number in range(48):
        pixels = rng.integers(0, 120, (28, 28))
        pixels[:, ::4] += 100
        kind = ("across", "down")[number % 2]
        (folder / kind).mkdir(exist_ok=True)
        image = Image.fromarray((pixels if number % 2 else pixels.T).astype(np.uint8), "L")
        image.save(folder / kind / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, gray_pictures: Path) -> RunFolder:
    from saccade.cli import main

    out = tmp_path_factory.mktemp("straight") / "run"
    assert main(["train", str(gray_pictures), "--out", str(out), *FLAGS]) == 0
    return RunFolder(out)


def test_it_learns_and_its_file_holds_the_mirrored_answer(straight: RunFolder) -> None:
    certificate = straight.read_certificate()
    assert certificate["passed"]
    architecture = json.loads(straight.model_json.read_text())["architecture"]
    assert architecture["flip"] is True
    assert architecture["image_size"] == 28
    assert straight.read_history()[-1].train_accuracy > 0.7


def test_its_answer_is_the_same_for_a_mirrored_picture(straight: RunFolder, gray_pictures: Path) -> None:
    from saccade import load

    pixels = np.array(Image.open(next((gray_pictures / "down").iterdir())).convert("RGB"))
    answers = load(straight.root / "export" / "model.onnx").predict_proba([pixels, pixels[:, ::-1].copy()])
    assert np.allclose(answers[0], answers[1], atol=1e-5)


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(
    saccade: Saccade, straight: RunFolder, gray_pictures: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    command = ["train", str(gray_pictures), "--out", str(run.root), *FLAGS]
    process = subprocess.Popen([sys.executable, "-m", "saccade.cli", *command], stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 100
    while not run.history.exists():
        assert process.poll() is None
        assert time.monotonic() < give_up, "no epoch within 100 seconds"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not run.model_json.exists(), "it was killed too late to show anything"
    assert saccade(*command).code == 0
    weights = "bundle/weights.safetensors"
    assert (run.root / weights).read_bytes() == (straight.root / weights).read_bytes()
    assert len(run.read_history()) == 4


def test_the_batch_that_was_not_set_follows_the_number_of_images(
    saccade: Saccade, gray_pictures: Path, tmp_path: Path
) -> None:
    flags = ("--backbone", "fast_cnn", "--model.options", "width=4", "--epochs", "1", "--no-export.onnx")
    for _ in ("begun", "asked for again"):
        answer = saccade("train", gray_pictures, "--out", tmp_path / "run", *flags)
        assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    assert run.read_recipe().train.batch_size == "auto"
    assert run.read_environment()["resolved"]["train.batch_size"] == 16


def records(side: int) -> Dataset:
    used = [ImageRecord(f"{n}.png", "a", "train", width=side, height=side + n) for n in range(5)]
    return Dataset(Path("."), tuple(used), ("a",), storage=FolderStorage(Path(".")))


@pytest.mark.parametrize(("backbone", "options"), [("small_cnn", ""), ("fast_cnn", "width=4")])
def test_under_its_full_name_a_backbone_of_ours_is_the_same_run(
    saccade: Saccade, gray_pictures: Path, tmp_path: Path, backbone: str, options: str
) -> None:
    """Undivided data: networks from scratch must wait for the division, under either name."""
    words = ("--epochs", "1", "--no-export.onnx", "--no-split.near_duplicates", "--model.options", options)
    where = ("train", gray_pictures, "--out", tmp_path / "run")
    answer = saccade(*where, "--backbone", f"saccade/{backbone}", *words)
    assert answer.code == 0, answer.err
    resolved = RunFolder(tmp_path / "run").read_environment()["resolved"]
    assert (resolved["model.backbone"], resolved["model.pretrained"]) == (backbone, False)
    assert resolved["train.lr"] == {"small_cnn": 1e-3, "fast_cnn": 0.24}[backbone]
    assert "is finished" in saccade(*where, "--backbone", backbone, *words).out


def test_small_pictures_for_the_default_backbone_are_hinted_at() -> None:
    assert "--backbone fast_cnn" in small_images_hint(records(32), Recipe())
    assert small_images_hint(records(65), Recipe()) == ""
    for other in ({"model.backbone": "fast_cnn"}, {"model.pretrained": False}, {"model.weights": "w"}):
        assert small_images_hint(records(32), Recipe.from_mapping(other)) == ""


def test_an_untouched_recipe_gets_the_backbones_own_defaults() -> None:
    recipe = Recipe.from_mapping({"model.backbone": "fast_cnn", "train.epochs": 3})
    assert (recipe.train.epochs, recipe.train.optimizer, recipe.evaluate.flip) == (3, "muon", True)
    assert recipe.learning_rate == 0.24
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe().replaced(model__backbone="fast_cnn").augment.policy == "small"
    untouched = Recipe.from_mapping({"model.backbone": "small_cnn"})
    assert (untouched.train, untouched.augment, untouched.evaluate) == (
        TrainConfig(),
        AugmentConfig(),
        EvaluateConfig(),
    )
