"""The figures of `saccade bench` as a picture: how long one photo takes, and how many a second in batches."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence

from saccade.errors import MissingExtraError
from saccade.export.bench import BenchRow

COLOURS = {"torch": "#8c8c8c", "ONNX Runtime": "#3366aa", "OpenVINO": "#cc7733"}


def draw(rows: Sequence[BenchRow]) -> bytes:
    """A PNG; raises MissingExtraError without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "train", "drawing figures")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.5 + 0.38 * len(rows)), layout="constrained")
    one, many = figure.subplots(1, 2, sharey=True)
    names = [f"{row.engine.name}, {row.threads} thr." for row in rows]
    colours = [COLOURS[row.engine.library] for row in rows]
    size = max(rows[0].throughput)
    p50, p99 = ([getattr(row, f"latency_{name}_ms") for row in rows] for name in ("p50", "p99"))
    late = [[0.0] * len(rows), [high - low for low, high in zip(p50, p99, strict=True)]]
    rates = [row.throughput[size] for row in rows]
    spread = [[rate.median - rate.low for rate in rates], [rate.high - rate.median for rate in rates]]
    medians = [rate.median for rate in rates]
    for axes, values, errors in ((one, p50, late), (many, medians, spread)):
        bars = axes.barh(names, values, xerr=errors, color=colours, ecolor="#333333", capsize=3)
        axes.bar_label(bars, labels=[f"{value:,.1f}" for value in values], label_type="center", color="white")
        axes.spines[["top", "right"]].set_visible(False)
    one.set_xlabel("ms a photo: median, to 99th percentile")
    many.set_xlabel(f"photos a second, batches of {size}: median, range")
    one.invert_yaxis()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
