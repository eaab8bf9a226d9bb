"""kill -9 and SIGTERM at random instants of a small run, from its first line to its report.

After each kill the same command must go on at once, to the weights of a run that was never stopped, and leave
no temporary file. Each SIGTERM must be answered with exit code 143 and how to continue.

    python benchmarks/stopping.py --kills 30 --stops 15

Every run is a process of its own, forked from this one, which has imported torch: that is not timed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from saccade.run_folder import RunFolder

FLAGS = ("--backbone", "small_cnn", "--image-size", "16", "--batch-size", "8", "--epochs", "3")
WORKERS = ("0", "2")


def main() -> int:
    """Print a line a trial and the counts; 1 where one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--stops", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    import_what_a_run_needs()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SACCADE_CACHE"] = f"{folder}/cache"
        faults = trials(Path(folder), chosen.kills, chosen.stops, random.Random(chosen.seed))
    print(f"{len(faults)} faults" + "".join(f"\n  {fault}" for fault in faults))
    return 1 if faults else 0


def import_what_a_run_needs() -> None:
    """Define only: a process in which torch has computed must not be forked."""
    from saccade.imports import import_training_libraries

    import_training_libraries()
    for name in ("matplotlib.pyplot", "onnxruntime", "saccade.cli", "saccade.pipeline.fit"):
        importlib.import_module(name)


def trials(folder: Path, kills: int, stops: int, draw: random.Random) -> list[str]:
    """What went wrong, a line each."""
    photos = write_photos(folder / "photos")
    straight = {workers: Trial(folder / f"straight{workers}", photos, workers) for workers in WORKERS}
    seconds = {workers: trial.to_the_end() for workers, trial in straight.items()}
    print(f"a run takes {', '.join(f'{s:.1f} s with {w} workers' for w, s in seconds.items())}", flush=True)
    faults, phases = [], Counter()
    plan = [signal.SIGKILL] * kills + [signal.SIGTERM] * stops
    for number, kind in enumerate(plan):
        workers = WORKERS[number % len(WORKERS)]
        trial = Trial(folder / f"run{number}", photos, workers)
        phase, fault = trial.stopped_and_continued(kind, draw.uniform(0, seconds[workers]), straight[workers])
        phases[kind.name, phase] += 1
        print(f"{number + 1:3} {kind.name} {workers} workers, {phase}: {fault or 'well'}", flush=True)
        faults += [f"trial {number + 1}, {phase}: {fault}"] if fault else []
    for (name, phase), count in sorted(phases.items()):
        print(f"{name} {phase}: {count}")
    return faults


class Trial:
    """One command in one folder."""

    def __init__(self, out: Path, photos: Path, workers: str) -> None:
        self.run = RunFolder(out)
        self.log = out.with_suffix(".log")
        self.words = ["train", str(photos), "--out", str(out), *FLAGS, "--train.workers", workers]

    def start(self) -> int:
        """The process that runs the command."""
        child = os.fork()
        if not child:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.setpgid(0, 0)
            from saccade.cli import main as command

            os._exit(command(self.words))
        return child

    def to_the_end(self) -> float:
        """Seconds of the command; raises AssertionError where it fails."""
        began = time.monotonic()
        code = os.waitstatus_to_exitcode(os.waitpid(self.start(), 0)[1])
        assert code == 0, f"exit {code}: {self.log.read_text()[-500:]}"
        return time.monotonic() - began

    def stopped_and_continued(self, kind: int, after: float, straight: Trial) -> tuple[str, str]:
        """How far it had come, and what was wrong ("" for nothing)."""
        child = self.start()
        time.sleep(after)
        os.kill(child, kind)
        sent = time.monotonic()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answered, phase, said = time.monotonic() - sent, self.phase(), self.log.read_text()
        if code == 0:
            return "finished before", ""
        if kind == signal.SIGTERM and (code != 143 or said.count("to continue: saccade train") != 1):
            return phase, f"exit {code} after {answered:.1f} s: {said[-300:]}"
        try:
            self.to_the_end()
        except AssertionError as error:
            return phase, str(error)
        return f"{phase} ({answered:.1f} s)" if kind == signal.SIGTERM else phase, self.difference(straight)

    def phase(self) -> str:
        run = self.run
        if not run.recipe.exists():
            return "first files" if run.beginning.exists() else "listing, reading, audit"
        if not run.model_json.exists():
            return "epochs" if run.history.exists() else "first epoch"
        if not run.metrics("train").exists():
            return "judging"
        return "report" if run.certificate().exists() else "export"

    def difference(self, straight: Trial) -> str:
        weights = [
            hashlib.sha256((run.bundle / "weights.safetensors").read_bytes()).hexdigest()
            for run in (self.run, straight.run)
        ]
        left = [path.name for path in self.run.root.rglob(".*") if path.name != ".lock"]
        if len(set(weights)) > 1:
            return f"other weights: {weights[0][:12]}, never stopped {weights[1][:12]}"
        if left:
            return f"left: {', '.join(left)}"
        return "a promise is BROKEN" if "BROKEN" in self.log.read_text() else ""


def write_photos(root: Path) -> Path:
    """Three classes of noise around a colour of their own."""
    draw = np.random.default_rng(0)
    for label, colour in (("blue", 2), ("green", 1), ("red", 0)):
        (root / label).mkdir(parents=True)
        for number in range(24):
            pixels = draw.integers(0, 180, (24, 24, 3))
            pixels[..., colour] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{number}.png")
    return root


if __name__ == "__main__":
    sys.exit(main())
