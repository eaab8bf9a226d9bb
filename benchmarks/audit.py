"""Audit of photos: time, memory and what is found, beside cleanvision and imagededup; CIFAR-10 whole.

    python benchmarks/audit.py flowers DATA/flowers5 --cleanvision PY --imagededup PY --rounds 3
    python benchmarks/audit.py planted DATA/flowers5 --cleanvision PY --imagededup PY
    python benchmarks/audit.py whole DATA/cifar10            (a folder with train/ and test/)

PY are the Python interpreters of environments that hold those packages (each its own: they pin other
versions). Every run is a process of its own, imports included; the tools take turns within each round.
imagededup runs its PHash, found over the whole folder; its CNN needs weights from a hub.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

SACCADE = """
import json, sys
from pathlib import Path
from saccade.audit import audit
from saccade.audit.scan import scan
from saccade.sources import load_source
found = audit(*scan(load_source(sys.argv[1]))).findings
kinds = {}
for finding in found:
    kinds.setdefault(finding.kind, []).extend(finding.paths)
print(json.dumps(kinds))
"""
CLEANVISION = """
import contextlib, io, json, os, sys
from cleanvision import Imagelab
with contextlib.redirect_stdout(io.StringIO()):
    lab = Imagelab(data_path=sys.argv[1])
    lab.find_issues()
root = os.path.abspath(sys.argv[1])
kinds = {}
for column in lab.issues.columns:
    if column.endswith("_issue"):
        rows = lab.issues.index[lab.issues[column]]
        kinds[column[3:-6]] = [os.path.relpath(path, root) for path in rows]
print(json.dumps(kinds))
"""
IMAGEDEDUP = """
import json, sys
from imagededup.methods import PHash
found = PHash(verbose=False).find_duplicates(image_dir=sys.argv[1], recursive=True)
print(json.dumps({"duplicates": [path for path, others in found.items() if others]}))
"""
WHOLE = """
import json, resource, sys, time
start = time.perf_counter()
from saccade.audit import SecondSearch, audit
from saccade.audit.findings import NO_DECISIONS
from saccade.audit.scan import scan
from saccade.sources import load_source
from saccade.split import split
clock = {}
def lap(name):
    global start
    clock[name], start = time.perf_counter() - start, time.perf_counter()
data = load_source(sys.argv[1])
lap("imports and listing")
scanned = scan(data)
lap("scan")
audited = audit(*scanned)
lap("audit")
made = split(audited, cross_check=SecondSearch(audited, scanned.measurements, NO_DECISIONS))
lap("split and second search")
kinds = {}
for finding in audited.findings:
    kinds[finding.kind] = kinds.get(finding.kind, 0) + 1
print(json.dumps({"seconds": clock, "findings": kinds, "crossing": len(made.crossing),
                  "verified": dict(made.verified), "images": len(data.records)}, default=str))
"""


@dataclass(frozen=True)
class Run:
    """One process: what it printed as JSON, and what it cost, children included."""

    output: dict[str, object]
    wall_seconds: float
    cpu_seconds: float
    peak_mb: float


def run(python: str, code: str, data: Path) -> Run:
    """Run `code` in its own process; peak memory is of its largest moment, all its processes together."""
    started = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [python, "-c", code, str(data)], stdout=output, stderr=errors, env=environment
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _resident_mb(process.pid))
            time.sleep(0.2)
        usage = os.times()
        wall = time.perf_counter() - started
        if process.returncode:
            errors.seek(0)
            raise SystemExit(errors.read()[-2000:])
        output.seek(0)
        values = json.loads(output.read().strip().splitlines()[-1])
    cpu = usage.children_user + usage.children_system
    return Run(values, wall, cpu, peak)


def _resident_mb(pid: int) -> float:
    """Memory of a process and all below it; shared pages count once a process (an upper bound)."""
    total, waiting = 0.0, [pid]
    while waiting:
        current = waiting.pop()
        try:
            status = Path(f"/proc/{current}/statm").read_text().split()
            total += int(status[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
            for thread in Path(f"/proc/{current}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except (OSError, IndexError):
            continue
    return total


def tools(arguments: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Name -> (interpreter, code) of the tools that were given."""
    found = {"saccade": (sys.executable, SACCADE)}
    if arguments.cleanvision:
        found["cleanvision"] = (arguments.cleanvision, CLEANVISION)
    if arguments.imagededup:
        found["imagededup"] = (arguments.imagededup, IMAGEDEDUP)
    return found


def flowers(arguments: argparse.Namespace) -> None:
    """Time and memory of each tool on the same folder, in turn, after one run that warms the disk's cache."""
    results: dict[str, list[Run]] = {name: [] for name in tools(arguments)}
    for turn in range(arguments.rounds + 1):
        before = os.times()
        for name, (python, code) in tools(arguments).items():
            done = run(python, code, arguments.data)
            spent = done.cpu_seconds - before.children_user - before.children_system
            before = os.times()
            if turn:
                results[name].append(Run(done.output, done.wall_seconds, spent, done.peak_mb))
    print("| tool | wall s, median (range) | CPU s, median | peak MB | found |")
    print("|---|---|---|---|---|")
    for name, runs in results.items():
        walls = [each.wall_seconds for each in runs]
        counts = ", ".join(f"{kind} {len(paths)}" for kind, paths in runs[0].output.items() if paths)
        print(
            f"| {name} | {statistics.median(walls):.1f} ({min(walls):.1f}-{max(walls):.1f}) "
            f"| {statistics.median(each.cpu_seconds for each in runs):.1f} "
            f"| {max(each.peak_mb for each in runs):.0f} | {counts} |"
        )
    print(f"n = {arguments.rounds}; {conditions()}")


# -- planted faults ------------------------------------------------------------------------------

Plant = Callable[[Image.Image], Image.Image]

PLANTS: dict[str, Plant] = {
    "mirrored": ImageOps.mirror,
    "cropped to 87 %": lambda im: im.crop((int(im.width * 0.13), 0, im.width, int(im.height * 0.87))),
    "half the size": lambda im: im.resize((im.width // 2, im.height // 2)),
    "gray": lambda im: im.convert("L").convert("RGB"),
    "white border 10 %": lambda im: ImageOps.expand(im, im.width // 10, (255, 255, 255)),
    "blurred by 1.5 %": lambda im: im.filter(ImageFilter.GaussianBlur(max(im.size) * 0.015)),
    "darkened to 8 %": lambda im: im.point(lambda level: level * 0.08),
    "one colour": lambda im: Image.new("RGB", im.size, (200, 180, 40)),
    "a strip": lambda im: im.crop((0, im.height // 2, im.width, im.height // 2 + im.width // 12)),
}
COPIES = {
    "saccade": ("near_duplicates", "near_duplicate_conflict", "identical_files", "identical_pixels", "leak"),
    "cleanvision": ("exact_duplicates", "near_duplicates"),
    "imagededup": ("duplicates",),
}
MEANT = {
    "blurred by 1.5 %": {"saccade": ("blurred",), "cleanvision": ("blurry",)},
    "darkened to 8 %": {"saccade": ("too_dark",), "cleanvision": ("dark",)},
    "one colour": {"saccade": ("blank",), "cleanvision": ("low_information",)},
    "a strip": {"saccade": ("odd_aspect",), "cleanvision": ("odd_aspect_ratio",)},
}


def planted(arguments: argparse.Namespace) -> None:
    """How many of 20 planted faults of each kind every tool finds; the originals are training photos."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        wanted = plant(arguments.data / "train", root, each=20)
        found = {name: run(python, code, root).output for name, (python, code) in tools(arguments).items()}
    print(f"| planted, 20 of each | {' | '.join(found)} |")
    print(f"|---|{'---|' * len(found)}")
    for fault, paths in wanted.items():
        cells = []
        for name, kinds in found.items():
            meant = MEANT.get(fault, COPIES).get(name, ())
            hits = {path for kind in meant for path in kinds.get(kind, ())}
            cells.append(f"{len(hits & paths)}" if meant else "-")
        print(f"| {fault} | {' | '.join(cells)} |")
    every = set().union(*wanted.values())
    print("Flagged besides (kind: files that were not planted; originals of planted copies count):")
    for name, kinds in found.items():
        others = {kind: len(set(paths) - every) for kind, paths in kinds.items()}
        print(f"  {name}: {', '.join(f'{kind} {count}' for kind, count in others.items() if count)}")
    print(conditions())


def plant(source: Path, target: Path, *, each: int) -> dict[str, set[str]]:
    """A copy of the class folders with planted faults; fault -> the paths of the planted files."""
    shutil.copytree(source, target)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    originals = sorted(path for path in target.rglob("*.jpg"))
    rng = np.random.default_rng(0)
    chosen = iter(rng.permutation(len(originals)).tolist())
    wanted: dict[str, set[str]] = {}
    for fault, edit in PLANTS.items():
        for _ in range(each):
            original = originals[next(chosen)]
            place = original.with_name(f"planted-{len(wanted)}-{original.name}")
            edit(Image.open(original).convert("RGB")).save(place, quality=85)
            wanted.setdefault(fault, set()).add(place.relative_to(target).as_posix())
    for _ in range(each):
        original = originals[next(chosen)]
        place = original.with_name(f"planted-copy-{original.name}")
        shutil.copy(original, place)
        wanted.setdefault("byte-identical", set()).add(place.relative_to(target).as_posix())
    return wanted


def whole(arguments: argparse.Namespace) -> None:
    """Listing, scan, audit, split and second search of one data set, with time and peak memory."""
    done = run(sys.executable, WHOLE, arguments.data)
    print(json.dumps(done.output, indent=1))
    cost = f"wall {done.wall_seconds:.0f} s, CPU {done.cpu_seconds:.0f} s, peak {done.peak_mb:.0f} MB"
    print(f"{cost}; {conditions()}")


def conditions() -> str:
    """What a figure depends on."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores ({platform.machine()}), load {load:.1f}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("flowers", "planted", "whole"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--cleanvision", default="")
    parser.add_argument("--imagededup", default="")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    {"flowers": flowers, "planted": planted, "whole": whole}[arguments.what](arguments)


if __name__ == "__main__":
    main()
