"""Ray Data as an engine: `--engine ray` on the cores of this machine, `--engine ray://ADDRESS` on a cluster.

This file is the only one that imports Ray. What crosses Ray are references to images; results are part files
(`part_files.py`). A task of Ray drives the data set, so that a client far away only waits for parts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saccade._version import __version__
from saccade.errors import EngineError, MissingExtraError
from saccade.part_files import Job, PartWriter, Row
from saccade.threads import available_cores

STORE_BYTES = 200_000_000  # of the object store on this machine, which holds references only
LONGEST_FOLDER = 40  # letters; Ray puts sockets below it, whose names have a bound


class RayCluster:
    """Ray on this machine, or with an address on a cluster; the process's own connection where it has one.

    It is there from the first work on until `close`. carried_bytes: of rows that went into Ray and came out.
    """

    def __init__(self, address: str = "", *, workers: int = 0) -> None:
        self._ray = _ray()
        self._address, self._workers = address, workers or available_cores()
        self._open = contextlib.ExitStack()
        self.carried_bytes = 0

    def start(self, job: Job[Any, Any], rows: Sequence[Row], folder: Path) -> RayRunning:
        """Begin with these rows; raises EngineError."""
        if not self._ray.is_initialized():
            with _quiet(), _own_signals():
                self._join() if self._address else self._begin()
            self._open.callback(self._ray.shutdown)
        workers = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        return RayRunning(self, job, rows, folder, min(workers, len(rows)))

    def close(self) -> None:
        """End what was started here; a cluster goes on without us."""
        self._open.close()

    def _begin(self) -> None:
        """Ray on this machine alone; what it writes is removed in the end."""
        folder = tempfile.mkdtemp(prefix="ray-")
        self._open.callback(shutil.rmtree, folder, ignore_errors=True)
        self._ray.init(
            "local",
            num_cpus=self._workers,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder if len(folder) <= LONGEST_FOLDER else None,
        )

    def _join(self) -> None:
        try:
            self._ray.init(self._address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises many kinds
            raise EngineError(
                f"the Ray cluster at {self._address} cannot be joined: {_last_line(error)}",
                hint=f"it needs Ray {self._ray.__version__} and the same version of Python as here",
            ) from None


class RayRunning:
    """Ray at work on rows."""

    def __init__(
        self, cluster: RayCluster, job: Job[Any, Any], rows: Sequence[Row], folder: Path, workers: int
    ) -> None:
        self._cluster, self._ray = cluster, _ray()
        drive = self._ray.remote(num_cpus=0)(_drive)
        self._task: Any = drive.remote(job, rows, folder, workers, __version__)
        self._finished = False

    def wait(self, seconds: float) -> bool:
        """Wait a moment; whether all rows have been written."""
        return self._finished or bool(self._ray.wait([self._task], timeout=seconds)[0])

    def finish(self) -> None:
        """Wait for the end; raises EngineError where Ray failed."""
        if self._finished:
            return
        try:
            self._cluster.carried_bytes += int(self._ray.get(self._task))
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise EngineError(
                f"Ray could not do the work: {_last_line(error)}",
                hint="check `ray status`; every machine needs this version of saccade and the same folders",
            ) from None
        self._finished = True


def _drive(job: Job[Any, Any], rows: Sequence[Row], folder: Path, workers: int, version: str) -> int:
    """In the cluster: the rows through Ray Data; bytes of rows in (twice: to this task and on) and out."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    taken = ray.data.from_items([{"row": _Held(row)} for row in rows], override_num_blocks=len(rows))
    written = taken.map_batches(
        _Worker,
        fn_constructor_args=(job, folder, version),
        batch_size=None,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    receipts = written.iter_batches(batch_size=None, batch_format="pyarrow")
    return 2 * int(taken.size_bytes()) + sum(int(table.nbytes) for table in receipts)


class _Held:
    """A row that Ray takes as it is, and makes no columns of."""

    def __init__(self, row: Row) -> None:
        self.row = row


class _Worker:
    """An actor: holds what is costly, writes parts, returns their names."""

    def __init__(self, job: Job[Any, Any], folder: Path, version: str) -> None:
        if version != __version__:
            raise EngineError(f"{platform.node()} has saccade {__version__}, and the command {version}")
        self._writer = PartWriter(job, folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        for held in batch["row"]:
            self._writer.write(held.row.name, held.row.chunk)
        return {"name": [held.row.name for held in batch["row"]]}


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingExtraError("ray", "ray", "--engine ray") from None
    return ray


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.getLogger("ray").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts a handler of its own in the place of ours."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT) if main}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
