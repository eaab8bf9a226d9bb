"""Transfer the fast way: a head fitted on frozen features, and a trial of whether fine-tuning pays.

Every choice is made inside the training part: the strength of the head by cross-validation, fine-tuning by a
short trial on some of the training images, judged on others.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from saccade.features.compute import Engine, Engines, Images, compute_features
from saccade.features.heads import (
    ONE_CORE_NUMBERS,
    Choice,
    LabelledFeatures,
    choose_strength,
    fit_head,
    head_logits,
    stratified_group_folds,
)
from saccade.models.finetune import set_training_mode
from saccade.models.network import Classifier
from saccade.records import Dataset
from saccade.runtime import draw_seed, one_thread_each
from saccade.terminal import Progress
from saccade.training.arithmetic import choose_arithmetic
from saccade.training.boundary import kept_activations
from saccade.training.inference import predict_logits
from saccade.training.job import HeadFigures, Job, TrainingSource, Verdict, class_weights
from saccade.training.learner import Learner, begin_phase
from saccade.training.loop import train_step
from saccade.training.losses import log_loss_and_accuracy
from saccade.training.phases import Phase, freeze_for, tail_after_fitted_head
from saccade.training.state import FitState
from saccade.training.stop import StopRequest
from saccade.transforms.batches import Batch, class_indices

# A trial is method "tail" in short: a tenth of its epochs, but enough steps to get over the start.
TRIAL_SHARE, LEAST_TRIAL_STEPS, TRIAL_HOLDOUT_FOLDS, TRIAL_VIEWS = 0.1, 100, 4, 2
MAX_TRIAL_IMAGES, MAX_JUDGED_IMAGES = 2_000, 500
TIMED_STEPS = 3
TRIAL_TIME_SHARE = 0.3  # of the time that is left
# Epochs of the whole network that the time must allow; with less, its last layers alone come to more: an
# epoch of theirs takes a third to a half (docs/fast-training.md).
LEAST_FULL_EPOCHS, TAIL_TIME_SHARE = 5, 0.5
TAIL_STEP_SHARE = 0.35  # of a step of the whole network: a trial's, the passes through frozen layers included
# A gain need not be proved, only likely: validation lets nothing worse than the head be kept, so a trial that
# promises too much costs time, and one that is doubted for too long costs the better model.
LIKELY_STANDARD_ERRORS = 1.0
WORTHWHILE_LOSS_SHARE = 0.1  # of the loss of the head alone
WORTHWHILE_ACCURACY = 0.02
SOLVED_ACCURACY = 0.995
EARLY_STRENGTH = "L2 strength before near-duplicates were searched"


class Trial(NamedTuple):
    """Losses (n,) and right answers (n,) of the head alone and after a short fine-tuning, on held-out images.

    `epoch_seconds`: what an epoch of fine-tuning on the whole training part will take.
    """

    head_losses: NDArray[np.float64]
    tuned_losses: NDArray[np.float64]
    head_right: NDArray[np.bool_]
    tuned_right: NDArray[np.bool_]
    epoch_seconds: float


class NoTime(NamedTuple):
    """The time limit allows no trial; `epoch_seconds` as in a Trial."""

    epoch_seconds: float


@dataclass
class FastTransfer:
    """Frozen features of a run, computed when they are first asked for.

    `batches(indices)` gives augmented batches of some training images, `evaluation(indices)` plain ones.
    `late_search` gives the same images with all that belongs together, where heads are fitted before
    all of it is known.
    """

    train: Images
    validation: Images
    classes: tuple[str, ...]
    engines: Callable[[], Engines]
    mirrored: bool
    batches: Callable[[Sequence[int]], TrainingSource]
    evaluation: Callable[[Sequence[int]], Iterable[Batch]]
    progress: Callable[[str], AbstractContextManager[Progress]]
    threads: int = 1
    late_search: Callable[[], Dataset] | None = None
    _made: Engines | None = None
    _views: list[Tensor] = field(default_factory=list)  # float32 (images, F) each
    _validation: Tensor | None = None
    _choice: Choice | None = None

    @property
    def head_steps(self) -> int:
        """A head from the images as they are gives an answer early; then one from mirror images as well."""
        return 2 if self.mirrored else 1

    def fit_head(self, job: Job, step: int) -> HeadFigures:
        """Fit the classifier's head in place on `step` + 1 views of each image, or on all there are.

        Its figures on validation come from exact features, those on training from what it was fitted on.
        """
        data = self._data(job, views=min(step + 1, self.head_steps))
        head = copy.deepcopy(job.classifier.head).to("cpu")
        with self._validating_beside(data, job.stop):
            choice = self.choice(job)
            fit_head(head, data, strength=choice.strength, seed=job.recipe.seed)
        if self.late_search:
            job.checkpoints.keep_choice(EARLY_STRENGTH, {"strength": choice.strength})
        job.classifier.head.load_state_dict(head.state_dict())
        train = log_loss_and_accuracy(head_logits(head, data.values[0]).numpy(), data.labels.numpy())
        validation = log_loss_and_accuracy(*self.validation_logits(job.classifier, job.stop))
        return HeadFigures(*train, *validation, note=self._head_note(job, choice, step))

    def fits_again(self, job: Job) -> bool:
        """Search what was left until now; whether it leads to another strength than the heads so far had."""
        self._search(job.stop)
        early = job.checkpoints.choice(EARLY_STRENGTH)
        if early is None or job.recipe.model.head != "linear":
            return False
        return self.choice(job).strength != float(early["strength"])

    def validation_logits(
        self, classifier: Classifier, stop: StopRequest | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The answers (n, classes) on exact validation features, and the labels (n,).

        As the classifier gives them: where it flips, the mean of those on the images and on mirror images.
        """
        logits = head_logits(classifier.head, self._validation_features(stop))
        if classifier.flip:
            mirrored = self._exact_features("features of validation, mirrored", stop, mirror=True)
            logits = (logits + head_logits(classifier.head, mirrored)) / 2
        return logits.numpy(), class_indices(self.validation.records, self.classes).numpy()

    def _validation_features(self, stop: StopRequest | None) -> Tensor:
        if self._validation is None:
            self._validation = self._exact_features("features of validation", stop)
        return self._validation

    def _exact_features(self, what: str, stop: StopRequest | None, *, mirror: bool = False) -> Tensor:
        return self._features(self._engines().exact, self.validation, what, stop, mirror=mirror)

    @contextmanager
    def _validating_beside(self, data: LabelledFeatures, stop: StopRequest) -> Iterator[None]:
        """Within it validation features are computed, where the head's fit leaves cores to them."""
        if data.values.numel() > ONE_CORE_NUMBERS:
            yield
            return
        with one_thread_each(), ThreadPoolExecutor(1) as beside:
            features = beside.submit(self._validation_features, stop)
            yield
            features.result()

    def judge_finetuning(self, job: Job, phase: Phase) -> Verdict:
        """Try in short what the last layers gain from three quarters of the training images.

        It is judged on the others. A trial of `phase` itself, of the whole network, takes twice as long.
        """
        self._search(job.stop)
        choice = self.choice(job)
        if choice.folds < 2 and math.isnan(choice.accuracy):
            return Verdict(False, "too few training images to judge fine-tuning: the head alone is kept")
        if choice.accuracy >= SOLVED_ACCURACY:
            return Verdict(
                False,
                f"the head alone is right on {choice.accuracy:.1%} of held-out training images: fine-tuning "
                "has next to nothing to gain and was left out (--method full does it all the same)",
            )
        trial = self._trial(job, phase, choice)
        left = job.budget.deadline - time.monotonic()
        if isinstance(trial, NoTime):
            return without_trial(trial.epoch_seconds, left)
        return verdict(trial, left, epochs=_least_epochs(phase))

    def _search(self, stop: StopRequest) -> None:
        """Know from now on what belongs together; a choice made without that is made again."""
        if self.late_search is None:
            return
        with stop.at_once():
            records = self.late_search().used("train")
        self.late_search = None
        if [record.unit for record in records] != [record.unit for record in self.train.records]:
            self.train = replace(self.train, records=records)
            self._choice = None

    def choice(self, job: Job) -> Choice:
        """The L2 strength of the head, chosen once, on the images as they are."""
        self._choice = self._choice or choose_strength(self._data(job, views=1), seed=job.recipe.seed)
        return self._choice

    def _data(self, job: Job, *, views: int) -> LabelledFeatures:
        """What the head learns from; views that are not there yet are computed."""
        while len(self._views) < views:
            mirror = bool(self._views)
            what = "features of training, mirrored" if mirror else "features of training"
            engines = self._engines()
            engine = engines.quick or engines.exact
            self._views.append(self._features(engine, self.train, what, job.stop, mirror=mirror))
        weights = class_weights(job)
        return LabelledFeatures(
            values=torch.stack(self._views[:views]),
            labels=class_indices(self.train.records, self.classes),
            groups=tuple(record.unit for record in self.train.records),
            classes=len(self.classes),
            weights=None if weights is None else weights.cpu(),
            smoothing=job.recipe.train.label_smoothing,
        )

    def _engines(self) -> Engines:
        self._made = self._made or self.engines()
        return self._made

    def _features(
        self, engine: Engine, images: Images, what: str, stop: StopRequest | None, *, mirror: bool = False
    ) -> Tensor:
        with self.progress(what) as progress:
            return compute_features(
                images, engine, mirror=mirror, threads=self.threads, stop=stop, progress=progress
            )

    def _head_note(self, job: Job, choice: Choice, step: int) -> str:
        if step >= self.head_steps:
            return (
                f"head fitted again, at L2 strength {choice.strength:.2g}, now that near-duplicates are known"
            )
        if step:
            return "head fitted again, with the features of mirror images as well"
        engines = self._engines()
        how = engines.quick_name or engines.exact_name
        images = f"{len(self.train):,} training images, as they are"
        said = f"head fitted on frozen features of {images} ({how})"
        if job.recipe.model.head != "linear":
            return said
        if not choice.folds:
            return f"{said}; L2 strength {choice.strength:.2g}, too few images to choose it"
        return (
            f"{said}; L2 strength {choice.strength:.2g}, chosen inside the training part on held-out images, "
            f"{choice.accuracy:.1%} of which it got right"
        )

    def _trial(self, job: Job, phase: Phase, choice: Choice) -> Trial | NoTime:
        """NoTime when what is left allows no trial, or not enough of the phase after it."""
        data = self._data(job, views=self.head_steps)
        tried, others, judged = _divided_for_trial(data, job.recipe.seed)
        clone = copy.deepcopy(job.classifier)
        head = copy.deepcopy(clone.head).to("cpu")
        fit_head(head, data.subset(others), strength=choice.strength, seed=job.recipe.seed)
        clone.head.load_state_dict(head.state_dict())
        before = head_logits(head, data.values[0, judged])
        trying = replace(job, classifier=clone, train=self.batches(tried))
        step_seconds = self._step_seconds(trying, phase)
        tail = tail_after_fitted_head(job.recipe)
        tail = replace(tail, epochs=_trial_epochs(tail, len(trying.train)))
        epoch_seconds, trial_steps = step_seconds * len(job.train), tail.epochs * len(trying.train)
        left = job.budget.deadline - time.monotonic()
        full_seconds = _least_epochs(phase) * epoch_seconds
        if not _fits(TAIL_STEP_SHARE * step_seconds * trial_steps, full_seconds, left):
            return NoTime(epoch_seconds)
        self._finetune(trying, replace(tail, kept_views=min(TRIAL_VIEWS, tail.kept_views)))
        after = torch.from_numpy(predict_logits(clone, self.evaluation(judged), job.runtime)[0])
        labels = data.labels[judged]
        return Trial(
            head_losses=_losses(before, labels),
            tuned_losses=_losses(after, labels),
            head_right=(before.argmax(1) == labels).numpy(),
            tuned_right=(after.argmax(1) == labels).numpy(),
            epoch_seconds=epoch_seconds,
        )

    def _step_seconds(self, job: Job, phase: Phase) -> float:
        """The least of a few training steps of `phase`, on a copy, in the arithmetic that it will have."""
        job = replace(job, classifier=copy.deepcopy(job.classifier))
        freeze_for(job.classifier, phase)
        least = math.inf
        with choose_arithmetic(job, phase, train_step, epoch=1).applied(job) as timed:
            learner = begin_phase(timed, phase, micro_batch=0)
            set_training_mode(job.classifier, keep_statistics=phase.keep_statistics)
            for step, batch in enumerate(islice(job.train.epoch(1), TIMED_STEPS)):
                job.stop.check()
                began = time.monotonic()
                _step(learner, batch, step)
                least = min(least, time.monotonic() - began)
        return least

    def _finetune(self, job: Job, phase: Phase) -> None:
        """Go through `phase` with the job's classifier, which ends with its averaged weights, if any."""
        freeze_for(job.classifier, phase)
        with kept_activations(job, phase, FitState(), recorded=False) as (learning, _):
            arithmetic = choose_arithmetic(learning, phase, train_step, epoch=1)
            with arithmetic.applied(learning) as tried:
                self._learn(tried, phase)

    def _learn(self, job: Job, phase: Phase) -> None:
        learner = begin_phase(job, phase, micro_batch=0)
        set_training_mode(job.classifier, keep_statistics=phase.keep_statistics)
        step, total = 0, phase.epochs * len(job.train)
        with self.progress("trying fine-tuning") as progress:
            for epoch in range(1, phase.epochs + 1):
                for batch in job.train.epoch(epoch):
                    job.stop.check()
                    _step(learner, batch, step)
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


def _least_epochs(phase: Phase) -> int:
    """Of the whole network, for which there must be time."""
    return min(LEAST_FULL_EPOCHS, phase.epochs)


def _fits(trial_seconds: float, full_seconds: float, seconds_left: float) -> bool:
    """Whether there is time for a trial and for the least of the phase after it."""
    return trial_seconds <= TRIAL_TIME_SHARE * seconds_left and trial_seconds + full_seconds <= seconds_left


def _step(learner: Learner, batch: Batch, step: int) -> None:
    learner.set_rate(learner.rate(step, 1.0))
    train_step(learner, batch, step)
    learner.average.follow(step)


def _losses(logits: Tensor, labels: Tensor) -> NDArray[np.float64]:
    return np.asarray(functional.cross_entropy(logits.double(), labels, reduction="none").numpy())


def verdict(trial: Trial, seconds_left: float, *, epochs: int = LEAST_FULL_EPOCHS) -> Verdict:
    """Fine-tuning is worth its time where the held-out loss or the errors probably fell, and by enough.

    Either will do: a network that is right more often, but too sure of itself, is calibrated afterwards.
    There must be time for so many `epochs` of the whole network, else `without_trial` says what is done.
    """
    told = (
        f"a short trial of fine-tuning the last layers, judged on {len(trial.head_right):,} held-out "
        f"training images: loss {trial.head_losses.mean():.3f} to {trial.tuned_losses.mean():.3f}, accuracy "
        f"{trial.head_right.mean():.1%} to {trial.tuned_right.mean():.1%}"
    )
    less_loss = trial.head_losses - trial.tuned_losses
    more_right = trial.tuned_right.astype(float) - trial.head_right
    least_loss = WORTHWHILE_LOSS_SHARE * trial.head_losses.mean()
    if not (_likely(less_loss, least_loss) or _likely(more_right, WORTHWHILE_ACCURACY)):
        much = less_loss.mean() >= least_loss or more_right.mean() >= WORTHWHILE_ACCURACY
        found = "what is gained may be chance with so few images" if much else "little to gain"
        kept = "so the head alone is kept (--method full fine-tunes all the same)"
        return Verdict(False, f"{told}: {found}, {kept}")
    if epochs * trial.epoch_seconds <= seconds_left:
        return Verdict(True, f"{told}: fine-tuning pays, about {trial.epoch_seconds:.0f} s an epoch")
    shorter = without_trial(trial.epoch_seconds, seconds_left)
    return replace(shorter, reason=f"{told}: fine-tuning would pay, but {shorter.reason}")


def without_trial(epoch_seconds: float, seconds_left: float) -> Verdict:
    """What the time limit allows instead of the whole network: its last layers, or nothing.

    A trial would cost as much as what it decides about, and validation keeps the head where that is better.
    """
    left = max(0.0, seconds_left)
    said = f"an epoch of the whole network takes about {epoch_seconds:.0f} s and {left:.0f} s are left"
    if TAIL_TIME_SHARE * epoch_seconds > seconds_left:
        return Verdict(False, f"{said}: the head alone is kept; give a longer --time-limit")
    return Verdict(
        True,
        f"{said}: its last layers alone are fine-tuned (all of it with a longer --time-limit), and whatever "
        "validates best is kept, the head alone included",
        tail=True,
    )


def _likely(gains: NDArray[np.float64], least: float) -> bool:
    """Whether the mean of paired gains (n,) is at least `least` and more than chance would give."""
    if len(gains) < 2:
        return False
    error = gains.std(ddof=1) / math.sqrt(len(gains))
    return bool(gains.mean() >= least and gains.mean() > LIKELY_STANDARD_ERRORS * error)
