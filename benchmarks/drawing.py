"""The picture: accuracy against seconds since the command was typed, one line a tool and round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import best, by_tool
from benchmarks.time_to_accuracy import Run
from benchmarks.tools import OURS, TOOLS

COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#aa8844", "#aa3377", "#777777", "#222222")
OUR_COLOURS = ("#d1352b", "#f08a4b", "#b0566f")


def draw(runs: Sequence[Run], data: str, conditions: str, path: Path) -> None:
    """Write `path` with the suffixes .png and .svg; nothing where no tool made an accuracy known."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "saccade"
    from matplotlib import pyplot

    tools = by_tool(runs, data)
    if not tools:
        return
    figure, axes = pyplot.subplots(figsize=(9.5, 5.2), layout="constrained")
    for name, colour in _colours(list(tools)).items():
        _draw_tool(axes, name, tools[name], colour)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks([tick for tick in (2, 5, 10, 20, 50, 100, 200, 500, 1000) if _within(tick, tools)])
    axes.minorticks_off()
    axes.set_xlabel("seconds since the command was typed, imports included (log)")
    axes.set_ylabel("accuracy so far, %")
    axes.set_title(
        f"{data}: one line a run, cross: median and range of the best over the rounds", fontsize=10
    )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    figure.supxlabel(conditions, fontsize=6, color="#555555")
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150)
    pyplot.close(figure)


def _colours(names: Sequence[str]) -> dict[str, str]:
    ours = [name for name in names if TOOLS[name].environment == OURS]
    rivals = [name for name in names if name not in ours]
    return dict(zip(ours, OUR_COLOURS, strict=False)) | dict(zip(rivals, COLOURS, strict=False))


def _draw_tool(axes: Any, name: str, runs: Sequence[Run], colour: str) -> None:
    """A step line a run (the best so far, to the end of the command), and a cross over all runs."""
    wide = 2.0 if TOOLS[name].environment == OURS else 1.1
    for run in runs:
        seconds, values, top = [], [], 0.0
        for at, value in run.points:
            top = max(top, value)
            seconds.append(at)
            values.append(100 * top)
        seconds.append(run.wall_seconds)
        values.append(100 * top)
        axes.step(seconds, values, where="post", color=colour, linewidth=wide, alpha=0.7)
        axes.plot(seconds[:-1], values[:-1], ".", color=colour, markersize=4)
    times, tops = zip(*(best(run) for run in runs), strict=True)
    x, y = statistics.median(times), 100 * statistics.median(tops)
    sides = [[x - min(times)], [max(times) - x]], [[y - 100 * min(tops)], [100 * max(tops) - y]]
    axes.errorbar(
        x,
        y,
        sides[1],
        sides[0],
        fmt="o",
        color=colour,
        markersize=6,
        capsize=3,
        label=f"{name} (n = {len(runs)})",
    )


def _within(tick: float, tools: dict[str, list[Run]]) -> bool:
    starts = min(run.points[0][0] for runs in tools.values() for run in runs)
    ends = max(run.wall_seconds for runs in tools.values() for run in runs)
    return bool(0.8 * starts <= tick <= 1.25 * ends)
