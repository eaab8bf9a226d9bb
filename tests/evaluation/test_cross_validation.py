"""The interval of k folds allows for the images that they share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from saccade.evaluation.cross_validation import folded_metrics, over_folds
from saccade.evaluation.metrics import measure, metrics_from_json
from saccade.records import Predictions


def test_the_interval_is_that_of_nadeau_and_bengio() -> None:
    values = [0.81, 0.78, 0.9, 0.84, 0.86]
    found = over_folds(values)
    spread = math.sqrt((1 / 5 + 0.2 / 0.8) * np.var(values, ddof=1))  # images held out over images learnt
    low, high = stats.t.interval(0.95, df=4, loc=np.mean(values), scale=spread)
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-3), pytest.approx(high, rel=1e-3))
    naive = stats.t.interval(0.95, df=4, loc=np.mean(values), scale=stats.sem(values))
    assert found.high - found.low == pytest.approx(1.5 * (naive[1] - naive[0]), rel=1e-3)


def test_a_share_stays_within_its_bounds_and_a_loss_does_not() -> None:
    assert over_folds([1.0, 0.9]).high == 1.0
    assert over_folds([0.1, 1.2], share=False).low < 0


def predictions(right: int, images: int = 40) -> Predictions:
    labels = tuple("cat" if i % 2 else "dog" for i in range(images))
    values = np.array(
        [[0.8, 0.2] if (label == "cat") == (i < right) else [0.2, 0.8] for i, label in enumerate(labels)]
    )
    return Predictions(tuple(f"{i}.png" for i in range(images)), labels, ("cat", "dog"), values)


def test_folds_json_holds_the_figures_of_all_and_of_each() -> None:
    answered = predictions(right=36)
    fold_of = {path: 1 + i % 4 for i, path in enumerate(answered.paths)}
    found = folded_metrics(answered, fold_of, (1,))
    assert metrics_from_json(found).accuracy.value == measure(answered).accuracy.value == 0.9
    assert [row["images"] for row in found["folds"]] == [10, 10, 10, 10]
    assert np.mean([row["accuracy"] for row in found["folds"]]) == pytest.approx(0.9)
    assert found["over_folds"]["accuracy"]["mean"] == pytest.approx(0.9)


def test_folds_without_a_mistake_are_not_certain() -> None:
    answered = predictions(right=40)
    fold_of = {path: 1 + i % 4 for i, path in enumerate(answered.paths)}
    found = folded_metrics(answered, fold_of, (1,))
    assert found["over_folds"]["accuracy"]["sd"] == 0
    assert found["over_folds"]["accuracy"]["low"] == measure(answered).accuracy.low < 1
