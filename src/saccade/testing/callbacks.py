"""What a callback must keep to: training is the same with and without it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.testing.tiny import TinyData, timeless, tiny_classifier
from saccade.training.callbacks import Callback
from saccade.training.loop import fit


def check_callback(make: Callable[[], Callback]) -> None:
    """Train a tiny network with and without `make()`; weights and history must be bit-identical.

    Raises AssertionError.
    """
    plain_weights, plain_history = _trained(())
    weights, history = _trained((make(),))
    assert weights == plain_weights, "the callback changed the weights; it may only watch"
    assert history == plain_history, "the callback changed the history; it may only watch"


def _trained(callbacks: Sequence[Callback]) -> tuple[str, tuple[tuple[float | str, ...], ...]]:
    recipe = Recipe().replaced(train__epochs=2, train__head_epochs=1, train__batch_size=8)
    data = TinyData()
    with tempfile.TemporaryDirectory() as folder:
        result = fit(
            tiny_classifier(),
            train=data,
            validation=data.validation,
            class_counts=data.class_counts,
            recipe=recipe,
            pretrained=True,
            runtime=Runtime.create("cpu"),
            run=RunFolder(Path(folder)),
            callbacks=callbacks,
        )
    return result.weights_sha256, tuple(timeless(row) for row in result.history)
