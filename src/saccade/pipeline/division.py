"""How a run's data are audited and divided: done, written down, and read again by a run that continues."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from saccade.audit import audit_as_json
from saccade.errors import ImageError, RunError
from saccade.images.decoder import read_checked
from saccade.pipeline import prepare
from saccade.pipeline.hints import SMALL_SIDE_PIXELS, shorter_side
from saccade.pipeline.prepare import Examined, ReadImages
from saccade.recipe import ALWAYS_FROM_SCRATCH, AUTO_BACKBONE, Recipe
from saccade.records import Audit, Dataset, ImageRecord, Split
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal

SEARCHED = "near_duplicates_searched"  # a key of audit.json


def search_can_wait(read: ReadImages, recipe: Recipe) -> bool:
    """Whether the first answer need not wait for the search for near-duplicates, which is half of an audit.

    So it is where nothing that is found can change the split (the user divided all images, validation
    included, and nothing is to be repaired) and the first answer comes soon: a head that is fitted at once,
    or the first epoch of a small network on small images. Heads are fitted once more after the search where
    the groups that it found lead to another strength.
    """
    parts = {record.part for record in read.dataset.used()}
    divided = {"train", "validation"} <= parts and "" not in parts and not recipe.split.repair
    chooses = recipe.model.backbone == AUTO_BACKBONE  # by scores that rest on groups
    soon = recipe.solves_head or _learns_small_images(read, recipe)
    return recipe.split.near_duplicates and divided and not chooses and soon


def _learns_small_images(read: ReadImages, recipe: Recipe) -> bool:
    small = shorter_side(read.dataset.used("train")) <= SMALL_SIDE_PIXELS
    return small and recipe.model.backbone in ALWAYS_FROM_SCRATCH


def divide_before_search(read: ReadImages, recipe: Recipe, terminal: Terminal) -> tuple[Audit, Split]:
    """Everything but the search for near-duplicates, whose turn comes with `LateSearch`."""
    split = recipe.split.model_copy(update={"near_duplicates": False})
    quick = recipe.model_copy(update={"split": split})
    examined = prepare.audited(read, quick, terminal)
    prepare.say_data(examined.audit.dataset, terminal)
    made = prepare.divide(examined, quick, terminal)
    prepare.say_sizes(made, terminal, "as given; near-duplicates are searched after the first answer")
    return examined.audit, made


def divide_searched(read: ReadImages, recipe: Recipe, terminal: Terminal) -> tuple[Audit, Split]:
    """Audit and split with everything that belongs to them, said in words."""
    examined = prepare.audited(read, recipe, terminal)
    prepare.say_data(examined.audit.dataset, terminal)
    return examined.audit, _divided_and_said(examined, recipe, terminal)


def _divided_and_said(examined: Examined, recipe: Recipe, terminal: Terminal) -> Split:
    prepare.say_findings(examined.audit, terminal)
    made = prepare.divide(examined, recipe, terminal)
    prepare.say_split(made, recipe, terminal)
    return made


class LateSearch:
    """The search for near-duplicates of a run whose first answer does not wait for it.

    `read` is what reading the images found, where that is still at hand.
    """

    def __init__(
        self,
        run: RunFolder,
        listed: Dataset,
        recipe: Recipe,
        terminal: Terminal,
        read: ReadImages | None = None,
    ) -> None:
        self._run, self._listed, self._recipe, self._terminal = run, listed, recipe, terminal
        self._read = read
        self._found: Dataset | None = None

    def dataset(self) -> Dataset:
        """The run's data with the clusters that were found; searched once, said in words and written down."""
        self._found = self._found or self._searched()
        return self._found

    def _searched(self) -> Dataset:
        read = self._read or prepare.read_images(self._listed, self._recipe, self._terminal)
        examined = prepare.audited(read, self._recipe, self._terminal)
        made = _divided_and_said(examined, self._recipe, self._terminal)
        self._run.write_environment(self._run.read_environment() | {"split": split_as_json(made)})
        write_audit(self._run, examined.audit, made)
        self._read = None
        return made.dataset


def waits_for_search(run: RunFolder) -> bool:
    """Whether a run was stopped before its search for near-duplicates had ended."""
    return run.read_recipe().split.near_duplicates and run.read_audit().get(SEARCHED) is False


def search_left(run: RunFolder, location: str, recipe: Recipe, terminal: Terminal) -> LateSearch | None:
    """The search that a run was stopped before; None where none is due.

    It begins with the data as listed: the audit says itself what is set aside, and why.
    """
    if not waits_for_search(run):
        return None
    return LateSearch(run, prepare.list_data(location, recipe), recipe, terminal)


def write_audit(run: RunFolder, found: Audit, made: Split, *, searched: bool = True) -> None:
    """audit.json, with the clusters of the split and whether near-duplicates have had their turn."""
    clusters = clusters_as_json(made.dataset)
    run.write_audit(audit_as_json(found) | {"clusters": clusters, SEARCHED: searched})


def stored_data(run: RunFolder, location: str, recipe: Recipe) -> Dataset:
    """The data of a run that continues, as they were divided; raises RunError when files changed since."""
    listed = prepare.list_data(location, recipe)
    records = with_clusters(run.read_dataset(), run.read_audit().get("clusters", {}))
    classes = tuple(run.read_environment()["classes"])
    dataset = dataclasses.replace(listed, records=records, classes=classes)
    there, before = {record.path for record in listed.records}, {record.path for record in records}
    changed = [
        *(f"{path} is new" for path in sorted(there - before)),
        *(f"{path} is gone" for path in sorted(before - there)),
        *(
            f"{record.path} has other bytes"
            for record in dataset.used()
            if record.path in there and _changed(dataset, record)
        ),
    ]
    if changed:
        shown = "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise RunError(
            f"the images of {run.root} changed since it began ({shown}); "
            "put them back, or train the new data in a new folder (--out)"
        )
    return dataset


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
