"""Accuracy against seconds since the command was typed: saccade and its rivals on the same files.

Each run is a process of its own, clocked from outside: the seconds are those at which its accuracy became
known in its file, imports and decoding included. The tools take turns within a round; a round has a seed.
Before timing, every tool is started once on a handful of photos, which also caches its byte code, and the
files are read once. saccade's cache is empty at the start of each run but for the exported backbone that this
first start leaves, which knows nothing of any photo.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tools import DATA_SETS, OURS, TOOLS, WEIGHTS, DataSet, accuracies, command, missing

LOOK_SECONDS = 0.02
SAMPLE = {"train": 8, "validation": 4}  # photos a class of the start before timing
SAMPLE_MINUTES = 4.0
NETWORKS = Path("cache/saccade/networks")  # in a run's work folder: exported backbones


@dataclass(frozen=True)
class Run:
    """One process: (seconds, accuracy) in order, how long it took in all, how it ended.

    `state`: "finished", "stopped" (out of time), "failed".
    """

    data: str
    tool: str
    round: int
    load: float
    points: tuple[tuple[float, float], ...]
    wall_seconds: float
    state: str


@dataclass(frozen=True)
class Place:
    """Where things are: the shared data, the rivals' environments, and a folder for runs and logs."""

    shared: Path
    environments: Path
    work: Path

    @property
    def weights(self) -> Path:
        return self.environments / WEIGHTS


def ready_tools(names: list[str], place: Place) -> list[str]:
    """The tools that can be started here; the others are named with what they lack."""
    lacks = {name: missing(name, place.environments) for name in names}
    for name, lack in lacks.items():
        if lack:
            print(f"left out: {name}: {lack}")
    return [name for name in names if not lacks[name]]


def warm(name: str, data_name: str, place: Place) -> bool:
    """Start a tool once on a few photos, so that byte code and its libraries are cached; False: it failed."""
    data_set = DATA_SETS[data_name]
    sample = _sample(data_set, place.shared / data_set.folder, place.work / f"sample-{data_name}")
    run = run_once(name, data_name, sample, place, number=0, minutes=SAMPLE_MINUTES, more=_short(name))
    if run.state != "finished":
        print(f"left out: {name}: its first start {run.state}; see {_work(place, run)}/log.txt")
    elif (_work(place, run) / NETWORKS).exists():
        shutil.copytree(_work(place, run) / NETWORKS, place.work / NETWORKS, dirs_exist_ok=True)
    return run.state == "finished"


def _short(name: str) -> tuple[str, ...]:
    return () if TOOLS[name].environment == OURS else ("--epochs", "1")


def _sample(data_set: DataSet, source: Path, target: Path) -> Path:
    """A folder laid out the same way with a few photos a class; the whole set is read on the way."""
    for part, kept in ((data_set.train, SAMPLE["train"]), (data_set.validation, SAMPLE["validation"])):
        for folder in sorted(path for path in (source / part).iterdir() if path.is_dir()):
            (target / part / folder.name).mkdir(parents=True, exist_ok=True)
            for i, photo in enumerate(sorted(folder.iterdir())):
                content = photo.read_bytes()
                if i < kept:
                    (target / part / folder.name / photo.name).write_bytes(content)
    return target


def _work(place: Place, run: Run) -> Path:
    return place.work / run.data / f"{run.tool}-{run.round}"


def run_once(
    name: str,
    data_name: str,
    data: Path,
    place: Place,
    *,
    number: int,
    minutes: float,
    more: tuple[str, ...] = (),
) -> Run:
    """Train once in an empty work folder, killed after `minutes`; `number` is the round and the seed."""
    work = place.work / data_name / f"{name}-{number}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if TOOLS[name].environment == OURS and (place.work / NETWORKS).exists():
        shutil.copytree(place.work / NETWORKS, work / NETWORKS)
    data_set = DATA_SETS[data_name]
    typed = [*command(name, data_set, data, place.weights, work, place.environments, number), *more]
    points: list[tuple[float, float]] = []
    load = os.getloadavg()[0]
    with (work / "log.txt").open("wb") as log:
        clock, began = time.time(), time.monotonic()
        process = subprocess.Popen(
            typed, stdout=log, stderr=log, env=_environment(name, work, clock), start_new_session=True
        )
        try:
            while process.poll() is None and time.monotonic() - began < 60 * minutes:
                time.sleep(LOOK_SECONDS)
                known = accuracies(name, data_set, work)
                points += [(time.monotonic() - began, value) for value in known[len(points) :]]
            wall, state = time.monotonic() - began, _state(process.returncode)
            points += [(wall, value) for value in accuracies(name, data_set, work)[len(points) :]]
        finally:
            _end(process)
    return Run(data_name, name, number, load, tuple(points), wall, state)


def _environment(name: str, work: Path, clock: float) -> dict[str, str]:
    """The caller's variables; byte code is kept, caches start empty, rivals do not see saccade's path."""
    values = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    if TOOLS[name].environment != OURS:
        values.pop("PYTHONPATH", None)
    cache = str(work / "cache")
    caches = {"XDG_CACHE_HOME": cache, "SACCADE_CACHE": f"{cache}/saccade"}
    return values | caches | {"BENCHMARK_STARTED": f"{clock:.6f}"}


def _state(code: int | None) -> str:
    return "stopped" if code is None else "failed" if code else "finished"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its workers, by the group it was started in."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def cores() -> int:
    """Cores that this process, and so every tool, may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_cores(count: int) -> None:
    """Let this process and what it starts use only `count` cores, so that no tool has more threads."""
    if count and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def processor() -> str:
    """The processor's name, or the machine type where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
