"""Splits that users bring, splits that saccade makes, and what becomes of a leak."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saccade.pipeline.division import clusters_as_json, stored_data
from saccade.pipeline.prepare import list_data
from saccade.run_folder import RunFolder

SMALL = (
    *("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "16"),
    "--no-export.onnx",
)
Saccade = Callable[..., Any]


@pytest.fixture
def given(make_photos: Saccade) -> Path:
    """train/ and val/ folders of different pictures, no test part."""
    make_photos("given/train", images=10)
    return make_photos("given/val", images=4, seed=7).parent


def test_promise_1_a_copy_across_a_given_split_is_shown_as_broken(
    saccade: Saccade, given: Path, tmp_path: Path
) -> None:
    with Image.open(given / "train" / "disc" / "disc_003.png") as picture:
        picture.resize((48, 48), Image.Resampling.LANCZOS).save(
            given / "val" / "disc" / "copy.jpg", quality=80
        )
    answer = saccade("train", given, "--out", tmp_path / "run", *SMALL)
    assert answer.code == 0, answer.err
    assert "LEAK" in answer.out
    verdict = RunFolder(tmp_path / "run").read_environment()["promises"]["1"]
    assert verdict["kept"] is False
    assert "copy.jpg" in verdict["evidence"]
    assert "copy.jpg" in RunFolder(tmp_path / "run").report.read_text("utf-8")
    repaired = saccade("train", given, "--out", tmp_path / "repaired", *SMALL, "--repair-split")
    assert repaired.code == 0, repaired.err
    run = RunFolder(tmp_path / "repaired")
    assert run.read_environment()["promises"]["1"]["kept"] is True
    together = {"train/disc/disc_003.png", "val/disc/copy.jpg"}
    assert [set(paths) for paths in run.read_audit()["clusters"].values()] == [together]
    continued = stored_data(
        run, list_data(str(given), run.read_recipe())
    )  # what a run that was stopped goes on with
    assert {record.path for record in continued.used() if record.cluster} == together
    assert clusters_as_json(continued) == run.read_audit()["clusters"]
    before = {name: value for name, value in run.read_audit().items() if name != "clusters"}
    run.write_audit(before)  # as an older version wrote it
    assert clusters_as_json(stored_data(run, list_data(str(given), run.read_recipe()))) == {}


def test_no_test_part_is_invented_and_the_report_says_so(
    saccade: Saccade, given: Path, tmp_path: Path
) -> None:
    answer = saccade("train", given, "--out", tmp_path / "run", *SMALL)
    run = RunFolder(tmp_path / "run")
    assert answer.code == 0, answer.err
    assert "no test part" in answer.out
    assert not run.metrics("test").exists()
    assert not run.predictions("test").exists()
    assert run.read_environment()["promises"]["7"]["kept"] is None


def test_without_a_validation_part_some_training_images_validate(
    saccade: Saccade, make_photos: Saccade, tmp_path: Path
) -> None:
    make_photos("parts/train", images=20)
    root = make_photos("parts/test", images=5, seed=3).parent
    (root / "extra").mkdir()
    answer = saccade("train", root, "--out", tmp_path / "run", *SMALL)
    assert answer.code == 0, answer.err
    records = RunFolder(tmp_path / "run").read_dataset()
    counts = {part: sum(r.part == part for r in records) for part in ("train", "validation", "test")}
    assert counts == {"train": 51, "validation": 9, "test": 15}


def test_one_picture_under_two_labels_is_set_aside_everywhere(
    saccade: Saccade, given: Path, tmp_path: Path
) -> None:
    shutil.copy(given / "train" / "disc" / "disc_000.png", given / "val" / "bar" / "twin.png")
    answer = saccade("train", given, "--out", tmp_path / "run", *SMALL)
    assert answer.code == 0, answer.err
    aside = {r.path for r in RunFolder(tmp_path / "run").read_dataset() if not r.used}
    assert aside == {"train/disc/disc_000.png", "val/bar/twin.png"}


def write_list(photos: Path, parts: dict[str, str], groups: dict[str, str]) -> Path:
    path = photos / "list.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["path", "label", "part", "patient"])
        for image in sorted(photos.rglob("*.png")):
            name = f"{image.parent.name}/{image.name}"
            writer.writerow(
                [name, image.parent.name, parts.get(image.stem[-3:], "train"), groups[image.stem[-3:]]]
            )
    return path


def test_a_group_across_a_given_split_stops_and_names_the_ways_out(
    saccade: Saccade, make_photos: Saccade, tmp_path: Path
) -> None:
    photos = make_photos(images=12)
    parts = {"009": "validation", "010": "validation", "011": "test"}
    groups = {f"{i:03d}": f"p{i}" for i in range(12)} | {"009": "p0"}
    table = write_list(photos, parts, groups)
    answer = saccade("train", table, "--out", tmp_path / "run", *SMALL, "--group", "patient")
    assert answer.code == 2
    assert "p0" in answer.err
    assert "--repair-split" in answer.err
    assert "--allow-leaks" in answer.err
    allowed = saccade(
        "train", table, "--out", tmp_path / "run", *SMALL, "--group", "patient", "--allow-leaks"
    )
    assert allowed.code == 0, allowed.err
    assert RunFolder(tmp_path / "run").read_environment()["promises"]["1"]["kept"] is False


def test_groups_by_pattern_stay_together(saccade: Saccade, make_photos: Saccade, tmp_path: Path) -> None:
    photos = make_photos(images=30)
    out = tmp_path / "split.csv"
    answer = saccade("split", photos, "--out", out, "--group-pattern", r"_(\d\d)\d\.png")
    assert answer.code == 0, answer.err
    with out.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 90
    parts: dict[str, set[str]] = {}
    for row in rows:
        parts.setdefault(row["group"], set()).add(row["part"])
    assert len(parts) == 3
    assert all(len(found) == 1 for found in parts.values())


def test_a_split_is_itself_a_data_set_and_keeps_its_parts(
    saccade: Saccade, make_photos: Saccade, tmp_path: Path
) -> None:
    photos = make_photos(images=20)
    out = photos.parent / "split.csv"
    assert saccade("split", photos, "--out", out).code == 0
    with out.open(newline="") as handle:
        parts = {row["path"].removeprefix("photos/"): row["part"] for row in csv.DictReader(handle)}
    assert saccade("train", out, "--out", tmp_path / "run", *SMALL).code == 0
    used = {r.path.removeprefix("photos/"): r.part for r in RunFolder(tmp_path / "run").read_dataset()}
    assert used == parts


def test_a_split_grows_with_the_data(saccade: Saccade, make_photos: Saccade, tmp_path: Path) -> None:
    photos, out = make_photos(images=20), tmp_path / "split.csv"
    assert saccade("split", photos, "--out", out).code == 0
    with out.open(newline="") as handle:
        before = {row["path"]: row["part"] for row in csv.DictReader(handle)}
    for label in ("disc", "bar", "checker"):
        for image in make_photos("more", images=6, seed=4).glob(f"{label}/*.png"):
            shutil.copy(image, photos / label / f"new_{image.name}")
    assert saccade("split", photos, "--out", out).code == 0
    with out.open(newline="") as handle:
        after = {row["path"]: row["part"] for row in csv.DictReader(handle)}
    assert len(after) == len(before) + 18
    assert {path: after[path] for path in before} == before
    assert {"train", "validation", "test"} == {part for path, part in after.items() if path not in before}


def test_folds_are_written_as_a_list(saccade: Saccade, make_photos: Saccade, tmp_path: Path) -> None:
    out = tmp_path / "folds.csv"
    answer = saccade("split", make_photos(images=20), "--out", out, "--folds", "4")
    assert answer.code == 0, answer.err
    with out.open(newline="") as handle:
        folds = [row["fold"] for row in csv.DictReader(handle)]
    assert {fold: folds.count(fold) for fold in sorted(set(folds))} == {"0": 15, "1": 15, "2": 15, "3": 15}


def test_a_folder_beside_the_parts_is_named(
    saccade: Saccade, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    make_photos("parts/train", images=4)
    make_photos("parts/derived", images=4, seed=5)
    root = make_photos("parts/test", images=3, seed=3).parent
    answer = saccade("split", root, "--out", tmp_path / "split.csv")
    assert answer.code == 0, answer.err
    assert "1 file or folder not used: derived/: 12 images" in answer.out
    assert "no validation part was given: 3 of the training images are it" in answer.out
