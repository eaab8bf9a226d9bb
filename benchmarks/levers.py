"""What averaging, WiSE-FT, a larger evaluation size and mixing bring: on against off, on test images.

    python -m benchmarks.levers --plan
    python -m benchmarks.levers --out levers.jsonl [--sets flowers5,flowers12,cifar10] [--seeds 0,1,2]

Each (set, seed) fine-tunes the default backbone once as `saccade train --method full` does (fitted head, then
everything), at a small input size and for a few epochs. From that one training come, without training again:

none       the raw weights of the epoch with the lowest validation loss
calibrated those of the epoch with the lowest validation loss after its best temperature
EMA        the moving average of every step (decay 0.98, as `train.ema_decay` auto has it)
SWA        the equal average of the last half of the epochs, as `train.swa_epochs` has it
WiSE-FT    EMA averaged with the pretrained weights; the share of `--average-with-pretrained auto`
FixRes     EMA evaluated at the sizes of `--evaluate.size auto`; "kept": where its rule keeps one

MixUp 0.2, CutMix 1.0 and TrivialAugment are trainings of their own, judged by EMA. Everything is chosen on
the validation part (15 % of the training images); the figures are of the test part, with a temperature fitted
on validation, as shipped. The table has differences in pairs (same set and seed): mean and standard deviation
over seeds of accuracy in points and of log loss. SACCADE_DATA names the folder with the data. A run that was
stopped goes on: what stands in --out is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from saccade.recipe import Recipe
    from saccade.records import Dataset

EMA_DECAY = 0.98
Logits = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Set:
    """Images below SACCADE_DATA. `images` of each class are learnt from, `tested` judge; 0 is all of them."""

    train: str
    test: str
    side: int
    epochs: int
    total: int  # training and validation images, for the plan
    images: int = 0
    tested: int = 0


SETS = {
    "flowers5": Set("data/flowers5/train", "data/flowers5/val", 128, 6, 1000),
    "flowers12": Set("data/flowers12/train", "data/flowers12/test", 128, 6, 720),
    "cifar10": Set("data/cifar10.zip", "", 64, 5, 2000, images=200, tested=100),
}
# name -> fields of the recipe in which a training of its own differs
ARMS: dict[str, dict[str, Any]] = {
    "base": {},
    "MixUp": {"augment.mix_up": 0.2},
    "CutMix": {"augment.cut_mix": 1.0},
    "TrivialAugment": {"augment.automatic": "trivial_augment"},
}
# measured on two cores of a Zen 4 machine in float32: one image learnt from, by side
SECONDS_AN_IMAGE = {128: 0.014, 64: 0.005}
OTHER_SECONDS = 20  # reading, features, evaluation


# -- data ------------------------------------------------------------------------------------------------


def listed(name: str, data: Path, seed: int, folder: Path) -> Path:
    """A list with parts: 15 % of each class's training images for validation, drawn by the seed."""
    chosen, rows = SETS[name], ["path,label,part"]
    root = data
    if chosen.train.endswith(".zip"):
        root = folder
        with zipfile.ZipFile(data / chosen.train) as archive:
            archive.extractall(folder)
        places = {"train": folder / "cifar10/train", "test": folder / "cifar10/test"}
    else:
        places = {"train": data / chosen.train, "test": data / chosen.test}
    random = np.random.default_rng(seed)
    for part, most in (("train", chosen.images), ("test", chosen.tested)):
        for label in sorted(path for path in places[part].iterdir() if path.is_dir()):
            files = sorted(path for path in label.iterdir() if path.is_file())
            order = random.permutation(len(files))[: most or None]
            held = round(0.15 * len(order)) if part == "train" else 0
            for number, index in enumerate(order):
                where = "validation" if number < held else part
                rows.append(f"{files[index].relative_to(root).as_posix()},{label.name},{where}")
    file = folder / f"{name}-{seed}.csv"
    file.write_text("\n".join(rows) + "\n")
    return file


def recipe_of(name: str, seed: int, arm: str, root: Path) -> Recipe:
    from saccade.recipe import Recipe

    chosen = SETS[name]
    return Recipe.from_mapping(
        {
            "seed": seed,
            "data.image_size": chosen.side,
            "data.root": str(root),
            "split.near_duplicates": False,  # the parts are given; no image moves
            "train.method": "full",
            "train.epochs": chosen.epochs,
            "train.ema_decay": 0.0,
            "train.early_stopping": 0,
            "train.average_with_pretrained": "auto",
            "evaluate.size": "auto",
            **ARMS[arm],
        }
    )


def prepared(file: Path, recipe: Recipe) -> Dataset:
    from saccade.pipeline import prepare
    from saccade.terminal import Terminal

    quiet = Terminal(quiet=True)
    examined = prepare.examine(prepare.list_data(str(file), recipe), recipe, quiet)
    return prepare.divide(examined, recipe, quiet).dataset


# -- one training -----------------------------------------------------------------------------------------


class Followed:
    """Training batches beside which a moving average goes, and the raw weights of each epoch are kept."""

    def __init__(self, batches: Any, network: Any) -> None:
        self.batches, self.network = batches, network
        self.start: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}
        self.epochs: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # raw and average

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int) -> Iterator[Any]:
        import torch

        if not self.start:
            self.start, self.average = self.weights(), self.weights()
        for batch in self.batches.epoch(epoch):
            yield batch
            live = self.network.state_dict()
            names = [name for name, tensor in live.items() if tensor.is_floating_point()]
            torch._foreach_lerp_([self.average[n] for n in names], [live[n] for n in names], 1 - EMA_DECAY)
        self.epochs.append((self.weights(), {n: t.clone() for n, t in self.average.items()}))

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}


def trained(name: str, seed: int, arm: str, data: Path) -> dict[str, Any]:
    """Test figures of everything that one training gives: name -> accuracy and log loss."""
    from saccade import building
    from saccade.features.engines import engines_of
    from saccade.methods import METHODS, make_plan
    from saccade.pipeline import batches
    from saccade.run_folder import RunFolder
    from saccade.runtime import Runtime
    from saccade.terminal import Terminal
    from saccade.training.job import TrainingData
    from saccade.training.loop import training_job

    quiet, began = Terminal(quiet=True), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = listed(name, data, seed, Path(folder))
        root = Path(folder) if SETS[name].train.endswith(".zip") else data
        recipe = recipe_of(name, seed, arm, root)
        dataset = prepared(file, recipe)
        runtime = Runtime.create(recipe.device, recipe.precision)
        network = building.build_network(dataset, recipe)
        plan = make_plan(recipe, network)
        validation = batches.ValidationBatches(dataset, plan)
        with batches.pixel_cache(plan, quiet) as pixels:
            source = batches.training_batches(dataset, plan, device=runtime.device, pixels=pixels)
            followed = Followed(source, network.module)
            held = len(dataset.used("validation"))
            training = TrainingData(followed, lambda: validation, dataset.counts("train"), held)
            run = RunFolder(Path(folder) / "run")
            job = training_job(network.module, plan, training, runtime=runtime, run=run)
            probe = batches.make_probe(dataset, plan, quiet, lambda: engines_of(network, runtime), pixels)
            METHODS[plan.method].train(job, probe)
        judged = judge_of(dataset, network, plan, runtime)
        found = variants(followed, judged, arm, SETS[name].side)
    return {"set": name, "seed": seed, "arm": arm, "seconds": time.monotonic() - began, "figures": found}


Judge = Callable[[Mapping[str, "Tensor"], str, int], Logits]


def judge_of(dataset: Dataset, network: Any, plan: Any, runtime: Any) -> Judge:
    """Answers of some weights on a part, at a side in pixels."""
    from saccade.training.inference import predict_logits
    from saccade.transforms import evaluation_batches

    kept: dict[tuple[str, int], list[Any]] = {}

    def judge(weights: Mapping[str, Tensor], part: str, side: int) -> Logits:
        network.module.load_state_dict(dict(weights))
        inputs = plan.inputs
        if (part, side) not in kept:
            preprocess = replace(inputs.preprocess, size=side)
            made = evaluation_batches(
                dataset.storage, dataset.used(part), dataset.classes, preprocess, 32, limits=inputs.limits
            )
            kept[part, side] = list(made)
        logits, labels, _ = predict_logits(network.module, kept[part, side], runtime)
        return logits, labels

    return judge


def variants(followed: Followed, judge: Judge, arm: str, side: int) -> dict[str, dict[str, float]]:
    """Test figures by name; for trainings of their own only those of EMA."""
    from saccade.training.monitors import calibrated_loss

    def validation_loss(weights: Mapping[str, Tensor]) -> float:
        return loss_of(*judge(weights, "validation", side))

    def calibrated(weights: Mapping[str, Tensor]) -> float:
        return calibrated_loss(*judge(weights, "validation", side))

    raw = min((weights for weights, _ in followed.epochs), key=validation_loss)
    average = min((weights for _, weights in followed.epochs), key=validation_loss)
    found = {"EMA": on_test(judge, average, side)}
    if arm != "base":
        return found
    found["none"] = on_test(judge, raw, side)
    found["calibrated"] = on_test(judge, min((w for w, _ in followed.epochs), key=calibrated), side)
    found["EMA calibrated"] = on_test(judge, min((w for _, w in followed.epochs), key=calibrated), side)
    found["SWA"] = on_test(judge, equal_average([weights for weights, _ in followed.epochs]), side)
    found |= wise(judge, average, followed.start, side)
    return found | larger(judge, average, side)


def equal_average(epochs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Of the last half of the epochs; BatchNorm's statistics are pretrained and the same in all."""
    import torch

    last = epochs[len(epochs) // 2 :]
    return {
        name: torch.stack([weights[name] for weights in last]).mean(0) if t.is_floating_point() else t
        for name, t in epochs[-1].items()
    }


def wise(
    judge: Judge, tuned: Mapping[str, Tensor], start: Mapping[str, Tensor], side: int
) -> dict[str, dict[str, float]]:
    from saccade.training.wise import SHARES, between

    losses = {0.0: loss_of(*judge(tuned, "validation", side))}
    for share in SHARES:
        losses[share] = loss_of(*judge(between(tuned, start, share), "validation", side))
    share = min(losses, key=losses.__getitem__)
    figures = on_test(judge, between(tuned, start, share) if share else tuned, side)
    half = on_test(judge, between(tuned, start, 0.4), side)
    return {"WiSE-FT auto": {**figures, "share": share}, "WiSE-FT 0.4": half}


def larger(judge: Judge, tuned: Mapping[str, Tensor], side: int) -> dict[str, dict[str, float]]:
    from saccade.pipeline.larger import compared, larger_sizes

    usual, found, kept = judge(tuned, "validation", side), {}, []
    for size in larger_sizes(side):
        row = compared(size, judge(tuned, "validation", size), usual)
        found[f"FixRes x{size / side:.2f}"] = on_test(judge, tuned, size)
        kept += [row] if row.better else []
    size = min(kept, key=lambda row: row.loss).size if kept else side
    return {**found, "FixRes auto": {**on_test(judge, tuned, size), "size": size}}


def on_test(judge: Judge, weights: Mapping[str, Tensor], side: int) -> dict[str, float]:
    """Accuracy and log loss of the test part, with a temperature fitted on validation."""
    from saccade.evaluation.calibration import fit_temperature, log_loss_of_logits

    logits, labels = judge(weights, "validation", side)
    temperature = fit_temperature(logits.astype(np.float64), labels)
    logits, labels = judge(weights, "test", side)
    loss = log_loss_of_logits(logits.astype(np.float64), labels, temperature)
    return {"accuracy": float((logits.argmax(1) == labels).mean()), "loss": loss}


def loss_of(logits: np.ndarray, labels: np.ndarray) -> float:
    from saccade.training.losses import log_loss_and_accuracy

    return log_loss_and_accuracy(logits, labels)[0]


# -- plan and table -----------------------------------------------------------------------------------------


def plan_lines(jobs: Sequence[tuple[str, int, str]]) -> list[str]:
    """What would be trained, and about how long it takes."""
    seconds = {
        name: OTHER_SECONDS + 0.85 * chosen.total * chosen.epochs * SECONDS_AN_IMAGE[chosen.side]
        for name, chosen in SETS.items()
    }
    lines = [f"{name:10} seed {seed} {arm:15} about {seconds[name]:4.0f} s" for name, seed, arm in jobs]
    total = sum(seconds[name] for name, _, _ in jobs)
    return [*lines, f"{len(jobs)} trainings, about {total / 60:.0f} minutes on two cores"]


REFERENCE = {
    "EMA": "none",
    "SWA": "none",
    "calibrated": "none",
}  # the others are compared with EMA of the same training


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each set and lever: differences in pairs over seeds."""
    figures = {
        (row["set"], row["seed"], name if row["arm"] == "base" else row["arm"]): values
        for row in results
        for name, values in row["figures"].items()
    }
    lines = ["set        lever            seeds  accuracy, points     log loss             (off)"]
    for name, lever in dict.fromkeys((s, lever) for s, _, lever in figures if lever != "none"):
        off = REFERENCE.get(lever, "EMA")
        seeds = [seed for s, seed, arm in figures if (s, arm) == (name, lever) and (s, seed, off) in figures]
        pairs = [(figures[name, seed, lever], figures[name, seed, off]) for seed in seeds]
        points = [100 * (on["accuracy"] - other["accuracy"]) for on, other in pairs]
        losses = [on["loss"] - other["loss"] for on, other in pairs]
        level = statistics.mean(other["accuracy"] for _, other in pairs)
        lines.append(
            f"{name:10} {lever:16} {len(seeds):5}  {spread(points, 1):20} {spread(losses, 3):20} "
            f"{off} {level:.1%}"
        )
    return lines


def spread(values: Sequence[float], digits: int) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):+.{digits}f} ± {deviation:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", action="store_true", help="say what would be trained, and end")
    parser.add_argument("--out", default="levers.jsonl")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default=",".join(ARMS))
    options = parser.parse_args()
    jobs = [
        (name, int(seed), arm)
        for seed in options.seeds.split(",")
        for name in options.sets.split(",")
        for arm in options.arms.split(",")
    ]
    if options.plan:
        print("\n".join(plan_lines(jobs)))
        return
    out = Path(options.out)
    results = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {(row["set"], row["seed"], row["arm"]) for row in results}
    for job in jobs:
        if job not in done:
            results.append(trained(*job, Path(os.environ["SACCADE_DATA"])))
            with out.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
            print(job, f"{results[-1]['seconds']:.0f} s", json.dumps(results[-1]["figures"]), flush=True)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
