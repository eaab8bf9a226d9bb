"""Memory that was too small: how that shows, what is said of it, and work done again in smaller pieces."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from saccade.errors import TrainingError
from saccade.runtime import Runtime
from saccade.terminal import counted


def memory_error(images: int, runtime: Runtime) -> TrainingError:
    """What was too much, and what to do."""
    return TrainingError(
        f"out of memory: {counted(images, 'image')} at once on {runtime.device}",
        hint="use a smaller train.batch_size, data.image_size or backbone, or end what else uses that memory",
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was too small, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


class Pieces:
    """Answers of a network to batches of any size, in smaller pieces once memory was too small for one."""

    def __init__(self, answer: Callable[[Tensor], Tensor], runtime: Runtime) -> None:
        self._answer, self._runtime = answer, runtime
        self._most = 0  # images at once; 0 as long as all fitted

    def __call__(self, images: Tensor) -> Tensor:
        """(B, ...) for images (B, C, S, S); raises TrainingError where one image is too much."""
        while True:
            try:
                size = self._most or max(1, len(images))
                return torch.cat([self._answer(part) for part in torch.split(images, size)])
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            # outside the except: the error holds on to the memory
            if size == 1:
                raise memory_error(1, self._runtime)
            self._most = (min(size, len(images)) + 1) // 2
            self._runtime.free_cache()
