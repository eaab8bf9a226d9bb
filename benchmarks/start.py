"""How soon a command starts: `saccade --help`, and `saccade train` on a cached set until its first step.

A first step is the first call that computes with the network: a training step, or the first features. The
set is cached by one whole run before timing. Each start is a process of its own; the times are from outside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.tools import BACKBONE, OURS

# Runs saccade's command in a process that ends where the first step would begin.
UNTIL_FIRST_STEP = """
import importlib.machinery, os, sys
FIRST = {"saccade.training.loop": "train_step", "saccade.features.compute": "compute_features"}
class Ending:
    def find_spec(self, name, path=None, target=None):
        if name not in FIRST:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        execute = found.loader.exec_module
        def exec_module(module):
            execute(module)
            assert callable(getattr(module, FIRST[name]))
            setattr(module, FIRST[name], lambda *values, **named: os._exit(77))
        found.loader.exec_module = exec_module
        return found
sys.meta_path.insert(0, Ending())
from saccade.cli import main
main()
"""
ENDED_AT_FIRST_STEP = 77


def starts(shared: Path | None, rounds: int) -> dict[str, list[float]]:
    """Seconds of each start, by what was started; raises SystemExit when a command fails.

    `shared`: the folder with data/ and weights/; without it only `saccade --help` is timed.
    """
    command = [str(Path(sys.executable).with_name(OURS))]
    found: dict[str, list[float]] = {"saccade --help": []}
    with tempfile.TemporaryDirectory() as scratch:
        train = _train_command(shared) if shared else []
        if train:
            found["saccade train, cached set, until the first step"] = []
            _seconds([*command, *train, f"{scratch}/whole", "--method", "head"], scratch, expected=0)
        for turn in range(rounds + 1):
            took = [_seconds([*command, "--help"], scratch, expected=0)]
            if train:
                until = [sys.executable, "-c", UNTIL_FIRST_STEP, *train, f"{scratch}/{turn}"]
                took.append(_seconds(until, scratch, expected=ENDED_AT_FIRST_STEP))
            if turn:  # the first start of each caches byte code
                for values, seconds in zip(found.values(), took, strict=True):
                    values.append(seconds)
    return found


def _train_command(shared: Path) -> list[str]:
    weights = shared / f"weights/{BACKBONE}.safetensors"
    return [
        *("train", str(shared / "data/flowers5"), "--backbone", BACKBONE, "--weights", str(weights)),
        "--out",
    ]


def _seconds(command: list[str], cache: str, *, expected: int) -> float:
    """Wall seconds of one process."""
    values = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    values |= {"XDG_CACHE_HOME": cache, "SACCADE_CACHE": f"{cache}/saccade"}
    began = time.monotonic()
    done = subprocess.run(command, env=values, capture_output=True, text=True)
    took = time.monotonic() - began
    if done.returncode != expected:
        raise SystemExit(
            f"benchmarks: {' '.join(command[-6:])} ended with {done.returncode}: {done.stderr[-800:]}"
        )
    return took
