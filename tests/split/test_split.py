"""The split as users meet it: what stays together, what is refused, what is said."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from saccade.errors import SplitError
from saccade.records import PARTS, Audit, Dataset, ImageRecord, Pair, Split
from saccade.sources import load_source
from saccade.sources.storage import FolderStorage
from saccade.split import k_folds, read_split_csv, split, verify, write_folds_csv, write_split_csv


def images(label: str, count: int, *, group: str = "", part: str = "", start: int = 0) -> list[ImageRecord]:
    """Distinct pictures of one class."""
    paths = (f"{label}/{i:05d}.jpg" for i in range(start, start + count))
    return [ImageRecord(path, label, part, group, sha256=path, pixel_sha256=path) for path in paths]


def audited(
    records: Iterable[ImageRecord],
    *,
    clusters: Mapping[str, int] | None = None,
    pairs: Iterable[Pair] = (),
    root: Path = Path("photos"),
) -> Audit:
    ordered = tuple(sorted(records, key=lambda record: record.path))
    classes = tuple(sorted({record.label for record in ordered}))
    given = tuple(part for part in PARTS if any(record.part == part for record in ordered))
    dataset = Dataset(root, ordered, classes, FolderStorage(root), given)
    return Audit(dataset, (), tuple(pairs), clusters or {})


def parts(made: Split) -> dict[str, str]:
    return {record.path: record.part for record in made.dataset.used()}


def sizes(made: Split, label: str | None = None) -> tuple[int, ...]:
    found = Counter(r.part for r in made.dataset.used() if label is None or r.label == label)
    return tuple(found[part] for part in PARTS)


def homes(made: Split) -> dict[str, set[str]]:
    """The parts in which each group stands."""
    found: dict[str, set[str]] = {}
    for record in made.dataset.used():
        if record.group:
            found.setdefault(record.group, set()).add(record.part)
    return found


# -- a new split ---------------------------------------------------------------------------------


def test_single_images_meet_every_share_exactly() -> None:
    made = split(audited(images("cat", 60) + images("dog", 200)))
    assert sizes(made, "cat") == (42, 9, 9)
    assert sizes(made, "dog") == (140, 30, 30)
    assert made.reasons == ()
    assert made.promise_kept
    assert not made.made_by_user


def test_rounding_does_not_favour_one_part_over_many_classes() -> None:
    records = [record for k in range(40) for record in images(f"c{k}", 10)]
    made = split(audited(records))
    assert sizes(made) == (280, 60, 60)  # 7 / 1.5 / 1.5 a class


def test_pairs_do_not_favour_one_part_over_many_classes() -> None:
    records = [r for k in range(30) for r in images(f"c{k}", 60)]
    clusters = {r.path: int(r.path[-9:-4]) // 2 + 1000 * int(r.label[1:]) for r in records}
    made = split(audited(records, clusters=clusters))
    assert sizes(made) == (30 * 42, 30 * 9, 30 * 9)  # each class alone can only have 8 and 10


def test_seed_draws_which_images_and_nothing_else_does() -> None:
    records = images("cat", 60) + images("dog", 60)
    first, again, other = (
        split(audited(r), seed=s) for r, s in ((records, 1), (records[::-1], 1), (records, 2))
    )
    assert parts(first) == parts(again)
    assert parts(first) != parts(other)
    assert sizes(first) == sizes(other)


def test_groups_clusters_and_copies_stay_together() -> None:
    records = images("cat", 40) + images("dog", 40)
    records[0:3] = [replace(r, group="patient 7") for r in records[0:3]]
    records[50] = replace(records[50], group="patient 7")  # a group may hold two classes
    records[4] = replace(records[4], sha256=records[10].sha256)
    records[11] = replace(records[11], pixel_sha256=records[12].pixel_sha256)
    clusters = {records[2].path: 5, records[20].path: 5, records[10].path: 6, records[11].path: 6}
    for seed in range(20):
        dataset = split(audited(records, clusters=clusters), seed=seed).dataset
        made = {record.path: record for record in dataset.used()}
        first, second = ([made[records[i].path] for i in of] for of in ((0, 1, 2, 50, 20), (4, 10, 11, 12)))
        assert len({record.part for record in first}) == len({record.part for record in second}) == 1
        assert len({record.unit for record in first}) == len({record.unit for record in second}) == 1
        assert len({record.unit for record in made.values()}) == len(records) - 4 - 3


def test_a_missed_share_is_named_with_the_group_that_causes_it() -> None:
    records = images("x", 50, group="site3") + images("x", 10, start=50) + images("y", 60)
    made = split(audited(records))
    assert made.reasons == (
        "class 'x': 83% in train instead of 70%: group 'site3' holds 50 of its 60 images",
    )
    assert sizes(made, "y") == (42, 9, 9)


def test_a_missed_share_is_named_with_the_copies_that_cause_it() -> None:
    records = images("x", 20)
    made = split(audited(records, clusters={r.path: 1 for r in records[:18]}))
    assert made.reasons == (
        "class 'x': 90% in train instead of 70%: "
        "a set of copies around 'x/00000.jpg' holds 18 of its 20 images",
    )


def test_the_largest_group_is_named_where_groups_are_coarse() -> None:
    # three sites with 20 cats each; dogs stand in the first two only
    records = [r for k in range(3) for r in images("cat", 20, group=f"s{k}", start=20 * k)]
    records += images("dog", 20, group="s0") + images("dog", 20, group="s1", start=20)
    records += images("dog", 1, start=40)
    reasons = split(audited(records)).reasons
    assert reasons[0].startswith("class 'cat': 33% in train instead of 70%: group 's")
    assert reasons[0].endswith("holds 20 of its 60 images")


def test_other_classes_are_named_where_no_group_is_large() -> None:
    rng = random.Random(10)
    records = [
        r
        for s in range(8)
        for k in range(3)
        for r in images(f"c{k}", rng.randint(0, 2), group=f"s{s}", start=9 * s)
    ]
    assert split(audited(records)).reasons == (
        "class 'c1': 50% in train instead of 70%: all its 8 images must stay with images of other classes",
    )


def test_too_few_images_are_the_reason_even_where_groups_hold_other_classes() -> None:
    records = images("cat", 40) + images("rare", 3)
    records = [replace(r, group=f"g{r.path[-9:-4]}") for r in records]
    assert split(audited(records)).reasons == (
        "class 'rare': 33% in train instead of 70%: it has 3 images, too few for these shares",
    )


def test_three_images_give_each_part_one_and_say_so() -> None:
    made = split(audited(images("rare", 3) + images("cat", 40)))
    assert sizes(made, "rare") == (1, 1, 1)
    assert made.reasons == (
        "class 'rare': 33% in train instead of 70%: it has 3 images, too few for these shares",
    )


def test_all_classes_that_are_too_small_are_listed_at_once() -> None:
    records = images("cat", 30) + images("one", 1) + images("two", 2) + images("tied", 40, group="g")
    with pytest.raises(SplitError) as caught:
        split(audited(records))
    text = str(caught.value)
    assert text.startswith("3 of 4 classes cannot have an image in each of train, validation, test: ")
    assert "class 'one' has 1 image;" in text
    assert "class 'two' has 2 images\n" in text
    assert "class 'tied' has 40 images in 1 set that stays together" in text
    assert "--split.test 0" in text


def test_parts_without_a_share_do_not_exist() -> None:
    assert sizes(split(audited(images("cat", 20)), test=0.0)) == (17, 3, 0)
    assert sizes(split(audited(images("cat", 20)), validation=0.0, test=0.25)) == (15, 0, 5)
    assert sizes(split(audited(images("cat", 1)), validation=0.0, test=0.0)) == (1, 0, 0)


@pytest.mark.parametrize(("validation", "test"), [(0.6, 0.5), (-0.1, 0.2), (0.5, 0.5)])
def test_shares_must_leave_something_to_train_on(validation: float, test: float) -> None:
    with pytest.raises(SplitError, match=re.escape(f"got {validation} + {test}\nhint: the rest")):
        split(audited(images("cat", 20)), validation=validation, test=test)


def test_one_picture_with_two_labels_is_refused() -> None:
    records = images("cat", 9) + images("dog", 9)
    records[3] = replace(records[3], pixel_sha256=records[12].pixel_sha256)
    with pytest.raises(SplitError, match=r"'cat/00003.jpg' \(cat\) and 'dog/00003.jpg' \(dog\)"):
        split(audited(records))


def test_a_class_without_usable_images_is_refused() -> None:
    records = images("cat", 20) + [record.set_aside("truncated") for record in images("dog", 2)]
    with pytest.raises(SplitError, match=r"no usable image of 'dog' \(2 set aside\)"):
        split(audited(records))


def test_images_set_aside_get_no_part() -> None:
    records = images("cat", 20)
    records[4] = records[4].set_aside("truncated")
    made = split(audited(records))
    assert sum(sizes(made)) == 19
    assert made.dataset.records[4] == records[4]


@pytest.mark.parametrize("seed", range(2, 8))
def test_a_mixed_problem_that_is_large_still_meets_its_shares(seed: int) -> None:
    # 24 sites x 4 classes, unequal: far too many assignments to try them all
    rng = random.Random(seed)
    records = [
        record
        for site in range(24)
        for k in range(4)
        for record in images(f"c{k}", rng.randint(4, 16), group=f"site{site}", start=100 * site)
    ]
    made = split(audited(records))
    assert made.reasons == ()
    assert all(len(where) == 1 for where in homes(made).values())


def test_tolerance_comes_before_evenness() -> None:
    # by squared deviation alone, 17 / 4 / 8 and 10 / 2 / 7 would be best
    held = [{"a": 5}, {"a": 7, "b": 2}, {"a": 8, "b": 7}, {"a": 3}, {"a": 5, "b": 8}, {"a": 1, "b": 2}]
    records = [
        record
        for site, counts in enumerate(held)
        for label, count in counts.items()
        for record in images(label, count, group=f"site{site}", start=100 * site)
    ]
    made = split(audited(records), validation=0.2, test=0.2)
    assert sorted(sizes(made, "a")[1:]) == [6, 7]
    assert sizes(made, "b")[1:] == (2, 2)


@pytest.mark.slow
def test_sixty_thousand_images_are_divided_to_the_image() -> None:
    records = [r for k in range(100) for r in images(f"c{k:03d}", 600)]
    clusters = {r.path: i // 2 for i, r in enumerate(records) if i % 6 < 2}
    audit = audited(records, clusters=clusters)
    made = split(audit)  # 1.5 s measured
    assert sizes(made) == (42000, 9000, 9000)


# -- planted copies (target D3) --------------------------------------------------------------------


def test_planted_copies_never_cross_whatever_the_seed() -> None:
    originals = images("cat", 100) + images("dog", 100)
    copied = originals[::20]
    copies = [
        replace(r, path=f"copy/{i}.jpg", sha256=f"{i}", pixel_sha256=f"{i}") for i, r in enumerate(copied)
    ]
    clusters = {r.path: i for pair in (copied, copies) for i, r in enumerate(pair)}
    audit = audited(originals + copies, clusters=clusters)
    for seed in range(100):
        made = parts(split(audit, seed=seed))
        assert [made[r.path] for r in copied] == [made[r.path] for r in copies]


# -- a split that the user made --------------------------------------------------------------------


def given(
    cats: tuple[int, int, int] = (40, 10, 10), dogs: tuple[int, int, int] = (40, 10, 10)
) -> list[ImageRecord]:
    records = []
    for label, counts in (("cat", cats), ("dog", dogs)):
        start = 0
        for part, count in zip(PARTS, counts, strict=True):
            records += images(label, count, part=part, start=start)
            start += count
    return records


def in_group(records: list[ImageRecord], name: str, *paths: str) -> list[ImageRecord]:
    return [replace(r, group=name) if r.path in paths else r for r in records]


def test_a_given_split_is_kept() -> None:
    records = given()
    made = split(audited(records), seed=3)
    assert parts(made) == {record.path: record.part for record in records}
    assert made.made_by_user
    assert made.promise_kept
    assert made.reasons == ()


def test_a_validation_part_that_was_not_given_is_taken_out_of_training_and_that_is_said() -> None:
    records = [r for r in given() if r.part != "validation"]
    made = split(audited(records), seed=3)
    count = sum(part == "validation" for part in parts(made).values())
    assert count > 5
    assert made.reasons == (f"no validation part was given: {count} of the training images are it",)


def test_a_group_across_given_parts_is_refused_by_name() -> None:
    records = in_group(given(), "p1", "cat/00000.jpg", "cat/00055.jpg")
    with pytest.raises(SplitError, match=r"(?s)'p1' \(test, train\).*--repair-split.*--allow-leaks"):
        split(audited(records))


def test_leaks_that_are_allowed_break_the_promise_in_the_open() -> None:
    records = in_group(given(), "p1", "cat/00000.jpg", "cat/00055.jpg")
    made = split(audited(records), allow_leaks=True)
    assert made.crossing_groups == ("p1",)
    assert not made.promise_kept
    assert parts(made) == {record.path: record.part for record in records}


def test_near_duplicates_across_given_parts_are_kept_and_listed() -> None:
    leak = Pair("cat/00000.jpg", "cat/00055.jpg", "likely", 0.9, "crop")
    within = Pair("cat/00001.jpg", "cat/00002.jpg", "certain", 0.99, "mirror")
    doubtful = Pair("cat/00003.jpg", "cat/00056.jpg", "look", 0.5, "")
    clusters = {leak.first: 1, leak.second: 1, within.first: 2, within.second: 2}
    made = split(audited(given(), clusters=clusters, pairs=[leak, within, doubtful]))
    assert made.crossing == (leak,)
    assert not made.promise_kept


def test_a_link_that_the_audit_cut_counts_no_more() -> None:
    cut = Pair("cat/00000.jpg", "cat/00055.jpg", "likely", 0.6, "chained")
    clusters = {"cat/00000.jpg": 1, "cat/00001.jpg": 1, "cat/00055.jpg": 2, "cat/00056.jpg": 2}
    assert split(audited(given(), clusters=clusters, pairs=[cut])).crossing == ()


def test_identical_files_across_given_parts_are_listed() -> None:
    records = given()
    records[55] = replace(records[55], sha256=records[0].sha256, pixel_sha256=records[0].pixel_sha256)
    (pair,) = split(audited(records)).crossing
    assert (pair.first, pair.second, pair.band) == ("cat/00000.jpg", records[55].path, "certain")


def test_repair_moves_a_pair_to_the_held_out_part() -> None:
    records = in_group(given(), "p1", "cat/00000.jpg", "cat/00055.jpg")
    made = split(audited(records), repair=True)
    assert made.moved == (("cat/00000.jpg", "train", "test"),)
    assert made.promise_kept
    assert made.reasons == (
        "moved 1 image to keep groups and copies together: 'cat/00000.jpg' (train to test)",
    )


def test_repair_of_a_split_by_image_keeps_the_sizes_of_the_parts() -> None:
    # 20 patients of 6 images, divided by image: nearly every patient is on all sides
    records = [replace(r, group=f"p{int(r.path[-9:-4]) % 20}") for r in given((84, 18, 18), (84, 18, 18))]
    made = split(audited(records), repair=True)
    assert made.promise_kept
    assert all(len(where) == 1 for where in homes(made).values())
    for label in ("cat", "dog"):
        assert sizes(made, label) == (84, 18, 18)
    assert len(made.moved) > 20


def test_repair_leaves_what_does_not_cross() -> None:
    records = in_group(given(), "p1", "cat/00000.jpg", "cat/00055.jpg")
    made = parts(split(audited(records), repair=True))
    assert {p for p, part in made.items() if part != {r.path: r.part for r in records}[p]} == {
        "cat/00000.jpg"
    }


def test_missing_validation_is_taken_from_training_by_group() -> None:
    records = [r for r in given() if r.part != "validation"]
    records = [
        replace(r, group=f"g{int(r.path[-9:-4]) // 2}{r.label}") if r.part == "train" else r for r in records
    ]
    made = split(audited(records))
    assert sizes(made, "cat") == (34, 6, 10)
    assert all(len(where) == 1 for where in homes(made).values())
    assert {p for p, part in parts(made).items() if part == "test"} == {
        r.path for r in records if r.part == "test"
    }


def test_no_test_part_is_invented() -> None:
    made = split(audited([r for r in given() if r.part != "test"]))
    assert sizes(made) == (80, 20, 0)


def test_validation_of_share_zero_is_not_made() -> None:
    made = split(audited([r for r in given() if r.part == "train"]), validation=0.0)
    assert sizes(made) == (80, 0, 0)


def test_blank_rows_train_unless_their_group_stands_elsewhere() -> None:
    records = given() + images("cat", 5, start=900) + images("cat", 2, start=950, group="p9")
    records = in_group(records, "p9", "cat/00055.jpg", "cat/00950.jpg", "cat/00951.jpg")
    made = split(audited(records))
    assert {parts(made)[f"cat/{i:05d}.jpg"] for i in range(900, 905)} == {"train"}
    assert {parts(made)[f"cat/{i:05d}.jpg"] for i in (950, 951)} == {"test"}
    assert made.reasons[0].startswith("7 images without a part: they train, unless")


def test_a_class_without_training_images_is_refused() -> None:
    records = given() + images("owl", 4, part="test")
    with pytest.raises(SplitError, match="no training images of 'owl'"):
        split(audited(records))


def test_a_class_missing_in_a_held_out_part_is_said() -> None:
    made = split(audited(given(dogs=(40, 0, 10))))
    assert made.reasons == ("validation: no image of 'dog' in the given split",)


# -- growing an earlier split ----------------------------------------------------------------------


def test_earlier_parts_are_kept_while_the_data_grow() -> None:
    old = images("cat", 60) + images("dog", 60)
    earlier = parts(split(audited(old), seed=4))
    grown = split(audited(old + images("cat", 60, start=500)), seed=99, fixed=earlier)
    assert {path: parts(grown)[path] for path in earlier} == earlier
    assert sizes(grown, "cat") == (84, 18, 18)
    assert sizes(grown, "dog") == (42, 9, 9)
    assert grown.reasons == ()


def test_new_images_follow_their_group_and_their_copies() -> None:
    old = [replace(r, group=f"p{i % 12}") for i, r in enumerate(images("cat", 60))]
    audit = audited(old)
    earlier = parts(split(audit))
    tested = next(r for r in old if earlier[r.path] == "test")
    new = [*images("cat", 9, start=500, group=tested.group), *images("cat", 1, start=600)]
    clusters = {tested.path: 1, "cat/00600.jpg": 1}
    grown = parts(split(audited(old + new, clusters=clusters), fixed=earlier))
    assert {grown[r.path] for r in new} == {"test"}
    assert {path: grown[path] for path in earlier} == earlier


def test_a_new_image_that_joins_two_parts_draws_both_to_the_held_out_one() -> None:
    old = images("cat", 40)
    earlier = parts(split(audited(old)))
    trained = next(path for path, part in earlier.items() if part == "train")
    tested = next(path for path, part in earlier.items() if part == "test")
    clusters = {trained: 1, tested: 1, "cat/00900.jpg": 1}
    grown = split(audited(old + images("cat", 1, start=900), clusters=clusters), fixed=earlier)
    assert grown.moved == ((trained, "train", "test"),)
    assert {parts(grown)[path] for path in clusters} == {"test"}
    assert grown.promise_kept


def test_images_that_are_gone_are_counted() -> None:
    old = images("cat", 40)
    earlier = parts(split(audited(old)))
    assert split(audited(old[3:]), fixed=earlier).reasons[-1:] == (
        "3 images of the earlier split are no longer in use",
    )


def test_an_earlier_split_with_unknown_parts_is_refused() -> None:
    with pytest.raises(
        SplitError, match="unknown parts 'dev'\nhint: parts are called train, validation, test"
    ):
        split(audited(images("cat", 20)), fixed={"cat/00000.jpg": "dev"})


# -- searching again -------------------------------------------------------------------------------


class HiddenPairs:
    """A second search that knows pairs the first one missed, and finds those that stand apart."""

    descriptor = "by hand"

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs = [Pair(a, b, "likely", 0.8, "second search") for a, b in pairs]
        self.calls = 0

    def __call__(self, part_of: Mapping[str, str]) -> tuple[list[Pair], int]:
        self.calls += 1
        return [pair for pair in self.pairs if part_of[pair.first] != part_of[pair.second]], 2


def test_what_the_second_search_finds_is_joined_until_nothing_crosses() -> None:
    hidden = HiddenPairs(*((f"cat/{i:05d}.jpg", f"cat/{i + 30:05d}.jpg") for i in range(30)))
    audit = audited(images("cat", 60))
    assert hidden(parts(split(audit)))[0]  # the first split does not know them
    made = split(audit, cross_check=hidden)
    assert made.verified["verified_pairs_across"] == 0
    assert made.verified["unresolved"] == 2
    assert made.verified["descriptor"] == "by hand"
    assert made.verified["rounds"] > 1
    assert hidden(parts(made))[0] == []
    assert made.promise_kept


def test_what_the_second_search_finds_in_a_given_split_is_listed_once() -> None:
    hidden = HiddenPairs(("cat/00000.jpg", "cat/00055.jpg"))
    made = split(audited(given()), cross_check=hidden)
    assert made.crossing == tuple(hidden.pairs)
    assert made.verified["verified_pairs_across"] == 1
    assert hidden.calls == 1  # nothing moved, so nothing is searched twice


def test_repair_also_moves_what_the_second_search_finds() -> None:
    made = split(audited(given()), repair=True, cross_check=HiddenPairs(("cat/00000.jpg", "cat/00055.jpg")))
    assert made.moved == (("cat/00000.jpg", "train", "test"),)
    assert made.verified["verified_pairs_across"] == 0


def test_verify_adds_what_was_found_to_what_crosses() -> None:
    made = split(audited(images("cat", 20)))
    pair = Pair("cat/00000.jpg", "cat/00001.jpg", "likely", 0.8)
    checked = verify(made, [pair], 3, descriptor="x")
    assert checked.verified == {"verified_pairs_across": 1, "unresolved": 3, "descriptor": "x"}
    assert not checked.promise_kept


# -- folds -----------------------------------------------------------------------------------------


def test_folds_spread_each_class_and_keep_groups() -> None:
    records = [replace(r, group=f"p{i % 25}") for i, r in enumerate(images("cat", 100))] + images("dog", 50)
    folds = k_folds(audited(records), folds=5)
    tally = Counter((r.label, folds.fold_of[r.path]) for r in records)
    assert all(tally["cat", k] == 20 and tally["dog", k] == 10 for k in range(5))
    by_group = {(r.group, folds.fold_of[r.path]) for r in records if r.group}
    assert len(by_group) == 25
    assert folds.reasons == ()


def test_a_fold_is_a_split_in_which_it_validates() -> None:
    audit = audited(images("cat", 20) + images("dog", 20))
    folds = k_folds(audit, folds=4)
    validated = [
        path for k in range(4) for path, part in parts(folds.split(audit, k)).items() if part == "validation"
    ]
    assert sorted(validated) == sorted(record.path for record in audit.dataset.records)


def test_folds_of_some_images_only() -> None:
    audit = audited(images("cat", 20))
    some = [f"cat/{i:05d}.jpg" for i in range(10)]
    assert sorted(k_folds(audit, folds=2, paths=some).fold_of) == some


def test_a_class_with_fewer_images_than_folds_is_spread_and_named() -> None:
    folds = k_folds(audited(images("cat", 40) + images("rare", 3)), folds=5)
    assert len({fold for path, fold in folds.fold_of.items() if path.startswith("rare")}) == 3
    assert folds.reasons == ()  # one image is within one image of 0.6


def test_folds_that_cannot_be_are_refused() -> None:
    with pytest.raises(SplitError, match="class 'one' has 1 image"):
        k_folds(audited(images("cat", 40) + images("one", 1)), folds=5)
    with pytest.raises(SplitError, match="at most 3 folds"):
        k_folds(audited(images("cat", 3)), folds=5)
    with pytest.raises(SplitError, match="at least 2, got 1"):
        k_folds(audited(images("cat", 3)), folds=1)


# -- files -----------------------------------------------------------------------------------------

ODD_NAMES = ("a,b.png", 'quo"te.png', "line\nbreak.png", "return\rhere.png", " space .png", "häß \udcff.png")


def folder_with_odd_names(make_photos: Callable[..., Path]) -> Path:
    root = make_photos(images=14)
    for name in ODD_NAMES:
        shutil.copy(root / "disc" / "disc_000.png", root / "disc" / name)
    return root


def test_split_csv_is_itself_a_data_set(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    root = folder_with_odd_names(make_photos)
    made = split(Audit(load_source(root), ()))
    write_split_csv(made, tmp_path / "split.csv")
    again = load_source(tmp_path / "split.csv")
    assert len(again.records) == 3 * 14 + len(ODD_NAMES)
    assert {(r.path, r.label, r.part) for r in again.records} == {
        (f"photos/{r.path}", r.label, r.part) for r in made.dataset.records
    }
    assert again.used() == again.records  # every file was found
    kept = split(Audit(again, ()))
    assert parts(kept) == {f"photos/{path}": part for path, part in parts(made).items()}


@pytest.mark.parametrize("place", ["split.csv", "photos/split.csv", "else/where/split.csv"])
def test_split_csv_is_read_back_from_wherever_it_lies(
    make_photos: Callable[..., Path], tmp_path: Path, place: str
) -> None:
    made = split(Audit(load_source(folder_with_odd_names(make_photos)), ()))
    write_split_csv(made, tmp_path / place)
    assert read_split_csv(tmp_path / place, made.dataset) == parts(made)
    assert sizes(split(Audit(load_source(tmp_path / place), ()))) == sizes(made)


def test_split_csv_keeps_groups(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    made = split(Audit(load_source(make_photos(), group_pattern=r"_0*(\d+)\."), ()), seed=1)
    write_split_csv(made, tmp_path / "split.csv")
    assert {r.group for r in load_source(tmp_path / "split.csv").records} == {str(i) for i in range(12)}


def test_a_file_that_is_no_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("name,value\na,1\n")
    with pytest.raises(SplitError, match="no columns path and part"):
        read_split_csv(tmp_path / "other.csv", audited(images("cat", 3), root=tmp_path).dataset)


def test_folds_csv_lists_every_image(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    audit = Audit(load_source(make_photos()), ())
    folds = k_folds(audit, folds=3)
    write_folds_csv(folds, audit, tmp_path / "folds.csv")
    lines = (tmp_path / "folds.csv").read_text().splitlines()
    assert lines[0] == "path,label,fold,group"
    assert lines[1] == f"photos/bar/bar_000.png,bar,{folds.fold_of['bar/bar_000.png']},"
    assert len(lines) == 37
