"""The rows of the bad-input matrix that only a whole command can show (44, 45, 49, and names in files)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.cli import main
from saccade.run_folder import RunFolder, read_csv

SMALL = (*("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1"), "--batch-size", "16")
Saccade = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> RunFolder:
    root = tmp_path_factory.mktemp("data")
    photos = photo_writer(root / "photos", images=10)
    assert main(["train", str(photos), "--out", str(root / "run"), *SMALL]) == 0
    return RunFolder(root / "run")


@pytest.mark.slow
def test_45_ten_thousand_bad_files_are_summed_up(saccade: Saccade, tmp_path: Path) -> None:
    for label in ("a", "b"):
        folder = tmp_path / "bad" / label
        folder.mkdir(parents=True)
        for i in range(5000):
            (folder / f"{i}.jpg").write_bytes(b"<html>404</html>" if i % 2 else b"")
    answer = saccade("train", tmp_path / "bad", "--out", tmp_path / "run", *SMALL)
    assert answer.code == 2
    assert "none of the 10000 images can be used" in answer.err
    assert len(answer.out.splitlines()) < 40
    audit = saccade("audit", tmp_path / "bad", "--out", tmp_path / "audit")
    assert audit.code == 1
    assert len(audit.out.splitlines()) < 60
    findings = json.loads((tmp_path / "audit" / "audit.json").read_text())["findings"]
    named = {path for finding in findings if finding["kind"] == "unreadable" for path in finding["paths"]}
    assert len(named) == 10_000


def test_49_predict_says_in_one_line_what_is_missing(
    saccade: Saccade, run: RunFolder, tmp_path: Path
) -> None:
    photo = run.root.parent / "photos" / "disc" / "disc_000.png"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "folder").mkdir()
    cases = {
        (run.root, tmp_path / "empty"): "empty",
        (tmp_path / "none.onnx", photo): "none.onnx",
        (tmp_path / "text.onnx", photo): "text.onnx",
        (tmp_path / "folder", photo): "folder",
    }
    for words, wanted in cases.items():
        answer = saccade("predict", *words)
        assert answer.code == 2, words
        assert wanted in answer.err
        assert "Traceback" not in answer.err


def test_49_a_model_of_another_schema_is_refused(saccade: Saccade, run: RunFolder, tmp_path: Path) -> None:
    import onnx

    model = onnx.load_model_from_string(run.onnx.read_bytes())
    kept = [entry for entry in model.metadata_props if entry.key != "saccade.classes"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    answer = saccade("predict", tmp_path / "odd.onnx", run.root.parent / "photos")
    assert answer.code == 2
    assert "odd.onnx" in answer.err


@pytest.mark.skipif(os.name == "nt", reason="needs names that are bytes")
def test_28_to_30_odd_names_come_through_every_file(
    saccade: Saccade, make_photos: Saccade, tmp_path: Path
) -> None:
    photos = make_photos("odd", images=10)
    names = ["with space.png", 'quo"te.png', "new\nline.png", "emoji😀.png", "-dash.png", "=1+1.png"]
    for name, image in zip(names, sorted((photos / "disc").glob("*.png")), strict=False):
        image.rename(image.with_name(name))
    first = sorted((photos / "bar").glob("*.png"))[0]
    os.rename(os.fsencode(first), os.fsencode(first.parent) + b"/b\xe4r.png")
    answer = saccade("train", photos, "--out", tmp_path / "run", *SMALL)
    assert answer.code == 0, answer.err
    found = RunFolder(tmp_path / "run")
    paths = {record.path for record in found.read_dataset()}
    assert {f"disc/{name}" for name in names} | {"bar/b\udce4r.png"} <= paths
    assert {row["path"] for row in read_csv(found.dataset)} == paths
    page = found.report.read_text("utf-8")  # strict: what is not UTF-8 must have been made printable
    assert "<html" in page


def test_a_class_named_like_html_is_text_in_the_report(
    saccade: Saccade, make_photos: Saccade, tmp_path: Path
) -> None:
    photos = make_photos("html", classes=("disc", "<img src=x onerror=alert(1)>"), images=12)
    answer = saccade("train", photos, "--out", tmp_path / "run", *SMALL)
    assert answer.code == 0, answer.err
    page = RunFolder(tmp_path / "run").report.read_text("utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_training_without_a_validation_part_is_refused_before_a_run_begins(
    saccade: Saccade, run: RunFolder, tmp_path: Path
) -> None:
    photos = run.root.parent / "photos"
    answer = saccade("train", photos, "--out", tmp_path / "run", *SMALL, "--split.validation", "0")
    assert answer.code == 2
    assert "there is no validation part (split.validation = 0)" in answer.err
    assert not (tmp_path / "run").exists()
