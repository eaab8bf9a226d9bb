"""`saccade doctor`: the state of this installation, and the line that installs what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from saccade._version import __version__
from saccade.terminal import Terminal
from saccade.threads import usable_cores

EXTRAS = ("train", "photos", "jxl", "openvino")


def examine(terminal: Terminal) -> int:
    """Print the state of this installation; returns 0 when predicting works, else 1.

    terminal: where it is printed.
    """
    terminal.say(f"saccade {__version__}, Python {platform.python_version()} at {sys.prefix}")
    terminal.say(
        f"{platform.system()} {platform.machine()}, {usable_cores()} of {os.cpu_count()} cores usable"
    )
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    terminal.say(f"{_memory_gb()} memory, {free:,.0f} GB free on this disk")
    complete = _report_packages("", "predicting from model.onnx", terminal)
    for extra in EXTRAS:
        _report_packages(extra, _PURPOSES[extra], terminal)
    _report_device(terminal)
    return 0 if complete else 1


_PURPOSES = {
    "train": "audit, training, reports",
    "photos": "HEIC photos, also without training",
    "jxl": "JPEG XL photos",
    "openvino": "faster feature extraction on some processors",
}


def _report_packages(extra: str, purpose: str, terminal: Terminal) -> bool:
    names = _requirements(extra)
    missing = [name for name in names if _version(name) is None]
    label = f"saccade[{extra}]" if extra else "saccade"
    if not missing:
        found = ", ".join(f"{name} {_version(name)}" for name in names)
        terminal.say(f"  ok       {label}: {purpose} ({found})")
    else:
        terminal.say(f"  missing  {label}: {purpose} ({', '.join(missing)})")
        terminal.say(f"  hint: pip install '{label}'")
    return not missing


def _requirements(extra: str) -> list[str]:
    """Names of the packages that an extra (or, with "", the base) asks for, from saccade's own metadata."""
    marker = f'extra == "{extra}"'
    chosen = []
    for requirement in requires("saccade") or []:
        name, _, condition = requirement.partition(";")
        if (marker in condition) if extra else ("extra ==" not in condition):
            bare = name.strip()
            for sign in "[<>=!~ (":
                bare = bare.partition(sign)[0]
            chosen.append(bare)
    return chosen


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory_gb() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:,.0f} GB"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def _report_device(terminal: Terminal) -> None:
    if _version("torch") is None or _version("lightning-fabric") is None:
        return
    from saccade.runtime import Runtime

    found = Runtime.create().describe()
    terminal.say("  training on: " + ", ".join(f"{key} {value}" for key, value in found.items()))
