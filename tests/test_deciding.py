"""When a model abstains, and which labels it takes into sets: from metadata, and nothing else believed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade import load
from saccade.artefact import Artefact
from saccade.deciding import NEVER, NO_LIMITS, Deciding
from saccade.errors import ModelError
from saccade.pages.about import describe

CLASSES = ("cat", "dog")


def test_a_class_may_need_more_than_the_others() -> None:
    metadata = {"saccade.asking": {"threshold": 0.6, "by_class": {"dog": 0.9}}}
    deciding = Deciding.of(metadata, CLASSES)
    rows = np.array([[0.7, 0.3], [0.3, 0.7], [0.05, 0.95], [0.55, 0.45], [0.6, 0.4]])
    assert [deciding.abstains(row) for row in rows] == [False, True, False, True, False]


def test_for_other_class_shares_than_the_files_there_are_no_limits(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """They were chosen for the probabilities that the file gives by itself."""
    shares = {"training": [0.5, 0.25, 0.25], "assumed": [0.5, 0.25, 0.25], "logit_adjustment": 0}
    limits = {"asking": {"threshold": 0.9}, "label_sets": {"limits": [0.1]}, "priors": shares}
    metadata = {f"saccade.{key}": json.dumps(value) for key, value in limits.items()}
    path = make_model(tmp_path / "m.onnx", metadata=metadata)
    for given in (None, "training", {"red": 0.25}):
        same = load(path, priors=given)
        assert same.deciding == Deciding((0.9,) * 3, (0.1,))
        assert describe("m", path, same.artefact, None)["asking"] == {"threshold": 0.9}
    with pytest.warns(UserWarning, match="are for other class shares, so no answer is abstained"):
        other = load(path, priors="uniform")
    assert other.deciding == NO_LIMITS
    assert describe("m", path, other.artefact, None)["asking"] is None
    assert pickle.loads(pickle.dumps(other)).deciding == NO_LIMITS


def test_where_nothing_is_recommended_nothing_is_left_to_a_person() -> None:
    none: list[dict[str, Any]] = [{}, {"saccade.asking": None}, {"saccade.asking": {"threshold": None}}]
    for metadata in none:
        assert Deciding.of(metadata, CLASSES) == NO_LIMITS
    assert not NO_LIMITS.abstains(np.array([0.51, 0.49]))
    unreached = Deciding.of({"saccade.asking": {"threshold": NEVER, "by_class": {}}}, CLASSES)
    assert unreached.abstains(np.array([1.0, 0.0]))
    assert not NO_LIMITS.in_set(np.array([1.0, 0.0])).any()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("asking", {"threshold": -0.1}),
        ("asking", {"threshold": "high"}),
        ("asking", {"threshold": True}),
        ("asking", {"threshold": float("nan")}),
        ("asking", {"threshold": 0.5, "by_class": {"blue": [1]}}),
        ("asking", [0.5]),
        ("label_sets", {"limits": [0.1, 0.2]}),
        ("label_sets", {"limits": None}),
    ],
)
def test_a_file_with_other_limits_is_refused(
    make_model: Callable[..., Path], tmp_path: Path, key: str, value: object
) -> None:
    pytest.importorskip("onnx")
    path = make_model(tmp_path / "m.onnx", metadata={f"saccade.{key}": json.dumps(value)})
    with pytest.raises(
        ModelError, match=r"saccade\.asking and saccade\.label_sets are no probabilities|is not JSON"
    ):
        Artefact.open(path)
