"""Training: `fit` runs phases, a phase runs epochs, `train_epoch` runs steps, `train_step` learns.

Randomness is a function of (seed, step), every finished epoch is on disk, so a run can stop anywhere and
continue; on a CPU the result is then bit for bit that of a run that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saccade.bundle import hash_tensors, weights_sha256
from saccade.errors import TrainingError
from saccade.models.finetune import frozen_hash, set_training_mode
from saccade.models.network import Classifier
from saccade.recipe import Recipe
from saccade.records import EpochRow
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime, draw_seed
from saccade.training import pacing
from saccade.training.arithmetic import choose_arithmetic
from saccade.training.boundary import kept_activations
from saccade.training.budget import TimeBudget
from saccade.training.callbacks import Callback, Callbacks, EpochProgress
from saccade.training.inference import predict_logits
from saccade.training.job import (
    ALL_EPOCHS,
    HEAD_IS_ENOUGH,
    WHAT_IS_TUNED,
    Job,
    TrainingSource,
    Transfer,
    as_chosen,
    choose_tail,
    end_phase,
    load_best,
    load_last,
    phase_ending,
    refuse_early,
    start_or_continue,
    view,
)
from saccade.training.learner import Learner, begin_phase, memory_message, out_of_memory
from saccade.training.losses import log_loss_and_accuracy
from saccade.training.phases import FINETUNE, Phase, freeze_for, plan_phases
from saccade.training.state import Best, Checkpoint, Checkpoints, Continued, FitState, FrozenEvidence
from saccade.training.stop import StopRequest
from saccade.transforms.batches import Batch

GPU_PROGRESS_STEPS = 10  # reading a figure makes the GPU wait


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a training came to. The classifier given to `fit` holds the weights of `best`.

    `frozen` is the evidence of promise 4 by phase, and `frozen_at_end` the hash of what the last phase froze,
    in the weights that are returned. `finetune_ratio` is that of the recipe (0 where nothing was fine-tuned).
    `continued` says of each time that epochs went on from a checkpoint whether they did so bit for bit.
    `head_alone`: the best weights are the untouched backbone and a head fitted on its features.
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
    continued: tuple[Continued, ...] = ()


def fit(
    classifier: Classifier,
    *,
    train: TrainingSource,
    validation: Callable[[], Iterable[Batch]],
    class_counts: Mapping[str, int],
    recipe: Recipe,
    pretrained: bool,
    runtime: Runtime,
    run: RunFolder,
    transfer: Transfer | None = None,
    validation_images: int = 0,
    mix_up: float = 0.0,
    cut_mix: float = 0.0,
    callbacks: Sequence[Callback] = (),
    stop: StopRequest | None = None,
    deadline: float | None = None,
    started: float | None = None,
) -> FitResult:
    """Train in place, from the newest checkpoint where there is one, and end with the best weights.

    `class_counts` are training images per class, in class order; `validation_images` (where known) helps to
    keep a deadline. `transfer` computes frozen features; without it pretrained networks are trained by method
    "finetune" whatever the recipe says. `started` and `deadline` are monotonic seconds. Writes `checkpoints/`
    and `history.jsonl` of the run. Raises TrainingError, PromiseError, or Interrupted when `stop` was set.
    """
    return _guarded(
        Job(
            classifier=classifier,
            train=train,
            validation=validation,
            validation_images=validation_images,
            class_counts=tuple(class_counts.values()),
            recipe=recipe,
            phases=plan_phases(recipe, pretrained=pretrained, can_solve=transfer is not None),
            runtime=runtime,
            checkpoints=Checkpoints(run.checkpoints),
            mix_up=mix_up,
            cut_mix=cut_mix,
            run=run,
            callbacks=Callbacks(callbacks),
            stop=stop or StopRequest(),
            budget=TimeBudget(
                started=time.monotonic() if started is None else started,
                deadline=math.inf if deadline is None else deadline,
            ),
            transfer=transfer,
        )
    )


def _guarded(job: Job) -> FitResult:
    """Phase after phase; after a failed step the network has the weights of the last finished epoch again."""
    try:
        with job.runtime.training_arithmetic():
            return _result(job, _fit(job))
    except TrainingError:
        load_last(job)
        raise
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(memory_message(job.recipe.batch_size, job.runtime)) from None
    finally:
        job.callbacks.on_close()


def _fit(job: Job) -> FitState:
    """Phase after phase, from wherever an earlier run stopped."""
    refuse_early(job)
    job.runtime.place(job.classifier)
    state, checkpoint = start_or_continue(job)
    while not state.finished:
        job = as_chosen(job)
        state = fit_phase(job, job.phases[state.phase], state, checkpoint)
        checkpoint = None  # only the phase that was interrupted has an optimizer to continue
    load_best(job, state)
    job.callbacks.on_finish(view(job, job.phases[-1], state))
    return state


def fit_phase(job: Job, phase: Phase, state: FitState, checkpoint: Checkpoint | None) -> FitState:
    """Epochs until the phase's end, early stopping or the time limit; then back to the best weights."""
    if phase.solved:
        return solve_phase(job, phase, state)
    freeze_for(job.classifier, phase)
    with kept_activations(job, phase, state) as (learning, note):
        state, ending = learn_phase(learning, phase, state.with_note(note), checkpoint)
    return end_phase(job, phase, state, ending)


def learn_phase(
    job: Job, phase: Phase, state: FitState, checkpoint: Checkpoint | None
) -> tuple[FitState, str]:
    """The epochs of a phase in the arithmetic that suits it, and why there are no more."""
    arithmetic = choose_arithmetic(job, phase, train_step, epoch=state.epoch + 1, fresh=not state.phase_epoch)
    state = state.with_note(arithmetic.note)
    with arithmetic.applied(job) as job:
        learner = begin_phase(job, phase, micro_batch=state.micro_batch)
        learner.pace = state.pace
        if checkpoint:
            learner.load_optimizer(checkpoint.optimizer, checkpoint.scalars)
            learner.average.go_on(checkpoint.raw)
            state = state.with_continuation(goes_on_exactly(learner, checkpoint))
        state = replace(state, frozen_before=state.frozen_before or frozen_hash(job.classifier))
        job.budget.new_phase()
        while not (ending := phase_ending(job, phase, state)):
            state = fit_epoch(job, learner, state)
    return state, ending


def goes_on_exactly(learner: Learner, checkpoint: Checkpoint) -> bool:
    """Promise 9: whether optimizer and weights that go on are those of the checkpoint, bit for bit."""
    tensors, scalars = learner.optimizer_state()
    stored = {**checkpoint.weights, **checkpoint.raw}
    return (
        hash_tensors(tensors) == hash_tensors(checkpoint.optimizer)
        and hash_tensors(learner.classifier.state_dict()) == hash_tensors(stored)
        and scalars == checkpoint.scalars
    )


def solve_phase(job: Job, phase: Phase, state: FitState) -> FitState:
    """The head out of frozen features, each time like an epoch; then, for "auto", whether to go on."""
    freeze_for(job.classifier, phase)
    state = replace(state, frozen_before=state.frozen_before or frozen_hash(job.classifier))
    assert job.transfer is not None, "only a transfer can solve a phase"
    for step in range(state.phase_epoch, job.transfer.head_steps):
        if step and job.budget.over:
            break
        state = solve_head(job, phase, state, step)
    if state.phase_epoch == job.transfer.head_steps and job.transfer.fits_again(job):
        state = solve_head(job, phase, state, state.phase_epoch)
    state = end_phase(job, phase, state, ALL_EPOCHS)
    if state.finished or job.recipe.train.method != "auto" or job.checkpoints.choice(WHAT_IS_TUNED):
        return state
    verdict = job.transfer.judge_finetuning(job, job.phases[state.phase])
    state = state.with_note(verdict.reason)
    if not verdict.worth_it:
        state = replace(state, finished=HEAD_IS_ENOUGH)
        job.checkpoints.finish(state)
    elif verdict.tail:
        choose_tail(job)
    return state


def solve_head(job: Job, phase: Phase, state: FitState, step: int) -> FitState:
    """Fit the head, and write it down like an epoch: a row of the history and a checkpoint."""
    assert job.transfer is not None, "only a transfer can solve a phase"
    found = job.transfer.fit_head(job, step)
    if not math.isfinite(found.validation_loss):
        raise TrainingError(
            "the head fitted on frozen features gives losses that are no finite numbers, so the backbone's "
            "features are not finite; use other weights or another backbone"
        )
    row = EpochRow(
        phase=phase.name,
        epoch=state.epoch + 1,
        lr=phase.learning_rate,
        train_loss=found.train_loss,
        train_accuracy=found.train_accuracy,
        validation_loss=found.validation_loss,
        validation_accuracy=found.validation_accuracy,
        seconds=round(job.budget.elapsed(), 3),
    )
    state = state.after_epoch(row, steps=0).with_note(found.note)
    job.checkpoints.save(state, job.classifier.state_dict(), {}, {})
    job.run.write_history(state.history)
    job.callbacks.on_epoch_end(view(job, phase, state), row)
    return state


def fit_epoch(job: Job, learner: Learner, state: FitState) -> FitState:
    """One epoch: train, validate, remember, write down; all but the first with averaged weights, if any."""
    began = time.monotonic()
    trained = train_epoch(job, learner, state)
    with learner.average.in_place():
        return end_epoch(job, learner, state, trained, began)


def end_epoch(job: Job, learner: Learner, state: FitState, trained: Tally, began: float) -> FitState:
    """Validate what the network is now, and write it down with what training goes on from."""
    validation_loss, validation_accuracy, validation_seconds = validate(job, learner, state)
    row = EpochRow(
        phase=learner.phase.name,
        epoch=state.epoch + 1,
        lr=trained.highest_rate,
        train_loss=trained.loss,
        train_accuracy=trained.accuracy,
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
        seconds=round(job.budget.elapsed(), 3),
    )
    plateau = learner.plateau_after(state.plateau, validation_loss)
    state = replace(state, micro_batch=learner.micro_batch, plateau=plateau)
    state = state.after_epoch(row, steps=trained.steps)
    state = _with_memory_note(learner, state)
    seconds = time.monotonic() - began
    job.budget.note_epoch(seconds, validation_seconds)
    state = pacing.after_epoch(job, learner, state, steps=trained.steps, seconds=seconds)
    raw = learner.average.other  # in place of which the network has the average
    job.checkpoints.save(state, job.classifier.state_dict(), *learner.optimizer_state(), raw=raw)
    job.run.write_history(state.history)
    job.callbacks.on_epoch_end(view(job, learner.phase, state), row)
    return state


@dataclass(slots=True)
class Tally:
    """Running figures of an epoch. Sums stay on the device until somebody asks."""

    steps: int = 0
    images: int = 0
    loss_sum: Tensor | float = 0.0
    right: Tensor | float = 0.0
    highest_rate: float = 0.0

    def add(self, images: int, losses: Tensor, right: Tensor, rate: float) -> None:
        self.steps += 1
        self.images += images
        exact = torch.float32 if losses.device.type == "mps" else torch.float64  # Apple's GPUs have no 64 bit
        self.loss_sum = self.loss_sum + losses.sum(dtype=exact)
        self.right = self.right + right
        self.highest_rate = max(self.highest_rate, rate)

    @property
    def loss(self) -> float:
        """Mean cross-entropy an image, as on the validation part (with mixing, of the mixed targets)."""
        return float(self.loss_sum) / max(1, self.images)

    @property
    def accuracy(self) -> float:
        """Share of images given their label, or the label with the larger share where two were mixed."""
        return float(self.right) / max(1, self.images)


def train_epoch(job: Job, learner: Learner, state: FitState) -> Tally:
    """Step through the batches of one epoch, unless a signal or the time limit ends it before."""
    epoch = state.epoch + 1
    learner.watch.where = f"in epoch {epoch} (phase {learner.phase.name})"
    learner.watch.remedy = _lower_rate(job, learner, state)
    set_training_mode(learner.classifier, keep_statistics=learner.phase.keep_statistics)
    learner.begin_epoch(state.phase_step)
    tally, began = Tally(), time.monotonic()
    for index, batch in enumerate(job.train.epoch(epoch)):
        if not index:
            began = time.monotonic()  # before the first batch all images may have been decoded
        job.stop.check()
        rate = learner.rate(state.phase_step + index, state.plateau.factor)
        learner.set_rate(rate)
        losses, right = _step_within_memory(learner, batch, state.step + index)
        learner.average.follow(state.phase_step + index)
        tally.add(len(batch.paths), losses, right, rate)
        _report(job, learner, tally, state)
        step_seconds = (time.monotonic() - began) / tally.steps
        if job.budget.must_stop_now(step_seconds=step_seconds, validation_batches=_validation_batches(job)):
            break
        pacing.first_look(job, learner, state, steps=tally.steps, began=began)
        if learner.pace and state.phase_step + tally.steps >= learner.pace.end:
            break
    learner.watch.flush()
    return tally


def train_step(learner: Learner, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
    """Learn from one batch; returns the plain losses (B,) and the number of right answers.

    Dropout, like mixing, is a function of (seed, step).
    """
    torch.manual_seed(draw_seed(learner.recipe.seed, "step", step))
    images, targets = learner.inputs(batch, step)  # (B, 3, S, S), (B, classes) soft
    seen, right = [], torch.zeros((), device=images.device)
    for part in learner.parts(len(images)):
        logits = learner.forward(images[part])  # (b, classes)
        losses = learner.losses(logits, targets[part])
        learner.watch.see(losses, batch.paths[part])
        learner.runtime.backward(losses.sum() / len(images))
        seen.append(learner.plain_losses(logits, targets[part]))
        right += (logits.argmax(1) == targets[part].argmax(1)).sum()
    if learner.recipe.train.gradient_clip:
        learner.runtime.clip(learner.forward, learner.stepper, learner.recipe.train.gradient_clip)
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
        learner.halve_micro_batch(len(batch.paths))


def validate(job: Job, learner: Learner, state: FitState) -> tuple[float, float, float]:
    """Loss and accuracy on the validation part, and the seconds it took. Raises TrainingError for NaN."""
    began = time.monotonic()
    logits, labels, _ = predict_logits(job.classifier, _until_stopped(job), job.runtime)
    assert len(labels), "every data set has a validation part by now"
    loss, accuracy = log_loss_and_accuracy(logits, labels)
    if not math.isfinite(loss):
        raise TrainingError(
            f"the validation loss is no longer a finite number after epoch {state.epoch + 1} "
            f"(phase {learner.phase.name}). {_lower_rate(job, learner, state)}"
        )
    return loss, accuracy, time.monotonic() - began


def _until_stopped(job: Job) -> Iterator[Batch]:
    for batch in job.validation():
        job.stop.check()
        yield batch


def _validation_batches(job: Job) -> int:
    return math.ceil(job.validation_images / job.recipe.batch_size)


# -- words and figures -------------------------------------------------------------------------------


def _result(job: Job, state: FitState) -> FitResult:
    assert state.best is not None, "a finished training has a best epoch"
    tuned = any(row.phase == FINETUNE for row in state.history)
    return FitResult(
        history=state.history,
        best=state.best,
        stopped=state.finished,
        frozen=state.frozen,
        finetune_ratio=job.phases[-1].learning_rate / job.recipe.learning_rate if tuned else 0.0,
        weights_sha256=weights_sha256(job.classifier),
        notes=state.notes,
        head_alone=job.phases[0].solved and state.best.phase == job.phases[0].name,
        frozen_at_end=_frozen_at_end(job, state),
        continued=state.continued,
    )


def _frozen_at_end(job: Job, state: FitState) -> str:
    """Hash of what the last phase froze, now that the best weights are loaded."""
    names = {phase.name: phase for phase in as_chosen(job).phases}
    freeze_for(job.classifier, names[state.frozen[-1].phase])
    return frozen_hash(job.classifier)


def _report(job: Job, learner: Learner, tally: Tally, state: FitState) -> None:
    every = 1 if job.runtime.device.type == "cpu" else GPU_PROGRESS_STEPS
    if tally.steps % every and tally.steps != len(job.train):
        return
    job.callbacks.on_step(
        EpochProgress(
            phase=learner.phase.name,
            epoch=state.epoch + 1,
            last_epoch=state.epoch - state.phase_epoch + sum(p.epochs for p in job.phases[state.phase :]),
            images=tally.images,
            total_images=sum(job.class_counts),
            loss=tally.loss,
            accuracy=tally.accuracy,
        )
    )


def _lower_rate(job: Job, learner: Learner, state: FitState) -> str:
    """What is kept and what to do about a loss that is not finite."""
    kept = f"The weights of epoch {state.epoch} are kept" if state.epoch else "No epoch was finished"
    name = "train.finetune_lr" if learner.phase.name == FINETUNE else "train.lr"
    rate = learner.phase.learning_rate
    return (
        f"{kept}. Train again with a lower {name} (it was {rate:g}; try {rate / 10:g}) and a new --out, "
        "and look at those images"
    )


def _with_memory_note(learner: Learner, state: FitState) -> FitState:
    if not learner.micro_batch:
        return state
    return state.with_note(
        f"memory was too small for {learner.recipe.batch_size} images at once: the gradient of each "
        f"batch was summed over pieces of {learner.micro_batch} (BatchNorm saw the pieces)"
    )
