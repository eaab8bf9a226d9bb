"""The models of folds and the one made of them answer the same images, which must be read alike."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from saccade.bundle import Bundle
from saccade.pipeline.fold_model import _probabilities
from saccade.pipeline.work import Work
from saccade.preprocess import PixelFormat, Preprocess
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord
from saccade.run_folder import RunFolder
from saccade.sources.storage import FolderStorage
from saccade.terminal import Terminal


class Brightness(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean(dim=(1, 2, 3))
        return torch.stack([bright, -bright], 1)


def test_an_image_of_8_bits_among_those_of_16_is_read_as_in_training(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (8, 8))
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray((257 * values).astype(np.uint16)).save(tmp_path / "16.png")
    records = tuple(
        ImageRecord(file.name, "day", sha256=hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(tmp_path.iterdir())
    )
    gray = Preprocess(8, mean=(0.5,), std=(0.25,), pixels=PixelFormat("gray", 16))
    bundle = Bundle(Brightness(), ("day", "night"), gray, {})
    data = Dataset(tmp_path, records, bundle.classes, FolderStorage(tmp_path))
    recipe = Recipe.from_mapping({"data.channels": "gray", "device": "cpu"})
    work = Work(RunFolder(tmp_path), data, data, recipe, Terminal(quiet=True), 0.0)
    wide, narrow = _probabilities(work, bundle, records, "asked")
    assert narrow == pytest.approx(wide)
