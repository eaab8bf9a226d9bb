"""Are forecasts of learning curves true? Fitted on a quarter of the training images, checked on all of them.

    SACCADE_DATA=DATA python benchmarks/learning_curves.py [--splits 20] [--features FOLDER]

Photos of flowers5 and flowers12 are pooled, each data set by itself, and features of the default backbone are
computed once (kept in FOLDER, where given). A split draws a quarter of the groups for validation; the rest
are the training images. The forecast of `saccade report --full` sees a quarter of these and says what four
times as many would bring; a head fitted on all of them says what is true, on the same validation images. The
last column is how many times too many images the forecast asks for until that accuracy is reached. Exit code
1: the truth lies inside the 90 % band in less than 17 of 20 splits, or the median of the last column is above
2.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.building import build_network
from saccade.evaluation.learning_curve import Curve, carried_on, nested_draws
from saccade.features.compute import Images, compute_features
from saccade.features.engines import feature_engines
from saccade.features.heads import LabelledFeatures, choose_strength, fit_head, head_logits
from saccade.images.decoder import Limits
from saccade.insight.learning_curve import measure_sizes
from saccade.models.network import make_head
from saccade.pipeline import prepare
from saccade.pipeline.together import together_in_data
from saccade.recipe import Recipe
from saccade.runtime import Runtime
from saccade.terminal import Terminal
from saccade.threads import usable_cores

DATA_SETS = ("flowers5", "flowers12")
QUARTER = 0.25  # of the groups: for validation, and of the rest for the forecast
LEAST_INSIDE, MOST_TIMES = 17 / 20, 2.0
SEARCHED = tuple(np.geomspace(1.02, 64, 80))


@dataclass(frozen=True, slots=True)
class Pool:
    """Features float32 (images, F), labels and groups (images,) of a whole data set."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    def subset(self, rows: NDArray[np.int64]) -> Pool:
        return Pool(self.features[rows], self.labels[rows], self.groups[rows])


@dataclass(frozen=True, slots=True)
class Outcome:
    """A forecast of accuracy, or of recall, and what came true of it."""

    name: str
    now: float
    low: float
    value: float
    high: float
    truth: float
    told: bool
    times: float

    @property
    def inside(self) -> bool:
        return self.low <= self.truth <= self.high


def pool_of(name: str, kept: Path | None) -> Pool:
    """The data set, from the folder of kept features or computed; near-duplicates make groups."""
    file = kept / f"{name}.npz" if kept else None
    if file and file.exists():
        with np.load(file) as found:
            return Pool(found["features"], found["labels"], found["groups"])
    recipe, quiet = Recipe(), Terminal(quiet=True)
    root = Path(os.environ["SACCADE_DATA"]) / "data" / name
    audit = prepare.examine(prepare.list_data(str(root), recipe), recipe, quiet).audit
    records, together = audit.dataset.used(), together_in_data(audit)
    built = build_network(audit.dataset, recipe)
    runtime, preprocess = Runtime.create(recipe.device, "float32"), built.preprocess
    runtime.place(built.module)
    engine = feature_engines(built.module.backbone, runtime, preprocess.size, channels=3).exact
    images = Images(audit.dataset.storage, records, preprocess, Limits.of(recipe.data), exact=True)
    features = compute_features(images, engine, threads=usable_cores()).numpy()
    _, labels = np.unique([record.label for record in records], return_inverse=True)
    _, groups = np.unique([together[record.path] for record in records], return_inverse=True)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, features=features, labels=labels, groups=groups)
    return Pool(features, labels.astype(np.int64), groups.astype(np.int64))


def split(pool: Pool, seed: int) -> tuple[Pool, Pool, Pool]:
    """(a quarter of the training images, all of them, validation images), by whole groups."""
    (judged,), *_ = nested_draws(pool.labels, pool.groups, shares=(QUARTER,), draws=1, seed=1000 + seed)
    train = pool.subset(np.setdiff1d(np.arange(len(pool.labels)), judged))
    (quarter,), *_ = nested_draws(train.labels, train.groups, shares=(QUARTER,), draws=1, seed=2000 + seed)
    return train.subset(quarter), train, pool.subset(judged)


def right_of_all(train: Pool, judged: Pool, seed: int) -> NDArray[np.bool_]:
    """Whether a head fitted on all training images is right on each judged one."""
    classes = int(train.labels.max()) + 1
    groups = tuple(map(str, train.groups))
    values = torch.from_numpy(train.features)[None]
    data = LabelledFeatures(values, torch.from_numpy(train.labels), groups, classes)
    head = make_head("linear", train.features.shape[1], classes, dropout=0.0)
    fit_head(head, data, strength=choose_strength(data, seed=seed).strength, seed=seed)
    return np.asarray(head_logits(head, torch.from_numpy(judged.features)).argmax(1).numpy() == judged.labels)


def outcome(
    name: str, images: NDArray[np.float64], right: NDArray[np.bool_], truth: float, many: float
) -> Outcome:
    """Of one figure; many: how many images there are in truth."""
    times = many / float(images[-1])
    curve = carried_on(images, right, multiples=(times,))
    searched = carried_on(images, right, multiples=SEARCHED)
    return Outcome(
        name,
        curve.now,
        curve.now + curve.low[0],
        curve.now + curve.gain[0],
        curve.now + curve.high[0],
        truth,
        curve.told is not None,
        needed(searched, truth) / times,
    )


def needed(curve: Curve, target: float) -> float:
    """How many times the images the forecast asks for to reach the target; inf where it never does."""
    if curve.now >= target:
        return 1.0
    there = curve.now + curve.gain >= target
    return float(curve.multiples[there.argmax()]) if there.any() else np.inf


def outcomes(name: str, pool: Pool, seed: int) -> list[Outcome]:
    """Accuracy first, then the recall of each class."""
    quarter, train, judged = split(pool, seed)
    classes = int(pool.labels.max()) + 1
    found = measure_sizes(
        quarter.features,
        quarter.labels,
        quarter.groups,
        judged.features,
        judged.labels,
        classes=classes,
        seed=seed,
    )
    truth, many = right_of_all(train, judged, seed), np.bincount(train.labels)
    rows = [outcome(name, found.images.sum(1), found.right, float(truth.mean()), len(train.labels))]
    for label in range(classes):
        of = judged.labels == label
        recall = float(truth[of].mean())
        rows.append(outcome(name, found.images[:, label], found.right[:, :, of], recall, many[label]))
    return rows


def told(what: str, rows: list[Outcome]) -> str:
    """A line of Markdown."""
    inside, shown = sum(row.inside for row in rows), [row for row in rows if row.told]
    width = np.median([row.high - row.low for row in rows])
    off = np.mean([abs(row.value - row.truth) for row in rows])
    told_inside = f"{sum(row.inside for row in shown)} of {len(shown)}"
    times = float(np.median([row.times for row in rows]))
    cells = (
        f"{inside} of {len(rows)}",
        told_inside,
        f"{100 * width:.1f}",
        f"{100 * off:.1f}",
        f"{times:.2f}",
    )
    return f"| {what} | {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--splits", type=int, default=20, help="in all, half of each data set")
    parser.add_argument("--features", type=Path)
    asked = parser.parse_args()
    if not os.environ.get("SACCADE_DATA"):
        raise SystemExit("set SACCADE_DATA to the folder that holds data/flowers5 and data/flowers12")
    overall: list[Outcome] = []
    of_classes: list[Outcome] = []
    for name in DATA_SETS:
        pool = pool_of(name, asked.features)
        for seed in range(asked.splits // len(DATA_SETS)):
            began = time.perf_counter()
            first, *others = outcomes(name, pool, seed)
            overall.append(first)
            of_classes += others
            print(
                f"{name} {seed}: now {first.now:.3f}, forecast {first.low:.3f} {first.value:.3f} "
                f"{first.high:.3f}, truth {first.truth:.3f}, times {first.times:.2f}"
                f"{'' if first.told else ', not told'} ({time.perf_counter() - began:.0f} s)",
                flush=True,
            )
    print("\n| figure | truth inside | where told | band, points | off, points | images asked for, times |")
    print("|---|--:|--:|--:|--:|--:|")
    print(told("accuracy", overall))
    print(told("recall of a class", of_classes))
    enough = sum(row.inside for row in overall) >= LEAST_INSIDE * len(overall)
    return int(not enough or float(np.median([row.times for row in overall])) > MOST_TIMES)


if __name__ == "__main__":
    sys.exit(main())
