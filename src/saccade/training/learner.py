"""What one phase of training works with: network, optimizer, rate, mixing, and the watch over the loss."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from saccade.models.network import Classifier
from saccade.plan import Phase, Plan
from saccade.runtime import Runtime, draw_seed
from saccade.training.averaging import WeightAverage
from saccade.training.clock import Stretch
from saccade.training.job import TrainingJob, freeze_for, training_loss
from saccade.training.loss_watch import LossWatch, Statistics
from saccade.training.losses import Loss, classification_loss, label_losses
from saccade.training.memory import memory_error
from saccade.training.optimizer_state import flatten_optimizer, unflatten_optimizer
from saccade.training.optimizers import build_optimizer
from saccade.training.schedules import Pace, Plateau, Span, growing_side, learning_rate
from saccade.training.state import FitState, Switch
from saccade.transforms.batches import Batch
from saccade.transforms.mix import NO_MIXING, Mixing, mix, soft_targets

SMALLEST_MICRO_BATCH = 2  # BatchNorm needs two images to have a variance


class Sharing(Protocol):
    """The part of this process in a step and a validation that several make together: `sharing.Share`."""

    def step(self, learner: Learner, batch: Batch, step: int) -> tuple[Tensor, Tensor]: ...

    def whole(self) -> Batch: ...

    def logits(
        self, job: TrainingJob, learner: Learner, batches: Callable[[Iterable[Batch]], Iterable[Batch]]
    ) -> tuple[NDArray[np.float32], NDArray[Any]]: ...


@dataclass(slots=True)
class Learner:
    """A network set up for one phase. `forward` is the network as Fabric wraps it, in training precision."""

    classifier: Classifier
    runtime: Runtime
    plan: Plan
    phase: Phase
    span: Span
    classes: int
    loss: Loss
    optimizer: torch.optim.Optimizer
    forward: Any
    stepper: Any  # the optimizer as Fabric wraps it
    average: WeightAverage
    micro_batch: int = 0  # images at once; 0 is the whole batch
    done: float = 1.0  # share of the phase's schedule at the start of this epoch
    mixing: Mixing = NO_MIXING  # of this epoch
    pace: Pace | None = None  # where a deadline leaves no time for all epochs
    watch: LossWatch = field(default_factory=LossWatch)
    statistics: Statistics = field(default_factory=Statistics)
    switch: Switch | None = None  # where the phase went on in float32
    share: Sharing | None = None  # where several processes learn

    @property
    def growing_from(self) -> float:
        """Share of the side at which images start, where a whole network learns from growing ones; else 0."""
        return self.plan.progressive_size if self.phase.unfreeze == "all" else 0.0

    def inputs(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) and soft targets (B, classes) on the device; mixing = f(seed, step)."""
        images = self.sized(self.runtime.images(batch.images))
        targets = soft_targets(batch.targets.to(self.runtime.device), self.classes)
        return self.mixed(images, targets, step)

    def mixed(self, images: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """A whole batch of them, mixed as the step has it."""
        generator = torch.Generator().manual_seed(draw_seed(self.plan.seed, "mix", step))
        mixing = self.mixing
        return mix(
            images,
            targets,
            mix_up_alpha=mixing.mix_up,
            cut_mix_alpha=mixing.cut_mix,
            switch=mixing.switch,
            generator=generator,
        )

    def sized(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) at the side of this epoch: smaller at first where they are to grow."""
        side = growing_side(self.done, start=self.growing_from, full=images.shape[-1])
        if side == images.shape[-1]:
            return images
        return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)

    def begin_epoch(self, phase_step: int) -> None:
        """Note how much of the schedule is done: by that the images of the epoch have their size, and are
        mixed or not."""
        step = self.pace.at_step(phase_step, self.span) if self.pace else phase_step
        self.done = step / max(1, self.span.steps)
        epoch = phase_step // max(1, self.span.steps_per_epoch)
        self.mixing = self.plan.mixing.at(self.done, epoch)
        self.statistics = Statistics.of(self.classifier)

    def epochs_averaged(self, phase_step: int, before: int) -> int:
        """How many epochs are in the equal average, that which ended at `phase_step` included; else 0.

        `before` are those of the epochs before it.
        """
        step = self.pace.at_step(phase_step, self.span) if self.pace else phase_step
        left = self.phase.epochs - step / max(1, self.span.steps_per_epoch)
        return before + 1 if left < self.phase.swa_epochs - 1e-6 else 0

    def stretch(self, phase_step: int) -> Stretch:
        """Where the phase is, for the clock."""
        return Stretch(phase_step, self.span, self.pace, self.growing_from, self.done)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) loss of each image."""
        return self.loss(logits, targets)

    def plain_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) cross-entropy without smoothing and class weights, as the validation part is measured."""
        if self.plan.multi_label:
            return label_losses(logits.detach().float(), targets)
        return classification_loss(logits.detach(), targets, class_weights=None, smoothing=0.0)

    def right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Number of images given their label; of several labels, all of them."""
        if self.plan.multi_label:
            return ((logits > 0) == (targets > 0.5)).all(1).sum()
        return (logits.argmax(1) == targets.argmax(1)).sum()

    def parts(self, images: int) -> Iterator[slice]:
        """The batch in pieces that fit into memory."""
        return even_parts(images, self.micro_batch or images)

    def rate(self, phase_step: int, plateau_factor: float) -> float:
        """The learning rate of a step of this phase."""
        return learning_rate(
            self.pace.at_step(phase_step, self.span) if self.pace else phase_step,
            base=self.phase.learning_rate,
            schedule=self.plan.schedule.name,
            span=self.span,
            plateau_factor=plateau_factor,
        )

    def plateau_after(self, plateau: Plateau, score: float) -> Plateau:
        """The plateau schedule's state after an epoch of this phase."""
        schedule = self.plan.schedule
        return plateau.after(
            score,
            patience=schedule.plateau_patience,
            drop=schedule.plateau_factor,
            lowest=schedule.plateau_min_lr / self.phase.learning_rate,
        )

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)

    def gradients(self) -> list[Tensor]:
        """Those of the step that is about to be taken."""
        learning = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        return [parameter.grad for parameter in learning if parameter.grad is not None]

    def go_on_in_float32(self, *, epoch: int, step: int) -> None:
        """From this step on the phase computes in float32."""
        self.runtime = self.runtime.in_precision("float32")
        self.forward, self.stepper = self.runtime.setup(self.classifier, self.optimizer)
        self.switch = Switch(self.phase.name, epoch, step)

    def halve_micro_batch(self, images: int) -> None:
        """Work on half as many images at once; the gradient of the whole batch stays what it was.

        Raises TrainingError when two images are already too many.
        """
        now = self.micro_batch or images
        if now <= SMALLEST_MICRO_BATCH:
            raise memory_error(now, self.runtime)
        self.micro_batch = max(SMALLEST_MICRO_BATCH, math.ceil(now / 2))
        self.runtime.free_cache()

    def optimizer_state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The optimizer's tensors and numbers by name, for a checkpoint."""
        return flatten_optimizer(self.optimizer)

    def load_optimizer(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Continue from what `optimizer_state` gave, in the memory order the parameters have."""
        state, steps = unflatten_optimizer(tensors, numbers)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for index, entry in state.items():
            for key, value in entry.items():
                if key != "step" and isinstance(value, Tensor) and value.shape == parameters[index].shape:
                    entry[key] = torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)
        groups = self.optimizer.state_dict()["param_groups"]
        for index, step in steps.items():
            groups[index]["step"] = step
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def begin_phase(
    job: TrainingJob, phase: Phase, *, runtime: Runtime | None = None, state: FitState | None = None
) -> Learner:
    """Freeze what the phase freezes, build its optimizer over the rest, and hand both to the runtime.

    `runtime` is the job's unless another precision suits the phase; `state` where the phase is under way.
    """
    runtime, state = runtime or job.runtime, state or FitState()
    if state.in_float32(phase.name):
        runtime = runtime.in_precision("float32")
    freeze_for(job.classifier, phase)
    optimizer = build_optimizer(job.classifier, phase.learning_rate, job.plan.optimizer)
    forward, stepper = runtime.setup(job.classifier, optimizer)
    return Learner(
        classifier=job.classifier,
        runtime=runtime,
        plan=job.plan,
        phase=phase,
        span=Span.of(job.plan.schedule, phase.epochs, len(job.data.train)),
        classes=len(job.data.class_counts),
        loss=training_loss(job),
        optimizer=optimizer,
        forward=forward,
        stepper=stepper,
        average=WeightAverage.of(
            job.classifier,
            decay=phase.ema_decay,
            warm_up=phase.ema_warm_up,
            equal=phase.swa_epochs > 0,
            keep_statistics=phase.keep_statistics,
        ),
        micro_batch=state.micro_batch or job.plan.planned_micro_batch,
        pace=state.pace,
        mixing=job.plan.mixing,
        watch=LossWatch(gradients=runtime.device.type == "cpu"),
    )


def even_parts(images: int, most: int) -> Iterator[slice]:
    """`images` in as few pieces of at most `most` as can be, as equal as can be.

    A last piece of one image would be nothing that BatchNorm can learn from.

    >>> [part.stop - part.start for part in even_parts(129, 32)]
    [25, 26, 26, 26, 26]
    """
    pieces = math.ceil(images / most)
    ends = [images * piece // pieces for piece in range(pieces + 1)]
    return (slice(start, end) for start, end in itertools.pairwise(ends))
