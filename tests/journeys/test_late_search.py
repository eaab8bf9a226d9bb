"""A split that the user made whole: the first answer comes before near-duplicates are searched."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saccade.errors import Interrupted
from saccade.features.heads import Choice, LabelledFeatures
from saccade.methods import transfer
from saccade.pipeline import division
from saccade.pipeline.division import LateSearch, search_can_wait, waits_for_search
from saccade.pipeline.prepare import list_data, read_images
from saccade.recipe import Recipe
from saccade.records import Dataset
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
    "test_efficientnet": ("after the first answer", "epoch   1 head", "epoch   2", "LEAK"),
    "fast_cnn": ("after the first answer", "epoch   1 main", "LEAK", "epoch   2"),
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
    assert not waits_for_search(run)
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
    training = sys.modules["saccade.pipeline.train"]  # the package's own `train` is the function
    monkeypatch.setattr(training, "search_can_wait", lambda read, recipe: False)
    assert saccade(*flags, tmp_path / "early").code == 0
    late, early = RunFolder(tmp_path / "late"), RunFolder(tmp_path / "early")
    assert late.audit.read_bytes() == early.audit.read_bytes()
    assert late.dataset.read_bytes() == early.dataset.read_bytes()
    assert late.read_environment()["split"] == early.read_environment()["split"]
    if "fast_cnn" in either:  # a head's strength may be another once groups are known
        _assert_same(late, early)


def stop_in_its_search(saccade: Saccade, words: Sequence[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, interrupted as its search for near-duplicates begins."""

    def stopped(search: LateSearch) -> None:
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(division.LateSearch, "_searched", stopped)
        assert saccade(*words).code == 128 + signal.SIGTERM


def test_stopped_before_its_search_it_ends_with_the_same_bits(
    saccade: Saccade, words: Sequence[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*words, "--method", "full", "--epochs", "1", "--out")
    assert saccade(*flags, tmp_path / "whole").code == 0

    cut = RunFolder(tmp_path / "cut")
    stop_in_its_search(saccade, (*flags, cut.root), monkeypatch)
    assert len(cut.read_history()) == 2, "the first answers are there"
    assert waits_for_search(cut)
    assert saccade(*flags, cut.root).code == 0
    _assert_same(cut, RunFolder(tmp_path / "whole"))


def test_stopped_before_its_search_after_an_epoch_it_searches_before_it_trains_on(
    saccade: Saccade, scratch: Sequence[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*scratch, "--out")
    assert saccade(*flags, tmp_path / "whole").code == 0

    cut = RunFolder(tmp_path / "cut")
    stop_in_its_search(saccade, (*flags, cut.root), monkeypatch)
    assert len(cut.read_history()) == 1, "the first answer is there"
    assert waits_for_search(cut)
    answer = saccade(*flags, cut.root)
    assert answer.code == 0, answer.err
    assert answer.out.index("LEAK") < answer.out.index("epoch   2")
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


@pytest.mark.parametrize("mirrored", [True, False])
def test_groups_that_change_the_strength_change_the_head(
    saccade: Saccade,
    words: Sequence[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mirrored: bool,
) -> None:
    """And a run that is stopped in between comes to the same."""
    choose = transfer.choose_strength

    def stronger_with_groups(data: LabelledFeatures, *, seed: int) -> Choice:
        chosen = choose(data, seed=seed)
        grouped = len(set(data.groups)) < len(data.groups)
        return replace(chosen, strength=1.0) if grouped else replace(chosen, strength=0.01)

    monkeypatch.setattr(transfer, "choose_strength", stronger_with_groups)
    flip = () if mirrored else ("--augment.horizontal_flip", "0")
    flags = (*words, *flip, "--method", "head", "--out")
    answer = saccade(*flags, tmp_path / "whole")
    assert answer.code == 0, answer.err
    assert "at L2 strength 1, now that near-duplicates are known" in answer.out
    whole = RunFolder(tmp_path / "whole")
    early, late = whole.read_history()[-2:]
    assert len(whole.read_history()) == (3 if mirrored else 2)
    assert early.train_loss < late.train_loss, "a stronger penalty"
    search = LateSearch._searched
    cut = RunFolder(tmp_path / "cut")

    def stopped_after(late_search: LateSearch) -> Dataset:
        search(late_search)
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(division.LateSearch, "_searched", stopped_after)
        assert saccade(*flags, cut.root).code == 128 + signal.SIGTERM
    assert not waits_for_search(cut)
    assert len(cut.read_history()) == len(whole.read_history()) - 1
    assert saccade(*flags, cut.root).code == 0
    _assert_same(cut, whole)


def _assert_same(one: RunFolder, two: RunFolder) -> None:
    assert [timeless(row) for row in one.read_history()] == [timeless(row) for row in two.read_history()]
    assert (one.root / WEIGHTS).read_bytes() == (two.root / WEIGHTS).read_bytes()
    assert one.audit.read_bytes() == two.audit.read_bytes()
    assert one.read_environment()["split"] == two.read_environment()["split"]


@pytest.mark.parametrize(
    ("chosen", "waits"),
    [
        ({}, True),
        ({"train.method": "head"}, True),
        ({"train.method": "finetune"}, False),
        ({"model.pretrained": False}, False),
        ({"model.backbone": "fast_cnn"}, True),
        ({"model.backbone": "small_cnn"}, True),
        ({"model.backbone": "auto"}, False),
        ({"augment.horizontal_flip": 0.0}, True),
        ({"split.near_duplicates": False}, False),
        ({"split.repair": True}, False),
    ],
)
def test_when_the_search_can_wait(given: Path, chosen: dict[str, Any], waits: bool) -> None:
    recipe = Recipe.from_mapping(chosen)
    read = read_images(list_data(str(given), recipe), recipe, Terminal(quiet=True), cache=False)
    assert search_can_wait(read, recipe) is waits


def test_an_epoch_on_large_photos_takes_longer_than_the_search_which_comes_first(
    make_photos: Callable[..., Path],
) -> None:
    make_photos("large/train", images=3, side=80)
    root = make_photos("large/val", images=2, side=80, seed=3).parent
    for backbone, waits in (("small_cnn", False), ("efficientnet_b0", True)):
        recipe = Recipe.from_mapping({"model.backbone": backbone})
        read = read_images(list_data(str(root), recipe), recipe, Terminal(quiet=True), cache=False)
        assert search_can_wait(read, recipe) is waits, backbone


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
