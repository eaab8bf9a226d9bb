"""`saccade doctor`: the state of this installation, and the line that installs what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from saccade._version import __version__
from saccade.terminal import Terminal, counted, wrapped
from saccade.threads import usable_cores

PURPOSES = {
    "": "predicting with model.onnx",
    "train": "audit, training, reports",
    "photos": "HEIC and AVIF photos, also without training",
    "jxl": "JPEG XL photos",
    "lite": "weights of two larger backbones, tf_efficientnet_lite1 and lite2",
    "openvino": "quicker features and predictions on many processors",
    "serve": "answers over HTTP: saccade serve",
    "remote": "images in buckets and behind https://",
    "notebook": "tables and progress in notebooks",
}
NOT_FOR_USERS = ("dev", "docs", "all")


def examine(terminal: Terminal) -> int:
    """Print the state of this installation; returns 0 when predicting works, else 1.

    terminal: where it is printed.
    """
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    terminal.say(
        f"saccade {__version__}, Python {platform.python_version()} in {sys.prefix}",
        f"{platform.system()} {platform.machine()}, {usable_cores()} of {os.cpu_count()} cores usable, "
        f"{_memory_gb()} memory, {free:,.0f} GB free on this disk",
        "",
    )
    known = metadata("saccade").get_all("Provides-Extra") or []
    extras = [extra for extra in PURPOSES if extra == "" or extra in known]
    extras += [extra for extra in known if extra not in (*PURPOSES, *NOT_FOR_USERS)]
    missing = {extra: _missing(extra) for extra in extras}
    for extra in extras:
        _say_extra(extra, missing[extra], terminal)
    terminal.say("")
    _say_versions([extra for extra in extras if not missing[extra]], terminal)
    _say_device(terminal)
    if not missing[""]:
        _say_cache(terminal)
    return 1 if missing[""] else 0


def _say_extra(extra: str, missing: list[str], terminal: Terminal) -> None:
    """Whether an extra is there, and what it brings, or would."""
    name = f"saccade[{extra}]" if extra else "saccade"
    purpose = PURPOSES.get(extra, ", ".join(_requirements(extra)))
    terminal.say(f"  {'missing' if missing else 'ok':<8} {name:<18} {purpose}")
    if missing:
        line = f"           {'':<18} not installed: {', '.join(missing)}; pip install '{name}'"
        terminal.say(*wrapped(line, 110).split("\n"))


def _missing(extra: str) -> list[str]:
    return [name for name in _requirements(extra) if _version(name) is None]


def _say_versions(extras: list[str], terminal: Terminal) -> None:
    """The packages of what is there, for a report of a defect."""
    names = dict.fromkeys(name for extra in extras for name in _requirements(extra))
    found = ", ".join(f"{name} {_version(name)}" for name in names)
    terminal.say(*wrapped(f"Versions  {found}", 100).split("\n"))


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


def _say_cache(terminal: Terminal) -> None:
    """How much is kept between commands, and how much may be."""
    from saccade.caches.bound import VARIABLE, bound_bytes, usage
    from saccade.caches.store import cache_folder

    folder = cache_folder()
    total = usage(folder).total
    bound = bound_bytes(folder, total)
    terminal.say(f"Cache     {folder}: {total / 1e9:,.1f} GB of at most {bound / 1e9:,.1f} GB ({VARIABLE})")


def _say_device(terminal: Terminal) -> None:
    """On what a training would run here."""
    if _version("torch") is None or _version("lightning-fabric") is None:
        terminal.say("Training  not possible yet: pip install 'saccade[train]'")
        return
    from saccade.runtime import Runtime, why_no_gpu

    found = Runtime.create().describe()
    threads = counted(found["threads"], "thread")
    more = f", {found['ranks']} devices" if found["ranks"] > 1 else ""
    terminal.say(
        f"Training  would run on {found['device']} ({found['device_name']}) in {found['precision']}, "
        f"{threads}{more}"
    )
    if found["device"] == "cpu":
        terminal.say(f"          not on a GPU: {why_no_gpu()}")
