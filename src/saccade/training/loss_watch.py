"""The watch over a step: nothing is learnt from a loss or a gradient that is NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from saccade.errors import NotFiniteError

FILES_NAMED = 32
Unread = tuple[Callable[[], float], Tensor, tuple[str, ...]]


@dataclass(slots=True)
class LossWatch:
    """Looks at the losses of a step, and on a CPU at its gradient, before the weights change.

    A GPU's losses are copied beside its work and read once the backward pass is under way: it need not wait.
    Its gradient is not read, since it would wait for that.
    """

    gradients: bool = True
    where: str = "in a trial of fine-tuning"
    remedy: str = "train with a lower train.finetune_lr"
    _unread: list[Unread] = field(default_factory=list)

    def see(self, losses: Tensor, paths: tuple[str, ...]) -> None:
        """Note the losses (B,); on a CPU raises NotFiniteError at once, before the backward pass."""
        losses = losses.detach()
        self._unread.append((_on_its_way(losses.sum()), losses, paths))
        if losses.device.type == "cpu":
            self.flush()

    def settle(self, gradients: Callable[[], list[Tensor]], paths: tuple[str, ...]) -> None:
        """Before the weights change: raises NotFiniteError, naming the files, where they must not."""
        self.flush()
        if self.gradients and not all_finite(gradients()):
            raise NotFiniteError(
                f"the gradient is NaN or infinite {self.where}, though no loss is; the batch: "
                f"{_named(paths)}",
                hint=self.remedy,
            )

    def flush(self) -> None:
        """Read what is left: raises NotFiniteError where a loss is not finite."""
        unread, self._unread = self._unread, []
        for total, losses, paths in unread:
            if math.isfinite(total()):
                continue
            values = losses.tolist()
            bad = [path for path, value in zip(paths, values, strict=True) if not math.isfinite(value)]
            if bad:  # else finite losses have a sum that is not
                raise NotFiniteError(
                    f"the loss is NaN or infinite {self.where}, for {len(bad)} of {len(paths)} images of the "
                    f"batch: {_named(bad)}",
                    hint=self.remedy,
                )


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether no number of them is NaN or infinite."""
    if not tensors:
        return True
    lengths = torch.stack(torch._foreach_norm(tensors))
    # the length of large numbers may be infinite although each is finite
    return bool(lengths.isfinite().all()) or all(bool(tensor.isfinite().all()) for tensor in tensors)


@dataclass(slots=True)
class Statistics:
    """BatchNorm's statistics as they were before a step: a failed forward pass leaves no trace in them."""

    live: list[Tensor] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, module: nn.Module) -> Statistics:
        """Of the parts that are in training mode, the network's own memory and a copy."""
        live = [
            value
            for part in module.modules()
            if part.training
            for name, value in part.named_buffers(recurse=False)
            if name.startswith("running_") or name == "num_batches_tracked"
        ]
        return cls(live, [value.clone() for value in live])

    def keep(self) -> None:
        if self.live:
            torch._foreach_copy_(self.before, self.live)

    def restore(self) -> None:
        if self.live:
            torch._foreach_copy_(self.live, self.before)


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - FILES_NAMED} more" if len(paths) > FILES_NAMED else ""
    return f"{', '.join(paths[:FILES_NAMED])}{more}"


def _on_its_way(number: Tensor) -> Callable[[], float]:
    """What gives the value of a number on a device; on an NVIDIA GPU only its own kernel is waited for."""
    if number.device.type != "cuda":
        return lambda: float(number)
    arrived, here = torch.cuda.Event(), torch.empty((), dtype=number.dtype, pin_memory=True)  # type: ignore[no-untyped-call]
    here.copy_(number, non_blocking=True)
    arrived.record()

    def value() -> float:
        arrived.synchronize()
        return float(here)

    return value
