"""Images in series that nobody named, from the command to the report; and auto under a time limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.caches.endings import kind_of_run, rest_seconds
from saccade.run_folder import RunFolder

Saccade = Callable[..., Any]
SIDE, FRAMES = 32, 6


def frames(seed: int) -> Iterator[Image.Image]:
    """Of a scene of its own, under changing light; nothing in it tells the class."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 200, (5, 5, 3), dtype=np.uint8))
    scene = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(float)
    for _ in range(FRAMES):
        pixels = scene * random.uniform(0.9, 1.1) + random.normal(0, 4, scene.shape)
        yield Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 10 scenes to learn from and 6 to validate, six frames each."""
    root, number = tmp_path_factory.mktemp("data") / "tracks", 0
    for part, scenes in (("train", 10), ("val", 6)):
        for label in ("cat", "dog", "owl"):
            (root / part / label).mkdir(parents=True)
            for _ in range(scenes):
                for frame, image in enumerate(frames(number)):
                    image.save(root / part / label / f"{number:03d}_{frame}.png")
                number += 1
    return root


@pytest.fixture
def flags(tiny_weights: Path) -> Sequence[str]:
    small = ("--image-size", "32", "--batch-size", "16", "--no-split.near_duplicates")
    return ("--backbone", "test_efficientnet", "--weights", str(tiny_weights), *small)


def test_hidden_series_are_named_in_words_and_kept_together(
    saccade: Saccade, tracks: Path, flags: Sequence[str], tmp_path: Path
) -> None:
    words = ("train", tracks, *flags, "--method", "head", "--no-export.onnx")
    answer = saccade(*words, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    said = re.sub(r"\s+", " ", answer.out)
    assert "your images come in series (about 30 series of 6 images)" in said
    run = RunFolder(tmp_path / "run")
    record = run.read_record()
    assert (record.series["count"], record.series["images"]) == (30, 6)
    assert record.series["held_out"] > record.series["apart"] + 0.2
    assert record.held_out["accuracy"] == record.series["held_out"]
    assert record.held_out["validation"] == run.read_history()[0].validation_accuracy
    kinds = [finding["kind"] for finding in record.diagnosis or ()]
    assert "hidden_series" in kinds
    assert "overfitting" not in kinds
    assert record.promises["6"]["kept"] is True, "the gap has its name"
    page = run.report.read_text("utf-8")
    assert "Your images come in series" in page
    assert len(run.read_history()) == 3, "once more, with the series kept together"
    named = saccade(*words, "--out", tmp_path / "named", "--group-pattern", record.series["pattern"])
    assert named.code == 0, named.err
    assert "come in series" not in named.out


def test_auto_under_a_limit_makes_no_trial_and_measures_its_ending(
    saccade: Saccade, tracks: Path, flags: Sequence[str], tmp_path: Path
) -> None:
    words = ("train", tracks, *flags, "--method", "auto", "--epochs", "2", "--time-limit", "300")
    answer = saccade(*words, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    rows = run.read_history()
    assert [row.phase for row in rows] == ["head"] * 3 + ["finetune"] * 2
    notes = " ".join(run.read_model()["training"]["notes"])
    assert "all of it is fine-tuned, and whatever does best on validation is kept" in notes
    assert "short trial" not in notes
    best = min(rows, key=lambda row: row.validation_loss)
    assert run.read_model()["training"]["best"]["validation_loss"] == best.validation_loss
    kind = kind_of_run("cpu", "test_efficientnet", 32)
    assert rest_seconds(kind, -1.0) > 0, "what export and report took is known to the next run"
    assert all(entry["kept"] is not False for entry in run.read_record().promises.values())
