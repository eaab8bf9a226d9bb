"""What stays the same during one training, and what happens between epochs: starting, continuing, ending."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from saccade.bundle import load_exactly
from saccade.errors import PromiseError
from saccade.models.finetune import freeze_backbone, frozen_hash, unfreeze
from saccade.models.network import Classifier
from saccade.plan import FINETUNE, HEAD, Phase, Plan
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.training.callbacks import Callback, TrainingView
from saccade.training.clock import Clock
from saccade.training.losses import Loss, make_loss
from saccade.training.monitors import check_monitor
from saccade.training.optimizers import MOMENTS, MOST_MOMENTS
from saccade.training.state import Checkpoint, Checkpoints, FitState, FrozenEvidence
from saccade.training.stop import StopRequest
from saccade.transforms.batches import Batch
from saccade.transforms.sampling import expected_visits

if TYPE_CHECKING:
    from saccade.training.team import Team

EARLY_STOPPING, TIME_LIMIT, ALL_EPOCHS = "early stopping", "time limit", "all epochs done"
FINISHED_EARLY = "finished early"
ENDINGS = (TIME_LIMIT, FINISHED_EARLY)  # of the training, not only of a phase


class TrainingSource(Protocol):
    """Batches (images, class indices, paths) as a function of the epoch: `transforms.TrainingBatches`."""

    def __len__(self) -> int:
        """Batches in one epoch."""
        ...

    def epoch(self, epoch: int, *, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, counted from 1 through all phases, from `start_batch` on."""
        ...


class ValidationShare(Protocol):
    """Whole validation batches, and which images of the validation part are in them, in their order."""

    @property
    def indices(self) -> Sequence[int]: ...

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What is learnt from and validated on.

    `validation()` gives the same batches each time. `class_counts` are training images by class, in class
    order; `validation_images` (where known) helps to keep a deadline. `validation_share(number, processes)`:
    what one of several processes validates, each time the same.
    """

    train: TrainingSource
    validation: Callable[[], Iterable[Batch]]
    class_counts: Mapping[str, int]
    validation_images: int = 0
    training_images: int = 0  # where an image may count in several classes, or in none
    validation_share: Callable[[int, int], ValidationShare] | None = None

    @property
    def images(self) -> int:
        """Training images."""
        return self.training_images or sum(self.class_counts.values())


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on (and changes nothing), who may stop it, and the time.

    `finish`: no further epoch is begun once there is one, and the best so far is the result.
    """

    callbacks: Callback = field(default_factory=Callback)
    stop: StopRequest = field(default_factory=StopRequest)
    clock: Clock = field(default_factory=Clock)
    finish: bool = False


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training: the network, what is done with it, from which data, where, and who watches.

    `team`, where several processes train: asked for once, it starts the others.
    """

    classifier: Classifier
    plan: Plan
    data: TrainingData
    runtime: Runtime
    run: RunFolder
    checkpoints: Checkpoints
    watch: Watch = field(default_factory=Watch)
    team: Callable[[], Team] | None = None

    @property
    def validation_batches(self) -> int:
        return math.ceil(self.data.validation_images / self.plan.batch_size)

    def with_phases(self, phases: tuple[Phase, ...]) -> TrainingJob:
        """The job with other phases in its plan."""
        return replace(self, plan=replace(self.plan, phases=phases))


def freeze_for(classifier: Classifier, phase: Phase) -> None:
    """Phase "head" freezes the backbone; "finetune" all of it but what `unfreeze` names; "main" nothing."""
    if phase.name == HEAD:
        freeze_backbone(classifier)
    elif phase.name == FINETUNE:
        unfreeze(classifier, phase.unfreeze)
    else:
        classifier.requires_grad_(True)


def begin(job: TrainingJob) -> tuple[FitState, Checkpoint | None]:
    """The newest whole checkpoint's state and weights, or the beginning, with all in its place."""
    refuse_early(job)
    job.runtime.place(job.classifier)
    checkpoint, notes = job.checkpoints.latest()
    state = checkpoint.state if checkpoint else FitState()
    for note in notes:
        state = noted(job, state, note)
    job.checkpoints.forget_after(state)
    if checkpoint:
        load_exactly(job.classifier, checkpoint.weights, where=str(job.checkpoints.folder))
        job.watch.clock.earlier_seconds = state.elapsed
    if state.history:
        job.run.write_history(state.history)
    if state.part:
        where = f"epoch {state.epoch + 1} after {state.part.steps} of {len(job.data.train)} steps"
        job.watch.callbacks.on_note(f"goes on in {where}")
    return state, checkpoint if state.phase_epoch or state.part else None


def noted(job: TrainingJob, state: FitState, note: str) -> FitState:
    """The state with one more thing to say, which is said at once; as it is where that was said before."""
    after = state.with_note(note)
    if after is not state:
        job.watch.callbacks.on_note(note)
    return after


def refuse_early(job: TrainingJob) -> None:
    """Raises now what would otherwise stop the run hours later: a bad `unfreeze`, a full disk."""
    check_monitor(job.plan.schedule.monitor, len(job.data.class_counts))
    learnt = 0
    for phase in job.plan.phases:
        freeze_for(job.classifier, phase)
        learnt = max(learnt, sum(p.nbytes for p in job.classifier.parameters() if p.requires_grad))
    weights = sum(tensor.nbytes for tensor in job.classifier.state_dict().values())
    averages = 1 if any(phase.ema_decay or phase.swa_epochs for phase in job.plan.phases) else 0
    kept = MOMENTS.get(job.plan.optimizer.name, MOST_MOMENTS) + averages
    start = weights if job.plan.average_with_pretrained else 0
    inside = bool(job.plan.checkpoint_every)
    job.checkpoints.require_space(weights + start, weights + kept * learnt, inside=inside)


def phase_ending(job: TrainingJob, phase: Phase, state: FitState) -> str:
    """Why the phase ends here, or "" while it goes on."""
    patience, clock = job.plan.schedule.early_stopping, job.watch.clock
    if state.phase_epoch >= phase.epochs:
        return ALL_EPOCHS
    if job.watch.finish and state.epoch:
        return FINISHED_EARLY
    if patience and state.epochs_without_better >= patience:
        return EARLY_STOPPING
    if state.pace:
        through = state.phase_step >= state.pace.end
        return TIME_LIMIT if through or clock.exhausted else ""
    # the very first epoch is always begun: without it there is nothing to give back
    if state.epoch and not clock.epoch_fits():
        return TIME_LIMIT
    return ""


def end_phase(job: TrainingJob, phase: Phase, state: FitState, ending: str) -> FitState:
    """Check promise 4, go back to the best weights, and say why the phase ended."""
    evidence, pace = frozen_evidence(job, phase, state), state.pace
    state = state.next_phase(evidence)
    if ending != ALL_EPOCHS:
        state = noted(job, state, _ended_early(job, phase, state, ending, paced=pace is not None))
    load_best(job, state)
    if ending in ENDINGS or state.phase == len(job.plan.phases):
        state = replace(state, finished=ending)
        job.checkpoints.finish(state)
    return state


def _ended_early(job: TrainingJob, phase: Phase, state: FitState, ending: str, *, paced: bool) -> str:
    done = sum(row.phase == phase.name for row in state.history)
    left = "".join(f"; {later.name} was not started" for later in job.plan.phases[state.phase :])
    skipped = left if ending in ENDINGS else ""
    shortened = "; the learning rate schedule was shortened to that" if paced and ending == TIME_LIMIT else ""
    return f"{phase.name}: {ending} after epoch {done} of {phase.epochs}{shortened}{skipped}"


def frozen_evidence(job: TrainingJob, phase: Phase, state: FitState) -> FrozenEvidence:
    """Promise 4: frozen weights and BatchNorm statistics are bit-identical; raises PromiseError if not."""
    frozen = sum(p.numel() for p in job.classifier.parameters() if not p.requires_grad)
    evidence = FrozenEvidence(phase.name, frozen, state.frozen_before, frozen_hash(job.classifier))
    if not evidence.kept:
        raise PromiseError(
            f"a frozen part changed during phase {phase.name} (hash {evidence.before[:12]} became "
            f"{evidence.after[:12]}): this backbone changes its own state in the forward pass",
            hint="use another backbone, or train.unfreeze = 'all' with head_epochs = 0",
        )
    return evidence


def load_last(job: TrainingJob) -> None:
    """Out of a failed step, back to the newest weights that were kept, where there are any."""
    checkpoint, _ = job.checkpoints.latest()
    if checkpoint:
        load_exactly(job.classifier, checkpoint.weights, where=str(job.checkpoints.folder))


def load_best(job: TrainingJob, state: FitState) -> None:
    weights = job.checkpoints.best_weights(state)
    load_exactly(job.classifier, weights, where=str(job.checkpoints.folder))


def training_loss(job: TrainingJob) -> Loss:
    """What training steps minimise; its tensors are on the device."""
    return fitted_loss(job, sampling="natural").to(job.runtime.device)


def fitted_loss(job: TrainingJob, *, sampling: str = "") -> Loss:
    """What a head minimises that is fitted to all images at once, on the CPU.

    Classes weigh as much more as an epoch of training would visit them more often.
    """
    counts, sampling = job.data.class_counts, sampling or job.plan.sampling
    several = job.data.images if job.plan.multi_label else 0
    if sampling == "natural":
        return make_loss(job.plan.loss, counts, several=several)
    images = np.array(list(counts.values()))
    visits = expected_visits(images, sampling) / np.maximum(images, 1)
    return make_loss(job.plan.loss, counts, extra=torch.from_numpy(visits.astype(np.float32)))


def view(job: TrainingJob, phase: Phase, state: FitState) -> TrainingView:
    """What callbacks see."""

    def weights() -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in job.classifier.state_dict().items()}

    return TrainingView(phase.name, state.epoch, state.step, state.best, state.history, weights)
