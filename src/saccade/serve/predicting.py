"""The endpoints of our own: /predict, /about, /metrics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from saccade.errors import ImageError
from saccade.serve.body import read_images
from saccade.serve.engine import Answer, unless_hung_up
from saccade.serve.problems import Refused, image_words, refused_image
from saccade.serve.replies import json_reply

if TYPE_CHECKING:
    from saccade.serve.model import Model
    from saccade.serve.server import Server

DEFAULT_TOP_K = 5  # as Hugging Face's image-classification


def routes() -> list[Route]:
    """What is answered beside the protocol."""
    return [
        Route("/predict", predict, methods=["POST"]),
        Route("/about", about),
        Route("/metrics", metrics),
    ]


async def predict(request: Request) -> Response:
    """`POST /predict?top_k=K`: one image gives a list of {"label", "score"}, several a list of such lists.

    Of a model that names several labels, each has "named" too: whether its score reaches its threshold.
    Of several images, one that cannot be used has {"error", "status"} in its place; all others are answered.
    """
    server: Server = request.app.state.server
    model = server.model
    server.check_room()
    top_k = _top_k(request)
    images, several = await read_images(request)
    request.state.images = len(images)
    deadline = server.deadline_of(request)
    answers = await unless_hung_up(request, server.engine.answer(images, deadline=deadline, model=model))
    failed = [answer for answer in answers if isinstance(answer, ImageError)]
    if len(failed) == len(answers):
        raise refused_image(failed[0])
    ranked = [_ranked(answer, model, top_k) for answer in answers]
    return json_reply(ranked if several else ranked[0])


async def about(request: Request) -> Response:
    """`GET /about`: what the model is and how good, and the limits of this server."""
    server: Server = request.app.state.server
    limits = server.limits
    shown = {name: getattr(limits, name) for name in ("max_body", "max_pixels", "max_images", "timeout")}
    return json_reply({**server.model.about, "limits": shown})


async def metrics(request: Request) -> Response:
    """`GET /metrics`: Prometheus' text form."""
    server: Server = request.app.state.server
    return Response(server.metrics.text(), media_type=server.metrics.content_type)


def _top_k(request: Request) -> int | None:
    """As asked; None where nobody asked."""
    text = request.query_params.get("top_k")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise Refused(400, "bad_request", "top_k must be a whole number of at least 1")
    return int(text)


def _ranked(answer: Answer, model: Model, top_k: int | None) -> Any:
    if isinstance(answer, ImageError):
        refused = refused_image(answer)
        return {"error": image_words(answer), "status": refused.status}
    order, limits = np.argsort(-answer, kind="stable"), model.artefact.thresholds
    scores = [{"label": model.classes[i], "score": float(answer[i])} for i in order]
    if limits is None:
        return scores[: top_k or DEFAULT_TOP_K]
    named = answer >= np.array(limits)
    shown = top_k or max(DEFAULT_TOP_K, int(named.sum()))
    return [{**one, "named": bool(named[i])} for one, i in zip(scores[:shown], order, strict=False)]
