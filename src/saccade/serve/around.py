"""Around every request: token, request id, security headers, one line in the log, metrics."""

from __future__ import annotations

import hmac
import ipaddress
import random
import re
import time
import traceback
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saccade.serve.body import Held
from saccade.serve.replies import json_reply

if TYPE_CHECKING:
    from saccade.serve.server import Server

OPEN_PATHS = ("/", "/v2/health/live", "/v2/health/ready")  # what works without the token
REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_FOREIGN = "this server answers as localhost or by its address, not as {}; behind a proxy, set --token-file"
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Around:
    """Token, request id, security headers, one line in the log and the metrics of each request."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self.app = app
        self.server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.monotonic()
        state = scope["state"] = {"began": began, "held": Held(self.server.bodies), "status": 0}
        state["id"] = _request_id(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                state["status"] = message["status"]
                message["headers"] = self._headers(message["headers"], state["id"])
            await send(message)

        try:
            await self._answer(scope, receive, send_with_headers)
        finally:
            state["held"].give_back()
            self._note(scope, time.monotonic() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        try:
            if not self.server.token and (name := foreign_name(_header(scope, b"host"))):
                state["reason"] = "host"
                await json_reply({"error": _FOREIGN.format(name)}, 421)(scope, receive, send)
                return
            if not self._may_pass(scope):
                state["reason"] = "token"
                refusal = json_reply(
                    {"error": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"}
                )
                await refusal(scope, receive, send)
                return
            await self.app(scope, receive, send)
        except Exception as error:
            state["reason"] = "defect"
            self.server.log.say("defect", level="error", id=state["id"], error=repr(error), at=_place(error))
            if not state["status"]:
                await json_reply({"error": "internal error"}, 500)(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        token = self.server.token
        if not token or scope["path"] in OPEN_PATHS:
            return True
        return hmac.compare_digest(_header(scope, b"authorization"), b"Bearer " + token)

    def _headers(self, own: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in own}
        added = {**SECURITY_HEADERS, "x-request-id": request_id}
        if self.server.draining:
            added["connection"] = "close"
        more = [(name.encode(), value.encode()) for name, value in added.items()]
        return [*own, *(entry for entry in more if entry[0] not in present)]

    def _note(self, scope: Scope, seconds: float) -> None:
        state, metrics = scope["state"], self.server.metrics
        path = getattr(scope.get("route"), "path", "other")
        status = state["status"] or 499
        metrics.requests.labels(path, status).inc()
        metrics.seconds.observe(seconds)
        fields = {"reason": state["reason"]} if "reason" in state else {}
        if fields:
            metrics.failures.labels(state["reason"]).inc()
        if "images" in state:
            fields["images"] = state["images"]
        self.server.log.say(
            "request",
            id=state["id"],
            method=scope["method"],
            path=path,
            status=status,
            ms=round(seconds * 1000, 2),
            bytes=state["held"].total,
            **fields,
        )


def foreign_name(host: bytes) -> str:
    """The name in a Host header that is neither an address nor localhost, else "".

    A page of the web can have its own name resolved to 127.0.0.1 (DNS rebinding) and read what it gets from
    there. It cannot make a browser send an address as Host.

    >>> foreign_name(b"127.0.0.1:8000"), foreign_name(b"[::1]:80"), foreign_name(b"evil.example:8000")
    ('', '', 'evil.example')
    """
    text = host.decode("latin-1")
    name = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
    if name.lower().rstrip(".") in ("", "localhost") or name.lower().endswith(".localhost"):
        return ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name[:100]
    return ""


def _header(scope: Scope, name: bytes) -> bytes:
    return b"".join(value for key, value in scope["headers"] if key == name)


def _request_id(scope: Scope) -> str:
    """The client's, where it is harmless, so that logs of both sides meet; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            return str(text)
    return f"{random.getrandbits(64):016x}"  # only a name


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].name}:{frames[-1].lineno}" if frames else ""
