"""Commands whose server or client is killed: the same command goes on, with the same results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from saccade.sources import connections

pytestmark = pytest.mark.usefixtures("let_in")
Saccade = Callable[..., Any]
PHOTOS = "s3://images/killed"
SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "2", "--batch-size", "8")
TRAIN = (*SMALL, "--no-export.onnx", "--no-train.cache_images")


@pytest.fixture(scope="module")
def photos(server: Any, tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    """36 photos in a folder, and the same ones in a bucket."""
    folder = photo_writer(tmp_path_factory.mktemp("data") / "photos")
    server.put(folder, "killed")
    return folder


class Relay(BaseHTTPRequestHandler):
    """Hands requests on to moto; kills it once `left` images have been read."""

    server_of: Any
    left = 20
    lock = threading.Lock()

    def do_GET(self) -> None:
        with self.lock:
            if self.path.endswith(".png"):
                type(self).left -= 1
            if self.left == 0:
                self.server_of.kill()
        try:
            request = urllib.request.Request(self.server_of.url + self.path, headers=dict(self.headers))
            with urllib.request.urlopen(request, timeout=10) as answer:
                body, headers = answer.read(), answer.headers
        except OSError:
            self.close_connection = True
            return
        self.send_response(200)
        for name in ("ETag", "Last-Modified", "Content-Type"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Nothing is said."""


@pytest.fixture
def relay(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Relay]]:
    """What all requests go through."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(connections, "RETRIES", 1)
    Relay.server_of, Relay.left = server, -1
    web = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{web.server_port}")
    yield Relay
    web.shutdown()
    web.server_close()


def killed_once(saccade: Saccade, relay: type[Relay], photos: Path, left: int, *words: object) -> Any:
    """The answer of the second command, after one whose server was killed once `left` images were read."""
    relay.left = left
    stopped = saccade(*words)
    assert relay.left <= 0
    assert stopped.code == 2
    assert "s3://images: does not answer" in stopped.err
    assert "the same command goes on" in stopped.err
    relay.server_of.start()
    relay.server_of.put(photos, "killed")
    return saccade(*words)


def test_the_server_in_a_prediction(
    saccade: Saccade, relay: type[Relay], photos: Path, make_model: Callable[..., Path]
) -> None:
    make_model(Path("model.onnx"))
    went_on = killed_once(saccade, relay, photos, 15, "predict", "model.onnx", PHOTOS, "--out", "there.csv")
    assert went_on.code == 0, went_on.err
    assert "going on after" in went_on.out
    assert saccade("predict", "model.onnx", photos, "--out", "here.csv").code == 0
    here = Path("here.csv").read_text("utf-8").replace(str(photos), PHOTOS)
    assert Path("there.csv").read_text("utf-8") == here


def test_the_server_in_an_audit(saccade: Saccade, relay: type[Relay], photos: Path) -> None:
    went_on = killed_once(saccade, relay, photos, 15, "audit", PHOTOS, "--out", "there")
    assert went_on.code == 0, went_on.err
    assert saccade("audit", photos, "--out", "here").code == 0
    found = [
        json.loads(Path(name, "audit.json").read_text("utf-8"))["findings"] for name in ("here", "there")
    ]
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_server_in_a_training(saccade: Saccade, relay: type[Relay], photos: Path) -> None:
    words = ("train", PHOTOS, "--out", "there", *TRAIN)
    went_on = killed_once(saccade, relay, photos, 36 + 30, *words)  # in the first epoch
    assert went_on.code == 0, went_on.err
    assert "continues where it was stopped" in went_on.out
    assert saccade("train", photos, "--out", "here", *TRAIN).code == 0
    for file in ("dataset.csv", "bundle/weights.safetensors", "predictions/test.csv"):
        assert Path("there", file).read_bytes() == Path("here", file).read_bytes(), file


@pytest.mark.slow
def test_the_client_in_scan_and_training(
    saccade: Saccade, relay: type[Relay], photos: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "saccade", "train", PHOTOS, "--out", "there", *TRAIN]
    for read in (10, 36 + 30):  # images until it is killed
        relay.left = left = 10**6
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while left - relay.left < read and client.poll() is None:
            time.sleep(0.001)
        os.kill(client.pid, signal.SIGKILL)
        assert client.wait() == -signal.SIGKILL
    assert saccade(*command[3:]).code == 0
    assert saccade("train", photos, "--out", "here", *TRAIN).code == 0
    for file in ("dataset.csv", "bundle/weights.safetensors", "predictions/test.csv"):
        assert Path("there", file).read_bytes() == Path("here", file).read_bytes(), file
