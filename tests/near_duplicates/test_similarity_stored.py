"""The search on disk against the one in memory, on pictures and their edited copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.near_duplicates import Descriptions, PairSearch, cross_check, describe_many, search_pairs
from saccade.near_duplicates.candidates import BUDGETS
from saccade.near_duplicates.stored import let_go, stored_array

Pixels = NDArray[np.uint8]

COPIES = ("smaller", "jpeg", "mirrored", "darker", "corner", "bordered", "text bar")


@pytest.fixture(scope="module")
def pictures(photos: list[Pixels], edited: Callable[[Pixels, str], Pixels]) -> Descriptions:
    """320 images: 40 photos and copies under seven edits, four of them repeated exactly, one blank."""
    copies = [edited(photo, name) for name in COPIES for photo in photos]
    return describe_many([*photos, *copies, *photos[:4], np.full((40, 40, 3), 9, np.uint8)])


def on_disk(descriptions: Descriptions) -> Descriptions:
    thumbnails = stored_array(descriptions.thumbnails.shape, np.uint8)
    thumbnails[:] = descriptions.thumbnails
    let_go(thumbnails)
    return dataclasses.replace(descriptions, thumbnails=thumbnails)


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., PairSearch]:
    """`search_pairs` on disk, in several buckets, partitions and batches."""
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    monkeypatch.setattr("saccade.near_duplicates.stored.IN_MEMORY_IMAGES", 100)
    for name, value in {
        "IN_BUCKET": 10,
        "SAMPLE_PER_BUCKET": 5,
        "PROBES": 12,
        "BLOCK": 100,
        "PAIRS_AT_ONCE": 500,
    }.items():
        monkeypatch.setattr(f"saccade.near_duplicates.buckets.{name}", value)
    monkeypatch.setattr("saccade.near_duplicates.spill.PARTITION_IMAGES", 150)
    return lambda descriptions, **options: search_pairs(on_disk(descriptions), **options)


def joined(search: PairSearch) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in search.pairs if pair.band != "look"}


def test_the_search_on_disk_finds_what_the_one_in_memory_finds(
    pictures: Descriptions, monkeypatch: pytest.MonkeyPatch, stored: Callable[..., PairSearch], tmp_path: Path
) -> None:
    found = stored(pictures, workers=2)
    monkeypatch.setattr("saccade.near_duplicates.stored.IN_MEMORY_IMAGES", 1000)
    monkeypatch.setattr("saccade.near_duplicates.pairs.PATCH_IMAGES", 0)
    exact = search_pairs(pictures)
    wanted = joined(exact)
    assert len(wanted) > 800
    assert len(wanted & joined(found)) >= 0.99 * len(wanted)
    assert len(joined(found) - wanted) <= 0.01 * len(wanted)
    assert [pair for pair in found.pairs if pair.how == "the same picture"] == [
        pair for pair in exact.pairs if pair.how == "the same picture"
    ]
    assert exact.planted is None
    assert found.planted is not None
    assert 20 <= found.planted.found <= found.planted.copies <= 33
    assert not any(path.is_file() for path in tmp_path.rglob("*")), "files stay behind"


def test_threads_change_nothing(pictures: Descriptions, stored: Callable[..., PairSearch]) -> None:
    assert stored(pictures[:160], workers=1) == stored(pictures[:160], workers=2)


def test_new_images_alone_are_searched_on_disk(
    pictures: Descriptions, stored: Callable[..., PairSearch]
) -> None:
    new = np.arange(160) >= 120
    found = joined(stored(pictures[:160], new=new))
    assert found == {(i, j) for i, j in joined(stored(pictures[:160])) if j >= 120}


def test_copies_out_of_reach_are_counted_as_missed(
    pictures: Descriptions, stored: Callable[..., PairSearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, budget in BUDGETS.items():
        monkeypatch.setitem(BUDGETS, kind, dataclasses.replace(budget, floor=0.74))
    found = stored(pictures).planted
    assert found is not None
    assert found.found < found.copies


def test_the_cross_check_on_disk_finds_what_the_one_in_memory_finds(
    pictures: Descriptions, stored: Callable[..., PairSearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [("train", "validation", "test", "train", "")[(i + i // 40) % 5] for i in range(len(pictures))]
    found = cross_check(on_disk(pictures), parts, workers=1)
    monkeypatch.setattr("saccade.near_duplicates.stored.IN_MEMORY_IMAGES", 1000)
    wanted = {(pair.first, pair.second) for pair in cross_check(pictures, parts, workers=1).verified}
    across = {(pair.first, pair.second) for pair in found.verified}
    assert len(wanted) > 200
    assert len(wanted & across) >= 0.97 * len(wanted)
    assert all(parts[i] != parts[j] and parts[i] and parts[j] for i, j in across)
