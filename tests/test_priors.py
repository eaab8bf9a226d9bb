"""Class shares at deployment: read as users give them, and applied as Bayes has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.errors import ModelError, RecipeError
from saccade.priors import Priors, reweighed

CLASSES = ("daisy", "rose", "tulip")
PRIORS = Priors((0.6, 0.3, 0.1), (0.4, 0.4, 0.2), 0.5)


def test_new_shares_are_bayes_rule() -> None:
    """From likelihoods: the posterior under other shares, straight and by way of the ratio."""
    random = np.random.default_rng(0)
    likelihood = random.uniform(size=(50, 3))
    before, after = likelihood * PRIORS.assumed, likelihood * [0.1, 0.1, 0.8]
    expected = after / after.sum(1, keepdims=True)
    found = reweighed(before / before.sum(1, keepdims=True), PRIORS.ratio_to((0.1, 0.1, 0.8)))
    np.testing.assert_allclose(found, expected)


def test_the_shares_that_are_assumed_change_nothing() -> None:
    probabilities = np.array([[0.2, 0.3, 0.5]])
    np.testing.assert_allclose(reweighed(probabilities, PRIORS.ratio_to(PRIORS.assumed)), probabilities)


def test_a_class_that_does_not_occur_is_never_named() -> None:
    ratio = PRIORS.ratio_to((0.5, 0.5, 0.0))
    assert reweighed([[0.1, 0.1, 0.8], [0.0, 0.0, 1.0]], ratio).tolist()[0] == [0.5, 0.5, 0.0]
    rows = reweighed([[0.0, 0.0, 1.0]], ratio)
    assert rows.sum() == pytest.approx(1)
    assert rows[0, 2] == 0


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        ("uniform", (1 / 3, 1 / 3, 1 / 3)),
        ("training", (0.6, 0.3, 0.1)),
        ("daisy=0.2,rose=0.2,tulip=0.6", (0.2, 0.2, 0.6)),
        ("daisy=20, rose=20, tulip=60", (0.2, 0.2, 0.6)),
        ("tulip=0.55", (0.3, 0.15, 0.55)),  # the others share the rest as in training
        ({"tulip": 0.55}, (0.3, 0.15, 0.55)),
        ("daisy=0,rose=1,tulip=1", (0, 0.5, 0.5)),
    ],
    ids=str,
)
def test_shares_as_they_are_given(given: Any, shares: tuple[float, ...]) -> None:
    assert PRIORS.read(given, CLASSES) == pytest.approx(shares)


def test_shares_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"daisy": 1, "rose": 1, "tulip": 2}))
    (tmp_path / "b.csv").write_text("label,share\ndaisy,1\nrose,1\ntulip,2\n")
    for name in ("a.json", "b.csv"):
        assert PRIORS.read(str(tmp_path / name), CLASSES) == (0.25, 0.25, 0.5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("roze=0.5", r"names no class of the model: roze\nhint: did you mean 'rose'\?"),
        ("rose", r"--priors cannot be read: 'rose'\nhint: give uniform, training, NAME=SHARE"),
        ("rose=much", r"the share of rose is no number from 0 up: 'much'"),
        ("rose=-1", r"the share of rose is no number from 0 up: '-1'"),
        ("rose=1,tulip=1", r"leaves nothing for daisy: the shares that are given sum to 2"),
        ("daisy=0,rose=0,tulip=0", r"--priors: all shares are 0"),
        ("none.csv", r"--priors cannot be read: none.csv \(No such file"),
        ({"rose": True}, r"the share of rose is no number"),
    ],
    ids=str,
)
def test_what_gives_no_shares_is_refused(given: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        PRIORS.read(given, CLASSES)


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"rose": "x"}'])
def test_a_file_without_shares_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(RecipeError, match="--priors"):
        PRIORS.read(str(tmp_path / "a.json"), CLASSES)


def test_they_survive_json_and_other_json_is_refused() -> None:
    values = json.loads(json.dumps(PRIORS.as_json()))
    assert Priors.from_json(values, 3) == PRIORS
    for bad in ({}, {**values, "assumed": [1, 0]}, {**values, "training": [0, 0, 0]}, 3):
        with pytest.raises(ModelError, match="stored class shares"):
            Priors.from_json(bad, 3)
