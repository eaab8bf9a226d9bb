"""The network of a run: built from the recipe, fitted on the training part, kept as a bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.building import build_network
from saccade.bundle import Bundle, save_bundle
from saccade.caches.pixels import PixelCache
from saccade.caches.store import cache_folder
from saccade.errors import ModelError
from saccade.evaluation.calibration import Temperature, choose_temperature
from saccade.features.compute import Engines, Images
from saccade.features.engines import engines_of
from saccade.images.decoder import Limits
from saccade.methods.transfer import FastTransfer
from saccade.models import BuiltModel
from saccade.pipeline.division import LateSearch
from saccade.pipeline.ready import Ready
from saccade.preprocess import Preprocess
from saccade.recipe import Recipe
from saccade.records import Dataset, EpochRow, ImageRecord
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime, imitates_bfloat16
from saccade.terminal import Terminal
from saccade.threads import memory_bytes, usable_cores
from saccade.training import (
    Callback,
    FitResult,
    StopRequest,
    TerminalProgress,
    TrainingView,
    fit,
    predict_logits,
)
from saccade.training.job import TrainingSource
from saccade.training.phases import finetune_rate, plan_phases
from saccade.training.stop import stop_on_signals
from saccade.transforms import Augmentation, Batch, TrainingBatches, evaluation_batches
from saccade.transforms.batches import Say, warned
from saccade.transforms.memory import MemoryBatches, fits_in_memory

# What comes after training, as a slow core needs it: the time limit is for the whole command.
EXPORT_AND_REPORT_SECONDS = 15.0
JUDGING_SECONDS_AN_IMAGE = 0.04
SMALLEST_JUDGING_SHARE = 0.05  # of these seconds, for the smallest images: 1.3 ms each were measured
USUAL_SIDE = 224
WEIGHTS_SHA256 = "model.weights_sha256"  # among what every "auto" became


def resolved_values(network: BuiltModel, recipe: Recipe) -> dict[str, Any]:
    """What every "auto" of the recipe became."""
    phases = plan_phases(recipe, pretrained=network.pretrained, can_solve=network.pretrained)
    return {
        "data.preprocess": network.preprocess.as_json(),
        "model.backbone": recipe.model.backbone,
        "model.weights": recipe.model.weights,
        WEIGHTS_SHA256: network.weights_sha256,
        "model.architecture": dict(network.architecture),
        "model.pretrained": network.pretrained,
        "model.notes": list(network.notes),
        "train.epochs": recipe.epochs,
        "train.lr": recipe.learning_rate,
        "train.finetune_lr": finetune_rate(recipe),
        "train.batch_size": recipe.batch_size,
        "train.ema_decay": phases[-1].ema_decay,
        "train.workers": worker_count(recipe),
        "augment": Augmentation.from_config(recipe.augment).as_json(),
    }


def worker_count(recipe: Recipe) -> int:
    """Processes that decode images: none on four cores or fewer, where they would only fight."""
    if recipe.train.workers != "auto":
        return recipe.train.workers
    cores = usable_cores()
    return 0 if cores <= 4 else min(8, cores - 2)


def fit_network(
    run: RunFolder,
    dataset: Dataset,
    recipe: Recipe,
    terminal: Terminal,
    began: float,
    ready: Ready | None = None,
    late_search: LateSearch | None = None,
) -> None:
    """Train (or continue), fit the temperature on the validation part, and write the bundle."""
    pixels = pixel_cache(recipe, terminal)
    with contextlib.closing(pixels) if pixels else contextlib.nullcontext():
        _fit_network(run, dataset, recipe, terminal, began, ready, late_search, pixels)


def _fit_network(
    run: RunFolder,
    dataset: Dataset,
    recipe: Recipe,
    terminal: Terminal,
    began: float,
    ready: Ready | None,
    late_search: LateSearch | None,
    pixels: PixelCache | None,
) -> None:
    runtime = ready.runtime if ready else Runtime.create(recipe.device, recipe.precision)
    made = ready.network_for(dataset) if ready else None
    network = made or build_network(dataset, recipe)
    _refuse_other_weights(run, network, recipe)
    engines = ready.engines if ready and made else None
    _say_network(network, runtime, terminal)
    strength = Augmentation.from_config(recipe.augment)
    say = noted(terminal)
    validation = ValidationBatches(dataset, network.preprocess, recipe, say)
    transfer = None
    if network.pretrained:
        transfer = fast_transfer(
            dataset,
            recipe,
            terminal,
            network.preprocess,
            lambda: engines or engines_of(network, runtime),
            pixels,
            late_search,
        )
    late = without_time(dataset, recipe, began, side=network.preprocess.size)
    if late:
        terminal.say(f"          {late}")
    with stop_on_signals() as stop:
        result = fit(
            network.module,
            train=training_batches(
                dataset, network.preprocess, recipe, device=runtime.device, pixels=pixels, say=say
            ),
            validation=lambda: validation,
            validation_images=len(dataset.used("validation")),
            class_counts=dataset.counts("train"),
            recipe=recipe,
            pretrained=network.pretrained,
            transfer=transfer,
            runtime=runtime,
            run=run,
            mix_up=strength.mix_up,
            cut_mix=strength.cut_mix,
            callbacks=watchers(run, terminal, stop, None if transfer else late_search),
            stop=stop,
            deadline=deadline(dataset, recipe, began, side=network.preprocess.size),
            started=began,
        )
    for note in result.notes:
        terminal.say(f"          {note}")
    network.module.flip = recipe.evaluate.flip
    known = late_search.dataset() if late_search and recipe.evaluate.calibrate else dataset
    solved = transfer if result.head_alone else None
    temperature = _calibrated(network, validation, solved, runtime, recipe, known)
    if temperature.note:
        terminal.say(f"          {temperature.note}")
    save_bundle(_bundle(network, dataset, result, temperature, late), run.bundle, write=run.write)


def _calibrated(
    network: BuiltModel,
    validation: ValidationBatches,
    solved: FastTransfer | None,
    runtime: Runtime,
    recipe: Recipe,
    dataset: Dataset,
) -> Temperature:
    """The temperature that the validation part asks for; 1 where the recipe wants none."""
    if not recipe.evaluate.calibrate:
        return Temperature(1.0)
    groups = [record.unit for record in dataset.used("validation")]
    return choose_temperature(*_validation_logits(network, validation, solved, runtime), groups=groups)


def _refuse_other_weights(run: RunFolder, network: BuiltModel, recipe: Recipe) -> None:
    """Raise ModelError where the weights file was replaced since the run began."""
    began_with = run.read_environment()["resolved"].get(WEIGHTS_SHA256, network.weights_sha256)
    if began_with != network.weights_sha256:
        raise ModelError(
            f"--weights {recipe.model.weights} holds other bytes than when {run.root} began (SHA-256 "
            f"{network.weights_sha256[:12]}, not {began_with[:12]}); put that file back, or train with this "
            "one in a new folder (--out)"
        )


def deadline(dataset: Dataset, recipe: Recipe, began: float, *, side: int = USUAL_SIDE) -> float | None:
    """When training must end (monotonic seconds) for judging, export and report to fit into the limit too.

    `side` of the input in pixels: small images are judged sooner.
    """
    limit = recipe.train.time_limit
    if not limit:
        return None
    judged = 2 * len(dataset.used("validation")) + len(
        dataset.used("test")
    )  # once each, and the training sample
    share = min(1.0, max(SMALLEST_JUDGING_SHARE, (side / USUAL_SIDE) ** 2))
    reserve = EXPORT_AND_REPORT_SECONDS + judged * share * JUDGING_SECONDS_AN_IMAGE
    return began + limit - min(reserve, limit / 2)


def without_time(dataset: Dataset, recipe: Recipe, began: float, *, side: int) -> str:
    """Where no time is left to train as training begins: by how much, and what is done all the same."""
    limit, end = recipe.train.time_limit, deadline(dataset, recipe, began, side=side)
    now = time.monotonic()
    if end is None or now < end:
        return ""
    left = began + limit - now
    when = (
        f"--time-limit {limit:g} s was over {-left:.1f} s before training began"
        if left <= 0
        else f"of --time-limit {limit:g} s only {left:.1f} s were left, which judging and export need"
    )
    return f"{when}: the least that gives a model is trained all the same; give a longer limit"


def _say_network(network: BuiltModel, runtime: Runtime, terminal: Terminal) -> None:
    parameters = sum(parameter.numel() for parameter in network.module.parameters())
    start = "pretrained" if network.pretrained else "from scratch"
    size = network.preprocess.size
    terminal.say(
        f"Model     {network.architecture['backbone']}, {start}, {parameters:,} parameters, "
        f"{size} x {size} pixels, on {runtime.device} in {runtime.precision}"
    )
    for note in network.notes:
        terminal.say(f"          {note}")
    if imitates_bfloat16(runtime):
        terminal.warn(
            "this processor has no instructions for bfloat16 and emulates it, about 20 times slower",
            hint="leave --precision at auto, or use float32",
        )


def fast_transfer(
    dataset: Dataset,
    recipe: Recipe,
    terminal: Terminal,
    preprocess: Preprocess,
    engines: Callable[[], Engines],
    pixels: PixelCache | None = None,
    late_search: LateSearch | None = None,
) -> FastTransfer:
    """Frozen features of both parts, and batches of some training images for a trial of fine-tuning.

    `engines` is asked once, while the backbone is untouched; `late_search`, if any, after the first heads.
    """
    train, limits = dataset.used("train"), Limits.of(recipe.data)

    def images(part: str, *, exact: bool) -> Images:
        return Images(dataset.storage, dataset.used(part), preprocess, limits, exact, pixels)

    def chosen(indices: Sequence[int]) -> tuple[ImageRecord, ...]:
        return tuple(train[index] for index in indices)

    return FastTransfer(
        train=images("train", exact=False),
        validation=images("validation", exact=True),
        classes=dataset.classes,
        engines=engines,
        mirrored=Augmentation.from_config(recipe.augment).horizontal_flip > 0,
        batches=lambda indices: training_batches(
            dataset, preprocess, recipe, chosen(indices), pixels=pixels, say=noted(terminal)
        ),
        evaluation=lambda indices: evaluation_batches(
            dataset.storage,
            chosen(indices),
            dataset.classes,
            preprocess,
            recipe.batch_size,
            limits=limits,
        ),
        progress=terminal.progress,
        threads=usable_cores(),
        late_search=late_search.dataset if late_search else None,
    )


def training_batches(
    dataset: Dataset,
    preprocess: Preprocess,
    recipe: Recipe,
    records: tuple[ImageRecord, ...] = (),
    *,
    device: torch.device | str = "cpu",
    pixels: PixelCache | None = None,
    say: Say = warned,
) -> TrainingSource:
    """Augmented batches of the training part (or of some `records` of it), epoch by epoch.

    Small images come augmented from memory on `device`, where the recipe lets them be kept; others are kept
    in `pixels` on disk, where given.
    """
    records = records or dataset.used("train")
    augmentation = Augmentation.from_config(recipe.augment)
    if recipe.train.cache_images and fits_in_memory(len(records), preprocess, augmentation):
        return MemoryBatches(
            dataset.storage,
            records,
            dataset.classes,
            preprocess,
            recipe.batch_size,
            augmentation=augmentation,
            seed=recipe.seed,
            limits=Limits.of(recipe.data),
            device=device,
            threads=usable_cores(),
        )
    return TrainingBatches(
        dataset.storage,
        records,
        dataset.classes,
        preprocess,
        recipe.batch_size,
        augmentation=augmentation,
        seed=recipe.seed,
        limits=Limits.of(recipe.data),
        workers=worker_count(recipe),
        cache_bytes=memory_bytes() // 4 if recipe.train.cache_images else 0,
        pixels=pixels,
        say=say,
    )


def noted(terminal: Terminal) -> Say:
    """Says each text once, as a line below the one before."""
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            terminal.say(f"          {text}")
        said.add(text)

    return say


def pixel_cache(recipe: Recipe, terminal: Terminal) -> PixelCache | None:
    """Decoded training images on disk, shared by all runs of this user; None where the recipe wants none."""
    max_bytes = int(recipe.data.cache_gb * 1e9)
    if not (max_bytes and recipe.train.cache_images):
        return None
    return PixelCache(cache_folder() / "pixels", max_bytes, say=noted(terminal))


class ValidationBatches:
    """The validation part by the evaluation path, kept in memory where small: every epoch asks again."""

    def __init__(self, dataset: Dataset, preprocess: Preprocess, recipe: Recipe, say: Say = warned) -> None:
        self._dataset, self._preprocess, self._recipe, self._say = dataset, preprocess, recipe, say
        self._records = dataset.used("validation")
        size_bytes = len(self._records) * 3 * 4 * preprocess.size**2
        self._keeps = recipe.train.cache_images and size_bytes <= memory_bytes() // 8
        self._kept: list[Batch] = []

    def __len__(self) -> int:
        return -(-len(self._records) // self._recipe.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if len(self._kept) == len(self):
            yield from self._kept
            return
        self._kept = []
        for batch in evaluation_batches(
            self._dataset.storage,
            self._records,
            self._dataset.classes,
            self._preprocess,
            self._recipe.batch_size,
            limits=Limits.of(self._recipe.data),
            workers=worker_count(self._recipe),
            say=self._say,
        ):
            if self._keeps:
                self._kept.append(batch)
            yield batch


def watchers(
    run: RunFolder, terminal: Terminal, stop: StopRequest, late_search: LateSearch | None
) -> tuple[Callback, ...]:
    """Who looks on while epochs are learnt; a search that a run was stopped before is made up for at once."""
    seen = TerminalProgress(terminal)
    if late_search is None:
        return (seen,)
    if run.history.exists():  # the first epoch is done
        with stop.at_once():
            late_search.dataset()
    return seen, SearchAfterFirstEpoch(late_search, stop)


class SearchAfterFirstEpoch(Callback):
    """The search for near-duplicates for which the first epoch did not wait."""

    def __init__(self, search: LateSearch, stop: StopRequest) -> None:
        self._search, self._stop = search, stop

    def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
        with self._stop.at_once():
            self._search.dataset()


def _validation_logits(
    network: BuiltModel, validation: ValidationBatches, transfer: FastTransfer | None, runtime: Runtime
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Answers and labels; where only a head was fitted, by the engine of its features (`transfer`)."""
    if transfer:
        return transfer.validation_logits(network.module)
    return predict_logits(network.module, validation, runtime)[:2]


def _bundle(
    network: BuiltModel, dataset: Dataset, result: FitResult, temperature: Temperature, late: str
) -> Bundle:
    training = {
        "stopped": result.stopped,
        "best": dataclasses.asdict(result.best),
        "frozen": [dataclasses.asdict(evidence) for evidence in result.frozen],
        "frozen_in_bundle": result.frozen_at_end,
        "continued": [dataclasses.asdict(entry) for entry in result.continued],
        "finetune_ratio": result.finetune_ratio,
        "weights_sha256": result.weights_sha256,
        "notes": [*network.notes, *filter(None, (late, *result.notes, temperature.note))],
    }
    return Bundle(
        module=network.module,
        classes=dataset.classes,
        preprocess=network.preprocess,
        architecture=network.architecture,
        temperature=temperature.value,
        data_fingerprint=dataset.fingerprint(),
        training=training,
    )
