"""What a helper does: each step, each validation that process 0 says, with the network of the same job."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from saccade.errors import NotFiniteError
from saccade.models.finetune import set_training_mode
from saccade.plan import Phase
from saccade.training.cpu.depthwise import fast_depthwise_backward
from saccade.training.job import TrainingJob
from saccade.training.learner import Learner, begin_phase
from saccade.training.loss_watch import Statistics
from saccade.training.sharing import Share, SharedSource
from saccade.training.state import FitState
from saccade.training.team import Team, Word
from saccade.transforms.batches import Batch
from saccade.transforms.mix import NO_MIXING


def serve(job: TrainingJob, team: Team) -> None:
    """Learn along through all phases of a job; process 0 says when it is over."""
    job.runtime.place(job.classifier)
    with job.runtime.training_arithmetic(), team.computing():
        while (word := team.hear())["do"] == "phase":
            _serve_phase(job, team, word)


def _serve_phase(job: TrainingJob, team: Team, word: Word) -> None:
    phase, runtime = Phase(**word["phase"]), job.runtime.in_precision(word["precision"])
    fast = runtime.precision == "bfloat16" and runtime.device.type == "cpu"
    with fast_depthwise_backward(job.classifier) if fast else contextlib.nullcontext():
        learner = begin_phase(job, phase, runtime=runtime, state=FitState(micro_batch=word["at_once"]))
        _take_over(learner, team, word)
        set_training_mode(job.classifier, keep_statistics=phase.keep_statistics)
        learner.statistics = Statistics.of(job.classifier)
        assert job.data.validation_share is not None, "a helper validates along"
        validation = job.data.validation_share(team.place.number, team.place.count)
        share = Share(team, cast("SharedSource", job.data.train), learner.micro_batch, validation)
        batches = Batches(share)
        while (word := team.hear())["do"] != "phase over":
            if word["do"] == "validate":
                share.logits(job, learner)
            else:
                _serve_step(learner, share, batches.at(word["epoch"], word["batch"]), word)


def _take_over(learner: Learner, team: Team, word: Word) -> None:
    """The weights and the optimizer's memory of process 0."""
    described = {
        name: (getattr(torch, kind.removeprefix("torch.")), shape)
        for name, (kind, shape) in word["optimizer"].items()
    }
    tensors: dict[str, Tensor] = {
        name: torch.empty(shape, dtype=kind) for name, (kind, shape) in described.items()
    }
    with team.exchange():
        team.spread([*learner.classifier.state_dict().values(), *tensors.values()])
    if tensors or word["numbers"]:
        learner.load_optimizer(tensors, word["numbers"])


def _serve_step(learner: Learner, share: Share, batch: Batch, word: Word) -> None:
    for group, rate in zip(learner.optimizer.param_groups, word["rates"], strict=True):
        group["lr"] = rate
    learner.done = word["done"]
    learner.mixing = learner.plan.mixing if word["mixed"] else NO_MIXING
    if word["precision"] != learner.runtime.precision:
        learner.go_on_in_float32(epoch=word["epoch"], step=word["step"])
    learner.statistics.keep()
    try:
        share.step(learner, batch, word["step"])
    except NotFiniteError:  # process 0 raises it, too, and says what comes now
        learner.statistics.restore()
        learner.stepper.zero_grad()


@dataclass(slots=True)
class Batches:
    """The batches that process 0 names, usually one after another."""

    share: Share
    _next: tuple[int, int] = (0, 0)
    _coming: Iterator[Batch] = field(default_factory=lambda: iter(()))

    def at(self, epoch: int, number: int) -> Batch:
        """Batch `number` of an epoch, with the images of this process."""
        if (epoch, number) != self._next:
            self._coming = self.share.epoch(epoch, start_batch=number)
        self._next = epoch, number + 1
        return next(self._coming)
