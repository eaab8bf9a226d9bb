"""Folds for cross-validation of a split: all that is not the test part takes turns at being held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from saccade.errors import SplitError
from saccade.records import Audit, Dataset, ImageRecord, Pair, Split
from saccade.split.splitting import ROUNDS, Folds, k_folds

CrossCheck = Callable[[Mapping[str, str]], tuple[list[Pair], int]]
NAMED_CLASSES = 5


def with_folds(made: Split, *, folds: int, seed: int, cross_check: CrossCheck | None = None) -> Split:
    """The split with a fold, from 1, for each image outside of its test part.

    Groups, copies and near-duplicates share a fold, and each class is spread evenly. `cross_check` searches
    across the folds once more, as for the parts of a split; what it finds is joined. An image that stands
    between two sets is set aside. Raises SplitError where so many folds cannot be filled, or where a class
    would be missing from what a fold trains on.
    """
    dataset, known, found, unresolved = made.dataset, list[Pair](), list[Pair](), 0
    for _ in range(ROUNDS):
        given = _folds(dataset, folds, seed)
        dataset = _without_twins(dataset, given)
        if cross_check is None:
            break
        found, unresolved = cross_check({path: f"fold {n + 1}" for path, n in given.fold_of.items()})
        new = [pair for pair in found if pair not in known]
        if not new:
            break
        known += new
        dataset = _joined(dataset, new)
    fold_of = {path: number + 1 for path, number in given.fold_of.items()}
    reasons = _told(dataset, fold_of, folds)
    about = {"pairs_across_folds": len(found), "unresolved_across_folds": unresolved} if cross_check else {}
    return replace(
        made,
        dataset=dataset,
        reasons=(*made.reasons, *given.reasons, *reasons),
        crossing=(*made.crossing, *found),
        verified={**made.verified, **about},
        folds=fold_of,
    )


def _folds(dataset: Dataset, folds: int, seed: int) -> Folds:
    """Atoms are those that the split kept together, by its clusters."""
    clusters = {record.path: int(record.cluster) for record in dataset.used() if record.cluster}
    learnt = [record.path for record in dataset.used() if record.part != "test"]
    return k_folds(Audit(dataset, (), clusters=clusters), folds=folds, seed=seed, paths=learnt)


def _without_twins(dataset: Dataset, given: Folds) -> Dataset:
    """Images that got no fold, because they would have joined what must be divided, are set aside."""
    note = "looks like an image of another fold"
    return dataset.with_records(
        r.set_aside(note) if r.used and r.part != "test" and r.path not in given.fold_of else r
        for r in dataset.records
    )


def _joined(dataset: Dataset, pairs: Sequence[Pair]) -> Dataset:
    """The data with the images of each pair, and all that these belong to, in one cluster."""
    cluster = {record.path: record.cluster for record in dataset.used()}
    highest = max((int(name) for name in cluster.values() if name), default=0)
    for number, pair in enumerate(pairs, start=highest + 1):
        old = {cluster[path] for path in (pair.first, pair.second)} - {""}
        same = {path for path, name in cluster.items() if name in old} | {pair.first, pair.second}
        cluster.update(dict.fromkeys(same, str(number)))
    return dataset.with_records(
        replace(record, cluster=cluster[record.path]) if record.used else record for record in dataset.records
    )


def _told(dataset: Dataset, fold_of: Mapping[str, int], folds: int) -> tuple[str, ...]:
    """Which classes are missing in some fold; raises SplitError where a fold would train without a class."""
    held: dict[str, Counter[int]] = {label: Counter() for label in dataset.classes}
    for record in dataset.used():
        if record.path in fold_of:
            held[record.label][fold_of[record.path]] += 1
    if alone := [label for label, counts in held.items() if len(counts) < 2]:
        raise SplitError(
            f"{', '.join(map(repr, alone))}: all images are in one fold, so a model would train without them",
            hint="add images that do not belong together, merge or remove the classes, or take fewer folds",
        )
    short = [f"{label!r} in {len(counts)}" for label, counts in held.items() if len(counts) < folds]
    if not short:
        return ()
    more = f"; and {len(short) - NAMED_CLASSES} more classes" if len(short) > NAMED_CLASSES else ""
    return (f"too few images to be held out in all {folds} folds: {', '.join(short[:NAMED_CLASSES])}{more}",)


def fold_dataset(dataset: Dataset, fold_of: Mapping[str, int], number: int) -> Dataset:
    """Fold `number` validates, the others train; test images are left out, so that no fold can see one."""

    def placed(record: ImageRecord) -> ImageRecord:
        if not record.used:
            return record
        if record.path not in fold_of:
            return record.set_aside("of the test part, which no fold sees")
        return replace(record, part="validation" if fold_of[record.path] == number else "train")

    return dataset.with_records(placed(record) for record in dataset.records)
