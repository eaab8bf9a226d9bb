"""`--engine ray` against one machine: equal results, throughput, a worker killed in the midst.

    python benchmarks/scaled_out.py [--images 20000] [--side 64] [--backbone NAME] [--work DIR] [--rounds 1]

Pictures of `side` pixels are drawn, in 10 classes. Each command (audit, train --method head, predict) runs in
a process of its own with an empty cache: on this machine's cores by itself, then by Ray with as many workers.
Ray's start and end are part of its time. Then `predict --engine ray` once more, with a worker killed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from saccade.threads import available_cores

ENGINES = ("local", "ray")


def draw(root: Path, images: int, side: int) -> None:
    """JPEGs whose colour is that of their class, with soft random shapes."""
    rng = np.random.default_rng(0)
    for number in range(images):
        label = number % 10
        ground = rng.integers(0, 256, (5, 5, 3)) // 2 + np.array([12 * label, 120 - 12 * label, 60])
        small = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
        place = root / f"class{label}" / f"{number:06}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        small.resize((side, side), Image.Resampling.BICUBIC).save(place, quality=90)


def started(words: Sequence[object], engine: str, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "saccade", *map(str, words), "--engine", engine]
    shutil.rmtree(cache, ignore_errors=True)
    environment = {**os.environ, "SACCADE_CACHE": str(cache)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def seconds(words: Sequence[object], engine: str, cache: Path) -> float:
    began = time.monotonic()
    running = started(words, engine, cache)
    said, _ = running.communicate()
    if running.returncode not in (0, 1):
        raise SystemExit(f"{words}: exit {running.returncode}\n{said}")
    return time.monotonic() - began


def kill_a_worker(words: Sequence[object], cache: Path, ready: Path) -> tuple[int, int]:
    """Run with Ray and kill (-9) one of its workers once results come; (exit code, pid that was killed)."""
    running = started(words, "ray", cache)
    victim = 0
    while running.poll() is None and not victim:
        time.sleep(0.1)
        if ready.exists() and ready.stat().st_size > 20_000:
            victim = next(iter(workers_of(running.pid)), 0)
            if victim:
                os.kill(victim, signal.SIGKILL)
    running.communicate()
    return running.returncode, victim


def workers_of(client: int) -> list[int]:
    """Ray's actors among the processes that the client began."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
    parents, found = {client}, []
    for _ in range(5):
        parents |= {int(pid) for pid, parent, *_ in rows if int(parent) in parents}
    for pid, _, *words in rows:
        if int(pid) in parents and words and re.match(r"ray::.*(_Worker|MapBatches)", words[0]):
            found.append(int(pid))
    return found


def same(first: Path, second: Path) -> str:
    return "equal" if first.read_bytes() == second.read_bytes() else "DIFFER"


def one_round(photos: Path, work: Path, images: int, backbone: str) -> None:
    took: dict[tuple[str, str], float] = {}
    for engine in ENGINES:
        shutil.rmtree(work / f"run-{engine}", ignore_errors=True)
        took["audit", engine] = seconds(
            ("audit", photos, "--out", work / f"audit-{engine}"), engine, work / "cache"
        )
    for engine in ENGINES:
        words = ("train", photos, "--method", "head", "--backbone", backbone, "--no-split.near_duplicates")
        took["train", engine] = seconds((*words, "--out", work / f"run-{engine}"), engine, work / "cache")
    model = work / "run-local/export/model.onnx"
    for engine in ENGINES:
        words = ("predict", model, photos, "--out", work / f"answers-{engine}.csv")
        took["predict", engine] = seconds(words, engine, work / "cache")
    files = {"audit": "audit-{}/audit.json", "train": "run-{}/bundle/weights.safetensors"}
    files["predict"] = "answers-{}.csv"
    for stage, name in files.items():
        local, ray = took[stage, "local"], took[stage, "ray"]
        equal = same(work / name.format("local"), work / name.format("ray"))
        print(
            f"| {stage} | {local:.0f} s, {images / local:.0f}/s | {ray:.0f} s, {images / ray:.0f}/s "
            f"| {local / ray:.2f} | {equal} |",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work, photos = Path(folder), Path(folder) / "photos"
        draw(photos, options.images, options.side)
        print(f"{options.images:,} pictures of {options.side} pixels, {available_cores()} cores")
        print("| | this machine | Ray | throughput of Ray | results |\n|---|---|---|---|---|")
        for _ in range(options.rounds):
            one_round(photos, work, options.images, options.backbone)
        model, out = work / "run-local/export/model.onnx", work / "killed.csv"
        journal = out.with_name(out.name + ".unfinished")
        code, victim = kill_a_worker(("predict", model, photos, "--out", out), work / "cache", journal)
        told = f"worker {'killed' if victim else 'NOT killed'}, exit {code}"
        print(f"predict, {told}: {same(work / 'answers-local.csv', out)}")


if __name__ == "__main__":
    main()
