"""How much memory decoded training images may take."""

from __future__ import annotations

import os
from pathlib import Path

SHARE = 4  # a quarter of the memory


def cache_bytes() -> int:
    """A quarter of this machine's memory, or of the container's where that is less."""
    machine = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 4 * 2**30
    )
    return min([machine, *_container_limits()]) // SHARE


def _container_limits() -> list[int]:
    files = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    found = []
    for name in files:
        try:
            text = Path(name).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # "max" means no limit
            found.append(int(text))
    return found
