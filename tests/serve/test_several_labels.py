"""A model that names several labels: /predict marks them, the page and the API's description know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from saccade.artefact import Artefact
from saccade.deciding import NEVER
from saccade.errors import ModelError
from saccade.predict import Predictor

LIMITS = {"blue": 0.4, "green": 0.9, "red": 0.99}
Photo = Callable[..., bytes]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    pytest.importorskip("onnx")
    return make_model(tmp_path_factory.mktemp("several") / "several.onnx", thresholds=LIMITS)


@pytest.fixture(scope="module")
def several(model: Path, serving: Callable[..., Any]) -> Iterator[Any]:
    with serving(model) as started:
        yield started


def test_every_score_says_whether_its_label_is_named(several: Any, photo: Photo) -> None:
    for colour in LIMITS:
        entries = several.client.post("/predict", content=photo(colour)).json()
        assert all({"label", "score", "named", "abstained", "unfamiliar"} <= set(entry) for entry in entries)
        assert not any(entry["abstained"] for entry in entries)
        scores = [entry["score"] for entry in entries]
        assert scores == sorted(scores, reverse=True)
        assert all(entry["named"] == (entry["score"] >= LIMITS[entry["label"]]) for entry in entries)
    assert len(several.client.post("/predict?top_k=1", content=photo("red")).json()) == 1


def test_the_description_and_about_know_of_it(several: Any) -> None:
    assert several.client.get("/about").json()["thresholds"] == LIMITS
    schemas = several.client.get("/openapi.json").json()["components"]["schemas"]
    one = schemas["Predictions"]["anyOf"][0]["items"]
    assert {"label", "score", "named"} <= set(one["required"])
    assert one["properties"]["named"]["type"] == "boolean"


def test_the_predictor_gives_tuples(model: Path, photo: Photo) -> None:
    predictor = Predictor(model)
    (answer,) = predictor.answers([photo("red")])
    assert predictor.predict([photo("red")]) == [answer.labels]
    assert answer.predicted == ",".join(answer.labels)
    probabilities = dict(zip(predictor.classes, answer.probabilities.tolist(), strict=True))
    assert set(answer.labels) == {name for name, limit in LIMITS.items() if probabilities[name] >= limit}


def test_a_label_that_is_never_named_is_not_even_where_its_probability_is_1(
    make_model: Callable[..., Path], tmp_path: Path, photo: Photo
) -> None:
    limits = {"blue": 0.5, "green": 0.5, "red": NEVER}
    predictor = Predictor(make_model(tmp_path / "never.onnx", thresholds=limits, temperature=0.001))
    (answer,) = predictor.answers([photo("red")])
    assert answer.probabilities[2] == 1
    assert "red" not in answer.labels


@pytest.mark.parametrize("limits", ['{"blue": 2.5}', "[0.5]", '{"blue": "high"}'])
def test_thresholds_that_are_none_are_refused(
    limits: str, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    texts = {"saccade.thresholds": limits}
    path = make_model(tmp_path / "odd.onnx", thresholds=LIMITS, metadata=texts)
    with pytest.raises(ModelError, match="no numbers from 0 to 2"):
        Artefact.open(path)
