"""kill -9 and SIGTERM at random instants of small runs of every method, from the first line to the report.

Each trial draws a seed, checkpoints inside epochs or none, and a number of workers; what goes on has another.
After each kill the same command must go on at once, to the files of a run that was never stopped: weights,
optimizer, history, predictions, metrics and exported model, bit for bit. Every second kill comes inside a
write, just before a file is put in its place. No temporary file may be left. Each SIGTERM must be answered
within 5 seconds, with exit code 143 and how to continue.

    python -m benchmarks.stopping --kills 50 --stops 20 --seed 7

Every run is a process of its own, forked from this one, which has imported torch: that is not timed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.forked import ended, import_what_a_run_needs, in_a_process, write_photos, write_weights

from saccade.run_folder import RunFolder

SMALL = ("--image-size", "32", "--batch-size", "8")
EPOCHS = ("--epochs", "3")
WAYS = {
    "scratch": EPOCHS,
    "finetune": ("--method", "finetune", "--head-epochs", "1", "--epochs", "2"),
    "full": ("--method", "full", *EPOCHS),
    "tail": ("--method", "tail", *EPOCHS),
    "head": ("--method", "head"),
    "auto": ("--method", "auto", *EPOCHS),
}
WORKERS = ("0", "1", "2", "4")
PAUSES = ("0", "20ms", "200ms", "auto")  # between checkpoints inside an epoch
STOP_SECONDS = 5.0
FINISHED = "finished before"  # the signal came, which counts for nothing
COMPARED = ("bundle/weights.safetensors", "predictions/*.csv", "metrics/*.json", "export/model.onnx")
COMPARED += ("checkpoints/last-*.safetensors",)  # weights and optimizer


def main() -> int:
    """Print a line a trial and the counts; 1 where one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=",".join(WAYS), help=f"default: {','.join(WAYS)}")
    parser.add_argument("--more", default="", help='flags for every run, such as "--devices 2"')
    chosen = parser.parse_args()
    import_what_a_run_needs()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SACCADE_CACHE"] = f"{folder}/cache"
        bench = Bench(Path(folder), random.Random(chosen.seed), tuple(shlex.split(chosen.more)))
        bench.go(chosen.methods.split(","), [signal.SIGKILL] * chosen.kills + [signal.SIGTERM] * chosen.stops)
    return 1 if bench.faults else 0


@dataclass
class Bench:
    """All trials, and what came of them."""

    folder: Path
    draw: random.Random
    more: tuple[str, ...]
    faults: list[str] = field(default_factory=list)
    well: Counter[tuple[str, str]] = field(default_factory=Counter)

    def go(self, methods: list[str], kinds: list[signal.Signals]) -> None:
        photos = write_photos(self.folder / "photos")
        weights = self.folder / "weights" / "test_efficientnet.safetensors"
        in_a_process(lambda: write_weights(weights))
        turns = itertools.cycle(methods)
        for number, kind in enumerate(kinds, 1):
            way = next(turns)
            words = [str(photos), *SMALL, *WAYS[way], *self.more, "--seed", str(self.draw.randrange(10**6))]
            network = ("small_cnn",) if way == "scratch" else ("test_efficientnet", "--weights", str(weights))
            place, fault = self.trial(number, [*words, "--backbone", *network], kind)
            print(f"{number:3} {kind.name} {way}, {place}: {fault or 'well'}", flush=True)
            if fault:
                self.faults.append(f"trial {number}, {way}, {place}: {fault}")
            else:
                self.well[kind.name, place] += 1
        for (name, place), count in sorted(self.well.items()):
            print(f"{name} {place}: {count} well")
        for kind in dict.fromkeys(kinds):
            before = self.well[kind.name, FINISHED]
            count = sum(number for (name, _), number in self.well.items() if name == kind.name) - before
            print(f"{kind.name}: {count} of {kinds.count(kind) - before} end bit-identical")
        print("".join(f"  {fault}\n" for fault in self.faults), end="")

    def trial(self, number: int, words: list[str], kind: signal.Signals) -> tuple[str, str]:
        """Where it was stopped, and what was wrong ("" for nothing)."""
        first, then = self.draw.sample(WORKERS, 2)
        pause = self.draw.choice(PAUSES)
        began_with = [*words, "--train.workers", first, "--checkpoint-every", pause]
        straight = Run(self.folder / f"straight{number}", began_with)
        seconds, writes = straight.to_the_end()
        stopped = self.folder / f"run{number}"
        run = Run(stopped, began_with)
        if kind == signal.SIGKILL and number % 2:
            code, answered = run.killed_inside_write(self.draw.randint(1, writes)), 0.0
        else:
            code, answered = run.stopped(kind, self.draw.uniform(0, seconds))
        place, said = run.place(), run.log.read_text()
        if code == 0:
            return FINISHED, run.difference(straight)
        if kind == signal.SIGKILL and code != -kind:
            return place, f"exit {code}: {said[-300:]}"
        if kind == signal.SIGTERM:
            hints = said.count("to continue: saccade train") + said.count("to start again: saccade train")
            if code != 128 + kind or hints != 1 or answered > STOP_SECONDS:
                return place, f"exit {code} after {answered:.1f} s: {said[-300:]}"
        again = Run(stopped, [*words, "--train.workers", then])
        try:
            again.to_the_end()
        except AssertionError as error:
            return place, str(error)
        return place, again.difference(straight)


class Run:
    """One command in one folder."""

    def __init__(self, out: Path, words: list[str]) -> None:
        self.run = RunFolder(out)
        self.log, self.writes = out.with_suffix(".log"), out.with_suffix(".writes")
        self.words = ["train", *words, "--out", str(out)]

    def start(self, *, kill_at_write: int = 0) -> int:
        """The process that runs the command; killed in its write of that number, if any."""
        child = os.fork()
        if not child:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.setpgid(0, 0)
            made = counted_writes(kill_at_write)
            from saccade.cli import main as command

            code = command(self.words)
            self.writes.write_text(str(made()))
            os._exit(code)
        return child

    def to_the_end(self) -> tuple[float, int]:
        """Seconds of the command, and how often it wrote; raises AssertionError where it fails."""
        began = time.monotonic()
        code = ended(self.start())
        assert code == 0, f"exit {code}: {self.log.read_text()[-500:]}"
        return time.monotonic() - began, int(self.writes.read_text())

    def killed_inside_write(self, number: int) -> int:
        """The exit code."""
        return ended(self.start(kill_at_write=number))

    def stopped(self, kind: int, after: float) -> tuple[int, float]:
        """The exit code of a command that gets a signal, and the seconds until it answered."""
        child = self.start()
        time.sleep(after)
        os.kill(child, kind)
        sent = time.monotonic()
        return ended(child), time.monotonic() - sent

    def place(self) -> str:
        """How far it had come."""
        run = self.run
        if not run.recipe.exists():
            return "first files" if run.beginning.exists() else "listing, reading, audit"
        if not run.model_json.exists():
            newest = max((path.stem for path in run.checkpoints.glob("last-*.json")), default="")
            if not newest:
                return "before the first checkpoint"
            return "after a checkpoint inside an epoch" if "." in newest else "after that of an epoch"
        if not run.metrics("train").exists():
            return "judging"
        return "report" if run.certificate().exists() else "export"

    def difference(self, straight: Run) -> str:
        """What is not as in a run that was never stopped."""
        found, wanted = contents(self.run), contents(straight.run)
        if other := sorted(name for name in found.keys() | wanted if found.get(name) != wanted.get(name)):
            return f"other than if never stopped: {', '.join(other)}"
        if left := [path.name for path in self.run.root.rglob(".*") if path.name != ".lock"]:
            return f"left: {', '.join(left)}"
        return "a promise is BROKEN" if "BROKEN" in self.log.read_text() else ""


def contents(run: RunFolder) -> dict[str, str]:
    """SHA-256 of each file that must not depend on stops, and the history without its seconds."""
    files = [path for pattern in COMPARED for path in run.root.glob(pattern)]
    found = {str(path.relative_to(run.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    rows = [{**row.as_json(), "seconds": 0} for row in run.read_history()]
    return {**found, "history.jsonl": str(rows)}


def counted_writes(kill_at: int) -> Callable[[], int]:
    """How often this process put a file in its place so far; it is killed just before time `kill_at`."""
    real, count = os.replace, itertools.count(1)
    made = [0]

    def replace(*where: str) -> None:
        made[0] = next(count)
        if made[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*where)

    os.replace = replace  # type: ignore[assignment]
    return lambda: made[0]


if __name__ == "__main__":
    sys.exit(main())
