"""How a run's data are audited and divided: done, written down, and read again by a run that continues."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from saccade.audit import after_split, audit_as_json
from saccade.errors import DataError, ImageError, RunError
from saccade.images.decoder import read_checked
from saccade.pipeline import prepare, words
from saccade.pipeline.prepare import Examined, ReadImages
from saccade.pipeline.work import Work
from saccade.recipe import AUTO_BACKBONE, Recipe
from saccade.records import Audit, Dataset, ImageRecord, Split
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal

SEARCHED = "near_duplicates_searched"  # a key of audit.json
FOLDS = "folds"  # another: the fold of each path


def search_can_wait(read: ReadImages, recipe: Recipe) -> bool:
    """Whether training need not wait for the search for near-duplicates, which is half of an audit.

    So it is where nothing that is found can change the split: the user divided all images, validation
    included, and nothing is to be repaired. `--backbone auto` scores by groups that the search finds, and a
    time limit leaves no room for it after training.
    """
    parts = {record.part for record in read.dataset.used()}
    divided = {"train", "validation"} <= parts and "" not in parts and not recipe.split.repair
    waits_for_groups = recipe.model.backbone == AUTO_BACKBONE or recipe.train.time_limit or recipe.split.folds
    return bool(recipe.split.near_duplicates and divided and not waits_for_groups)


def divide_before_search(read: ReadImages, recipe: Recipe, terminal: Terminal) -> tuple[Audit, Split]:
    """Everything but the search for near-duplicates, whose turn comes with `search_late`."""
    split = recipe.split.model_copy(update={"near_duplicates": False})
    quick = recipe.model_copy(update={"split": split})
    examined = prepare.audited(read, quick, terminal)
    words.say_data(examined.audit.dataset, terminal)
    words.say_orientation(examined.audit, terminal)
    made = prepare.divide(examined, quick, terminal)
    words.say_sizes(made, terminal, "as given; near-duplicates are searched after training")
    return _compared(examined, made), made


def divide_searched(read: ReadImages, recipe: Recipe, terminal: Terminal) -> tuple[Audit, Split]:
    """Audit and split with everything that belongs to them, said in words."""
    examined = prepare.audited(read, recipe, terminal)
    words.say_data(examined.audit.dataset, terminal)
    return _divided_and_said(examined, recipe, terminal)


def _divided_and_said(examined: Examined, recipe: Recipe, terminal: Terminal) -> tuple[Audit, Split]:
    words.say_findings(examined.audit, terminal)
    made = prepare.divide(examined, recipe, terminal)
    words.say_split(made, recipe, terminal)
    return _compared(examined, made), made


def _compared(examined: Examined, made: Split) -> Audit:
    """The audit, with what it can tell once each image has its part."""
    return after_split(examined.audit, made.dataset, examined.measurements)


def search_late(work: Work) -> None:
    """The stage after training: the search for near-duplicates that training did not wait for.

    It changes nothing of what was learnt. It begins with the data as listed: the audit says itself what is
    set aside, and why.
    """
    run = work.run
    if not work.recipe.split.near_duplicates or run.read_audit().get(SEARCHED) is not False:
        return
    read = work.read or prepare.read_images(work.listed, work.recipe, work.terminal)
    work.read = None
    examined = prepare.audited(read, work.recipe, work.terminal)
    audited, made = _divided_and_said(examined, work.recipe, work.terminal)
    run.update_record(split=split_as_json(made))
    write_audit(run, audited, made)


def write_audit(run: RunFolder, found: Audit, made: Split, *, searched: bool = True) -> None:
    """audit.json, with the clusters of the split and whether near-duplicates have had their turn."""
    story = {"clusters": clusters_as_json(made.dataset), SEARCHED: searched}
    folds = {FOLDS: dict(made.folds)} if made.folds else {}
    run.write_audit(audit_as_json(found) | story | folds)


def stored_data(run: RunFolder, listed: Dataset) -> Dataset:
    """The data of a run that continues, as they were divided; raises RunError when files changed since."""
    records = with_clusters(run.read_dataset(), run.read_audit().get("clusters", {}))
    classes = run.read_record().classes
    dataset = dataclasses.replace(listed, records=records, classes=classes)
    there = {record.path for record in listed.records}
    changed = [
        *_come_and_gone(records, listed),
        *(
            f"{record.path} has other bytes"
            for record in dataset.used()
            if record.path in there and _changed(dataset, record)
        ),
    ]
    if changed:
        raise RunError(
            f"the images of {run.root} changed since it began: {_shown(changed)}",
            hint="put them back, or train the new data in a new folder (--out)",
        )
    return dataset


def _come_and_gone(records: Sequence[ImageRecord], listed: Dataset) -> list[str]:
    there, before = {record.path for record in listed.records}, {record.path for record in records}
    return [
        *(f"{path} is new" for path in sorted(there - before)),
        *(f"{path} is gone" for path in sorted(before - there)),
    ]


def _shown(changed: list[str]) -> str:
    return "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")


def warn_of_other_images(run: RunFolder, location: str, recipe: Recipe, terminal: Terminal) -> None:
    """Of a finished run: that its folder has other images by now, of which it knows nothing.

    Images that were moved away as a whole are nobody's mistake.
    """
    with contextlib.suppress(DataError):
        listed = prepare.list_data(location, recipe)
        if changed := _come_and_gone(run.read_dataset(), listed):
            terminal.warn(
                f"the images changed since {run.root} was made, and it does not know that: {_shown(changed)}",
                hint="train them in a new folder (--out)",
            )


def clusters_as_json(dataset: Dataset) -> dict[str, list[str]]:
    """Paths of what the split keeps together, by cluster: a run that continues must know them again."""
    clusters: dict[str, list[str]] = {}
    for record in dataset.used():
        if record.cluster:
            clusters.setdefault(record.cluster, []).append(record.path)
    return clusters


def with_clusters(
    records: Sequence[ImageRecord], clusters: Mapping[str, Sequence[str]]
) -> tuple[ImageRecord, ...]:
    """The records with their clusters; none where the run was begun before these were kept."""
    cluster_of = {path: name for name, paths in clusters.items() for path in paths}
    return tuple(dataclasses.replace(r, cluster=cluster_of.get(r.path, "")) for r in records)


def _changed(dataset: Dataset, record: ImageRecord) -> bool:
    try:
        read_checked(dataset.storage, record)
    except ImageError:
        return True
    return False


def split_as_json(made: Split) -> dict[str, Any]:
    """What the report says about the split, plain values."""
    return {
        "made_by_user": made.made_by_user,
        "reasons": list(made.reasons),
        "crossing": [[pair.first, pair.second, pair.band, pair.score, pair.how] for pair in made.crossing],
        "crossing_groups": list(made.crossing_groups),
        "verified": dict(made.verified),
        "promise_kept": made.promise_kept,
    }


def across(records: Iterable[ImageRecord], mark: Callable[[ImageRecord], str]) -> dict[str, str]:
    """Marks whose images stand in more than one part, with the paths of two of them."""
    first: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        if mark(record):
            first[mark(record)].setdefault(record.part, record.path)
    return {name: " and ".join(list(by.values())[:2]) for name, by in first.items() if len(by) > 1}


def clusters_across(run: RunFolder, records: Iterable[ImageRecord]) -> list[str]:
    part = {record.path: record.part for record in records}
    clusters = run.read_audit().get("clusters", {}).values() if run.has(run.audit) else ()
    return [
        " and ".join(paths[:2])
        for paths in clusters
        if len({part[path] for path in paths if path in part}) > 1
    ]
