"""`saccade plan`: hours, bytes, requests and memory of each stage, before anything is paid for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import DataError, ImageError, RecipeError
from saccade.pipeline.forecast import ASSUMED, GPUS, Machines, Rates, Stage, stages
from saccade.recipe import DEFAULT_BACKBONE, Recipe
from saccade.records import Dataset
from saccade.run_folder import write_json
from saccade.sources.sampling import Sample, sampled
from saccade.terminal import Terminal, counted, duration

if TYPE_CHECKING:
    from torch import Tensor

    from saccade.features.compute import Engine

SAMPLE = 96  # images that are measured, evenly chosen
WARM = 16  # of these, before time counts


@dataclass(frozen=True, slots=True)
class InMemory:
    """Images that have been read already."""

    content: Mapping[str, bytes]

    def read(self, path: str) -> bytes:
        """The bytes that were read; raises ImageError for other images."""
        if path not in self.content:
            raise ImageError("not among the images that were measured", "Run again")
        return self.content[path]


def plan(
    manifest: str,
    terminal: Terminal,
    *,
    machines: int,
    cores: int,
    gpu: str = "",
    out: str = "",
) -> tuple[Stage, ...]:
    """Print what each stage takes; `out` names a .json for all figures.

    Rates are in seconds of the processor, so that other work on this machine does not count.

    Raises RecipeError for machines that cannot be, DataError where no image of the sample can be read.
    """
    there = _machines(machines, cores, gpu)
    sample = sampled(Path(manifest), SAMPLE)
    rates = measured(sample, start=time.process_time())
    found = stages(sample.images, sample.total_bytes, rates, there)
    _say(found, rates, sample, there, terminal)
    if out:
        values = {"rates": asdict(rates), "stages": [asdict(stage) for stage in found], "assumed": ASSUMED}
        write_json(Path(out), values)
        terminal.say(f"Written   {out}")
    return found


def _machines(count: int, cores: int, gpu: str) -> Machines:
    if count < 1 or cores < 1:
        raise RecipeError(f"--machines {count} --cores {cores}: there must be at least one of each")
    if gpu and gpu.lower() not in GPUS:
        raise RecipeError(f"--gpu {gpu} is not known", hint=f"known are: {', '.join(GPUS)}")
    return Machines(count, cores, GPUS[gpu.lower()] if gpu else 0.0)


# -- rates here ------------------------------------------------------------------------------------------


def measured(sample: Sample, *, start: float) -> Rates:
    """Seconds of one core for an image of the sample."""
    from saccade.audit.scan import ScanTask, examine_chunk
    from saccade.images.decoder import DEFAULT_LIMITS

    read, content = _read(sample)
    memory = InMemory(content)
    paths = list(content)
    began = time.process_time()
    examine_chunk(ScanTask(memory, DEFAULT_LIMITS), paths)
    examine = (time.process_time() - began) / len(paths)
    kept = sample.dataset.with_records(r for r in sample.dataset.records if r.path in content)
    inputs, quick, exact, feature_bytes, loading = _network(kept, memory)
    return Rates(read, examine, inputs, quick, exact, start, start + loading, feature_bytes)


def _read(sample: Sample) -> tuple[float, dict[str, bytes]]:
    content: dict[str, bytes] = {}
    began = time.perf_counter()
    for record in sample.dataset.records:
        try:
            content[record.path] = sample.dataset.storage.read(record.path)
        except ImageError:
            continue  # one that is gone is no rate
    if not content:
        raise DataError(
            "none of the images that were to be measured can be read", hint="write the manifest again"
        )
    return (time.perf_counter() - began) / len(sample.dataset.records), content


def _network(listed: Dataset, memory: InMemory) -> tuple[float, float, float, int, float]:
    """Seconds of an input, of its features (quick, in float32), their bytes, and seconds to make ready."""
    began = time.process_time()
    from saccade.imports import import_training_libraries

    import_training_libraries()
    from saccade.building import build_network
    from saccade.features.compute import Images
    from saccade.features.engines import engines_of
    from saccade.images.decoder import Limits
    from saccade.runtime import Runtime, one_thread_each

    recipe = Recipe()
    runtime = Runtime.create("cpu", recipe.precision)
    network = build_network(listed, recipe)
    engines = engines_of(network, runtime)
    ready = time.process_time() - began
    limits = Limits.of(recipe.data, network.preprocess.pixels)
    images = Images(memory, listed.records, network.preprocess, limits, exact=False)
    count = len(listed.records)
    with one_thread_each():
        began = time.process_time()
        batch = images.inputs(range(count))
        inputs = (time.process_time() - began) / count
        quick, exact = (
            _a_feature(engine, batch) for engine in (engines.quick or engines.exact, engines.exact)
        )
        feature_bytes = 4 * engines.exact(batch[:1]).shape[1]
    return inputs, quick, exact, feature_bytes, ready


def _a_feature(engine: Engine, batch: Tensor) -> float:
    engine(batch[:WARM])
    began = time.process_time()
    for start in range(0, len(batch), WARM):
        engine(batch[start : start + WARM])
    return (time.process_time() - began) / len(batch)


# -- in words --------------------------------------------------------------------------------------------


def _say(found: Sequence[Stage], rates: Rates, sample: Sample, there: Machines, terminal: Terminal) -> None:
    gpu = f", a GPU of {there.gpu_images:,.0f} images/s each (assumed)" if there.gpu_images else ""
    of = f"{counted(there.count, 'machine')} of {counted(there.cores, 'core')}{gpu}"
    terminal.say(f"Plan      {counted(sample.images, 'image')}, {sample.total_bytes / 1e9:,.1f} GB, on {of}")
    images = counted(len(sample.dataset.records), "image")
    terminal.say(
        f"Measured  here on {images}, one core: read {1e3 * rates.read:.1f} ms, examine "
        f"{1e3 * rates.examine:.1f} ms, input {1e3 * rates.network_input:.1f} ms, features "
        f"{1e3 * rates.quick:.1f} ms, in float32 {1e3 * rates.float32:.1f} ms ({DEFAULT_BACKBONE})"
    )
    lines = [f"{'stage':<20} {'time':>9} {'core hours':>11} {'read':>10} {'requests':>12} {'memory':>9}"]
    lines += [
        f"{stage.name:<20} {duration(stage.seconds):>9} {stage.core_seconds / 3600:>11,.2f} "
        f"{stage.read_bytes / 1e9:>7,.1f} GB {stage.requests:>12,.0f} {stage.memory_bytes / 1e9:>6,.1f} GB"
        for stage in found
    ]
    terminal.say(*(f"          {line}" for line in lines))
    for assumption in ASSUMED:
        terminal.say(f"Assumed   {assumption}")
