"""Training: `fit` runs phases, `fit_phase` runs epochs, `train_epoch` runs steps, `train_step` learns.

Randomness is a function of (seed, step), every finished epoch and now and then a part of one is on disk, so a
run can stop anywhere and continue; on a CPU the result is then bit for bit that of a run never stopped.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.bundle import hash_tensors, weights_sha256
from saccade.errors import TrainingError
from saccade.models.finetune import frozen_hash, set_training_mode
from saccade.models.network import Classifier
from saccade.plan import FINETUNE, Phase, Plan
from saccade.records import EpochRow
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime, draw_seed
from saccade.training.callbacks import EpochProgress
from saccade.training.clipping import clip_gradients
from saccade.training.clock import FIRST_LOOK_STEPS
from saccade.training.inference import predict_logits
from saccade.training.job import (
    TrainingData,
    TrainingJob,
    Watch,
    begin,
    end_phase,
    freeze_for,
    load_best,
    load_last,
    noted,
    phase_ending,
    view,
)
from saccade.training.learner import Learner, begin_phase
from saccade.training.losses import log_loss_and_accuracy
from saccade.training.memory import memory_error, out_of_memory
from saccade.training.monitors import watched
from saccade.training.not_finite import finite_step, noted_switch
from saccade.training.precision import learning_runtime
from saccade.training.sharing import shared
from saccade.training.state import (
    Best,
    Checkpoint,
    Checkpoints,
    Continued,
    FitState,
    FrozenEvidence,
    Switch,
)
from saccade.training.swa import average_epoch, refresh_statistics
from saccade.training.tally import Tally
from saccade.training.within_epoch import batches_left, kept_at_a_stop
from saccade.transforms.batches import Batch

GPU_PROGRESS_STEPS = 10  # reading a figure makes the GPU wait


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a training came to. The classifier given to `fit` holds the weights of `best`.

    `frozen` is the evidence of promise 4 by phase, and `frozen_at_end` the hash of what the last phase froze,
    in the weights that are returned. `finetune_ratio` is 0 where nothing was fine-tuned. `continued` says of
    each time that epochs went on from a checkpoint whether they did so bit for bit. `head_alone`: the best
    weights are the untouched backbone and a head fitted on its features. `averaged`: what averaging with the
    pretrained weights came to (training/wise.py), where it was tried. `switches`: where phases went on in
    float32.
    """

    history: tuple[EpochRow, ...]
    best: Best
    stopped: str
    frozen: tuple[FrozenEvidence, ...]
    finetune_ratio: float
    weights_sha256: str
    notes: tuple[str, ...]
    head_alone: bool = False
    frozen_at_end: str = ""
    averaged: Mapping[str, Any] = field(default_factory=dict)
    continued: tuple[Continued, ...] = ()
    switches: tuple[Switch, ...] = ()


def training_job(
    classifier: Classifier,
    plan: Plan,
    data: TrainingData,
    *,
    runtime: Runtime,
    run: RunFolder,
    watch: Watch | None = None,
) -> TrainingJob:
    """All that stays the same during one training, put together."""
    return TrainingJob(classifier, plan, data, runtime, run, Checkpoints(run.checkpoints), watch or Watch())


def fit(job: TrainingJob) -> FitResult:
    """Train the classifier in place through the plan's phases, and end with its best weights.

    Goes on from the newest checkpoint where there is one. Writes `checkpoints/` and `history.jsonl` of the
    run. Raises TrainingError, PromiseError, or Interrupted when a stop was asked for.
    """
    with guarded(job):
        state, checkpoint = begin(job)
        while not state.finished:
            state = fit_phase(job, job.plan.phases[state.phase], state, checkpoint)
            checkpoint = None  # only the phase that was interrupted has an optimizer to continue
        return finish(job, state)


@contextlib.contextmanager
def guarded(job: TrainingJob) -> Iterator[None]:
    """Training arithmetic inside; after a failed step the network has the newest weights that were kept."""
    try:
        with job.runtime.training_arithmetic():
            yield
    except TrainingError:
        load_last(job)
        raise
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise memory_error(job.plan.batch_size, job.runtime) from None
    finally:
        job.watch.callbacks.on_close()


def fit_phase(
    job: TrainingJob, phase: Phase, state: FitState, checkpoint: Checkpoint | None = None
) -> FitState:
    """Epochs until the phase's end, early stopping or the time limit; then back to the best weights.

    `checkpoint` is that from which the phase goes on, where it is under way.
    """
    freeze_for(job.classifier, phase)
    with (
        learning_runtime(job, phase, epoch=state.epoch + 1) as runtime,
        contextlib.ExitStack() as together,
    ):
        learner = begin_phase(job, phase, runtime=runtime, state=state)
        if checkpoint:
            learner.load_optimizer(checkpoint.optimizer, checkpoint.scalars)
            learner.average.go_on(checkpoint.raw)
            state = state.with_continuation(goes_on_exactly(learner, checkpoint))
        if phase.name == FINETUNE and _average_later(job, state):
            job.checkpoints.keep_start(job.classifier.state_dict())
        state = replace(state, frozen_before=state.frozen_before or frozen_hash(job.classifier))
        job.watch.clock.new_phase()
        learning = together.enter_context(shared(job, learner))
        while not (ending := phase_ending(job, phase, state)):
            began = time.monotonic() - Tally.of(state.part).seconds
            trained = train_epoch(learning, learner, state)
            state = average_epoch(learner, state, trained.steps)
            with learner.average.in_place():  # what is validated and kept is the average, if any
                with kept_at_a_stop(job, learner, state, trained):
                    if state.averaged > 1:
                        refresh_statistics(job, learner, state)
                    validated = validate(job, learner, state)
                state = end_epoch(job, learner, state, trained, validated, began)
    return end_phase(job, phase, state, ending)


def _average_later(job: TrainingJob, state: FitState) -> bool:
    """Whether the weights now, at the start of a later phase, are to be averaged with what it leads to."""
    begins = not state.phase_epoch and state.part is None
    return bool(job.plan.average_with_pretrained) and state.phase > 0 and begins


def goes_on_exactly(learner: Learner, checkpoint: Checkpoint) -> bool:
    """Promise 9: whether optimizer and weights that go on are those of the checkpoint, bit for bit."""
    tensors, scalars = learner.optimizer_state()
    stored = {**checkpoint.weights, **checkpoint.raw}
    return (
        hash_tensors(tensors) == hash_tensors(checkpoint.optimizer)
        and hash_tensors(learner.classifier.state_dict()) == hash_tensors(stored)
        and scalars == checkpoint.scalars
    )


def end_epoch(
    job: TrainingJob, learner: Learner, state: FitState, trained: Tally, validated: Validated, began: float
) -> FitState:
    """Write down what the network is now, with its figures and what training goes on from."""
    clock = job.watch.clock
    row = EpochRow(
        phase=learner.phase.name,
        epoch=state.epoch + 1,
        lr=trained.highest_rate,
        train_loss=trained.loss,
        train_accuracy=trained.accuracy,
        validation_loss=validated.loss,
        validation_accuracy=validated.accuracy,
        seconds=round(clock.elapsed(), 3),
        **validated.watched,
    )
    plateau = learner.plateau_after(state.plateau, row.score)
    state = replace(state, micro_batch=learner.micro_batch, plateau=plateau)
    state = state.after_epoch(row, steps=trained.steps, min_delta=job.plan.schedule.min_delta)
    state = noted_switch(job, learner, _with_memory_note(job, learner, state))
    seconds = time.monotonic() - began
    clock.note_epoch(seconds, validated.seconds)
    if not learner.phase.kept_views:  # else validation began in the middle of the network
        clock.measure_ending(validated.seconds)
    if _paced(job, state):
        learner.pace = clock.pace_after_epoch(
            learner.stretch(state.phase_step), steps=trained.steps, seconds=seconds, epochs=state.phase_epoch
        )
        state = replace(state, pace=learner.pace)
    raw = learner.average.other  # in place of which the network has the average
    job.checkpoints.save(state, job.classifier.state_dict(), *learner.optimizer_state(), raw=raw)
    job.run.write_history(state.history)
    job.watch.callbacks.on_epoch_end(view(job, learner.phase, state), row)
    return state


def _paced(job: TrainingJob, state: FitState) -> bool:
    """Whether this phase is the last and is to come to its schedule's end before the deadline."""
    last = state.phase == len(job.plan.phases) - 1
    return last and job.watch.clock.paces(job.plan.schedule.name)


def train_epoch(job: TrainingJob, learner: Learner, state: FitState) -> Tally:
    """Step through the batches of one epoch, unless a signal or the time limit ends it before."""
    epoch, clock = state.epoch + 1, job.watch.clock
    learner.watch.where = f"in epoch {epoch} (phase {learner.phase.name})"
    learner.watch.remedy = _lower_rate(learner, state)
    set_training_mode(learner.classifier, keep_statistics=learner.phase.keep_statistics)
    learner.begin_epoch(state.phase_step)
    if state.part:
        learner.pace = state.part.pace
    tally, began = Tally.of(state.part), time.monotonic()
    first = tally.steps
    for step, batch in enumerate(batches_left(job, learner, state, tally), start=first):
        if step == first:  # before the first batch all images may have been decoded
            began = time.monotonic() - tally.seconds
        rate = learner.rate(state.phase_step + step, state.plateau.factor)
        learner.set_rate(rate)
        losses, right = finite_step(
            _step_within_memory, job, learner, batch, epoch=epoch, step=state.step + step
        )
        learner.average.follow(state.phase_step + step)
        tally.add(len(batch.paths), losses, right, rate)
        seconds = tally.seconds = time.monotonic() - began
        _report(job, learner, tally, state, seconds)
        if clock.must_stop_now(step_seconds=seconds / tally.steps, validation_batches=job.validation_batches):
            break
        if tally.steps == FIRST_LOOK_STEPS and not state.phase_epoch and _paced(job, state):
            learner.pace = clock.pace_at_first_look(
                learner.stretch(state.phase_step),
                steps=tally.steps,
                seconds=seconds,
                validation_batches=job.validation_batches,
            )
        if learner.pace and state.phase_step + tally.steps >= learner.pace.end:
            break
    return tally


def train_step(learner: Learner, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
    """Learn from one batch; returns the plain losses (B,) and the number of right answers.

    Dropout, like mixing, is a function of (seed, step).
    """
    if learner.share:
        return learner.share.step(learner, batch, step)
    torch.manual_seed(draw_seed(learner.plan.seed, "step", step))
    images, targets = learner.inputs(batch, step)  # (B, 3, S, S), (B, classes) soft
    seen, right = [], torch.zeros((), device=images.device)
    for part in learner.parts(len(images)):
        logits = learner.forward(images[part])  # (b, classes)
        losses = learner.losses(logits, targets[part])
        learner.watch.see(losses, batch.paths[part])
        learner.runtime.backward(losses.sum() / len(images))
        seen.append(learner.plain_losses(logits, targets[part]))
        right += learner.right(logits, targets[part])
    if learner.plan.optimizer.gradient_clip:
        clip_gradients(learner)
    learner.watch.settle(learner.gradients, batch.paths)
    learner.stepper.step()
    learner.stepper.zero_grad()
    return torch.cat(seen), right


def _step_within_memory(learner: Learner, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
    """`train_step`, again with half as many images at once each time memory is too small."""
    while True:
        try:
            return train_step(learner, batch, step)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        learner.stepper.zero_grad()  # outside the except: the error holds on to the memory
        learner.statistics.restore()
        learner.halve_micro_batch(len(batch.paths))


class Validated(NamedTuple):
    """Figures of the validation part and the seconds they took; `watched` as `monitors.watched` has it."""

    loss: float
    accuracy: float
    watched: dict[str, Any]
    seconds: float


def validate(job: TrainingJob, learner: Learner, state: FitState) -> Validated:
    """Measure the validation part with what the network is now. Raises TrainingError for NaN."""
    began = time.monotonic()
    logits, labels = validation_logits(job, learner)
    assert len(labels), "every data set has a validation part by now"
    loss, accuracy = log_loss_and_accuracy(logits, labels)
    if not math.isfinite(loss):
        raise TrainingError(
            f"the validation loss is NaN or infinite after epoch {state.epoch + 1} "
            f"(phase {learner.phase.name})",
            hint=_lower_rate(learner, state),
        )
    seen = watched(job.plan.schedule.monitor, logits, labels)
    return Validated(loss, accuracy, seen, time.monotonic() - began)


def validation_logits(job: TrainingJob, learner: Learner) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """The answers to the validation part, and its labels."""
    if learner.share:
        return learner.share.logits(job, learner, lambda batches: _until_stopped(job, batches))
    logits, labels, _ = predict_logits(
        job.classifier, _until_stopped(job, job.data.validation()), learner.runtime
    )
    return logits, labels


def _until_stopped(job: TrainingJob, batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        job.watch.stop.check()
        yield batch


# -- words and figures -------------------------------------------------------------------------------


def finish(job: TrainingJob, state: FitState) -> FitResult:
    """The best weights into the classifier, and what the training came to."""
    assert state.best is not None, "a finished training has a best epoch"
    load_best(job, state)
    last = job.plan.phases[-1]
    job.watch.callbacks.on_finish(view(job, last, state))
    first, tuned = job.plan.phases[0], any(row.phase == FINETUNE for row in state.history)
    return FitResult(
        history=state.history,
        best=state.best,
        stopped=state.finished,
        frozen=state.frozen,
        finetune_ratio=last.learning_rate / job.plan.learning_rate if tuned else 0.0,
        weights_sha256=weights_sha256(job.classifier),
        notes=state.notes,
        head_alone=first.fitted and state.best.phase == first.name,
        frozen_at_end=_frozen_at_end(job, state),
        continued=state.continued,
        switches=state.switches,
    )


def _frozen_at_end(job: TrainingJob, state: FitState) -> str:
    """Hash of what the last phase froze, now that the best weights are loaded."""
    names = {phase.name: phase for phase in job.plan.phases}
    freeze_for(job.classifier, names[state.frozen[-1].phase])
    return frozen_hash(job.classifier)


def _report(job: TrainingJob, learner: Learner, tally: Tally, state: FitState, seconds: float) -> None:
    """Tell the callbacks how far the epoch is, `seconds` after its first batch came."""
    every = 1 if job.runtime.device.type == "cpu" else GPU_PROGRESS_STEPS
    if tally.steps % every and tally.steps != len(job.data.train):
        return
    ahead = sum(phase.epochs for phase in job.plan.phases[state.phase :])
    job.watch.callbacks.on_step(
        EpochProgress(
            phase=learner.phase.name,
            epoch=state.epoch + 1,
            last_epoch=state.epoch - state.phase_epoch + ahead,
            images=tally.images,
            total_images=job.data.images,
            loss=tally.loss,
            accuracy=tally.accuracy,
            seconds_left=_seconds_left(job, learner, tally, state, seconds),
        )
    )


def _seconds_left(job: TrainingJob, learner: Learner, tally: Tally, state: FitState, seconds: float) -> float:
    """About what the command still takes without early stopping; NaN before the last phase."""
    if state.phase < len(job.plan.phases) - 1:
        return math.nan
    span = learner.span
    end = learner.pace.end if learner.pace else span.steps
    return job.watch.clock.seconds_to_the_end(
        steps=max(0, end - state.phase_step - tally.steps),
        step_seconds=seconds / tally.steps,
        steps_per_epoch=span.steps_per_epoch,
    )


def _lower_rate(learner: Learner, state: FitState) -> str:
    """What is kept and what to do about a loss that is not finite."""
    kept = f"The weights of epoch {state.epoch} are kept" if state.epoch else "No epoch was finished"
    name = "train.finetune_lr" if learner.phase.name == FINETUNE else "train.lr"
    rate = learner.phase.learning_rate
    return (
        f"train again with a lower {name} (it was {rate:g}; try {rate / 10:g}) and a new --out, and look at "
        f"those images. {kept}"
    )


def _with_memory_note(job: TrainingJob, learner: Learner, state: FitState) -> FitState:
    if learner.micro_batch == job.plan.planned_micro_batch:
        return state
    return noted(
        job,
        state,
        f"memory was too small for {learner.plan.batch_size} images at once: the gradient of each "
        f"step was summed over pieces of {learner.micro_batch} (BatchNorm saw the pieces)",
    )
