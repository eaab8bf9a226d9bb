"""Thousands of requests nobody would send, straight into the application: never a 5xx, never a new series."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from saccade.serve.app import build_app
from saccade.serve.limits import ServeLimits
from saccade.serve.logs import Log
from saccade.serve.server import Server

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
REQUESTS = 2500
PATHS = 10_000
UNKNOWN = ("/none", "/v2/none", "/v2/models/none", "/v2/models/colours/versions/none")
INFER = "/v2/models/colours/infer"
KNOWN = ("/predict", "/about", "/v2", "/v2/", INFER, INFER, "/v2/models/colours/versions/1/infer")
PIECES = (
    "v2",
    "models",
    "colours",
    "versions",
    "1",
    "ready",
    "infer",
    "health",
    "live",
    "metrics",
    "repository",
)
PIECES += (
    "",
    "repository",
    "..",
    "%2e%2e",
    "*",
    "{model}",
    "\x00",
    "é",
    "a" * 3000,
    "index",
    "load",
    "openapi.json",
)
VALUES = (
    None,
    True,
    -1,
    0,
    7,
    2**63,
    1.5,
    float("nan"),
    "",
    "BYTES",
    "\ud800",
    [],
    {},
    [[]],
    [1],
    [1, 1, 3, 3],
)
Headers = dict[str, str]


class Direct:
    """Asks the application without a socket, so that paths and headers may be anything."""

    def __init__(self, server: Server) -> None:
        self.app = build_app(server)

    async def __call__(
        self, method: str, path: str, *, headers: Headers | None = None, body: bytes = b"", query: str = ""
    ) -> tuple[int, bytes]:
        """Status and body."""
        asked = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"}
        scope |= {"method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode()}
        scope |= {"root_path": "", "headers": asked, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
        parts: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return parts.pop() if parts else await asyncio.Event().wait()

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        await self.app(scope, receive, send)
        return said[0]["status"], b"".join(message.get("body", b"") for message in said)


@pytest.fixture
def fuzzed(model_path) -> Iterator[Server]:
    server = Server(model_path, ServeLimits(max_body=50_000, max_images=4), log=Log(io.StringIO()))
    yield server
    server.engine.close()


def test_every_method_on_every_url(fuzzed):
    """What is there answers its own methods and says 405 to the others; what is not there is 404 to all."""

    async def ask_all() -> dict[tuple[str, str], int]:
        await fuzzed.warm_up()
        ask = Direct(fuzzed)
        return {(path, method): (await ask(method, path))[0] for path in allowed for method in METHODS}

    allowed = {named(route.path): route.methods for route in build_app(fuzzed).routes}
    allowed |= dict.fromkeys(("/none", "/v2/repository/index", "/v2/models/colours/config"))
    statuses = asyncio.run(ask_all())
    assert len(statuses) > 8 * 15
    for (path, method), status in statuses.items():
        if allowed[path] is None:
            assert status == 404, (path, method)
        elif method in allowed[path]:
            assert status in (200, 400), (path, method)  # 400: a POST without a body
        else:
            assert status == 405, (path, method)


def named(path: str) -> str:
    return path.replace("{model}", "colours").replace("{version}", "1")


def test_no_method_url_header_or_body_is_a_defect(fuzzed, photo):
    async def ask_all() -> Counter[int]:
        await fuzzed.warm_up()
        ask, chance, statuses = Direct(fuzzed), random.Random(16), Counter()
        for number in range(REQUESTS):
            request = some_request(chance, photo("red"))
            status, answer = await ask(**request)
            statuses[status] += 1
            assert status < 500, (number, status, request)
            if status >= 400 and answer:
                assert set(json.loads(answer)) == {"error"}
        return statuses

    statuses = asyncio.run(ask_all())
    assert {200, 400, 404, 405, 413, 415} <= set(statuses)  # else the requests were of one kind


def some_request(chance: random.Random, picture: bytes) -> dict[str, Any]:
    if chance.random() < 0.3:
        return {"method": "POST", "path": INFER, "body": some_infer(chance)}
    method = chance.choice((*METHODS, "POST", "POST", "POST", "POST"))
    body, headers = some_body(chance, picture)
    if chance.random() < 0.3:
        lengths = ("0", "1", str(len(body)), "-1", "x", "9" * 30)
        headers["inference-header-content-length"] = chance.choice(lengths)
    encoding = chance.choice(("", "", "", "gzip", "deflate", "br", "gzip, gzip"))
    if encoding:
        headers["content-encoding"] = encoding
        pack = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)
        body = pack(body) if chance.random() < 0.8 else body
    query = chance.choice(("", "top_k=1", "top_k=0", "top_k=" + "9" * 50, "top_k[]=%00", "x=é"))
    return {"method": method, "path": some_path(chance), "headers": headers, "body": body, "query": query}


def some_path(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return chance.choice(KNOWN)
    return "/" + "/".join(chance.choice(PIECES) for _ in range(chance.randint(0, 6)))


def some_body(chance: random.Random, picture: bytes) -> tuple[bytes, Headers]:
    """Good, damaged or nonsense, with the content type that goes with it or another."""
    infer = some_infer(chance)
    form = (
        b'--b\r\ncontent-disposition: form-data; name="f"; filename="f"\r\n\r\n' + picture + b"\r\n--b--\r\n"
    )
    body = chance.choice(
        (infer, infer, picture, form, b"", chance.randbytes(200), bytes(60_000), b"[" * 40_000)
    )
    if body and chance.random() < 0.4:
        damaged = bytearray(body)
        for _ in range(chance.randint(1, 5)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        body = bytes(damaged[: chance.randint(1, len(damaged))] if chance.random() < 0.3 else damaged)
    kinds = (
        "multipart/form-data; boundary=b",
        "application/json",
        "multipart/form-data",
        "image/png",
        "\xff",
    )
    return body, {"content-type": chance.choice(kinds)}


def some_infer(chance: random.Random) -> bytes:
    """A good request, in most cases with something else in one place."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [0, 9, 99, 1, 2, 3]}
    output = {"name": "probabilities", "parameters": {"classification": 2, "binary_data": True}}
    body = {"id": "a", "inputs": [tensor], "outputs": [output]}
    if chance.random() < 0.8:
        place = chance.choice((body, tensor, tensor, output, output["parameters"]))
        place[chance.choice(sorted(place))] = chance.choice(VALUES)
    return json.dumps(body).encode()


def test_paths_that_nobody_knows_add_no_series(fuzzed):
    async def ask_all() -> tuple[int, int]:
        await fuzzed.warm_up()
        ask, chance = Direct(fuzzed), random.Random(16)
        for path in UNKNOWN:
            await ask("GET", path)  # each route has its series from now on
            await ask("GET", f"{path}/ready")
        before = series(fuzzed)
        for number in range(PATHS):
            path = f"{chance.choice(UNKNOWN)}-{number}"
            await ask("GET", path if number % 2 else f"{path}/ready")
        return before, series(fuzzed)

    before, after = asyncio.run(ask_all())
    assert before > 20
    assert after == before


def series(server: Server) -> int:
    return sum(not line.startswith("#") for line in server.metrics.text().decode().splitlines())
