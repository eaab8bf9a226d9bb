"""Requests over HTTP at a fixed rate or as fast as answers come, and the server process that they go to."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

Check = Callable[[int, bytes], bool]  # (number of the request, reply): whether the answer is right
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Lost(Exception):
    """A request was sent on an open connection, and no whole answer came."""


class Client(asyncio.Protocol):
    """One connection, one request at a time; a tenth of the processor time of a full HTTP client."""

    def __init__(self) -> None:
        self.received = b""
        self.answer: asyncio.Future[bytes] | None = None
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0 or self.answer is None:
            return
        length = re.search(rb"content-length: (\d+)", self.received[:end].lower())
        if length and len(self.received) >= end + 4 + int(length[1]) and not self.answer.done():
            self.answer.set_result(self.received)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(Lost(repr(exc)))

    async def ask(self, request: bytes) -> bytes:
        """The whole reply; raises Lost."""
        self.received = b""
        self.answer = asyncio.get_running_loop().create_future()
        if not self.open:
            raise Lost("closed before")
        self.transport.write(request)  # type: ignore[attr-defined]
        reply = await self.answer
        if b"connection: close" in reply[:1000].lower():
            self.open = False
            self.transport.close()
        return reply


def post(body: bytes, path: str = "/predict?top_k=1") -> bytes:
    """A request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass
class Told:
    """What came back: seconds from the time a request was due to its answer, by status."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    not_accepted: int = 0

    def note(self, status: str, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    def counts(self) -> Counter[str]:
        return Counter({status: len(seconds) for status, seconds in self.seconds.items()})

    def quantile(self, share: float, status: str = "200") -> float:
        """In milliseconds."""
        ordered = sorted(self.seconds.get(status, [0.0]))
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Load:
    """Asks a port with up to `connections` at once."""

    def __init__(self, port: int, requests: Sequence[bytes], *, check: Check | None = None):
        self.port, self.requests, self.check = port, requests, check
        self.free: list[Client] = []
        self.told = Told()

    async def closed(self, connections: int, seconds: float) -> Told:
        """Each connection asks again as soon as it was answered."""
        end = time.perf_counter() + seconds
        numbers = itertools.count()

        async def one() -> None:
            while time.perf_counter() < end:
                await self.ask(next(numbers), time.perf_counter())

        await asyncio.gather(*(one() for _ in range(connections)))
        return self.told

    async def open(self, rate: float, seconds: float, *, most: int = 2000) -> Told:
        """Requests are due at fixed times, however long answers take; the wait for a turn counts, too."""
        began, tasks = time.perf_counter(), set()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (wait := due - time.perf_counter()) > 0.0005:
                await asyncio.sleep(wait)
            if len(tasks) >= most:
                self.told.note("not sent", 0.0)
                continue
            task = asyncio.ensure_future(self.ask(number, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return self.told

    async def ask(self, number: int, due: float) -> None:
        position = number % len(self.requests)
        try:
            client = await self._client()
            reply = await client.ask(self.requests[position])
        except Lost as lost:
            self.told.note(f"lost {lost}", time.perf_counter() - due)
            return
        except OSError:
            self.told.not_accepted += 1
            await asyncio.sleep(0.02)
            return
        status = reply[9:12].decode()
        if status == "200" and self.check and not self.check(position, reply):
            status = "wrong answer"
        self.told.note(status, time.perf_counter() - due)
        if client.open:
            self.free.append(client)

    async def _client(self) -> Client:
        while self.free:
            client = self.free.pop()
            if client.open:
                return client
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(Client, "127.0.0.1", self.port)
        return made


def closed(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Told:
    """`Load.closed` from beginning to end."""
    return asyncio.run(Load(port, requests).closed(connections, seconds))


def opened(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Told:
    """`Load.open` from beginning to end."""
    return asyncio.run(Load(port, requests).open(rate, seconds))


class ServerProcess:
    """`saccade serve` as a process of its own."""

    def __init__(self, model: Path, *flags: str, port: int = 0) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        words = [sys.executable, "-m", "saccade.cli", "serve", str(model), "--port", str(port), *flags]
        began = time.monotonic()
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.start_seconds = time.monotonic() - began
        found = re.search(r":(\d+)  ", line)
        assert found, f"it did not start: {line}"
        self.port = int(found[1])

    def memory(self) -> float:
        """Resident MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def events(self, name: str) -> int:
        """Lines of the log with this event."""
        self.log.seek(0)
        return sum(f'"event": "{name}"'.encode() in line for line in self.log)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Exit code, and seconds from the signal to the last line of the log."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.process.stdout.close()  # type: ignore[union-attr]
        self.log.seek(0)
        told = [json.loads(line) for line in self.log]
        self.log.close()
        began, ended = (
            datetime.fromisoformat(next(line["time"] for line in told if line["event"] == event))
            for event in ("draining", "ended")
        )
        return code, (ended - began).total_seconds()


@contextmanager
def serving(model: Path, *flags: str) -> Iterator[ServerProcess]:
    """A server for as long as the block lasts."""
    server = ServerProcess(model, *flags)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end(signal.SIGINT)
