"""How fast models predict here: torch, onnxruntime float and int8, side by side, in interleaved rounds.

Timed is what a user waits for: from decoded pixels to probabilities, preprocessing included.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import Artefact, Image
from saccade.errors import ModelError
from saccade.run_folder import RunFolder, certificate_beside, read_json
from saccade.threads import usable_cores

LATENCIES_A_ROUND = 8
BATCHES = (8, 32)
DEFAULT_SHAPE = (375, 500)  # height and width of a common small photo
INT8_NAME = "model.int8.onnx"

Answer = Callable[[Sequence[Image]], Any]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of a figure over the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One engine. Latencies in milliseconds at batch 1 over `timings` calls; throughput by batch length,
    in images per second, over `rounds`; `accuracy` on `accuracy_images` validation images, None where
    nobody measured it.
    """

    engine: str
    file: str
    megabytes: float
    threads: int
    rounds: int
    timings: int
    latency_p50_ms: float
    latency_p95_ms: float
    throughput: Mapping[int, Spread]
    accuracy: float | None = None
    accuracy_images: int = 0


@dataclass(frozen=True, eq=False)
class TimedEngine:
    """Something that predicts, and what is known about it."""

    name: str
    file: Path
    answer: Answer
    accuracy: float | None = None
    accuracy_images: int = 0


def bench(
    model: str | Path,
    *,
    rounds: int = 5,
    threads: int = 0,
    shape: tuple[int, int] = DEFAULT_SHAPE,
    batches: Sequence[int] = BATCHES,
) -> tuple[BenchRow, ...]:
    """Measure each installed engine for a run folder or a `.onnx` file; raises ModelError without any.

    In a run: its bundle in torch (where torch is installed), export/model.onnx and model.int8.onnx.
    Accuracy is what the run's predictions and the files' certificates say; nothing is measured twice.
    """
    threads = threads or usable_cores()
    engines = engines_of(Path(model), threads=threads)
    timings = measure(engines, photo(shape), rounds=rounds, batches=batches)
    return tuple(_row(engine, timings[i], threads=threads) for i, engine in enumerate(engines))


def photo(shape: tuple[int, int] = DEFAULT_SHAPE) -> Image:
    """The picture that every engine is timed on: uint8 (height, width, 3) of noise."""
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


# ── engines ──────────────────────────────────────────────────────────────────────────────────────────


def engines_of(model: Path, *, threads: int) -> list[TimedEngine]:
    """Every installed engine, the trained network itself first."""
    run = RunFolder(model)
    if model.is_dir():
        files = [path for path in (run.onnx, run.int8) if path.is_file()]
        trained = _torch_engine(run, threads=threads)
        engines = [trained] if trained else []
    else:
        files = [model, *(path for path in [model.with_name(INT8_NAME)] if path.is_file() and path != model)]
        engines = []
    engines += [_file_engine(path, run, threads=threads) for path in files]
    if not engines:
        raise ModelError(
            f"{model} has nothing to measure",
            hint="give a run folder or an .onnx file",
        )
    return engines


def _file_engine(path: Path, run: RunFolder, *, threads: int) -> TimedEngine:
    artefact = Artefact.open(path, threads=threads)
    kind = artefact.metadata.get("saccade.quantization", {}).get("kind", "float")
    certificate = _certificate(path, run)
    return TimedEngine(
        name=f"onnxruntime {kind}",
        file=path,
        answer=artefact.probabilities,
        accuracy=certificate.get("validation_accuracy_after"),
        accuracy_images=int(certificate.get("images_by_part", {}).get("validation", 0)),
    )


def _certificate(path: Path, run: RunFolder) -> Mapping[str, Any]:
    """What was certified about the file; nothing where it never was."""
    for place in (run.certificate(path), certificate_beside(path)):
        if place.is_file():
            values: Mapping[str, Any] = read_json(place)
            return {**values, **values.get("extra", {})}
    return {}


def _torch_engine(run: RunFolder, *, threads: int) -> TimedEngine | None:
    """The run's bundle as torch runs it, one operation at a time; None without torch or bundle."""
    if importlib.util.find_spec("torch") is None or not run.has(run.model_json):
        return None
    import torch

    from saccade.bundle import load_bundle
    from saccade.transforms.apply import to_input

    bundle = load_bundle(run.bundle)
    network = bundle.module.eval()

    def answer(images: Sequence[Image]) -> NDArray[np.float32]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                inputs = torch.stack([to_input(image, bundle.preprocess) for image in images])
                probabilities: NDArray[np.float32] = (
                    (network(inputs) / bundle.temperature).softmax(dim=1).numpy()
                )
            return probabilities
        finally:
            torch.set_num_threads(before)

    accuracy, images = _accuracy_of_run(run)
    weights = run.bundle / "weights.safetensors"
    return TimedEngine(
        f"torch {torch.__version__.partition('+')[0]} eager", weights, answer, accuracy, images
    )


def _accuracy_of_run(run: RunFolder) -> tuple[float | None, int]:
    if not run.has(run.predictions("validation")):
        return None, 0
    predictions = run.read_predictions("validation")
    right = [a == b for a, b in zip(predictions.predicted, predictions.labels, strict=True)]
    return float(np.mean(right)), len(right)


# ── timing ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Timings:
    """Seconds a call, gathered over the rounds; `batches` by batch length."""

    single: list[float]
    batches: dict[int, list[float]]


def measure(
    engines: Sequence[TimedEngine], image: Image, *, rounds: int, batches: Sequence[int] = BATCHES
) -> list[Timings]:
    """Timings of each engine. Every round asks every engine in turn, so that a busy moment hits all."""
    gathered = [Timings([], {length: [] for length in batches}) for _ in engines]
    for engine in engines:
        engine.answer([image] * max((1, *batches)))  # the first call allocates and is not counted
    for _ in range(rounds):
        for engine, timings in zip(engines, gathered, strict=True):
            timings.single += [_seconds(engine.answer, [image]) for _ in range(LATENCIES_A_ROUND)]
            for length in batches:
                timings.batches[length].append(_seconds(engine.answer, [image] * length))
    return gathered


def _seconds(answer: Answer, images: Sequence[Image]) -> float:
    started = time.perf_counter()
    answer(images)
    return time.perf_counter() - started


def _row(engine: TimedEngine, timings: Timings, *, threads: int) -> BenchRow:
    median, late = np.percentile(timings.single, [50, 95]) * 1000
    return BenchRow(
        engine=engine.name,
        file=str(engine.file),
        megabytes=engine.file.stat().st_size / 1e6,
        threads=threads,
        rounds=len(timings.single) // LATENCIES_A_ROUND,
        timings=len(timings.single),
        latency_p50_ms=float(median),
        latency_p95_ms=float(late),
        throughput={length: _throughput(length, seconds) for length, seconds in timings.batches.items()},
        accuracy=engine.accuracy,
        accuracy_images=engine.accuracy_images,
    )


def _throughput(length: int, seconds: Sequence[float]) -> Spread:
    rates = [length / each for each in seconds]
    return Spread(float(np.median(rates)), min(rates), max(rates))
