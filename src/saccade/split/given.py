"""A split that the user provides: read, checked, completed where a part is missing, repaired on demand.

Rows without a part go to train, unless a group or copy of theirs is in a named part: then to that part.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.errors import SplitError
from saccade.records import PARTS, Dataset, ImageRecord, Split
from saccade.run_folder import read_csv, write_csv
from saccade.sources.addresses import address_of, is_remote
from saccade.split.atoms import Atom, stratified_by
from saccade.split.making import MUST, Assignment, ClassTable, Shares, assign, group_names, place

# An atom that stands in several parts belongs to the one named first here: what was held out stays so.
HELD_OUT_FIRST = ("test", "validation", "train")
MOST_TRAINING_LOST = 0.1  # share of a class's training images that a repair may move to held-out parts


@dataclass(frozen=True, slots=True)
class Kept:
    """The part of each record, why, and each record that moved with its earlier part."""

    part_of: Mapping[int, str]
    reasons: tuple[str, ...]
    moved: Mapping[int, str]


def keep_given(
    records: Sequence[ImageRecord],
    atoms: Sequence[Atom],
    *,
    validation: float,
    repair: bool,
    allow_leaks: bool,
) -> Kept:
    """Raises SplitError where groups cross parts unasked, or where a class has nothing to train on."""
    part_of, reasons = _with_blanks_placed(records, atoms)
    moved: dict[int, str] = {}
    if repair:
        fixed = _repaired(records, atoms, part_of)
        moved = {i: part_of[i] for i, part in fixed.part_of.items() if part_of[i] != part}
        part_of, reasons = dict(fixed.part_of), [*reasons, *fixed.reasons]
    elif not allow_leaks:
        refuse_leaks(groups_across(records, part_of))
    if validation > 0 and "validation" not in part_of.values():
        carved = _with_validation(records, atoms, part_of, validation)
        part_of = {**part_of, **carved.part_of}
        count = sum(part == "validation" for part in carved.part_of.values())
        reasons = [*reasons, carved_sentence(count), *carved.reasons]
    reasons += _check_classes(records, part_of)
    return Kept(part_of, tuple(reasons), moved)


def carved_sentence(count: int) -> str:
    """Where the validation images of a split came from that had none."""
    return f"no validation part was given: {count:,} of the training images are it"


def groups_across(records: Sequence[ImageRecord], part_of: Mapping[int, str]) -> dict[str, set[str]]:
    """Declared groups that stand in more than one part, with those parts."""
    parts: dict[str, set[str]] = defaultdict(set)
    for i, record in enumerate(records):
        if record.group:
            parts[record.group].add(part_of[i])
    return {group: where for group, where in parts.items() if len(where) > 1}


def most_held_out(parts: set[str]) -> str:
    return next(part for part in HELD_OUT_FIRST if part in parts)


def _with_blanks_placed(
    records: Sequence[ImageRecord], atoms: Sequence[Atom]
) -> tuple[dict[int, str], list[str]]:
    part_of = {i: record.part for i, record in enumerate(records)}
    blank = sum(not part for part in part_of.values())
    for atom in atoms:
        named = {records[i].part for i in atom.members} - {""}
        home = most_held_out(named) if named else "train"
        part_of.update((i, home) for i in atom.members if not part_of[i])
    if not blank:
        return part_of, []
    return part_of, [blank_sentence(blank)]


def blank_sentence(count: int) -> str:
    """What becomes of images without a part in a split that was given."""
    unless = "unless a group or copy of theirs stands in another part"
    return f"{count} images without a part: they train, {unless}"


def refuse_leaks(groups: Mapping[str, set[str]], count: int = 0) -> None:
    """Raises SplitError where there are any; `count` is their number, where `groups` has only some."""
    if groups:
        named = group_names(groups, count=count or len(groups))
        raise SplitError(
            f"{count or len(groups)} groups are in more than one part of the given split: {named}",
            hint=(
                "add --repair-split to move them into one part each, or --allow-leaks to go on with "
                "figures that are too good"
            ),
        )


def _with_validation(
    records: Sequence[ImageRecord], atoms: Sequence[Atom], part_of: Mapping[int, str], share: float
) -> Assignment:
    """Validation images out of the training images, by group."""
    inside = (Atom(tuple(i for i in atom.members if part_of[i] == "train"), atom.key) for atom in atoms)
    return assign(
        records,
        [atom for atom in inside if atom.members],
        Shares(("train", "validation"), (1 - share, share)),
    )


def _check_classes(records: Sequence[ImageRecord], part_of: Mapping[int, str]) -> list[str]:
    """What held-out parts lack; raises SplitError where a class has no training images."""
    seen: dict[str, set[str]] = {part: set() for part in PARTS}
    for i, record in enumerate(records):
        seen[part_of[i]].update(record.labels)
    return check_classes(seen)


def check_classes(seen: Mapping[str, set[str]]) -> list[str]:
    """`seen` are the classes of each part; raises SplitError for those that are not trained on."""
    every = set().union(*seen.values())
    untrained = sorted(every - seen["train"])
    if untrained:
        raise SplitError(
            f"no training images of {', '.join(map(repr, untrained))}: they are only in other parts",
            hint="move some to train, remove these classes, or give the images without parts",
        )
    return [
        f"{part}: no image of {', '.join(map(repr, sorted(every - seen[part])))} in the given split"
        for part in PARTS
        if seen[part] and every - seen[part]
    ]


def _repaired(records: Sequence[ImageRecord], atoms: Sequence[Atom], part_of: dict[int, str]) -> Assignment:
    """Every atom in one part.

    First rule: an atom goes to the most held-out part it touches, so that no image that was held out is
    ever trained on. Where that costs a class more than a tenth of its training images (a split by image
    of data with groups), the crossing atoms are allocated anew, towards the sizes the parts had.
    """
    homes = [{part_of[i] for i in atom.members} for atom in atoms]
    held_out = {i: most_held_out(home) for atom, home in zip(atoms, homes, strict=True) for i in atom.members}
    before = Counter(
        label for i, r in enumerate(records) if part_of[i] == "train" for label in stratified_by(r)
    )
    after = Counter(
        label for i, r in enumerate(records) if held_out[i] == "train" for label in stratified_by(r)
    )
    if all(after[label] >= (1 - MOST_TRAINING_LOST) * n for label, n in before.items()):
        return Assignment(held_out)
    parts = [part for part in PARTS if part in part_of.values()]
    table = ClassTable.of(records, atoms)
    number = {label: c for c, label in enumerate(table.labels)}
    wanted = np.zeros((len(number), len(parts)))
    for i, record in enumerate(records):
        for label in stratified_by(record):
            wanted[number[label], parts.index(part_of[i])] += 1
    standing = {n: next(iter(home)) for n, home in enumerate(homes) if len(home) == 1}
    return place(records, atoms, table, parts, wanted, [MUST[part] for part in parts], standing)


# -- files -----------------------------------------------------------------------------------------------
# `split.csv`: the parts as a list that is itself a data set, and can be kept while the data grow.


COLUMNS = ("path", "label", "part", "group")


def write_split_csv(split: Split, path: Path | str) -> None:
    """Write path,label,part,group of every used image, atomically.

    Paths are relative to the file's own folder, with forward slashes (with `../` where the images do
    not lie below it). Images in a bucket are named by their address.
    """
    target = Path(path)
    to_root = way_to_root(target, split.dataset.root)
    records = split.dataset.used()
    write_csv(target, COLUMNS, ([in_list(to_root, r.path), r.label, r.part, r.group] for r in records))


def read_split_csv(path: Path | str, dataset: Dataset) -> dict[str, str]:
    """The part of each image an earlier `split.csv` lists, by its path in `dataset`; for `fixed=`.

    Raises SplitError when the file is no such list.
    """
    source = Path(path)
    to_root = way_to_root(source, dataset.root)
    rows = read_csv(source)
    if rows and not {"path", "part"} <= set(rows[0]):
        raise SplitError(
            f"{source} is no split: it has no columns path and part", hint="give --out another name"
        )
    folder, root = Path(os.path.realpath(source.parent)), Path(os.path.realpath(dataset.root))
    return {_from_root(row["path"], to_root, folder, root): row["part"] for row in rows if row["part"]}


def checked_parts(fixed: Mapping[str, str]) -> Mapping[str, str]:
    """The same mapping; raises SplitError where a part has an unknown name."""
    wrong = sorted({part for part in fixed.values() if part not in PARTS})
    if wrong:
        raise SplitError(
            f"the earlier split names unknown parts {', '.join(map(repr, wrong))}",
            hint=f"parts are called {', '.join(PARTS)}: rename them there",
        )
    return fixed


def way_to_root(csv_file: Path, root: Path) -> str:
    """What leads from the CSV's folder to the data's root: "", "photos/", "../photos/"; or its address."""
    if address := address_of(root):
        return f"{address}/"
    way = Path(os.path.relpath(os.path.realpath(root), os.path.realpath(csv_file.parent))).as_posix()
    return "" if way == "." else f"{way}/"


def in_list(to_root: str, path: str) -> str:
    """How a list names an image; an address stands for itself."""
    return path if is_remote(path) else to_root + path


def _from_root(path: str, to_root: str, folder: Path, root: Path) -> str:
    if path.startswith(to_root) and (to_root or not is_remote(path)):
        return path[len(to_root) :]
    if is_remote(path):
        return path
    return Path(os.path.relpath(folder / path, root)).as_posix()  # written by hand, another way round
