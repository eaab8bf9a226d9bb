"""Full queues, late requests, clients that are gone, tokens and metrics."""

from __future__ import annotations

import asyncio
import io
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from saccade.errors import ModelError, RecipeError
from saccade.serve.command import check_host, check_name, read_token
from saccade.serve.logs import Log

Photo = Callable[..., bytes]


@contextmanager
def busy(server: Any) -> Iterator[None]:
    """All workers have something else to do inside."""
    release = threading.Event()
    engine = server.server.engine
    for _ in range(server.server.limits.workers):
        engine._pool.submit(release.wait, 20)
    try:
        yield
    finally:
        release.set()


def until(holds: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def value(server: Any, name: str) -> float:
    """One figure of /metrics."""
    text = server.client.get("/metrics").text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_full_queue_is_503_at_once_and_what_was_accepted_is_answered(
    model_path: Path, serving: Any, photo: Photo
) -> None:
    with serving(model_path, queue=4, threads=2) as server, ThreadPoolExecutor(4) as clients:
        with busy(server):
            waiting = [clients.submit(httpx.post, f"{server.url}/predict", content=photo()) for _ in range(4)]
            until(lambda: server.server.engine.pending == 4)
            assert value(server, "saccade_pending_images") == 4
            seconds = []
            for _ in range(20):
                began = time.perf_counter()
                answer = server.client.post("/predict", content=photo())
                seconds.append(time.perf_counter() - began)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert sorted(seconds)[10] < 0.05
            with closing(socket.create_connection(("127.0.0.1", server.port), timeout=5)) as connection:
                connection.sendall(
                    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n"
                )
                assert connection.recv(12) == b"HTTP/1.1 503"  # before the body is there
            assert server.client.get("/about").status_code == 200
        assert [future.result().status_code for future in waiting] == [200] * 4
        assert server.client.post("/predict", content=photo()).status_code == 200
        assert value(server, 'saccade_failures_total{reason="queue_full"}') == 21


def test_a_request_with_more_images_than_the_queue_has_room_for_waits_for_an_empty_one(
    model_path: Path, serving: Any, photo: Photo
) -> None:
    files = [("image", ("a.png", photo())) for _ in range(6)]
    with serving(model_path, queue=2) as server:
        assert server.client.post("/predict", files=files).status_code == 200
        with ThreadPoolExecutor(1) as clients, busy(server):
            first = clients.submit(httpx.post, f"{server.url}/predict", content=photo())
            until(lambda: server.server.engine.pending == 1)
            assert server.client.post("/predict", files=files).status_code == 503
        assert first.result().status_code == 200


def test_a_late_request_is_504_and_not_run(model_path: Path, serving: Any, photo: Photo) -> None:
    with serving(model_path, timeout=0.3) as server:
        with busy(server):
            began = time.monotonic()
            answer = server.client.post("/predict", content=photo())
            assert answer.status_code == 504
            assert 0.2 < time.monotonic() - began < 1
            assert server.server.engine.pending == 0
        until(lambda: server.client.post("/predict", content=photo()).status_code == 200)
        assert value(server, "saccade_images_total") == value(server, "saccade_compute_seconds_count")
        assert server.server.engine.dropped == 1
        assert value(server, 'saccade_failures_total{reason="deadline"}') == 1


def test_the_work_of_clients_that_are_gone_is_not_run(model_path: Path, serving: Any, photo: Photo) -> None:
    image = photo()
    request = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(image) + image
    with serving(model_path) as server:
        before = value(server, "saccade_images_total")
        with busy(server):
            gone = []
            for _ in range(10):
                connection = socket.create_connection(("127.0.0.1", server.port))
                connection.sendall(request)
                gone.append(connection)
            until(lambda: server.server.engine.pending == 10)
            for connection in gone[:6]:
                connection.close()
            until(lambda: server.server.engine.pending == 4)
        for connection in gone[6:]:
            with closing(connection):
                assert connection.recv(12) == b"HTTP/1.1 200"
        assert value(server, "saccade_dropped_images") == 6
        assert value(server, "saccade_images_total") - before == 4
        assert value(server, 'saccade_failures_total{reason="hung_up"}') == 6


def test_a_reply_does_not_wait_for_an_acknowledgement(model_path: Path, serving: Any) -> None:
    with serving(model_path) as server:
        began = time.perf_counter()
        for _ in range(40):
            server.client.get("/about")
        assert time.perf_counter() - began < 1  # 40 ms each, where TCP_NODELAY is missing


def test_metrics_stay_few_whatever_is_asked_for(model_path: Path, serving: Any, photo: Photo) -> None:
    with serving(model_path) as server:
        server.client.post("/predict", content=photo())
        server.client.get("/nope")
        count = server.client.get("/metrics").text.count("\n")
        count = server.client.get("/metrics").text.count("\n")  # now with /metrics itself
        for number in range(300):
            server.client.get(f"/random/{number}?x={number}", headers={"X-Request-ID": f"id-{number}"})
        after = server.client.get("/metrics").text
        assert after.count("\n") == count
        assert 'saccade_requests_total{path="other",status="404"} 301.0' in after
        for name in ("saccade_queue_seconds_sum", "saccade_compute_seconds_count", "saccade_ready 1.0"):
            assert name in after
        assert f'saccade_model{{name="colours",version="{server.server.model.version}"}} 1.0' in after


# -- who may ask ---------------------------------------------------------------------------------


def test_without_a_token_no_foreign_name_is_answered(model_path: Path, serving: Any, photo: Photo) -> None:
    """A web page whose name is made to lead to 127.0.0.1 (DNS rebinding) reads nothing here."""
    with serving(model_path) as server:
        for host in ("evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "a" * 300):
            for method, path in (("POST", "/predict"), ("GET", "/"), ("GET", "/about"), ("GET", "/v2")):
                answer = server.client.request(method, path, headers={"Host": host}, content=photo())
                assert answer.status_code == 421, (host, path)
                assert "--token-file" in answer.json()["error"]
        for host in (
            f"localhost:{server.port}",
            "LOCALHOST.",
            "app.localhost",
            "127.0.0.1",
            "[::1]:80",
            "10.1.2.3",
        ):
            assert server.client.get("/about", headers={"Host": host}).status_code == 200, host
    with serving(model_path, token=b"a-good-secret-token") as server:
        headers = {"Host": "models.example", "Authorization": "Bearer a-good-secret-token"}
        assert server.client.get("/about", headers=headers).status_code == 200


def test_a_token_guards_all_but_health_and_the_page(model_path: Path, serving: Any, photo: Photo) -> None:
    with serving(model_path, token=b"a-good-secret-token") as server:
        good = {"Authorization": "Bearer a-good-secret-token"}
        for headers in (
            {},
            {"Authorization": "Bearer a-good-secret-toke"},
            {"Authorization": "Basic a-good-secret-token"},
            {"Authorization": "Bearer  a-good-secret-token"},
            {"Authorization": b"Bearer \xff\xfe"},
        ):
            for method, path in (("POST", "/predict"), ("GET", "/about"), ("GET", "/metrics"), ("GET", "/x")):
                answer = server.client.request(method, path, headers=headers)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
        for path in ("/", "/v2/health/live", "/v2/health/ready"):
            assert server.client.get(path).status_code != 401
        assert server.client.post("/predict", content=photo(), headers=good).status_code == 200
        assert server.client.get("/metrics", headers=good).status_code == 200
        assert server.server.engine.pending == 0


def test_other_machines_need_a_token(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "", "192.168.1.5", "example.org"):
        with pytest.raises(RecipeError, match="reached from other machines") as refused:
            check_host(host, b"")
        assert "--token-file" in refused.value.hint
        check_host(host, b"a-good-secret-token")
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        check_host(host, b"")


def test_a_token_is_a_secret_of_visible_characters(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for text in (
        b"",
        b"\n",
        b"short",
        b"with a space in the middle",
        "t\u00f6ken-of-twenty-letters".encode(),
    ):
        file.write_bytes(text)
        with pytest.raises(RecipeError, match="16 or more visible ASCII"):
            read_token(str(file))
    file.write_bytes(b"a-good-secret-token\n")
    assert read_token(str(file)) == b"a-good-secret-token"
    with pytest.raises(RecipeError, match="cannot be read"):
        read_token(str(tmp_path))
    with pytest.raises(RecipeError, match="cannot be read"):
        read_token(str(tmp_path / "none"))


def test_a_name_can_stand_in_an_address() -> None:
    check_name("flowers_v1.2-b")
    for name in ("a/b", "..%2f", "a b", "a" * 101, "\x1b[31m"):
        with pytest.raises(RecipeError, match="--name must be"):
            check_name(name)


# -- a model that is right -----------------------------------------------------------------------


def test_before_the_warm_up_requests_are_told_to_try_again(
    model_path: Path, serving: Any, photo: Photo
) -> None:
    with serving(model_path) as server:
        server.server.ready = False
        answer = server.client.post("/predict", content=photo())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        server.server.draining = True  # but to the end what comes is answered
        assert server.client.post("/predict", content=photo()).status_code == 200


def test_nothing_is_ready_that_does_not_give_the_golden_answer(model_path: Path) -> None:
    from saccade.serve.limits import ServeLimits
    from saccade.serve.logs import Log
    from saccade.serve.server import Server

    log = io.StringIO()
    server = Server(model_path, ServeLimits(), log=Log(log))
    right = server.model
    server.engine.model = replace(right, golden=right.golden[::-1].copy())
    with pytest.raises(ModelError, match="does not answer the same twice"):
        asyncio.run(server.warm_up())
    assert not server.ready
    server.engine.model = right
    asyncio.run(server.warm_up())
    assert server.ready
    server.engine.close()


class FullPipe(io.StringIO):
    """A stream that takes nothing until somebody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.read_on = threading.Event()

    def write(self, text: str) -> int:
        self.read_on.wait(10)
        return super().write(text)


def test_logs_do_not_wait_for_a_reader() -> None:
    stream = FullPipe()
    log = Log(stream)
    began = time.monotonic()
    for _ in range(25_000):
        log.say("request")
    log.close(0.1)
    assert time.monotonic() - began < 3
    assert log.dropped >= 5_000
    stream.read_on.set()
    log.close(5)
    assert stream.getvalue().count("\n") == 25_000 - log.dropped
