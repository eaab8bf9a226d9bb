"""The body of a request, within limits that hold while it is read: bytes as sent, bytes unpacked, time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from saccade.serve.limits import BODY_SECONDS
from saccade.serve.multipart import files_of
from saccade.serve.problems import HungUp, Refused

if TYPE_CHECKING:
    from starlette.requests import Request

GZIP = 16 + zlib.MAX_WBITS  # zlib's way to say: with gzip's header
ZLIB_HEADER = 0x78  # first byte of nearly every zlib stream; a bare deflate stream does not begin so


async def read_body(request: Request) -> bytes:
    """The whole body, unpacked where `Content-Encoding` says gzip or deflate.

    Raises Refused: 413 above `--max-body` (as sent, and unpacked), 415 for another encoding, 400 for a
    damaged one, 408 where it does not come in time; HungUp where the client is gone.
    """
    server = request.app.state.server
    limit = server.limits.max_body
    unpacker = _unpacker(request.headers.get("content-encoding", ""), limit)
    if _declared(request) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(min(BODY_SECONDS, server.limits.timeout)):
            return await _collected(request, unpacker, request.state.held, limit)
    except TimeoutError:
        raise Refused(408, "slow_body", "the body did not arrive in time") from None


async def read_images(request: Request) -> tuple[list[bytes], bool]:
    """The images of a request as encoded bytes, and whether several were sent (multipart with more than one).

    Raises Refused as `read_body` does, 400 for a body without images or a malformed multipart, and 413 for
    more than `--max-images`.
    """
    body = await read_body(request)
    kind = request.headers.get("content-type", "")
    most = request.app.state.server.limits.max_images
    images = files_of(kind, body, most=most) if _is_multipart(kind) else [body]
    if not images or not body:
        raise Refused(400, "no_image", "the request holds no image; send one as body or as multipart file")
    return images, len(images) > 1


def check_count(images: int, request: Request) -> None:
    """Raise Refused (413) for more images than a request may have."""
    most = request.app.state.server.limits.max_images
    if images > most:
        raise Refused(413, "too_many_images", f"{images} images, more than this server's limit of {most}")


class Bodies:
    """Bytes that the bodies of all requests hold together, bounded."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0


class Held:
    """The part of one request in `bodies`; given back at its end."""

    def __init__(self, bodies: Bodies) -> None:
        self.bodies = bodies
        self.size = 0
        self.total = 0  # also after it was given back, for the log

    def take(self, size: int) -> None:
        """Raise Refused (503) where all requests together would hold too much."""
        if self.bodies.held + size > self.bodies.most:
            raise Refused(503, "memory", "too many large requests; try again", {"Retry-After": "1"})
        self.bodies.held += size
        self.size += size
        self.total += size

    def give_back(self) -> None:
        self.bodies.held -= self.size
        self.size = 0


async def _collected(request: Request, unpacker: Unpacker | None, held: Held, limit: int) -> bytes:
    chunks: list[bytes] = []
    sent = 0
    async for sent_chunk in _chunks(request):
        sent += len(sent_chunk)
        if sent > limit:
            raise _too_large(limit)
        chunk = unpacker.feed(sent_chunk) if unpacker else sent_chunk
        held.take(len(chunk))
        chunks.append(chunk)
    if unpacker:
        unpacker.finish()
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise HungUp
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


class Unpacker:
    """gzip or deflate, unpacked as it comes, never more than `limit` bytes."""

    def __init__(self, encoding: str, limit: int) -> None:
        self.encoding = encoding
        self.left = limit
        self.limit = limit
        self.stream: Any = None

    def feed(self, data: bytes) -> bytes:
        if self.stream is None:
            self.stream = zlib.decompressobj(self._window(data[0]))
        try:
            unpacked: bytes = self.stream.decompress(data, self.left + 1)
        except zlib.error:
            raise self._damaged() from None
        self.left -= len(unpacked)
        if self.left < 0:
            raise _too_large(self.limit)
        if self.stream.unused_data:
            raise self._damaged()
        return unpacked

    def finish(self) -> None:
        """Raise Refused where the stream was cut short."""
        if self.stream is not None and not self.stream.eof:
            raise self._damaged()

    def _window(self, first: int) -> int:
        """RFC 9110 8.4.1.2: deflate means zlib; some clients send the bare stream, and browsers take both."""
        if self.encoding != "deflate":
            return GZIP
        return zlib.MAX_WBITS if first == ZLIB_HEADER else -zlib.MAX_WBITS

    def _damaged(self) -> Refused:
        return Refused(400, "bad_encoding", f"the body is not a whole {self.encoding} stream")


def _unpacker(encoding: str, limit: int) -> Unpacker | None:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in ("gzip", "x-gzip", "deflate"):
        accepted = {"Accept-Encoding": "gzip, deflate"}
        raise Refused(415, "bad_encoding", "Content-Encoding must be gzip or deflate", accepted)
    return Unpacker(name.removeprefix("x-"), limit)


def _declared(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else 0


def _too_large(limit: int) -> Refused:
    return Refused(413, "body_too_large", f"the body is larger than this server's limit of {limit:,} bytes")


def _is_multipart(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"
