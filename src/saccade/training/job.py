"""What stays the same during one `fit`, and what happens between epochs: starting, continuing, ending."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from saccade.bundle import load_exactly
from saccade.errors import PromiseError
from saccade.models.finetune import frozen_hash
from saccade.models.network import Classifier
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.training.budget import TimeBudget
from saccade.training.callbacks import Callback, TrainingView
from saccade.training.losses import inverse_frequency
from saccade.training.optimizers import MOMENTS
from saccade.training.phases import Phase, freeze_for, tail_after_fitted_head
from saccade.training.state import Checkpoint, Checkpoints, FitState, FrozenEvidence
from saccade.training.stop import StopRequest
from saccade.transforms.batches import Batch

EARLY_STOPPING, TIME_LIMIT, ALL_EPOCHS = "early stopping", "time limit", "all epochs done"
HEAD_IS_ENOUGH = "the head alone is enough"
WHAT_IS_TUNED = "what is fine-tuned"  # a choice that the clock has a say in


class TrainingSource(Protocol):
    """Batches (images, class indices, paths) as a function of the epoch: `transforms.TrainingBatches`."""

    def __len__(self) -> int:
        """Batches in one epoch."""
        ...

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 1 through all phases."""
        ...


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """Losses and accuracies of a head that was fitted on frozen features, and what to say about it."""

    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    note: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether fine-tuning is worth its time, and why, in words; `tail`: of the last layers only."""

    worth_it: bool
    reason: str
    tail: bool = False


class Transfer(Protocol):
    """The fast way of transfer, `training.transfer.FastTransfer`: a head out of frozen features."""

    @property
    def head_steps(self) -> int:
        """How often the head is fitted, each time on more of what the training images give."""
        ...

    def fit_head(self, job: Job, step: int) -> HeadFigures:
        """Fit the classifier's head in place, for the time `step` (from 0)."""
        ...

    def fits_again(self, job: Job) -> bool:
        """Whether the head is to be fitted once more, after these, for what is known by now."""
        ...

    def judge_finetuning(self, job: Job, phase: Phase) -> Verdict:
        """Whether `phase` will pay, from training images alone; leaves the classifier as it is."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """All that stays the same during one `fit`."""

    classifier: Classifier
    train: TrainingSource
    validation: Callable[[], Iterable[Batch]]
    validation_images: int
    class_counts: tuple[int, ...]
    recipe: Recipe
    phases: tuple[Phase, ...]
    runtime: Runtime
    checkpoints: Checkpoints
    mix_up: float
    cut_mix: float
    run: RunFolder
    callbacks: Callback
    stop: StopRequest
    budget: TimeBudget
    transfer: Transfer | None = None


def choose_tail(job: Job) -> None:
    """From now on, and in a run that continues, the last layers are fine-tuned instead of all."""
    job.checkpoints.keep_choice(WHAT_IS_TUNED, {"method": "tail"})


def as_chosen(job: Job) -> Job:
    """The job with the phases that a choice, if one was written down, has led to."""
    if job.checkpoints.choice(WHAT_IS_TUNED) is None:
        return job
    return replace(job, phases=(*job.phases[:-1], tail_after_fitted_head(job.recipe)))


def refuse_early(job: Job) -> None:
    """Raises now what would otherwise stop the run hours later: a bad `unfreeze`, a full disk."""
    learnt = 0
    for phase in job.phases:
        freeze_for(job.classifier, phase)
        learnt = max(learnt, sum(p.nbytes for p in job.classifier.parameters() if p.requires_grad))
    weights = sum(tensor.nbytes for tensor in job.classifier.state_dict().values())
    averages = 1 if any(phase.ema_decay for phase in job.phases) else 0
    job.checkpoints.require_space(
        weights, weights + (MOMENTS[job.recipe.train.optimizer] + averages) * learnt
    )


def start_or_continue(job: Job) -> tuple[FitState, Checkpoint | None]:
    """The state and weights of the newest whole checkpoint, or the beginning."""
    checkpoint, notes = job.checkpoints.latest()
    state = checkpoint.state if checkpoint else FitState()
    for note in notes:
        state = state.with_note(note)
    job.checkpoints.forget_after(state.epoch)
    if checkpoint:
        load_exactly(job.classifier, checkpoint.weights, where=str(job.checkpoints.folder))
        job.budget.earlier_seconds = state.history[-1].seconds
        job.run.write_history(state.history)
    return state, checkpoint if checkpoint and state.phase_epoch else None


def phase_ending(job: Job, phase: Phase, state: FitState) -> str:
    """Why the phase ends here, or "" while it goes on."""
    patience = job.recipe.train.early_stopping
    if state.phase_epoch >= phase.epochs:
        return ALL_EPOCHS
    if patience and state.epochs_without_better >= patience:
        return EARLY_STOPPING
    if state.pace:
        through = state.phase_step >= state.pace.end
        return TIME_LIMIT if through or job.budget.exhausted else ""
    # the very first epoch is always begun: without it there is nothing to give back
    if state.epoch and not job.budget.epoch_fits():
        return TIME_LIMIT
    return ""


def end_phase(job: Job, phase: Phase, state: FitState, ending: str) -> FitState:
    """Check promise 4, go back to the best weights, and say why the phase ended."""
    evidence, pace = frozen_evidence(job, phase, state), state.pace
    state = state.next_phase(evidence)
    if ending != ALL_EPOCHS:
        done = sum(row.phase == phase.name for row in state.history)
        left = "".join(f"; {later.name} was not begun" for later in job.phases[state.phase :])
        skipped = left if ending == TIME_LIMIT else ""
        paced = "; the rate's schedule was shortened to that" if pace and ending == TIME_LIMIT else ""
        state = state.with_note(
            f"{phase.name}: {ending} after epoch {done} of {phase.epochs}{paced}{skipped}"
        )
    load_best(job, state)
    if ending == TIME_LIMIT or state.phase == len(job.phases):
        state = replace(state, finished=ending)
        job.checkpoints.finish(state)
    return state


def frozen_evidence(job: Job, phase: Phase, state: FitState) -> FrozenEvidence:
    """Promise 4: frozen weights and BatchNorm statistics are bit-identical; raises PromiseError if not."""
    frozen = sum(p.numel() for p in job.classifier.parameters() if not p.requires_grad)
    evidence = FrozenEvidence(phase.name, frozen, state.frozen_before, frozen_hash(job.classifier))
    if not evidence.kept:
        raise PromiseError(
            f"a frozen part changed during phase {phase.name} (hash {evidence.before[:12]} became "
            f"{evidence.after[:12]}); this backbone changes itself in its forward pass: use another one, "
            "or train.unfreeze = 'all' with head_epochs = 0"
        )
    return evidence


def load_last(job: Job) -> None:
    """Out of a failed step, back to the weights of the last finished epoch, where there is one."""
    checkpoint, _ = job.checkpoints.latest()
    if checkpoint:
        load_exactly(job.classifier, checkpoint.weights, where=str(job.checkpoints.folder))


def load_best(job: Job, state: FitState) -> None:
    weights = job.checkpoints.best_weights(state)
    load_exactly(job.classifier, weights, where=str(job.checkpoints.folder))


def class_weights(job: Job) -> Tensor | None:
    if not job.recipe.train.class_weights:
        return None
    return inverse_frequency(job.class_counts).to(job.runtime.device)


def view(job: Job, phase: Phase, state: FitState) -> TrainingView:
    def weights() -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in job.classifier.state_dict().items()}

    return TrainingView(phase.name, state.epoch, state.step, state.best, state.history, weights)
