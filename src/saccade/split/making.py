"""A new split: shares of each class, whole atoms, earlier parts kept; and why a share could not be met."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from saccade.audit.findings import WAYS_ON_ALIKE
from saccade.errors import SplitError
from saccade.records import PARTS, ImageRecord
from saccade.split.allocate import AtomCounts, allocate
from saccade.split.atoms import EVERY, NO_LABEL, Atom, class_counts, class_order
from saccade.split.objective import Floats, Ints, fill_with_singles, tolerance

# A class that cannot be trained on is worse than one that is not tested; least bad is one not validated.
BESIDE = {NO_LABEL: "images without a label", EVERY: "all images"}  # classes that may be missing in a part
MUST = {"train": 4.0, "validation": 1.0, "test": 2.0}


@dataclass(frozen=True, slots=True)
class Shares:
    """Part names and the share of each class wanted there; shares sum to 1."""

    parts: tuple[str, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, validation: float, test: float) -> Shares:
        """Raises SplitError unless something is left to train on.

        >>> Shares.of(0.25, 0.25).shares
        (0.5, 0.25, 0.25)
        """
        if min(validation, test) < 0 or validation + test >= 1:
            raise SplitError(
                f"validation + test must lie from 0 to below 1, got {validation} + {test}",
                hint="the rest of the images go to training",
            )
        return cls(PARTS, (1.0 - validation - test, validation, test))

    def without_unused(self, used: Mapping[int, str]) -> Shares:
        """Only the parts that have a share, or images that stand there already."""
        kept = [
            (p, s) for p, s in zip(self.parts, self.shares, strict=True) if s > 0 or p in set(used.values())
        ]
        return Shares(tuple(p for p, _ in kept), tuple(s for _, s in kept))

    @property
    def must(self) -> tuple[float, ...]:
        """The cost of a class that is missing in each part."""
        return tuple(MUST.get(p, 1.0) if s > 0 else 0.0 for p, s in zip(self.parts, self.shares, strict=True))


@dataclass(frozen=True, slots=True)
class Assignment:
    """The part of each record, by its index, and why shares were missed."""

    part_of: Mapping[int, str]
    reasons: tuple[str, ...] = ()


def assign(
    records: Sequence[ImageRecord],
    atoms: Sequence[Atom],
    shares: Shares,
    *,
    standing: Mapping[int, str] | None = None,
    least: int | None = None,
) -> Assignment:
    """A part for every atom: those with a place in `standing` (atom number -> part) keep it.

    Raises SplitError when a class has fewer than `least` atoms, which is the number of parts if not given.
    """
    standing = standing or {}
    shares = shares.without_unused(standing)
    table = ClassTable.of(records, atoms)
    base = table.base(standing, shares.parts)
    alike = joined_by_likeness(records, atoms)
    refuse_small_classes(
        table.labels, table.counts, base, standing, shares.parts, np.array(shares.must), least, alike=alike
    )
    wanted = table.totals[:, None] * np.array(shares.shares)[None, :]
    return place(records, atoms, table, shares.parts, wanted, shares.must, standing)


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Class names by number, what each atom holds, and images per class."""

    labels: tuple[str, ...]
    counts: list[tuple[tuple[int, int], ...]]
    totals: Ints

    @classmethod
    def of(cls, records: Sequence[ImageRecord], atoms: Sequence[Atom]) -> ClassTable:
        order = class_order(records, atoms)
        counts = class_counts(records, atoms, order)
        totals = np.zeros(len(order), dtype=np.int64)
        for atom in counts:
            for c, n in atom:
                totals[c] += n
        return cls(tuple(order), counts, totals)

    def base(self, standing: Mapping[int, str], parts: Sequence[str]) -> Ints:
        """(classes, parts) images of the atoms that stand already."""
        base = np.zeros((len(self.labels), len(parts)), dtype=np.int64)
        for number, part in standing.items():
            for c, n in self.counts[number]:
                base[c, parts.index(part)] += n
        return base


def place(
    records: Sequence[ImageRecord],
    atoms: Sequence[Atom],
    table: ClassTable,
    parts: Sequence[str],
    wanted: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    must: Sequence[float],
    standing: Mapping[int, str],
) -> Assignment:
    """Allocate the atoms that do not stand yet, towards `wanted` (classes, parts) images."""
    free = [number for number in range(len(atoms)) if number not in standing]
    base = table.base(standing, parts)
    allocation = allocate(
        [table.counts[number] for number in free],
        wanted,
        must,
        base,
        overlapping=any(record.several for record in records),
    )
    part_of = dict(standing) | {n: parts[p] for n, p in zip(free, allocation.part_of, strict=True)}
    outcome = Outcome(table.labels, tuple(parts), allocation.images, wanted, base)
    by_record = {i: part for number, part in part_of.items() for i in atoms[number].members}
    return Assignment(
        by_record,
        name_reasons(
            outcome,
            lambda classes: _held(table.counts, classes),
            lambda number: _name(records, atoms[number]),
        ),
    )


# -- reasons ---------------------------------------------------------------------------------------------
# Why a share could not be met, in words; and which classes are too small to be divided at all.


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a division came to: (classes, parts) images there, wanted there, and there beforehand."""

    labels: tuple[str, ...]
    parts: tuple[str, ...]
    images: Ints
    wanted: Floats
    base: Ints


def joined_by_likeness(records: Sequence[ImageRecord], atoms: Sequence[Atom]) -> frozenset[int]:
    """Numbers of the atoms of several images that no one group, but what they look like, keeps together."""
    return frozenset(
        number
        for number, atom in enumerate(atoms)
        if len(atom) > 1 and len({records[i].group or str(i) for i in atom.members}) > 1
    )


def refuse_small_classes(
    labels: Sequence[str],
    counts: Sequence[AtomCounts],
    base: Ints,
    standing: Container[int],
    parts: Sequence[str],
    must: Floats,
    least: int | None,
    *,
    alike: Container[int] = (),
) -> None:
    """Raises SplitError that lists every class with fewer atoms than parts that still need one.

    `alike` are the numbers of atoms that near-duplicates keep together: the advice for these is another.
    """
    free = np.zeros(len(labels), dtype=np.int64)
    images, look_alikes = base.sum(axis=1), np.zeros(len(labels), dtype=np.int64)
    for number, atom in enumerate(counts):
        if number not in standing:
            for c, n in atom:
                free[c] += 1
                images[c] += n
                look_alikes[c] += n if number in alike else 0
    refuse_short(labels, Sizes(free, images, look_alikes), base, parts, must, least)


@dataclass(frozen=True, slots=True)
class Sizes:
    """(classes,) atoms that stand nowhere yet, all images, and images in atoms that near-duplicates join."""

    free: Ints
    images: Ints
    look_alikes: Ints


def refuse_short(
    labels: Sequence[str],
    sizes: Sizes,
    base: Ints,
    parts: Sequence[str],
    must: Floats,
    least: int | None = None,
) -> None:
    """Raises what `refuse_small_classes` does."""
    free, images = sizes.free, sizes.images
    missing = (base == 0) & (must > 0) & np.array([[label not in BESIDE] for label in labels])
    needed = missing.sum(axis=1) if least is None else np.minimum(missing.sum(axis=1), least)
    short = np.flatnonzero(free < needed)
    if not len(short):
        return
    listed = sorted(_size(labels[c], int(images[c]), int(free[c])) for c in short.tolist())
    untested = missing[:, [part != "test" for part in parts]].sum(axis=1)
    helped = [labels[c] for c in short.tolist() if least is None and free[c] >= untested[c]]
    aim = "both train and be held out" if least else f"have an image in each of {', '.join(parts)}"
    raise SplitError(
        f"{len(listed)} of {len(labels)} classes cannot {aim}: {'; '.join(listed)}",
        hint=_advice(bool((2 * sizes.look_alikes[short] >= images[short]).any()), helped, len(short)),
    )


def refuse_few_images(counts: Mapping[str, int], parts: Sequence[str]) -> None:
    """Raise SplitError for classes with fewer images than parts, which is known before any is read."""
    short = {label: count for label, count in counts.items() if count < len(parts)}
    if short:
        listed = "; ".join(_size(label, count, count) for label, count in sorted(short.items()))
        untested = [label for label, count in short.items() if "test" in parts and count >= len(parts) - 1]
        raise SplitError(
            f"{len(short)} of {len(counts)} classes cannot have an image in each of {', '.join(parts)}: "
            f"{listed}",
            hint=_advice(False, untested, len(short)),
        )


def _advice(alike: bool, helped: Sequence[str], short: int) -> str:
    """What to do about classes that are too small; `helped` are those that need no test part."""
    fewer = ""
    if helped:
        names = ", ".join(map(repr, sorted(helped)))
        whom = "" if len(helped) == short else f", which would do for {names}"
        fewer = f", or ask for fewer parts (--split.test 0){whom}"
    add = f"add independent images to these classes, merge or remove them{fewer}"
    if not alike:
        return add
    return (
        "near-duplicates joined most images of a class: they look alike (a fixed camera, one form?). "
        f"If they show different things, {WAYS_ON_ALIKE}. Otherwise {add}"
    )


def _size(label: str, images: int, free: int) -> str:
    noun = "image" if images == 1 else "images"
    if images == free:
        return f"class {label!r} has {images} {noun}"
    sets = "set that stays" if free == 1 else "sets that stay"
    return f"class {label!r} has {images} {noun} in {free} {sets} together"


def name_reasons(
    outcome: Outcome, held_by: Callable[[set[int]], Mapping[int, Held]], name: Callable[[int], str]
) -> tuple[str, ...]:
    """One sentence for each class beyond the tolerance somewhere: where, and what holds it there.

    held_by: what atoms hold of these classes. name: what an atom is called, by its number.
    """
    totals = outcome.images.sum(axis=1)
    off = np.abs(outcome.images - outcome.wanted)
    late = np.flatnonzero((off > tolerance(totals)[:, None] + 1e-9).any(axis=1))
    if not len(late):
        return ()
    held = held_by(set(late.tolist()))
    sentences = []
    for c in late.tolist():
        part, total = int(off[c].argmax()), int(totals[c])
        got, wish = outcome.images[c, part] / total, outcome.wanted[c, part] / total
        cause = _cause(outcome, c, part, held[c], name)
        what = BESIDE.get(outcome.labels[c], f"class {outcome.labels[c]!r}")
        sentences.append(f"{what}: {got:.0%} in {outcome.parts[part]} instead of {wish:.0%}: {cause}")
    return tuple(sorted(sentences))


@dataclass(slots=True)
class Held:
    """Of one class: the most images that one atom holds and that atom's number, and images in mixed atoms."""

    most: int = 0
    atom: int = -1
    mixed: int = 0


def _held(counts: Sequence[AtomCounts], classes: Container[int]) -> dict[int, Held]:
    found: dict[int, Held] = defaultdict(Held)
    for number, atom in enumerate(counts):
        for c, n in atom:
            if c in classes:
                held = found[c]
                held.mixed += n if len(atom) > 1 else 0
                if n > held.most:
                    held.most, held.atom = n, number
    return found


def _cause(outcome: Outcome, c: int, part: int, held: Held, name: Callable[[int], str]) -> str:
    """What keeps the class from its share: what stood before, a large atom, other classes, or its size."""
    total = int(outcome.images[c].sum())
    window = 2 * tolerance(outcome.images[c].sum(keepdims=True))[0]
    if outcome.base[c, part] > outcome.wanted[c, part] + 1:
        return f"{outcome.base[c, part]} of its {total} images stood there before"
    if held.most > window or (held.most > 1 and not held.mixed):  # smaller atoms alone never miss
        return f"{name(held.atom)} holds {held.most} of its {total} images"
    if held.mixed and not _too_few(outcome, c):
        some = "all" if held.mixed == total else f"{held.mixed} of"
        return f"{some} its {total} images must stay with images of other classes"
    return f"it has {total} images, too few for these shares"


def _too_few(outcome: Outcome, c: int) -> bool:
    """Whether the class would miss its shares even if each of its images stood alone."""
    wanted = outcome.wanted[c : c + 1]
    total = outcome.images[c : c + 1].sum(axis=1)
    alone = fill_with_singles(
        np.zeros_like(outcome.images[c : c + 1]), total, wanted, np.ones(wanted.shape[1])
    )
    return bool((np.abs(alone - wanted) > tolerance(total)[:, None]).any())


def _name(records: Sequence[ImageRecord], atom: Atom) -> str:
    groups = sorted({records[i].group for i in atom.members if records[i].group})
    if len(groups) == 1:
        return f"group {groups[0]!r}"
    if groups:
        more = " and more" if len(groups) > 3 else ""
        return f"what copies join of groups {', '.join(map(repr, groups[:3]))}{more}"
    return f"a set of copies around {min(records[i].path for i in atom.members)!r}"


def moved_sentence(moved: Sequence[tuple[str, str, str]], *, most: int = 5, count: int = 0) -> str:
    """How many images had to leave their part, and the first of them: (path, earlier part, part).

    count: how many, where `moved` has only the first.
    """
    count = count or len(moved)
    listed = [f"{path!r} ({old} to {new})" for path, old, new in moved[:most]]
    more = f" and {count - most} more" if count > most else ""
    noun = "image" if count == 1 else "images"
    return f"moved {count} {noun} to keep groups and copies together: {', '.join(listed)}{more}"


def group_names(groups: Mapping[str, set[str]], *, count: int, most: int = 10) -> str:
    """The first groups with their parts, and how many more of `count` there are."""
    listed = [f"{name!r} ({', '.join(sorted(parts))})" for name, parts in sorted(groups.items())]
    more = f" and {count - most} more" if count > most else ""
    return ", ".join(listed[:most]) + more
