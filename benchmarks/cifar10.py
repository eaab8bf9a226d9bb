"""Small images from scratch: accuracy on held-out images against seconds since the command was typed.

    python -m benchmarks.cifar10 CIFAR10_FOLDER --minutes 15 --out cifar10-bench

CIFAR10_FOLDER has train/ and test/ with a folder a class. Every tenth training image validates; saccade
judges the test part once at its end. Systems run one after the other, each alone, imports included; each is
started once before (for a few seconds) so that byte code is warm. Writes curves.csv and curves.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.cifar10_rivals import RIVALS

HELD_OUT = 10  # every so many-th training image validates
POLL_SECONDS = 0.25
WARM_IMAGES = 20  # a class and part, in the start before the timed one
Point = tuple[float, float]


def write_list(data: Path, listing: Path, limit: int) -> None:
    """path,label,part of every image, the paths below `listing`'s folder (a link leads to `data`)."""
    link = listing.parent / "images"
    if not link.exists():
        link.symlink_to(data.resolve(), target_is_directory=True)
    with listing.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "part"])
        for part in ("train", "test"):
            for folder in sorted((data / part).iterdir()):
                for number, image in enumerate(sorted(folder.iterdir())[: limit or None]):
                    held = part == "train" and number % HELD_OUT == 0
                    path = f"images/{part}/{folder.name}/{image.name}"
                    writer.writerow([path, folder.name, "validation" if held else part])


def run_rival(name: str, listing: Path, out: Path, seconds: float) -> list[Point]:
    """The curve of one rival, trained in a process of its own."""
    curve = out / "rival.csv"
    curve.unlink(missing_ok=True)
    arguments = [name, str(listing), str(curve), str(seconds), str(time.monotonic())]
    subprocess.run([sys.executable, "-m", "benchmarks.cifar10_rivals", *arguments], check=True)
    rows = [line.split(",") for line in curve.read_text().splitlines()]
    return [(float(when), float(value)) for when, value in rows]


def run_saccade(listing: Path, out: Path, seconds: float, flags: list[str]) -> list[Point]:
    """The curve of `saccade train`: each epoch's accuracy at the moment it stands in history.jsonl."""
    run, caches = out / "saccade", out / "caches"
    for left in (run, caches):  # measurements of an earlier run would be found again
        shutil.rmtree(left, ignore_errors=True)
    command = [str(Path(sys.executable).parent / "saccade"), "train", str(listing), "--out", str(run)]
    command += ["--backbone", "fast_cnn", "--time-limit", str(int(seconds)), *flags]
    print(" ".join(command), flush=True)
    began = time.monotonic()
    points: list[Point] = []
    with (out / "saccade.log").open("w") as log:
        environment = {**os.environ, "SACCADE_CACHE": str(caches.resolve())}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            points += new_points(run, len(points), time.monotonic() - began)
    took = time.monotonic() - began
    print(f"saccade: exit code {process.returncode} after {took:.0f} s")
    for part in ("validation", "test"):
        metrics = run / "metrics" / f"{part}.json"
        if metrics.exists():
            print(f"saccade: {part} {json.loads(metrics.read_text())['accuracy']}")
    return points


def new_points(run: Path, known: int, seconds: float) -> list[Point]:
    history = run / "history.jsonl"
    lines = history.read_text().splitlines()[known:] if history.exists() else []
    return [(seconds, json.loads(line)["validation_accuracy"]) for line in lines]


def draw(curves: dict[str, list[Point]], picture: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, points in curves.items():
        best = 0.0
        steps = [(seconds, best := max(best, 100 * value)) for seconds, value in points]
        axes.step(*zip(*steps, strict=True), where="post", marker=".", label=name)
    axes.set(
        xlabel="seconds since the command was typed", ylabel="best validation accuracy so far, %", title=title
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="a part of a system's name")
    parser.add_argument("--limit", type=int, default=0, help="images a class and part; 0: all")
    parser.add_argument("--flags", default="", help="further flags of saccade train, one text")
    chosen = parser.parse_args()
    chosen.flags = chosen.flags.split()
    curves: dict[str, list[Point]] = {}
    for name in ("saccade fast_cnn", *RIVALS):
        if chosen.only.lower() not in name.lower():
            continue
        measure(name, chosen, chosen.out / "warm", images=WARM_IMAGES, seconds=1.0)
        curves[name] = measure(name, chosen, chosen.out, images=chosen.limit, seconds=60 * chosen.minutes)
        print(name, curves[name], flush=True)
        write_curves(curves, chosen.out)


def measure(name: str, chosen: argparse.Namespace, out: Path, *, images: int, seconds: float) -> list[Point]:
    """The curve of one system on so many images a class and part (0: all)."""
    out.mkdir(parents=True, exist_ok=True)
    listing = out / "list.csv"
    write_list(chosen.data, listing, images)
    if name in RIVALS:
        return run_rival(name, listing, out, seconds)
    return run_saccade(listing, out, seconds, chosen.flags)


def write_curves(curves: dict[str, list[Point]], out: Path) -> None:
    with (out / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["system", "seconds", "validation_accuracy"])
        writer.writerows((name, f"{s:.1f}", f"{v:.4f}") for name, points in curves.items() for s, v in points)
    draw(
        {name: points for name, points in curves.items() if points},
        out / "curves.png",
        "CIFAR-10 from scratch",
    )


if __name__ == "__main__":
    main()
