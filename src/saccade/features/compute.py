"""Frozen features, computed once for each view of an image.

Every thread takes a batch of its own from decoding to features, on one core. So the cores share the work
without waiting for each other, and the bits do not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.caches.pixels import PixelCache
from saccade.images.decoder import Limits, read_pixels
from saccade.preprocess import Preprocess
from saccade.records import ImageRecord, Storage
from saccade.runtime import one_thread_each
from saccade.sources.storage import read_ahead
from saccade.terminal import Progress, silent
from saccade.training.stop import StopRequest
from saccade.transforms.apply import channels_first, normalise_into, to_input
from saccade.transforms.geometry import as_evaluated
from saccade.transforms.stored import StoredPixels

BATCH_IMAGES = 16  # few, so that no thread is left waiting long for the last one

# Images (B, 3, S, S) float32 -> features (B, F) float32, from any thread, evaluation mode, no gradients.
Engine = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Engines:
    """What computes features: `exact` gives those of the float32 network; `quick`, if there is one, nearly.

    Figures always rest on exact features; a head may be fitted on quick ones. `network`: the exported
    backbone that both run, empty where torch computes.
    """

    exact: Engine
    exact_name: str
    quick: Engine | None = None
    quick_name: str = ""
    network: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Images:
    """Where images lie and how they become input.

    `exact`: by the evaluation path, in float32; else by its quicker uint8 twin, as in training, which is kept
    in `pixels` on disk, where given.
    """

    storage: Storage
    records: tuple[ImageRecord, ...]
    preprocess: Preprocess
    limits: Limits
    exact: bool
    pixels: PixelCache | None = None

    def __len__(self) -> int:
        return len(self.records)

    def inputs(self, indices: Sequence[int]) -> Tensor:
        """float32 (len(indices), C, S, S); raises DataError naming an image that went bad."""
        size = self.preprocess.size
        ready = torch.empty(len(indices), self.preprocess.pixels.count, size, size)
        stored = None
        if self.pixels and not self.exact:
            stored = StoredPixels.of(self.pixels, self.limits, self.preprocess, "evaluated")
        records = [self.records[index] for index in indices]
        kept = [stored.get(record) if stored else None for record in records]
        missing = [record.path for record, found in zip(records, kept, strict=True) if found is None]
        storage = read_ahead(self.storage, missing)
        for record, found, out in zip(records, kept, ready, strict=True):
            if self.exact:
                out.copy_(to_input(self._decoded(storage, record), self.preprocess))
                continue
            if found is None:
                found = as_evaluated(channels_first(self._decoded(storage, record)), self.preprocess)
                if stored:
                    stored.put(record, found)
            normalise_into(out, found, self.preprocess)
        return ready

    def _decoded(self, storage: Storage, record: ImageRecord) -> NDArray[Any]:
        pixels: NDArray[Any] = read_pixels(storage, record, self.limits)
        return pixels


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
    with one_thread_each(), ThreadPoolExecutor(threads) as pool:
        for indices, features in zip(plan, pool.map(batch, plan), strict=True):
            found.append(features)
            progress(indices.stop, len(images))
    return torch.cat(found)
