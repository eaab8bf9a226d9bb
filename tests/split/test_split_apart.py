"""Groups that a few look-alikes join: divided all the same, the images in between named and set aside."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.errors import SplitError
from saccade.records import PARTS, Audit, Confidence, Dataset, ImageRecord, Pair, Split
from saccade.sources.storage import FolderStorage
from saccade.split import k_folds, split
from saccade.split.atoms import Ties, _set_aside, clusters_left

SHAPES = ("circle", "cross", "square", "triangle")


def drawings(persons: int = 12, each: int = 30) -> list[ImageRecord]:
    """`each` drawings of every shape by every person, who is their group."""
    return [
        ImageRecord(path, shape, "", f"p{person:02d}", sha256=path, pixel_sha256=path)
        for shape in SHAPES
        for person in range(persons)
        for path in (f"{shape}/p{person:02d}-{i:03d}.png" for i in range(each))
    ]


def look_alikes(records: Sequence[ImageRecord], count: int, seed: int = 0) -> list[Pair]:
    """Pairs of drawings of one shape by different persons; the first ones join all persons."""
    rng = random.Random(seed)
    by_person: dict[tuple[str, str], list[str]] = {}
    for record in records:
        by_person.setdefault((record.label, record.group), []).append(record.path)
    persons = sorted({record.group for record in records})
    pairs = []
    for number in range(count):
        first, second = (
            (persons[number], persons[number + 1]) if number + 1 < len(persons) else rng.sample(persons, 2)
        )
        shape = rng.choice(SHAPES)
        ends = sorted((rng.choice(by_person[shape, first]), rng.choice(by_person[shape, second])))
        pairs.append(Pair(*ends, rng.choice(("likely", "certain")), rng.uniform(9.7, 20)))
    return pairs


def clustered(records: Sequence[ImageRecord], pairs: Sequence[Pair]) -> dict[str, int]:
    number = {record.path: i for i, record in enumerate(records)}
    for _ in records:
        before = dict(number)
        for pair in pairs:
            number[pair.first] = number[pair.second] = min(number[pair.first], number[pair.second])
        if number == before:
            break
    sizes = Counter(number.values())
    return {path: label for path, label in number.items() if sizes[label] > 1}


def audited(records: Sequence[ImageRecord], pairs: Sequence[Pair] = ()) -> Audit:
    ordered = tuple(sorted(records, key=lambda record: record.path))
    classes = tuple(sorted({record.label for record in ordered}))
    dataset = Dataset(Path(), ordered, classes, FolderStorage(Path()))
    return Audit(dataset, (), tuple(pairs), clustered(records, pairs))


def aside(made: Split) -> list[ImageRecord]:
    return [record for record in made.dataset.records if not record.used]


def check(made: Split, pairs: Sequence[Pair]) -> None:
    """No group and no pair of images in use stands in two parts; who is set aside has a twin that is used."""
    part = {record.path: record.part for record in made.dataset.used()}
    homes: dict[str, set[str]] = {}
    for record in made.dataset.used():
        homes.setdefault(record.group or record.path, set()).add(record.part)
    assert all(len(found) == 1 for found in homes.values())
    assert all(part[p.first] == part[p.second] for p in pairs if p.first in part and p.second in part)
    twins = [{p.first, p.second} for p in pairs]
    for record in aside(made):
        twin = record.note.split("'")[1]
        assert {record.path, twin} in twins
        assert twin in part
    assert made.promise_kept


def test_sixty_look_alikes_do_not_join_twelve_persons() -> None:
    records = drawings()
    pairs = look_alikes(records, 60)
    made = split(audited(records, pairs))
    check(made, pairs)
    assert 0 < len(aside(made)) <= 60
    for shape in SHAPES:
        found = Counter(record.part for record in made.dataset.used() if record.label == shape)
        assert [round(found[part] / found.total(), 1) for part in PARTS] == pytest.approx(
            [0.7, 0.15, 0.15], abs=0.06
        )


def test_who_is_set_aside_is_named_and_counted() -> None:
    records = drawings(persons=3, each=20)
    pairs = look_alikes(records, 2)
    made = split(audited(records, pairs))
    check(made, pairs)
    (first, *_) = aside(made)
    assert first.part == ""
    assert first.note.startswith("looks like '")
    assert made.reasons[0].startswith(
        f"{len(aside(made))} images were set aside, for near-duplicates in another part"
    )
    assert repr(first.path) in made.reasons[0]


def test_nothing_is_set_aside_where_shares_can_be_kept() -> None:
    records = [replace(record, group="") for record in drawings(persons=3)]
    pairs = [Pair(records[i].path, records[i + 1].path, "likely", 10) for i in range(0, 40, 2)]
    made = split(audited(records, pairs))
    assert aside(made) == []
    assert made.reasons == ()


def test_a_person_in_between_goes_and_not_all_that_look_like_it() -> None:
    records = drawings(persons=4, each=25)
    hub = records[0].path
    others = [record.path for record in records[25:100:25]]
    pairs = [Pair(hub, other, "certain", 15) for other in others]
    made = split(audited(records, pairs))
    check(made, pairs)
    assert [record.path for record in aside(made)] == [hub]


def test_equal_drawings_of_two_persons_are_set_aside_too() -> None:
    records = drawings(persons=3, each=20)
    shared = "one picture"
    same = {records[0].path, records[20].path, records[40].path}
    records = [
        replace(record, sha256=shared, pixel_sha256=shared) if record.path in same else record
        for record in records
    ]
    made = split(audited(records))
    gone = {record.path for record in aside(made)}
    assert len(gone) == 2
    assert gone < same
    assert made.promise_kept


def test_without_groups_a_chain_of_likely_links_is_parted() -> None:
    records = [replace(record, group="") for record in drawings(persons=2, each=30)]
    circles = [record.path for record in records if record.label == "circle"]
    pairs = [Pair(a, b, "certain", 15) for a, b in zip(circles[::20], circles[1::20], strict=True)]
    pairs += [
        Pair(circles[i], circles[i + 1], "likely" if i % 20 == 19 else "certain", 10 if i % 20 == 19 else 15)
        for i in range(len(circles) - 1)
    ]
    made = split(audited(records, pairs))
    check(made, pairs)
    assert 1 <= len(aside(made)) <= 2


def test_folds_are_made_of_groups_that_look_alikes_join() -> None:
    records = drawings(persons=6, each=15)
    pairs = look_alikes(records, 12)
    folds = k_folds(audited(records, pairs), folds=3)
    fold = folds.fold_of
    assert len(fold) >= len(records) - 12
    assert folds.reasons[0].endswith("more") or "set aside" in folds.reasons[0]
    assert all(fold[p.first] == fold[p.second] for p in pairs if p.first in fold and p.second in fold)
    persons = {(record.group, fold[record.path]) for record in records if record.path in fold}
    assert len(persons) == 6


def test_what_looks_alike_all_over_is_refused_with_the_ways_on() -> None:
    records = [replace(record, group="") for record in drawings(persons=1, each=40)]
    pairs = [
        Pair(records[i].path, records[j].path, "certain", 15)
        for i in range(len(records))
        for j in range(i + 1, min(i + 9, len(records)))
    ]
    with pytest.raises(SplitError) as caught:
        split(audited(records, pairs))
    text = str(caught.value)
    assert "class 'circle' has 40 images in 1 set that stays together" in text
    assert "look alike (a fixed camera, one form?)" in text
    for way in ("--no-split.near_duplicates", "--group ", "--group-pattern", "audit-decisions.csv"):
        assert way in text
    assert "--split.test 0" not in text  # one set cannot be divided into two parts either


def test_thousands_of_copies_are_not_gone_through_pair_by_pair() -> None:
    """200 million pairs of 20,000 copies took more than 10 GB."""
    count = 20_000
    records = [ImageRecord(f"{i:05d}.png", "a", sha256="one") for i in range(count)]
    part_of = dict.fromkeys(range(count), "train") | {7: "test"}
    ties = Ties([tuple(range(count))], [])
    assert _set_aside(records, part_of, ties, seed=0, kept=()) == {7: 0}
    audit = audited(records, [])
    left = clusters_left(records, audit, [], {7: 0})
    assert len(left) == count - 1
    assert set(left.values()) == {0}


def test_one_group_is_no_look_alike() -> None:
    records = [replace(record, group="all") for record in drawings(persons=1, each=10)]
    with pytest.raises(SplitError, match="in 1 set that stays together") as caught:
        split(audited(records))
    assert "add independent images" in caught.value.hint
    assert "look alike" not in str(caught.value)


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 12), st.integers(0, 40), st.integers(0, 2**32), st.sampled_from(("likely", "certain")))
def test_groups_and_pairs_never_cross_and_few_are_set_aside(
    persons: int, count: int, seed: int, band: Confidence
) -> None:
    records = drawings(persons=persons, each=12)
    pairs = [replace(pair, band=band) for pair in look_alikes(records, count, seed)]
    try:
        made = split(audited(records, pairs), seed=seed)
    except SplitError:
        assert count > persons  # so many pairs that more than a tenth of a class would have to go
        return
    check(made, pairs)
    assert len(aside(made)) <= count
    assert all(
        sum(record.label == shape for record in aside(made)) <= max(1, 1.2 * persons) for shape in SHAPES
    )
    again = split(audited(records[::-1], pairs[::-1]), seed=seed)
    assert {r.path: r.part for r in again.dataset.records} == {r.path: r.part for r in made.dataset.records}
