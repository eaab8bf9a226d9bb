"""Where training and validation get their images: batches and frozen features, as the plan has them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import torch

from saccade.caches.bound import room_for
from saccade.caches.pixels import PixelCache
from saccade.caches.store import cache_folder
from saccade.features.compute import Engines, Images
from saccade.features.shared import SharedFeatures
from saccade.methods.probe import Probe
from saccade.part_files import Cluster
from saccade.plan import Plan
from saccade.records import Dataset, ImageRecord
from saccade.terminal import Terminal
from saccade.threads import memory_bytes, usable_cores
from saccade.training.job import TrainingData, TrainingSource
from saccade.transforms import Batch, TrainingBatches, evaluation_batches
from saccade.transforms.batches import Say, warned
from saccade.transforms.memory import MemoryBatches, fits_in_memory


def training_batches(
    dataset: Dataset,
    plan: Plan,
    records: tuple[ImageRecord, ...] = (),
    *,
    device: torch.device | str = "cpu",
    pixels: PixelCache | None = None,
    say: Say = warned,
    processes: int = 1,
) -> TrainingSource:
    """Augmented batches of the training part (or of some `records` of it), epoch by epoch.

    Small images come augmented from memory on `device`, where the plan lets them be kept; others are kept
    in `pixels` on disk, where given.
    `processes`: how many share the memory of this machine.
    """
    inputs, records = plan.inputs, records or dataset.used("train")
    if inputs.cache_images and fits_in_memory(len(records), inputs.preprocess, inputs.augmentation):
        return MemoryBatches(
            dataset.storage,
            records,
            dataset.classes,
            inputs.preprocess,
            plan.images_a_step,
            augmentation=inputs.augmentation,
            seed=plan.seed,
            sampling=plan.sampling,
            limits=inputs.limits,
            device=device,
            threads=usable_cores(),
        )
    return TrainingBatches(
        dataset.storage,
        records,
        dataset.classes,
        inputs.preprocess,
        plan.images_a_step,
        augmentation=inputs.augmentation,
        seed=plan.seed,
        sampling=plan.sampling,
        limits=inputs.limits,
        workers=inputs.workers,
        cache_bytes=memory_bytes() // (4 * processes) if inputs.cache_images else 0,
        pixels=pixels,
        say=say,
    )


def training_data(
    dataset: Dataset,
    plan: Plan,
    validation: ValidationBatches,
    device: torch.device,
    pixels: PixelCache | None,
    terminal: Terminal,
    processes: int = 1,
) -> TrainingData:
    """What a training of the run learns from and is validated on."""
    say = noted(terminal)

    @functools.cache
    def share(number: int, count: int) -> ValidationBatches:
        return ValidationBatches(dataset, plan, say, turn=(number, count))

    return TrainingData(
        train=training_batches(dataset, plan, device=device, pixels=pixels, say=say, processes=processes),
        validation=lambda: validation,
        class_counts=dataset.counts("train"),
        validation_images=len(dataset.used("validation")),
        training_images=len(dataset.used("train")),
        validation_share=lambda number, count: share(number, count),
    )


class ValidationBatches:
    """The validation part by the evaluation path, kept in memory where small: every epoch asks again.

    `turn` (number, count): only each `count`th batch from `number` on, as it would be among all. `indices`
    are its images among those of the part.
    """

    def __init__(
        self, dataset: Dataset, plan: Plan, say: Say = warned, *, turn: tuple[int, int] = (0, 1)
    ) -> None:
        self._dataset, self._plan, self._inputs, self._say = dataset, plan, plan.inputs, say
        (number, count), size, whole = turn, plan.batch_size, dataset.used("validation")
        starts = range(number * size, len(whole), count * size)
        self.indices = [i for start in starts for i in range(start, min(start + size, len(whole)))]
        self._records = tuple(whole[index] for index in self.indices)
        preprocess = plan.inputs.preprocess
        size_bytes = len(self._records) * preprocess.pixels.count * 4 * preprocess.size**2
        self._keeps = plan.inputs.cache_images and size_bytes <= memory_bytes() // 8
        self._kept: list[Batch] = []

    def __len__(self) -> int:
        return -(-len(self._records) // self._plan.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if len(self._kept) == len(self):
            yield from self._kept
            return
        self._kept = []
        for batch in evaluation_batches(
            self._dataset.storage,
            self._records,
            self._dataset.classes,
            self._inputs.preprocess,
            self._plan.batch_size,
            limits=self._inputs.limits,
            workers=self._inputs.workers,
            say=self._say,
        ):
            if self._keeps:
                self._kept.append(batch)
            yield batch


def make_probe(
    dataset: Dataset,
    plan: Plan,
    terminal: Terminal,
    engines: Callable[[], Engines],
    pixels: PixelCache | None = None,
    shared: SharedFeatures | None = None,
    cluster: Cluster | None = None,
) -> Probe:
    """Frozen features of both parts, and batches of some training images for a trial of fine-tuning.

    `engines` is asked once, while the backbone is untouched; `shared` has features of several trainings;
    `cluster` computes them, where there is one.
    """
    inputs, train = plan.inputs, dataset.used("train")

    def images(part: str, *, exact: bool) -> Images:
        return Images(dataset.storage, dataset.used(part), inputs.preprocess, inputs.limits, exact, pixels)

    def chosen(indices: Sequence[int]) -> tuple[ImageRecord, ...]:
        return tuple(train[index] for index in indices)

    return Probe(
        train=images("train", exact=False),
        validation=images("validation", exact=True),
        classes=dataset.classes,
        engines=engines,
        mirrored=inputs.augmentation.mirrors,
        batches=lambda indices: training_batches(
            dataset, plan, chosen(indices), pixels=pixels, say=noted(terminal)
        ),
        evaluation=lambda indices: evaluation_batches(
            dataset.storage,
            chosen(indices),
            dataset.classes,
            inputs.preprocess,
            plan.batch_size,
            limits=inputs.limits,
        ),
        progress=terminal.progress,
        threads=usable_cores(),
        shared=shared,
        cluster=cluster,
    )


def noted(terminal: Terminal) -> Say:
    """Says each text once, as a line below the one before."""
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            terminal.say(f"          {text}")
        said.add(text)

    return say


@contextlib.contextmanager
def pixel_cache(plan: Plan, terminal: Terminal) -> Iterator[PixelCache | None]:
    """Decoded training images on disk, shared by all runs of this user; None where none is wanted."""
    inputs = plan.inputs
    if not (inputs.cache_bytes and inputs.cache_images):
        yield None
        return
    with contextlib.closing(
        PixelCache(cache_folder() / "pixels", inputs.cache_bytes, say=noted(terminal), room=room_for)
    ) as cache:
        yield cache
