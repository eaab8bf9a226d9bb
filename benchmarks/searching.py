"""Does `saccade search` beat one default run that is given the same total seconds?

    python benchmarks/searching.py SHARED --seconds 300 --seeds 0,1,2 --work DIR [--plan] [--only flowers5]

SHARED is the folder with data/flowers5, data/flowers12 and data/cifar10.zip. Four sets: flowers5 (1,000
photos to learn from, 250 for the test), flowers12 (720 and 240), CIFAR-10 (100 a class and 100 a class),
scikit-learn's handwritten digits (60 a class, the rest for the test). saccade takes 15 % of the photos to
learn from for validation. Each run is a process of its own with an empty cache: `saccade train LIST
--time-limit S` and `saccade search LIST --time-limit S`, in turns, with the backbones at hand (for the search
also those of --weights). Compared is the accuracy on the same test images, which neither has read before its
last choice. A set is won where the mean over the seeds is higher. --plan prints what would run, and for how
long.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

Row = tuple[str, str, str]  # path, label, part
KINDS = ("train", "search")


def flowers5(shared: Path, work: Path) -> Iterator[Row]:
    yield from folder_rows(shared / "data/flowers5", {"train": "train", "val": "test"})


def flowers12(shared: Path, work: Path) -> Iterator[Row]:
    yield from folder_rows(shared / "data/flowers12", {"train": "train", "test": "test"})


def folder_rows(root: Path, parts: dict[str, str]) -> Iterator[Row]:
    for name, part in parts.items():
        for path in sorted((root / name).rglob("*.jpg")):
            yield str(path), path.parent.name, part


def cifar10(shared: Path, work: Path, *, each: int = 100) -> Iterator[Row]:
    """The first 100 images of each class, of the training and of the test part."""
    with zipfile.ZipFile(shared / "data/cifar10.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        taken: dict[tuple[str, str], int] = {}
        for name in names:
            part, label = name.split("/")[-3:-1]
            taken[part, label] = taken.get((part, label), 0) + 1
            if taken[part, label] <= each:
                yield archive.extract(name, work / "cifar10"), label, part


def digits(shared: Path, work: Path, *, each: int = 60) -> Iterator[Row]:
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    taken: dict[int, int] = {}
    for number, (image, label) in enumerate(zip(data.images, data.target, strict=True)):
        taken[label] = taken.get(label, 0) + 1
        path = work / "digits" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray((image * 255 / 16).astype("uint8")).resize(
            (64, 64), Image.Resampling.BICUBIC
        )
        pixels.save(path)
        yield str(path), str(label), "train" if taken[label] <= each else "test"


SETS: dict[str, Callable[[Path, Path], Iterator[Row]]] = {
    "flowers5": flowers5,
    "flowers12": flowers12,
    "cifar10": cifar10,
    "digits": digits,
}


def write_list(name: str, shared: Path, work: Path) -> Path:
    target = work / f"{name}.csv"
    work.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "part"))
        rows = SETS[name](shared, work)
        writer.writerows((os.path.relpath(path, work), label, part) for path, label, part in rows)
    return target


def run(kind: str, listed: Path, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Accuracy on the test part, and seconds of the process."""
    out = options.work / f"{listed.stem}-{kind}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    cache = options.work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    words = [sys.executable, "-m", "saccade.cli", kind, str(listed), "--out", str(out), "--seed", str(seed)]
    words += ["--time-limit", str(options.seconds)]
    if kind == "search":
        words += ["--trials", "1000", *(["--weights", options.weights] if options.weights else [])]
    began = time.monotonic()
    with (options.work / f"{out.name}.log").open("w") as log:
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, check=True, env=environment)
    seconds = time.monotonic() - began
    return json.loads((out / "metrics/test.json").read_text())["accuracy"]["value"], seconds


def told(name: str, found: dict[str, list[float]], seconds: dict[str, list[float]]) -> str:
    cells = [f"{name:<10}"]
    for kind in KINDS:
        values = found[kind]
        spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(
            f"{kind} {100 * statistics.mean(values):.1f}{spread} % ({max(seconds[kind]):.0f} s at most)"
        )
    gains = [100 * (b - a) for a, b in zip(found["train"], found["search"], strict=True)]
    each = ", ".join(f"{gain:+.1f}" for gain in gains)
    return ", ".join(cells) + f"; gain {statistics.mean(gains):+.1f} points ({each})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--work", type=Path, default=Path("/tmp/searching"))
    parser.add_argument("--weights", default="", help="folder of weights files for the search")
    parser.add_argument("--only", default="", help="names of sets, with commas")
    parser.add_argument("--plan", action="store_true")
    options = parser.parse_args(arguments)
    names = options.only.split(",") if options.only else list(SETS)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    runs = len(names) * len(seeds) * len(KINDS)
    print(
        f"{runs} runs of {options.seconds:g} s, one at a time: at most "
        f"{runs * options.seconds / 60:.0f} minutes"
    )
    if options.plan:
        return
    won = 0
    for name in names:
        listed = write_list(name, options.shared, options.work)
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for seed in seeds:
            for kind in random.Random(f"{name}{seed}").sample(KINDS, 2):
                accuracy, took = run(kind, listed, seed, options)
                found[kind].append(accuracy)
                seconds[kind].append(took)
                print(f"  {name} seed {seed} {kind}: {accuracy:.1%} after {took:.0f} s", flush=True)
        won += statistics.mean(found["search"]) > statistics.mean(found["train"])
        print(told(name, found, seconds), flush=True)
    print(f"the search is better on {won} of {len(names)} sets")


if __name__ == "__main__":
    main()
