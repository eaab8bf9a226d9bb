"""A split that the user made whole: training does not wait for the search for near-duplicates."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saccade.errors import Interrupted
from saccade.pipeline import begin, division
from saccade.pipeline.division import search_can_wait
from saccade.pipeline.prepare import list_data, read_images
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal
from saccade.testing.tiny import timeless

Saccade = Callable[..., Any]
WEIGHTS = "bundle/weights.safetensors"


@pytest.fixture
def given(make_photos: Callable[..., Path]) -> Path:
    """train/ and val/ folders; one training picture stands once more in each of them, smaller, another one
    under two labels."""
    make_photos("given/train", images=16)
    root = make_photos("given/val", images=6, seed=7).parent
    with Image.open(root / "train" / "disc" / "disc_003.png") as picture:
        smaller = picture.resize((48, 48), Image.Resampling.LANCZOS)
    for part in ("train", "val"):
        smaller.save(root / part / "disc" / "smaller.jpg", quality=80)
    shutil.copy(root / "train" / "bar" / "bar_001.png", root / "train" / "checker" / "again.png")
    return root


@pytest.fixture
def words(given: Path, tiny_weights: Path) -> Sequence[object]:
    small = ("--image-size", "32", "--batch-size", "16", "--no-export.onnx")
    return ("train", given, "--backbone", "test_efficientnet", "--weights", tiny_weights, *small)


@pytest.fixture
def scratch(given: Path) -> Sequence[object]:
    """Small images, from scratch: the first answer is the first epoch's."""
    small = ("--model.options", "width=4", "--epochs", "2", "--batch-size", "16", "--no-export.onnx")
    return ("train", given, "--backbone", "fast_cnn", *small)


@pytest.fixture(params=["head", "scratch"])
def either(request: pytest.FixtureRequest) -> Sequence[object]:
    """A command whose first answer is a fitted head, and one whose first answer is an epoch."""
    if request.param == "scratch":
        return tuple(request.getfixturevalue("scratch"))
    return (*request.getfixturevalue("words"), "--method", "head")


IN_ORDER = {
    "test_efficientnet": ("searched after training", "epoch   1 head", "epoch   2", "LEAK"),
    "fast_cnn": ("searched after training", "epoch   1 main", "epoch   2", "LEAK"),
}


def test_the_first_answer_comes_first_and_nothing_is_left_out(
    saccade: Saccade, either: Sequence[object], tmp_path: Path
) -> None:
    answer = saccade(*either, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    backbone = str(either[either.index("--backbone") + 1])
    said = [answer.out.index(text) for text in IN_ORDER[backbone]]
    assert said == sorted(said), "sizes, first answers, what the search found"
    run = RunFolder(tmp_path / "run")
    assert searched(run)
    verdict = run.read_environment()["promises"]["1"]
    assert verdict["kept"] is False
    assert "smaller.jpg" in verdict["evidence"]
    assert "leak" in {found["kind"] for found in run.read_audit()["findings"]}
    together = {"train/disc/disc_003.png", "train/disc/smaller.jpg", "val/disc/smaller.jpg"}
    assert [set(paths) for paths in run.read_audit()["clusters"].values()] == [together]
    assert "smaller.jpg" in run.report.read_text("utf-8")


def test_what_is_found_is_what_a_search_before_training_finds(
    saccade: Saccade, either: Sequence[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*either, "--out")
    assert saccade(*flags, tmp_path / "late").code == 0
    monkeypatch.setattr(begin, "search_can_wait", lambda read, recipe: False)
    assert saccade(*flags, tmp_path / "early").code == 0
    late, early = RunFolder(tmp_path / "late"), RunFolder(tmp_path / "early")
    assert late.audit.read_bytes() == early.audit.read_bytes()
    assert late.dataset.read_bytes() == early.dataset.read_bytes()
    assert late.read_environment()["split"] == early.read_environment()["split"]
    if "fast_cnn" in either:  # a head's strength may be another once groups are known
        _assert_same(late, early)


@pytest.mark.slow
def test_stopped_before_its_search_it_ends_with_the_same_bits(
    saccade: Saccade, either: Sequence[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*either, "--out")
    assert saccade(*flags, tmp_path / "whole").code == 0
    cut = RunFolder(tmp_path / "cut")

    def stopped(*values: object) -> None:
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(division, "_divided_and_said", stopped)
        assert saccade(*flags, cut.root).code == 128 + signal.SIGTERM
    assert cut.has(cut.model_json), "the model is there"
    assert not searched(cut)
    answer = saccade(*flags, cut.root)
    assert answer.code == 0, answer.err
    assert "LEAK" in answer.out
    _assert_same(cut, RunFolder(tmp_path / "whole"))


@pytest.mark.slow
def test_killed_after_its_first_answer_it_ends_with_the_same_bits(
    saccade: Saccade, either: Sequence[object], tmp_path: Path
) -> None:
    flags = (*either, "--out")
    assert saccade(*flags, tmp_path / "whole").code == 0
    cut = RunFolder(tmp_path / "cut")
    command = [sys.executable, "-m", "saccade.cli", *map(str, flags), str(cut.root)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(6000):
        if cut.history.exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert saccade(*flags, cut.root).code == 0
    _assert_same(cut, RunFolder(tmp_path / "whole"))


def searched(run: RunFolder) -> bool:
    return run.read_audit()["near_duplicates_searched"] is not False


def _assert_same(one: RunFolder, two: RunFolder) -> None:
    assert [timeless(row) for row in one.read_history()] == [timeless(row) for row in two.read_history()]
    assert (one.root / WEIGHTS).read_bytes() == (two.root / WEIGHTS).read_bytes()
    assert one.audit.read_bytes() == two.audit.read_bytes()
    assert one.read_environment()["split"] == two.read_environment()["split"]


@pytest.mark.parametrize(
    ("chosen", "waits"),
    [
        ({}, True),
        ({"train.method": "finetune"}, True),
        ({"model.pretrained": False}, True),
        ({"model.backbone": "auto"}, False),
        ({"train.time_limit": 60.0}, False),
        ({"split.near_duplicates": False}, False),
        ({"split.repair": True}, False),
    ],
)
def test_when_the_search_can_wait(given: Path, chosen: dict[str, Any], waits: bool) -> None:
    recipe = Recipe.from_mapping(chosen)
    read = read_images(list_data(str(given), recipe), recipe, Terminal(quiet=True), cache=False)
    assert search_can_wait(read, recipe) is waits


def test_images_without_a_part_follow_their_near_duplicates_so_the_search_comes_first(
    make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos = make_photos(images=4)
    quiet, recipe = Terminal(quiet=True), Recipe()
    parts = ["train", "validation", "train", ""]
    for last, waits in (("", False), ("train", True), ("test", True)):
        parts[-1] = last
        rows = [
            f"{file.relative_to(tmp_path).as_posix()},{file.parent.name},{parts[number % 4]}"
            for number, file in enumerate(sorted(photos.rglob("*.png")))
        ]
        listed = tmp_path / "list.csv"
        listed.write_text("\n".join(["path,label,part", *rows]))
        read = read_images(list_data(str(listed), recipe), recipe, quiet, cache=False)
        assert search_can_wait(read, recipe) is waits, last


def test_without_validation_images_the_search_comes_first(make_photos: Callable[..., Path]) -> None:
    make_photos("parts/train", images=4)
    root = make_photos("parts/test", images=2, seed=3).parent
    read = read_images(list_data(str(root), Recipe()), Recipe(), Terminal(quiet=True), cache=False)
    assert not search_can_wait(read, Recipe())
