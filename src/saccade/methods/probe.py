"""A linear probe: a head fitted on frozen features, its strength chosen inside the training part."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.errors import TrainingError
from saccade.features import heads
from saccade.features.by_cluster import features_by
from saccade.features.compute import Engine, Engines, Images, compute_features
from saccade.features.heads import ONE_CORE_NUMBERS, Choice, LabelledFeatures, choose_strength, head_logits
from saccade.features.series import find_series
from saccade.features.shared import SharedFeatures
from saccade.models.finetune import frozen_hash
from saccade.models.network import Classifier
from saccade.part_files import Cluster
from saccade.plan import Phase
from saccade.records import EpochRow
from saccade.runtime import one_thread_each
from saccade.terminal import Progress
from saccade.training.job import (
    ALL_EPOCHS,
    TrainingJob,
    TrainingSource,
    end_phase,
    fitted_loss,
    freeze_for,
    noted,
    view,
)
from saccade.training.losses import log_loss_and_accuracy
from saccade.training.monitors import watched
from saccade.training.state import FitState
from saccade.training.stop import StopRequest
from saccade.transforms.batches import Batch, class_targets

SERIES = "series"  # a choice: which training images are kept together, though nobody named them as a group
HELD_OUT = "held out"  # kept like one: what cross-validation said of the first head, for the diagnosis
# Looking for clusters takes some four choices of the strength; under a time limit it may take this share of
# what is left.
CLUSTER_CHOICES, CLUSTER_TIME_SHARE = 4, 0.05


class HeadFigures(NamedTuple):
    """Losses and accuracies of a head that was fitted on frozen features, and what to say about it."""

    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    note: str
    watched: Mapping[str, Any] = MappingProxyType({})


def fit_head(job: TrainingJob, probe: Probe | None, state: FitState) -> FitState:
    """The first phase: the head out of frozen features, each time written down like an epoch.

    A phase that is done already stays as it is. Ends with the best of the heads.
    """
    if state.finished or state.phase:
        return state
    assert probe is not None, "a method that fits a head has frozen features"
    phase = job.plan.phases[0]
    freeze_for(job.classifier, phase)
    state = replace(state, frozen_before=state.frozen_before or frozen_hash(job.classifier))
    while True:
        ending = job.watch.clock.over or job.watch.finish
        if state.phase_epoch == 1 and not ending:  # the first head's figures tell
            probe.keep_held_out(job, state.history[-1])
            state = noted(job, state, probe.find_series(job, state.history[-1]))
        again, done = int(bool(kept_series(job))), state.phase_epoch
        if done >= probe.head_steps + again or (done and ending):
            return end_phase(job, phase, state, ALL_EPOCHS)
        state = _fit_once(job, probe, phase, state, max(0, done - again))


def kept_series(job: TrainingJob) -> tuple[str, ...]:
    """The hidden series of each training image, where such were found; else empty."""
    return tuple((job.checkpoints.choice(SERIES) or {}).get("groups", ()))


def _fit_once(job: TrainingJob, probe: Probe, phase: Phase, state: FitState, step: int) -> FitState:
    """Fit the head, and write it down like an epoch: a row of the history and a checkpoint."""
    found = probe.fit_head(job, step)
    if not math.isfinite(found.validation_loss):
        raise TrainingError(
            "the head fitted on frozen features gives losses that are NaN or infinite: the features of the "
            "backbone are not finite",
            hint="use other weights or another backbone",
        )
    row = EpochRow(
        phase=phase.name,
        epoch=state.epoch + 1,
        lr=phase.learning_rate,
        train_loss=found.train_loss,
        train_accuracy=found.train_accuracy,
        validation_loss=found.validation_loss,
        validation_accuracy=found.validation_accuracy,
        seconds=round(job.watch.clock.elapsed(), 3),
        **found.watched,
    )
    state = noted(job, state.after_epoch(row, steps=0), found.note)
    job.checkpoints.save(state, job.classifier.state_dict(), {}, {})
    job.run.write_history(state.history)
    job.watch.callbacks.on_epoch_end(view(job, phase, state), row)
    return state


@dataclass
class Probe:
    """Frozen features of a run, computed when they are first asked for.

    `batches(indices)` gives augmented batches of some training images, `evaluation(indices)` plain ones.
    `shared`: features of the images of several trainings, where these share a backbone. `cluster` computes
    features in place of this machine, where an exported backbone does.
    """

    train: Images
    validation: Images
    classes: tuple[str, ...]
    engines: Callable[[], Engines]
    mirrored: bool
    batches: Callable[[Sequence[int]], TrainingSource]
    evaluation: Callable[[Sequence[int]], Iterable[Batch]]
    progress: Callable[..., AbstractContextManager[Progress]]  # what is done, and its unit
    threads: int = 1
    shared: SharedFeatures | None = None
    cluster: Cluster | None = None
    _made: Engines | None = None
    _views: list[Tensor] = field(default_factory=list)  # float32 (images, F) each
    _validation: Tensor | None = None
    _choice: Choice | None = None
    _choice_seconds: float = 0.0
    _apart: tuple[str, ...] = ()  # the hidden series that `_choice` was made with

    @property
    def head_steps(self) -> int:
        """A head from the images as they are gives an answer early; then one from mirror images as well."""
        return 2 if self.mirrored else 1

    def fit_head(self, job: TrainingJob, step: int) -> HeadFigures:
        """Fit the classifier's head in place on `step` + 1 views of each image.

        Its figures on validation come from exact features, those on training from what it was fitted on.
        """
        data = self.data(job, views=step + 1)
        head = copy.deepcopy(job.classifier.head).to("cpu")
        with self._validating_beside(data, job.watch.stop):
            choice = self.choice(job)
            heads.fit_head(head, data, strength=choice.strength, seed=job.plan.seed)
        job.classifier.head.load_state_dict(head.state_dict())
        train = log_loss_and_accuracy(head_logits(head, data.values[0]).numpy(), data.labels.numpy())
        answers = self.validation_logits(job.classifier, job.watch.stop)
        return HeadFigures(
            *train,
            *log_loss_and_accuracy(*answers),
            note=self._head_note(job, choice, step),
            watched=watched(job.plan.schedule.monitor, *answers),
        )

    def validation_logits(
        self, classifier: Classifier, stop: StopRequest | None = None
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """The answers (n, classes) on exact validation features, and the labels, (n,) or (n, classes).

        As the classifier gives them: where it flips, the mean of those on the images and on mirror images.
        """
        logits = head_logits(classifier.head, self._validation_features(stop))
        if classifier.flip:
            mirrored = self._exact_features("features of validation, mirrored", stop, mirror=True)
            logits = (logits + head_logits(classifier.head, mirrored)) / 2
        return logits.numpy(), class_targets(self.validation.records, self.classes).numpy()

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

    def choice(self, job: TrainingJob) -> Choice:
        """The L2 penalty of the head, chosen once, on the images as they are."""
        apart = kept_series(job)
        if self._choice is None or apart != self._apart:
            began = time.monotonic()
            self._choice = choose_strength(self.data(job, views=1), seed=job.plan.seed)
            self._choice_seconds, self._apart = time.monotonic() - began, apart
        return self._choice

    def keep_held_out(self, job: TrainingJob, row: EpochRow) -> None:
        """Write down the accuracy of a linear head on held-out training images, beside that on validation."""
        if job.plan.multi_label or job.plan.network.head != "linear" or job.checkpoints.choice(HELD_OUT):
            return
        choice = self.choice(job)
        if choice.folds >= 2:
            images = len(set(self.data(job, views=1).groups))  # what belongs together counts once
            values = {"accuracy": choice.accuracy, "images": images, "validation": row.validation_accuracy}
            job.checkpoints.keep_choice(HELD_OUT, values)

    def find_series(self, job: TrainingJob, row: EpochRow) -> str:
        """What to say of hidden series, "" where there are none or the user named groups.

        `row` has the figures of a head that was chosen without them. What is found is written down.
        """
        if job.plan.multi_label or any(record.group for record in self.train.records):
            return ""  # with several labels an image, no class says where series would have to lie
        if not job.checkpoints.choice(SERIES):
            allowed = CLUSTER_TIME_SHARE * job.watch.clock.seconds_left
            found = find_series(
                self.data(job, views=1),
                [record.path for record in self.train.records],
                self.choice(job),
                validation_accuracy=row.validation_accuracy,
                validation_images=len(self.validation),
                seed=job.plan.seed,
                by_clusters=CLUSTER_CHOICES * self._choice_seconds <= allowed,
            )
            if found is None:
                return ""
            job.checkpoints.keep_choice(SERIES, asdict(found) | {"words": found.words})
        return str((job.checkpoints.choice(SERIES) or {})["words"])

    def data(self, job: TrainingJob, *, views: int) -> LabelledFeatures:
        """What the head learns from; views that are not there yet are computed."""
        while len(self._views) < views:
            mirror = bool(self._views)
            what = "features of training, mirrored" if mirror else "features of training"
            engines = self._engines()
            engine = engines.quick or engines.exact
            self._views.append(self._features(engine, self.train, what, job.watch.stop, mirror=mirror))
        return LabelledFeatures(
            values=torch.stack(self._views[:views]),
            labels=class_targets(self.train.records, self.classes),
            groups=kept_series(job) or tuple(record.unit for record in self.train.records),
            classes=len(self.classes),
            loss=fitted_loss(job),
        )

    def _engines(self) -> Engines:
        self._made = self._made or self.engines()
        return self._made

    def _features(
        self, engine: Engine, images: Images, what: str, stop: StopRequest | None, *, mirror: bool = False
    ) -> Tensor:
        def compute(images: Images) -> Tensor:
            with self.progress(what) as progress:
                if self.cluster and self._engines().network:
                    return features_by(
                        self.cluster,
                        images,
                        self._engines().network,
                        quick=engine is self._engines().quick,
                        mirror=mirror,
                        stop=stop,
                        progress=progress,
                    )
                return compute_features(
                    images, engine, mirror=mirror, threads=self.threads, stop=stop, progress=progress
                )

        return self.shared.of(images, compute, mirror=mirror) if self.shared else compute(images)

    def _head_note(self, job: TrainingJob, choice: Choice, step: int) -> str:
        if step:
            return "head fitted again, now with the features of mirror images too"
        engines = self._engines()
        how = engines.quick_name or engines.exact_name
        images = f"{len(self.train):,} training images without augmentation"
        said = f"head fitted on frozen features of {images} ({how})"
        if job.plan.network.head != "linear":
            return said
        if not choice.folds:
            return f"{said}; L2 penalty {choice.strength:.2g}, too few images to choose it"
        apart = " that holds out whole series" * bool(kept_series(job))
        return (
            f"{said}; L2 penalty {choice.strength:.2g}, chosen by cross-validation{apart} on training "
            f"images, {choice.accuracy:.1%} {'exact match' if job.plan.multi_label else 'accuracy'}"
        )
