"""Two models on the same images: exact p-values, and honest words."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.errors import DataError
from saccade.evaluation.compare import (
    align,
    changed_sides,
    compare,
    compare_all,
    holm,
    mcnemar,
    mcnemar_by_group,
)
from saccade.evaluation.groups import Groups
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
    assert (result.p_value, result.difference.value) == (1.0, 0)
    assert result.difference.low < 0 < result.difference.high, "20 images cannot rule out that some differ"


def test_other_images_are_refused_where_few_are_the_same():
    with pytest.raises(
        DataError, match=r"3 are the same in all, of 5, 3\nhint: evaluate all on the same data"
    ):
        compare(predictions([True] * 5), predictions([True] * 3))
    assert compare(predictions([True] * 3), predictions([False] * 3)).images == 3, "few, but the same"


def test_the_common_images_are_compared_and_the_others_counted():
    aligned = align([predictions([True] * 10), predictions([True] * 8)])
    assert aligned.left_out == (2, 0)
    assert [len(side) for side in aligned.predictions] == [8, 8]


def test_images_of_other_names_are_the_same_where_their_bytes_are_and_only_there():
    one = predictions([True, False] * 5)
    renamed = replace(one, paths=tuple(f"other/{path}" for path in one.paths))
    contents = [{path: f"sha {i}" for i, path in enumerate(side.paths)} for side in (one, renamed)]
    aligned = align([one, shuffled(renamed, seed=3)], contents)
    assert aligned.predictions[0].paths == aligned.predictions[1].paths == one.paths
    np.testing.assert_array_equal(aligned.predictions[1].probabilities, one.probabilities)
    known = [contents[0], dict.fromkeys(one.paths, "another file of this name")]
    with pytest.raises(DataError, match="0 are the same in all"):
        align([one, one], known)


def test_labels_that_differ_are_named_and_those_of_the_first_count():
    one, other = (predictions([True] * 6, labels=labels) for labels in (["a"] * 6, ["b"] + ["a"] * 5))
    aligned = align([one, other])
    assert aligned.relabelled == ((), ("0000.png",))
    result = compare(one, other)
    assert (result.first_accuracy, result.only_first, result.only_second) == (1.0, 1, 0)


def test_models_that_name_one_label_and_several_are_not_compared():
    one = predictions([True] * 6)
    with pytest.raises(DataError, match="others several"):
        align([one, replace(one, named=one.probabilities > 0.5)])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=1, max_size=40))
def test_by_groups_of_one_image_the_test_is_mcnemars(gain):
    exact = mcnemar(gain.count(1), gain.count(-1))
    assert mcnemar_by_group(np.array(gain), Groups.alone(len(gain))) == pytest.approx(exact, rel=1e-9)


def test_images_that_belong_together_make_a_difference_less_sure():
    first, second = predictions([True] * 40), predictions([False] * 10 + [True] * 30)
    alone = compare(first, second)
    patients = compare(first, second, {f"{i:04}.png": f"patient {i // 5}" for i in range(40)})
    assert alone.p_value < 0.01
    assert patients.p_value == 0.5, "2 patients differ: two coins on one side"
    assert patients.groups == 8
    assert patients.difference.high - patients.difference.low > alone.difference.high - alone.difference.low
    assert "exact McNemar by 8 groups" in patients.in_words("A", "B")


def test_several_comparisons_are_corrected_together():
    assert holm([]) == []
    assert holm([0.04, 0.001, 0.03]) == pytest.approx([0.06, 0.003, 0.06])
    first = predictions([True] * 30)
    others = [predictions([False] * lost + [True] * (30 - lost)) for lost in (6, 6)]
    both = compare_all([first, *others])
    assert compare(first, others[0]).real
    assert [one.real for one in both] == [False, False]
    assert "corrected by Holm for 2 comparisons" in both[0].in_words("A", "B")


def test_images_that_changed_sides_come_most_confident_mistake_first():
    first, second = predictions([True, False, True, True]), predictions([True, True, False, True])
    found = changed_sides(first, second)
    assert [(image.path, image.gained) for image in found] == [("0001.png", True), ("0002.png", False)]
    assert (found[1].label, found[1].first, found[1].second) == ("a", "a", "b")
    assert (found[1].first_confidence, found[1].second_confidence) == (0.9, 0.8)


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
