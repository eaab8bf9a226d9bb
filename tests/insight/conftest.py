"""A run of which little is real: photos, answers, features; with the network that a test gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from saccade.bundle import Bundle
from saccade.insight.material import Material
from saccade.preprocess import Preprocess
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord, Predictions
from saccade.run_folder import RunFolder
from saccade.sources.storage import FolderStorage
from saccade.terminal import Terminal

CLASSES = ("bar", "checker", "disc")


@pytest.fixture
def make_material(tmp_path: Path, photo_writer: Callable[..., Path]) -> Callable[..., Material]:
    """make_material(features, answers, network=...): the first images are of training, the last are judged.

    `features` (images, F); `answers` the predicted class of each judged image. Image i is of class i mod 3.
    """

    def make(features: Any, answers: Sequence[str], *, network: nn.Module | None = None) -> Material:
        count, learnt = len(features), len(features) - len(answers)
        photos = photo_writer(tmp_path / "photos", classes=CLASSES, images=-(-count // 3), side=24)
        paths = [f"{CLASSES[i % 3]}/{CLASSES[i % 3]}_{i // 3:03d}.png" for i in range(count)]
        records = tuple(
            ImageRecord(
                path, CLASSES[i % 3], "train" if i < learnt else "validation", width=24, height=24, mode="RGB"
            )
            for i, path in enumerate(paths)
        )
        run = RunFolder(tmp_path / "run")
        sure = np.linspace(0.9, 0.6, len(answers))
        probabilities = np.stack([(1 - sure) / 2] * 3, axis=1)
        probabilities[np.arange(len(answers)), [CLASSES.index(name) for name in answers]] = sure
        judged = records[learnt:]
        run.write_predictions(
            "validation",
            Predictions(
                tuple(r.path for r in judged), tuple(r.label for r in judged), CLASSES, probabilities
            ),
        )
        run.write_metrics("validation", {})
        bundle = Bundle(network or nn.Identity(), CLASSES, Preprocess(16, crop_fraction=1.0), {})
        return Material(
            run, Dataset(photos, records, CLASSES, FolderStorage(photos)), Recipe(), records,
            np.asarray(features, np.float32), np.array([i % 3 for i in range(count)]),
            np.arange(count), bundle, True, Terminal(quiet=True),
        )  # fmt: skip

    return make
