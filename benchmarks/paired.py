"""How often the interval of `saccade compare` holds the true difference, and how often its test is wrong.

    python benchmarks/paired.py [--datasets 2000] [--images 300]

Two classifiers answer the same images; some images are hard for both. In groups, five images show the same
patient, and some patients are hard for one classifier alone. The truth is the difference on 400,000 images.
Two equally good classifiers are to be called different in at most 5 %. The last column ignores the groups, as
most tools do. Exit code 1: a coverage below 93 %, or false alarms above 6 % (5 and the noise of 2,000 draws).
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.compare import Comparison, compare_answers
from saccade.evaluation.groups import Groups

IMAGES_A_GROUP, TRUTH_IMAGES = 5, 400_000
CASES = {"equally good": (1.75, 1.75), "one a little better": (1.75, 2.05), "two weak ones": (0.35, 0.75)}


def answered(
    images: int, skills: tuple[float, float], *, grouped: bool, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Groups]:
    """Which of so many images each of the two classifiers names right, and the groups they are in."""
    random = np.random.default_rng([seed, grouped])
    of = np.arange(images) // IMAGES_A_GROUP if grouped else np.arange(images)
    hard = random.normal(size=images)
    own = random.normal(size=(2, int(of.max()) + 1))[:, of] if grouped else np.zeros((2, images))
    noise = random.normal(scale=0.6, size=(2, images))
    right = [skill + hard + side + each > 0 for skill, side, each in zip(skills, own, noise, strict=True)]
    return right[0], right[1], Groups(of, int(of.max()) + 1)


def compared(
    images: int, skills: tuple[float, float], *, grouped: bool, seed: int, ignored: bool
) -> Comparison:
    first, second, groups = answered(images, skills, grouped=grouped, seed=seed)
    return compare_answers(first, second, Groups.alone(images) if ignored else groups)


def row(
    skills: tuple[float, float], datasets: int, images: int, *, grouped: bool, ignored: bool
) -> tuple[float, float]:
    """Share of the data sets whose interval holds the truth, and of those whose test calls it real."""
    first, second, _ = answered(TRUTH_IMAGES, skills, grouped=grouped, seed=0)
    true = float(first.mean() - second.mean()) if skills[0] != skills[1] else 0.0
    found = [
        compared(images, skills, grouped=grouped, seed=seed, ignored=ignored)
        for seed in range(1, datasets + 1)
    ]
    held = [one.difference.low <= true <= one.difference.high for one in found]
    return float(np.mean(held)), float(np.mean([one.real for one in found]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets", type=int, default=2000)
    parser.add_argument("--images", type=int, default=300)
    asked = parser.parse_args()
    ways = {"alone": (False, False), "in groups": (True, False), "groups ignored": (True, True)}
    print(f"{asked.datasets:,} data sets of {asked.images} images: coverage in %, and called real in %\n")
    print(f"| classifiers | {' | '.join(ways)} |\n|---{'|--:' * len(ways)}|")
    wrong = []
    for name, skills in CASES.items():
        cells = []
        for way, (grouped, ignored) in ways.items():
            held, real = row(skills, asked.datasets, asked.images, grouped=grouped, ignored=ignored)
            cells.append(f"{100 * held:.1f}, {100 * real:.1f}")
            if not ignored and (held < 0.93 or (skills[0] == skills[1] and real > 0.06)):
                wrong.append(f"{name}, {way}")
        print(f"| {name} | {' | '.join(cells)} |")
    if wrong:
        print(f"\noutside: {'; '.join(wrong)}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
