"""What holds for every split: disjoint, covering, closed, stable, blind to names, as good as can be.

60 cases a property as a rule; a thousand with `pytest --hypothesis-profile=thorough`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saccade.errors import SplitError
from saccade.records import PARTS, Audit, Dataset, ImageRecord, Split
from saccade.sources.storage import FolderStorage
from saccade.split import allocate as search_module
from saccade.split import k_folds, split
from saccade.split.allocate import AtomCounts, allocate
from saccade.split.objective import class_costs, fill_with_singles

SHARES = ((0.15, 0.15), (0.1, 0.1), (0.2, 0.2), (0.25, 0.1), (0.2, 0.0))
MUST = (4.0, 1.0, 2.0)


def as_audit(records: Sequence[ImageRecord], clusters: Mapping[str, int]) -> Audit:
    classes = tuple(sorted({record.label for record in records}))
    return Audit(Dataset(Path("."), tuple(records), classes, FolderStorage(Path("."))), (), (), clusters)


@st.composite
def audits(draw: st.DrawFn, *, alone: int = 3, most: int = 60) -> Audit:
    """A few classes; some images in groups, some in clusters, some with copies of one label.

    Each class also has `alone` images without ties, so with 3 of them a split into 3 parts exists.
    """
    labels = draw(st.lists(st.sampled_from(("ant", "bee", "cow", "dog")), min_size=6, max_size=most))
    names = st.one_of(st.just(""), st.just(""), st.sampled_from(("g0", "g1", "g2", "g3", "g4", "g5")))
    groups = draw(st.lists(names, min_size=len(labels), max_size=len(labels)))
    numbers = st.one_of(st.none(), st.none(), st.integers(0, len(labels) // 3))
    clustered = draw(st.lists(numbers, min_size=len(labels), max_size=len(labels)))
    copies = draw(st.lists(st.integers(0, 3 * len(labels)), min_size=len(labels), max_size=len(labels)))
    records = [
        ImageRecord(
            f"{i:03d}.jpg", label, "", group, sha256=f"{label} {copy}", pixel_sha256=f"{label} {copy}"
        )
        for i, (label, group, copy) in enumerate(zip(labels, groups, copies, strict=True))
    ]
    free = [(label, i) for label in sorted(set(labels)) for i in range(alone)]
    records += [ImageRecord(f"{label}-{i}.jpg", label, sha256=f"{label}-{i}") for label, i in free]
    clusters = {r.path: k for r, k in zip(records[: len(labels)], clustered, strict=True) if k is not None}
    return as_audit(records, clusters)


def bound_together(audit: Audit) -> list[set[str]]:
    """Sets of paths that must not be parted, by merging overlapping sets until none overlap."""
    sets: list[set[str]] = []
    for record in audit.dataset.records:
        ties = {("g", record.group), ("c", audit.clusters.get(record.path)), ("s", record.sha256)}
        ties -= {("g", ""), ("c", None)}
        fresh = {record.path}
        for other in audit.dataset.records:
            theirs = {("g", other.group), ("c", audit.clusters.get(other.path)), ("s", other.sha256)}
            if ties & theirs:
                fresh.add(other.path)
        touching = [known for known in sets if known & fresh]
        sets = [known for known in sets if not known & fresh] + [fresh.union(*touching)]
    return sets


def smallest_class(audit: Audit) -> int:
    """In how many sets that stay together the scarcest class stands."""
    label = {record.path: record.label for record in audit.dataset.records}
    tally = Counter(name for atom in bound_together(audit) for name in {label[path] for path in atom})
    return min(tally.values())


def parts(made: Split) -> dict[str, str]:
    return {record.path: record.part for record in made.dataset.records}


@given(st.one_of(audits(), audits(alone=0)), st.sampled_from(SHARES), st.integers(0, 2**32))
def test_a_split_is_disjoint_covering_and_closed(
    audit: Audit, shares: tuple[float, float], seed: int
) -> None:
    validation, test = shares
    needed = 2 if test == 0 else 3
    try:
        made = split(audit, validation=validation, test=test, seed=seed)
    except SplitError:
        made = None
    assert made is not None or smallest_class(audit) < needed
    if made is None:
        return
    assert [record.path for record in made.dataset.records] == [r.path for r in audit.dataset.records]
    found = {record.path: record.part for record in made.dataset.used()}
    assert set(found.values()) <= set(PARTS[:needed])
    left = as_audit(made.dataset.used(), audit.clusters)
    assert all(len({found[path] for path in atom}) == 1 for atom in bound_together(left))
    assert made.promise_kept


@given(audits(), st.sampled_from(SHARES), st.integers(0, 100))
def test_each_share_is_met_or_the_class_is_named(
    audit: Audit, shares: tuple[float, float], seed: int
) -> None:
    validation, test = shares
    made = split(audit, validation=validation, test=test, seed=seed)
    wanted = dict(zip(PARTS, (1 - validation - test, validation, test), strict=True))
    for label, total in audit.dataset.counts().items():
        found = Counter(record.part for record in made.dataset.records if record.label == label)
        worst = max(abs(found[part] - share * total) for part, share in wanted.items())
        named = [reason for reason in made.reasons if reason.startswith(f"class {label!r}: ")]
        assert len(named) == (1 if worst > max(1, 0.01 * total) + 1e-9 else 0)


@given(audits(), st.integers(0, 100), st.randoms(use_true_random=False))
def test_the_seed_decides_and_the_order_of_records_does_not(
    audit: Audit, seed: int, shuffle: st.DataObject
) -> None:
    records = list(audit.dataset.records)
    shuffle.shuffle(records)  # type: ignore[attr-defined]
    again = split(as_audit(records, audit.clusters), seed=seed)
    assert parts(again) == parts(split(audit, seed=seed))


@given(audits(), st.permutations(("ant", "bee", "cow", "dog")), st.integers(0, 100))
def test_the_names_of_classes_and_groups_have_no_say(audit: Audit, names: list[str], seed: int) -> None:
    renamed = dict(zip(("ant", "bee", "cow", "dog"), names, strict=True))
    records = [
        replace(r, label=renamed[r.label], group=r.group and f"{9 - int(r.group[1:])}")
        for r in audit.dataset.records
    ]
    clusters = {path: 1000 - number for path, number in audit.clusters.items()}
    assert parts(split(as_audit(records, clusters), seed=seed)) == parts(split(audit, seed=seed))


@given(audits(), st.integers(0, 100), st.integers(1, 5))
def test_growing_keeps_every_earlier_part(audit: Audit, seed: int, new: int) -> None:
    earlier = parts(split(audit, seed=seed))
    records = list(audit.dataset.records)
    added = [
        replace(r, path=f"new/{r.path}", sha256=f"new{i}", pixel_sha256="")
        for i, r in enumerate(records[:new])
    ]
    clusters = dict(audit.clusters) | {f"new/{p}": k for p, k in audit.clusters.items()}
    grown = split(as_audit([*records, *added], clusters), seed=seed + 1, fixed=earlier)
    found = parts(grown)
    assert {path: found[path] for path in earlier} == earlier
    assert all(
        len({found[path] for path in atom}) == 1
        for atom in bound_together(as_audit([*records, *added], clusters))
    )


@given(st.one_of(audits(), audits(alone=0)), st.integers(2, 5), st.integers(0, 100))
def test_folds_are_disjoint_covering_and_closed(audit: Audit, folds: int, seed: int) -> None:
    atoms = bound_together(audit)
    if smallest_class(audit) < 2 or len(atoms) < folds:
        with pytest.raises(SplitError):
            k_folds(audit, folds=folds, seed=seed)
        return
    fold_of = k_folds(audit, folds=folds, seed=seed).fold_of
    assert fold_of.keys() == {record.path for record in audit.dataset.records}
    assert all(len({fold_of[path] for path in atom}) == 1 for atom in atoms)


# -- the allocator against trying everything -------------------------------------------------------


@st.composite
def small_problems(draw: st.DrawFn) -> tuple[list[AtomCounts], list[float], list[list[int]]]:
    """At most 7 atoms of at most 3 classes, 2 or 3 parts, sometimes images that stand already."""
    classes = draw(st.integers(1, 3))
    parts_used = draw(st.integers(2, 3))
    sizes = st.one_of(st.just(1), st.integers(1, 4), st.integers(1, 25))
    held = st.dictionaries(st.integers(0, classes - 1), sizes, min_size=1, max_size=2)
    atoms = [tuple(sorted(atom.items())) for atom in draw(st.lists(held, min_size=1, max_size=7))]
    shares = draw(st.sampled_from(((0.7, 0.15, 0.15), (0.8, 0.1, 0.1), (0.5, 0.3, 0.2))))
    chosen = list(shares) if parts_used == 3 else [shares[0], 1 - shares[0]]
    rows = st.lists(st.integers(0, 6), min_size=parts_used, max_size=parts_used)
    base = draw(st.one_of(st.none(), st.lists(rows, min_size=classes, max_size=classes)))
    return atoms, chosen, base or [[0] * parts_used for _ in range(classes)]


def cost_of(images: Sequence[Sequence[int]], shares: Sequence[float]) -> tuple[float, float, float]:
    """The declared objective, written out with plain loops."""
    empty = excess = squares = 0.0
    for row in images:
        total = sum(row)
        for got, share, must in zip(row, shares, MUST, strict=False):
            if total:
                off = abs(got - share * total)
                empty += must if got == 0 else 0
                excess += max(0.0, off - max(1.0, 0.01 * total) - 1e-9) / total
                squares += off * off / total
    return round(empty, 7), round(excess, 7), round(squares, 7)


def least_cost(
    atoms: Sequence[AtomCounts], shares: Sequence[float], base: list[list[int]]
) -> tuple[float, ...]:
    return min(
        cost_of(placed(atoms, choice, base), shares)
        for choice in itertools.product(range(len(shares)), repeat=len(atoms))
    )


def placed(atoms: Sequence[AtomCounts], choice: Sequence[int], base: list[list[int]]) -> list[list[int]]:
    images = [list(row) for row in base]
    for atom, part in zip(atoms, choice, strict=True):
        for c, n in atom:
            images[c][part] += n
    return images


def allocated(
    atoms: Sequence[AtomCounts], shares: Sequence[float], base: list[list[int]]
) -> tuple[float, ...]:
    """The cost, by the plain loops, of what the allocator chose."""
    standing = np.array(base, dtype=np.int64)
    totals = standing.sum(axis=1) + [
        sum(n for atom in atoms for d, n in atom if d == c) for c in range(len(base))
    ]
    wanted = totals[:, None] * np.array(shares)[None, :]
    found = allocate(atoms, wanted, MUST[: len(shares)], standing)
    assert found.images.tolist() == placed(atoms, found.part_of, base)
    return cost_of(found.images.tolist(), shares)


@given(small_problems())
def test_small_problems_are_solved_as_well_as_by_trying_everything(
    problem: tuple[list[AtomCounts], list[float], list[list[int]]],
) -> None:
    assert allocated(*problem) == pytest.approx(least_cost(*problem), abs=2e-7)


@settings(max_examples=settings.default.max_examples // 3)  # kicks are slow where no better exists
@given(small_problems())
def test_descent_alone_is_hardly_ever_worse(
    problem: tuple[list[AtomCounts], list[float], list[list[int]]],
) -> None:
    """Large problems have only moves and swaps: on small ones these must reach the same first two costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "EXACT_ROWS", 0)
        found = allocated(*problem)
    assert found[:2] == pytest.approx(least_cost(*problem)[:2], abs=2e-7)


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=4),
    st.integers(0, 8),
    st.lists(st.floats(0.05, 1.0), min_size=4, max_size=4),
)
def test_single_images_are_given_out_as_well_as_can_be(
    standing: list[int], singles: int, weights: list[float]
) -> None:
    n, total = len(standing), sum(standing) + singles
    assume(total > 0)
    shares = np.array(weights[:n]) / sum(weights[:n])
    wanted, must = total * shares[None, :], np.array((4.0, 1.0, 2.0, 1.0)[:n])
    given_out = fill_with_singles(np.array([standing]), np.array([singles]), wanted, must)
    assert given_out.sum() == singles
    assert (given_out >= 0).all()
    choices = [c for c in itertools.product(range(singles + 1), repeat=n) if sum(c) == singles]
    every = class_costs(np.array(standing) + np.array(choices), np.repeat(wanted, len(choices), axis=0), must)
    best = min(tuple(row) for row in every.round(7).tolist())
    chosen = class_costs(np.array([standing]) + given_out, wanted, must)[0].round(7)
    assert tuple(chosen) == pytest.approx(best, abs=2e-7)


def test_the_profiles_that_this_module_speaks_of_exist() -> None:
    assert settings.get_profile("thorough").max_examples >= 1000
