"""`--engine`: where the work of a command is done, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from saccade.errors import EngineError, RecipeError

if TYPE_CHECKING:
    from saccade.ray_engine import RayCluster

LOCAL = "local"
PORT = 10001  # of Ray's client server, where an address names none
REACHED_SECONDS = 5.0


@contextlib.contextmanager
def cluster_of(engine: str) -> Iterator[RayCluster | None]:
    """What `--engine` names; None for `local`. Ray starts when there is work, and ends with this block.

    Raises RecipeError for another word, MissingExtraError without Ray, EngineError for an address where
    nobody answers.
    """
    if engine == LOCAL:
        yield None
        return
    if engine != "ray" and not engine.startswith("ray://"):
        raise RecipeError(
            f"--engine {engine}: there is no such engine", hint="choose from: local, ray, ray://ADDRESS"
        )
    from saccade.ray_engine import RayCluster

    address = engine if engine != "ray" else ""
    cluster = RayCluster(address)
    if address:
        _check_reachable(address)
    try:
        yield cluster
    finally:
        cluster.close()


def _check_reachable(address: str) -> None:
    try:
        place = urlsplit(address)
        socket.create_connection((place.hostname, place.port or PORT), REACHED_SECONDS).close()
    except (OSError, ValueError) as error:
        raise EngineError(
            f"no Ray cluster answers at {address} ({getattr(error, 'strerror', None) or error})",
            hint="start one with `ray start --head`; the address is ray://HOST:10001",
        ) from None
