"""Promise 7: no test image is looked at between the split and the last choice."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.run_folder import RunFolder
from saccade.sources.storage import FolderStorage

SMALL = (
    *("--backbone", "small_cnn", "--image-size", "16", "--epochs", "2", "--batch-size", "16"),
    "--no-export.onnx",
)
Saccade = Callable[..., Any]


def test_the_test_part_is_read_only_after_the_model_is_final(
    saccade: Saccade, make_photos: Saccade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_while_fitting: list[str] = []
    fitting = importlib.import_module("saccade.pipeline.fit")  # the package has no such name
    real_read, real_fit = FolderStorage.read, fitting.fit

    def fit_and_watch(*arguments: Any, **options: Any) -> None:
        def read(storage: FolderStorage, path: str) -> bytes:
            read_while_fitting.append(path)
            return real_read(storage, path)

        with monkeypatch.context() as watched:
            watched.setattr(FolderStorage, "read", read)
            real_fit(*arguments, **options)

    monkeypatch.setattr(fitting, "fit", fit_and_watch)
    answer = saccade("train", make_photos(images=20), "--out", tmp_path / "run", *SMALL)
    assert answer.code == 0, answer.err
    part = {record.path: record.part for record in RunFolder(tmp_path / "run").read_dataset()}
    seen = {part[path] for path in read_while_fitting}
    assert seen == {"train", "validation"}
    figures = RunFolder(tmp_path / "run").read_metrics("test")
    assert figures["images"] == sum(name == "test" for name in part.values())
    assert figures["accuracy"]["low"] <= figures["accuracy"]["value"] <= figures["accuracy"]["high"]
