"""How fast models predict here: torch, ONNX Runtime and OpenVINO side by side, in interleaved rounds.

Timed is what a user waits for: from decoded pixels to probabilities, preprocessing included.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.artefact import Artefact, Image
from saccade.export.engines import DEFAULT_SHAPE, Answer, Engine, engines_of, photo
from saccade.export.peak import peak_megabytes
from saccade.terminal import Progress, silent
from saccade.threads import usable_cores

LATENCIES_A_ROUND = 8
BENCH_LATENCIES = 20  # a round: 100 in five rounds, so that a 99th percentile can be named
BATCHES = (8, 32)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of a figure over the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One engine with a number of threads. Latencies in milliseconds at batch 1 over `timings` calls;
    throughput by batch length, in images per second, over `rounds`; `peak_megabytes` of a fresh process,
    None where it could not be measured.
    """

    engine: Engine
    threads: int
    rounds: int
    timings: int
    latency_p50_ms: float
    latency_p99_ms: float
    throughput: Mapping[int, Spread]
    peak_megabytes: float | None = None


@dataclass(frozen=True, eq=False)
class TimedEngine:
    """Something that predicts, and what it is called."""

    name: str
    file: Path
    answer: Answer


def bench(
    model: str | Path,
    *,
    rounds: int = 5,
    threads: Sequence[int] = (),
    shape: tuple[int, int] = DEFAULT_SHAPE,
    batches: Sequence[int] = BATCHES,
    memory: bool = True,
    progress: Progress = silent,
) -> tuple[BenchRow, ...]:
    """Measure each engine for a run folder or an `.onnx` file; raises ModelError without any.

    In a run: its bundle in torch (where torch is installed), and export/model.onnx, model.fp16.onnx and
    model.int8.onnx in ONNX Runtime and, where it is installed, OpenVINO. `threads` none: 1, and all cores.
    Accuracy and agreement are what the certificates say; nothing is measured twice.
    """
    counts = list(threads) or sorted({1, usable_cores()})
    variants = [(engine, count) for count in counts for engine in engines_of(Path(model))]
    timed = [TimedEngine(e.name, e.file, e.open(count)) for e, count in variants]
    timings = measure(
        timed,
        photo(shape, variants[0][0].pixels),
        rounds=rounds,
        batches=batches,
        singles=BENCH_LATENCIES,
        progress=progress,
    )
    rows = []
    for (engine, count), gathered in zip(variants, timings, strict=True):
        peak = peak_megabytes(engine, threads=count, batch=max(batches), shape=shape) if memory else None
        rows.append(_row(engine, gathered, threads=count, rounds=rounds, peak=peak))
    return tuple(rows)


def median_latencies(files: Mapping[str, Path], *, rounds: int = 5) -> list[float]:
    """Milliseconds for one image on one core of this machine, of each exported file by its name.

    All take the same pixels. Raises ModelError where a file is no model.
    """
    opened = [(name, file, Artefact.open(file, threads=1)) for name, file in files.items()]
    engines = [TimedEngine(name, file, artefact.probabilities) for name, file, artefact in opened]
    image = photo(pixels=opened[0][2].preprocess.pixels)
    return [1000 * float(np.median(t.single)) for t in measure(engines, image, rounds=rounds, batches=())]


# ── timing ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Timings:
    """Seconds a call, gathered over the rounds; `batches` by batch length."""

    single: list[float]
    batches: dict[int, list[float]]


def measure(
    engines: Sequence[TimedEngine],
    image: Image,
    *,
    rounds: int,
    batches: Sequence[int] = BATCHES,
    singles: int = LATENCIES_A_ROUND,
    progress: Progress = silent,
) -> list[Timings]:
    """Timings of each engine. Every round asks every engine in turn, so that a busy moment hits all."""
    gathered = [Timings([], {length: [] for length in batches}) for _ in engines]
    for engine in engines:
        engine.answer([image] * max((1, *batches)))  # the first call allocates and is not counted
    for done in range(rounds):
        progress(done, rounds)
        for engine, timings in zip(engines, gathered, strict=True):
            timings.single += [_seconds(engine.answer, [image]) for _ in range(singles)]
            for length in batches:
                timings.batches[length].append(_seconds(engine.answer, [image] * length))
    return gathered


def _seconds(answer: Answer, images: Sequence[Image]) -> float:
    started = time.perf_counter()
    answer(images)
    return time.perf_counter() - started


def _row(engine: Engine, timings: Timings, *, threads: int, rounds: int, peak: float | None) -> BenchRow:
    median, late = np.percentile(timings.single, [50, 99]) * 1000
    singles = np.array_split(timings.single, rounds)
    return BenchRow(
        engine=engine,
        threads=threads,
        rounds=rounds,
        timings=len(timings.single),
        latency_p50_ms=float(median),
        latency_p99_ms=float(late),
        throughput={
            1: _throughput(1, [float(np.median(some)) for some in singles]),
            **{length: _throughput(length, seconds) for length, seconds in timings.batches.items()},
        },
        peak_megabytes=peak,
    )


def _throughput(length: int, seconds: Sequence[float]) -> Spread:
    rates = [length / each for each in seconds]
    return Spread(float(np.median(rates)), min(rates), max(rates))
