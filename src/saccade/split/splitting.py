"""`split` gives every used record of an audited data set a part; `k_folds` gives it a fold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from saccade.audit.auditing import lost_by_reading
from saccade.errors import SplitError
from saccade.records import Audit, Confidence, Dataset, ImageRecord, Pair, Split
from saccade.run_folder import write_csv
from saccade.split.atoms import (
    Atom,
    aside_sentence,
    clusters_left,
    divide,
    gather_atoms,
    linked_pairs,
    marks,
    notes,
)
from saccade.split.given import (
    Kept,
    checked_parts,
    groups_across,
    in_list,
    keep_given,
    most_held_out,
    way_to_root,
)
from saccade.split.making import Assignment, Shares, assign, moved_sentence

CrossCheck = Callable[[Mapping[str, str]], tuple[list[Pair], int]]
ROUNDS = 10  # of searching again and joining what was found; one or two are enough in practice


def split(
    audit: Audit,
    *,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    repair: bool = False,
    allow_leaks: bool = False,
    fixed: Mapping[str, str] | None = None,
    cross_check: CrossCheck | None = None,
) -> Split:
    """Split an audited data set into three parts; images that belong together share a part.

    `fixed` gives paths the part they had in an earlier split: they keep it, new images of the same group
    or near-duplicates follow, the others are allocated. `cross_check` searches pairs across the parts once
    more, by other means: (path -> part) -> (verified pairs, number left unresolved); pairs it finds in
    a split made here are joined, and the split is made again until there are none.
    Raises SplitError where a class is too small, a given split leaks groups, or nothing can be trained.
    """
    plan = _Plan(Shares.of(validation, test), seed, repair, allow_leaks, checked_parts(fixed or {}))
    _refuse_empty_classes(audit.dataset)
    _refuse_two_labels(audit.dataset.used())
    made = _split_once(audit, plan, ())
    return made if cross_check is None else _searched_again(audit, plan, made, cross_check)


def _searched_again(audit: Audit, plan: _Plan, made: Split, cross_check: CrossCheck) -> Split:
    """Cross-check, join the verified pairs, split again; until nothing new is found or nothing moves."""
    joined: list[Pair] = []
    descriptor = getattr(cross_check, "descriptor", "")
    for rounds in count(1):
        parts = _parts(made)
        found, unresolved = cross_check(parts)
        new = [pair for pair in found if pair not in joined]
        joined += new
        if not new or rounds == ROUNDS:
            break
        made = _split_once(audit, plan, joined)
        if _parts(made) == parts:
            break  # a given split does not move
    return verify(made, found, unresolved, descriptor=descriptor, rounds=rounds)


def _parts(made: Split) -> dict[str, str]:
    return {record.path: record.part for record in made.dataset.used()}


def verify(split: Split, found: Sequence[Pair], unresolved: int, **about: Any) -> Split:
    """The split with the outcome of a second search: pairs verified across its parts, and those left open."""
    known = {frozenset((pair.first, pair.second)) for pair in split.crossing}
    new = tuple(pair for pair in found if frozenset((pair.first, pair.second)) not in known)
    crossing = split.crossing + new
    outcome = {"verified_pairs_across": len(crossing), "unresolved": unresolved, **about}
    return replace(split, crossing=crossing, verified=outcome)


@dataclass(frozen=True, slots=True)
class _Plan:
    shares: Shares
    seed: int
    repair: bool
    allow_leaks: bool
    fixed: Mapping[str, str]


def _split_once(audit: Audit, plan: _Plan, joined: Sequence[Pair]) -> Split:
    if audit.dataset.given_parts:
        records = audit.dataset.used()
        atoms = gather_atoms(records, audit.clusters, seed=plan.seed, pairs=[*linked_pairs(audit), *joined])
        completed = [replace(r, part=r.part or plan.fixed.get(r.path, "")) for r in records]
        share = plan.shares.shares[1]
        made = keep_given(
            completed, atoms, validation=share, repair=plan.repair, allow_leaks=plan.allow_leaks
        )
        return _as_split(audit, records, atoms, made, joined)
    return _new_split(audit, plan, joined)


def _new_split(audit: Audit, plan: _Plan, joined: Sequence[Pair]) -> Split:
    """A split made here, without the images that had to be set aside."""
    records = audit.dataset.used()

    make = partial(_grown, records, plan=plan)
    division = divide(records, audit, make, seed=plan.seed, joined=joined, kept=plan.fixed)
    made, twin_of = division.made, division.twin_of
    if not twin_of:
        return _as_split(audit, records, division.atoms, made, joined)
    why = notes(records, made.part_of, twin_of)
    there = (r.set_aside(why[r.path]) if r.path in why else r for r in audit.dataset.records)
    clusters = clusters_left(records, audit, joined, twin_of)
    audit = replace(audit, dataset=audit.dataset.with_records(there), clusters=clusters)
    left = [i for i in range(len(records)) if i not in twin_of]
    number = {i: new for new, i in enumerate(left)}
    atoms = [Atom(tuple(number[i] for i in atom.members if i in number), atom.key) for atom in division.atoms]
    said = aside_sentence(records, twin_of)
    kept = Kept(
        {number[i]: part for i, part in made.part_of.items() if i in number},
        (*said, *made.reasons),
        {number[i]: part for i, part in made.moved.items() if i in number},
    )
    return _as_split(audit, audit.dataset.used(), [a for a in atoms if len(a)], kept, joined)


def _as_split(
    audit: Audit, records: Sequence[ImageRecord], atoms: Sequence[Atom], made: Kept, joined: Sequence[Pair]
) -> Split:
    moved = tuple((records[i].path, old, made.part_of[i]) for i, old in sorted(made.moved.items()))
    return Split(
        _with_parts(audit, records, made.part_of, atoms),
        reasons=(*made.reasons, moved_sentence(moved)) if moved else made.reasons,
        crossing=_crossing_pairs(audit, records, made.part_of, joined),
        crossing_groups=tuple(sorted(groups_across(records, made.part_of))),
        made_by_user=bool(audit.dataset.given_parts),
        moved=moved,
    )


def _grown(records: Sequence[ImageRecord], atoms: Sequence[Atom], plan: _Plan) -> Kept:
    """A new split. Images of an earlier split keep their part; the others are allocated."""
    standing, moved = _standing(records, atoms, plan.fixed)
    made = assign(records, atoms, plan.shares, standing=standing)
    gone = len(plan.fixed) - sum(record.path in plan.fixed for record in records)
    reasons = (f"{gone} images of the earlier split are no longer in use",) if gone else ()
    return Kept(made.part_of, made.reasons + reasons, moved)


def _standing(
    records: Sequence[ImageRecord], atoms: Sequence[Atom], fixed: Mapping[str, str]
) -> tuple[dict[int, str], dict[int, str]]:
    """Atoms with an image of an earlier split, by number, and the records that must leave their old part.

    A new image can join atoms that stood apart: they go to the most held-out part, the test list only grows.
    """
    standing: dict[int, str] = {}
    moved: dict[int, str] = {}
    for number, atom in enumerate(atoms):
        earlier = {i: fixed[records[i].path] for i in atom.members if records[i].path in fixed}
        if earlier:
            standing[number] = most_held_out(set(earlier.values()))
            moved.update((i, part) for i, part in earlier.items() if part != standing[number])
    return standing, moved


def _refuse_empty_classes(dataset: Dataset) -> None:
    aside = Counter(label for record in dataset.records if not record.used for label in record.labels)
    empty = [f"{label!r} ({aside[label]} set aside)" for label, n in dataset.counts().items() if not n]
    if empty:
        raise SplitError(
            f"no usable image of {', '.join(empty)}",
            hint="the audit says why they were set aside: replace them, or remove the classes",
        )
    if lost := lost_by_reading(dataset):
        raise SplitError(
            f"{'; '.join(lost)}",
            hint="convert or restore these files, or remove the class or part from the data",
        )


def _refuse_two_labels(records: Sequence[ImageRecord]) -> None:
    """The audit sets such images aside; an Audit from elsewhere must do so as well."""
    first: dict[str, ImageRecord] = {}
    pairs = []
    for record in records:
        known = first.setdefault(record.pixel_sha256 or record.sha256 or record.path, record)
        if known.label != record.label:
            pairs.append(f"{known.path!r} ({known.label}) and {record.path!r} ({record.label})")
    if pairs:
        raise SplitError(
            f"the same picture has two labels: {'; '.join(pairs[:10])}",
            hint="remove the wrong ones, or drop them in audit-decisions.csv",
        )


def _with_parts(
    audit: Audit, records: Sequence[ImageRecord], part_of: Mapping[int, str], atoms: Sequence[Atom]
) -> Dataset:
    """Every record in use with its part, and those of an atom of several with its number as their cluster."""
    several = (atom for atom in atoms if len(atom) > 1)
    cluster = {i: str(number) for number, atom in enumerate(several, start=1) for i in atom.members}
    placed = {
        record.path: replace(record, part=part_of[i], cluster=cluster.get(i, ""))
        for i, record in enumerate(records)
    }
    return audit.dataset.with_records(placed.get(r.path, r) if r.used else r for r in audit.dataset.records)


def _crossing_pairs(
    audit: Audit, records: Sequence[ImageRecord], part_of: Mapping[int, str], joined: Sequence[Pair]
) -> tuple[Pair, ...]:
    """Near-duplicates and copies that stand in two parts, each pair once."""
    part = {record.path: part_of[i] for i, record in enumerate(records)}
    known = [p for p in (*linked_pairs(audit), *joined) if p.first in part and p.second in part]
    pairs = {frozenset((p.first, p.second)): p for p in known if part[p.first] != part[p.second]}
    named = {path for pair in pairs for path in pair}
    for pair in _copies_across(audit, records, part_of):
        if not named.issuperset((pair.first, pair.second)):
            pairs.setdefault(frozenset((pair.first, pair.second)), pair)
    return tuple(pairs.values())


def _copies_across(audit: Audit, records: Sequence[ImageRecord], part_of: Mapping[int, str]) -> list[Pair]:
    """One pair for each set of copies and each further part in which it stands."""
    first: dict[tuple[str, object], dict[str, str]] = defaultdict(dict)
    how = {
        "cluster": "same cluster of near-duplicates",
        "file": "identical files",
        "pixels": "identical pixels",
    }
    pairs = []
    for i, record in enumerate(records):
        for mark in marks(record, audit.clusters):
            if mark[0] not in how:
                continue
            stands = first[mark]
            if part_of[i] not in stands:
                if stands:
                    band: Confidence = "likely" if mark[0] == "cluster" else "certain"
                    pairs.append(Pair(next(iter(stands.values())), record.path, band, 1.0, how[mark[0]]))
                stands[part_of[i]] = record.path
    return pairs


# -- folds -----------------------------------------------------------------------------------------------
# k folds with the same care as three parts: whole atoms, every class spread evenly.


COLUMNS = ("path", "label", "fold", "group")


@dataclass(frozen=True, slots=True)
class Folds:
    """The fold (0 to `count` - 1) of each path, and why a class is not spread as evenly as it should be."""

    fold_of: Mapping[str, int]
    count: int
    reasons: tuple[str, ...] = ()

    def split(self, audit: Audit, fold: int) -> Split:
        """One fold validates, the others train; images without a fold have no part and are left out."""
        part = {path: "validation" if k == fold else "train" for path, k in self.fold_of.items()}
        records = (replace(r, part=part[r.path]) for r in audit.dataset.used() if r.path in part)
        dataset = replace(audit.dataset, records=tuple(records), given_parts=())
        return Split(dataset, reasons=self.reasons)


def k_folds(audit: Audit, *, folds: int = 5, seed: int = 0, paths: Collection[str] | None = None) -> Folds:
    """Divide the used images (of `paths`, if given) so that no group, cluster or copy is in two folds.

    Raises SplitError when there is less to divide than folds, or a class has only one thing to divide:
    it could not be in training and held out at once.
    """
    if folds < 2:
        raise SplitError(f"folds must be at least 2, got {folds}", hint="give --folds 5")
    used = audit.dataset.used()
    wanted = None if paths is None else frozenset(paths)
    chosen = tuple(r for r in used if wanted is None or r.path in wanted)
    names = tuple(f"fold {k}" for k in range(folds))

    def made_of(atoms: list[Atom]) -> Assignment:
        if len(atoms) < folds:
            raise SplitError(
                f"{len(chosen)} images in {len(atoms)} sets that stay together cannot fill {folds} folds",
                hint=f"ask for at most {len(atoms)} folds, or add images",
            )
        return assign(chosen, atoms, Shares(names, (1.0 / folds,) * folds), least=2)

    division = divide(chosen, audit, made_of, seed=seed)
    made, aside = division.made, division.twin_of
    fold_of = {chosen[i].path: names.index(name) for i, name in made.part_of.items() if i not in aside}
    return Folds(dict(sorted(fold_of.items())), folds, (*aside_sentence(chosen, aside), *made.reasons))


def write_folds_csv(folds: Folds, audit: Audit, path: Path | str) -> None:
    """Write path,label,fold,group of every image with a fold, atomically; paths as in `split.csv`."""
    target = Path(path)
    to_root = way_to_root(target, audit.dataset.root)
    rows = (
        [in_list(to_root, r.path), r.label, folds.fold_of[r.path], r.group]
        for r in audit.dataset.used()
        if r.path in folds.fold_of
    )
    write_csv(target, COLUMNS, rows)
