"""Images per second into the model: saccade against torchvision's ImageFolder and DataLoader.

    python benchmarks/pipeline.py PHOTOS [--images 640] [--rounds 3]

PHOTOS is a folder of class folders. Its photos are written anew as JPEGs of 500 x 375 pixels (quality 90)
into a temporary folder; each variant turns them into normalised float32 batches of 32 at 224 pixels. The
variants take turns in every round, each in a process of its own; imports, listing and hashing of the files
are left out for all. torchvision runs with 0 and with 2 worker processes (kept alive between epochs), and the
quicker one of a round counts.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from saccade.caches.pixels import PixelCache
from saccade.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from saccade.recipe import AugmentConfig
from saccade.records import ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.threads import keep_freed_memory
from saccade.transforms import Augmentation, TrainingBatches

SIZE, BATCH = 224, 32
LATER_EPOCHS = 3
SMALLEST_CROP = 0.08  # torchvision's default for RandomResizedCrop

Epochs = Callable[[int], Iterable[Any]]
# task -> what saccade is asked for; torchvision has the same changes, at the same strengths
TASKS = {
    "resize, centre crop": AugmentConfig(policy="none"),
    "random crop, flip": AugmentConfig(policy="none", random_resized_crop=SMALLEST_CROP, horizontal_flip=0.5),
    "crop, flip, rotation, brightness, contrast, saturation": AugmentConfig(),  # medium, the default
}


def write_photos(source: Path, target: Path, count: int) -> None:
    """`count` photos of `source` as JPEGs of 500 x 375, evenly over its classes."""
    folders = sorted(folder for folder in source.iterdir() if folder.is_dir())
    for folder in folders:
        (target / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[: -(-count // len(folders))]:
            photo = Image.open(file).convert("RGB").resize((500, 375), Image.Resampling.LANCZOS)
            photo.save(target / folder.name / f"{file.stem}.jpg", quality=90)


def torchvision_steps(chosen: AugmentConfig) -> list[Any]:
    """As torchvision's own ImageNet example has it, with the changes that a policy of saccade makes."""
    strength = Augmentation.from_config(chosen)
    if strength.random_resized_crop == 1:
        return [transforms.Resize(256), transforms.CenterCrop(SIZE)]
    steps: list[Any] = [
        transforms.RandomResizedCrop(SIZE, scale=(strength.random_resized_crop, 1.0)),
        transforms.RandomHorizontalFlip(strength.horizontal_flip),
    ]
    if strength.rotation:
        mean = tuple(round(255 * value) for value in IMAGENET_MEAN)
        steps.append(
            transforms.RandomRotation(
                strength.rotation, interpolation=transforms.InterpolationMode.BILINEAR, fill=mean
            )
        )
    if strength.brightness:
        steps.append(transforms.ColorJitter(strength.brightness, strength.contrast, strength.saturation))
    return steps


def torchvision_epochs(root: Path, chosen: AugmentConfig, workers: int) -> Epochs:
    """`ImageFolder` and `DataLoader` on Pillow images."""
    finish = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    images = datasets.ImageFolder(root, transforms.Compose([*torchvision_steps(chosen), *finish]))
    loader = DataLoader(
        images, BATCH, shuffle=True, num_workers=workers, persistent_workers=bool(workers), pin_memory=False
    )
    return lambda epoch: loader


def saccade_epochs(root: Path, records: list[ImageRecord], chosen: AugmentConfig, cache: Path) -> Epochs:
    """As `saccade train` has it, the cache on disk still empty."""
    batches = TrainingBatches(
        FolderStorage(root),
        records,
        sorted({record.label for record in records}),
        Preprocess(SIZE),
        BATCH,
        augmentation=Augmentation.from_config(chosen),
        seed=0,
        pixels=PixelCache(cache, 4_000_000_000),
    )
    return batches.epoch


def listed(root: Path) -> list[ImageRecord]:
    """Every photo with its hash, as a scan leaves it."""
    files = sorted(root.rglob("*.jpg"))
    return [
        ImageRecord(
            file.relative_to(root).as_posix(),
            file.parent.name,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        for file in files
    ]


def rates(make: Callable[[], Epochs], found: Any) -> None:
    """Put images per second in the first epoch, and over the later ones, into a queue."""
    keep_freed_memory()  # as `saccade train` does; torchvision may have it too
    epochs, seconds, images = make(), [], 0
    for epoch in range(1, 2 + LATER_EPOCHS):
        began = time.perf_counter()
        images = sum(len(batch[0]) for batch in epochs(epoch))
        seconds.append(time.perf_counter() - began)
    found.put((images / seconds[0], images * LATER_EPOCHS / sum(seconds[1:])))


def alone(make: Callable[[], Epochs]) -> tuple[float, float]:
    """`rates` in a process of its own, forked: nothing is imported again."""
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    process = context.Process(target=rates, args=(make, found))
    process.start()
    result: tuple[float, float] = found.get()
    process.join()
    return result


def variants(
    root: Path, records: list[ImageRecord], caches: Path
) -> Iterator[tuple[str, str, Callable[[], Epochs]]]:
    """(name, task, what makes what gives an epoch); each saccade variant begins with an empty cache."""
    for task, chosen in TASKS.items():
        cache = Path(tempfile.mkdtemp(dir=caches))
        yield "saccade", task, partial(saccade_epochs, root, records, chosen, cache)
        for workers in (0, 2):
            yield f"torchvision, {workers} workers", task, partial(torchvision_epochs, root, chosen, workers)


def measure(root: Path, rounds: int) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(task, name) -> (first, later) images per second of each round."""
    records = listed(root)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as caches:
            for name, task, make in variants(root, records, Path(caches)):
                result = alone(make)
                if number:  # the first round warms files, code and memory up
                    found.setdefault((task, name), []).append(result)
    return found


def spread(values: list[float]) -> str:
    """Median, smallest and largest."""
    digits = 1 if statistics.median(values) < 100 else 0
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def table(found: dict[tuple[str, str], list[tuple[float, float]]]) -> str:
    """A row a variant: images per second, and how many times the quicker torchvision of the same round."""
    lines = ["| task | variant | first epoch | times | later epochs | times |", "|---|---|---|---|---|---|"]
    for (task, name), results in found.items():
        rivals = [values for (other, who), values in found.items() if other == task and "torchv" in who]
        best = [[max(values[i][e] for values in rivals) for i in range(len(results))] for e in (0, 1)]
        cells = []
        for epoch in (0, 1):
            mine = [result[epoch] for result in results]
            ratio = [own / rival for own, rival in zip(mine, best[epoch], strict=True)]
            cells += [spread(mine), "" if "torchv" in name else spread(ratio)]
        lines.append(f"| {task} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        write_photos(arguments.photos, folder / "photos", arguments.images)
        print(table(measure(folder / "photos", arguments.rounds)))
        print(f"\n{arguments.images} photos, {arguments.rounds} rounds, torch {torch.__version__}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
