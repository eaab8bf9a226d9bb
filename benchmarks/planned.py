"""Is `saccade plan` right? What it says of three data sets on this machine, and what the clock says.

    python benchmarks/planned.py SHARED [--work DIR] [--images 400,1200,2200] [--rounds 1]

SHARED is the folder with data/flowers5 and data/flowers12, whose photos are copied into one folder of 17
classes, as many as --images says. For each: `saccade index`, `saccade plan --machines 1 --cores N`, then
audit, train --method head and predict, each as a process of its own with empty caches. Seconds by the clock
need a machine on which nothing else runs; core seconds do not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from saccade.threads import available_cores

Seconds = tuple[float, float]  # by the clock, of cores
SETS = ("flowers5/train", "flowers5/val", "flowers12/train", "flowers12/test")


def copy_photos(shared: Path, count: int, to: Path) -> None:
    """Every k-th photo of all, below class folders."""
    photos = sorted(photo for name in SETS for photo in (shared / "data" / name).rglob("*.jpg"))
    for number in range(count):
        photo = photos[number * len(photos) // count]
        place = to / photo.parent.name / f"{photo.parent.parent.name}_{photo.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, place)


def clocked(*words: object, cache: Path) -> tuple[float, float]:
    """Seconds of a saccade command by the clock and of cores; a finding (exit 1) is no failure."""
    environment = {**os.environ, "SACCADE_CACHE": str(cache)}
    command = [sys.executable, "-m", "saccade", *map(str, words)]
    began, before = time.monotonic(), core_seconds()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return time.monotonic() - began, core_seconds() - before


def core_seconds() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def one_set(shared: Path, count: int, work: Path) -> list[tuple[str, Seconds, Seconds]]:
    """(stage, what the plan says, what it took), both by the clock and of cores."""
    photos, listed, planned = work / "photos", work / "manifest.parquet", work / "plan.json"
    copy_photos(shared, count, photos)
    clocked("index", photos, "--out", listed, cache=work / "cache")
    cores = ("--machines", 1, "--cores", available_cores())
    clocked("plan", listed, *cores, "--out", planned, cache=work / "cache")
    said = {
        stage["name"]: (stage["seconds"], stage["core_seconds"])
        for stage in json.loads(planned.read_text())["stages"]
    }
    model = work / "run/export/model.onnx"
    took = {
        "audit": clocked("audit", listed, cache=work / "cache1"),
        "train --method head": clocked(
            "train", listed, "--method", "head", "--out", work / "run", cache=work / "cache2"
        ),
        "predict": clocked(
            "predict", model, listed, "--out", work / "answers.parquet", cache=work / "cache3"
        ),
    }
    return [(stage, said[stage], seconds) for stage, seconds in took.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--images", default="400,1200,2200")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args(arguments)
    heads = ("images", "stage", "plan", "clock", "plan / clock", "core seconds: plan, used")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for _ in range(options.rounds):
        for count in map(int, options.images.split(",")):
            with tempfile.TemporaryDirectory(dir=options.work) as work:
                for stage, said, took in one_set(options.shared, count, Path(work)):
                    print(
                        f"| {count:,} | {stage} | {said[0]:.1f} s | {took[0]:.1f} s "
                        f"| {said[0] / took[0]:.2f} | {said[1]:.1f}, {took[1]:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
