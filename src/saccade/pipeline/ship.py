"""From a bundle to one file that gives the same answer everywhere, with the proof."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saccade.artefact import BACKGROUND_KEY, GRAY_MAXIMUM_KEY
from saccade.errors import RecipeError, RunError
from saccade.export.bench import DEFAULT_SHAPE, BenchRow, Spread
from saccade.export.bench import bench as measure_engines
from saccade.export.certify import CERTIFIED_PARTS
from saccade.export.certify import certify as make_certificate
from saccade.export.verdict import Kind
from saccade.images.decoder import CheckedReader, Limits
from saccade.pipeline.evidence import check_export
from saccade.pipeline.judge import certificate_line, data_of
from saccade.recipe import Recipe
from saccade.records import Certificate, Dataset, Predictions
from saccade.run_folder import RunFolder, certificate_beside, existing_run, json_bytes, read_json
from saccade.terminal import Terminal

FORMATS = ("onnx",)


def export_and_certify(run: RunFolder, dataset: Dataset, recipe: Recipe, terminal: Terminal) -> Certificate:
    """Write the run's own export/model.onnx where it is missing, and certify it."""
    if not run.has(run.onnx):
        _write(run, run.onnx)
    check_export(run, dataset, recipe)
    return _certify(run, run.onnx, dataset, recipe, terminal, kind="float")


def export(
    run_path: str,
    terminal: Terminal,
    *,
    format: str = "onnx",
    int8: bool = False,
    out: str = "",
    data: str = "",
) -> Certificate:
    """`saccade export`: one certified file, float or int8; `data` says where moved images lie now."""
    if format not in FORMATS:
        raise RecipeError(f"format {format!r} is not offered; use one of: {', '.join(FORMATS)}")
    if out and (Path(out).suffix != ".onnx" or Path(out).is_dir()):
        raise RecipeError(f"--out {out}: give the name of a file that ends in .onnx")
    run = finished_run(run_path)
    recipe, dataset = run.read_recipe(), data_of(run, data)
    with run.locked():
        target = Path(out) if out else (run.int8 if int8 else run.onnx)
        if int8:
            _write_int8(run, target, dataset, recipe, terminal)
        else:
            _write(run, target)
            if target.resolve() == run.onnx.resolve():
                check_export(run, dataset, recipe)
        certificate = _certify(run, target, dataset, recipe, terminal, kind="int8" if int8 else "float")
    terminal.say(certificate_line(certificate_as_json(certificate), target))
    return certificate


def certify(file: str, run_path: str, terminal: Terminal, *, data: str = "") -> Certificate:
    """`saccade certify`: run the certificate again; works without torch."""
    run = finished_run(run_path)
    path = Path(file)
    kind: Kind = "int8" if _stored_kind(run, path) == "int8" else "float"
    with run.locked():
        if run.has(path):
            run.check(path)  # else the certificate would be about what the file was not meant to be
        certificate = _certify(run, path, data_of(run, data), run.read_recipe(), terminal, kind=kind)
    terminal.say(certificate_line(certificate_as_json(certificate), path))
    return certificate


def finished_run(path: str) -> RunFolder:
    """The run folder at `path`; raises RunError when there is none, or none that is trained."""
    run = existing_run(path)
    if not run.has(run.model_json):
        raise RunError(f"{path} is not trained to the end; {run.remedy(run.model_json)}")
    return run


def _write(run: RunFolder, target: Path) -> None:
    from saccade.bundle import load_bundle
    from saccade.export.onnx import write_onnx

    data = run.read_recipe().data
    decoding: dict[str, Any] = {BACKGROUND_KEY: list(data.background)}
    if data.gray_maximum:
        decoding[GRAY_MAXIMUM_KEY] = data.gray_maximum
    run.check(run.model_json, run.weights)
    write_onnx(load_bundle(run.bundle), target, extra=decoding, write=run.write)


def _write_int8(run: RunFolder, target: Path, dataset: Dataset, recipe: Recipe, terminal: Terminal) -> None:
    from saccade.export.quantize import quantize
    from saccade.images.decoder import read_pixels

    if not run.has(run.onnx):
        _write(run, run.onnx)
    run.check(run.onnx)
    records = dataset.used("train")
    chosen = records[:: -(-len(records) // recipe.export.calibration_images)]
    images = (read_pixels(dataset.storage, record, Limits.of(recipe.data)) for record in chosen)
    with terminal.progress("calibrating int8 on training images"):
        quantize(run.onnx, target, images, write=run.write)


def _certify(
    run: RunFolder, file: Path, dataset: Dataset, recipe: Recipe, terminal: Terminal, *, kind: Kind
) -> Certificate:
    with terminal.progress("certifying the exported file"):
        certificate = make_certificate(
            file,
            predictions_of(run),
            CheckedReader(dataset.storage, dataset.used()),
            tolerance=recipe.export.tolerance,
            max_drop=recipe.export.max_drop,
            max_images=recipe.export.certify_images,
            kind=kind,
            limits=Limits.of(recipe.data),
        )
    run.write(certificate_path(run, file), json_bytes(certificate_as_json(certificate)))
    return certificate


def certificate_path(run: RunFolder, file: Path) -> Path:
    """Inside the run for its own export, beside the file for any other."""
    return run.certificate() if file.resolve() == run.onnx.resolve() else certificate_beside(file)


def certificate_as_json(certificate: Certificate) -> dict[str, Any]:
    """The content of certificate.json: the design's fields, then what else was found."""
    values = dataclasses.asdict(certificate)
    return {**values.pop("extra"), **values}


def predictions_of(run: RunFolder) -> dict[str, Predictions]:
    """The trained model's answers on validation and test."""
    return {part: run.read_predictions(part) for part in CERTIFIED_PARTS if run.has(run.predictions(part))}


def _stored_kind(run: RunFolder, file: Path) -> str:
    """float or int8, as an earlier certificate of this file says, where that is whole."""
    values: dict[str, Any] = {}
    with contextlib.suppress(RunError):
        values = read_json(certificate_path(run, file))
    return str(values.get("kind", "int8" if "int8" in file.name else "float"))


def bench(model: str, terminal: Terminal, *, rounds: int) -> tuple[BenchRow, ...]:
    """`saccade bench`: latency, throughput, size and accuracy of every engine at hand, side by side."""
    rows = measure_engines(model, rounds=rounds)
    say_engines(rows, terminal)
    return rows


def say_engines(rows: Sequence[BenchRow], terminal: Terminal) -> None:
    """The table, with what was measured and how often."""
    first = rows[0]
    height, width = DEFAULT_SHAPE
    terminal.say(
        f"{first.threads} threads, photos of {width} x {height}, preprocessing included; latency over "
        f"{first.timings} calls, throughput: median (lowest to highest) of {first.rounds} interleaved rounds"
    )
    sizes = sorted(first.throughput)
    heads = [f"{'engine':<20}", f"{'MB':>6}", f"{'p50 ms':>8}", f"{'p95 ms':>8}"]
    heads += [f"{f'images/s, batch {size}':>26}" for size in sizes]
    terminal.say("  ".join([*heads, "validation accuracy"]))
    for row in rows:
        cells = [f"{row.engine:<20}", f"{row.megabytes:>6.1f}"]
        cells += [f"{row.latency_p50_ms:>8.2f}", f"{row.latency_p95_ms:>8.2f}"]
        cells += [f"{_spread(row.throughput[size]):>26}" for size in sizes]
        known = row.accuracy is not None
        cells.append(f"{row.accuracy:.1%} ({row.accuracy_images} images)" if known else "not measured")
        terminal.say("  ".join(cells))


def _spread(figure: Spread) -> str:
    return f"{figure.median:,.0f} ({figure.low:,.0f} to {figure.high:,.0f})"
