"""What logit adjustment after training brings where classes are unevenly common.

    SACCADE_DATA=DIR python benchmarks/long_tail.py --seeds 5

Of each class of `flowers5` fewer photos are trained on than of the class before: exponentially, so that the
largest has 20 times the images of the smallest. Which class is common changes with the seed. A fifth of these
images validate; the 50 of each class in `val` test. Two runs a seed: without and with
`evaluate.logit_adjustment = auto`. Printed are balanced accuracy on the test images and their log loss under
the class shares of the training part: of the first run, of the second one, and of the second one's file with
`--priors training`, which must undo the adjustment. For that log loss each class counts by its share.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 200  # images of the commonest class, those for validation included
VALIDATION = 5  # every fifth


def write_list(data: Path, target: Path, *, ratio: float, seed: int) -> dict[str, int]:
    """A list of training, validation and test images; the training images by class."""
    random = np.random.default_rng(seed)
    classes = random.permutation(sorted(place.name for place in (data / "train").iterdir())).tolist()
    rows, counts = [], {}
    for rank, label in enumerate(classes):
        files = sorted((data / "train" / label).iterdir())
        wanted = round(LARGEST * ratio ** (-rank / (len(classes) - 1)))
        chosen = [files[i] for i in random.permutation(len(files))[:wanted]]
        parts = ["train" if i % VALIDATION else "validation" for i in range(len(chosen))]
        rows += [(_name(file, data), label, part) for file, part in zip(chosen, parts, strict=True)]
        rows += [(_name(file, data), label, "test") for file in sorted((data / "val" / label).iterdir())]
        counts[label] = parts.count("train")
    with target.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "part"), *rows])
    return counts


def saccade(*words: str | Path) -> str:
    """What a command of this checkout prints; raises SystemExit with it where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "saccade.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    if done.returncode:
        raise SystemExit(f"long_tail: {words}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def read(file: Path, classes: list[str]) -> dict[str, NDArray[np.float64]]:
    """Probabilities (classes,) by path, from predictions of a run or of `saccade predict`."""
    with file.open(newline="") as rows:
        return {
            row["path"]: np.array([float(row[f"p_{label}"]) for label in classes])
            for row in csv.DictReader(rows)
        }


def figures(
    answers: NDArray[np.float64], labels: NDArray[np.int64], shares: NDArray[np.float64]
) -> tuple[float, float]:
    """Balanced accuracy, and log loss where the classes had these shares."""
    right = answers.argmax(1) == labels
    losses = -np.log(np.maximum(answers[np.arange(len(labels)), labels], 1e-15))
    per_class = [(right[labels == c].mean(), losses[labels == c].mean()) for c in range(len(shares))]
    recalls, means = map(np.array, zip(*per_class, strict=True))
    return float(recalls.mean()), float(shares @ means)


def one_seed(data: Path, scratch: Path, *, ratio: float, seed: int, words: list[str]) -> list[float]:
    """Balanced accuracy and log loss: without, with, and undone; then the strength."""
    table = scratch / f"list-{seed}.csv"
    counts = write_list(data, table, ratio=ratio, seed=seed)
    classes = sorted(counts)
    shares = np.array([counts[label] for label in classes], dtype=float)
    shares /= shares.sum()
    found: list[float] = []
    common = ("--root", data, "--seed", seed, "--no-split.near_duplicates", *words)
    for name, flags in (("plain", ()), ("adjusted", ("--evaluate.logit_adjustment", "auto"))):
        run = scratch / f"{name}-{seed}"
        said = saccade("train", table, "--out", run, *map(str, common), *flags)
        answers = read(run / "predictions/test.csv", classes)
        found += figures(np.array(list(answers.values())), _true(answers, classes), shares)
    undone = scratch / f"undone-{seed}.csv"
    saccade("predict", run, data / "val", "--priors", "training", "--out", undone)
    answers = read(undone, classes)
    found += figures(np.array(list(answers.values())), _true(answers, classes), shares)
    note = next((line.strip() for line in said.splitlines() if "logit adjustment" in line), "none")
    print(f"seed {seed}  " + "  ".join(f"{value:.4f}" for value in found) + f"  {note}", flush=True)
    return found


def _name(file: Path, data: Path) -> str:
    return file.relative_to(data).as_posix()


def _true(paths: Iterable[str], classes: list[str]) -> NDArray[np.int64]:
    """(images,) index of each photo's folder."""
    return np.array([classes.index(Path(path).parent.name) for path in paths])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ratio", type=float, default=20.0)
    parser.add_argument("--method", default="head")
    asked = parser.parse_args()
    data = Path(os.environ["SACCADE_DATA"]).resolve() / "data/flowers5"
    words = ["--method", asked.method]
    print("      balanced accuracy and log loss: without, with auto, with auto and --priors training")
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            one_seed(data, Path(folder), ratio=asked.ratio, seed=seed, words=words)
            for seed in range(asked.seeds)
        ]
    table = np.array(rows)
    gain, loss = table[:, 2] - table[:, 0], table[:, 5] - table[:, 1]
    for name, values in (("gain of balanced accuracy", gain), ("change of log loss, undone", loss)):
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        print(f"{name}: {values.mean():+.4f} (standard deviation {spread:.4f}, n = {len(values)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
