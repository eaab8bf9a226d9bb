"""Which images an epoch visits, and how often those of rare classes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from saccade.transforms.sampling import epoch_order, epoch_visits, expected_visits

TARGETS = [0] * 60 + [1] * 25 + [2] * 5 + [4] * 3  # class 3 has no image


def by_class(visits: list[tuple[int, int]]) -> list[int]:
    return np.bincount([TARGETS[index] for index, _ in visits], minlength=5).tolist()


def test_natural_visits_each_image_once_in_the_order_it_always_had() -> None:
    visits = epoch_visits(TARGETS, "natural", seed=3, epoch=2)
    assert [index for index, _ in visits] == epoch_order(93, seed=3, epoch=2)
    assert {again for _, again in visits} == {0}


def test_balanced_visits_each_class_as_often() -> None:
    for epoch in range(20):
        visits = epoch_visits(TARGETS, "balanced", seed=0, epoch=epoch)
        assert len(visits) == len(TARGETS)
        assert all(abs(number - 93 / 4) <= 1 for number in np.array(by_class(visits))[[0, 1, 2, 4]])
        assert by_class(visits)[3] == 0


@pytest.mark.parametrize("sampling", ["balanced", "square_root"])
def test_on_average_as_often_as_expected(sampling: str) -> None:
    numbers = [by_class(epoch_visits(TARGETS, sampling, seed=1, epoch=epoch)) for epoch in range(400)]
    np.testing.assert_allclose(
        np.mean(numbers, axis=0), expected_visits([60, 25, 5, 0, 3], sampling), atol=0.15
    )


def test_expected_visits_follow_the_square_root() -> None:
    found = expected_visits([64, 16, 4], "square_root")
    assert found / found[2] == pytest.approx([4, 2, 1])
    assert found.sum() == pytest.approx(84)


def test_no_image_is_visited_twice_before_all_of_its_class_were_visited() -> None:
    visits = epoch_visits(TARGETS, "balanced", seed=0, epoch=1)
    often = Counter(index for index, _ in visits)
    for label in (1, 2, 4):
        numbers = [often[index] for index, target in enumerate(TARGETS) if target == label]
        assert max(numbers) - min(numbers) <= 1
    assert len(set(visits)) == len(visits), "each visit has a number of its own, so its own augmentation"


def test_it_is_a_function_of_seed_and_epoch() -> None:
    first, again = (epoch_visits(TARGETS, "balanced", seed=0, epoch=1) for _ in range(2))
    assert first == again
    assert first != epoch_visits(TARGETS, "balanced", seed=0, epoch=2)
    assert first != epoch_visits(TARGETS, "balanced", seed=1, epoch=1)
