"""POST /predict: one image, several, bad ones among them, top_k; /about; what every reply carries."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from saccade.predict import Predictor

Photo = Callable[..., bytes]


def several(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{position}.png", image)) for position, image in enumerate(images)]


def test_an_image_as_body_gives_a_list_sorted_by_score(served: Any, photo: Photo) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        answer = served.client.post("/predict", content=photo("green", kind=kind))
        assert answer.status_code == 200
        entries = answer.json()
        of_image = {"abstained": False, "unfamiliar": None, "unfamiliarity": None}
        assert [entry | of_image == entry and len(entry) == 5 for entry in entries] == [True] * 3
        assert entries[0]["label"] == "green"
        scores = [entry["score"] for entry in entries]
        assert scores == sorted(scores, reverse=True)
        assert abs(sum(scores) - 1) < 1e-5


def test_one_image_as_multipart_is_answered_as_a_body_is(served: Any, photo: Photo) -> None:
    alone = served.client.post("/predict", content=photo("blue")).json()
    assert served.client.post("/predict", files={"file": photo("blue")}).json() == alone


def test_several_images_give_a_list_of_lists_in_order(served: Any, photo: Photo) -> None:
    colours = ["red", "blue", "green", "blue"]
    answer = served.client.post("/predict?top_k=1", files=several(*map(photo, colours)))
    assert [[entry["label"] for entry in entries] for entries in answer.json()] == [[c] for c in colours]


def test_one_bad_image_of_eight_does_not_cost_the_others(served: Any, photo: Photo) -> None:
    images = [photo("red")] * 7
    images.insert(3, photo("red")[:40])
    answer = served.client.post("/predict", files=several(*images))
    assert answer.status_code == 200
    entries = answer.json()
    assert entries[3]["status"] == 400
    assert "PNG" in entries[3]["error"]
    assert [entry[0]["label"] for position, entry in enumerate(entries) if position != 3] == ["red"] * 7


def test_a_single_bad_image_is_400_in_words(served: Any) -> None:
    for body, words in ((b"not an image at all", "not"), (b"", "no image"), (b"\xff\xd8\xff\xe0", "JPEG")):
        answer = served.client.post("/predict", content=body)
        assert answer.status_code == 400, body
        assert words in answer.json()["error"]
    nothing_good = served.client.post("/predict", files=several(b"one", b"two"))
    assert nothing_good.status_code == 400


def test_top_k_is_a_whole_number_of_at_least_one(served: Any, photo: Photo) -> None:
    for text, count in (("1", 1), ("2", 2), ("99", 3)):
        assert len(served.client.post(f"/predict?top_k={text}", content=photo()).json()) == count
    for text in ("0", "-1", "two", "", "1.5", "9" * 30, "\u0664"):
        answer = served.client.post("/predict", params={"top_k": text}, content=photo())
        assert answer.status_code == 400, text
        assert "top_k" in answer.json()["error"]


def test_about_says_what_the_model_is(served: Any) -> None:
    about = served.client.get("/about").json()
    assert about["name"] == "colours"
    assert about["classes"] == ["blue", "green", "red"]
    assert about["sha256"].startswith(about["version"])
    assert about["accuracy"] is None
    assert about["certificate"] is None


def test_every_reply_has_an_id_and_security_headers_and_shows_no_path(served: Any, model_path: Path) -> None:
    for method, path in (("GET", "/about"), ("GET", "/nope"), ("DELETE", "/predict"), ("POST", "/predict")):
        answer = served.client.request(method, path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])
        assert str(model_path.parent) not in answer.text
        assert "server" not in answer.headers
    own = served.client.get("/about", headers={"X-Request-ID": "abc-123"})
    assert own.headers["x-request-id"] == "abc-123"
    evil = served.client.get("/about", headers={"X-Request-ID": "a" * 65})
    assert evil.headers["x-request-id"] != "a" * 65


def test_what_is_not_there_is_404_and_405_as_json(served: Any) -> None:
    assert served.client.get("/v2/repository/index").status_code == 404
    assert served.client.get("/nope").json() == {"error": "not found"}
    assert served.client.get("/predict").status_code == 405
    assert served.client.put("/predict").json() == {"error": "method not allowed"}


def test_hundreds_at_once_get_their_own_answers(
    served: Any, model_path: Path, random_pixels: Callable[[int], Any]
) -> None:
    pixels = [random_pixels(seed) for seed in range(120)]
    expected = Predictor(model_path).predict_proba(pixels)

    async def all_at_once() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=48)
        async with httpx.AsyncClient(base_url=served.url, limits=limits, timeout=20) as client:
            posts = (
                client.post("/predict?top_k=3", content=_png(image), headers={"X-Request-ID": f"n{number}"})
                for number, image in enumerate(pixels)
            )
            return await asyncio.gather(*posts)

    answers = asyncio.run(all_at_once())
    assert len(answers) == 120
    for number, (answer, row) in enumerate(zip(answers, expected, strict=True)):
        assert answer.headers["x-request-id"] == f"n{number}"
        found = {entry["label"]: entry["score"] for entry in answer.json()}
        assert np.abs(np.array([found[name] for name in ("blue", "green", "red")]) - row).max() < 1e-5


def _png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_the_log_is_json_without_content(model_path: Path, serving: Any, photo: Photo) -> None:
    with serving(model_path) as server:
        server.client.post("/predict", content=b"SECRET-CONTENT-OF-AN-IMAGE")
        server.client.post("/predict?top_k=2&password=hunter2", content=photo())
        text = server.log(requests=2)
    lines = [json.loads(line) for line in text.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["path"], line["status"]) for line in requests] == [("/predict", 400), ("/predict", 200)]
    assert requests[0]["reason"] == "bad_image"
    assert "SECRET" not in text
    assert "hunter2" not in text


def test_each_entry_says_whether_the_model_knows(
    serving: Any, make_model: Callable[..., Path], tmp_path: Path, photo: Photo
) -> None:
    from saccade.evaluation.unfamiliar import Unfamiliar, unit_length
    from saccade.preprocess import Preprocess

    metadata = {
        "saccade.asking": json.dumps({"threshold": 0.99, "by_class": {}}),
        "saccade.label_sets": json.dumps({"coverage": 0.9, "limits": [0.05]}),
    }
    seen = (np.array([[250, 5, 5]]) / 255 - Preprocess(8).mean) / Preprocess(8).std
    red = Unfamiliar(unit_length(seen)[0], np.eye(3)[:, :1], 0.5, 30, 30)
    model = make_model(tmp_path / "m.onnx", temperature=1.0, metadata=metadata, unfamiliar=red)
    with serving(model) as started:
        for colour, strange in (("red", False), ("green", True)):
            entries = started.client.post("/predict?top_k=2", content=photo(colour)).json()
            assert [(entry["abstained"], entry["unfamiliar"]) for entry in entries] == [(True, strange)] * 2
            assert (entries[0]["unfamiliarity"] > 1) == strange
            assert entries[0]["in_set"]
        about = started.client.get("/about").json()
        one = started.client.get("/openapi.json").json()["components"]["schemas"]["Predictions"]["anyOf"][0]
    assert (about["asking"]["threshold"], about["label_sets"]["limits"]) == (0.99, [0.05])
    assert set(one["items"]["required"]) == set(entries[0])
