"""uvicorn's HTTP connection, with limits that it leaves to others: how long and how large a head may be."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from saccade.serve.limits import BODY_SECONDS

MOST_HEAD_BYTES = 64_000
FRESH_SECONDS = 0.5  # at the end, so long is waited for the request of a connection that is just made


class Connection(HttpToolsProtocol):
    """A client has `BODY_SECONDS` for the head of a request, and to finish a body that was refused."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.head_bytes = 0  # since the last whole head
        self.body_open = False
        self.asked = False  # whether a request has begun here
        self.late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does so only for sockets made with this protocol number, which an accepted one is not;
        # else the second packet of a reply waits 40 ms for the client's acknowledgement
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait_for_the_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.body_open:
            self.head_bytes += len(data)
        super().data_received(data)
        if self.head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._end(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.late is None:
            self._wait_for_the_rest()

    def on_headers_complete(self) -> None:
        self._in_time()
        self.head_bytes = 0
        self.body_open = self.asked = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_time()
        self.body_open = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.body_open:  # refused early: the rest is read and dropped, so that the client sees why
            self._wait_for_the_rest()

    def shutdown(self) -> None:
        if not self.asked:  # its first request may be on the way
            self.loop.call_later(FRESH_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def _wait_for_the_rest(self) -> None:
        self._in_time()
        self.late = self.loop.call_later(BODY_SECONDS, self._end, b"408 Request Timeout")

    def _in_time(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None

    def send_400_response(self, msg: str) -> None:
        self._end(b"400 Bad Request", always=True)

    def _end(self, status: bytes, *, always: bool = False) -> None:
        """Close the connection, with a reply where none was given yet."""
        self._in_time()
        if self.transport.is_closing():
            return
        if always or not self.body_open:
            body = b'{"error":"' + status[4:].lower() + b'"}'
            head = b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-type: application/json\r\n" % status
            self.transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()
