"""`GET /openapi.json`: what the server answers, status by status, for the model that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from saccade._version import __version__
from saccade.artefact import INPUT_NAME, OUTPUT_NAME
from saccade.preprocess import PixelFormat
from saccade.serve import protocol
from saccade.serve.around import OPEN_PATHS

if TYPE_CHECKING:
    from saccade.serve.server import Server

Json = dict[str, Any]

# A picture of one pixel, for examples
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"

_ONE = {"minItems": 1, "maxItems": 1}
_TEXT, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_WHY = {
    400: "the request, or an image in it, cannot be read",
    401: "the token is missing or wrong",
    404: "no such model or version",
    408: "the body did not arrive in time",
    413: "the body, an image or the number of images is above this server's limits",
    415: "Content-Encoding is neither gzip nor deflate",
    421: "the Host header has another name than localhost or an address",
    500: "the model could not answer",
    503: "the queue is full, or the server is starting or ending",
    504: "not answered in time",
}
_READING = (400, 408, 413, 415, 500, 503, 504)  # wherever images are sent


def routes() -> list[Route]:
    return [Route("/openapi.json", openapi)]


async def openapi(request: Request) -> Response:
    """`GET /openapi.json`."""
    return Response(protocol.json_bytes(document(request.app.state.server)), media_type="application/json")


def document(server: Server) -> Json:
    """The document for this server: its model's name and classes, its limits, and whether it has a token."""
    paths = {**_paths_of_saccade(server), **_paths_of_the_protocol(server)}
    made: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": f"{server.model.name}, served by saccade",
            "version": __version__,
            "description": "An image classifier. `/v2` is the Open Inference Protocol, version 2, with the "
            "binary tensor extension and the classification extension.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(server)},
    }
    if server.token:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
        _add_refusal(paths, 401, but=OPEN_PATHS)
    else:
        _add_refusal(paths, 421)
    return made


def _paths_of_saccade(server: Server) -> Json:
    top_k = {
        "name": "top_k",
        "in": "query",
        "description": "How many classes, the most probable first.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999, "default": 5},
    }
    predict = {
        "summary": "Classify one image, or several.",
        "parameters": [top_k],
        "requestBody": {"required": True, "content": _images_as_sent(server.limits.max_images)},
        "responses": {"200": _found("Predictions", "a list for one image, a list of lists for several")},
    }
    return {
        "/": _get("The page for people.", _text("the page", "text/html")),
        "/predict": {"post": _refusing(predict, *_READING)},
        "/about": _get(
            "The model, how good it is, and this server's limits.", _found("Anything", "the model")
        ),
        "/metrics": _get("Counters, for Prometheus.", _text("the counters", "text/plain")),
        "/openapi.json": _get("This document.", _found("Anything", "this document")),
    }


def _images_as_sent(most: int) -> Json:
    files = {
        "type": "array",
        "description": f"At most {most} images.",  # more are 413, not 400 as a limit here would say
        "minItems": 1,
        "items": {"type": "string", "format": "binary"},
    }
    form = {"type": "object", "properties": {"file": files}, "required": ["file"]}
    one = {"schema": {"type": "string", "format": "binary"}}
    return {
        **dict.fromkeys(("image/jpeg", "image/png", "image/webp", "application/octet-stream"), one),
        "multipart/form-data": {"schema": form},
    }


def _paths_of_the_protocol(server: Server) -> Json:
    metadata = _get("Server metadata.", _found("ServerMetadata", "name, version and extensions"))
    ready = _get("Whether requests are taken.", _found("Ready", "they are"))
    ready["get"]["responses"]["503"] = _found("Ready", "they are not: starting or ending")
    paths: Json = {
        "/v2": metadata,
        "/v2/": metadata,
        "/v2/health/live": _get("Whether the server runs.", _found("Live", "it does")),
        "/v2/health/ready": ready,
    }
    model = _only("model", server.model.name)
    version = _only("version", protocol.MODEL_VERSION)
    pixels = server.model.artefact.preprocess.pixels
    paths |= _paths_of_a_model("/v2/models/{model}", [model], pixels)
    return paths | _paths_of_a_model("/v2/models/{model}/versions/{version}", [model, version], pixels)


def _paths_of_a_model(start: str, parameters: list[Json], pixels: PixelFormat) -> Json:
    metadata = _get("Model metadata.", _found("ModelMetadata", "inputs, outputs and properties"))
    ready = _get("Whether the model takes requests.", _found("ModelReady", "it does"))
    ready["get"]["responses"]["503"] = _found("ModelReady", "it does not: starting or ending")
    made = {
        start: {"get": _refusing(metadata["get"], 404)},
        f"{start}/ready": {"get": _refusing(ready["get"], 404)},
        f"{start}/infer": {"post": _refusing(_infer(pixels), 404, *_READING)},
    }
    return {path: {"parameters": parameters, **operations} for path, operations in made.items()}


def _infer(pixels: PixelFormat) -> Json:
    binary = {"schema": {"type": "string", "format": "binary"}}
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Bytes of JSON before the binary tensors; 0: the body is one image file and no JSON.",
        "schema": {"type": "integer", "minimum": 0},
    }
    answered = _found("InferResponse", "the probabilities, or the first classes")
    answered["content"]["application/octet-stream"] = binary
    red_and_blue = [255, 0, 0, 0, 0, 255]
    values = red_and_blue if pixels.is_colour else [pixels.largest] * 2 * pixels.count
    array = _example(INPUT_NAME, protocol.datatype_of(pixels), [1, 1, 2, pixels.count], values)
    examples = {
        "pixels": {"value": array},
        "file": {"value": _example(protocol.ENCODED_NAME, "BYTES", [1], [_PNG])},
    }
    body = {
        "application/json": {"schema": _reference("InferRequest"), "examples": examples},
        "application/octet-stream": binary,
    }
    return {
        "summary": "Classify the images of one tensor.",
        "parameters": [length],
        "requestBody": {"required": True, "content": body},
        "responses": {"200": answered},
    }


def _example(name: str, datatype: str, shape: list[int], data: list[Any]) -> Json:
    output = {"name": OUTPUT_NAME, "parameters": {"classification": 1}}
    tensor = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    return {"id": "42", "inputs": [tensor], "outputs": [output]}


def _schemas(server: Server) -> Json:
    return {
        "Error": _object({"error": _TEXT}, ["error"]),
        "Anything": {"type": "object"},
        "Predictions": _predictions(server),
        "Live": _object({"live": _FLAG}, ["live"]),
        "Ready": _object({"ready": _FLAG, "live": _FLAG}, ["ready"]),
        "ModelReady": _object({"name": _TEXT, "ready": _FLAG}, ["name", "ready"]),
        "ServerMetadata": _object(
            {"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}, ["name", "version", "extensions"]
        ),
        "ModelMetadata": _model_metadata(),
        **_inference(protocol.datatype_of(server.model.artefact.preprocess.pixels)),
    }


def _predictions(server: Server) -> Json:
    """A list of labels with their scores for one image, a list of such lists for several."""
    one = {
        "label": {"enum": list(server.model.classes)},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "abstained": {**_FLAG, "description": "Whether the model is less sure than it was asked to be."},
        "unfamiliar": {
            "type": ["boolean", "null"],
            "description": "Whether the image is unlike those of training; null: the model does not tell.",
        },
        "unfamiliarity": {"type": ["number", "null"], "minimum": 0},
    }
    if server.model.deciding.included:
        one["in_set"] = {**_FLAG, "description": "Whether the set of labels of the image holds this one."}
    if server.model.artefact.multi_label:
        one["named"] = {**_FLAG, "description": "Whether the score reaches the threshold of its label."}
    scores = _list(_object(one, list(one)))
    failed = _object({"error": _TEXT, "status": _WHOLE}, ["error", "status"])
    return {"anyOf": [scores, _list({"anyOf": [scores, failed]})]}


def _model_metadata() -> Json:
    tensor = _object(
        {"name": _TEXT, "datatype": _TEXT, "shape": _list(_WHOLE)}, ["name", "datatype", "shape"]
    )
    properties = {
        "name": _TEXT,
        "versions": _list(_TEXT),
        "platform": _TEXT,
        "inputs": _list(tensor),
        "outputs": _list(tensor),
        "properties": {"type": "object", "additionalProperties": _TEXT},
    }
    return _object(properties, ["name", "versions", "platform", "inputs", "outputs"])


def _inference(pixels: str) -> Json:
    """Request and response of `infer`; `pixels` is the datatype of images that are decoded already."""
    needed, parameters = ["name", "shape", "datatype"], {"type": ["object", "null"]}
    tensor = {
        "name": _TEXT,
        "datatype": {"enum": [pixels, "BYTES", "FP32"]},
        "shape": _list(_WHOLE),
        "parameters": parameters,
        "data": {"type": "array"},
    }
    given = {
        **tensor,
        "name": {"enum": [INPUT_NAME, protocol.ENCODED_NAME]},
        "datatype": {"enum": [pixels, "BYTES"]},
        "shape": _list({"type": "integer", "minimum": 1}),
    }
    wanted = _object({"name": {"const": OUTPUT_NAME}, "parameters": parameters}, ["name"])
    request = {
        "id": _TEXT,
        "parameters": parameters,
        "inputs": _list(_object(given, needed)) | _ONE,
        "outputs": _list(wanted) | {"maxItems": 1},
    }
    response = {
        "model_name": _TEXT,
        "model_version": _TEXT,
        "id": _TEXT,
        "outputs": _list(_object(tensor, needed)),
    }
    return {
        "InferRequest": _object(request, ["inputs"]),
        "InferResponse": _object(response, ["model_name", "outputs"]),
    }


def _get(summary: str, answer: Json) -> Json:
    return {"get": {"summary": summary, "responses": {"200": answer}}}


def _refusing(operation: Json, *statuses: int) -> Json:
    """The operation with the statuses that say why it was not done."""
    refusals = {str(status): _refusal(status) for status in statuses}
    return {**operation, "responses": operation["responses"] | refusals}


def _refusal(status: int) -> Json:
    found = _found("Error", _WHY[status])
    if status == 503:
        found["headers"] = {"Retry-After": {"schema": {"type": "string"}}}
    return found


def _add_refusal(paths: Json, status: int, *, but: Sequence[str] = ()) -> None:
    """To every operation; those `but` paths need no token."""
    for path, operations in paths.items():
        for method in operations.keys() & {"get", "post"}:
            if path in but:
                operations[method]["security"] = []
            else:
                operations[method]["responses"][str(status)] = _refusal(status)


def _found(schema: str, what: str) -> Json:
    return {"description": what, "content": {"application/json": {"schema": _reference(schema)}}}


def _text(what: str, kind: str) -> Json:
    return {"description": what, "content": {kind: {"schema": {"type": "string"}}}}


def _only(name: str, value: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": [value]}}


def _object(properties: Json, required: list[str]) -> Json:
    return {"type": "object", "properties": properties, "required": required}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _reference(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}
