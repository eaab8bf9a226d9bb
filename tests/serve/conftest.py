"""A real server in this process: the application on a real port, around a small model."""

from __future__ import annotations

import asyncio
import io
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from saccade.serve.limits import ServeLimits
from saccade.serve.logs import Log
from saccade.serve.running import QuietUvicorn, configure, listen
from saccade.serve.server import Server

COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250)}


def picture(colour: str = "red", *, kind: str = "PNG", size: tuple[int, int] = (24, 16)) -> bytes:
    """The file of a picture in one colour, which `make_model` calls by that name."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(file, kind)
    return file.getvalue()


class Running:
    """A server that runs in a thread; `client` talks to it."""

    def __init__(self, server: Server, log: io.StringIO) -> None:
        self.server, self._log = server, log
        self.listener = listen("127.0.0.1", 0)
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=20)
        self.uvicorn = QuietUvicorn(configure(server))
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        serving = asyncio.create_task(self.uvicorn.serve([self.listener]))
        await self.server.warm_up()
        await serving

    def start(self) -> None:
        self.thread.start()
        until = time.monotonic() + 20
        while not self.server.ready and time.monotonic() < until:
            time.sleep(0.01)
        assert self.server.ready

    def stop(self) -> None:
        self.client.close()
        self.uvicorn.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.server.engine.close()

    def log(self, *, requests: int = 0) -> str:
        """What was logged so far; the line of a request comes after its answer, so it is waited for."""
        until = time.monotonic() + 10
        while self._log.getvalue().count('"request"') < requests and time.monotonic() < until:
            time.sleep(0.02)
        self.server.log.close()
        return self._log.getvalue()


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    pytest.importorskip("onnx")
    return make_model(tmp_path_factory.mktemp("served") / "colours.onnx")


@contextmanager
def running(model: Path, *, token: bytes = b"", name: str = "", **limits: Any) -> Iterator[Running]:
    log = io.StringIO()
    server = Server(model, ServeLimits(**limits), token=token, name=name, log=Log(log))
    started = Running(server, log)
    started.start()
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def serving() -> Callable[..., Any]:
    """`with serving(model, max_body=...) as running:` a server with these limits."""
    return running


@pytest.fixture(scope="module")
def served(model_path: Path) -> Iterator[Running]:
    """One server for the tests of a module, with small limits."""
    with running(model_path, max_body=300_000, max_pixels=1_000_000, max_images=8) as started:
        yield started


@pytest.fixture(scope="session")
def photo() -> Callable[..., bytes]:
    """`picture`: the bytes of an image file in one colour."""
    return picture


@pytest.fixture
def random_pixels() -> Callable[[int], np.ndarray[Any, Any]]:
    return lambda seed: np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@contextmanager
def process(model: Path, *flags: str) -> Iterator[str]:
    """host:port of `saccade serve`, started as a user does; it must end well, too."""
    command = [sys.executable, "-m", "saccade", "serve", str(model), "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as started:
        assert started.stdout is not None
        try:
            lines, found = [], None
            while not found and (line := started.stdout.readline()):
                lines.append(line)
                found = re.search(r"http://(127\.0\.0\.1:\d+)", line)
            assert found, "".join(lines)
            yield found[1]
        finally:
            started.send_signal(signal.SIGINT)
            started.communicate(timeout=20)
    assert started.returncode == 0


@pytest.fixture(scope="session")
def serve_process() -> Callable[..., Any]:
    """`with serve_process(model, "--name", "m") as address:` a server in a process of its own."""
    return process
