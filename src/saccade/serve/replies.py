"""Replies as JSON, and what a client is told when there is no prediction: never a path, never a traceback."""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from saccade.errors import SaccadeError
from saccade.serve.problems import Refused


def json_reply(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`content` as JSON, with class names of any script as they are."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(
        text.encode("utf-8", "surrogatepass"), status, headers=headers, media_type="application/json"
    )


async def say_refused(request: Request, error: Refused) -> Response:
    """What the server refuses itself."""
    request.state.reason = error.reason
    return json_reply({"error": error.message}, error.status, error.headers)


async def say_http(request: Request, error: HTTPException) -> Response:
    """What Starlette refuses: paths and methods that are not there."""
    request.state.reason = {404: "not_found", 405: "method"}.get(error.status_code, "bad_request")
    return json_reply({"error": error.detail.lower()}, error.status_code, dict(error.headers or {}))


async def say_failed(request: Request, error: SaccadeError) -> Response:
    """The model gave no answer: said in the log, whose reader may know the file's path."""
    request.state.reason = "model"
    request.app.state.server.log.say("failed", level="error", problem=error.problem)
    return json_reply({"error": "the model could not answer"}, 500)
