"""What the stages cost on other machines: arithmetic from measured rates and the assumptions named here."""

from __future__ import annotations

import math
from dataclasses import dataclass

READ_AHEAD = 8  # objects that are read at once for each core
LISTED_A_REQUEST, LIST_SECONDS = 1000, 0.1
# Core seconds, from runs of 400 to 2,200 photos (`benchmarks/planned.py`): what a command does once, and
# near-duplicates a n log2 n, on one core. What a training does once keeps more than one core busy.
AUDIT_ONCE, PREDICT_ONCE, TRAIN_ONCE, ONCE_BY_THE_CLOCK = 0.8, 0.7, 19.0, 0.6
SEARCH_SECONDS = 3.0e-4
QUICK_PASSES, FLOAT32_PASSES = 1.7, 1.8  # of a training: features in two views; measuring and certifying
TIMES_READ = 2.2  # by a training: scan, features, measuring
RECORD_BYTES, PROCESS_BYTES, PREDICT_BYTES = 2500, 200e6, 600e6
# images a second through a network of the default's size; not measured here
GPUS = {"t4": 1500.0, "l4": 3000.0, "a10": 3500.0, "a100": 8000.0, "h100": 15000.0, "h200": 16000.0}
ASSUMED = (
    "cores there are as quick as here; caches are empty; one machine trains",
    "index, audit, predict: a part of the manifest for each machine; near-duplicates are searched within it",
    f"{READ_AHEAD} requests a core are under way, and a bucket answers many as quickly as one",
    f"core seconds: {SEARCH_SECONDS:.1e} n log2 n for near-duplicates, on one core; once {AUDIT_ONCE:g} for "
    f"an audit, {PREDICT_ONCE:g} for a prediction, {TRAIN_ONCE:g} for a training",
    f"a training takes {QUICK_PASSES:g} passes of quick features and {FLOAT32_PASSES:g} in float32",
)


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds of one core an image, here. `read`: the wait for an object. `start`: before a stage begins.

    `quick`: features as a head is fitted on them; `float32`: as answers are given.
    """

    read: float
    examine: float
    network_input: float
    quick: float
    float32: float
    start: float
    start_training: float
    feature_bytes: int


@dataclass(frozen=True, slots=True)
class Machines:
    """How many there are and what each has; `gpu_images` a second of its GPU, 0 without one."""

    count: int
    cores: int
    gpu_images: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One command over all images: seconds by the clock and of cores; bytes; most memory of a machine."""

    name: str
    seconds: float
    core_seconds: float
    read_bytes: float
    requests: float
    memory_bytes: float


def stages(images: int, data_bytes: int, rates: Rates, machines: Machines) -> tuple[Stage, ...]:
    """Index, audit, training of a head, prediction; `data_bytes` are those of all images.

    >>> rates = Rates(0.01, 0.004, 0.002, 0.005, 0.01, 1.0, 4.0, 5120)
    >>> one, four = (stages(10**6, 10**11, rates, Machines(count, 8)) for count in (1, 4))
    >>> [round(a.seconds / b.seconds, 1) for a, b in zip(one, four, strict=True)]
    [1.0, 4.4, 1.0, 4.0]
    """
    lists = math.ceil(images / LISTED_A_REQUEST)
    index = Stage("index", lists * LIST_SECONDS, lists * LIST_SECONDS, 0, lists, PREDICT_BYTES / 2)
    alone = Machines(1, machines.cores, machines.gpu_images)
    return (
        index,
        _audit(images, data_bytes, rates, machines),
        _train(images, data_bytes, rates, alone),
        _predict(images, data_bytes, rates, machines),
    )


def _audit(images: int, data_bytes: int, rates: Rates, machines: Machines) -> Stage:
    own, once = images / machines.count, rates.start + AUDIT_ONCE
    search = SEARCH_SECONDS * own * math.log2(own + 1)
    scan = own * max(rates.examine, rates.read / READ_AHEAD)
    return Stage(
        "audit",
        once + scan / machines.cores + search,
        machines.count * (once + own * rates.examine + search),
        data_bytes,
        images,
        own * RECORD_BYTES + machines.cores * PROCESS_BYTES,
    )


def _train(images: int, data_bytes: int, rates: Rates, machine: Machines) -> Stage:
    audit = _audit(images, data_bytes, rates, machine)
    once = TRAIN_ONCE + rates.start_training - AUDIT_ONCE
    waited = ONCE_BY_THE_CLOCK * once if machine.cores > 1 else once
    quick, exact = (_pass(images, rates, machine, network) for network in (rates.quick, rates.float32))
    busy = QUICK_PASSES * (rates.network_input + rates.quick)
    busy += FLOAT32_PASSES * (rates.network_input + rates.float32)
    return Stage(
        "train --method head",
        audit.seconds + waited + QUICK_PASSES * quick + FLOAT32_PASSES * exact,
        audit.core_seconds + once + images * busy,
        data_bytes * TIMES_READ,
        images * TIMES_READ,
        audit.memory_bytes + 2 * images * rates.feature_bytes,
    )


def _predict(images: int, data_bytes: int, rates: Rates, machines: Machines) -> Stage:
    once = rates.start + PREDICT_ONCE
    busy = images * (rates.network_input + rates.float32) + machines.count * once
    seconds = once + _pass(images, rates, machines, rates.float32)
    return Stage("predict", seconds, busy, data_bytes, images, PREDICT_BYTES)


def _pass(images: int, rates: Rates, machines: Machines, network: float) -> float:
    """Every image read, decoded and through the network once, while further ones are read."""
    cores = machines.count * machines.cores
    waiting = images * rates.read / READ_AHEAD / cores
    if machines.gpu_images:
        decoding = images * rates.network_input / cores
        return max(waiting, decoding, images / (machines.count * machines.gpu_images))
    return max(waiting, images * (rates.network_input + network) / cores)
