"""What is listed fits the recipe, or is refused before an image is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade import ImageClassifier
from saccade.errors import RecipeError
from saccade.pipeline.prepare import list_data
from saccade.recipe import Recipe
from saccade.sources.in_python import write_inputs

IMAGES = [np.full((8, 8, 3), level, np.uint8) for level in (0, 80, 160, 240)]


def test_several_labels_are_asked_for_and_one_each_is_given(tmp_path: Path) -> None:
    """A softmax behind a network that was trained with a sigmoid a label would be the result."""
    model = ImageClassifier(multi_label=True, out=str(tmp_path / "run"))
    with pytest.raises(RecipeError, match="multi_label=True is for images with any number of labels"):
        model.fit(IMAGES, ["cat", "dog", "cat", "dog"])
    assert not list(tmp_path.iterdir())


def test_several_labels_are_given_and_one_each_is_asked_for(tmp_path: Path) -> None:
    place = str(write_inputs(tmp_path, IMAGES, ["cat", "cat,dog", "dog", ""], several=True))
    with pytest.raises(RecipeError, match="add --multi-label"):
        list_data(place, Recipe())
    assert list_data(place, Recipe.from_mapping({"data.multi_label": True})).multi_label
