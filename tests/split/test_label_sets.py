"""A split of images with several labels: shares of every label met, nothing that belongs together divided."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.errors import SplitError
from saccade.label_sets import join_labels
from saccade.records import Audit, Dataset, ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.split import k_folds, split

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def audited(images: int, labels: int = 8, *, groups: int = 0, seed: int = 0) -> Audit:
    """Labels of very different frequency, of which an image has any number."""
    rng = np.random.default_rng(seed)
    names = [f"label {number}" for number in range(labels)]
    often = 0.6 / np.arange(1, labels + 1)
    records = []
    for number in range(images):
        held = [name for name, share in zip(names, often, strict=True) if rng.random() < share]
        group = str(rng.integers(groups)) if groups else ""
        records.append(ImageRecord(f"{number:05d}.jpg", join_labels(held), group=group, several=True))
    storage = FolderStorage(Path())
    return Audit(Dataset(Path(), tuple(records), tuple(names), storage, multi_label=True), ())


def off(audit: Audit, made: Dataset) -> tuple[float, float]:
    """Largest distance of a label, and of all images, from the wanted number of images of a part."""
    totals, count = audit.dataset.counts(), len(audit.dataset.records)
    of_labels = max(
        abs(made.counts(part)[label] - share * totals[label])
        for part, share in SHARES.items()
        for label in totals
    )
    return of_labels, max(abs(len(made.used(part)) - share * count) for part, share in SHARES.items())


@pytest.mark.parametrize(("images", "labels"), [(200, 6), (400, 12), (2_000, 12)])
def test_the_shares_of_every_label_are_met_to_an_image(images: int, labels: int) -> None:
    audit = audited(images, labels)
    made = split(audit)
    assert not made.reasons
    of_labels, of_images = off(audit, made.dataset)
    assert of_labels <= 1
    assert of_images <= 1


def test_images_without_labels_are_spread_as_well() -> None:
    made = split(audited(400)).dataset
    none = Counter(record.part for record in made.records if not record.labels)
    total = sum(none.values())
    assert total > 50
    assert all(abs(none[part] - share * total) <= 3 for part, share in SHARES.items())


def test_groups_stay_whole_and_shares_are_nearly_met() -> None:
    audit = audited(600, 8, groups=120)
    made = split(audit)
    parts: dict[str, set[str]] = {}
    for record in made.dataset.used():
        parts.setdefault(record.group, set()).add(record.part)
    assert all(len(of) == 1 for of in parts.values())
    assert off(audit, made.dataset)[0] <= 6


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_everything_has_one_part_and_the_same_seed_the_same(seed: int) -> None:
    audit = audited(60, 3, groups=20 * (seed % 2), seed=seed)
    try:
        made = split(audit, seed=seed)
    except SplitError:
        return  # a label with too few images or groups
    assert {record.part for record in made.dataset.records} <= SHARES.keys()
    assert made.dataset == split(audit, seed=seed).dataset


def test_a_label_with_too_few_images_is_named_but_not_the_empty_set() -> None:
    audit = audited(40, 2)
    few = [ImageRecord("z.jpg", "label 0,only one", several=True), ImageRecord("zz.jpg", "", several=True)]
    records = (*(r for r in audit.dataset.records if r.labels), *few)
    dataset = Dataset(
        Path(), records, ("label 0", "label 1", "only one"), FolderStorage(Path()), multi_label=True
    )
    with pytest.raises(SplitError, match=r"1 of 5 classes cannot.*'only one' has 1 image"):
        split(Audit(dataset, ()))


def test_folds_hold_every_label_alike() -> None:
    audit = audited(300, 6)
    folds = k_folds(audit, folds=5)
    held = {path: set(record.labels) for record in audit.dataset.records for path in [record.path]}
    for label, total in audit.dataset.counts().items():
        counts = Counter(fold for path, fold in folds.fold_of.items() if label in held[path])
        assert max(counts.values()) - min(counts.values()) <= 2, (label, total)
