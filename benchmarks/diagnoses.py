"""Runs that are ill on purpose, each in one way, and healthy ones: what does the diagnosis say of them?

    PYTHONPATH=tests python benchmarks/diagnoses.py [--only NAME,...] [--keep DIR] [--seed 0]

Every run is a `saccade train` of its own, on pictures that are drawn here: 24 runs of some seconds each. An
illness counts as named where a finding of its kind is there; a healthy run as called ill where any finding is
a warning or an error. Exit 1 where an illness is missed or a healthy run is called ill.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from conftest import shape_image
from saccade.cli import main as saccade
from saccade.report.facts import read_facts
from saccade.run_folder import RunFolder

SIDE = 16
Draw = Callable[[str, int, np.random.Generator], Image.Image]  # (part, class, generator) -> a picture
QUICK = ("--no-export.onnx", "--no-split.near_duplicates", "--device", "cpu")
SCRATCH = (*QUICK, "--backbone", "small_cnn", "--image-size", str(SIDE), "--batch-size", "16")
PRETRAINED = (*QUICK, "--image-size", "64")
HEAD = (*PRETRAINED, "--method", "head")


# -- pictures --------------------------------------------------------------------------------------------


def shape(part: str, kind: int, rng: np.random.Generator) -> Image.Image:
    """A disc, a bar, a checkerboard or a ring: four classes that a small network learns."""
    return shape_image(kind, rng, SIDE)


def stripes(part: str, kind: int, rng: np.random.Generator) -> Image.Image:
    """Stripes that stand, that lie, or squares: a network from scratch learns these classes in seconds."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    period, start = rng.uniform(4, 7), rng.uniform(0, 7, 2)
    standing, lying = (
        np.sign(np.sin(2 * np.pi * (at + s) / period)) for at, s in zip((x, y), start, strict=True)
    )
    pattern = (standing, lying, standing * lying)[kind]
    ground = Image.fromarray(rng.integers(60, 190, (4, 4, 3), dtype=np.uint8))
    pixels = np.asarray(ground.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(float)
    return as_image(pixels + rng.uniform(35, 60) * pattern[..., None] + rng.normal(0, 6, pixels.shape))


def large_shape(part: str, kind: int, rng: np.random.Generator) -> Image.Image:
    return shape_image(kind, rng, 64)


def noisy(draw: Draw, deviation: float) -> Draw:
    """The pictures under noise, which makes them hard to tell apart."""

    def drawn(part: str, kind: int, rng: np.random.Generator) -> Image.Image:
        pixels = np.asarray(draw(part, kind, rng)).astype(float)
        return as_image(pixels + rng.normal(0, deviation, pixels.shape))

    return drawn


def lit(draw: Draw, light: Callable[[str, int, np.random.Generator], float]) -> Draw:
    """The pictures with their levels times `light(part, class, generator)`."""

    def drawn(part: str, kind: int, rng: np.random.Generator) -> Image.Image:
        return as_image(np.asarray(draw(part, kind, rng)).astype(float) * light(part, kind, rng))

    return drawn


def as_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def of_kinds(draw: Draw, *kinds: int) -> Draw:
    """Class i shows what class `kinds[i]` would."""
    return lambda part, kind, rng: draw(part, kinds[kind], rng)


def by_light(part: str, kind: int, rng: np.random.Generator) -> float:
    """A shortcut: in nine of ten pictures the class has its own light."""
    bright = kind if rng.random() < 0.9 else 1 - kind
    return rng.uniform(0.3, 0.5) if bright else rng.uniform(0.9, 1.1)


def another_camera(part: str, kind: int, rng: np.random.Generator) -> Image.Image:
    """Validation and test pictures are blurred, dark and tilted; training pictures are not."""
    image = large_shape(part, kind, rng)
    if part == "train":
        return image
    softened = image.filter(ImageFilter.GaussianBlur(3)).rotate(20)
    return as_image(np.asarray(softened).astype(float) * 0.35)


def bar(part: str, kind: int, rng: np.random.Generator) -> Image.Image:
    """A bar that lies, or one that stands."""
    ground = Image.fromarray(rng.integers(0, 160, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(ground.resize((64, 64), Image.Resampling.BICUBIC)).astype(float)
    along, across = rng.integers(4, 20), rng.integers(10, 46)
    pixels[across : across + 8, along : along + 40] += 130
    return as_image(pixels if kind else pixels.transpose(1, 0, 2))


def write(
    root: Path, draw: Draw, counts: dict[str, Sequence[int]], *, wrong: float = 0.0, seed: int = 0
) -> Path:
    """PART/CLASS/NUMBER.png, `counts[part][class]` of each; a share of `wrong` labels is drawn at random."""
    rng = np.random.default_rng(seed)
    for part, numbers in counts.items():
        for kind, count in enumerate(numbers):
            folder = root / part / "abcdefgh"[kind]
            folder.mkdir(parents=True)
            for number in range(count):
                shown = int(rng.integers(len(numbers))) if rng.random() < wrong else kind
                draw(part, shown, rng).save(folder / f"{number:04d}.png")
    return root


def parts(train: int, val: int, test: int = 0, *, classes: int = 3) -> dict[str, Sequence[int]]:
    """As many pictures of each class."""
    counts = {"train": train, "val": val, "test": test}
    return {part: [count] * classes for part, count in counts.items() if count}


# -- runs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A run: `kind` is the finding that it must have, "" for a healthy one."""

    name: str
    kind: str
    draw: Draw
    counts: dict[str, Sequence[int]]
    flags: Sequence[str]
    wrong: float = 0.0
    seed: int = 0


def epochs(count: int, *more: str) -> tuple[str, ...]:
    return (*SCRATCH, "--epochs", str(count), *more)


HARD = noisy(shape, 60)
ILL = (
    Case("overfitting", "overfitting", noisy(large_shape, 110), parts(20, 40, 40), (*HEAD, "--head", "mlp")),
    Case("underfitting", "underfitting", HARD, parts(60, 60, 60), epochs(8), wrong=0.6),
    Case("rate too high", "too_high_a_rate", shape, parts(50, 40, 60), epochs(6, "--lr", "3")),
    Case("rate too low", "too_low_a_rate", shape, parts(50, 40, 60), epochs(6, "--lr", "1e-6")),
    Case("stopped too early", "stopped_too_early", stripes, parts(60, 60, 60), epochs(3, "--lr", "2e-4")),
    Case(
        "plateau",
        "plateau",
        HARD,
        parts(60, 60, 60),
        epochs(15, "--schedule", "constant", "--train.early_stopping", "0"),
        wrong=0.6,
    ),
    Case("validation too small", "too_few_to_tell", noisy(large_shape, 30), parts(60, 4, 120), HEAD),
    Case("another camera", "part_shift", another_camera, parts(60, 60, 60), HEAD),
    Case(
        "a class never predicted",
        "never_predicted",
        of_kinds(large_shape, 0, 1, 1),
        {"train": [90, 90, 4], "val": [50, 50, 10], "test": [50, 50, 12]},
        HEAD,
    ),
    Case("two alike", "not_separable", of_kinds(large_shape, 0, 1, 2, 2), parts(50, 50, 50, classes=4), HEAD),
    Case(
        "fine-tuning harms",
        "fine_tuning_harmed",
        bar,
        parts(80, 60, 60, classes=2),
        (
            *PRETRAINED,
            *("--method", "full", "--epochs", "3", "--augment", "texture", "--train.ema_decay", "0"),
            *("--lr", "3e-3", "--finetune-lr", "1e-3", "--train.allow_large_finetune_lr"),
        ),
        wrong=0.4,
    ),
    Case(
        "a shortcut",
        "shortcut",
        lit(of_kinds(noisy(large_shape, 150), 0, 3), by_light),
        parts(80, 60, 80, classes=2),
        HEAD,
    ),
)
FULL = (*PRETRAINED, "--method", "full", "--epochs", "2")
HEALTHY = (
    Case("scratch: seed 1", "", stripes, parts(80, 60, 80), epochs(8, "--seed", "1"), seed=1),
    Case("scratch: seed 2", "", stripes, parts(80, 60, 80), epochs(8, "--seed", "2"), seed=2),
    Case(
        "scratch: two classes", "", of_kinds(stripes, 0, 2), parts(80, 60, 80, classes=2), epochs(8), seed=3
    ),
    Case(
        "scratch: constant rate", "", stripes, parts(80, 60, 80), epochs(8, "--schedule", "constant"), seed=4
    ),
    Case("scratch: augmented", "", stripes, parts(80, 60, 80), epochs(8, "--augment", "light"), seed=5),
    Case(
        "fast_cnn", "", stripes, parts(100, 60, 80), (*QUICK, "--backbone", "fast_cnn", "--image-size", "16")
    ),
    Case("head", "", large_shape, parts(60, 60, 60), HEAD, seed=6),
    Case("head: noisy pictures", "", noisy(large_shape, 15), parts(60, 60, 100), HEAD, seed=7),
    Case(
        "head: uneven",
        "",
        large_shape,
        {"train": [90, 60, 40], "val": [60, 40, 30], "test": [90, 60, 40]},
        HEAD,
    ),
    Case("head: not divided", "", large_shape, {"": [150, 150, 150]}, HEAD, seed=8),
    Case(
        "tail", "", large_shape, parts(60, 60, 60), (*PRETRAINED, "--method", "tail", "--epochs", "2"), seed=9
    ),
    Case("full", "", large_shape, parts(60, 60, 60), FULL, seed=10),
)


def run(case: Case, folder: Path, seed: int) -> tuple[list[str], list[str], float]:
    """Kinds of all findings of the case's run, those that are warnings or errors, and its seconds."""
    data = write(folder / "photos", case.draw, case.counts, wrong=case.wrong, seed=case.seed + 100 * seed)
    said, began = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = saccade(["train", str(data), "--out", str(folder / "run"), *case.flags])
    if code:
        return [], [f"exit code {code}: {said.getvalue()}"], time.perf_counter() - began
    findings = read_facts(RunFolder(folder / "run")).findings
    bad = [f"{found.kind}: {found.message}" for found in findings if found.severity != "info"]
    return [found.kind for found in findings], bad, time.perf_counter() - began


def verdict(case: Case, kinds: Sequence[str], bad: Sequence[str]) -> bool:
    return case.kind in kinds if case.kind else not bad


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="names of cases, with commas between")
    parser.add_argument("--keep", type=Path, help="where the runs are to stay")
    parser.add_argument("--seed", type=int, default=0, help="other pictures for each case")
    chosen = parser.parse_args()
    only = {name.strip() for name in chosen.only.split(",")} - {""}
    cases = [case for case in (*ILL, *HEALTHY) if not only or case.name in only]
    right, began = {True: [0, 0], False: [0, 0]}, time.perf_counter()
    for case in cases:
        with tempfile.TemporaryDirectory() as scratch:
            folder = (chosen.keep or Path(scratch)) / case.name.replace(" ", "-")
            kinds, bad, seconds = run(case, folder, chosen.seed)
        good = verdict(case, kinds, bad)
        right[bool(case.kind)][0] += good
        right[bool(case.kind)][1] += 1
        wanted = case.kind or "healthy"
        print(
            f"{'ok  ' if good else 'MISS'} {case.name:<24} {wanted:<20} {seconds:5.1f} s  {', '.join(kinds)}"
        )
        if not good:
            print("\n".join(f"       {words}" for words in bad))
        sys.stdout.flush()
    ill, healthy = right[True], right[False]
    print(
        f"illnesses named: {ill[0]} of {ill[1]}; healthy runs not called ill: {healthy[0]} of {healthy[1]}; "
        f"{time.perf_counter() - began:.0f} s"
    )
    return int(ill[0] < ill[1] or healthy[0] < healthy[1])


if __name__ == "__main__":
    sys.exit(main())
