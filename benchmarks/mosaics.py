"""Images with several labels whose truth is known: mosaics of photos of one class each, trained and measured.

    python benchmarks/mosaics.py DATA --out DIR --seeds 0,1,2 --losses auto,asymmetric

DATA is a folder with train/ and test/, each with a folder a class. A mosaic has two rows of two tiles, of
which one to four show a photo and the others are grey; every photo is used once, so no picture stands in two
mosaics. Photos of train/ make training and validation mosaics, those of test/ the test part. For each seed
other mosaics are made, and for each loss `saccade train LIST --label-delimiter , --loss LOSS` is run on them,
with --repair-split: some photos of flowers12 are copies of others, which the audit finds in mosaics as well.
A row says: mean average precision of the test part as metrics/test.json has it, the largest difference from
scikit-learn on predictions/*.csv, F1, exact match, whether the certificate passed, and seconds.
`--only-write` makes the mosaics of the first seed and no more. Flags for `saccade train` stand behind --.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

TILE, GREY, VALIDATION = 112, (128, 128, 128), 0.2
SUFFIXES = {".jpg", ".jpeg", ".png"}


class Photo(NamedTuple):
    """A photo and its one class."""

    path: Path
    label: str


class Row(NamedTuple):
    """What one training came to."""

    loss: str
    seed: int
    images: int
    mean_average_precision: float
    difference: float
    micro_f1: float
    macro_f1: float
    exact_match: float
    certified: bool
    seconds: float


def photos_of(folder: Path) -> list[Photo]:
    return [
        Photo(path, path.parent.name) for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES
    ]


def mosaics(photos: Sequence[Photo], rng: np.random.Generator) -> Iterator[list[Photo]]:
    """The photos in a random order, in sets of one to four; each is used once."""
    order = [photos[index] for index in rng.permutation(len(photos))]
    while order:
        count = int(rng.integers(1, 5))
        yield order[:count]
        order = order[count:]


def picture(photos: Sequence[Photo], rng: np.random.Generator) -> Image.Image:
    """The photos, cut to squares, on random places of two rows of two."""
    whole = Image.new("RGB", (2 * TILE, 2 * TILE), GREY)
    for photo, place in zip(photos, rng.permutation(4).tolist(), strict=False):
        with Image.open(photo.path) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
        tile = square.resize((TILE, TILE), Image.Resampling.LANCZOS)
        whole.paste(tile, (TILE * (place % 2), TILE * (place // 2)))
    return whole


def write(data: Path, folder: Path, seed: int) -> Path:
    """The mosaics of a seed as JPEG files, and a list path,label,part of them, which is returned."""
    listed = folder / "list.csv"
    if listed.exists():
        return listed
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for part in ("train", "test"):
        for shown in mosaics(photos_of(data / part), rng):
            name = f"{len(rows):05d}.jpg"
            picture(shown, rng).save(folder / name, quality=95)
            held_out = "validation" if part == "train" and rng.random() < VALIDATION else part
            rows.append((name, ",".join(sorted({photo.label for photo in shown})), held_out))
    with open(listed, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label", "part"), *rows])
    return listed


def by_scikit_learn(run: Path, part: str) -> float:
    """Mean average precision of `predictions/PART.csv` as scikit-learn has it."""
    from sklearn.metrics import average_precision_score

    with open(run / "predictions" / f"{part}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    truth = [[name in row["label"].split(",") for name in classes] for row in rows]
    scores = [[float(row[f"p_{name}"]) for name in classes] for row in rows]
    return float(average_precision_score(np.array(truth), np.array(scores)))


def train(listed: Path, run: Path, loss: str, seed: int, flags: Sequence[str]) -> Row:
    """One training, or the result of one that was made before."""
    words = ["train", str(listed), "--label-delimiter", ",", "--repair-split", "--seed", str(seed)]
    words += ["--out", str(run), *flags]
    began = time.monotonic()
    losses = ["--loss", loss] if loss != "auto" else []
    done = subprocess.run([sys.executable, "-m", "saccade.cli", *words, *losses], check=False)
    seconds = time.monotonic() - began
    figures: dict[str, dict[str, Any]] = {
        part: json.loads((run / "metrics" / f"{part}.json").read_text()) for part in ("validation", "test")
    }
    test = figures["test"]
    return Row(
        loss,
        seed,
        test["images"],
        test["mean_average_precision"],
        max(abs(figures[part]["mean_average_precision"] - by_scikit_learn(run, part)) for part in figures),
        test["micro_f1"],
        test["macro_f1"],
        test["exact_match"]["value"],
        done.returncode == 0 and json.loads((run / "export" / "certificate.json").read_text())["passed"],
        seconds,
    )


def shown(values: Sequence[float]) -> str:
    """Mean and spread of some seeds."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--losses", default="auto,asymmetric")
    parser.add_argument("--only-write", action="store_true")
    words = sys.argv[1:]
    place = words.index("--") if "--" in words else len(words)
    given, flags = parser.parse_args(words[:place]), words[place + 1 :]
    seeds = [int(seed) for seed in given.seeds.split(",")]
    if given.only_write:
        print(write(given.data, given.out / f"mosaics-{seeds[0]}", seeds[0]))
        return
    rows = []
    for seed in seeds:
        listed = write(given.data, given.out / f"mosaics-{seed}", seed)
        for loss in given.losses.split(","):
            rows.append(train(listed, given.out / f"{loss}-{seed}", loss, seed, flags))
            print(rows[-1], flush=True)
    for loss in given.losses.split(","):
        mine = [row for row in rows if row.loss == loss]
        for name in ("mean_average_precision", "micro_f1", "macro_f1", "exact_match", "seconds"):
            print(f"{loss:<12} {name:<24} {shown([getattr(row, name) for row in mine])}")


if __name__ == "__main__":
    main()
