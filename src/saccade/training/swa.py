"""At the end of an epoch: the equal average of the last ones, and the BatchNorm statistics it needs (SWA)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from saccade.runtime import draw_seed
from saccade.training.job import TrainingJob
from saccade.training.learner import Learner
from saccade.training.state import FitState


def average_epoch(learner: Learner, state: FitState, steps: int) -> FitState:
    """The state with the epoch just trained, of so many steps, in the average, where there is one.

    An epoch that was stopped while it was validated is in it already.
    """
    if not learner.phase.swa_epochs or (state.part and state.part.ended):
        return state
    number = learner.epochs_averaged(state.phase_step + steps, state.averaged)
    learner.average.follow_epoch(max(1, number))
    return replace(state, averaged=number)


def refresh_statistics(job: TrainingJob, learner: Learner, state: FitState) -> None:
    """Averaged weights need BatchNorm statistics of their own, of the epoch's images (torch's swa_utils).

    Only from scratch: fine-tuning keeps the pretrained statistics.
    """
    if learner.phase.keep_statistics:
        return
    epoch = state.epoch + 1
    torch.manual_seed(draw_seed(job.plan.seed, "statistics", epoch))
    with torch.no_grad():
        torch.optim.swa_utils.update_bn(_images(job, learner, epoch), learner.classifier)


def _images(job: TrainingJob, learner: Learner, epoch: int) -> Iterator[Tensor]:
    """(B, 3, S, S) of the epoch on the device, as many images at once as a step has, until a stop is asked
    for."""
    for batch in job.data.train.epoch(epoch):
        job.watch.stop.check()
        images = learner.sized(learner.runtime.images(batch.images))
        yield from (images[part] for part in learner.parts(len(images)))
