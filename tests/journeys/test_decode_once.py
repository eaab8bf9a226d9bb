"""A second run on the same folder decodes no training image for training again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saccade.transforms import batches


@pytest.mark.slow
def test_a_second_run_finds_the_images_of_the_first_and_learns_the_same(
    saccade, make_photos, tmp_path, monkeypatch
):
    photos, decoded = make_photos(side=80), []
    read = batches.read_pixels
    monkeypatch.setattr(batches, "read_pixels", lambda *args: decoded.append(args[1].path) or read(*args))
    small = ("--backbone", "small_cnn", "--image-size", "72", "--epochs", "1", "--no-export.onnx")
    runs = []
    for name, extra in (("first", ()), ("second", ()), ("without", ("--data.cache-gb", "0"))):
        decoded.clear()
        assert saccade("train", photos, "--out", tmp_path / name, *small, *extra).code == 0
        train = {
            row.split(",")[0]
            for row in (tmp_path / name / "dataset.csv").read_text().splitlines()
            if ",train," in row
        }
        runs.append((sum(path in train for path in decoded), (tmp_path / name / "history.jsonl").read_text()))
    stored = Path(os.environ["XDG_CACHE_HOME"]) / "saccade" / "pixels"
    assert list(stored.glob("*.pixels"))
    assert runs[0][0] > 30  # once to train, once to be measured as they are
    assert runs[1][0] == runs[0][0] // 2
    without_seconds = [history.split('"seconds"')[0] for _, history in runs]
    assert without_seconds[0] == without_seconds[1] == without_seconds[2]


def test_all_that_is_kept_lies_where_saccade_cache_says(saccade, make_photos, tmp_path, monkeypatch):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "kept"))
    flags = ("--backbone", "small_cnn", "--image-size", "72", "--epochs", "1", "--no-export.onnx")
    assert saccade("train", make_photos(images=8), "--out", tmp_path / "run", *flags).code == 0
    assert {"scan.sqlite", "pixels"} <= {path.name for path in (tmp_path / "kept").iterdir()}
    assert not (Path(os.environ["XDG_CACHE_HOME"]) / "saccade").exists()
