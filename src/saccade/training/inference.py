"""A network's raw answers on batches: float32, evaluation mode, no gradients, whatever trained it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.runtime import Runtime
from saccade.terminal import Progress, silent
from saccade.training.memory import Pieces
from saccade.transforms.batches import Batch


def predict_logits(
    module: nn.Module,
    batches: Iterable[Batch],
    runtime: Runtime,
    *,
    progress: Progress = silent,
    images: int = 0,
) -> tuple[NDArray[np.float32], NDArray[Any], tuple[str, ...]]:
    """Logits (n, classes) with the labels and paths of the same images, in the batches' order.

    Labels are class indices (n,), or (n, classes) of 0 and 1 where an image may have several. `images` is the
    number to expect, for the progress only. A batch too large for the memory is answered in pieces.
    """
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    paths: list[str] = []
    answers = Pieces(lambda images: module(runtime.images(images)).float(), runtime)
    with runtime.evaluation_arithmetic(), evaluation_mode(module):
        for batch in batches:
            logits.append(answers(batch.images))
            labels.append(batch.targets)
            paths.extend(batch.paths)
            progress(len(paths), images)
        if not logits:
            return np.zeros((0, 0), np.float32), np.zeros(0, np.int64), ()
        return torch.cat(logits).cpu().numpy(), torch.cat(labels).cpu().numpy(), tuple(paths)


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every part's own mode (frozen parts differ from others) comes back after."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
