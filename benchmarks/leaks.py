"""Does anything that belongs together ever stand in two parts? Many seeds, the whole way: scan, audit, split.

SACCADE_DATA=DATA python benchmarks/leaks.py flowers12 [--seeds 100]   crops and mirrors made by others
SACCADE_DATA=DATA python benchmarks/leaks.py planted [--seeds 100]     5 % edited copies, new ones each seed
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from edits import EDITS, edited
from saccade.pipeline import prepare
from saccade.recipe import Recipe
from saccade.records import Split
from saccade.terminal import Terminal

QUIET = Terminal(quiet=True)
PLANTED_SHARE = 0.05


def photos(name: str) -> Path:
    root = os.environ.get("SACCADE_DATA")
    if not root:
        raise SystemExit("set SACCADE_DATA to the folder that holds the real data")
    return Path(root) / "data" / name


def examined(folder: Path) -> prepare.Examined:
    recipe = Recipe()
    return prepare.examine(prepare.list_data(str(folder), recipe), recipe, QUIET)


def divided(found: prepare.Examined, seed: int) -> Split:
    return prepare.divide(found, Recipe(seed=seed), QUIET)


def apart(made: Split, source_of: dict[str, str]) -> list[str]:
    """Derived images that stand in another part than their source."""
    part = {record.path: record.part for record in made.dataset.used()}
    return [path for path, source in source_of.items() if part.get(path) != part.get(source)]


def flowers12(folder: Path, seeds: int) -> None:
    """`train` and `derived` pooled: image_0241-center-f.jpg was made from its class's image_0241.jpg."""
    source_of = {}
    for origin in ("train", "derived"):
        for path in sorted(photos("flowers12").joinpath(origin).rglob("*.jpg")):
            label, name = path.parent.name, path.name
            target = folder / label / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            if origin == "derived":
                source_of[f"{label}/{name}"] = f"{label}/{name.split('-')[0]}.jpg"
    found = examined(folder)
    outcomes = [(divided(found, seed), seed) for seed in range(seeds)]
    wrong = [seed for made, seed in outcomes if apart(made, source_of)]
    across = sum(int(made.verified["verified_pairs_across"]) for made, _ in outcomes)
    named = sum(len(made.reasons) for made, _ in outcomes)
    print(f"{len(found.audit.dataset.used())} images, {len(source_of)} of them derived; {seeds} seeds")
    print(f"seeds in which a derived image stands apart from its source: {len(wrong)} {wrong[:10]}")
    print("  such images:", sorted({path for made, _ in outcomes for path in apart(made, source_of)})[:20])
    print(f"verified pairs across parts, by the second search: {across}; shares missed and named: {named}")


def planted(folder: Path, seeds: int) -> None:
    """Edited copies of 5 % of the photos, other photos and edits for each seed."""
    originals = sorted(photos("flowers12").joinpath("test").rglob("*.jpg"))
    for path in originals:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.parent.name / path.name)
    copies, stood_apart, across = 0, [], 0
    for seed in range(seeds):
        source_of = plant(folder, originals, seed)
        made = divided(examined(folder), seed)
        stood_apart += [f"seed {seed}: {path}" for path in apart(made, source_of)]
        across += int(made.verified["verified_pairs_across"])
        copies += len(source_of)
        for path in source_of:
            (folder / path).unlink()
    print(f"{len(originals)} photos, {copies} planted copies in {seeds} seeds, edits: {', '.join(EDITS)}")
    print(f"verified pairs across parts, by the second search: {across}")
    print(f"copies that stand apart from their source: {len(stood_apart)} {stood_apart[:20]}")


def plant(folder: Path, originals: list[Path], seed: int) -> dict[str, str]:
    """Write the copies; returns copy -> source."""
    rng = np.random.default_rng(seed)
    source_of = {}
    for number in rng.choice(len(originals), round(PLANTED_SHARE * len(originals)), replace=False):
        source, name = originals[number], str(rng.choice(list(EDITS)))
        label = source.parent.name
        copy = f"{label}/{source.stem}__{name.replace(' ', '_').replace('/', '_')}.png"
        with Image.open(source) as image:
            edited(image.convert("RGB"), name, seed).save(folder / copy)
        source_of[copy] = f"{label}/{source.name}"
    return source_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["flowers12", "planted"])
    parser.add_argument("--seeds", type=int, default=100)
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        run = flowers12 if arguments.what == "flowers12" else planted
        run(Path(folder) / "photos", arguments.seeds)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
