"""/v2 over HTTP: what a client is told, that answers are the model's own, and that nothing else is there."""

import gzip
import json
import zlib

import numpy as np
import pytest

from saccade.artefact import Artefact
from saccade.images.decoder import decode
from saccade.serve.protocol import HEADER_LENGTH

MODEL = "/v2/models/colours"


def pixels_request(pixels, **more):
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": list(pixels.shape),
        "data": pixels.ravel().tolist(),
    }
    return {"inputs": [tensor], **more}


def file_request(*files):
    """Files behind JSON, each with its length, as the binary extension has it."""
    rest = b"".join(len(file).to_bytes(4, "little") + file for file in files)
    tensor = {"name": "encoded_image", "datatype": "BYTES", "shape": [len(files)]}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(rest)}}]}).encode()
    return {"content": head + rest, "headers": {HEADER_LENGTH: str(len(head))}}


def probabilities(answer):
    (output,) = answer.json()["outputs"]
    return np.array(output["data"]).reshape(output["shape"])


def test_health_and_metadata(served):
    get = served.client.get
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True, "live": True}
    assert get("/v2").json() == get("/v2/").json()
    assert get(MODEL).json() == get(f"{MODEL}/versions/1").json()
    assert get(MODEL).json()["properties"]["sha256"] == served.server.model.artefact.sha256
    assert (
        get(f"{MODEL}/ready").json()
        == get(f"{MODEL}/versions/1/ready").json()
        == {"name": "colours", "ready": True}
    )


def test_a_server_that_takes_no_requests_is_live_and_not_ready(served, monkeypatch):
    monkeypatch.setattr(served.server, "ready", False)
    assert served.client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", f"{MODEL}/ready"):
        answer = served.client.get(path)
        assert (answer.status_code, answer.json()["ready"]) == (503, False)


def test_pixels_and_files_get_the_answers_of_the_model(served, photo, model_path, random_pixels):
    model = Artefact.open(model_path)
    files = [photo("red"), photo("blue", size=(40, 10))]
    expected = model.probabilities([decode(file).pixels for file in files])
    answer = served.client.post(f"{MODEL}/infer", **file_request(*files))
    assert np.abs(probabilities(answer) - expected).max() < 1e-6
    pixels = np.stack([random_pixels(1), random_pixels(2)])
    answer = served.client.post(f"{MODEL}/versions/1/infer", json=pixels_request(pixels, id="é"))
    assert np.abs(probabilities(answer) - model.probabilities(list(pixels))).max() < 1e-6
    assert answer.json()["id"] == "é"


def test_a_raw_body_is_one_image_file(served, photo):
    answer = served.client.post(f"{MODEL}/infer", content=photo("green"), headers={HEADER_LENGTH: "0"})
    length = int(answer.headers[HEADER_LENGTH])
    values = np.frombuffer(answer.content[length:], "<f4")
    assert served.server.model.classes[values.argmax()] == "green"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_is_unpacked(served, random_pixels, encoding):
    body = json.dumps(pixels_request(random_pixels(1)[None])).encode()
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    answer = served.client.post(f"{MODEL}/infer", content=packed, headers={"content-encoding": encoding})
    assert answer.status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_unpacks_to_more_than_the_limit_is_413(served, encoding):
    body = b" " * 300_001
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    for content in (packed, iter([packed])):  # with its length, and in chunks
        answer = served.client.post(f"{MODEL}/infer", content=content, headers={"content-encoding": encoding})
        assert answer.status_code == 413


REFUSED = {
    "another model": ("/v2/models/colour/infer", {"json": {}}, 404),
    "another version": (f"{MODEL}/versions/2/infer", {"json": {}}, 404),
    "no JSON": (f"{MODEL}/infer", {"content": b"{"}, 400),
    "chunked, and no JSON": (f"{MODEL}/infer", {"content": iter([b"{", b"{"])}, 400),
    "another encoding": (f"{MODEL}/infer", {"content": b"{}", "headers": {"content-encoding": "br"}}, 415),
    "two encodings": (
        f"{MODEL}/infer",
        {"content": b"{}", "headers": {"content-encoding": "gzip, gzip"}},
        415,
    ),
    "chunked, another encoding": (
        f"{MODEL}/infer",
        {"content": iter([b"{}"]), "headers": {"content-encoding": "compress"}},
        415,
    ),
    "not gzip": (f"{MODEL}/infer", {"content": b"{}", "headers": {"content-encoding": "gzip"}}, 400),
    "an image that is none": (f"{MODEL}/infer", file_request(b"\xff\xd8\xff"), 400),
    "an empty file": (f"{MODEL}/infer", file_request(b""), 400),
    "too many files": (f"{MODEL}/infer", file_request(*[b""] * 9), 413),
    "a body above the limit": (f"{MODEL}/infer", {"content": bytes(300_001)}, 413),
}


@pytest.mark.parametrize("row", REFUSED)
def test_refused_with_words_in_json(served, row):
    path, request, status = REFUSED[row]
    answer = served.client.post(path, **request)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def test_an_image_above_the_limit_of_pixels_is_413(served, photo):
    answer = served.client.post(f"{MODEL}/infer", **file_request(photo("red", size=(1001, 1000))))
    assert answer.status_code == 413


def test_one_image_that_is_none_refuses_the_request(served, photo):
    answer = served.client.post(f"{MODEL}/infer", **file_request(photo("red"), b"GIF89a"))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("image 2 of 2: ")


ABSENT = [
    "/v2/repository/index",
    "/v2/repository/models/colours/load",
    "/v2/repository/models/colours/unload",
    "/v2/systemsharedmemory/status",
    "/v2/systemsharedmemory/region/r/register",
    "/v2/cudasharedmemory/region/r/register",
    "/v2/trace/setting",
    "/v2/logging",
    f"{MODEL}/config",
    f"{MODEL}/stats",
    f"{MODEL}/generate",
    f"{MODEL}/versions/1/config",
    f"{MODEL}/infer/",
    "/v2/health",
    "/v2/health/live/",
    "/v2/models/../repository/index",
]


@pytest.mark.parametrize("path", ABSENT)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_loads_or_shares_is_not_there(served, path, method):
    answer = served.client.request(method, served.url + path)
    assert answer.status_code == 404
    assert answer.json() == {"error": "not found"}
