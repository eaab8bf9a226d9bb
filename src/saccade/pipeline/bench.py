"""`saccade bench`: every engine at hand, side by side, and which one to use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saccade.errors import RecipeError
from saccade.export import bench as benching
from saccade.export.bench import BenchRow
from saccade.export.engines import DEFAULT_SHAPE, FLOAT32, TORCH
from saccade.export.runtimes import instruction_set
from saccade.run_folder import csv_bytes, json_bytes, write_bytes
from saccade.terminal import Terminal

INT8_PAYS, INT8_PAYS_WITH_VNNI = (
    1.2,
    2.5,
)  # times as fast as float32 in ONNX Runtime, below it is not worth it
TABLES = (".json", ".csv")
HEADS = f"{'engine':<20} thr p50 ms p99 ms  images/s 1, 8, 32    MB   RAM agrees"


def bench(
    model: str, terminal: Terminal, *, rounds: int, out: str = "", plot: str = ""
) -> tuple[BenchRow, ...]:
    """Latency, throughput, size, memory and agreement of every engine at hand, and a recommendation.

    `out` is a .json or .csv with all figures, `plot` a picture. Raises SaccadeError.
    """
    if out and Path(out).suffix not in TABLES:
        raise RecipeError(f"--out is no name of a .json or .csv file: {out}", hint="end it in .json or .csv")
    if plot and Path(plot).suffix != ".png":
        raise RecipeError(f"--plot is no name of a .png file: {plot}", hint="end it in .png")
    with terminal.progress("measuring engines", "rounds") as progress:
        rows = benching.bench(model, rounds=rounds, progress=progress)
    say_engines(rows, terminal)
    if out:
        write_bytes(Path(out), _table(rows, Path(out).suffix))
    if plot:
        from saccade.pipeline.bench_picture import draw

        write_bytes(Path(plot), draw(rows))
    for path in filter(None, (out, plot)):
        terminal.say(f"Written   {path}")
    return rows


def say_engines(rows: Sequence[BenchRow], terminal: Terminal) -> None:
    """The table, with what was measured and how often, and which engine to use."""
    height, width = DEFAULT_SHAPE
    first = rows[0]
    terminal.say(
        f"photos of {width} x {height}, preprocessing included; {first.rounds} interleaved rounds, "
        f"{first.timings} single calls; throughput: medians; on {instruction_set()}"
    )
    terminal.say(HEADS)
    for row in rows:
        terminal.say(_line(row))
    terminal.say(" ".join(recommendation(rows)))


def _line(row: BenchRow) -> str:
    """One row of the table, at most 80 columns; MB of the file, and of memory."""
    rates = " ".join(f"{row.throughput[size].median:>5,.0f}" for size in sorted(row.throughput))
    peak = "?" if row.peak_megabytes is None else f"{row.peak_megabytes:.0f}"
    agrees = "?" if row.engine.agreement is None else f"{row.engine.agreement:.1%}"
    latency = f"{row.latency_p50_ms:>6.1f} {row.latency_p99_ms:>6.1f}"
    return (
        f"{row.engine.name:<20} {row.threads:>3} {latency}  {rates} "
        f"{row.engine.megabytes:>5.1f} {peak:>5} {agrees:>6}"
    )


def recommendation(rows: Sequence[BenchRow], *, processor: str = "") -> Iterator[str]:
    """Which engine to use here, in sentences; int8 only where it pays and its certificate holds."""
    exact = [row for row in rows if row.engine.library != TORCH and row.engine.precision == FLOAT32]
    if not exact:
        return
    best = min(exact, key=lambda row: row.latency_p50_ms)
    most = max(exact, key=lambda row: _rate(row))
    int8 = _int8_gain(rows)
    pays = INT8_PAYS_WITH_VNNI if "VNNI" in (processor or instruction_set()) else INT8_PAYS
    if int8 and int8[1] >= pays and int8[0].engine.passed:
        yield f"Use {_called(int8[0])}: {_figures(int8[0])}, {int8[1]:.1f} times float32."
    else:
        yield f"Use {_called(best)}: {_figures(best)}{_against_torch(rows, best)}."
    if most is not best and _rate(most) > _rate(best):
        yield f"For many photos at once use {_called(most)}: {_rate(most):,.0f} a second."
    if int8 and not int8[0].engine.passed:
        yield "The int8 file failed its certificate."
    elif int8 and int8[1] < pays:
        yield (
            f"int8 is not worth it here: {int8[1]:.1f} times as fast as float32 (it pays from {pays:g} "
            f"on this processor), in {int8[0].engine.megabytes / best.engine.megabytes:.0%} of the size."
        )


def _int8_gain(rows: Sequence[BenchRow]) -> tuple[BenchRow, float] | None:
    """The quickest int8 row, and how many times as fast it is as float32 in ONNX Runtime, threads equal."""
    reduced = [row for row in rows if row.engine.precision == "int8"]
    if not reduced:
        return None
    best = min(reduced, key=lambda row: row.latency_p50_ms)
    exact = [
        row.latency_p50_ms
        for row in rows
        if (row.engine.library, row.engine.precision) == ("ONNX Runtime", FLOAT32)
        and row.threads == best.threads
    ]
    return (best, exact[0] / best.latency_p50_ms) if exact else None


def _called(row: BenchRow) -> str:
    return f"{row.engine.name} with {row.threads} {'thread' if row.threads == 1 else 'threads'}"


def _figures(row: BenchRow) -> str:
    return f"{row.latency_p50_ms:.1f} ms a photo (p99 {row.latency_p99_ms:.1f})"


def _rate(row: BenchRow) -> float:
    """Photos a second in the largest batch."""
    return row.throughput[max(row.throughput)].median


def _against_torch(rows: Sequence[BenchRow], best: BenchRow) -> str:
    trained = [row for row in rows if row.engine.library == TORCH]
    if not trained:
        return ""
    single = min(row.latency_p50_ms for row in trained) / best.latency_p50_ms
    many = max(_rate(row) for row in rows if row.engine.precision == FLOAT32) / max(map(_rate, trained))
    size = max(best.throughput)
    return f", {single:.1f} times torch eager (batches of {size}: {many:.1f})"


# ── a table for programs ─────────────────────────────────────────────────────────────────────────────


def _table(rows: Sequence[BenchRow], suffix: str) -> bytes:
    values = [_as_json(row) for row in rows]
    if suffix == ".json":
        return json_bytes(
            {
                "processor": instruction_set(),
                "shape": list(DEFAULT_SHAPE),
                "recommendation": list(recommendation(rows)),
                "rows": values,
            }
        )
    return csv_bytes(list(values[0]), ([str(cell) for cell in value.values()] for value in values))


def _as_json(row: BenchRow) -> dict[str, Any]:
    engine = row.engine
    rates = {
        f"images_per_second_batch_{size}{name}": value
        for size, spread in sorted(row.throughput.items())
        for name, value in (("", spread.median), ("_low", spread.low), ("_high", spread.high))
    }
    return {
        "engine": engine.library,
        "precision": engine.precision,
        "file": str(engine.file),
        "threads": row.threads,
        "rounds": row.rounds,
        "timings": row.timings,
        "latency_p50_ms": row.latency_p50_ms,
        "latency_p99_ms": row.latency_p99_ms,
        **rates,
        "megabytes": engine.megabytes,
        "peak_megabytes": row.peak_megabytes,
        "agreement": engine.agreement,
        "images": engine.images,
        "accuracy": engine.accuracy,
        "accuracy_images": engine.accuracy_images,
        "passed": engine.passed,
    }
