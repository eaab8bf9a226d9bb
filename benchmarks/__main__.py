"""saccade beside its rivals: time to accuracy on the same files, and how soon a command starts.

    python -m benchmarks setup [FOLDER]        the rivals' environments (default .benchmarks/environments)
    python -m benchmarks check                 Keras' network with timm's weights gives timm's features
    python -m benchmarks [--data flowers5,flowers12] [--rounds 3] [--only NAMES] [--minutes 10]
                                               first the starts, then time to accuracy (alone with --only)
    python -m benchmarks start [--rounds 7]    `saccade --help`, and `saccade train` until its first step
    python -m benchmarks draw                  table and picture again from the runs that are there

SACCADE_DATA names the folder with data/. Runs are added to OUT/runs.csv, so that rounds may be
made at several times; the table and picture are of all of them. What is not there is named and left out.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path

from benchmarks import drawing, environments, results, start, time_to_accuracy
from benchmarks.time_to_accuracy import Place
from benchmarks.tools import DATA_SETS, TOOLS, WEIGHTS

HOME = Path(".benchmarks")
FEWEST_STARTS = 5


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", nargs="?", default="run", choices=("run", "setup", "check", "start", "draw"))
    parser.add_argument("folder", nargs="?", type=Path, help="of the rivals' environments")
    parser.add_argument("--environments", type=Path, default=HOME / "environments")
    parser.add_argument("--data", default=",".join(DATA_SETS), help=f"default: {','.join(DATA_SETS)}")
    parser.add_argument(
        "--only", default="", help=f"of: {', '.join(TOOLS)}; quick: those under three minutes"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10.0, help="after which a run is ended")
    parser.add_argument("--cores", type=int, default=0, help="that all tools may use; 0: all there are")
    parser.add_argument("--out", type=Path, default=HOME / "time-to-accuracy")
    parser.add_argument("--work", type=Path, default=HOME / "work", help="runs and logs")
    parser.add_argument(
        "--no-warm", action="store_true", help="leave out the start of each tool before timing"
    )
    return parser.parse_args()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended too
    asked = parsed()
    asked.environments = (asked.folder or asked.environments).absolute()
    names = chosen(asked.only)
    data_names = asked.data.split(",")
    unknown = [name for name in data_names if name not in DATA_SETS]
    if unknown:
        raise SystemExit(f"benchmarks: --data: unknown {unknown}; use: {', '.join(DATA_SETS)}")
    if asked.stage == "setup":
        environments.set_up(asked.environments)
    elif asked.stage == "draw":
        write(asked)
    elif asked.stage == "check":
        check(asked)
    elif asked.stage == "start":
        time_starts(asked)
    else:
        time_to_accuracy.keep_cores(asked.cores)
        if not asked.only:
            time_starts(asked)
        measure(asked, names, data_names)


def chosen(only: str) -> list[str]:
    """Names of tools from --only; all where it is empty. Raises SystemExit for an unknown one."""
    if only in ("", "quick"):
        return [name for name, tool in TOOLS.items() if tool.quick or not only]
    names = only.split(",")
    unknown = [name for name in names if name not in TOOLS]
    if unknown:
        raise SystemExit(f"benchmarks: --only: unknown {unknown}; use: {', '.join(TOOLS)}, or quick")
    return names


def shared_folder() -> Path:
    """The folder SACCADE_DATA names; raises SystemExit where it is not there."""
    folder = os.environ.get("SACCADE_DATA", "")
    if not folder or not (Path(folder) / "weights").is_dir():
        raise SystemExit(
            f"benchmarks: SACCADE_DATA is {folder!r}: time to accuracy needs photos and weights; "
            "set it to the folder that holds data/flowers5, data/flowers12 and weights/"
        )
    return Path(folder).absolute()


def check(asked: argparse.Namespace) -> None:
    """Print the largest difference between the features of the two frameworks on eight photos."""
    shared = shared_folder()
    photos = sorted((shared / "data/flowers5/val").rglob("*.jpg"))[::32]
    weights = asked.environments / WEIGHTS
    difference = environments.check_same_features(asked.environments, photos, weights)
    print(f"timm and Keras, features of {len(photos)} photos: largest difference {difference:.2g}")


def time_starts(asked: argparse.Namespace) -> None:
    """Print five starts or more and write OUT/start.md; without SACCADE_DATA only what needs no photos."""
    shared = os.environ.get("SACCADE_DATA", "")
    if not shared:
        print("left out: saccade train until its first step: SACCADE_DATA is not set")
    found = start.starts(Path(shared).absolute() if shared else None, max(FEWEST_STARTS, asked.rounds))
    rows = "\n".join(f"| {what} | {len(took)} | {results.spread(took, 2)} |" for what, took in found.items())
    page = (
        f"# Starts\n\n| what | n | seconds, median (range) |\n|---|---|---|\n{rows}\n\n"
        f"{conditions(asked)}; load {os.getloadavg()[0]:.1f}\n\n{typed()}\n"
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "start.md").write_text(page, "utf-8")
    print(page)


def conditions(asked: argparse.Namespace) -> str:
    """Processor, cores and versions."""
    machine = f"{time_to_accuracy.processor()}, {time_to_accuracy.cores()} cores"
    return f"{machine}; {environments.versions(asked.environments)}"


def typed() -> str:
    """The command as it was typed."""
    return f"`python -m benchmarks {shlex.join(sys.argv[1:])}`"


def measure(asked: argparse.Namespace, names: list[str], data_names: list[str]) -> None:
    """Make the rounds, the tools in turn; table and picture are written again after each round.

    Raises SystemExit where SACCADE_DATA is missing.
    """
    place = Place(shared_folder(), asked.environments, asked.work.absolute())
    asked.out.mkdir(parents=True, exist_ok=True)
    ready = time_to_accuracy.ready_tools(names, place)
    for data_name in data_names:
        able = [name for name in ready if asked.no_warm or time_to_accuracy.warm(name, data_name, place)]
        data = place.shared / DATA_SETS[data_name].folder
        before = [run.round for run in results.read(asked.out / "runs.csv") if run.data == data_name]
        for number in range(max(before, default=0) + 1, max(before, default=0) + asked.rounds + 1):
            for name in able:
                run = time_to_accuracy.run_once(
                    name, data_name, data, place, number=number, minutes=asked.minutes
                )
                results.append(asked.out / "runs.csv", run)
                told = " ".join(f"{seconds:.1f}s:{accuracy:.1%}" for seconds, accuracy in run.points)
                print(
                    f"{data_name} round {number} {name}: {told} | {run.state}, {run.wall_seconds:.1f} s",
                    flush=True,
                )
            write(asked)


def write(asked: argparse.Namespace) -> None:
    """OUT/DATA.md, .png and .svg of every data set that has runs."""
    runs = results.read(asked.out / "runs.csv")
    for data_name in DATA_SETS:
        if not results.by_tool(runs, data_name):
            continue
        said = conditions(asked)
        tools = "\n".join(f"- `{name}`: {TOOLS[name].what}" for name in results.by_tool(runs, data_name))
        page = (
            f"# Time to accuracy: {data_name}\n\nMedian (range) over rounds; a round has a seed, the tools "
            f"take turns within it. Seconds since the command was typed, imports included.\n\n"
            f"{results.table(runs, data_name)}\n\n{results.sooner(runs, data_name)}\n\n{tools}\n\n"
            f"{said}\n\n{typed()}\n"
        )
        (asked.out / f"{data_name}.md").write_text(page, "utf-8")
        drawing.draw(runs, data_name, said, asked.out / data_name)
        print(f"{asked.out / data_name}.md, .png, .svg")


if __name__ == "__main__":
    main()
