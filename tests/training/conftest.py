"""Training on the contract's tiny network and data, as the tests of training need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from saccade.models import Classifier
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.testing.tiny import TinyData, tiny_classifier
from saccade.training import Callback, FitResult, fit

Fitted = tuple[Classifier, FitResult]


def tiny_recipe(**dotted: Any) -> Recipe:
    """Dotted keys with __ (train__epochs=2) over a recipe that fits the tiny data."""
    defaults = {"train__epochs": 3, "train__head_epochs": 2, "train__batch_size": 8, "train__lr": 0.02}
    return Recipe().replaced(**{**defaults, **dotted})


def run_fit(
    folder: Path,
    *,
    recipe: Recipe | None = None,
    data: TinyData | None = None,
    classifier: Classifier | None = None,
    pretrained: bool = True,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Fitted:
    """`fit` on tiny data in a run folder; returns the trained network and the result."""
    recipe, data = recipe or tiny_recipe(), data or TinyData()
    network = classifier or tiny_classifier()
    result = fit(
        network,
        train=data,
        validation=data.validation,
        class_counts=data.class_counts,
        recipe=recipe,
        pretrained=pretrained,
        runtime=Runtime.create("cpu", recipe.precision),
        run=RunFolder(folder),
        callbacks=callbacks,
        **options,
    )
    return network, result


@pytest.fixture
def fit_tiny(tmp_path: Path) -> Callable[..., Fitted]:
    """`run_fit` in a folder of this test; `name` picks which."""

    def fitted(name: str = "run", **options: Any) -> Fitted:
        return run_fit(tmp_path / name, **options)

    return fitted


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    return tiny_recipe
