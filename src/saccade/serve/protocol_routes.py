"""The routes of the Open Inference Protocol, version 2. There is none that loads, changes or lists models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from saccade.errors import ImageError
from saccade.serve import protocol
from saccade.serve.body import read_body
from saccade.serve.engine import Answer, unless_hung_up
from saccade.serve.problems import Refused, refused_image

if TYPE_CHECKING:
    from saccade.serve.model import Model
    from saccade.serve.server import Server


def routes() -> list[Route]:
    """Health, metadata and inference; every other path below /v2 is 404."""
    found = [
        Route("/v2", server_metadata),
        Route("/v2/", server_metadata),  # as the protocol's OpenAPI file has it
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
    ]
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        found.append(Route(model, model_metadata))
        found.append(Route(f"{model}/ready", model_ready))
        found.append(Route(f"{model}/infer", infer, methods=["POST"]))
    return found


async def server_metadata(request: Request) -> Response:
    return _json(protocol.server_metadata())


async def live(request: Request) -> Response:
    return _json({"live": True})


async def ready(request: Request) -> Response:
    """Triton's client reads the status, KServe's the body."""
    if not _server(request).ready:
        return _json({"ready": False}, 503)
    return _json({"ready": True, "live": True})


async def model_metadata(request: Request) -> Response:
    model = _model(request)
    return _json(protocol.model_metadata(model.name, model.artefact))


async def model_ready(request: Request) -> Response:
    model, is_ready = _model(request), _server(request).ready
    return _json({"name": model.name, "ready": is_ready}, 200 if is_ready else 503)


async def infer(request: Request) -> Response:
    """All images of a request are answered, or none: the answer is one tensor."""
    server, model = _server(request), _model(request)
    server.check_room()
    body = await read_body(request)
    asked = protocol.parse_infer_request(
        request.headers,
        body,
        max_images=server.limits.max_images,
        pixels=model.artefact.preprocess.pixels,
    )
    request.state.images = len(asked.images)
    work = server.engine.answer(asked.images, deadline=server.deadline_of(request), model=model)
    answers = await unless_hung_up(request, work)
    content, headers = protocol.infer_response(
        asked, _as_tensor(answers), model=model.name, classes=model.classes
    )
    return Response(content, headers=headers)


def _as_tensor(answers: list[Answer]) -> NDArray[np.float64]:
    """(images, classes); raises Refused, with its number, for an image that cannot be used."""
    rows = []
    for number, answer in enumerate(answers, start=1):
        if isinstance(answer, ImageError):
            refused = refused_image(answer)
            refused.message = f"image {number} of {len(answers)}: {refused.message}"
            raise refused
        rows.append(answer.probabilities)
    return np.array(rows)


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _model(request: Request) -> Model:
    """The one model, where the request names it; raises Refused (404)."""
    model, asked = _server(request).model, request.path_params
    if asked["model"] != model.name:
        raise Refused(404, "not_found", f"unknown model; this server has {model.name}")
    if asked.get("version", protocol.MODEL_VERSION) != protocol.MODEL_VERSION:
        raise Refused(404, "not_found", f"unknown version; {model.name} has {protocol.MODEL_VERSION}")
    return model


def _json(content: Any, status: int = 200) -> Response:
    return Response(protocol.json_bytes(content), status, media_type="application/json")
