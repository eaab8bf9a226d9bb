"""In which precision a phase is learnt on a CPU: a rule about processor and work.

bfloat16 with the fast depthwise backward is taken on processors for which `runtime.bfloat16_pays` holds, and
where there is enough to learn; short trainings stay in float32, the same on every machine. Steps of each were
timed before; the rule decides as the clock did on both processors measured (docs/lab-notes.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from saccade.models.network import Classifier
from saccade.plan import HEAD, Phase
from saccade.runtime import Precision, Runtime, bfloat16_pays
from saccade.training.cpu.depthwise import fast_depthwise_backward
from saccade.training.inference import evaluation_mode
from saccade.training.job import TrainingJob

LEAST_OPERATIONS = 3e12  # about a minute of a depthwise network in float32 on two cores
BACKWARD_AND_FORWARD, FORWARD = 3, 1  # passes over a layer that learns, and over one that does not


@contextlib.contextmanager
def learning_runtime(job: TrainingJob, phase: Phase, *, epoch: int) -> Iterator[Runtime]:
    """The runtime in the precision of the phase; within it the classifier has the backward that suits it.

    `epoch` is the one about to be learnt. The classifier is frozen for the phase already.
    """
    runtime = job.runtime.in_precision(phase_precision(job, phase, epoch=epoch))
    fast = runtime.precision == "bfloat16" and runtime.device.type == "cpu"
    with fast_depthwise_backward(job.classifier) if fast else contextlib.nullcontext():
        yield runtime


def phase_precision(job: TrainingJob, phase: Phase, *, epoch: int) -> Precision:
    """What was asked for; for "auto" on a CPU bfloat16 where it pays and the phase is long."""
    decided = job.plan.precision != "auto" or job.runtime.device.type != "cpu"
    if decided or phase.name == HEAD or not bfloat16_pays():
        return job.runtime.precision
    image = next(iter(job.data.train.epoch(epoch))).images[:1]
    operations = operations_an_image(job.classifier, image) * job.data.images * phase.epochs
    return "bfloat16" if operations >= LEAST_OPERATIONS else job.runtime.precision


def operations_an_image(classifier: Classifier, image: Tensor) -> float:
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
