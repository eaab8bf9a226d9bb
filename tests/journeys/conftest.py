"""A user's whole path through the command line, on small real images."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from saccade.cli import commands, main

SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "16")


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("SACCADE_CACHE", raising=False)
    monkeypatch.setenv("SACCADE_TRACEBACK", "1")  # a defect must fail the test with its place


@pytest.fixture
def saccade(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Runs one command in this process, so that torch is imported once for many tests."""

    def run(*words: object) -> Answer:
        capfd.readouterr()
        monkeypatch.setattr(commands, "STARTED", time.monotonic())  # else a time limit is over already
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run


@pytest.fixture
def saccade_process() -> Callable[..., Answer]:
    """Runs one command as a user does, in a process of its own."""

    def run(*words: object, timeout: float = 120, env: dict[str, str] | None = None) -> Answer:
        command = [sys.executable, "-m", "saccade.cli", *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of timm's smallest test network as a file: random, but read like published ones."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", pretrained=False)
    path = tmp_path_factory.mktemp("weights") / "test_efficientnet.safetensors"
    save_file(network.state_dict(), path, metadata={"arch": "test_efficientnet"})
    return path


def tiny_flags(weights: Path) -> Sequence[str]:
    return ("--backbone", "test_efficientnet", "--weights", str(weights), "--image-size", "32")


# -- a bucket on this machine ------------------------------------------------------------------------------


class S3Server:
    """moto's S3, with one bucket called `images`; what lies there is gone once it is killed."""

    def __init__(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        self.ask("PUT", "images")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        signed = {
            "Authorization": "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/s3/aws4_request",
            "Content-Type": "application/octet-stream",
        }
        request = urllib.request.Request(f"{self.url}/{path}", data, signed, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    def put(self, root: Path, prefix: str) -> None:
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            self.ask("PUT", f"images/{prefix}/{path.relative_to(root).as_posix()}", path.read_bytes())


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    pytest.importorskip("obstore", reason="needs the extra saccade[remote]")
    if importlib.util.find_spec("moto") is None:
        pytest.skip("needs a server: pip install 'moto[s3]' flask flask-cors")
    server = S3Server()
    yield server
    server.kill()


@pytest.fixture
def let_in(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What saccade needs to know of the server stands in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATHISISATESTKEY00")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret/of+the+test")
