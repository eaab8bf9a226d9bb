"""`--backbone auto`: the backbones at hand, timed on one core and scored inside the training part.

Score: a regularised head on frozen features of some training images, judged on the images that each fold of
a group-aware cross-validation holds out. No validation or test image is looked at.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.building import build_network, refuse_muon_on_pretrained
from saccade.bundle import Bundle
from saccade.errors import DataError, ModelError, RunError
from saccade.export.bench import median_latencies
from saccade.features.compute import Images, compute_features
from saccade.features.engines import engines_of
from saccade.features.heads import FOLDS, LabelledFeatures, choose_strength
from saccade.images.decoder import Limits
from saccade.preprocess import RGB
from saccade.recipe import AUTO_BACKBONE, DEFAULT_BACKBONE, Recipe
from saccade.records import Dataset, ImageRecord
from saccade.runtime import Runtime, draw_seed
from saccade.selection.at_hand import Candidate, weights_at_hand
from saccade.terminal import Progress, Terminal
from saccade.threads import usable_cores
from saccade.training.stop import StopRequest, stop_on_signals
from saccade.transforms.batches import class_targets

SCORED_IMAGES, LEAST_OF_A_CLASS, MOST_CLASSES = 600, FOLDS, 120
SAME_SPEED = 1.2  # a smaller ratio of two latencies is noise
TIME_SHARE = 0.3  # of a time limit, after which no further backbone is scored


@dataclass(frozen=True, slots=True)
class Timed:
    """A candidate as it would be shipped: `latency_ms` of one photo on one core, `megabytes` of its file."""

    candidate: Candidate
    parameters: int
    image_size: int
    megabytes: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Scored:
    """A timed candidate; `losses` and `right` (images,) of held-out images, empty where it was not scored."""

    timed: Timed
    losses: NDArray[np.float64]
    right: NDArray[np.float64]
    note: str = ""

    @property
    def name(self) -> str:
        return self.timed.candidate.label

    @property
    def loss(self) -> float:
        return float(self.losses.mean()) if len(self.losses) else math.nan

    @property
    def accuracy(self) -> float:
        return float(self.right.mean()) if len(self.right) else math.nan

    @property
    def accuracy_error(self) -> float:
        """Standard error of the accuracy."""
        return standard_error(self.right)

    def as_json(self) -> dict[str, Any]:
        scored = len(self.losses) > 0
        return {
            "name": self.name,
            "backbone": self.timed.candidate.backbone,
            "weights": self.timed.candidate.weights,
            "accuracy": self.accuracy if scored else None,
            "accuracy_error": self.accuracy_error if scored else None,
            "log_loss": self.loss if scored else None,
            "latency_ms": round(self.timed.latency_ms, 3),
            "image_size": self.timed.image_size,
            "parameters": self.timed.parameters,
            "megabytes": round(self.timed.megabytes, 3),
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Field:
    """Every candidate that could be built, and in words what was left out."""

    rows: tuple[Timed, ...]
    left_out: tuple[str, ...]


# -- the recipe of a run that chose ----------------------------------------------------------------


def with_candidate(recipe: Recipe, candidate: Candidate) -> Recipe:
    """The recipe as if this backbone and these weights had been named."""
    limit = 0.0 if recipe.evaluate.size == "same" else recipe.model.max_latency_ms
    return recipe.replaced(
        model__backbone=candidate.backbone, model__weights=candidate.weights, model__max_latency_ms=limit
    )


def settled(recipe: Recipe, choice: Mapping[str, Any]) -> Recipe:
    """The recipe with what `choose_backbone` came to in place of "auto"; any other recipe as it is.

    `choice` is what stands in `environment.json`, so that a run that continues does not choose again.
    """
    if recipe.model.backbone != AUTO_BACKBONE:
        return recipe
    if not choice:
        raise RunError(
            "the choice of the backbone is missing from environment.json",
            hint="train in a new folder (--out)",
        )
    return with_candidate(recipe, Candidate(choice["backbone"], choice["weights"]))


# -- timing: before any image is read --------------------------------------------------------------


def time_backbones(listed: Dataset, recipe: Recipe, terminal: Terminal) -> Field:
    """Build, export and time every candidate; raises ModelError where none is at hand or quick enough."""
    refuse_muon_on_pretrained(recipe)
    found = weights_at_hand(recipe.model.weights)
    left_out = list(found.left_out)
    with tempfile.TemporaryDirectory(prefix="saccade-") as folder:
        built: list[Timed] = []
        with terminal.progress("timing backbones", "backbones") as progress:
            for number, candidate in enumerate(found.candidates):
                progress(number, len(found.candidates), candidate.label)
                try:
                    built.append(_exported(candidate, listed, recipe, Path(folder) / f"{number}.onnx"))
                except ModelError as error:
                    left_out.append(f"{candidate.label}: {error.problem}")
            if not built:
                raise ModelError(
                    f"--backbone auto: none of the weights found can be used ({'; '.join(left_out)})",
                    hint="name a backbone, or give other files with --weights FOLDER",
                )
            rows = _timed(built, found.candidates, Path(folder))
    for reason in left_out:
        terminal.say(f"          left out: {reason}")
    _refuse_too_slow(rows, recipe)
    return Field(rows, tuple(left_out))


def _exported(candidate: Candidate, listed: Dataset, recipe: Recipe, file: Path) -> Timed:
    from saccade.export.onnx import write_onnx

    # channels change the first layer alone, and their statistics are not known before images are read
    usual = {"channels": RGB.channels, "bits": "auto", "mean": "auto", "std": "auto"}
    if recipe.data.channels != RGB.channels:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=usual)})
    network = build_network(listed, with_candidate(recipe, candidate))
    write_onnx(Bundle(network.module, listed.classes, network.preprocess, network.architecture), file)
    parameters = sum(parameter.numel() for parameter in network.module.parameters())
    return Timed(candidate, parameters, network.preprocess.size, file.stat().st_size / 1e6, math.nan)


def _timed(built: Sequence[Timed], order: Sequence[Candidate], folder: Path) -> tuple[Timed, ...]:
    """Median latencies over interleaved rounds, so that a busy moment hits all."""
    files = {row.candidate.label: folder / f"{order.index(row.candidate)}.onnx" for row in built}
    medians = median_latencies(files)
    return tuple(dataclasses.replace(row, latency_ms=ms) for row, ms in zip(built, medians, strict=True))


def _refuse_too_slow(rows: Sequence[Timed], recipe: Recipe) -> None:
    limit = recipe.model.max_latency_ms
    if not limit or any(row.latency_ms <= limit for row in rows):
        return
    none = np.empty(0)
    lines = table_lines([Scored(row, none, none).as_json() for row in rows])
    table = "; ".join(" ".join(line.split()) for line in lines)
    raise ModelError(
        f"none of the {len(rows)} backbones at hand is within --max-latency-ms {limit:g} ({table})",
        hint="allow more, take a smaller --image-size, or give faster backbones with --weights FOLDER",
    )


# -- scoring: inside the training part -------------------------------------------------------------


def choose_backbone(
    field: Field, dataset: Dataset, recipe: Recipe, terminal: Terminal, *, began: float
) -> dict[str, Any]:
    """The best candidate within the latency limit, with the table and the reason, as plain values.

    Prints both.
    Raises DataError where the training part is too small to judge by, Interrupted on a signal.
    """
    limit = recipe.model.max_latency_ms
    within = [row for row in field.rows if not limit or row.latency_ms <= limit]
    records = scored_records(dataset.used("train"), seed=recipe.seed)
    none = np.empty(0)
    if len(within) == 1:
        rows = [Scored(within[0], none, none, "not scored: the only candidate")]
    else:
        rows = _scored(within, dataset, records, recipe, terminal, began)
    slow = [Scored(row, none, none, "over the limit") for row in field.rows if row not in within]
    best, reason = pick(rows, limit)
    ordered = sorted(rows, key=lambda row: (math.isnan(row.loss), row.loss, row.timed.latency_ms))
    story = {
        "chosen": best.name,
        "backbone": best.timed.candidate.backbone,
        "weights": best.timed.candidate.weights,
        "reason": reason,
        "rows": [row.as_json() for row in [*ordered, *slow]],
        "images": max(len(row.losses) for row in rows),
        "max_latency_ms": limit,
        "left_out": list(field.left_out),
    }
    say_choice(story, terminal)
    return story


def _scored(
    within: Sequence[Timed],
    dataset: Dataset,
    records: tuple[ImageRecord, ...],
    recipe: Recipe,
    terminal: Terminal,
    began: float,
) -> list[Scored]:
    """Quick ones first; under a time limit, slow ones only while there is time for them."""
    share = TIME_SHARE * recipe.train.time_limit
    none = np.empty(0)
    rows: list[Scored] = []
    with stop_on_signals() as stop:
        for timed in sorted(within, key=lambda row: row.latency_ms):
            if rows and share and time.monotonic() - began > share:
                rows.append(Scored(timed, none, none, "not scored: --time-limit"))
                continue
            with terminal.progress(f"scoring {timed.candidate.label}") as progress:
                rows.append(_score(timed, dataset, records, recipe, stop, progress))
    return rows


def _score(
    timed: Timed,
    dataset: Dataset,
    records: tuple[ImageRecord, ...],
    recipe: Recipe,
    stop: StopRequest,
    progress: Progress,
) -> Scored:
    """Cross-validation of a head on the candidate's frozen features of `records`."""
    runtime = Runtime.create(recipe.device, recipe.precision)
    network = build_network(dataset, with_candidate(recipe, timed.candidate))
    runtime.place(network.module)
    engines = engines_of(network, runtime)
    engine = engines.quick or engines.exact
    limits = Limits.of(recipe.data, network.preprocess.pixels)
    images = Images(dataset.storage, records, network.preprocess, limits, exact=False)
    values = compute_features(images, engine, threads=usable_cores(), stop=stop, progress=progress)
    held = {label for record in records for label in record.labels}
    classes = tuple(label for label in dataset.classes if label in held)
    data = LabelledFeatures(
        values=values[None],
        labels=class_targets(records, classes),
        groups=tuple(record.unit for record in records),
        classes=len(classes),
    )
    choice = choose_strength(data, seed=recipe.seed)
    held_out = ~np.isnan(choice.losses)
    return Scored(timed, choice.losses[held_out], choice.right[held_out])


def scored_records(records: Sequence[ImageRecord], *, seed: int) -> tuple[ImageRecord, ...]:
    """At most about 600 of the images, in their order: each class by its share, of as many groups as it has.

    Classes with too few groups for cross-validation are left out, and all but 120 where there are more.
    Raises DataError where fewer than two classes remain.
    """
    if any(record.several for record in records):
        return _some_of_several(records, seed=seed)
    by_class: dict[str, list[ImageRecord]] = {}
    for record in records:
        by_class.setdefault(record.label, []).append(record)
    groups = {label: len({record.unit for record in same}) for label, same in by_class.items()}
    labels = [label for label in by_class if groups[label] >= FOLDS]
    if len(labels) < 2:
        labels = [label for label in by_class if groups[label] >= 2]
    if len(labels) < 2:
        raise DataError(
            "--backbone auto judges by cross-validation, and fewer than two classes have two training "
            "images that do not belong together",
            hint=f"name a backbone (--backbone {DEFAULT_BACKBONE}), or add images",
        )
    random = np.random.default_rng(draw_seed(seed, "scored images"))
    labels = sorted(random.permutation(np.array(sorted(labels), dtype=object))[:MOST_CLASSES])
    total = sum(len(by_class[label]) for label in labels)
    chosen: set[str] = set()
    for label in labels:
        share = round(SCORED_IMAGES * len(by_class[label]) / total)
        same = _one_of_each_group_first(by_class[label], random)
        chosen |= {record.path for record in same[: max(LEAST_OF_A_CLASS, share)]}
    return tuple(record for record in records if record.path in chosen)


def _some_of_several(records: Sequence[ImageRecord], *, seed: int) -> tuple[ImageRecord, ...]:
    """At most 600 images with any labels, in their order, of as many groups as there are."""
    random = np.random.default_rng(draw_seed(seed, "scored images"))
    drawn = _one_of_each_group_first(list(records), random)[:SCORED_IMAGES]
    chosen = {record.path for record in drawn}
    return tuple(record for record in records if record.path in chosen)


def _one_of_each_group_first(
    records: Sequence[ImageRecord], random: np.random.Generator
) -> list[ImageRecord]:
    seen: dict[str, int] = {}
    turns = []
    for index in random.permutation(len(records)).tolist():
        group = records[index].unit
        seen[group] = seen.get(group, 0) + 1
        turns.append((seen[group], index))
    return [records[index] for _, index in sorted(turns, key=lambda turn: turn[0])]


# -- the rule --------------------------------------------------------------------------------------


def pick(rows: Sequence[Scored], limit_ms: float = 0.0) -> tuple[Scored, str]:
    """The candidate to train, and why in words.

    The least held-out log loss wins; of those within one standard error of it (of the difference, image by
    image) the quickest, where it is quicker by a fifth. One standard error: Breiman et al., CART, 1984.
    """
    within = f" within {limit_ms:g} ms" if limit_ms else ""
    scored = [row for row in rows if len(row.losses)]
    if not scored:
        return rows[0], f"{rows[0].name} is the only one{within}"
    best = min(scored, key=lambda row: row.loss)
    near = [row for row in scored if _within_one_error(row, best)]
    quickest = min(row.timed.latency_ms for row in near)
    chosen = min(
        (row for row in near if row.timed.latency_ms <= SAME_SPEED * quickest), key=lambda row: row.loss
    )
    if chosen is not best:
        times = best.timed.latency_ms / chosen.timed.latency_ms
        return chosen, (
            f"{chosen.name}: its held-out log loss ({chosen.loss:.3f}) lies within one standard error of the "
            f"best{within} ({best.name}, {best.loss:.3f}), and it is {times:.1f} times as fast"
        )
    quicker = [row for row in scored if row.timed.latency_ms * SAME_SPEED < best.timed.latency_ms]
    why = "; faster ones are clearly worse" if quicker else "; no other backbone is much faster"
    return best, f"{best.name}: the lowest held-out log loss{within} ({best.loss:.3f}){why}"


def _within_one_error(row: Scored, best: Scored) -> bool:
    worse_by = row.losses - best.losses
    return row is best or float(worse_by.mean()) <= standard_error(worse_by)


def standard_error(values: NDArray[np.float64]) -> float:
    """Of the mean of `values` (n,); NaN below two."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


# -- words -----------------------------------------------------------------------------------------


def say_choice(story: Mapping[str, Any], terminal: Terminal) -> None:
    """The table and the reason."""
    rows = story["rows"]
    judged = f", scored on {story['images']:,} held-out training images" if story["images"] else ""
    terminal.say(f"Backbones {len(rows)} with weights on this machine{judged}; ms: one photo, one core")
    for line in table_lines(rows):
        terminal.say(f"          {line}")
    terminal.say(f"Backbone  {story['reason']}")


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Header and one line a backbone, as wide as the longest name."""
    width = max(len("backbone"), *(len(row["name"]) for row in rows))
    lines = [
        f"{'backbone':<{width}}  {'accuracy':>14}  {'log loss':>8}  {'ms':>7}  {'parameters':>11}  {'MB':>6}"
    ]
    for row in rows:
        scored = row["accuracy"] is not None
        accuracy = f"{row['accuracy']:.1%} ± {row['accuracy_error']:.1%}" if scored else "-"
        loss = f"{row['log_loss']:.3f}" if scored else "-"
        line = f"{row['name']:<{width}}  {accuracy:>14}  {loss:>8}  {row['latency_ms']:>7.2f}  "
        line += f"{row['parameters']:>11,}  {row['megabytes']:>6.1f}  {row['note']}"
        lines.append(line.rstrip())
    return lines
