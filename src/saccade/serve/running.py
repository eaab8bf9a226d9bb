"""The server's life: listen, warm up, answer, and on a signal drain, so that no accepted request is lost."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import signal
import socket
import struct
import sys
from collections.abc import Iterator

from uvicorn import Config
from uvicorn import Server as Uvicorn

from saccade.errors import SaccadeError
from saccade.serve.app import build_app
from saccade.serve.connection import Connection
from saccade.serve.logs import LibraryLog
from saccade.serve.server import Server
from saccade.terminal import Terminal

DRAIN_SECONDS = 2.0  # from SIGTERM on new requests are still taken, until a balancer has read `ready`
LAST_SECONDS = 6  # then for what is in work; both together stay below a container's 10 s
ACCEPT_SECONDS = 0.1  # for connections that wait to be accepted
BACKLOG = 512
SO_ATTACH_FILTER, BPF_RETURN = 26, 6
# Longer than balancers keep a connection (60 s): who closes first may meet a request that is on the way.
KEEP_ALIVE_SECONDS = 75


class QuietUvicorn(Uvicorn):
    """uvicorn without signal handlers of its own, which accepts what waits before it closes the door."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or []:
            _refuse_new(listener)
        await asyncio.sleep(ACCEPT_SECONDS)
        await super().shutdown(sockets)


async def run(server: Server, terminal: Terminal, *, host: str, port: int) -> int:
    """Serve until a signal; returns the exit code. Raises SaccadeError where it cannot listen or warm up."""
    listener = listen(host, port)
    uvicorn = QuietUvicorn(configure(server))
    life = _Life(server, uvicorn)
    life.answer_signals()
    try:
        await server.warm_up()  # who connects meanwhile waits in the listener's queue, and is not refused
        if lacks := server.model.artefact.limits_left_out:
            terminal.warn(lacks)
        terminal.say(f"Serving   {server.model.name} at {_address(listener)}  (Ctrl-C ends it)")
        looking = asyncio.create_task(server.look())
        await uvicorn.serve([listener])
        looking.cancel()
    finally:
        listener.close()
        server.engine.close()
        server.log.say("ended")
        server.log.close()
    return 0


class _Life:
    """What signals do: SIGTERM drains, Ctrl-C ends without waiting, a second one at once; SIGHUP swaps."""

    def __init__(self, server: Server, uvicorn: Uvicorn) -> None:
        self.server = server
        self.uvicorn = uvicorn
        self.swaps: set[asyncio.Task[bool]] = set()

    def answer_signals(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError, AttributeError):  # Windows has neither these nor SIGHUP
            loop.add_signal_handler(signal.SIGTERM, self.end, DRAIN_SECONDS)
            loop.add_signal_handler(signal.SIGINT, self.end, 0.0)
            loop.add_signal_handler(signal.SIGHUP, self.swap)

    def end(self, drain_seconds: float) -> None:
        if self.server.draining:
            self.uvicorn.should_exit = self.uvicorn.force_exit = True
            return
        self.server.ready, self.server.draining = False, True
        self.server.log.say("draining", pending=self.server.engine.pending)
        asyncio.get_running_loop().call_later(drain_seconds, setattr, self.uvicorn, "should_exit", True)

    def swap(self) -> None:
        task = asyncio.ensure_future(self.server.swap())
        self.swaps.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self.swaps.discard)


def configure(server: Server) -> Config:
    """uvicorn's settings for `server`; what it has to say goes to the server's log."""
    for name in ("uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [LibraryLog(server.log)], False
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # each refusal is in our log
    return Config(
        build_app(server),
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=LAST_SECONDS,
    )


def listen(host: str, port: int) -> socket.socket:
    """One listening socket; raises SaccadeError where the address cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise SaccadeError(
            f"cannot listen on {host} port {port} ({error.strerror or error})",
            hint="choose another with --port, or end what uses it",
        ) from None


def _refuse_new(listener: socket.socket) -> None:
    """On Linux, let no new connection into the queue of `listener`; those in it can still be accepted.

    Closing resets what is in that queue, though the clients have sent their requests: of 735 requests
    during 20 restarts one was lost so. A client whose connection is not begun tries again within a second.
    The filter is one instruction for the kernel: keep 0 bytes (SO_ATTACH_FILTER in socket(7)).
    """
    if not sys.platform.startswith("linux"):
        return
    drop = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(drop))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
