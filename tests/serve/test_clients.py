"""Triton's own client, as its users install it, against a server process of its own."""

import io

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from saccade.artefact import Artefact

NAME = "colours"
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 30, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def address(serve_process, model_path):
    with serve_process(model_path, "--name", NAME) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with triton.InferenceServerClient(address) as made:
        yield made


@pytest.fixture(scope="module")
def expected(model_path):
    return Artefact.open(model_path).probabilities(list(PIXELS))


def tensor(array=PIXELS, datatype="UINT8", *, name="image", binary=True):
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_live_ready_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    assert client.is_model_ready(NAME, "1")
    assert not client.is_model_ready("another")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "classification"]
    assert client.get_model_metadata(NAME)["inputs"][0]["shape"] == [-1, -1, -1, 3]


@pytest.mark.parametrize("packing", [None, "gzip", "deflate"])
@pytest.mark.parametrize("answered", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_infer(client, expected, binary, packing, answered):
    result = client.infer(
        NAME,
        [tensor(binary=binary)],
        outputs=[triton.InferRequestedOutput("probabilities", binary_data=binary)],
        request_id="42",
        request_compression_algorithm=packing,
        response_compression_algorithm=answered,
    )
    assert np.abs(result.as_numpy("probabilities") - expected).max() < 1e-6
    assert result.get_response()["id"] == "42"


def test_infer_with_no_wish_but_the_pixels(client, expected):
    result = client.infer(NAME, [tensor()], model_version="1")
    assert np.abs(result.as_numpy("probabilities") - expected).max() < 1e-6


@pytest.mark.parametrize("name", ["encoded_image", "image"])
def test_infer_with_image_files(client, expected, name):
    files = np.array([png(pixels) for pixels in PIXELS], dtype=object)
    result = client.infer(NAME, [tensor(files, "BYTES", name=name)])
    assert np.abs(result.as_numpy("probabilities") - expected).max() < 1e-6


@pytest.mark.parametrize("binary", [True, False])
def test_class_count(client, expected, binary):
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)
    rows = client.infer(NAME, [tensor()], outputs=[wanted]).as_numpy("probabilities")
    assert rows.shape == (2, 3)
    classes = ("blue", "green", "red")
    for row, probabilities in zip(rows, expected, strict=True):
        found = [(text.decode() if binary else text).split(":") for text in row]
        assert [label for *_, label in found] == [classes[i] for i in np.argsort(-probabilities)]
        assert [classes[int(index)] for _, index, _ in found] == [label for *_, label in found]
        assert np.allclose([float(value) for value, *_ in found], -np.sort(-probabilities), atol=1e-6)


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.examples)])
def test_many_at_once_get_each_their_own(address, model_path, count):
    pictures = np.random.default_rng(1).integers(0, 256, (count, 1, 8, 8, 3), dtype=np.uint8)
    expected = Artefact.open(model_path).probabilities(list(pictures[:, 0]))
    with triton.InferenceServerClient(address, concurrency=32) as client:
        asked = [
            client.async_infer(NAME, [tensor(picture)], request_id=str(i))
            for i, picture in enumerate(pictures)
        ]
        answers = [request.get_result() for request in asked]
    assert [answer.get_response()["id"] for answer in answers] == [str(i) for i in range(count)]
    found = np.concatenate([answer.as_numpy("probabilities") for answer in answers])
    assert np.abs(found - expected).max() < 1e-5


def test_what_is_refused_reaches_the_user_in_words(client):
    with pytest.raises(InferenceServerException, match="unknown output") as caught:
        client.infer(NAME, [tensor()], outputs=[triton.InferRequestedOutput("logits")])
    assert caught.value.status() == "400"
    shared = triton.InferInput("image", [1, 8, 8, 3], "UINT8")
    shared.set_shared_memory("region", 192)
    with pytest.raises(InferenceServerException, match="shared memory is not offered"):
        client.infer(NAME, [shared])
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_repository_index()
    assert caught.value.status() == "404"
