"""How many cores there are, and OpenMP's idle threads kept from spinning before torch is loaded.

Idle OpenMP threads spin by default. With other busy processes on the same cores that makes two-thread torch
tens of times slower (measured: mobilenetv3, 4 images/s against 66 with a short spin and 89 with none).
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

SPINS_WHEN_QUIET = "2000"
SPINS_WHEN_BUSY = "0"
CHOSEN_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def calm_openmp() -> None:
    """Set GOMP_SPINCOUNT unless the user has chosen, or torch is loaded already and would not see it."""
    if "torch" in sys.modules or any(name in os.environ for name in CHOSEN_BY_USER):
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS_WHEN_BUSY if machine_is_busy() else SPINS_WHEN_QUIET


def machine_is_busy() -> bool:
    """Whether other work already asks for about one core of those there are."""
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):
        return False
    return load > 0.5 * available_cores()


def available_cores() -> int:
    """Cores this process may use: its affinity, and the quota of its control group where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))  # "max" is no number: no quota
    return cores


def usable_cores() -> int:
    """Cores this process may use; OMP_NUM_THREADS, where the user set it, is never exceeded."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(available_cores(), max(1, int(wanted))) if wanted.isdecimal() else available_cores()
