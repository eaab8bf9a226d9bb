"""`saccade bench`: every engine at hand, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.export import bench as benching
from saccade.terminal import Terminal


def bench(model: str, terminal: Terminal, *, rounds: int) -> tuple[benching.BenchRow, ...]:
    """`saccade bench`: latency, throughput, size and accuracy of every engine at hand, side by side."""
    rows = benching.bench(model, rounds=rounds)
    say_engines(rows, terminal)
    return rows


def say_engines(rows: Sequence[benching.BenchRow], terminal: Terminal) -> None:
    """The table, with what was measured and how often."""
    first = rows[0]
    height, width = benching.DEFAULT_SHAPE
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


def _spread(figure: benching.Spread) -> str:
    return f"{figure.median:,.0f} ({figure.low:,.0f} to {figure.high:,.0f})"
