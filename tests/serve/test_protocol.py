"""The Open Inference Protocol as bytes: what is read, answered, and refused with which status."""

import base64
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient import http as triton

from saccade.preprocess import Preprocess
from saccade.serve.problems import Refused
from saccade.serve.protocol import (
    HEADER_LENGTH,
    InferRequest,
    infer_response,
    model_metadata,
    parse_infer_request,
    server_metadata,
)

CLASSES = ("blue", "green: dark", "größer")
PIXELS = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
FILES = (b"\xff\xd8\xff not utf-8", b"GIF89a")
PROBABILITIES = np.array([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4]], dtype=np.float64)


def parse(body, *, header=None, max_images=8) -> InferRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if header is None else {HEADER_LENGTH: str(header)}
    return parse_infer_request(headers, data, max_images=max_images)


def tensor(**changes):
    made = {"name": "image", "shape": [1, 1, 2, 3], "datatype": "UINT8", "data": [0, 1, 2, 3, 4, 255]}
    return {key: value for key, value in (made | changes).items() if value is not ...}


def asked(*, outputs=None, **changes):
    body = {"inputs": [tensor(**changes)]}
    return body if outputs is None else body | {"outputs": outputs}


def encoded(*files):
    return tensor(name="encoded_image", datatype="BYTES", shape=[len(files)], data=list(files))


def with_binary(head, rest):
    start = json.dumps(head).encode()
    return start + rest, len(start)


# What is read


@pytest.mark.parametrize("data", [[0, 1, 2, 3, 4, 255], [[[[0, 1, 2], [3, 4, 255]]]]], ids=["flat", "nested"])
def test_pixels_in_json(data):
    (image,) = parse(asked(data=data)).images
    assert image.dtype == np.uint8
    assert image.tolist() == [[[0, 1, 2], [3, 4, 255]]]


@pytest.mark.parametrize("name", ["encoded_image", "image"])
@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_image_files_are_base64_in_json(name, shape):
    texts = [base64.b64encode(file).decode() for file in FILES]
    body = {"inputs": [{"name": name, "shape": shape, "datatype": "BYTES", "data": texts}]}
    assert parse(body).images == FILES


def test_a_raw_body_is_one_image_file_and_answered_as_binary():
    assert parse(FILES[0], header=0) == InferRequest((FILES[0],), binary=True)


def test_an_empty_list_of_outputs_means_all():
    request = parse(asked(outputs=[]))
    assert (request.binary, request.class_count) == (False, 0)


@pytest.mark.parametrize(
    ("request_wide", "of_output", "expected"),
    [(None, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_an_output_overrides_the_request_in_binary(request_wide, of_output, expected):
    body = asked(outputs=[{"name": "probabilities"}])
    if request_wide is not None:
        body["parameters"] = {"binary_data_output": request_wide}
    if of_output is not None:
        body["outputs"][0]["parameters"] = {"binary_data": of_output}
    assert parse(body).binary is expected


# Triton's client, which writes and reads these bytes without a server


def triton_request(array, datatype, *, binary, name="image", **options):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body([tensor], **options)
    return parse(body, header=length)


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_pixels_arrive(binary):
    request = triton_request(PIXELS, "UINT8", binary=binary, request_id="42")
    assert np.array_equal(np.stack(request.images), PIXELS)
    assert (request.id, request.binary) == ("42", True)  # its client asks for binary outputs by default


def test_tritons_image_files_arrive():
    request = triton_request(np.array(FILES, dtype=object), "BYTES", binary=True, name="encoded_image")
    assert request.images == FILES


@pytest.mark.parametrize("binary", [True, False])
def test_triton_reads_our_probabilities(binary):
    result = read_by_triton(InferRequest((), "é", binary))
    assert np.array_equal(result.as_numpy("probabilities"), PROBABILITIES.astype(np.float32))
    assert result.get_response()["id"] == "é"


@pytest.mark.parametrize("binary", [True, False])
def test_triton_reads_our_classes(binary):
    rows = read_by_triton(InferRequest((), binary=binary, class_count=2)).as_numpy("probabilities")
    texts = [[item.decode() if binary else item for item in row] for row in rows]
    assert texts == [["0.7:1:green: dark", "0.2:2:größer"], ["0.4:0:blue", "0.4:2:größer"]]


def test_no_more_classes_are_named_than_there_are():
    rows = read_by_triton(InferRequest((), class_count=10**9)).as_numpy("probabilities")
    assert rows.shape == (2, 3)


def read_by_triton(request):
    body, headers = infer_response(request, PROBABILITIES, model="m", classes=CLASSES)
    length = headers.get(HEADER_LENGTH)
    return triton.InferenceServerClient.parse_response_body(body, header_length=length and int(length))


def test_a_request_that_named_no_id_gets_none():
    body, headers = infer_response(InferRequest(()), PROBABILITIES, model="m", classes=CLASSES)
    assert "id" not in json.loads(body)
    assert headers == {"content-type": "application/json"}


def test_metadata():
    artefact = SimpleNamespace(
        classes=CLASSES, sha256="ab", fingerprint="cd", version="0.1.0", preprocess=Preprocess(8)
    )
    found = json.loads(json.dumps(model_metadata("m", artefact)))
    assert found["inputs"][0] == {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
    assert found["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}]
    assert all(isinstance(value, str) for value in found["properties"].values())  # as the protocol has it
    assert server_metadata()["extensions"] == ["binary_tensor_data", "classification"]


# What is refused. Each row: what is wrong, the body, the header, words of the message; the status is 400.

DEEP = b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BINARY = {"name": "image", "shape": [1, 1, 2, 3], "datatype": "UINT8", "parameters": {"binary_data_size": 6}}
BYTES = {"name": "encoded_image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 7}}
PROBABLY = {"name": "probabilities"}
REFUSED = {
    "nothing": (b"", None, "not JSON"),
    "no object": (b"[]", None, "must be a JSON object"),
    "not UTF-8": (b'{"id":"\xff"}', None, "not JSON"),
    "NaN": (b'{"inputs":[NaN]}', None, "NaN is no JSON number"),
    "a number of 5,000 digits": (b'{"inputs":[' + b"9" * 5000 + b"]}", None, "not JSON"),
    "JSON nested 100,000 deep": (DEEP, None, "nested too deeply"),
    "id is no text": (asked() | {"id": 42}, None, "id must be a text"),
    "parameters are a list": (asked() | {"parameters": []}, None, "must be a JSON object"),
    "binary_data_output is no flag": (
        asked() | {"parameters": {"binary_data_output": 1}},
        None,
        "true or false",
    ),
    "no inputs": ({}, None, "inputs must be a list"),
    "an empty list of inputs": ({"inputs": []}, None, "one input"),
    "inputs are no objects": ({"inputs": [1]}, None, "must be a JSON object"),
    "inputs of equal names": ({"inputs": [tensor(), tensor()]}, None, "one input"),
    "both inputs": ({"inputs": [tensor(), encoded("")]}, None, "one input"),
    "unknown input": (asked(name="input0"), None, "unknown input 'input0'"),
    "a name that is a list": (asked(name=["image"]), None, "unknown input"),
    "no name": (asked(name=...), None, "unknown input None"),
    "unknown datatype": (asked(datatype="FP32"), None, "UINT8 or BYTES, not 'FP32'"),
    "no datatype": (asked(datatype=...), None, "UINT8 or BYTES, not None"),
    "pixels as encoded_image": (asked(name="encoded_image"), None, "encoded_image is BYTES"),
    "no shape": (asked(shape=...), None, "shape must be a list"),
    "an empty shape": (asked(shape=[]), None, "shape must be a list"),
    "a shape of a million sides": (asked(shape=[1] * 1_000_000), None, "shape must be a list"),
    "a negative side": (asked(shape=[1, 1, -2, 3]), None, "1 or more"),
    "two negative sides": (asked(shape=[1, -1, -2, 3]), None, "1 or more"),
    "several variable sides": (asked(shape=[1, -1, -1, 3]), None, "1 or more"),
    "a side of 0": (asked(shape=[1, 0, 2, 3], data=[]), None, "1 or more"),
    "a side that is a fraction": (asked(shape=[1, 1.0, 2, 3]), None, "1 or more"),
    "a side that is true": (asked(shape=[True, 1, 2, 3]), None, "1 or more"),
    "sides that overflow 64 bits": (asked(shape=[4, 2**62, 2, 3]), None, "6 values do not fit"),
    "sides whose product wraps to 6": (asked(shape=[1, 2**63 + 1, 2, 3]), None, "6 values do not fit"),
    "three dimensions": (asked(shape=[1, 2, 3]), None, "(images, height, width, 3)"),
    "four channels": (asked(shape=[1, 1, 2, 4]), None, "(images, height, width, 3)"),
    "channels first": (asked(shape=[1, 3, 1, 2]), None, "(images, height, width, 3)"),
    "too many elements": (asked(data=[0] * 7), None, "7 values do not fit"),
    "too few elements": (asked(data=[0] * 5), None, "5 values do not fit"),
    "nested otherwise": (asked(data=[[[[0, 1], [2, 3], [4, 5]]]]), None, "nested otherwise"),
    "ragged": (asked(data=[[[[0, 1, 2], [3, 4]]]]), None, "nested otherwise"),
    "nested deeper": (
        asked(data=[[[[[0], [1], [2]], [[3], [4], [5]]]]]),
        None,
        "whole numbers from 0 to 255",
    ),
    "half nested": (asked(data=[[0, 1, 2, 3, 4], 5]), None, "nested otherwise"),
    "256": (asked(data=[256] * 6), None, "0 to 255"),
    "-1": (asked(data=[-1] * 6), None, "0 to 255"),
    "fractions": (asked(data=[0.5] * 6), None, "0 to 255"),
    "texts": (asked(data=["1"] * 6), None, "0 to 255"),
    "objects": (asked(data=[{}] * 6), None, "0 to 255"),
    "data is a text": (asked(data="000000"), None, "must be a list"),
    "no data": (asked(data=...), None, "no data"),
    "not base64": ({"inputs": [encoded("\u00ff")]}, None, "base64"),
    "base64 of other types": ({"inputs": [encoded(7)]}, None, "base64"),
    "fewer files than the shape says": (
        {"inputs": [encoded("") | {"shape": [2]}]},
        None,
        "number of elements",
    ),
    "files as a table": ({"inputs": [encoded("", "") | {"shape": [1, 2]}]}, None, "(images, 1)"),
    "unknown output": (asked(outputs=[{"name": "logits"}]), None, "unknown output"),
    "an output without name": (asked(outputs=[{}]), None, "unknown output"),
    "duplicate outputs": (asked(outputs=[PROBABLY, PROBABLY]), None, "2 times"),
    "outputs are no list": (asked(outputs=PROBABLY), None, "must be a list"),
    "classification below 0": (
        asked(outputs=[PROBABLY | {"parameters": {"classification": -1}}]),
        *(None, "number of classes"),
    ),
    "classification as a text": (
        asked(outputs=[PROBABLY | {"parameters": {"classification": "3"}}]),
        *(None, "number of classes"),
    ),
    "shared memory for an input": (
        asked(data=..., parameters={"shared_memory_region": "r"}),
        *(None, "shared memory is not offered"),
    ),
    "shared memory for an output": (
        asked(outputs=[PROBABLY | {"parameters": {"shared_memory_region": "r"}}]),
        *(None, "shared memory is not offered"),
    ),
    "binary data without the header": ({"inputs": [BINARY]}, None, "0 bytes follow"),
    "header longer than the body": (asked(), 10**6, "but the body has"),
    "header of 13 digits": (asked(), "9" * 13, "but the body has"),
    "negative header": (asked(), -1, "but the body has"),
    "header that is no number": (asked(), "0x10", "but the body has"),
    "header with a digit that is not ASCII": (asked(), "\u00b2", "but the body has"),
    "header cuts the JSON": (asked(), 10, "not JSON"),
    "raw longer than the shape": (*with_binary({"inputs": [BINARY]}, b"0" * 7), "7 bytes follow"),
    "raw shorter than the shape": (*with_binary({"inputs": [BINARY]}, b"0" * 5), "5 bytes follow"),
    "raw size and shape differ": (
        *with_binary({"inputs": [BINARY | {"shape": [1, 1, 3, 3]}]}, b"0" * 6),
        "6 values do not fit",
    ),
    "raw and data": (*with_binary({"inputs": [BINARY | {"data": [0] * 6}]}, b"0" * 6), "one of them"),
    "raw behind data": (*with_binary(asked(), b"0" * 6), "must be a list, and all"),
    "raw size is a text": (
        *with_binary({"inputs": [BINARY | {"parameters": {"binary_data_size": "6"}}]}, b"0" * 6),
        "'6'",
    ),
    "element length cut short": (
        *with_binary({"inputs": [BYTES]}, b"\1\0\0\0a\0\0"),
        "cut short",
    ),
    "element of 4 GB": (
        *with_binary({"inputs": [BYTES]}, b"\xff" * 4 + b"abc"),
        "cut short",
    ),
    "more elements than the shape says": (
        *with_binary({"inputs": [BYTES | {"parameters": {"binary_data_size": 10}}]}, b"\1\0\0\0a" * 2),
        "number of elements",
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_refused_with_400(row):
    body, header, words = REFUSED[row]
    with pytest.raises(Refused) as caught:
        parse(body, header=header)
    assert words in caught.value.message
    assert caught.value.status == 400
    assert len(caught.value.message) < 700


@pytest.mark.parametrize("row", [asked(shape=[9, 1, 2, 3]), {"inputs": [encoded(*[""] * 9)]}])
def test_too_many_images_are_413(row):
    with pytest.raises(Refused, match="9 images, more than this server's limit of 8") as caught:
        parse(row)
    assert caught.value.status == 413


WORDS = ["image", "UINT8", "BYTES", "probabilities", "inputs", "outputs", "name", "shape", "datatype", "data"]
KEYS = [*WORDS[4:], "parameters", "id", "binary_data_size", "classification"]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(WORDS)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)


def read_and_answered(body, header=None) -> bool:
    """Whether the request was read; where it was, it can be answered, too. Nothing but Refused is raised."""
    try:
        request = parse(body, header=header)
    except Refused:
        return False
    answers = np.full((len(request.images), 3), 1 / 3)
    infer_response(request, answers, model="m", classes=CLASSES)
    return True


@given(JSON, st.binary(max_size=20), st.none() | st.integers(-1, 200))
def test_any_json_is_read_or_refused(value, rest, header):
    read_and_answered(json.dumps(value).encode() + rest, header)


@given(st.data())
def test_a_good_request_with_one_part_replaced_is_read_or_refused(data):
    body = asked(outputs=[{"name": "probabilities", "parameters": {"classification": 2}}])
    assert read_and_answered(body)
    places = [body, body["inputs"][0], body["outputs"][0], body["outputs"][0]["parameters"]]
    place = data.draw(st.sampled_from(places))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    read_and_answered(body)
