"""How well wrong labels are ranked: each signal, both together, and cleanlab on the same probabilities.

    SACCADE_DATA=DIR python benchmarks/label_errors.py [--images 5000] [--side 96] [--keep FILE]

Training images of CIFAR-10, drawn at random, with the labels that people gave them (CIFAR-10N: "aggregate",
the majority of three, and "random1", one of them). A label is wrong where it is not CIFAR-10's own. Features
are those of the shared mobilenetv2_100 at `side` pixels; they are kept in FILE, where named, for the next
time. Printed is the average precision of each ranking: chance is the share of wrong labels. cleanlab's
self-confidence ranking sorts by the probability of the given label, which is our first signal; where
cleanlab is installed, its own function ranks the same probabilities. The last figure is what both signals
together have over it, with a 95 % interval of 500 bootstrap samples. Exit code 1: it is below 0.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from saccade.building import build_network
from saccade.evaluation.label_errors import label_signals, out_of_fold
from saccade.features.compute import Images, compute_features
from saccade.features.engines import feature_engines
from saccade.images.decoder import Limits
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord
from saccade.runtime import Runtime
from saccade.sources.storage import FolderStorage
from saccade.threads import usable_cores

NOISES = {"aggregate": "aggregate_label", "random1": "random_label1"}
BOOTSTRAPS = 500
ZIP_FOLDER = "cifar10"


def chosen_rows(data: Path, images: int, seed: int) -> list[dict[str, str]]:
    with (data / "cifar10_human_labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    picked = np.random.default_rng(seed).permutation(len(rows))[:images]
    return [rows[i] for i in sorted(picked)]


def features_of(rows: list[dict[str, str]], data: Path, weights: Path, side: int) -> NDArray[np.float32]:
    """(images, F) of the pretrained backbone, by the evaluation path."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(data / "cifar10.zip") as archive:
            archive.extractall(folder, [f"{ZIP_FOLDER}/{row['file']}" for row in rows])
        records = tuple(ImageRecord(f"{ZIP_FOLDER}/{row['file']}", row["clean_label"]) for row in rows)
        classes = tuple(sorted({record.label for record in records}))
        dataset = Dataset(Path(folder), records, classes, FolderStorage(Path(folder)))
        recipe = Recipe.from_mapping(
            {"model.backbone": "mobilenetv2_100", "model.weights": str(weights), "data.image_size": side}
        )
        built = build_network(dataset, recipe)
        runtime = Runtime.create("cpu", "float32")
        engines = feature_engines(built.module.backbone, runtime, side)
        images = Images(dataset.storage, records, built.preprocess, Limits(), exact=True)
        found: NDArray[np.float32] = compute_features(images, engines.exact, threads=usable_cores()).numpy()
        return found


def kept_features(keep: str, rows: list[dict[str, str]], shared: Path, side: int) -> NDArray[np.float32]:
    if keep and Path(keep).exists():
        values: NDArray[np.float32] = np.load(keep)
        assert len(values) == len(rows), f"{keep} has features of {len(values)} images"
        return values
    weights = shared / "weights" / "mobilenetv2_100.safetensors"
    values = features_of(rows, shared / "data", weights, side)
    if keep:
        np.save(keep, values)
    return values


def rankings(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int) -> dict[str, NDArray]:
    """Suspicion by name of the ranking, (images,) each."""
    alone = np.arange(len(labels))
    began = time.perf_counter()
    found = label_signals(features, labels, alone, classes)
    sure, near = found.weights
    print(f"  {time.perf_counter() - began:.1f} s; weights a = {sure:.2f}, b = {near:.2f}")
    ranked = {
        "self-confidence": -found.self_confidence,
        "distance ratio": found.distance_ratio,
        "both": found.score,
    }
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return ranked
    probabilities = np.exp(out_of_fold(features, labels, alone, classes))
    for method in ("self_confidence", "normalized_margin"):
        quality = get_label_quality_scores(labels, probabilities, method=method)
        ranked[f"cleanlab, {method}"] = -quality
    return ranked


def gain_interval(wrong: NDArray[np.bool_], ours: NDArray, theirs: NDArray, seed: int) -> tuple[float, float]:
    random, gains = np.random.default_rng(seed), []
    for _ in range(BOOTSTRAPS):
        rows = random.integers(0, len(wrong), len(wrong))
        gains.append(
            average_precision_score(wrong[rows], ours[rows])
            - average_precision_score(wrong[rows], theirs[rows])
        )
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", default="", help="a .npy file for the features")
    chosen = parser.parse_args()
    if not os.environ.get("SACCADE_DATA"):
        raise SystemExit("set SACCADE_DATA to the folder that holds the real data")
    shared = Path(os.environ["SACCADE_DATA"])
    rows = chosen_rows(shared / "data", chosen.images, chosen.seed)
    began = time.perf_counter()
    features = kept_features(chosen.keep, rows, shared, chosen.side)
    images, width = features.shape
    print(f"{images:,} images, {width:,} features: {time.perf_counter() - began:.0f} s")
    names = sorted({row["clean_label"] for row in rows})
    truth = np.array([names.index(row["clean_label"]) for row in rows])
    worst = np.inf
    for noise, column in NOISES.items():
        labels = np.array([names.index(row[column]) for row in rows])
        wrong = labels != truth
        print(f"{noise}: {wrong.mean():.1%} wrong")
        ranked = rankings(features, labels, len(names))
        for name, suspicion in ranked.items():
            print(f"  {name:<32} average precision {average_precision_score(wrong, suspicion):.4f}")
        scores = [average_precision_score(wrong, ranked[name]) for name in ("both", "self-confidence")]
        low, high = gain_interval(wrong, ranked["both"], ranked["self-confidence"], chosen.seed)
        print(f"  both over self-confidence {scores[0] - scores[1]:+.4f} ({low:+.4f} to {high:+.4f})")
        worst = min(worst, scores[0] - scores[1])
    return int(worst < 0)


if __name__ == "__main__":
    sys.exit(main())
