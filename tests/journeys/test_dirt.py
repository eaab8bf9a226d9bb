"""A folder with the usual dirt: each file is left out by name, or stops the command with a remedy."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.run_folder import RunFolder

SMALL = (
    *("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "16"),
    "--no-export.onnx",
)
Saccade = Callable[..., Any]


@pytest.fixture
def dirty(make_photos: Saccade) -> Path:
    """Three good classes, and what gathers in folders of photos."""
    root = make_photos("dirty", images=10, suffix=".jpg", side=40)
    disc = root / "disc"
    (disc / "zero.jpg").write_bytes(b"")
    whole = io.BytesIO()
    Image.open(disc / "disc_001.jpg").resize((200, 200)).save(whole, "JPEG")
    (disc / "truncated.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (disc / "page.jpg").write_bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (disc / "notes").write_text("no picture")
    (disc / ".DS_Store").write_bytes(b"\0")
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails" / "a.jpg").write_bytes((disc / "disc_000.jpg").read_bytes())
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "b.jpg").write_bytes((disc / "disc_000.jpg").read_bytes())
    mixed_modes(root / "bar")
    return root


def mixed_modes(folder: Path) -> None:
    """Grey, palette, alpha, CMYK, 1 bit and 16 bit: each of them an image like any other."""
    rng = np.random.default_rng(5)
    for mode in ("L", "LA", "P", "RGBA", "CMYK", "1"):
        coarse = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)).resize((40, 40))
        picture = coarse.convert(mode)
        picture.save(folder / f"mode_{mode}{'.tif' if mode == 'CMYK' else '.png'}")
    deep = rng.integers(0, 65535, (40, 40)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "mode_I16.png")


def test_what_cannot_be_used_is_left_out_by_name_and_the_rest_trains(
    saccade: Saccade, dirty: Path, tmp_path: Path
) -> None:
    answer = saccade("train", dirty, "--out", tmp_path / "run", *SMALL)
    assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    records = {record.path: record for record in run.read_dataset()}
    left_out = {path: record.note for path, record in records.items() if not record.used}
    assert left_out.keys() == {"disc/zero.jpg", "disc/truncated.jpg", "disc/page.jpg"}
    assert "HTML" in left_out["disc/page.jpg"]
    assert "truncated" in left_out["disc/truncated.jpg"]
    used_modes = {path for path, record in records.items() if "mode_" in path and record.used}
    assert len(used_modes) == 7
    assert not any(path.startswith((".", "__")) for path in records)
    assert "3 set aside" in answer.out
    assert "skipped: " in answer.out
    report = run.report.read_text("utf-8")
    assert [path for path in left_out if path not in report] == []


def test_the_audit_names_each_with_what_to_do_and_exits_1(
    saccade: Saccade, dirty: Path, tmp_path: Path
) -> None:
    answer = saccade("audit", dirty, "--out", tmp_path / "audit")
    assert answer.code == 1
    page = (tmp_path / "audit" / "audit.html").read_text("utf-8")
    for name in ("zero.jpg", "truncated.jpg", "page.jpg"):
        assert name in answer.out
        assert name in page


def test_an_empty_class_stops_by_name_until_told_otherwise(
    saccade: Saccade, dirty: Path, tmp_path: Path
) -> None:
    (dirty / "spiral").mkdir()
    answer = saccade("train", dirty, "--out", tmp_path / "run", *SMALL)
    assert answer.code == 2
    assert "spiral" in answer.err
    assert "--drop-empty" in answer.err
    assert saccade("train", dirty, "--out", tmp_path / "run", *SMALL, "--drop-empty").code == 0


def test_a_class_of_one_image_stops_with_counts_and_remedy(
    saccade: Saccade, dirty: Path, tmp_path: Path
) -> None:
    (dirty / "single").mkdir()
    (dirty / "bar" / "bar_000.jpg").rename(dirty / "single" / "one.jpg")
    answer = saccade("train", dirty, "--out", tmp_path / "run", *SMALL)
    assert answer.code == 2
    assert "'single' has 1 image" in answer.err


def test_classes_that_differ_in_case_only_stop(saccade: Saccade, dirty: Path, tmp_path: Path) -> None:
    (dirty / "Disc").mkdir()
    (dirty / "disc" / "disc_000.jpg").rename(dirty / "Disc" / "d.jpg")
    answer = saccade("train", dirty, "--out", tmp_path / "run", *SMALL)
    assert answer.code == 2
    assert "Disc" in answer.err


def test_one_class_alone_stops(saccade: Saccade, make_photos: Saccade, tmp_path: Path) -> None:
    answer = saccade("train", make_photos("one", classes=("disc",)), "--out", tmp_path / "run", *SMALL)
    assert answer.code == 2


def test_nothing_readable_stops_by_name(saccade: Saccade, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "bad" / label).mkdir(parents=True)
        for i in range(30):
            (tmp_path / "bad" / label / f"{i}.jpg").write_bytes(b"no image at all")
    answer = saccade("train", tmp_path / "bad", "--out", tmp_path / "run", *SMALL)
    assert answer.code == 2
    assert not (tmp_path / "run" / "recipe.toml").exists()
