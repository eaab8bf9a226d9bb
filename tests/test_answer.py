"""What becomes of logits: against scipy, and through JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import special

from saccade.answer import Answer
from saccade.errors import ModelError

LOGITS = np.random.default_rng(0).normal(size=(40, 3)) * 5
ANSWERS = [
    Answer(),
    Answer("softmax", (0.7,)),
    Answer("softmax", (1.7,), (0.3, -2.0, 1.1)),
    Answer("sigmoid", (0.5, 1.0, 3.0)),
    Answer("sigmoid", (2.0,), (1.0, 0.0, -1.0)),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_it_is_what_scipy_says(answer: Answer) -> None:
    scaled = LOGITS / np.array(answer.temperatures) + np.array(answer.offsets or 0.0)
    expected = special.softmax(scaled, axis=1) if answer.activation == "softmax" else special.expit(scaled)
    np.testing.assert_allclose(answer.probabilities(LOGITS), expected, rtol=1e-12)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_large_logits_overflow_nothing(activation: str) -> None:
    with np.errstate(over="raise", invalid="raise"):
        found = Answer(activation).probabilities([[1e4, -1e4]])  # type: ignore[arg-type]
    assert found.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_it_survives_json(answer: Answer) -> None:
    assert Answer.from_json(json.loads(json.dumps(answer.as_json()))) == answer


def test_only_one_temperature_before_a_softmax_is_plain() -> None:
    assert [answer.is_plain for answer in ANSWERS] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("softplus",), "the activation must be softmax or sigmoid, got 'softplus'"),
        (("softmax", (0.0,)), "the temperature must be above 0, got 0.0"),
        (("softmax", (1.0, math.nan)), "the temperature must be above 0, got nan"),
        (("softmax", (1.0,), (math.inf,)), "the offset of a class must be a number, got inf"),
        (("softmax", ()), "there must be a temperature"),
    ],
    ids=str,
)
def test_what_gives_no_probabilities_is_refused(values: tuple[object, ...], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Answer(*values)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{}, {"activation": "softmax", "temperatures": 1, "offsets": []}], ids=str)
def test_other_json_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="the stored answer cannot be read"):
        Answer.from_json(values)


def test_numbers_for_other_classes_are_refused() -> None:
    Answer("sigmoid", (1.0, 2.0), (0.5, 0.5)).check_classes(2)
    with pytest.raises(ModelError, match="2 temperatures and 2 offsets do not fit 3 classes"):
        Answer("sigmoid", (1.0, 2.0), (0.5, 0.5)).check_classes(3)
