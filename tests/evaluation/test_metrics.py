"""Every figure against scikit-learn, and what must hold for any predictions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from saccade.errors import DataError
from saccade.evaluation.answers import answers
from saccade.evaluation.metric_intervals import RESAMPLED, resampled_figures
from saccade.evaluation.metrics import (
    METRICS,
    measure,
    metrics_as_json,
    metrics_from_json,
)
from saccade.evaluation.shown import shown_figures
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


def same(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12)


@settings(max_examples=25, deadline=None)
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
    assert result.balanced_accuracy == same(recalls)
    assert result.macro_f1 == same(sk.f1_score(truth, chosen, average="macro", zero_division=0))
    assert result.log_loss == same(sk.log_loss(made.label_indices, made.probabilities, labels=indices))
    p, r, f, n = sk.precision_recall_fscore_support(truth, chosen, labels=names, zero_division=0)
    ours = [(row.precision, row.recall, row.f1, row.support) for row in result.per_class]
    assert np.array(ours) == same(np.array([p, r, f, n]).T)
    if len(names) > 2:  # scikit-learn takes two classes for a binary score
        for k, share in [(k, share) for k, share in result.top_k.items() if k < len(names)]:
            expected = sk.top_k_accuracy_score(made.label_indices, made.probabilities, k=k, labels=indices)
            assert share == same(expected)


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_the_other_figures_equal_scikit_learns(made):
    result, truth, chosen = measure(made), list(made.labels), list(made.predicted)
    found, values = result.extra["metrics"], made.probabilities
    for name in ("micro", "weighted"):
        expected = sk.f1_score(truth, chosen, average=name, zero_division=0)
        assert found[f"{name}_f1"] == same(expected), name
    if len({*truth, *chosen}) > 1:  # else there is nothing to agree on
        assert found["cohen_kappa"] == same(sk.cohen_kappa_score(truth, chosen))
        assert found["matthews"] == same(sk.matthews_corrcoef(truth, chosen))
    if len(made.classes) > 2:
        labels = list(range(len(made.classes)))
        expected = sk.brier_score_loss(made.label_indices, values, labels=labels, scale_by_half=False)
        assert found["brier"] == same(expected)
    own = {row.label: np.array(truth) == row.label for row in result.per_class}
    for i, row in enumerate(result.per_class):
        images = own[row.label].sum()
        assert (row.average_precision is None) == (images == 0)
        assert (row.auroc is None) == (images in (0, len(made)))
        if row.average_precision is not None:
            assert row.average_precision == same(sk.average_precision_score(own[row.label], values[:, i]))
        if row.auroc is not None:
            assert row.auroc == same(sk.roc_auc_score(own[row.label], values[:, i]))
    for name in ("average_precision", "auroc"):
        each = [value for row in result.per_class if (value := getattr(row, name)) is not None]
        assert found[f"macro_{name}"] == (same(np.mean(each)) if each else None)


@settings(max_examples=20, deadline=None)
@given(predictions(), st.integers(0, 10**6))
def test_a_resample_has_the_figures_of_images_that_are_there_several_times(made, seed):
    weights = np.random.default_rng(seed).poisson(1, size=len(made))
    weights[0] += 1
    rows = np.repeat(np.arange(len(made)), weights)
    repeated = Predictions(
        tuple(f"{made.paths[i]} {number}" for number, i in enumerate(rows)),
        tuple(made.labels[i] for i in rows),
        made.classes,
        made.probabilities[rows],
    )
    found = resampled_figures(answers(made), weights[None, :].astype(float))
    assert found.keys() == {*RESAMPLED}
    for name, values in found.items():
        assert values[0] == pytest.approx(METRICS[name].of(repeated), abs=1e-12), name


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
        low, high = intervals[name] or (0, np.inf)
        assert (intervals[name] is None) <= (len(made) == 1), name
        assert low - 1e-12 <= getattr(result, name) <= high + 1e-12, name
    for name, value in result.extra["metrics"].items():
        assert (value is None) <= (intervals[name] is None), name
        assert intervals[name] is None or intervals[name][0] - 1e-12 <= value <= intervals[name][1] + 1e-12
    for i, row in enumerate(result.per_class):
        assert (intervals["recall"][i] is None) == (row.support == 0)
        for name in ("precision", "recall", "f1", "average_precision", "auroc"):
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
    plain = {"label", "precision", "recall", "f1", "support"}
    assert values["per_class"][0].keys() == plain | {"average_precision", "auroc"}
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
    assert {"brier", "cohen_kappa", "matthews", "macro_auroc"} < extra["metrics"].keys()


def test_perfect_answers_are_not_certain():
    labels = [name for name in "abcd" for _ in range(25)]
    rows = [(label, [float(label == name) for name in "abcd"]) for label in labels]
    intervals = measure(from_rows(*rows, classes=tuple("abcd"))).extra["intervals"]
    beyond_chance = ("cohen_kappa", "matthews", "macro_average_precision", "macro_auroc")
    for name in ("balanced_accuracy", "macro_f1", "micro_f1", "weighted_f1", *beyond_chance):
        assert 0.94 < intervals[name][0] < 0.98, name
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


def test_metrics_of_many_images_or_classes_come_quickly():
    import time

    for images, classes, seconds in ((5000, 100, 5), (10_000, 10, 2)):  # 1 s and 0.4 s on one quiet core
        made = example_predictions(images, classes, seed=0)
        start = time.process_time()
        measure(made)
        assert time.process_time() - start < seconds, (images, classes)


def test_a_file_of_an_earlier_version_is_read_and_shown_with_what_it_holds():
    values = metrics_as_json(measure(example_predictions(30, 3, seed=0)))
    extra = values["extra"]
    extra["metrics"] = {"brier": extra["metrics"]["brier"]}
    extra["intervals"] = {name: extra["intervals"][name] for name in ("macro_f1", "log_loss", "recall")}
    del extra["groups"]
    for row in values["per_class"]:
        del row["average_precision"], row["auroc"]
    read = metrics_from_json(values)
    assert read.per_class[0].auroc is None
    shown = {row.name: row for row in shown_figures(read)}
    assert [*shown] == [
        *("Accuracy", "Balanced accuracy", "Macro F1", "Log loss", "Brier score", "Calibration error (ECE)")
    ]
    assert shown["Balanced accuracy"].interval is None


def test_every_figure_is_shown_with_its_interval():
    measured = measure(example_predictions(80, 6, seed=0))
    shown = shown_figures(measured)
    assert len(shown) == 13
    assert all(row.interval is not None for row in shown)
    assert {row.value for row in shown} >= {*measured.extra["metrics"].values(), measured.top_k[5]}


def test_what_varies_by_nothing_has_no_interval():
    made = example_predictions(30, 3, seed=0)
    found = measure(made, groups=dict.fromkeys(made.paths, "ann")).extra
    for name in ("log_loss", "brier", "ece"):
        assert found["intervals"][name] is None
    assert found["risk_coverage"]["intervals"] == {"aurc": None, "augrc": None}
    assert set(found["calibration"]["after"]["intervals"].values()) == {None}
    assert all(row["low"] is None for row in found["calibration"]["per_class"])
    assert found["intervals"]["balanced_accuracy"][0] < 0.2 < 0.9 < found["intervals"]["balanced_accuracy"][1]
