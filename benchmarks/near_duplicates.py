"""How many near-duplicates are found, how many false ones, in what time and memory.

    SACCADE_DATA=DATA python benchmarks/near_duplicates.py cifar10 [--out FOLDER] [--workers 2]
    SACCADE_DATA=DATA python benchmarks/near_duplicates.py edits [--photos 1000] [--out FOLDER]
    SACCADE_DATA=DATA python benchmarks/near_duplicates.py flowers12
    python benchmarks/near_duplicates.py million [--largest 1000000]
    python benchmarks/near_duplicates.py traps

`--out` writes pairs side by side as one picture. Every figure is printed with the number it rests on.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import platform
import resource
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edits import EDITS, edited
from saccade.near_duplicates import (
    CERTAIN_SCORE,
    LIKELY_SCORE,
    Descriptions,
    PairIndices,
    cluster,
    cross_check,
    describe,
    describe_many,
    find_pairs,
    stack,
)

Pixels = NDArray[np.uint8]


def data(name: str) -> Path:
    root = os.environ.get("SACCADE_DATA")
    if not root:
        raise SystemExit("set SACCADE_DATA to the folder that holds the real data")
    return Path(root) / "data" / name if (Path(root) / "data").is_dir() else Path(root) / name


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints wall time, processor time, and the most memory this process ever had."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {wall:.1f} s wall, {cpu:.1f} s processor, peak {peak:.0f} MB", flush=True)


def follow(done: int, total: int, detail: str = "") -> None:
    print(f"  {time.perf_counter():9.1f} {done}/{total} {detail}", flush=True)


def conditions() -> str:
    import faiss

    load = os.getloadavg()[0]
    versions = f"numpy {np.__version__}, faiss {faiss.__version__}"
    return f"{os.cpu_count()} cores, load {load:.1f}, {versions}, {platform.machine()}"


def opened(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def show_pairs(file: Path, pairs: Sequence[tuple[Image.Image, Image.Image, str]], *, side: int = 96) -> None:
    """The pairs side by side, eight in a row, each with its text."""
    columns = 8
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * (2 * side + 8), rows * (side + 14)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (first, second, text) in enumerate(pairs):
        x, y = number % columns * (2 * side + 8), number // columns * (side + 14)
        sheet.paste(first.resize((side, side)), (x, y))
        sheet.paste(second.resize((side, side)), (x + side + 1, y))
        draw.text((x, y + side), text[: side // 3], fill="black")
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)
    print(f"{len(pairs)} pairs: {file}")


# --- CIFAR-10 ---------------------------------------------------------------------------------------------


def cifar10(arguments: argparse.Namespace) -> None:
    """Recall on the listed test-train pairs, and how many test images outside the list are flagged."""
    print(conditions())
    with zipfile.ZipFile(data("cifar10.zip")) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        with timed(f"read and described {len(names)} images"):
            read = (Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names)
            descriptions = stack([describe(np.asarray(image)) for image in read])
        with timed(f"pairs among {len(descriptions)} images"):
            pairs = find_pairs(descriptions, workers=arguments.workers, progress=follow)
        report_cifar10([name.removeprefix("cifar10/") for name in names], pairs)
        parts = [name.split("/")[1] for name in names]
        with timed("second search, test against train"):
            check = cross_check(descriptions, parts, workers=arguments.workers)
        report_check(check.verified, check.unresolved, pairs, check.compared)
        if arguments.out:
            show_cifar10(arguments.out, archive, names, pairs)


def listed_pairs() -> dict[tuple[str, str], str]:
    with data("cifar10_duplicates.csv").open(newline="") as file:
        return {(row["test_file"], row["train_file"]): row["judgment"] for row in csv.DictReader(file)}


def report_cifar10(names: Sequence[str], pairs: Sequence[PairIndices]) -> None:
    listed = listed_pairs()
    print(f"pairs by band: {dict(Counter(pair.band for pair in pairs))}")
    across = {}
    for pair in pairs:
        test, train = sorted((names[pair.first], names[pair.second]))
        if test.startswith("test/") and train.startswith("train/"):
            across[test, train] = pair
    for label, least in (("certain", CERTAIN_SCORE), ("certain or likely", LIKELY_SCORE)):
        found = {key for key, pair in across.items() if pair.score >= least}
        flagged = {test for test, _ in found}
        outside = flagged - {test for test, _ in listed}
        texts = [f"{label}: {len(flagged)} test images flagged, {len(outside)} of them outside the list"]
        for judgment in ("1", "2"):
            wanted = [key for key, value in listed.items() if value == judgment]
            hits = sum(key in found for key in wanted)
            texts.append(f"judgment {judgment} {hits} of {len(wanted)} ({hits / len(wanted):.1%})")
        print("; ".join(texts))
    groups = cluster(len(names), pairs)
    sizes = np.bincount(groups.labels)
    together = (sizes[groups.labels] > 1).sum()
    print(f"{(sizes > 1).sum()} clusters of {together} images, largest {sizes.max()}; notes: {groups.notes}")


def report_check(
    verified: Sequence[PairIndices],
    unresolved: Sequence[PairIndices],
    pairs: Sequence[PairIndices],
    count: int,
) -> None:
    known = {(pair.first, pair.second) for pair in pairs if pair.band != "look"}
    new = [pair for pair in verified if (pair.first, pair.second) not in known]
    print(
        f"{count} pairs compared, {len(verified)} verified across parts, {len(new)} of them not found "
        f"by the first search, {len(unresolved)} unresolved"
    )


def show_cifar10(
    out: Path, archive: zipfile.ZipFile, names: Sequence[str], pairs: Sequence[PairIndices]
) -> None:
    """The weakest, a middle and the strongest hundred flagged test images outside the list."""
    listed = {test for test, _ in listed_pairs()}
    best: dict[str, PairIndices] = {}
    for pair in pairs:
        test, train = names[pair.first].removeprefix("cifar10/"), names[pair.second]
        unlisted = test.startswith("test/") and "/train/" in train and test not in listed
        if unlisted and pair.band != "look" and (test not in best or pair.score > best[test].score):
            best[test] = pair
    ranked = sorted(best.values(), key=lambda pair: -pair.score)

    def picture(number: int) -> Image.Image:
        return Image.open(io.BytesIO(archive.read(names[number]))).convert("RGB")

    for first in sorted({0, max(0, len(ranked) // 2 - 50), max(0, len(ranked) - 100)}):
        shown = ranked[first : first + 100]
        sheet = [(picture(p.first), picture(p.second), f"{p.score:.1f} {p.how}") for p in shown]
        show_pairs(out / f"cifar10-rank-{first:03d}.png", sheet)


# --- edited copies ----------------------------------------------------------------------------------------


def edits(arguments: argparse.Namespace) -> None:
    """Photos of `flowers5` reduced to 128 pixels on the shorter side, and every edit of each, in one pool."""
    print(conditions())
    photos, pool = edited_pool(arguments.photos)
    names = ["original", *EDITS]
    descriptions = Descriptions.concatenate([pool[name] for name in names])
    with timed(f"pairs among {len(descriptions)} images ({len(photos)} photos)"):
        pairs = find_pairs(descriptions, workers=arguments.workers, progress=follow)
    report_edits(pool, pairs, len(photos), arguments.workers)
    foreign = false_pairs(pairs, len(photos))
    print(f"\n{len(foreign)} pairs of different photos are verified (certain or likely), best score first:")
    for (first, second), (pair, count) in sorted(foreign.items(), key=lambda item: -item[1][0].score):
        kinds = f"{names[pair.first // len(photos)]} / {names[pair.second // len(photos)]}"
        print(
            f"  {photos[first].name} {photos[second].name} {pair.score} {pair.how} ({kinds}; {count} pairs)"
        )
    if arguments.out and foreign:
        sheet = [
            (opened(photos[a]), opened(photos[b]), f"{pair.score:.1f} {pair.how}")
            for (a, b), (pair, _) in foreign.items()
        ]
        show_pairs(arguments.out / "edits-different-photos.png", sheet)


def edited_pool(count: int) -> tuple[list[Path], dict[str, Descriptions]]:
    """The photos, and descriptions by the name of the edit, one row a photo."""
    photos = sorted(data("flowers5/train").rglob("*.jpg"))
    photos = photos[:: max(1, len(photos) // count)][:count]
    rows: dict[str, list[Pixels]] = {name: [] for name in ("original", *EDITS)}
    described = {name: [] for name in rows}
    seconds = 0.0
    for seed, path in enumerate(photos):
        image = opened(path)
        scale = 128 / min(image.size)
        size = (round(image.size[0] * scale), round(image.size[1] * scale))
        small = image.resize(size, Image.Resampling.BICUBIC)
        for name in described:
            pixels = np.asarray(small if name == "original" else edited(small, name, seed))
            started = time.process_time()
            described[name].append(describe(pixels))
            seconds += time.process_time() - started
    print(f"described: {seconds / len(photos) / len(described) * 1000:.2f} ms of processor time an image")
    return photos, {name: stack(each) for name, each in described.items()}


def report_edits(
    pool: dict[str, Descriptions], pairs: Sequence[PairIndices], count: int, workers: int
) -> None:
    labels = cluster(count * len(pool), pairs).labels.reshape(len(pool), count)
    scores = {(pair.first, pair.second): pair.score for pair in pairs}
    print(f"\nn = {count} photos; alone: verified against its original in a pool of originals and this edit")
    print("| edit | in the cluster of its original | alone: likely or better | alone: certain |")
    print("|---|---|---|---|")
    for number, name in enumerate(pool):
        if name == "original":
            continue
        two = Descriptions.concatenate([pool["original"], pool[name]])
        scores = {(pair.first, pair.second): pair.score for pair in find_pairs(two, workers=workers)}
        own = np.array([scores.get((i, i + count), 0.0) for i in range(count)])
        together = (labels[number] == labels[0]).mean()
        likely, certain = (own >= LIKELY_SCORE).mean(), (own >= CERTAIN_SCORE).mean()
        print(f"| {name} | {together:.1%} | {likely:.1%} | {certain:.1%} |", flush=True)


def false_pairs(pairs: Sequence[PairIndices], count: int) -> dict[tuple[int, int], tuple[PairIndices, int]]:
    """(photo, photo) to the best pair of copies of them, and how many pairs of copies there are."""
    found: dict[tuple[int, int], tuple[PairIndices, int]] = {}
    for pair in pairs:
        first, second = sorted((pair.first % count, pair.second % count))
        if first == second or pair.band == "look":
            continue
        best, number = found.get((first, second), (pair, 0))
        found[first, second] = (max(best, pair, key=lambda each: each.score), number + 1)
    return found


# --- flowers12 --------------------------------------------------------------------------------------------


def flowers12(arguments: argparse.Namespace) -> None:
    """Crops and mirrors that others made from `flowers12/train`, pooled with it."""
    print(conditions())
    files = [
        *sorted(data("flowers12/train").rglob("*.jpg")),
        *sorted(data("flowers12/derived").rglob("*.jpg")),
    ]
    with timed(f"pairs among {len(files)} images"):
        descriptions = describe_many([np.asarray(opened(path)) for path in files])
        pairs = find_pairs(descriptions, workers=arguments.workers)
    groups = cluster(len(files), pairs)
    sources = {
        (path.parent.name, path.stem): i for i, path in enumerate(files) if path.parent.parent.name == "train"
    }
    direct = {(pair.first, pair.second) for pair in pairs if pair.band != "look"}
    derived = [i for i, path in enumerate(files) if path.parent.parent.name == "derived"]
    source = [sources[files[i].parent.name, files[i].stem.split("-")[0]] for i in derived]
    beside = sum(groups.labels[i] == groups.labels[j] for i, j in zip(derived, source, strict=True))
    verified = sum((j, i) in direct for i, j in zip(derived, source, strict=True))
    print(
        f"{beside} of {len(derived)} derived images in the cluster of their source, "
        f"{verified} verified with it"
    )
    print(f"largest cluster {np.bincount(groups.labels).max()}; notes: {groups.notes}")
    for i, j in zip(derived, source, strict=True):
        if groups.labels[i] != groups.labels[j]:
            print(f"  apart: {files[i].name} and {files[j].name}")


# --- a million --------------------------------------------------------------------------------------------


def million(arguments: argparse.Namespace) -> None:
    """Time and memory of one search among random unit vectors, and what the inverted lists miss."""
    from saccade.near_duplicates.pairs import running

    print(conditions())
    with running(arguments.workers):
        growth(arguments.largest)


def growth(largest: int) -> None:
    from saccade.near_duplicates.candidates import inverted_lists, missed_share

    print("| images | build s | search s | s per doubling | missed of planted neighbours | peak MB |")
    print("|---|---|---|---|---|---|")
    before, count = 0.0, largest // 8
    while count <= largest:
        rng = np.random.default_rng(count)
        vectors = rng.standard_normal((count, 64), dtype=np.float32)
        copies = vectors[: count // 20] + 0.5 * rng.standard_normal((count // 20, 64), dtype=np.float32)
        vectors[-len(copies) :] = copies  # cosine about 0.9 to their originals
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        halves = vectors.astype(np.float16)
        del vectors, copies
        started = time.perf_counter()
        index = inverted_lists(halves)
        built = time.perf_counter()
        for first in range(0, count, 16_384):
            index.search(halves[first : first + 16_384].astype(np.float32), 11)
        seconds = time.perf_counter() - built
        missed = missed_share(index, halves, asked=2000)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        times = f"x {(seconds + built - started) / before:.2f}" if before else ""
        before = seconds + built - started
        print(
            f"| {count:,} | {built - started:.1f} | {seconds:.1f} | {times} | {missed:.2%} | {peak:.0f} |",
            flush=True,
        )
        count *= 2


# --- where it may see copies that are none ----------------------------------------------------------------


def traps(arguments: argparse.Namespace) -> None:
    """Different pictures that are alike by nature; every pair found among them is a false one."""
    print(conditions())
    for name, make in TRAPS.items():
        images = make(np.random.default_rng(0))
        pairs = find_pairs(describe_many(images), workers=arguments.workers)
        bands = Counter(pair.band for pair in pairs)
        largest = np.bincount(cluster(len(images), pairs).labels).max()
        print(f"{name}: n = {len(images)}, {dict(bands)}, largest cluster {largest}", flush=True)


def digits(rng: np.random.Generator) -> list[Pixels]:
    from sklearn.datasets import load_digits

    gray = np.clip(load_digits().images * 15.9, 0, 255).astype(np.uint8)
    return [np.repeat(image[..., None], 3, axis=2) for image in gray]


def documents(rng: np.random.Generator, count: int = 500) -> list[Pixels]:
    from PIL import ImageFont

    words = (
        "of",
        "the",
        "and",
        "to",
        "in",
        "for",
        "total",
        "sum",
        "date",
        "amount",
        "payment",
        "page",
        "order",
    )
    font = ImageFont.load_default(size=8)
    pages = []
    for _ in range(count):
        page = Image.new("RGB", (210, 297), "white")
        draw = ImageDraw.Draw(page)
        for line in range(15, 280, 11):
            draw.text((12, line), " ".join(rng.choice(words, 8))[:38], fill="black", font=font)
        pages.append(np.asarray(page))
    return pages


def lungs(rng: np.random.Generator, count: int = 500, side: int = 128) -> list[Pixels]:
    """The same two soft shapes, slightly moved, with different texture."""
    y, x = np.mgrid[0:side, 0:side] / side
    pictures = []
    for _ in range(count):
        shift = rng.normal(0, 0.01, 2)
        picture = sum(
            120 * np.exp(-((x - centre - move) ** 2 / 0.02 + (y - 0.5) ** 2 / 0.09))
            for centre, move in zip((0.3, 0.7), shift, strict=True)
        )
        texture = Image.fromarray(rng.normal(size=(side // 8, side // 8)).astype(np.float32))
        picture = picture + 15 * np.asarray(texture.resize((side, side), Image.Resampling.BICUBIC))
        gray = np.clip(picture + rng.normal(0, 4, (side, side)), 0, 255).astype(np.uint8)
        pictures.append(np.repeat(gray[..., None], 3, axis=2))
    return pictures


def products(rng: np.random.Generator, count: int = 500, side: int = 128) -> list[Pixels]:
    """A disc or box of one colour with three spots, on white."""
    pictures = []
    for _ in range(count):
        image = Image.new("RGB", (side, side), "white")
        draw = ImageDraw.Draw(image)
        across, down = rng.uniform(0.25, 0.35, 2) * side
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        box = (side / 2 - across, side / 2 - down, side / 2 + across, side / 2 + down)
        shape(box, fill=tuple(rng.integers(0, 200, 3).tolist()))
        for left, top in rng.uniform(0.35, 0.6, (3, 2)) * side:
            draw.ellipse((left, top, left + 12, top + 12), fill=tuple(rng.integers(0, 255, 3).tolist()))
        pictures.append(np.asarray(image))
    return pictures


def noise_pictures(rng: np.random.Generator, count: int = 500) -> list[Pixels]:
    return list(rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))


TRAPS: dict[str, Callable[[np.random.Generator], list[Pixels]]] = {
    "digits, 8 x 8 pixels": digits,
    "pages of text": documents,
    "the same anatomy": lungs,
    "one shape on white": products,
    "noise": noise_pictures,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for run in (cifar10, edits, flowers12, million, traps):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.add_argument("--out", type=Path, default=None)
        command.add_argument("--workers", type=int, default=2)
        command.add_argument("--photos", type=int, default=1000)
        command.add_argument("--largest", type=int, default=1_000_000)
        command.set_defaults(run=run)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
