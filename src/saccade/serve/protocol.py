"""The Open Inference Protocol, version 2, as pure functions from bytes to images, and back.

Requests may use the binary tensor extension and the classification extension, as Triton's clients do.
https://github.com/kserve/open-inference-protocol and
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gc
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade._version import __version__
from saccade.artefact import INPUT_NAME, OUTPUT_NAME, Artefact, Image
from saccade.files import parse_json
from saccade.preprocess import RGB, PixelFormat
from saccade.serve.problems import Refused

HEADER_LENGTH = "inference-header-content-length"
ENCODED_NAME = "encoded_image"  # the same input as content of image files; `image` as BYTES is the same
EXTENSIONS = ("binary_tensor_data", "classification")
PLATFORM = "onnxruntime_onnx"
MODEL_VERSION = "1"

_LENGTH = struct.Struct("<I")  # before each element of a binary BYTES tensor
_MOST_DIMENSIONS = 8
_SHOWN = 60  # characters of a request that a message repeats


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What one infer request asks.

    `images` are arrays (height, width, channels), or contents of image files. `binary` asks for the output
    behind the JSON. With `class_count` the output is that many first classes, without it the probabilities.
    """

    images: tuple[Image | bytes, ...]
    id: str | None = None
    binary: bool = False
    class_count: int = 0


def parse_infer_request(
    headers: Mapping[str, str], body: bytes, *, max_images: int, pixels: PixelFormat = RGB
) -> InferRequest:
    """The images and wishes of a request; raises Refused (400, 413).

    headers: with names in lower case. body: decompressed. max_images: more are refused with status 413.
    pixels: what the model takes.
    """
    with _no_collection():
        return _read_request(headers, body, max_images, pixels)


def _read_request(
    headers: Mapping[str, str], body: bytes, max_images: int, pixels: PixelFormat
) -> InferRequest:
    length = _header_length(headers.get(HEADER_LENGTH), len(body))
    if length == 0:  # no JSON, nothing but one input: one image file
        return InferRequest((body,), binary=True)
    head = _object(_json_of(body[:length]), "the request")
    name = head.get("id")
    if not isinstance(name, str | None):
        raise _refused(f"id must be a text: {_shown(name)}")
    parameters = _parameters(head, "the request")
    tensors = _objects(head, "inputs")
    rest = b"" if length is None else body[length:]
    images = _read_input(tensors, rest, max_images=max_images, pixels=pixels)
    binary, class_count = _wanted(head, default=_flag(parameters, "binary_data_output", default=False))
    return InferRequest(images, name, binary, class_count)


def infer_response(
    request: InferRequest, probabilities: NDArray[np.floating[Any]], *, model: str, classes: Sequence[str]
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the answer. probabilities: (images, classes)."""
    if request.class_count:
        count = min(request.class_count, len(classes))
        rows = [text for row in probabilities for text in first_classes(row, classes, count)]
        output = _output("BYTES", [len(probabilities), count])
        binary = b"".join(_LENGTH.pack(len(data)) + data for data in map(_encoded, rows))
    else:
        values = np.ascontiguousarray(probabilities, dtype="<f4")
        rows = values.ravel().tolist()
        output = _output("FP32", list(values.shape))
        binary = values.tobytes()
    head: dict[str, Any] = {"model_name": model, "model_version": MODEL_VERSION, "outputs": [output]}
    if request.id is not None:
        head["id"] = request.id
    if not request.binary:
        output["data"] = rows
        return json_bytes(head), {"content-type": "application/json"}
    output["parameters"] = {"binary_data_size": len(binary)}
    start = json_bytes(head)
    return start + binary, {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(start))}


def first_classes(row: NDArray[np.floating[Any]], classes: Sequence[str], count: int) -> list[str]:
    """`value:index:label` of the most probable classes; the first one wins a tie.

    >>> first_classes(np.array([0.25, 0.75]), ["rose", "tulip"], 1)
    ['0.75:1:tulip']
    """
    order = np.argsort(-row, kind="stable")[:count]
    return [f"{_digits(row[i])}:{i}:{classes[i]}" for i in order]


def server_metadata() -> dict[str, Any]:
    return {"name": "saccade", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, artefact: Artefact) -> dict[str, Any]:
    """Inputs and outputs of the model; -1 stands for any size. A request has one of the inputs, not both."""
    takes = artefact.preprocess.pixels
    kind = "RGB pixels" if takes.is_colour else f"pixels, {takes}"
    pixels = {"name": INPUT_NAME, "datatype": datatype_of(takes), "shape": [-1, -1, -1, takes.count]}
    encoded = {"name": ENCODED_NAME, "datatype": "BYTES", "shape": [-1]}
    output = {"name": OUTPUT_NAME, "datatype": "FP32", "shape": [-1, len(artefact.classes)]}
    return {
        "name": name,
        "versions": [MODEL_VERSION],
        "platform": PLATFORM,
        "inputs": [pixels, encoded],
        "outputs": [output],
        "properties": {
            "inputs": f"give one: {INPUT_NAME} (upright {kind}) or {ENCODED_NAME} (contents of image "
            "files; as JSON in base64)",
            "classes": json.dumps(artefact.classes),
            "sha256": artefact.sha256,
            "data_fingerprint": artefact.fingerprint,
            "saccade_version": artefact.version,
        },
    }


def json_bytes(value: Any) -> bytes:
    """JSON in ASCII: a lone half of a UTF-16 pair in a name cannot be written otherwise."""
    return json.dumps(value, separators=(",", ":")).encode()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection meanwhile: JSON makes millions of lists and no circles among them.

    10 MB of empty lists took 2.0 s with it and 0.3 s without, during which nobody else is answered.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def datatype_of(pixels: PixelFormat) -> str:
    """The protocol's name of a pixel's values.

    >>> datatype_of(RGB)
    'UINT8'
    """
    return f"UINT{pixels.bits}"


def _read_input(
    tensors: Sequence[Mapping[str, Any]], rest: bytes, *, max_images: int, pixels: PixelFormat
) -> tuple[Image | bytes, ...]:
    if len(tensors) != 1:
        names = ", ".join(_shown(tensor.get("name")) for tensor in tensors[:3])
        raise _refused(
            f"a request has one input, {INPUT_NAME} or {ENCODED_NAME}; this has {len(tensors)} ({names})"
        )
    tensor = tensors[0]
    name, datatype = tensor.get("name"), tensor.get("datatype")
    datatypes = {INPUT_NAME: (datatype_of(pixels), "BYTES"), ENCODED_NAME: ("BYTES",)}
    if not isinstance(name, str) or name not in datatypes:
        raise _refused(f"unknown input {_shown(name)}: it is {INPUT_NAME} or {ENCODED_NAME}")
    if datatype not in datatypes[name]:
        raise _refused(f"{name} is {' or '.join(datatypes[name])}, not {_shown(datatype)}")
    shape = _shape(tensor, max_images=max_images)
    data = _given_data(tensor, rest)
    if datatype == "BYTES":
        return _encoded_images(data, shape)
    return _pixel_arrays(data, shape, pixels)


def _given_data(tensor: Mapping[str, Any], rest: bytes) -> bytes | list[Any]:
    """The tensor's bytes behind the JSON, or its list in it."""
    parameters = _parameters(tensor, f"the input {tensor['name']}")
    size, data = parameters.get("binary_data_size"), tensor.get("data")
    if size is None and isinstance(data, list) and not rest:
        return data
    if size is None:
        raise _refused("the input has no data" if data is None else "its data must be a list, and all")
    if data is not None:
        raise _refused("the input has data and binary_data_size; give one of them")
    if not _is_whole(size) or size != len(rest):
        raise _refused(f"binary_data_size is {_shown(size)}, but {len(rest)} bytes follow the JSON")
    return rest


def _pixel_arrays(data: bytes | list[Any], shape: tuple[int, ...], pixels: PixelFormat) -> tuple[Image, ...]:
    count = pixels.count
    if len(shape) != 4 or shape[3] != count:
        raise _refused(f"{INPUT_NAME} is (images, height, width, {count}), not {_shown(list(shape))}")
    values = data if isinstance(data, bytes) else _whole_values(_flat(data, shape), pixels)
    size = pixels.dtype.itemsize
    if len(values) != math.prod(shape) * size:
        raise _refused(f"{len(values) / size:g} values do not fit the shape {_shown(list(shape))}")
    return tuple(np.frombuffer(values, pixels.dtype.newbyteorder("<")).reshape(shape))


def _whole_values(values: list[Any], pixels: PixelFormat) -> bytes:
    try:
        return bytes(values) if pixels.bits == 8 else struct.pack(f"<{len(values)}H", *values)
    except (ValueError, TypeError, struct.error):
        kind = datatype_of(pixels)
        raise _refused(f"{kind} data must be whole numbers from 0 to {pixels.largest}") from None


def _encoded_images(data: bytes | list[Any], shape: tuple[int, ...]) -> tuple[bytes, ...]:
    if len(shape) > 2 or shape[1:] not in ((), (1,)):
        raise _refused(f"BYTES images have the shape (images) or (images, 1), not {_shown(list(shape))}")
    if isinstance(data, list):
        files = [_from_base64(text) for text in _flat(data, shape)[: shape[0] + 1]]
    else:
        files = list(_elements(data, most=shape[0] + 1))
    if len(files) != shape[0]:
        raise _refused(f"the shape {_shown(list(shape))} does not fit the number of elements")
    return tuple(files)


def _elements(data: bytes, *, most: int) -> Iterator[bytes]:
    """The elements of a binary BYTES tensor, at most so many."""
    position = 0
    while position < len(data) and most > 0:
        if position + _LENGTH.size > len(data):
            raise _refused("a BYTES element is cut short")
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if position + length > len(data):
            raise _refused(f"a BYTES element of {length} bytes is cut short")
        yield data[position : position + length]
        position += length
        most -= 1


def _from_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise _refused("BYTES in JSON must be image files in base64; or send them as binary data") from None


def _flat(data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Row-major values of a list that is flat, or nested as `shape` says."""
    if list not in set(map(type, data)):  # in C: half a million pixels in 8 ms
        return data
    rows: list[Any] = [data]
    for side in shape:
        if not all(isinstance(row, list) and len(row) == side for row in rows):
            raise _refused(f"the data is nested otherwise than its shape {_shown(list(shape))} says")
        rows = list(chain.from_iterable(rows))
    return rows


def _shape(tensor: Mapping[str, Any], *, max_images: int) -> tuple[int, ...]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not 1 <= len(shape) <= _MOST_DIMENSIONS:
        raise _refused(f"shape must be a list of numbers, got {_shown(shape)}")
    if not all(_is_whole(side) and side > 0 for side in shape):
        raise _refused(f"every side of a shape must be 1 or more, got {_shown(shape)}")
    if shape[0] > max_images:
        raise Refused(
            413, "too_many_images", f"{shape[0]} images, more than this server's limit of {max_images}"
        )
    return tuple(shape)


def _wanted(head: Mapping[str, Any], *, default: bool) -> tuple[bool, int]:
    """Whether the output is to be binary, and how many classes it is to name (0: all probabilities)."""
    outputs = _objects(head, "outputs") if head.get("outputs") is not None else []
    names = [output.get("name") for output in outputs]
    if any(name != OUTPUT_NAME for name in names):
        raise _refused(f"unknown output among {_shown(names)}: it is {OUTPUT_NAME}")
    if len(names) > 1:
        raise _refused(f"the output {OUTPUT_NAME} is asked for {len(names)} times")
    if not outputs:
        return default, 0
    parameters = _parameters(outputs[0], "the output")
    count = parameters.get("classification", 0)
    if not _is_whole(count) or count < 0:
        raise _refused(f"classification must be a number of classes, got {_shown(count)}")
    return _flag(parameters, "binary_data", default=default), count


def _header_length(text: str | None, total: int) -> int | None:
    """How many bytes of the body are JSON; None where the header is not given, and all are."""
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,12}", text.strip(" ")) or int(text) > total:
        raise _refused(f"{HEADER_LENGTH} is {_shown(text)}, but the body has {total} bytes")
    return int(text)


def _json_of(data: bytes) -> Any:
    try:
        return parse_json(data, parse_constant=_refuse_constant)
    except ValueError as error:
        raise _refused(f"the request is not JSON: {str(error)[:100]}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _refused(f"{what} must be a JSON object, got {_shown(value)}")
    return value


def _objects(head: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    values = head.get(key)
    if not isinstance(values, list):
        raise _refused(f"{key} must be a list of tensors, got {_shown(values)}")
    return [_object(value, f"each of {key}") for value in values]


def _parameters(owner: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = owner.get("parameters")
    found = _object({} if parameters is None else parameters, f"parameters of {what}")
    if any(key.startswith("shared_memory") for key in found):
        raise _refused("shared memory is not offered; send the data in the request")
    return found


def _flag(parameters: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise _refused(f"{key} must be true or false, got {_shown(value)}")
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refused(message: str) -> Refused:
    return Refused(400, "bad_request", message)


def _shown(value: Any) -> str:
    """A short, harmless picture of what was sent; what is nested is not entered."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown_alone, value[:_MOST_DIMENSIONS]))}]"
    return _shown_alone(value)


def _shown_alone(value: Any) -> str:
    if isinstance(value, list | dict):
        return "..."
    return ascii(value[:_SHOWN] if isinstance(value, str) else value)[:_SHOWN]


def _output(datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": OUTPUT_NAME, "datatype": datatype, "shape": shape}


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # as in file names


def _digits(value: Any) -> str:
    """The shortest number that gives this float32 again, without an exponent."""
    return str(np.format_float_positional(np.float32(value), unique=True, trim="0"))
