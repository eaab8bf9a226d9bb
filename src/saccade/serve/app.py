"""The routes of the server, and what holds for all of them: token, request id, headers, log, metrics."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saccade.errors import ImageError, SaccadeError
from saccade.serve import openapi, protocol_routes
from saccade.serve.body import Held, read_images
from saccade.serve.engine import Answer, unless_hung_up
from saccade.serve.problems import Refused, image_words, refused_image

if TYPE_CHECKING:
    from saccade.serve.server import Server

DEFAULT_TOP_K = 5  # as Hugging Face's image-classification
OPEN_PATHS = ("/", "/v2/health/live", "/v2/health/ready")  # what works without the token
REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def routes() -> list[Route]:
    """Every route, one list a module."""
    return [
        Route("/predict", predict, methods=["POST"]),
        Route("/about", about),
        Route("/metrics", metrics),
        *protocol_routes.routes(),
        *openapi.routes(),
    ]


def build_app(server: Server) -> Starlette:
    """The application around `server`, which every endpoint finds as `request.app.state.server`."""
    app = Starlette(
        routes=routes(),
        middleware=[Middleware(Around, server=server)],
        exception_handlers={Refused: _say_refused, HTTPException: _say_http, SaccadeError: _say_failed},  # type: ignore[dict-item]
    )
    app.router.redirect_slashes = False
    app.state.server = server
    return app


# -- endpoints -----------------------------------------------------------------------------------


async def predict(request: Request) -> Response:
    """`POST /predict?top_k=K`: one image gives a list of {"label", "score"}, several a list of such lists.

    Of several images, one that cannot be used has {"error", "status"} in its place; all others are answered.
    """
    server: Server = request.app.state.server
    model = server.model
    top_k = _top_k(request)
    server.check_room()
    images, several = await read_images(request)
    request.state.images = len(images)
    deadline = server.deadline_of(request)
    answers = await unless_hung_up(request, server.engine.answer(images, deadline=deadline, model=model))
    failed = [answer for answer in answers if isinstance(answer, ImageError)]
    if len(failed) == len(answers):
        raise refused_image(failed[0])
    ranked = [_ranked(answer, model.classes, top_k) for answer in answers]
    return _json(ranked if several else ranked[0])


async def about(request: Request) -> Response:
    """`GET /about`: what the model is and how good, and the limits of this server."""
    server: Server = request.app.state.server
    limits = server.limits
    shown = {name: getattr(limits, name) for name in ("max_body", "max_pixels", "max_images", "timeout")}
    return _json({**server.model.about, "limits": shown})


async def metrics(request: Request) -> Response:
    """`GET /metrics`: Prometheus' text form."""
    server: Server = request.app.state.server
    return Response(server.metrics.text(), media_type=server.metrics.content_type)


def _top_k(request: Request) -> int:
    text = request.query_params.get("top_k", str(DEFAULT_TOP_K))
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise Refused(400, "bad_request", "top_k must be a whole number of at least 1")
    return int(text)


def _ranked(answer: Answer, classes: Sequence[str], top_k: int) -> Any:
    if isinstance(answer, ImageError):
        refused = refused_image(answer)
        return {"error": image_words(answer), "status": refused.status}
    order = np.argsort(-answer, kind="stable")[:top_k]
    return [{"label": classes[i], "score": float(answer[i])} for i in order]


# -- answers that are none -----------------------------------------------------------------------


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(
        text.encode("utf-8", "surrogatepass"), status, headers=headers, media_type="application/json"
    )


async def _say_refused(request: Request, error: Refused) -> Response:
    request.state.reason = error.reason
    return _json({"error": error.message}, error.status, error.headers)


async def _say_http(request: Request, error: HTTPException) -> Response:
    request.state.reason = {404: "not_found", 405: "method"}.get(error.status_code, "bad_request")
    return _json({"error": error.detail.lower()}, error.status_code, dict(error.headers or {}))


async def _say_failed(request: Request, error: SaccadeError) -> Response:
    """The model gave no answer: said in the log, whose reader may know the file's path."""
    request.state.reason = "model"
    request.app.state.server.log.say("failed", level="error", problem=error.problem)
    return _json({"error": "the model could not answer"}, 500)


# -- around every request ------------------------------------------------------------------------


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
            if not self._may_pass(scope):
                state["reason"] = "token"
                refusal = _json({"error": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, send)
                return
            await self.app(scope, receive, send)
        except Exception as error:
            state["reason"] = "defect"
            self.server.log.say("defect", level="error", id=state["id"], error=repr(error), at=_place(error))
            if not state["status"]:
                await _json({"error": "internal error"}, 500)(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        token = self.server.token
        if not token or scope["path"] in OPEN_PATHS:
            return True
        given = b"".join(value for name, value in scope["headers"] if name == b"authorization")
        return hmac.compare_digest(given, b"Bearer " + token)

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


def _request_id(scope: Scope) -> str:
    """The client's, where it is harmless, so that logs of both sides meet; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            return str(text)
    return secrets.token_hex(8)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].name}:{frames[-1].lineno}" if frames else ""
