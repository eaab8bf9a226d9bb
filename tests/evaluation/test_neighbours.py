"""Nearest images by features, and the sentence that their labels make."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.evaluation import neighbours
from saccade.evaluation.neighbours import are_twins, nearest, what_they_say


def test_nearest_is_what_a_full_comparison_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 3)
    random = np.random.default_rng(0)
    queries, references = (random.normal(size=(n, 5)).astype(np.float32) for n in (7, 20))
    groups = (random.integers(4, size=7), random.integers(4, size=20))
    rows, similarity = nearest(queries, references, 3, groups=groups)
    for i in range(7):
        cosine = references @ queries[i] / np.linalg.norm(references, axis=1) / np.linalg.norm(queries[i])
        cosine[groups[1] == groups[0][i]] = -np.inf
        assert rows[i].tolist() == np.argsort(-cosine)[:3].tolist()
        assert similarity[i] == pytest.approx(np.sort(cosine)[::-1][:3], abs=1e-6)


def test_nearest_of_few_or_empty_features() -> None:
    rows, similarity = nearest(np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32), 3)
    assert (rows.tolist(), similarity.tolist()) == ([[0], [0]], [[0.0], [0.0]])


def test_twins_are_much_nearer_than_usual() -> None:
    usual = np.float32([0.6, 0.7, 0.8])
    assert are_twins(np.float32([0.5, 0.85, 0.9, 1.0]), usual).tolist() == [False, False, True, True]
    assert are_twins(np.float32([0.9, 1.0]), np.ones(3, np.float32)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("labels", "twin", "said"),
    [
        ("bbb", False, "All of them are b: it looks like them. If its label is right, more images of a"),
        ("aaa", False, "All of them are a: the features place it rightly"),
        ("bcc", False, "None of them is a: few training images are like it"),
        ("abb", False, "They are of both classes: a and b lie close together here"),
        ("abc", False, "They are of several classes"),
        ("bbb", True, "The first is nearly the same, labelled b: look at both labels"),
        ("abb", True, "The first is nearly the same and has the same label"),
    ],
)
def test_what_the_labels_say(labels: str, twin: bool, said: str) -> None:
    assert what_they_say("a", "b", [*labels], twin=twin).startswith(said)
