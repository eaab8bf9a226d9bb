"""The endpoints of our own: /predict, /about, /metrics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from saccade.deciding import is_unfamiliar
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

    Each says of the image: "abstained" (rather ask a person), "unfamiliar" (unlike the training images) and
    "unfamiliarity", null where the model does not tell. Of a model with sets of labels, "in_set" says which
    are in that of the image; of one that names several labels, "named" whether a score reaches its threshold.
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
    found, deciding, limits = answer.probabilities, model.deciding, model.artefact.thresholds
    unfamiliar = is_unfamiliar(answer.unfamiliarity)
    of_image = {
        "abstained": deciding.abstains(found),
        "unfamiliar": unfamiliar,
        "unfamiliarity": None if unfamiliar is None else answer.unfamiliarity,
    }
    chosen: dict[str, NDArray[np.bool_]] = {}
    if deciding.included:
        chosen["in_set"] = deciding.in_set(found)
    if limits is not None:
        chosen["named"] = found >= np.array(limits)
    least = max((int(which.sum()) for which in chosen.values()), default=0)
    order = np.argsort(-found, kind="stable")[: top_k or max(DEFAULT_TOP_K, least)]
    return [
        {
            "label": model.classes[i],
            "score": float(found[i]),
            **{word: bool(which[i]) for word, which in chosen.items()},
            **of_image,
        }
        for i in order
    ]
