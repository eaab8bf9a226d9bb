"""How much memory a process needs that opens a model and predicts: measured in a fresh one.

python -m saccade.export.peak LIBRARY FILE THREADS BATCH HEIGHT WIDTH
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from saccade.export.engines import Engine, photo

SECONDS = 120


def peak_megabytes(engine: Engine, *, threads: int, batch: int, shape: tuple[int, int]) -> float | None:
    """Most memory of a new process that predicts one image, then `batch`; None where it fails."""
    words = [engine.library, str(engine.file), *map(str, (threads, batch, *shape))]
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, *words],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        return float(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _high_water() -> float:
    """Of this process, in MB. Linux's `ru_maxrss` would count what the parent had when it started us."""
    try:
        status = Path("/proc/self/status").read_text("ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def main(words: list[str]) -> None:
    library, file, threads, batch, height, width = words
    engine = Engine(library, "", Path(file))  # type: ignore[arg-type]  # as `peak_megabytes` gave it
    answer, image = engine.open(int(threads)), photo((int(height), int(width)), engine.pixels)
    answer([image])
    answer([image] * int(batch))
    print(_high_water())


if __name__ == "__main__":
    main(sys.argv[1:])
