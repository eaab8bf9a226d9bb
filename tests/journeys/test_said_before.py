"""What a run prints before it trains, where something else may have been meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_method_image_size_and_tiny_classes_are_said_before_training(
    saccade: Callable[..., Any], make_photos: Callable[..., Path], tiny_weights: Path, tmp_path: Path
) -> None:
    photos = make_photos(images=24)
    for image in sorted((photos / "bar").iterdir())[3:]:
        image.unlink()
    flags = ["--backbone", "test_efficientnet", "--weights", tiny_weights, "--image-size", 32]
    flags += ["--epochs", 1, "--head-epochs", 1]
    done = saccade("train", photos, *flags, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    places = [
        done.out.index(words)
        for words in (
            "warning: --image-size 32 is far below the 160 pixels",
            "Run  ",
            "Method    finetune, because --epochs and --head-epochs were given",
            "Data  ",
            "warning 1 class has too few images to be judged: 'bar' 1 train, 1 validation, 1 test",
            "Model  ",
        )
    ]
    assert places == sorted(places), done.out
