"""What a callback must keep to: training is the same with and without it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from saccade.plan import FINETUNE, HEAD, Phase, Plan
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.testing.tiny import TinyData, timeless, tiny_classifier
from saccade.training.callbacks import Callback, Callbacks
from saccade.training.job import Watch
from saccade.training.loop import fit, training_job


def check_callback(make: Callable[[], Callback]) -> None:
    """Train a tiny network with and without `make()`; weights and history must be bit-identical.

    Raises AssertionError.
    """
    plain_weights, plain_history = _trained(())
    weights, history = _trained((make(),))
    assert weights == plain_weights, "the callback changed the weights; it may only watch"
    assert history == plain_history, "the callback changed the history; it may only watch"


def _trained(callbacks: Sequence[Callback]) -> tuple[str, tuple[tuple[float | str, ...], ...]]:
    head = Phase(HEAD, 1, 3e-3, "head")
    finetune = Phase(FINETUNE, 2, 3e-5, "2", keep_statistics=True)
    plan = Plan("finetune", True, (head, finetune), learning_rate=3e-3, batch_size=8)
    with tempfile.TemporaryDirectory() as folder:
        job = training_job(
            tiny_classifier(),
            plan,
            TinyData().as_training_data(),
            runtime=Runtime.create("cpu"),
            run=RunFolder(Path(folder)),
            watch=Watch(Callbacks(callbacks)),
        )
        result = fit(job)
    return result.weights_sha256, tuple(timeless(row) for row in result.history)
