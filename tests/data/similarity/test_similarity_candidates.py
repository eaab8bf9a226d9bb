"""Searches against exhaustive ones, budgets against a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from saccade.data.similarity import describe_many
from saccade.data.similarity.candidates import (
    SURE_COSINE,
    best_of_pairs,
    build_index,
    find_candidates,
    halves,
    inverted_lists,
    missed_share,
    reranked_index,
)
from saccade.data.similarity.descriptors import symmetry_list
from saccade.data.similarity.verify import starting_fits
from saccade.data.similarity.views import View, all_views, fit_whitening, view_vectors

Pixels = NDArray[np.uint8]


def one_after_another(work, slices) -> None:
    for rows in slices:
        work(rows)


@pytest.fixture(scope="module")
def vectors(photos: list[Pixels]) -> NDArray[np.float16]:
    pictures = describe_many([*photos, *(photo[:, ::-1] for photo in photos[:10])]).thumbnails
    return view_vectors(pictures, all_views(symmetry_list(2)), fit_whitening(pictures), one_after_another)


def pairs_of(candidates, views: tuple[View, ...]) -> set[tuple[int, int, bool]]:
    rows = zip(candidates.like.tolist(), candidates.viewed.tolist(), candidates.view.tolist(), strict=True)
    return {(min(i, j), max(i, j), views[view].symmetry.mirrored) for i, j, view in rows}


def test_mirror_images_are_proposed_as_such(vectors: NDArray[np.float16]) -> None:
    views = all_views(symmetry_list(2))
    found = pairs_of(find_candidates(vectors, views, "whole"), views)
    assert {(i, 40 + i, True) for i in range(10)} <= found
    assert all(i < j for i, j, _ in found)


def test_every_pair_is_proposed_once_for_each_symmetry(vectors: NDArray[np.float16]) -> None:
    views = all_views(symmetry_list(2))
    for kind in ("whole", "quadrant", "band"):
        candidates = find_candidates(vectors, views, kind)
        assert len(pairs_of(candidates, views)) == len(candidates)


def test_only_pairs_with_a_new_image_are_proposed(vectors: NDArray[np.float16]) -> None:
    views = all_views(symmetry_list(2))
    new = np.arange(vectors.shape[1]) >= 40
    found = pairs_of(find_candidates(vectors, views, "whole", new=new), views)
    assert {(i, 40 + i, True) for i in range(10)} <= found
    assert all(j >= 40 for _, j, _ in found)


def test_new_and_old_images_meet_exactly_once() -> None:
    new = np.array([True, False, True, False, False])
    met = [(int(i), int(j)) for asked, among in halves(5, new) for i in asked for j in among]
    assert len(met) == len(set(met)) == 16  # all ordered pairs but those of two old images


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 1), st.integers(0, 99)), max_size=40
    ),
    st.integers(0, 10),
    st.integers(1, 3),
)
def test_the_best_of_each_pair_are_kept(
    rows: list[tuple[int, int, int, int]], allowed: int, each: int
) -> None:
    rows = [row for row in rows if row[0] != row[1]]
    like, viewed, symmetry, level = (
        (np.array(column, np.int64) for column in zip(*rows, strict=True))
        if rows
        else [np.zeros(0, np.int64)] * 4
    )
    cosine = (level / 100).astype(np.float32)
    kept = best_of_pairs(like, viewed, symmetry, cosine, 6, allowed, each=each).tolist()
    by_pair: dict[tuple[int, int, int], list[float]] = {}
    for i, j, turn, level_ in rows:
        by_pair.setdefault((min(i, j), max(i, j), turn), []).append(level_ / 100)
    best = [value for values in by_pair.values() for value in sorted(values, reverse=True)[:each]]
    sure = sum(value >= SURE_COSINE for value in best)
    assert len(kept) == len(set(kept)) == sure + min(allowed, len(best) - sure)
    expected = sorted(best, reverse=True)[: len(kept)]
    assert sorted((cosine[row] for row in kept), reverse=True) == pytest.approx(expected, abs=1e-6)


def random_units(count: int) -> NDArray[np.float16]:
    vectors = np.random.default_rng(0).standard_normal((count, 64)).astype(np.float32)
    vectors[-100:] = vectors[:100] + 0.4 * vectors[-100:]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_what_an_index_misses_is_measured() -> None:
    vectors = random_units(8000)
    exact = build_index(vectors, compressed=False)
    assert missed_share(exact, vectors) == 0
    lists = inverted_lists(vectors)
    assert missed_share(lists, vectors) < 0.1
    lists.nprobe = 1
    assert missed_share(lists, vectors) > 0.1


def test_reranking_puts_what_compressed_codes_found_in_exact_order() -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(1000, 64))
    vectors = np.repeat(centres, 24, axis=0) + 0.7 * rng.normal(size=(24_000, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    assert missed_share(build_index(vectors, compressed=True), vectors) > 0.1
    assert missed_share(reranked_index(vectors), vectors) < 0.01


def test_views_start_where_they_look(vectors: NDArray[np.float16]) -> None:
    views = all_views(symmetry_list(2))
    starts = {(view.part, view.symmetry.mirrored): view.start for view in views}
    corner = np.array([-1, -1, 1], np.float32)
    assert starts["whole", False] @ corner == pytest.approx([-1, -1])
    assert starts["whole", True] @ corner == pytest.approx([1, -1])
    assert starts["top left", False] @ corner == pytest.approx([-1, -1], abs=1e-6)
    assert starts["top left", False] @ np.array([1, 1, 1]) == pytest.approx([0.8, 0.8], abs=1e-6)
    assert starts["bottom right", False] @ corner == pytest.approx([-0.8, -0.8], abs=1e-6)
    assert starts["top right", True] @ corner == pytest.approx([1, -1], abs=1e-6)
    fits = starting_fits(find_candidates(vectors, views, "quadrant"), views)
    assert (np.diff(fits.template) >= 0).all()
