"""How many cores there are, and what a process sets once for torch: OpenMP's idle threads, freed memory.

Idle OpenMP threads spin by default. With other busy processes on the same cores that makes two-thread torch
tens of times slower (measured: mobilenetv3, 4 images/s against 66 with a short spin and 89 with none).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

SPINS_WHEN_QUIET = "2000"
SPINS_WHEN_BUSY = "0"
CHOSEN_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")

# glibc's names for: above this size a block is the system's own; above this size free memory goes back.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLDS = (2**30, 2**25)  # the second is the most that older versions take
WORKER_NICENESS = 5
MALLOC_CHOSEN_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD", "GLIBC_TUNABLES")


def calm_openmp() -> None:
    """Set GOMP_SPINCOUNT unless the user has chosen, or torch is loaded already and would not see it."""
    if "torch" in sys.modules or any(name in os.environ for name in CHOSEN_BY_USER):
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS_WHEN_BUSY if machine_is_busy() else SPINS_WHEN_QUIET


def usable_memory() -> int:
    """Bytes of memory that this process may still take, 0 where nothing says so (not on Linux).

    >>> usable_memory() >= 0
    True
    """
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        with contextlib.suppress(OSError, ValueError):  # without a limit it says "max"
            group = Path("/sys/fs/cgroup")
            limit = int((group / "memory.max").read_text("ascii"))
            free = min(free, limit - int((group / "memory.current").read_text("ascii")))
        return max(free, 0)
    return 0


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of asking the system for empty pages at every layer.

    Measured (mobilenetv2_100, batches of 32, 2 cores, torch 2.15): half of the CPU time of evaluation and a
    third of training went into page faults; peak memory is the same. Does nothing where libc is another.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in MALLOC_CHOSEN_BY_USER):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and any(mallopt(M_MMAP_THRESHOLD, size) for size in MMAP_THRESHOLDS):
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """No search for garbage inside: for imports, which make none.

    Measured: importing torch, torchvision and timm takes 2.3 s of processor time instead of 3.0 (n = 3).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def give_way() -> None:
    """On Linux, let the process's other threads run before this one, whenever both are ready.

    Nice values belong to threads there. Elsewhere they belong to the process, so nothing is done.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), WORKER_NICENESS)


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


def memory_bytes() -> int:
    """Memory of this machine, or of the container where that has less."""
    total = _memory_of_machine()
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(total, int(text)) if text.isdecimal() else total


def _memory_of_machine() -> int:
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    status = (ctypes.c_uint64 * 8)(64)  # Windows' MEMORYSTATUSEX: its own length, then the total, then others
    getattr(ctypes, "windll").kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # noqa: B009 - not on Linux
    return int(status[1])


def shared_memory_bytes() -> int:
    """What is left in /dev/shm, by which processes share memory; no limit where the system has none."""
    try:
        left = os.statvfs("/dev/shm")
    except (OSError, AttributeError):
        return sys.maxsize
    return 0 if left.f_flag & os.ST_RDONLY else left.f_bavail * left.f_frsize
