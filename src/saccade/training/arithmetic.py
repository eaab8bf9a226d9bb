"""In which arithmetic a phase is learnt on a CPU: timed on the real network at its start, then kept.

bfloat16 is quicker for most networks, but not for all, and not on every CPU; so a phase that is long enough
times a few steps of each and keeps the quickest. The choice is written down before the first step, and a run
that continues reads it there: what the clock said once never changes again.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from saccade.models.finetune import set_training_mode
from saccade.models.network import Classifier
from saccade.runtime import Precision, Runtime, knows_bfloat16
from saccade.training.cpu.depthwise import fast_depthwise_backward
from saccade.training.inference import evaluation_mode
from saccade.training.job import Job
from saccade.training.learner import Learner, LossWatch, begin_phase
from saccade.training.phases import HEAD, Phase
from saccade.transforms.batches import Batch

FLOAT32, BFLOAT16, FAST = "float32", "bfloat16", "bfloat16 with the fast depthwise backward"
LEAST_OPERATIONS = 3e12  # about a minute of a depthwise network in float32 on two cores
LEAST_SECONDS = 60.0  # before the deadline
LEAST_GAIN = 1.15
TIMED_IMAGES = 16  # fewer, and torch takes another path for float32
ROUNDS = 2  # the first also warms up
BACKWARD_AND_FORWARD, FORWARD = 3, 1  # passes over a layer that learns, and over one that does not

Learn = Callable[[Learner, Batch, int], object]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """One of FLOAT32, BFLOAT16, FAST; `step_seconds` of each where they were timed, on `images` images."""

    name: str
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    images: int = 0

    @property
    def precision(self) -> Precision:
        return "float32" if self.name == FLOAT32 else "bfloat16"

    @property
    def note(self) -> str:
        """What was chosen and why, in words; "" where nothing was timed."""
        if not self.step_seconds:
            return ""
        others = [f"{seconds:.2f} s in {name}" for name, seconds in self.step_seconds.items()]
        return f"training arithmetic: {self.name}; a step of {self.images} images took {', '.join(others)}"

    @contextlib.contextmanager
    def applied(self, job: Job) -> Iterator[Job]:
        """The job as it is to be learnt, for as long as the context lasts."""
        runtime = job.runtime.in_precision(self.precision)
        fast = self.name == FAST and runtime.device.type == "cpu"
        replaced = fast_depthwise_backward(job.classifier) if fast else contextlib.nullcontext()
        with replaced:
            yield replace(job, runtime=runtime)


def choose_arithmetic(job: Job, phase: Phase, learn: Learn, *, epoch: int, fresh: bool = True) -> Arithmetic:
    """What the recipe asks for; for "auto" on a CPU, and a long phase, the quickest of three by the clock.

    `learn` is a training step, on images of that epoch. Not `fresh`, a phase under way keeps what it had. The
    classifier, which is frozen for the phase already, and every random stream stay as they are.
    """
    asked = Arithmetic(FAST if job.runtime.precision == "bfloat16" else FLOAT32)
    if job.recipe.precision != "auto" or not can_gain(job.runtime) or phase.name == HEAD:
        return asked
    if recorded := job.checkpoints.choice(f"arithmetic of {phase.name}"):
        return Arithmetic(recorded["name"], recorded["step_seconds"], recorded["images"])
    if not fresh or job.budget.deadline - time.monotonic() < LEAST_SECONDS:
        return asked
    batch = some_images(next(job.train.epoch(epoch)))
    operations = operations_an_image(job.classifier, phase, batch.images[:1]) * sum(job.class_counts)
    if operations * phase.epochs < LEAST_OPERATIONS:
        return asked
    return _kept(job, phase, quickest(step_seconds(job, phase, batch, learn), len(batch.images)))


def _kept(job: Job, phase: Phase, chosen: Arithmetic) -> Arithmetic:
    values = {"name": chosen.name, "step_seconds": dict(chosen.step_seconds), "images": chosen.images}
    job.checkpoints.keep_choice(f"arithmetic of {phase.name}", values)
    return chosen


def can_gain(runtime: Runtime) -> bool:
    """Whether this is a CPU that computes in bfloat16 itself; where it is imitated, it is slow."""
    return runtime.device.type == "cpu" and knows_bfloat16()


def some_images(batch: Batch) -> Batch:
    """The first few of a batch: enough to time a step."""
    return Batch(batch.images[:TIMED_IMAGES], batch.targets[:TIMED_IMAGES], batch.paths[:TIMED_IMAGES])


def step_seconds(job: Job, phase: Phase, batch: Batch, learn: Learn) -> dict[str, float]:
    """Seconds of a training step in each arithmetic, on a copy of the network; the least of two, in turns."""
    job = replace(job, classifier=copy.deepcopy(job.classifier))
    seconds = dict.fromkeys((FLOAT32, BFLOAT16, FAST), math.inf)
    learners = {name: _learner(job, phase, name) for name in seconds}
    set_training_mode(job.classifier, keep_statistics=phase.keep_statistics)
    for _ in range(ROUNDS):
        for name, learner in learners.items():
            job.stop.check()
            with Arithmetic(name).applied(job):
                began = time.monotonic()
                learn(learner, batch, 0)
                seconds[name] = min(seconds[name], time.monotonic() - began)
    return seconds


def _learner(job: Job, phase: Phase, name: str) -> Learner:
    with Arithmetic(name).applied(job) as tried:
        learner = begin_phase(tried, phase, micro_batch=0)
    learner.watch = LossWatch(lag=ROUNDS + 1)  # what is wrong with the images is said by the training itself
    return learner


def quickest(step_seconds: Mapping[str, float], images: int) -> Arithmetic:
    """The least seconds, but float32 unless another is surely quicker."""
    best = min(step_seconds, key=lambda name: step_seconds[name])
    gains = step_seconds[FLOAT32] >= LEAST_GAIN * step_seconds[best]
    return Arithmetic(best if gains else FLOAT32, dict(step_seconds), images)


def operations_an_image(classifier: Classifier, phase: Phase, image: Tensor) -> float:
    """Floating-point operations of learning from one image (1, 3, S, S), as the classifier is frozen now.

    Counts convolutions and dense layers: 2 a multiplication and addition, backward twice the forward.
    """
    found: list[float] = []

    def count(layer: nn.Module, inputs: Any, output: Any) -> None:
        weight = cast(Tensor, layer.weight)
        passes = BACKWARD_AND_FORWARD if weight.requires_grad else FORWARD
        found.append(2.0 * passes * output.numel() * weight[0].numel())

    layers = [layer for layer in classifier.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad(), evaluation_mode(classifier):
            classifier(image)
    finally:
        for handle in handles:
            handle.remove()
    return sum(found)
