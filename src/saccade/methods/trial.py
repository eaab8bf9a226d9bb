"""A short trial of fine-tuning, to judge inside the training part whether it pays.

Some training images are learnt from, others judge. A trial is method tail in short, on kept activations;
one of the whole network takes twice as long.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.features import heads
from saccade.features.heads import Choice, LabelledFeatures, head_logits, stratified_group_folds
from saccade.features.series import is_wide
from saccade.methods.activations import kept_activations, measure_ending
from saccade.methods.probe import Probe
from saccade.methods.verdict import Cost, Terms, Trial, Verdict, verdict, within_limit
from saccade.models.finetune import set_training_mode
from saccade.plan import Phase
from saccade.runtime import draw_seed
from saccade.training.clock import VALIDATION_MARGIN
from saccade.training.inference import predict_logits
from saccade.training.job import TrainingJob, freeze_for
from saccade.training.learner import Learner, begin_phase
from saccade.training.loop import train_step
from saccade.training.loss_watch import Statistics
from saccade.training.losses import image_figures, log_loss_and_accuracy
from saccade.training.not_finite import finite_step
from saccade.training.precision import learning_runtime
from saccade.training.state import FitState
from saccade.transforms.batches import Batch

# A trial is method "tail" in short: a tenth of its epochs, but enough steps to get over the start.
TRIAL_SHARE, LEAST_TRIAL_STEPS, TRIAL_HOLDOUT_FOLDS, TRIAL_VIEWS = 0.1, 100, 4, 2
MAX_TRIAL_IMAGES, MAX_JUDGED_IMAGES = 2_000, 500
TIMED_STEPS = 3
LEAST_STEPS = 10  # of the last layers, else we keep the head
TAIL_STEP_SHARE = 0.35  # of a step of the whole network: a trial's, the passes through frozen layers included
FORWARD_SHARE = 1 / 3  # of a training step
SOLVED_ACCURACY = 0.995


def judge_finetuning(job: TrainingJob, probe: Probe, phase: Phase) -> Verdict:
    """Try in short what the last layers gain from three quarters of the training images.

    It is judged on the others; leaves the classifier as it is. `phase` is what would follow.
    """
    choice = probe.choice(job)
    if choice.folds < 2 and math.isnan(choice.accuracy):
        return Verdict(False, "too few training images to try fine-tuning: we keep the linear probe")
    if choice.accuracy >= SOLVED_ACCURACY and not _validation_disagrees(job, probe, choice):
        return Verdict(
            False,
            f"the linear probe has an accuracy of {choice.accuracy:.1%} on held-out training images: "
            "fine-tuning has almost nothing to gain and is skipped (--method full does it anyway)",
        )
    if job.watch.clock.limited:
        return _within_limit(job, phase)
    trial = _trial(job, probe, phase, choice)
    return verdict(trial, replace(_terms(job, phase), other_seconds=_other_seconds(job)))


def _validation_disagrees(job: TrainingJob, probe: Probe, choice: Choice) -> bool:
    """Whether the head is clearly worse on validation than on held-out training images."""
    _, accuracy = log_loss_and_accuracy(*probe.validation_logits(job.classifier))
    return is_wide(choice.accuracy, len(probe.train), accuracy, len(probe.validation))


def _within_limit(job: TrainingJob, phase: Phase) -> Verdict:
    """What the time limit allows, by steps and answers that are timed now."""
    clock = job.watch.clock
    if clock.seconds_left <= 0:
        return within_limit(Cost(0.0, math.inf), clock.seconds_left, phase.epochs)
    step_seconds = _step_seconds(job, phase)
    measure_ending(job)
    validating = FORWARD_SHARE * step_seconds * job.validation_batches
    least = LEAST_STEPS * TAIL_STEP_SHARE * step_seconds + VALIDATION_MARGIN * validating
    cost = Cost(_epoch_seconds(job, step_seconds), least)
    return within_limit(cost, clock.seconds_left, phase.epochs)


def _terms(job: TrainingJob, phase: Phase) -> Terms:
    tail = job.plan.last_layers
    assert tail is not None, "the plan of a method with a trial has what is tried"
    return Terms(epochs=phase.epochs, tail_epochs=tail.epochs, bounded=job.plan.bounded)


def _other_seconds(job: TrainingJob) -> float:
    """What the command has taken so far, and will take once it is trained."""
    return job.watch.clock.elapsed() + job.watch.clock.seconds_after_training()


def _trial(job: TrainingJob, probe: Probe, phase: Phase, choice: Choice) -> Trial:
    """Held-out images as the head answers them, and as a short fine-tuning of the last layers does."""
    data, tail = probe.data(job, views=probe.head_steps), job.plan.last_layers
    assert tail is not None, "the plan of a method with a trial has what is tried"
    tried, others, judged = _divided_for_trial(data, job.plan.seed)
    clone = copy.deepcopy(job.classifier)
    head = copy.deepcopy(clone.head).to("cpu")
    heads.fit_head(head, data.subset(others), strength=choice.strength, seed=job.plan.seed)
    clone.head.load_state_dict(head.state_dict())
    before = head_logits(head, data.values[0, judged])
    source = probe.batches(tried)
    trying = replace(job, classifier=clone, data=replace(job.data, train=source))
    step_seconds = _step_seconds(trying, phase)
    tail = replace(tail, epochs=_trial_epochs(tail, len(source)))
    _finetune(trying, probe, replace(tail, kept_views=min(TRIAL_VIEWS, tail.kept_views), swa_epochs=0))
    after = torch.from_numpy(predict_logits(clone, probe.evaluation(judged), job.runtime)[0])
    head_losses, head_right = image_figures(before, data.labels[judged])
    tuned_losses, tuned_right = image_figures(after, data.labels[judged])
    return Trial(
        head_losses=head_losses.numpy(),
        tuned_losses=tuned_losses.numpy(),
        head_right=head_right.numpy(),
        tuned_right=tuned_right.numpy(),
        epoch_seconds=_epoch_seconds(job, step_seconds),
    )


def _step_seconds(job: TrainingJob, phase: Phase) -> float:
    """The least of a few training steps of `phase`, on a copy, in the precision that it will have."""
    job = replace(job, classifier=copy.deepcopy(job.classifier))
    freeze_for(job.classifier, phase)
    least = math.inf
    with learning_runtime(job, phase, epoch=1) as runtime:
        learner = begin_phase(job, phase, runtime=runtime)
        set_training_mode(job.classifier, keep_statistics=phase.keep_statistics)
        for step, batch in enumerate(islice(job.data.train.epoch(1), TIMED_STEPS)):
            job.watch.stop.check()
            began = time.monotonic()
            _step(job, learner, batch, step)
            least = min(least, time.monotonic() - began)
    return least


def _epoch_seconds(job: TrainingJob, step_seconds: float) -> float:
    """Of the whole training part, and its validation, which is forward only."""
    return step_seconds * (len(job.data.train) + FORWARD_SHARE * job.validation_batches)


def _finetune(job: TrainingJob, probe: Probe, phase: Phase) -> None:
    """Go through `phase` with the job's classifier, which ends with its averaged weights, if any."""
    freeze_for(job.classifier, phase)
    with (
        kept_activations(job, phase, FitState(), recorded=False) as (learning, _),
        learning_runtime(learning, phase, epoch=1) as runtime,
        probe.progress("trying fine-tuning", "steps") as progress,
    ):
        learner = begin_phase(learning, phase, runtime=runtime)
        set_training_mode(job.classifier, keep_statistics=phase.keep_statistics)
        learner.statistics = Statistics.of(job.classifier)
        step, total = 0, phase.epochs * len(learning.data.train)
        for epoch in range(1, phase.epochs + 1):
            for batch in learning.data.train.epoch(epoch):
                job.watch.stop.check()
                _step(job, learner, batch, step)
                step += 1
                progress(step, total)
        learner.average.swap()  # it is judged by the weights that the phase itself would keep


def _divided_for_trial(data: LabelledFeatures, seed: int) -> tuple[list[int], NDArray[np.int64], list[int]]:
    """Images that the trial learns from, all that its head may be fitted on, and images that judge it.

    What belongs together is never on both sides.
    """
    fold_of = stratified_group_folds(
        data.labels.numpy(), data.groups, folds=TRIAL_HOLDOUT_FOLDS, seed=draw_seed(seed, "trial")
    )
    random = np.random.default_rng(draw_seed(seed, "trial images"))
    judged = sorted(random.permutation(np.flatnonzero(fold_of == 0))[:MAX_JUDGED_IMAGES].tolist())
    others = np.flatnonzero(fold_of != 0)
    tried = sorted(random.permutation(others)[:MAX_TRIAL_IMAGES].tolist())
    return tried, others, judged


def _trial_epochs(phase: Phase, batches: int) -> int:
    """How much of a phase its trial is."""
    least = math.ceil(LEAST_TRIAL_STEPS / batches)
    return min(phase.epochs, max(least, round(TRIAL_SHARE * phase.epochs)))


def _step(job: TrainingJob, learner: Learner, batch: Batch, step: int) -> None:
    learner.set_rate(learner.rate(step, 1.0))
    finite_step(train_step, job, learner, batch, epoch=1, step=step)
    learner.average.follow(step)
