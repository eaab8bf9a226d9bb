"""Frozen features, computed once: each image is decoded once and seen as it is and, where asked, mirrored.

Every thread takes a batch of its own from decoding to features, on one core. So the cores share the work
without waiting for each other, and the bits do not depend on how many there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.data.images import Limits
from saccade.preprocess import Preprocess
from saccade.records import ImageRecord, Storage
from saccade.terminal import Progress, silent
from saccade.training.stop import StopRequest
from saccade.transforms.apply import channels_first, normalise, to_input
from saccade.transforms.augment import as_evaluated
from saccade.transforms.batches import read_pixels

BATCH_IMAGES = 32

# Images (B, 3, S, S) float32 -> features (B, F) float32, from any thread, evaluation mode, no gradients.
Engine = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Engines:
    """What computes features: `exact` gives those of the float32 network; `quick`, if there is one, nearly.

    Figures always rest on exact features; a head may be fitted on quick ones.
    """

    exact: Engine
    exact_name: str
    quick: Engine | None = None
    quick_name: str = ""


@dataclass(frozen=True, slots=True)
class Images:
    """Where images lie and how they become input.

    `exact`: by the evaluation path, in float32; else by its quicker uint8 twin, as in training.
    """

    storage: Storage
    records: tuple[ImageRecord, ...]
    preprocess: Preprocess
    limits: Limits
    exact: bool

    def __len__(self) -> int:
        return len(self.records)

    def inputs(self, indices: Sequence[int]) -> Tensor:
        """float32 (len(indices), 3, S, S); raises DataError naming an image that went bad."""
        pixels = [read_pixels(self.storage, self.records[index], self.limits) for index in indices]
        if self.exact:
            return torch.stack([to_input(image, self.preprocess) for image in pixels])
        small = torch.stack([as_evaluated(channels_first(image), self.preprocess) for image in pixels])
        return normalise(small, self.preprocess)


def compute_features(
    images: Images,
    engine: Engine,
    *,
    mirrored: bool = False,
    threads: int = 1,
    stop: StopRequest | None = None,
    progress: Progress = silent,
) -> Tensor:
    """float32 (views, images, F) on the CPU; view 0 is the image as it is, view 1 its mirror image.

    Raises DataError for a bad image and Interrupted when `stop` was set.
    """
    stop = stop or StopRequest()
    plan = [range(i, min(i + BATCH_IMAGES, len(images))) for i in range(0, len(images), BATCH_IMAGES)]

    def views(indices: range) -> Tensor:
        stop.check()
        inputs = images.inputs(indices)
        seen = [inputs, inputs.flip(-1)] if mirrored else [inputs]
        return torch.stack([engine(view) for view in seen])

    found: list[Tensor] = []
    with _one_thread_each(), ThreadPoolExecutor(threads) as pool:
        for indices, batch in zip(plan, pool.map(views, plan), strict=True):
            found.append(batch)
            progress(indices.stop, len(images))
    return torch.cat(found, dim=1)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Threads that start inside compute on one core each; torch's own number comes back after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
