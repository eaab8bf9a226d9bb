"""What every rival shares: its command line, its curve, and its photos. Needs the standard library only.

A rival is run as `python benchmarks/rivals/NAME.py DATA --weights FILE --curve FILE --seed N ...`, with DATA
a folder of two parts (`--train`, `--validation`), each with one folder a class.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

BACKBONE = "tf_efficientnet_lite0"  # in timm
# The clock starts where the command was typed: the time that the starter noted, or else this import.
STARTED = float(os.environ.get("BENCHMARK_STARTED") or time.time())


def arguments(description: str, **switches: str) -> argparse.Namespace:
    """The flags all rivals know, and switches of one rival's own (name=help)."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", default="train")
    parser.add_argument("--validation", default="val")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument(
        "--curve", type=Path, required=True, help="a line 'seconds accuracy' after each epoch"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=0, help="0: as the recipe has it")
    for name, text in switches.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
    return parser.parse_args()


def note(curve: Path, accuracy: float) -> None:
    """Append 'seconds accuracy' to the curve; seconds since the command was typed, accuracy from 0 to 1."""
    with curve.open("a", encoding="ascii") as file:
        file.write(f"{time.time() - STARTED:.3f} {accuracy:.6f}\n")


def labelled_files(part: Path) -> tuple[list[Path], list[int]]:
    """Every photo below a folder of class folders, and the index of its class by name."""
    classes = sorted(folder for folder in part.iterdir() if folder.is_dir())
    pairs = [(path, i) for i, folder in enumerate(classes) for path in sorted(folder.iterdir())]
    return [path for path, _ in pairs], [label for _, label in pairs]
