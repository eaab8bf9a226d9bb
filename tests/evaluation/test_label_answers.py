"""Temperatures and thresholds of labels: right where there is enough to go by, and careful where not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from saccade.answer import sigmoid
from saccade.deciding import NEVER
from saccade.evaluation.label_answers import (
    USUAL_THRESHOLD,
    best_f1_threshold,
    choose_temperatures,
    choose_thresholds,
    precision_threshold,
)


def validation(
    images: int, *, seed: int = 0, sure: tuple[float, ...] = (3.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `sure` times those that would be honest, and labels."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, (images, len(sure)))
    return honest * np.array(sure), rng.random(honest.shape) < sigmoid(honest)


def units(images: int) -> list[str]:
    return [str(number) for number in range(images)]


def test_each_label_has_the_temperature_that_makes_it_honest() -> None:
    logits, truth = validation(2_000)
    chosen = choose_temperatures(logits, truth, units(2_000), ("a", "b"))
    assert chosen.values == pytest.approx((3.0, 1.0), rel=0.15)
    assert not chosen.note


def test_a_label_that_few_images_have_shares_the_temperature_of_all() -> None:
    logits, truth = validation(200, sure=(3.0, 3.0, 3.0))
    truth[:, 2] = False
    truth[:3, 2] = True
    chosen = choose_temperatures(logits, truth, units(200), ("a", "b", "rare"))
    assert chosen.values[2] not in chosen.values[:2]
    assert "rare" in chosen.note
    none = choose_temperatures(logits[:4], truth[:4], units(4), ("a", "b", "rare"))
    assert none.values == (1.0, 1.0, 1.0)  # 12 decisions of 4 images


def test_the_threshold_of_best_f1_is_that_of_trying_all() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        truth = rng.random(40) < 0.3
        truth[0] = True
        found = np.clip(0.3 * truth + rng.random(40) * 0.6, 0, 1).round(2)
        limit = best_f1_threshold(found, truth)
        best = max(f1_score(truth, found >= value) for value in np.unique(found))
        assert f1_score(truth, found >= limit) == pytest.approx(best)


def test_thresholds_that_only_chance_gives_are_not_kept() -> None:
    """One threshold is best for all of these labels; of 40 images each asks for another one."""
    gains, names = [], list("abcdef")
    for seed in range(20):
        logits, truth = validation(40, seed=seed, sure=(1.0,) * 6)
        chosen = choose_thresholds(sigmoid(logits), truth, units(40), names).values
        own = [best_f1_threshold(*column) for column in zip(sigmoid(logits).T, truth.T, strict=True)]
        new, has = validation(2_000, seed=100 + seed, sure=(1.0,) * 6)
        after, before = (
            f1_score(has, sigmoid(new) >= np.array(limits), average="macro") for limits in (chosen, own)
        )
        gains.append(after - before)
    assert np.mean(gains) > 0.005
    few = choose_thresholds(sigmoid(logits)[:4], truth[:4], ["one"] * 4, names)
    assert set(few.values) == {USUAL_THRESHOLD}


def test_a_threshold_moves_where_that_helps() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((300, 2)) < 0.5
    found = np.array([0.2, 0.6]) + 0.2 * truth + rng.normal(0, 0.03, truth.shape)
    chosen = choose_thresholds(found, truth, units(300), ("a", "b"))
    # from 0.5 on, all of b would be named and none of a
    assert chosen.values == pytest.approx((0.3, 0.7), abs=0.05)


def test_wanted_precision_is_reached_by_the_lowest_threshold_or_the_label_is_never_named() -> None:
    found = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    truth = np.array([True, True, False, True, False, False])
    assert precision_threshold(found, truth, 0.75) == pytest.approx(0.55)
    assert precision_threshold(found, truth, 1.0) == pytest.approx(0.75)
    assert precision_threshold(found, ~truth, 0.9) == NEVER
    both = choose_thresholds(
        np.stack([found, found], 1), np.stack([truth, ~truth], 1), units(6), ("a", "b"), precision=0.9
    )
    assert both.values[1] == NEVER
    assert "never named" in both.note
    assert "b" in both.note


@pytest.mark.parametrize(
    ("shown", "groups", "few"),
    [(1, units(40), True), (10, units(40), False), (10, ["copies"] * 10 + units(40)[10:], True)],
)
def test_a_precision_that_few_images_show_is_not_believed(shown: int, groups: list[str], few: bool) -> None:
    """The rare label is right from 0.3 on, in images of which the common one is right from 0.47 on."""
    rare = np.arange(40) < shown
    common = np.linspace(0, 0.975, 40)
    found, truth = np.column_stack([common, np.where(rare, 0.3, 0.02)]), np.column_stack([common > 0.5, rare])
    chosen = choose_thresholds(found, truth, groups, ("common", "rare"), precision=0.9)
    assert chosen.values[1] == (chosen.values[0] if few else pytest.approx(0.16))
    assert ("rare" in chosen.note) == few


def test_a_precision_that_a_handful_of_images_show_is_not_believed_of_any_label() -> None:
    found, truth = np.array([[0.2], [0.1], [0.05]]), np.array([[True], [False], [False]])
    assert choose_thresholds(found, truth, units(3), ("a",), precision=0.9).values == (USUAL_THRESHOLD,)
