"""Slices of a run's judged images, from files to plain values; pixels are not decoded twice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.insight.slices import by_folder, slices
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord, Predictions
from saccade.run_folder import RunFolder
from saccade.sources.storage import FolderStorage

CLASSES = ("rose", "tulip")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))


def material(root: Path, *, dark_wrong: bool = True) -> Any:
    """120 images of two sites; those of site b, a tenth, are dark and mostly wrong."""
    random = np.random.default_rng(0)
    records, truth, sites = [], np.arange(120) % 2, np.arange(120) % 10 == 3
    for i, (label, dark) in enumerate(zip(truth, sites, strict=True)):
        path = f"site {'b' if dark else 'a'}/{CLASSES[label]}/{i:03}.png"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 60 if dark else 256, size=(12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / path)
        records.append(ImageRecord(path, CLASSES[label], "test", width=16, height=12, mode="RGB"))
    wrong = (sites & dark_wrong & (np.arange(120) % 40 != 3)) | (np.arange(120) % 30 == 0)
    first = np.where(truth ^ wrong, 0.1, 0.9)
    run = RunFolder(root / "run")
    paths, labels = tuple(r.path for r in records), tuple(r.label for r in records)
    run.write_predictions("test", Predictions(paths, labels, CLASSES, np.stack([first, 1 - first], axis=1)))
    run.write_metrics("test", {"images": 120})
    return SimpleNamespace(
        run=run,
        dataset=Dataset(root, tuple(records), CLASSES, FolderStorage(root)),
        recipe=Recipe(),
        records=tuple(records),
        paths=paths,
        features=np.random.default_rng(1).normal(size=(120, 6)).astype(np.float32),
        groups=np.arange(120),
    )


def test_the_dark_images_of_one_site_are_found_once(tmp_path: Path) -> None:
    found = slices(material(tmp_path)) or {}
    assert (found["part"], found["images"]) == ("test", 120)
    assert found["tried"] >= 5
    (only,) = found["slices"]
    assert only["kind"] in ("brightness", "contrast", "folder")
    assert only["images"] == len(only["paths"]) == 12
    assert only["accuracy"][2] < only["rest"][1]
    assert [shown["right"] for shown in only["examples"]] == sorted(s["right"] for s in only["examples"])
    assert not only["examples"][0]["right"]
    assert only["ece"] == pytest.approx(only["confidence"] - only["accuracy"][0])  # all equally sure
    assert slices(material(tmp_path / "fine", dark_wrong=False))["slices"] == []  # type: ignore[index]


def test_what_an_earlier_scan_kept_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = material(tmp_path)
    before = slices(given)
    monkeypatch.delattr("saccade.audit.scan.decode")
    assert slices(given) == before


def test_folders_that_are_labels_are_no_slices() -> None:
    ways = ["clinic/2024/rose", "clinic/2025/rose", "home/tulip", "home/rose"]
    records = [ImageRecord(f"{way}/{i}.png", way.split("/")[-1]) for i, way in enumerate(ways * 10)]
    assert {one.words for one in by_folder(records)} == {"clinic", "clinic/2024", "clinic/2025", "home"}
    coded = [ImageRecord(f"n{i % 2}/{i}.png", CLASSES[i % 2]) for i in range(60)]
    assert by_folder(coded) == []


def test_a_run_without_predictions_gives_no_occasion(tmp_path: Path) -> None:
    assert slices(SimpleNamespace(run=RunFolder(tmp_path))) is None  # type: ignore[arg-type]
