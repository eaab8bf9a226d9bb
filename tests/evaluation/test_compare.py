"""Two models on the same images: exact p-values, and honest words."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.errors import DataError
from saccade.evaluation.compare import compare, mcnemar
from saccade.records import Predictions
from saccade.testing.metrics import shuffled


def predictions(right, *, labels=None):
    """Two classes; `right` says per image whether the model gets it right."""
    truth = labels or ["a", "b"] * (len(right) // 2) + ["a"] * (len(right) % 2)
    good = {"a": [0.9, 0.1], "b": [0.2, 0.8]}
    bad = {"a": good["b"], "b": good["a"]}
    rows = [(good if hit else bad)[label] for hit, label in zip(right, truth, strict=True)]
    return Predictions(
        tuple(f"{i:04}.png" for i in range(len(right))), tuple(truth), ("a", "b"), np.array(rows)
    )


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_the_p_value_is_the_two_sided_binomial_test(b, c):
    scipy_stats = pytest.importorskip("scipy.stats")
    expected = scipy_stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)


def test_large_counts_do_not_overflow():
    assert mcnemar(5000, 5000) == 1.0
    assert 0 < mcnemar(3000, 2700) < 1e-3
    assert mcnemar(520, 500) == pytest.approx(2 * sum(comb(1020, k) for k in range(501)) / 2**1020, rel=1e-6)


def test_a_real_difference_is_said_with_points_interval_and_p():
    first, second = predictions([True] * 95 + [False] * 5), predictions([True] * 75 + [False] * 25)
    result = compare(first, second)
    assert (result.only_first, result.only_second) == (20, 0)
    assert result.difference.value == pytest.approx(0.2)
    assert result.difference.low > 0.1
    words = result.in_words("A", "B")
    assert words.startswith("A is better than B by 20.0 points [1")
    assert "p = 1.9e-06 (exact McNemar, 100 images)" in words
    assert compare(second, first).in_words("B", "A").startswith("A is better than B by 20.0 points [1")


def test_a_difference_within_chance_is_not_called_one():
    first = predictions([True] * 88 + [False] * 12)
    second = predictions([True] * 84 + [False] * 10 + [True] * 2 + [False] * 4)
    result = compare(first, second)
    assert not result.real
    assert result.in_words("A", "B").startswith(
        "No real difference shown with 100 images: A 88.0 %, B 86.0 %"
    )


def test_the_order_of_the_images_does_not_matter():
    first, second = predictions([True, False] * 30), predictions([True, True, False] * 20)
    assert compare(first, shuffled(second, seed=1)) == compare(shuffled(first, seed=2), second)


def test_swapping_the_two_mirrors_the_answer():
    first, second = predictions([True, False] * 30), predictions([True, True, False] * 20)
    there, back = compare(first, second), compare(second, first)
    assert there.p_value == back.p_value
    assert there.difference.value == -back.difference.value


def test_a_model_against_itself_shows_nothing():
    result = compare(predictions([True, False] * 10), predictions([True, False] * 10))
    assert (result.p_value, result.difference.low, result.difference.high) == (1.0, 0, 0)


def test_other_images_are_refused_saying_how_they_differ():
    with pytest.raises(DataError, match=r"3 in both, 2 in the first only \(0003.png, ...\)\nhint"):
        compare(predictions([True] * 5), predictions([True] * 3))
    with pytest.raises(DataError, match=r"1 images have another true label .*\(0001.png\)"):
        compare(predictions([True] * 2, labels=["a", "b"]), predictions([True] * 2, labels=["a", "a"]))


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(5, 0), (0, 5), (4, 0), (6, 1), (1, 6), (3, 0), (8, 2)]
)
@pytest.mark.parametrize("images", [20, 100])
def test_no_real_difference_never_stands_beside_an_interval_without_0(only_first, only_second, images):
    first = ["a"] * images
    second = list(first)
    second[:only_first] = ["b"] * only_first
    first[images - only_second :] = ["b"] * only_second
    compared = compare(*(_answers(side) for side in (first, second)))
    words = compared.in_words("one", "two")
    assert compared.real == (compared.p_value < 0.05)
    if not compared.real:
        assert compared.shown.low <= 0 <= compared.shown.high
        assert "No real difference" in words
    else:
        assert compared.shown == compared.difference


def _answers(predicted):
    probabilities = np.array([[0.9, 0.1] if label == "a" else [0.1, 0.9] for label in predicted])
    paths = tuple(f"{i}.png" for i in range(len(predicted)))
    return Predictions(paths, ("a",) * len(predicted), ("a", "b"), probabilities)
