"""Every limit bites with its own status, while the body is read, and the server goes on."""

from __future__ import annotations

import gzip
import socket
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from saccade.serve.body import Unpacker
from saccade.serve.problems import Refused

Photo = Callable[..., bytes]
LIMIT = 300_000  # of the fixture `served`


def raw(port: int, request: bytes, *, seconds: float = 8) -> bytes:
    """What the server answers to these bytes, until it closes or is silent."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=seconds)) as connection:
        connection.sendall(request)
        return until_closed(connection)


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
            head, _, body = received.partition(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if length and len(body) >= int(length[0].split(b":")[1]):
                break
    except ConnectionResetError:
        pass
    return received


def head(*lines: str, path: str = "/predict") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def status(reply: bytes) -> int:
    return int(reply.split(b" ")[1]) if reply else 0


# -- bodies --------------------------------------------------------------------------------------


def test_a_body_above_the_limit_is_413_however_it_is_sent(served: Any, photo: Photo) -> None:
    large = b"x" * (LIMIT + 1)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(large), 10_000):
            yield large[start : start + 10_000]

    assert served.client.post("/predict", content=large).status_code == 413
    assert served.client.post("/predict", content=pieces()).status_code == 413  # chunked
    assert served.client.post("/predict", files={"image": large}).status_code == 413
    just_fits = photo("red") + b"\0" * (LIMIT - len(photo("red")))
    assert served.client.post("/predict", content=just_fits).status_code == 200


def test_a_declared_length_is_refused_before_anything_is_sent(served: Any) -> None:
    assert status(raw(served.port, head(f"Content-Length: {LIMIT + 1}"))) == 413
    assert status(raw(served.port, head(f"Content-Length: {10**30}"))) == 400
    assert status(raw(served.port, head("Content-Length: -1"))) == 400


def test_a_false_length_lets_nothing_through(served: Any, photo: Photo) -> None:
    image = photo("red")
    smuggled = raw(served.port, head("Content-Length: 5") + image)
    assert status(smuggled) == 400
    assert b"score" not in smuggled
    both = raw(served.port, head(f"Content-Length: {len(image)}", "Transfer-Encoding: chunked") + image)
    assert status(both) == 400
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=5)) as connection:
        connection.sendall(head(f"Content-Length: {len(image)}") + image[:-1])  # and then hangs up
    assert served.client.post("/predict", content=image).status_code == 200


def test_what_is_unpacked_counts_against_the_limit(served: Any) -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)
    assert len(bomb) < LIMIT
    for encoding, body in (("gzip", bomb), ("deflate", zlib.compress(b"\0" * 20_000_000))):
        answer = served.client.post("/predict", content=body, headers={"Content-Encoding": encoding})
        assert answer.status_code == 413, encoding


def test_a_bomb_is_not_unpacked_before_it_is_refused() -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="larger than"):
            Unpacker("gzip", 10_000).feed(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate", "bare deflate", "identity"])
def test_packed_bodies_are_unpacked(served: Any, photo: Photo, encoding: str) -> None:
    image = photo("blue")
    packed = {"identity": image, "deflate": zlib.compress(image)}.get(encoding, gzip.compress(image))
    if encoding == "bare deflate":
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(image) + packer.flush()
    headers = {"Content-Encoding": encoding.removeprefix("bare ")}
    for body in (packed, iter([packed[:9], packed[9:]])):  # whole, and chunked
        answer = served.client.post("/predict", content=body, headers=headers)
        assert answer.json()[0]["label"] == "blue"


def test_damaged_and_unknown_encodings_are_400_and_415(served: Any, photo: Photo) -> None:
    packed = gzip.compress(photo())
    cases = {
        "cut short": ("gzip", packed[:-9], 400),
        "not packed": ("gzip", photo(), 400),
        "more behind it": ("gzip", packed + b"more", 400),
        "another checksum": ("gzip", packed[:-8] + b"\0" * 8, 400),
        "not deflate": ("deflate", b"\xff" * 50, 400),
        "brotli": ("br", photo(), 415),
        "two": ("gzip, gzip", gzip.compress(packed), 415),
        "nonsense": ("\u00e4".encode(), photo(), 415),
    }
    for name, (encoding, body, expected) in cases.items():
        answer = served.client.post("/predict", content=body, headers={"Content-Encoding": encoding})
        assert answer.status_code == expected, name
        assert answer.json()["error"]
    assert served.client.post("/predict", content=packed, headers={"Content-Encoding": "gzip"}).is_success


def test_bodies_of_all_requests_together_are_bounded(model_path: Path, serving: Any, photo: Photo) -> None:
    with serving(model_path, max_body=100_000) as server:
        server.server.bodies.most = 150_000
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=5)) as first:
            first.sendall(head("Content-Length: 100000") + b"x" * 99_999)
            until(lambda: server.server.bodies.held >= 99_999)
            answer = server.client.post("/predict", content=b"x" * 60_000)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        until(lambda: server.server.bodies.held == 0)
        assert server.client.post("/predict", content=photo()).status_code == 200


def until(holds: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


# -- slow clients --------------------------------------------------------------------------------


def test_a_slow_body_is_408_and_a_slow_head_too(
    model_path: Path, serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.serve.body.BODY_SECONDS", 0.3)
    monkeypatch.setattr("saccade.serve.connection.BODY_SECONDS", 0.5)
    with serving(model_path) as server:
        began = time.monotonic()
        assert status(raw(server.port, head("Content-Length: 100") + b"x")) == 408
        assert status(raw(server.port, b"POST /predict HTTP/1.1\r\nHo")) == 408
        assert status(raw(server.port, b"")) == 408  # says nothing at all
        assert time.monotonic() - began < 4
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=5)) as connection:
            connection.sendall(head(f"Content-Length: {10**9}"))
            assert status(until_closed(connection)) == 413
            dribbled_until_closed(connection)


def dribbled_until_closed(connection: socket.socket) -> None:
    """Who goes on sending after the refusal is cut off."""
    end = time.monotonic() + 4
    try:
        while time.monotonic() < end:
            connection.sendall(b"x")
            time.sleep(0.02)
    except (ConnectionResetError, BrokenPipeError):
        return
    raise AssertionError("it could send for ever")


def test_an_endless_head_is_431(served: Any) -> None:
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=5)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        try:
            for number in range(400):
                connection.sendall(f"X-{number}: {'y' * 400}\r\n".encode())
        except (ConnectionResetError, BrokenPipeError):
            return
        assert status(until_closed(connection)) in (431, 0)  # 0: reset, with unread bytes on the way


# -- images --------------------------------------------------------------------------------------


def test_too_many_images_and_too_many_pixels_are_413(served: Any, photo: Photo) -> None:
    files = [("image", ("a.png", photo())) for _ in range(9)]
    answer = served.client.post("/predict", files=files)
    assert (answer.status_code, "limit of 8" in answer.text) == (413, True)
    assert served.client.post("/predict", files=files[:8]).status_code == 200
    large = photo(size=(1001, 1000))
    assert len(large) < LIMIT
    answer = served.client.post("/predict", content=large)
    assert (answer.status_code, "1,000,000" in answer.json()["error"]) == (413, True)
    assert served.client.post("/predict", content=photo(size=(1000, 1000))).status_code == 200
    among = served.client.post("/predict", files=[files[0], ("image", ("b.png", large))]).json()
    assert [entry["status"] for entry in among if isinstance(entry, dict)] == [413]


def bomb(kind: bytes) -> bytes:
    """A PNG that declares 60,000 x 60,000 pixels in a few bytes, or hides as many in its data."""
    sides = {b"size": (60_000, 60_000), b"data": (900, 900), b"thin": (1, 60_000)}[kind]
    pixels = zlib.compress(b"\0" * 30_000_000) if kind == b"data" else zlib.compress(b"\0" * 1000)

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", *sides, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_by_their_header(served: Any) -> None:
    for kind, expected in ((b"size", 413), (b"data", 200), (b"thin", 400)):
        file = bomb(kind)
        began = time.monotonic()
        answer = served.client.post("/predict", content=file)
        assert answer.status_code == expected, kind  # "data": all that it declares is there; no more is read
        assert time.monotonic() - began < 1


def test_no_limit_can_be_nothing(model_path: Path) -> None:
    from saccade.errors import RecipeError
    from saccade.serve.limits import ServeLimits

    for name in ("max_body", "max_pixels", "max_images", "queue", "timeout"):
        with pytest.raises(RecipeError, match=f"--{name.replace('_', '-')} must be more than 0, got 0"):
            ServeLimits(**{name: 0})
    with pytest.raises(RecipeError, match="--timeout must be more than 0, got nan"):
        ServeLimits(timeout=float("nan"))


# -- multipart -----------------------------------------------------------------------------------

BOUNDARY = "multipart/form-data; boundary=B"
IMAGE_PART = b'--B\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\nDATA\r\n'
MALFORMED: dict[str, tuple[str, bytes]] = {
    "no boundary": ("multipart/form-data", IMAGE_PART + b"--B--\r\n"),
    "empty boundary": ("multipart/form-data; boundary=", IMAGE_PART + b"--B--\r\n"),
    "another boundary": ("multipart/form-data; boundary=C", IMAGE_PART + b"--B--\r\n"),
    "endless boundary": (f"multipart/form-data; boundary={'B' * 5000}", IMAGE_PART),
    "nothing in it": (BOUNDARY, b"--B--\r\n"),
    "only a boundary": (BOUNDARY, b"--B\r\n"),
    "no closing boundary": (BOUNDARY, IMAGE_PART),
    "cut in the data": (BOUNDARY, IMAGE_PART[:-4]),
    "cut in the header": (BOUNDARY, IMAGE_PART[:30]),
    "no header": (BOUNDARY, b"--B\r\n\r\nDATA\r\n--B--\r\n"),
    "no name": (BOUNDARY, b"--B\r\nContent-Disposition: form-data\r\n\r\nDATA\r\n--B--\r\n"),
    "a header without colon": (BOUNDARY, b"--B\r\nContent-Disposition\r\n\r\nDATA\r\n--B--\r\n"),
    "an empty header name": (BOUNDARY, b"--B\r\n: x\r\n\r\nDATA\r\n--B--\r\n"),
    "a field, not a file": (
        BOUNDARY,
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nDATA\r\n--B--\r\n',
    ),
    "bare line feeds": (BOUNDARY, (IMAGE_PART + b"--B--\r\n").replace(b"\r\n", b"\n")),
    "null bytes": (BOUNDARY, b"\0" * 100),
    "text before the boundary": (BOUNDARY, b"junk" + IMAGE_PART + b"--B--\r\n"),
    "invalid header bytes": (BOUNDARY, b"--B\r\n\xff\xfe\x00: x\r\n\r\nDATA\r\n--B--\r\n"),
    "ten thousand headers": (BOUNDARY, b"--B\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\nDATA\r\n--B--\r\n"),
    "a header of 100 kB": (BOUNDARY, b"--B\r\nX-A: " + b"b" * 100_000 + b"\r\n\r\nDATA\r\n--B--\r\n"),
    "nested": (
        BOUNDARY,
        b'--B\r\nContent-Disposition: form-data; name="a"; filename="a"\r\nContent-Type: '
        b"multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\nDATA\r\n--C--\r\n--B--\r\n",
    ),
    "a damaged charset": (
        "multipart/form-data; boundary=B; charset=\u00e4\u00f6",
        b"--B\r\nContent-Disposition: form-data; name=\xff\r\n\r\nDATA\r\n--B--\r\n",
    ),
    "an empty file": (BOUNDARY, IMAGE_PART.replace(b"DATA", b"") + b"--B--\r\n"),
}


def test_malformed_multiparts_are_400(served: Any, photo: Photo) -> None:
    assert len(MALFORMED) > 20
    for name, (kind, body) in MALFORMED.items():
        answer = served.client.post("/predict", content=body, headers={"Content-Type": kind.encode()})
        assert answer.status_code == 400, (name, answer.text)
        assert answer.json()["error"]
    good = IMAGE_PART.replace(b"DATA", photo()) + b"--B--\r\n"
    cut = served.client.post("/predict", content=good[:-7], headers={"Content-Type": BOUNDARY})
    assert (cut.status_code, "closing boundary" in cut.text) == (400, True)  # though the image is whole
    assert served.client.post("/predict", content=good, headers={"Content-Type": BOUNDARY}).is_success


def test_a_file_name_is_never_used(served: Any, photo: Photo, tmp_path: Path) -> None:
    target = tmp_path / "written"
    for name in (str(target), "../../../etc/passwd", "a\0b.png", "\u202egnp.exe"):
        answer = served.client.post("/predict", files={"image": (name, photo("green"))})
        assert answer.json()[0]["label"] == "green"
    assert not target.exists()


def test_broken_http_is_400_as_json(served: Any) -> None:
    for request in (
        b"NONSENSE\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"zz\r\n",
    ):
        reply = raw(served.port, request)
        assert status(reply) == 400, request
        assert b"application/json" in reply
    assert served.client.get("/about").status_code == 200
