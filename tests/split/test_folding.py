"""Folds of a split: whole groups and near-duplicates, every class in every fold, nothing of the test part."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.errors import SplitError
from saccade.records import Dataset, ImageRecord, Pair, Split
from saccade.split import fold_dataset, with_folds


class Nowhere:
    def read(self, path: str) -> bytes:
        raise AssertionError("folds are made without reading images")


def split_of(records: list[ImageRecord]) -> Split:
    classes = tuple(dict.fromkeys(record.label for record in records))
    return Split(Dataset(Path("."), tuple(records), classes, Nowhere()))


def images(label: str, number: int, **options: str) -> list[ImageRecord]:
    return [
        ImageRecord(f"{label}/{i}.png", label, part="train", sha256=f"{label}{i}", **options)
        for i in range(number)
    ]


def test_each_image_outside_of_the_test_part_is_in_one_fold_and_classes_are_spread() -> None:
    test = [ImageRecord(f"cat/t{i}.png", "cat", part="test") for i in range(3)]
    made = with_folds(split_of([*images("cat", 10), *images("dog", 15), *test]), folds=5, seed=0)
    assert set(made.folds.values()) == {1, 2, 3, 4, 5}
    assert len(made.folds) == 25
    assert not any(path.startswith("cat/t") for path in made.folds)
    for number in range(1, 6):
        held = [path for path, fold in made.folds.items() if fold == number]
        assert sum(path.startswith("cat") for path in held) == 2
        assert sum(path.startswith("dog") for path in held) == 3


def test_groups_and_clusters_stay_in_one_fold() -> None:
    records = [
        ImageRecord(f"{label}/{i}.png", label, part="train", group=f"{label} {i // 3}", cluster="")
        for label in ("cat", "dog")
        for i in range(30)
    ]
    records[0] = ImageRecord("cat/0.png", "cat", part="train", group="cat 0", cluster="7")
    records[35] = ImageRecord("dog/5.png", "dog", part="train", group="dog 1", cluster="7")
    made = with_folds(split_of(records), folds=4, seed=1)
    by_group: dict[str, set[int]] = {}
    for record in records:
        by_group.setdefault(record.group, set()).add(made.folds[record.path])
    assert all(len(folds) == 1 for folds in by_group.values())
    assert made.folds["cat/0.png"] == made.folds["dog/5.png"]


def test_what_a_second_search_finds_across_folds_is_joined() -> None:
    first = with_folds(split_of([*images("cat", 9), *images("dog", 9)]), folds=3, seed=0)
    apart = next(p for p in first.folds if p.startswith("cat") and first.folds[p] != first.folds["cat/0.png"])
    pair = Pair("cat/0.png", apart, "certain", 1.0)
    asked: list[int] = []

    def search(parts: object) -> tuple[list[Pair], int]:
        asked.append(1)
        return ([pair] if parts["cat/0.png"] != parts[apart] else []), 2  # type: ignore[index]

    made = with_folds(split_of([*images("cat", 9), *images("dog", 9)]), folds=3, seed=0, cross_check=search)
    assert len(asked) == 2
    assert made.folds["cat/0.png"] == made.folds[apart]
    clusters = {r.path: r.cluster for r in made.dataset.records}
    assert clusters["cat/0.png"] == clusters[apart] != ""
    assert made.verified == {"pairs_across_folds": 0, "unresolved_across_folds": 2}
    assert made.promise_kept


def test_too_few_images_are_refused_by_name() -> None:
    with pytest.raises(SplitError, match="4 images in 4 sets that stay together cannot fill 5 folds"):
        with_folds(split_of([*images("cat", 2), *images("dog", 2)]), folds=5, seed=0)
    grouped = [*images("cat", 10), *images("dog", 10, group="one")]
    with pytest.raises(SplitError, match="'dog' has 10 images in 1 set that stays together"):
        with_folds(split_of(grouped), folds=5, seed=0)


def test_a_class_with_fewer_images_than_folds_is_named() -> None:
    made = with_folds(split_of([*images("cat", 20), *images("dog", 3)]), folds=5, seed=0)
    assert any("'dog' in 3" in reason for reason in made.reasons)


def test_a_fold_sees_nothing_of_the_test_part() -> None:
    records = [*images("cat", 4), *images("dog", 4), ImageRecord("cat/t.png", "cat", part="test")]
    made = with_folds(split_of(records), folds=2, seed=0)
    dataset = fold_dataset(made.dataset, made.folds, 1)
    assert not dataset.used("test")
    assert len(dataset.used("train")) == len(dataset.used("validation")) == 4
    left = next(record for record in dataset.records if record.path == "cat/t.png")
    assert (left.status, left.note) == ("set_aside", "of the test part, which no fold sees")
