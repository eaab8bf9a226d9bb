"""`saccade serve` as a process: ready, signals, a new model in the file's place, wrong calls."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from saccade.cli import main
from saccade.serve.running import _refuse_new, listen

Photo = Callable[..., bytes]


class Process:
    """A server in a process of its own."""

    def __init__(self, *arguments: str | Path, log: Path) -> None:
        self.log_file = log
        words = [sys.executable, "-m", "saccade.cli", "serve", *map(str, arguments), "--port", "0"]
        self.began = time.monotonic()
        with log.open("wb") as errors:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.seconds = time.monotonic() - self.began
        found = re.search(r"http://\S+:\d+", line)
        assert found, line + log.read_text()
        self.url = found[0]

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == name]

    def seconds_between(self, first: str, second: str) -> float:
        """By the server's own log: a busy machine takes its time to end a process."""
        began, ended = (datetime.fromisoformat(self.events(name)[0]["time"]) for name in (first, second))
        return (ended - began).total_seconds()

    def version(self) -> str:
        return str(httpx.get(f"{self.url}/about").json()["version"])

    def wait_for(self, name: str, count: int = 1, seconds: float = 8) -> list[dict[str, Any]]:
        until = time.monotonic() + seconds
        while len(self.events(name)) < count and time.monotonic() < until:
            time.sleep(0.02)
        assert len(self.events(name)) == count, self.log()
        return self.events(name)


@contextmanager
def process(*arguments: str | Path, log: Path) -> Iterator[Process]:
    started = Process(*arguments, log=log)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait(5)
        started.process.stdout.close()  # type: ignore[union-attr]


def certify(model: Path, *, passed: bool = True) -> None:
    import hashlib

    certificate = {
        "passed": passed,
        "kind": "float",
        "images": 10,
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    model.with_name(f"{model.name}.certificate.json").write_text(json.dumps(certificate))


@pytest.mark.examples
def test_sigterm_drains_and_a_new_model_is_swapped_in(
    tmp_path: Path, make_model: Callable[..., Path], photo: Photo
) -> None:
    served = tmp_path / "served.onnx"
    first, second = make_model(tmp_path / "first.onnx"), make_model(tmp_path / "second.onnx", temperature=1.0)
    shutil.copy(first, served)
    certify(served)
    with process(served, "--name", "colours", log=tmp_path / "log") as server:
        before = server.version()
        assert server.seconds < 10
        # a new file without its certificate is left alone, and with it taken
        shutil.copy(second, tmp_path / "new")
        os.replace(tmp_path / "new", served)
        server.process.send_signal(signal.SIGHUP)
        assert "SHA-256 differs" in server.wait_for("swap refused")[0]["problem"]
        assert server.version() == before
        certify(served)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("swapped")
        after = server.version()
        assert after != before
        # one that did not pass, and one that is no model
        certify(served, passed=False)
        server.wait_for("swap refused", 2)  # noticed without a signal
        served.write_bytes(b"no model")
        certify(served)
        server.wait_for("swap refused", 3)
        assert server.version() == after
        answer = httpx.post(f"{server.url}/predict", content=photo("red")).json()
        assert answer[0]["label"] == "red"
        # the end: not ready, alive, still answering, then gone
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        late = httpx.post(f"{server.url}/predict", content=photo("blue"))
        assert (late.status_code, late.headers["connection"]) == (200, "close")
        assert "saccade_ready 0.0" in httpx.get(f"{server.url}/metrics").text
        assert server.process.wait(20) == 0
        assert 1.5 < server.seconds_between("draining", "ended") < 10


def test_ctrl_c_ends_at_once(model_path: Path, tmp_path: Path) -> None:
    with process(model_path, log=tmp_path / "log") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert server.seconds_between("draining", "ended") < 1.5  # not the 2 s of SIGTERM


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines"),
        (["--port", "70000"], "--port must lie between 0 and 65535"),
        (["--queue", "0"], "--queue must be more than 0"),
        (["--name", "a/b"], "--name must be"),
        (["--token-file", "none"], "--token-file cannot be read"),
    ],
)
def test_wrong_calls_end_with_2_and_words(
    model_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], what: str
) -> None:
    assert main(["serve", str(model_path), *words]) == 2
    assert what in capsys.readouterr().err


def test_a_port_in_use_and_a_bad_model_end_with_2(
    served: Any, model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(model_path), "--port", str(served.port)]) == 2
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "none.onnx")]) == 2
    assert "model file does not exist" in capsys.readouterr().err
    failed = tmp_path / "failed.onnx"
    shutil.copy(model_path, failed)
    certify(failed, passed=False)
    assert main(["serve", str(failed)]) == 2
    assert "did not pass" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the packet filter is Linux's")
def test_before_the_end_nobody_new_waits_to_be_accepted() -> None:
    with closing(listen("127.0.0.1", 0)) as listener:
        early = socket.create_connection(listener.getsockname(), timeout=1)
        _refuse_new(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), timeout=0.2)
        accepted, _ = listener.accept()  # who came before is still answered
        accepted.sendall(b"answer")
        assert early.recv(6) == b"answer"
        early.close()
        accepted.close()
