"""What the views need of a run folder: figures, answers, pictures."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.errors import DataError, SourceError
from saccade.images.decoder import Limits, read_pixels
from saccade.images.rendering import as_rgb
from saccade.label_sets import split_labels
from saccade.preprocess import RGB
from saccade.recipe import SHORT_FLAGS, Recipe, differing_keys
from saccade.records import Dataset, EpochRow, ImageRecord, Metrics, Predictions
from saccade.run_folder import RunFolder
from saccade.sources.in_python import is_inputs, root_of_inputs
from saccade.sources.lists import folder_of_paths

if TYPE_CHECKING:
    from saccade.notebook.plots import Tile
    from saccade.transforms import Augmentation

JUDGED_FIRST = ("test", "validation", "folds", "train")


def metrics(run: RunFolder) -> dict[str, Any]:
    """Content of `metrics/*.json` by part, the judged one first."""
    return {part: run.read_metrics(part) for part in JUDGED_FIRST if run.has(run.metrics(part))}


def history(run: RunFolder) -> list[dict[str, Any]]:
    """A row an epoch; of a cross-validation those of its folds, one after the other."""
    return [dataclasses.asdict(row) for row in _epochs(run)]


def _epochs(run: RunFolder) -> list[EpochRow]:
    folds = range(1, run.read_record().folds.get("models", 0) + 1)
    if not folds:
        return run.read_history()
    rows = ((number, row) for number in folds for row in run.fold(number).read_history())
    return [dataclasses.replace(row, phase=f"fold {number} {row.phase}") for number, row in rows]


def mistakes(run: RunFolder) -> list[dict[str, Any]]:
    """Wrong answers on the judged part, the most confident first."""
    _, answers = judged(run)
    folder = _folder_of_images(run)
    if answers.named is not None:
        return [
            {
                "path": _file(folder, answers.paths[row]),
                "label": list(split_labels(answers.labels[row])),
                "predicted": list(split_labels(answers.predicted[row])),
            }
            for row in answers.wrong
        ]
    return [
        {
            "path": _file(folder, answers.paths[row]),
            "label": answers.labels[row],
            "predicted": answers.predicted[row],
            "confidence": float(answers.confidence[row]),
        }
        for row in answers.wrong
    ]


def _folder_of_images(run: RunFolder) -> Path:
    """Where the paths of a run begin, told without listing the images again."""
    location = Path(run.read_record().data)
    if is_inputs(location):
        return root_of_inputs(location)
    if location.is_dir():
        return location
    try:
        return folder_of_paths(location, run.read_recipe().data.root)
    except SourceError:  # it is gone; then paths are named as they are
        return location.parent


def _file(folder: Path, path: str) -> str:
    """The whole path of an image; only its name where it is no file, as in an archive."""
    whole = os.path.normpath(folder.absolute() / path)
    return whole if os.path.isfile(whole) else path


def from_here(path: str) -> str:
    """A path below the current folder without that folder's name."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)


def record(run: RunFolder) -> dict[str, Any]:
    """Of `environment.json` what cards and figures show, nothing of the machine."""
    stored = run.read_record().as_json()
    return {name: stored[name] for name in ("classes", "resolved", "diagnosis", "promises") if name in stored}


def settings(run: RunFolder) -> dict[str, Any]:
    """Arguments of an ImageClassifier that are not what its backbone and method have anyway."""
    recipe = run.read_recipe()
    chosen = {"model.backbone": recipe.model.backbone, "train.method": recipe.train.method}
    usual = Recipe.from_mapping(chosen)
    given = {key: values[1] for key, values in differing_keys(usual, recipe).items()}
    default = Recipe().flat()
    given = {key: value for key, value in chosen.items() if value != default[key]} | given
    short = {field: name.replace("-", "_") for name, field in SHORT_FLAGS.items()}
    return {short.get(key, key.replace(".", "__")): value for key, value in given.items()}


# What a run tells without its images, as plain values: small enough to travel in a pickle.
TOLD: dict[str, Callable[[RunFolder], Any]] = {
    "metrics": metrics,
    "history": history,
    "mistakes": mistakes,
    "record": record,
    "settings": settings,
}


def plain_figures(figures: Metrics) -> dict[str, float]:
    """Numbers with a name, as a table wants them."""
    several = {
        name: value
        for name in ("mean_average_precision", "micro_f1")
        if (value := getattr(figures, name)) is not None
    }
    return {
        **several,
        "images": figures.images,
        "accuracy": figures.accuracy.value,
        "accuracy_low": figures.accuracy.low,
        "accuracy_high": figures.accuracy.high,
        "balanced_accuracy": figures.balanced_accuracy,
        "macro_f1": figures.macro_f1,
        "log_loss": figures.log_loss,
        "ece": figures.ece,
    }


def judged(run: RunFolder) -> tuple[str, Predictions]:
    """The judged part and its answers."""
    part = next((part for part in JUDGED_FIRST if run.has(run.predictions(part))), "validation")
    return part, run.read_predictions(part)


def data_of(run: RunFolder) -> Dataset:
    """The run's images where they lie now; raises DataError where they are gone."""
    from saccade.sources import load_source

    read_npy = run.read_recipe().data.channels != RGB.channels
    listed = load_source(run.read_record().data, drop_empty=True, min_classes=1, read_npy=read_npy)
    return listed.with_records(run.read_dataset())


def training_tiles(run: RunFolder, images: int) -> Iterator[Tile]:
    """The first images of the first epoch, augmented as they were; raises DataError where they are gone."""
    from saccade.notebook.plots import Tile, short
    from saccade.preprocess import Preprocess
    from saccade.transforms import training_batches
    from saccade.transforms.apply import pictures

    dataset, recipe, stored = data_of(run), run.read_recipe(), run.read_record()
    preprocess = Preprocess.from_json(stored.resolved["data.preprocess"])
    batches = training_batches(
        dataset.storage,
        dataset.used("train"),
        stored.classes,
        preprocess,
        images,
        augmentation=augmentation_of(stored.resolved, _epochs(run)),
        seed=recipe.seed,
        epoch=0,
        limits=Limits.of(recipe.data, preprocess.pixels),
    )
    batch = next(batches)
    tiles = pictures(batch.images[:images], preprocess)
    for pixels, target in zip(tiles, batch.targets, strict=False):
        held = np.flatnonzero(target.numpy()) if target.ndim else [int(target)]
        yield Tile(pixels, ", ".join(short(stored.classes[column]) for column in held))


def augmentation_of(resolved: Mapping[str, Any], rows: Sequence[EpochRow]) -> Augmentation:
    """As it was in training; a head fitted on frozen features saw no more than images and their mirrors."""
    from saccade.evaluation.remedies import fitted
    from saccade.transforms import Augmentation

    augmentation = Augmentation.from_json(resolved["augment"])
    if not fitted(rows):
        return augmentation
    return Augmentation(horizontal_flip=0.5 if augmentation.mirrors else 0.0)


def mistaken_tiles(run: RunFolder, answers: Predictions, rows: Sequence[int]) -> Iterator[Tile]:
    """Pictures of these answers; one that is gone or has changed is a text in its place."""
    from saccade.notebook.plots import Tile, short

    records = {record.path: record for record in run.read_dataset()}
    limits = Limits.of(run.read_recipe().data)
    dataset = _data_if_there(run)
    for row in rows:
        pixels = None if dataset is None else _pixels(dataset, records[answers.paths[row]], limits)
        label, answer = short(answers.labels[row]), short(answers.predicted[row])
        if answers.named is not None:
            yield Tile(pixels, f"{label or 'no label'}\nnamed {answer or 'nothing'}")
            continue
        yield Tile(pixels, f"{label}\ntaken for {answer}\n{answers.confidence[row]:.0%} sure")


def _data_if_there(run: RunFolder) -> Dataset | None:
    try:
        return data_of(run)
    except DataError:
        return None


def _pixels(dataset: Dataset, record: ImageRecord, limits: Limits) -> NDArray[np.uint8] | None:
    try:
        return as_rgb(read_pixels(dataset.storage, record, limits))
    except DataError:
        return None
