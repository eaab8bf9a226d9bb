"""What is kept of a training: the answer's numbers as they were chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.pipeline.keep import fitted_answer
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord
from saccade.sources.storage import FolderStorage

CLASSES = ("high", "low")


def validation_part(truth: np.ndarray) -> Dataset:
    held = [",".join(name for name, has in zip(CLASSES, row, strict=True) if has) for row in truth]
    records = tuple(
        ImageRecord(f"{i:03d}.jpg", label, "validation", several=True) for i, label in enumerate(held)
    )
    return Dataset(Path(), records, CLASSES, FolderStorage(Path()), multi_label=True)


@pytest.mark.parametrize("precision", [0.0, 0.9])
def test_thresholds_of_a_sharp_head_name_what_they_were_chosen_to_name(precision: float) -> None:
    """Of logits near 16 and -16, whose probabilities are 1 and 0 to six decimals."""
    truth = np.random.default_rng(0).random((60, 2)) < 0.5
    logits = np.where(truth, 0.0, -1.0) + np.array([16.0, -16.0])
    recipe = Recipe.from_mapping(
        {"data.multi_label": True, "evaluate.calibrate": False, "evaluate.precision": precision}
    )
    fitted = fitted_answer(recipe, validation_part(truth), lambda: (logits.astype(np.float32), truth * 1.0))
    limits = np.array([fitted.thresholds[name] for name in CLASSES])
    named = fitted.answer.probabilities(logits) >= limits
    assert (named == truth).all()
