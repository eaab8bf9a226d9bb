"""Exit codes where part of the data would be lost: 2 stops before training, 1 is a warning of the audit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.predict import Predictor
from saccade.run_folder import read_predictions

Saccade = Callable[..., Any]
SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--no-pretrained")


def test_parts_by_other_names_are_the_parts_that_train(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_photos("data/Training").parent
    make_photos("data/Testing", images=4, seed=1)
    answer = saccade("train", root, "--out", tmp_path / "run", *SMALL)
    assert answer.code == 0, answer.err
    assert "folders read as parts: Training as train, Testing as test" in answer.out
    metrics = json.loads((tmp_path / "run" / "metrics" / "test.json").read_text("utf-8"))
    assert metrics["images"] == 12
    model = json.loads((tmp_path / "run" / "bundle" / "model.json").read_text("utf-8"))
    assert model["classes"] == ["bar", "checker", "disc"]


def _second_level(root: Path, make_photos: Callable[..., Path]) -> None:
    for site in ("site1", "site2"):
        make_photos(f"data/{site}", images=4)


def _linked_class(root: Path, make_photos: Callable[..., Path]) -> None:
    store = make_photos("store", images=4)
    make_photos("data", images=4, classes=("disc", "bar"))
    os.symlink(store / "checker", root / "checker")


def _latin_1(root: Path, make_photos: Callable[..., Path]) -> None:
    make_photos("data", images=4)
    names = [path.relative_to(root).as_posix() for path in sorted(root.glob("*/*"))]
    text = "path;label\n" + "".join(f"{name};B\xe4r{name[0]}\n" for name in names)
    (root / "labels.csv").write_text(text, encoding="latin-1")


def _lists_as_labels(root: Path, make_photos: Callable[..., Path]) -> None:
    make_photos("data", images=4)
    rows = [
        {"path": path.relative_to(root).as_posix(), "label": ["a", "b"]} for path in sorted(root.glob("*/*"))
    ]
    (root / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.skipif(os.name != "posix", reason="needs links")
@pytest.mark.parametrize("command", ["audit", "train"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_second_level, "hold the same folders"),
        (_linked_class, "checker: a link that leads out of the data's folder"),
        (_latin_1, "is not UTF-8; save it as UTF-8"),
        (
            _lists_as_labels,
            "line 1: 2 labels; an image has one class here: write one as text, or add --multi-label",
        ),
    ],
)
def test_what_would_be_lost_stops_before_anything_is_trained(
    saccade: Saccade,
    make_photos: Callable[..., Path],
    tmp_path: Path,
    make: Callable[[Path, Callable[..., Path]], None],
    words: str,
    command: str,
) -> None:
    root = tmp_path / "data"
    make(root, make_photos)
    data = next((path for path in root.glob("labels.*")), root)
    flags = SMALL if command == "train" else ()
    answer = saccade(command, data, "--out", tmp_path / "run", *flags)
    assert (answer.code, words in answer.err) == (2, True), answer.err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs links and line ends in names")
@pytest.mark.parametrize(
    ("make", "lines"),
    [
        (_latin_1, 13),  # the refusal and a line for each of twelve rows
        (_lists_as_labels, 13),
        (_linked_class, 2),
    ],
)
def test_each_thing_to_correct_stands_on_a_line_of_its_own(
    saccade: Saccade,
    make_photos: Callable[..., Path],
    tmp_path: Path,
    make: Callable[[Path, Callable[..., Path]], None],
    lines: int,
) -> None:
    root = tmp_path / "data"
    make(root, make_photos)
    answer = saccade("audit", next(root.glob("labels.*"), root))
    first, *rest, last = answer.err.splitlines()
    assert first.startswith("error: ")
    assert last.startswith("hint: ")
    assert len(rest) == lines - 1, answer.err
    assert all(line.startswith("  ") for line in rest)
    assert "\\n" not in answer.err


@pytest.mark.parametrize("searched", [True, False])
def test_only_what_was_searched_is_said_to_be_apart(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path, searched: bool
) -> None:
    flags = () if searched else ("--no-split.near_duplicates",)
    answer = saccade("split", make_photos(), "--out", tmp_path / "split.csv", *flags)
    assert answer.code == 0, answer.err
    assert ("no group and no near-duplicates cross parts" in answer.out) == searched
    assert ("near-duplicates were not searched" in answer.out) != searched


@pytest.mark.skipif(os.name != "posix", reason="needs line ends in names")
def test_a_line_end_in_a_name_makes_no_line(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    store = make_photos("store", images=4)
    root = make_photos("data", images=4, classes=("disc", "bar"))
    os.symlink(store / "checker", root / "a\n  saccade: all is well")
    answer = saccade("audit", root)
    assert answer.code == 2
    first, reason, last = answer.err.splitlines()
    assert (first[:7], last[:6]) == ("error: ", "hint: "), reason
    assert "  a\\n  saccade: all is well: a link" in answer.err


def test_single_files_that_are_not_used_make_the_audit_exit_1(
    saccade: Saccade, make_photos: Callable[..., Path]
) -> None:
    root = make_photos()
    assert saccade("audit", root, "--no-cache").code == 0
    (root / "disc" / "photo.xyz").write_bytes(b"x")
    answer = saccade("audit", root, "--no-cache")
    assert answer.code == 1
    assert "1 file or folder not used: disc/photo.xyz" in answer.out


def test_a_run_inside_the_data_is_no_class(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_photos()
    assert saccade("audit", root, "--out", root / "found").code == 0
    run = root / "runs" / "one"
    answer = saccade("train", root, "--out", run, *SMALL)
    assert answer.code == 0, answer.err
    again = saccade("train", root, "--out", run, *SMALL)
    assert again.code == 0, again.err
    audit = saccade("audit", root)
    assert audit.code == 0, audit.err
    assert "36 images in 3 classes" in audit.out
    assert "2 folders written by saccade" in audit.out


def test_the_value_for_white_travels_with_the_model(saccade: Saccade, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, label in enumerate(("dark", "light")):
        (tmp_path / "in" / label).mkdir(parents=True)
        for n in range(8):
            values = rng.integers(1500 * number, 1500 * number + 2000, (24, 24)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / "in" / label / f"{n}.png")
    warned = saccade("audit", tmp_path / "in")
    assert (warned.code, "--data.gray_maximum 4095 for 12 bits" in warned.out) == (1, True)
    answer = saccade("train", tmp_path / "in", "--out", tmp_path / "run", "--data.gray_maximum", 4095, *SMALL)
    assert answer.code == 0, answer.err
    assert "certified" in answer.out
    predictor = Predictor(tmp_path / "run")
    assert predictor.limits.gray_maximum == 4095
    kept = read_predictions(tmp_path / "run" / "predictions" / "validation.csv")
    asked = predictor.predict_proba([tmp_path / "in" / path for path in kept.paths])
    assert np.abs(asked - kept.probabilities).max() < 1e-3
