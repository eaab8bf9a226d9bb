"""Decoded training images on disk, as tensors: what is kept, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
import torchvision
from torch import Tensor

from saccade.caches.pixels import PixelCache
from saccade.caches.store import decoded_by, entry_key, made_by
from saccade.images.decoder import Limits
from saccade.preprocess import RGB, PixelFormat, Preprocess
from saccade.records import ImageRecord

STORING_VERSION = 1  # rises with every change of what `shrink` or `as_evaluated` makes of decoded pixels

How = Literal["shrunk", "evaluated"]


@dataclass(frozen=True)
class StoredPixels:
    """A `PixelCache` for images that were all made in one way. Files without a hash are not kept."""

    cache: PixelCache
    made_by: str
    pixels: PixelFormat = RGB

    @classmethod
    def of(cls, cache: PixelCache, limits: Limits, preprocess: Preprocess, how: How) -> StoredPixels:
        """`how`: "shrunk", no larger than random crops need; "evaluated", in evaluation's geometry."""
        return cls(cache, _made_by(limits, preprocess, how), preprocess.pixels)

    def get(self, record: ImageRecord) -> Tensor | None:
        """(C, height, width), channels side by side in mapped memory; not to be written into."""
        if not record.sha256:
            return None
        pixels = self.cache.get(entry_key(record.sha256, self.made_by), self.pixels)
        return None if pixels is None else torch.from_numpy(pixels).permute(2, 0, 1)

    def put(self, record: ImageRecord, image: Tensor) -> bool:
        """Keep (C, height, width); False where it is not kept."""
        if not record.sha256:
            return False
        return self.cache.put(entry_key(record.sha256, self.made_by), image.permute(1, 2, 0).numpy())


@lru_cache(maxsize=16)
def _made_by(limits: Limits, preprocess: Preprocess, how: How) -> str:
    if how == "shrunk":  # which knows no colours
        count = preprocess.pixels.count
        preprocess = replace(preprocess, mean=(0,) * count, std=(1,) * count)
    return made_by(
        storing=STORING_VERSION,
        how=how,
        preprocess=preprocess,
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        processor=torch.backends.cpu.get_cpu_capability(),
        decoded=decoded_by(limits),
    )
