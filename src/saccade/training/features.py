"""Frozen features, computed once for each view of an image.

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
    mirror: bool = False,
    threads: int = 1,
    stop: StopRequest | None = None,
    progress: Progress = silent,
) -> Tensor:
    """float32 (images, F) on the CPU, of the images or with `mirror` of their mirror images.

    Raises DataError for a bad image and Interrupted when `stop` was set.
    """
    stop = stop or StopRequest()
    plan = [range(i, min(i + BATCH_IMAGES, len(images))) for i in range(0, len(images), BATCH_IMAGES)]

    def batch(indices: range) -> Tensor:
        stop.check()
        inputs = images.inputs(indices)
        return engine(inputs.flip(-1) if mirror else inputs)

    found: list[Tensor] = []
    with _one_thread_each(), ThreadPoolExecutor(threads) as pool:
        for indices, features in zip(plan, pool.map(batch, plan), strict=True):
            found.append(features)
            progress(indices.stop, len(images))
    return torch.cat(found)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Threads that start inside compute on one core each; torch's own number comes back after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
