"""Groups against a naive search of connected parts, and the guard against chains."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from saccade.near_duplicates import PairIndices, cluster

COUNT = 12


def link(first: int, second: int, score: float = 10.0, band: str = "likely") -> PairIndices:
    return PairIndices(min(first, second), max(first, second), band, score)  # type: ignore[arg-type]


def reachable(pairs: list[PairIndices], start: int) -> set[int]:
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for pair in pairs:
            if here in (pair.first, pair.second):
                other = pair.first + pair.second - here
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
    return seen


links = st.builds(
    link,
    st.integers(0, COUNT - 1),
    st.integers(0, COUNT - 1),
    st.floats(8, 30),
    st.sampled_from(["certain", "likely", "look"]),
).filter(lambda pair: pair.first != pair.second)


@given(st.lists(links, max_size=20))
def test_labels_are_the_connected_parts(pairs: list[PairIndices]) -> None:
    labels, notes, broken = cluster(COUNT, pairs)
    followed = [pair for pair in pairs if pair.band != "look"]
    for start in range(COUNT):
        assert set(np.flatnonzero(labels == labels[start]).tolist()) == reachable(followed, start)
    assert not notes
    assert not broken


@given(st.lists(links, max_size=40), st.integers(1, 5), st.randoms())
def test_the_guard_breaks_likely_links_only_and_says_so(
    pairs: list[PairIndices], limit: int, shuffler
) -> None:
    labels, notes, broken = cluster(COUNT, pairs, largest_least=limit)
    followed = [pair for pair in pairs if pair.band != "look"]
    for pair in followed:
        assert (labels[pair.first] == labels[pair.second]) == (pair not in broken)
    assert all(pair.band == "likely" for pair in broken)
    large = {frozenset(reachable(followed, i)) for i in range(COUNT) if len(reachable(followed, i)) > limit}
    assert len(notes) == len(large)
    certain = [pair for pair in pairs if pair.band == "certain"]
    for label in set(labels.tolist()):
        members = set(np.flatnonzero(labels == label).tolist())
        held = max(len(reachable(certain, i)) for i in members)
        assert len(members) <= max(limit, held)
    again = pairs.copy()
    shuffler.shuffle(again)
    assert cluster(COUNT, again, largest_least=limit).labels.tolist() == labels.tolist()


def test_a_chain_is_cut_at_its_weakest_link() -> None:
    chain = [link(i, i + 1, score=20 - (i == 5)) for i in range(11)]
    labels, notes, broken = cluster(COUNT, chain, largest_least=6)
    assert labels.tolist() == [0] * 6 + [1] * 6
    assert [(pair.first, pair.second) for pair in broken] == [(5, 6)]
    assert notes == (
        "a chain of 12 images that look alike is more than 6 images; "
        "1 of its weakest links were not followed, its largest part has 6 images",
    )


def test_copies_that_are_certain_stay_together_however_many() -> None:
    star = [link(0, i, score=30, band="certain") for i in range(1, 12)]
    labels, notes, broken = cluster(COUNT, star, largest_least=3)
    assert set(labels.tolist()) == {0}
    assert not broken
    assert "all its links are certain" in notes[0]


def test_the_limit_is_a_share_of_the_images() -> None:
    chain = [link(i, i + 1) for i in range(119)]
    assert not cluster(20_000, chain).broken
    assert cluster(1_000, chain).broken
