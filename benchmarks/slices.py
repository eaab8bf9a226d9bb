"""Are slices that do worse found, and only these? Planted among simulated images, and where there is none.

    python benchmarks/slices.py [--planted 20] [--null 200] [--images 1000]

Images have a size, a shape, brightness and contrast, one of four cameras, one of three folders, and features
in 12 clouds. One answer in ten is wrong at random; in a planted slice, 8 % of the images, it is one in two:
in turn the darkest, one camera, one folder, one cloud. It is found where the slices shown hold more than half
of the planted images, and these are more than half of theirs. In groups, four images on average belong
together: they have one camera and folder, and are more often right or wrong together. Exit code 1: less than
18 of 20 found, or a false alarm in more than 5 % of the runs without a planted slice.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.groups import Groups
from saccade.evaluation.slices import (
    Slice,
    WorseSlice,
    categories,
    clusters,
    tails,
    worse_slices,
    worth_trying,
)

PLANTED = 0.08  # of the images
WRONG, WRONG_THERE = 0.1, 0.5
IMAGES_A_GROUP, CLOUDS, WIDTH = 4, 12, 32
KINDS = ("brightness", "camera", "folder", "look")
LEAST_FOUND, MOST_ALARMS = 18 / 20, 0.05


@dataclass(frozen=True, slots=True)
class Simulated:
    """Slices to try, which images belong together, and the images of the planted slice (none: all False)."""

    slices: list[Slice]
    groups: Groups
    planted: NDArray[np.bool_]
    wrong: NDArray[np.bool_]


def simulated(images: int, seed: int, *, plant: str = "", grouped: bool = False) -> Simulated:
    """So many images; in groups, camera and folder are the group's."""
    random = np.random.default_rng([seed, grouped, KINDS.index(plant) if plant else 9])
    count = images // IMAGES_A_GROUP if grouped else images
    of = np.sort(random.integers(count, size=images)) if grouped else np.arange(images)
    _, of = np.unique(of, return_inverse=True)
    count = int(of.max()) + 1
    numbers = {name: random.normal(size=images) for name in ("size", "shape", "brightness", "contrast")}
    cloud = random.integers(1, CLOUDS, size=images)
    camera, folder = random.integers(1, 4, size=count)[of], random.integers(1, 3, size=count)[of]
    planted = np.zeros(images, bool)
    if plant == "brightness":
        planted = numbers["brightness"] <= np.quantile(numbers["brightness"], PLANTED)
    elif plant:
        chosen = random.permutation(count) < round(PLANTED * count)
        planted = chosen[of]
        {"camera": camera, "folder": folder, "look": cloud}[plant][planted] = 0
    features = 1.5 * random.normal(size=(CLOUDS, WIDTH))[cloud] + random.normal(size=(images, WIDTH))
    harder = 1.0 * random.normal(size=count)[of] if grouped else 0.0
    share = np.where(planted, WRONG_THERE, WRONG)
    wrong = np.log(share / (1 - share)) + harder > random.logistic(size=images)
    slices = [
        *(one for name, values in numbers.items() for one in tails(name, values, "least", "most")),
        *categories("camera", [f"camera {number}" for number in camera]),
        *categories("folder", [f"folder {number}" for number in folder]),
        *clusters(features.astype(np.float32), seed=seed),
    ]
    return Simulated(worth_trying(slices), Groups(of.astype(np.int64), count), planted, wrong)


def found_in(made: Simulated) -> list[WorseSlice]:
    """Slices of the simulated images that do worse."""
    return worse_slices(made.wrong, made.slices, made.groups)


def is_planted(found: list[WorseSlice], planted: NDArray[np.bool_]) -> bool:
    """Whether the slices hold more than half of the planted images, and not more others."""
    rows = np.any([one.slice.rows for one in found], axis=0) if found else np.zeros_like(planted)
    common = (rows & planted).sum()
    return bool(2 * common > planted.sum() and 2 * common > rows.sum())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--planted", type=int, default=20)
    parser.add_argument("--null", type=int, default=200)
    parser.add_argument("--images", type=int, default=1000)
    asked = parser.parse_args()
    print(f"{asked.images} images a run\n")
    print("| images | planted slice found | slices without a planted image | false alarms |")
    print("|---|--:|--:|--:|")
    enough = True
    for grouped in (False, True):
        found, others, alarms = 0, 0, 0
        for seed in range(asked.planted):
            made = simulated(asked.images, seed, plant=KINDS[seed % len(KINDS)], grouped=grouped)
            shown = found_in(made)
            found += is_planted(shown, made.planted)
            others += sum(not (one.slice.rows & made.planted).any() for one in shown)
        for seed in range(asked.null):
            alarms += bool(found_in(simulated(asked.images, seed, grouped=grouped)))
        where = "in groups" if grouped else "alone"
        print(f"| {where} | {found} of {asked.planted} | {others} | {alarms} of {asked.null} |", flush=True)
        enough &= found >= LEAST_FOUND * asked.planted and alarms <= MOST_ALARMS * asked.null
    return int(not enough)


if __name__ == "__main__":
    sys.exit(main())
