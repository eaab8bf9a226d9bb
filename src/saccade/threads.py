"""OpenMP's idle threads, kept from spinning: the one setting that must be made before torch is loaded.

Idle OpenMP threads spin by default. With other busy processes on the same cores that makes two-thread torch
tens of times slower (measured: mobilenetv3, 4 images/s against 66 with a short spin and 89 with none).
"""

from __future__ import annotations

import os
import sys

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
    return load > 0.5 * usable_cores()


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
