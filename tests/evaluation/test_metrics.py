"""Every figure against scikit-learn, and what must hold for any predictions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from saccade.errors import DataError
from saccade.evaluation.metrics import (
    METRICS,
    measure,
    metrics_as_json,
    metrics_from_json,
)
from saccade.records import Predictions
from saccade.testing.metrics import example_predictions, shuffled


@st.composite
def predictions(draw, max_images=60):
    images, classes = draw(st.integers(1, max_images)), draw(st.integers(2, 8))
    return example_predictions(images, classes, seed=draw(st.integers(0, 2**31)))


def from_rows(*rows, classes):
    """(label, probabilities) rows as Predictions."""
    paths = tuple(f"{i}.png" for i in range(len(rows)))
    return Predictions(
        paths, tuple(label for label, _ in rows), classes, np.array([p for _, p in rows], dtype=float)
    )


@settings(max_examples=40, deadline=None)
@given(predictions())
def test_figures_equal_scikit_learns(made):
    result = measure(made, top_k=(1, 2, 3))
    truth, chosen, names = list(made.labels), list(made.predicted), list(made.classes)
    indices = list(range(len(names)))
    assert result.accuracy.value == sk.accuracy_score(truth, chosen)
    assert [list(row) for row in result.confusion] == sk.confusion_matrix(
        truth, chosen, labels=names
    ).tolist()
    recalls = sk.recall_score(truth, chosen, labels=sorted(set(truth)), average="macro", zero_division=0)
    assert result.balanced_accuracy == pytest.approx(recalls)
    assert result.macro_f1 == pytest.approx(sk.f1_score(truth, chosen, average="macro", zero_division=0))
    assert result.log_loss == pytest.approx(
        sk.log_loss(made.label_indices, made.probabilities, labels=indices)
    )
    p, r, f, n = sk.precision_recall_fscore_support(truth, chosen, labels=names, zero_division=0)
    ours = [(row.precision, row.recall, row.f1, row.support) for row in result.per_class]
    assert np.array(ours) == pytest.approx(np.array([p, r, f, n]).T)
    if len(names) > 2:  # scikit-learn takes two classes for a binary score
        for k, share in [(k, share) for k, share in result.top_k.items() if k < len(names)]:
            expected = sk.top_k_accuracy_score(made.label_indices, made.probabilities, k=k, labels=indices)
            assert share == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(predictions(), st.integers(0, 1000))
def test_the_order_of_the_images_changes_nothing(made, seed):
    assert measure(made) == measure(shuffled(made, seed=seed))


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_figures_stay_within_bounds_and_inside_their_intervals(made):
    result = measure(made)
    for name, metric in METRICS.items():
        assert metric.low <= metric.of(made) <= metric.high, name
    assert result.accuracy.low <= result.accuracy.value <= result.accuracy.high
    intervals = result.extra["intervals"]
    for name in ("balanced_accuracy", "macro_f1", "log_loss", "ece"):
        low, high = intervals[name]
        assert low - 1e-12 <= getattr(result, name) <= high + 1e-12, name
    for i, row in enumerate(result.per_class):
        assert (intervals["recall"][i] is None) == (row.support == 0)
        for name in ("precision", "recall", "f1"):
            bounds = intervals[name][i]
            assert bounds is None or bounds[0] <= getattr(row, name) <= bounds[1], name
    assert sum(map(sum, result.confusion)) == result.images == len(made)


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_json_and_back_is_equal(made):
    result = measure(made)
    assert metrics_from_json(json.loads(json.dumps(metrics_as_json(result), allow_nan=False))) == result


def test_json_has_every_key_of_the_design():
    values = metrics_as_json(measure(example_predictions(30, 6, seed=0)))
    expected = {
        "images", "accuracy", "balanced_accuracy", "macro_f1", "top_k", "per_class", "confusion_matrix",
        "log_loss", "ece",
    }  # fmt: skip
    assert expected <= values.keys()
    assert values["accuracy"].keys() == {"value", "low", "high"}
    assert values["top_k"].keys() == {"1", "5"}
    assert values["per_class"][0].keys() == {"label", "precision", "recall", "f1", "support"}
    assert values["confusion_matrix"].keys() == {"labels", "counts"}


def test_top_k_has_only_k_up_to_the_number_of_classes():
    assert measure(example_predictions(30, 3, seed=0)).top_k.keys() == {1}
    assert measure(example_predictions(30, 5, seed=0), top_k=(5, 1, 9, 0)).top_k.keys() == {1, 5}


def test_rows_of_the_confusion_matrix_are_the_true_labels():
    made = from_rows(("cat", [0, 1]), ("cat", [1, 0]), ("dog", [0, 1]), classes=("cat", "dog"))
    assert measure(made).confusion == ((1, 1), (0, 1))


def test_a_class_that_is_never_predicted_has_precision_0_and_is_named():
    made = from_rows(("a", [0.9, 0.1, 0]), ("b", [0.8, 0.2, 0]), classes=("a", "b", "absent"))
    result = measure(made)
    assert (result.per_class[1].precision, result.per_class[1].f1) == (0, 0)
    assert result.extra["never_predicted"] == ["b"]
    assert result.balanced_accuracy == 0.5  # the absent class has no recall and does not count
    assert result.macro_f1 == pytest.approx((2 / 3 + 0) / 2)


def test_a_tie_goes_to_the_earlier_class_in_every_figure():
    made = from_rows(("a", [0.5, 0.5]), ("b", [0.5, 0.5]), classes=("a", "b"))
    result = measure(made)
    assert result.accuracy.value == 0.5
    assert result.top_k[1] == 0.5


def test_mixed_up_pairs_and_the_baseline_are_told():
    made = from_rows(
        ("a", [0, 1]), ("a", [0, 1]), ("b", [1, 0]), ("b", [0, 1]), ("b", [0, 1]), classes=("a", "b")
    )
    extra = measure(made).extra
    assert extra["confused_pairs"][0] == {"true": "a", "predicted": "b", "images": 2}
    assert extra["majority_baseline"] == {"label": "b", "accuracy": 0.6}
    assert extra["metrics"].keys() == {"brier"}


def test_perfect_answers_are_not_certain():
    labels = [name for name in "abcd" for _ in range(25)]
    rows = [(label, [float(label == name) for name in "abcd"]) for label in labels]
    intervals = measure(from_rows(*rows, classes=tuple("abcd"))).extra["intervals"]
    for name in ("balanced_accuracy", "macro_f1"):
        assert 0.95 < intervals[name][0] < 0.98
        assert intervals[name][1] == 1
    assert all(0.8 < low < 0.95 for name in ("precision", "recall", "f1") for low, _ in intervals[name])


def test_what_cannot_be_measured_is_refused_with_words():
    empty = Predictions((), (), ("a", "b"), np.zeros((0, 2)))
    with pytest.raises(DataError, match="no image to measure on"):
        measure(empty)
    with pytest.raises(DataError, match=r"label of 2 images \(no label, 'c'\)"):
        measure(from_rows(("c", [1, 0]), ("", [1, 0]), classes=("a", "b")))
    with pytest.raises(DataError, match=r"between 0 and 1, those of 1\.png do not"):
        measure(from_rows(("a", [1, 0]), ("b", [np.nan, 0]), classes=("a", "b")))
    with pytest.raises(DataError, match="not saccade metrics"):
        metrics_from_json({"images": 3})


def test_metrics_of_5000_images_in_a_hundred_classes_come_quickly():
    import time

    made = example_predictions(5000, 100, seed=0)
    start = time.perf_counter()
    measure(made)
    assert time.perf_counter() - start < 5
