"""Runs as CSV, and the table made from them."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.time_to_accuracy import Run
from benchmarks.tools import DATA_SETS, OURS, TOOLS

COLUMNS = ("data", "tool", "round", "load", "seconds", "accuracy", "wall_seconds", "state")


def append(path: Path, run: Run) -> None:
    """Add one run, a line a point; a run without points has one line with these two fields empty."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        for seconds, accuracy in run.points or (("", ""),):
            figures = (f"{seconds:.3f}", f"{accuracy:.4f}") if run.points else ("", "")
            head = (run.data, run.tool, run.round, f"{run.load:.2f}")
            writer.writerow((*head, *figures, f"{run.wall_seconds:.3f}", run.state))


def read(path: Path) -> list[Run]:
    """Every run of a file, in the order in which they were made; [] where there is no file."""
    if not path.exists():
        return []
    found: dict[tuple[str, str, int], Run] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = row["data"], row["tool"], int(row["round"])
            known = found[key].points if key in found else ()
            point = ((float(row["seconds"]), float(row["accuracy"])),) if row["seconds"] else ()
            wall = float(row["wall_seconds"])
            found[key] = Run(*key, float(row["load"]), (*known, *point), wall, row["state"])
    return list(found.values())


def seconds_to(run: Run, accuracy: float) -> float | None:
    """When a run first knew an accuracy of at least `accuracy`; None: never."""
    return next((seconds for seconds, value in run.points if value >= accuracy - 1e-6), None)


def best(run: Run) -> tuple[float, float]:
    """(seconds, accuracy) of the best point, the first of equals: validation may choose the epoch."""
    return max(run.points, key=lambda point: (point[1], -point[0]))


def by_tool(runs: Iterable[Run], data: str) -> dict[str, list[Run]]:
    """Runs of one data set that made an accuracy known, in the order of TOOLS."""
    told = [run for run in runs if run.data == data and run.points]
    return {name: mine for name in TOOLS if (mine := [run for run in told if run.tool == name])}


def spread(values: Sequence[float], places: int = 1, scale: float = 1.0) -> str:
    """'median (smallest to largest)'; the value alone where there is one."""
    low, middle, high = (f"{scale * f(values):.{places}f}" for f in (min, statistics.median, max))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def table(runs: Sequence[Run], data: str) -> str:
    """Markdown: one row a tool, median and range over its runs."""
    targets = DATA_SETS[data].targets
    heads = ["tool", "n", "first accuracy: s", "best accuracy, %", "best: s", "last accuracy, %"]
    heads += [*(f"{target:.1%} reached: s" for target in targets), "whole command: s", "load before"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, mine in by_tool(runs, data).items():
        cells = [
            name,
            str(len(mine)),
            spread([run.points[0][0] for run in mine]),
            spread([best(run)[1] for run in mine], scale=100),
            spread([best(run)[0] for run in mine]),
            spread([run.points[-1][1] for run in mine], scale=100),  # not chosen by the validation part
            *(_reached(mine, target) for target in targets),
            spread([run.wall_seconds for run in mine]) + _endings(mine),
            spread([run.load for run in mine]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _reached(runs: Sequence[Run], target: float) -> str:
    times = [seconds for run in runs if (seconds := seconds_to(run, target)) is not None]
    if not times:
        return "never"
    return spread(times) + ("" if len(times) == len(runs) else f", in {len(times)} of {len(runs)}")


def _endings(runs: Sequence[Run]) -> str:
    odd = [run.state for run in runs if run.state != "finished"]
    return f" ({len(odd)} {'/'.join(sorted(set(odd)))})" if odd else ""


def sooner(runs: Sequence[Run], data: str) -> str:
    """Markdown: how much sooner saccade knew a rival's best accuracy, the ratio within each round."""
    tools = by_tool(runs, data)
    heads = ("saccade's way", "rival", "n", "times sooner to the rival's best accuracy", "better by, points")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for ours in (name for name in tools if TOOLS[name].environment == OURS):
        for rival in (name for name in tools if TOOLS[name].environment != OURS):
            theirs = {run.round: run for run in tools[rival]}
            pairs = [(run, theirs[run.round]) for run in tools[ours] if run.round in theirs]
            if pairs:
                lines.append(f"| {ours} | {rival} | {len(pairs)} | {_ratios(pairs)} | {_better(pairs)} |")
    return "\n".join(lines)


def _ratios(pairs: Sequence[tuple[Run, Run]]) -> str:
    ratios = [
        best(theirs)[0] / seconds
        for ours, theirs in pairs
        if (seconds := seconds_to(ours, best(theirs)[1])) is not None
    ]
    if not ratios:
        return "never reached"
    return spread(ratios) + (
        "" if len(ratios) == len(pairs) else f", reached in {len(ratios)} of {len(pairs)}"
    )


def _better(pairs: Sequence[tuple[Run, Run]]) -> str:
    return spread([best(ours)[1] - best(theirs)[1] for ours, theirs in pairs], scale=100)
