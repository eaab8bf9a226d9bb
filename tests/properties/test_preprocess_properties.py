"""Sizes and offsets are whole pixels and the square always lies where it must."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import ModelError
from saccade.preprocess import Preprocess

SIDES = st.integers(1, 5000)
PREPROCESS = st.builds(
    Preprocess,
    size=st.integers(1, 600),
    resize=st.sampled_from(["crop", "pad", "squash"]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    crop_fraction=st.floats(0.1, 1),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.01, 1)] * 3),
)


@given(PREPROCESS, SIDES, SIDES)
def test_the_square_lies_inside_for_crop_and_holds_everything_for_pad(
    p: Preprocess, height: int, width: int
) -> None:
    plan = p.geometry(height, width)
    assert plan.height >= 1
    assert plan.width >= 1
    if p.resize == "crop":
        assert 0 <= plan.top <= plan.height - p.size
        assert 0 <= plan.left <= plan.width - p.size
        assert min(plan.height, plan.width) == p.resize_pixels
    elif p.resize == "pad":
        assert 0 <= plan.top <= p.size - plan.height
        assert 0 <= plan.left <= p.size - plan.width
        assert max(plan.height, plan.width) == p.size
    else:
        assert (plan.height, plan.width, plan.top, plan.left) == (p.size, p.size, 0, 0)


@given(PREPROCESS, SIDES, SIDES)
def test_turning_the_image_turns_the_plan(p: Preprocess, height: int, width: int) -> None:
    plan, turned = p.geometry(height, width), p.geometry(width, height)
    assert (plan.height, plan.width, plan.top, plan.left) == (
        turned.width,
        turned.height,
        turned.left,
        turned.top,
    )


@given(PREPROCESS)
def test_a_preprocess_survives_json(p: Preprocess) -> None:
    assert Preprocess.from_json(json.loads(json.dumps(p.as_json()))) == p


def test_what_does_not_hold_is_refused_all_at_once() -> None:
    with pytest.raises(ModelError, match=r"size must be.*resize must be.*every std must be at least 0.001"):
        Preprocess(size=0, resize="stretch", std=(0, 1, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        ({"channels": 5}, 'a number from "2" to "64" as text, got 5'),
        ({"channels": "gray", "bits": 8.0}, "channels have 8 bits, or 16 .* got 8.0"),
        (5, "cannot be read"),
    ],
)
def test_stored_pixels_of_another_kind_are_refused(pixels: object, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Preprocess.from_json({**Preprocess(size=8).as_json(), "pixels": pixels})
    with pytest.raises(ModelError, match="cannot be read"):
        Preprocess.from_json([pixels])  # type: ignore[arg-type]


def test_a_stored_preprocess_with_unknown_keys_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        Preprocess.from_json({**Preprocess(size=8).as_json(), "gamma": 2})
