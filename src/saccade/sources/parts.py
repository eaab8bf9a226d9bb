"""Which names, folders and columns mean train, validation and test."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saccade.errors import SourceError
from saccade.records import Finding
from saccade.sources.listing import Listing
from saccade.sources.naming import as_text, doubt, how_it_is_read, natural_key, some
from saccade.terminal import printable

_PART_OF_WORD = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "test"),  # validation where another name means test
}
_EVALUATION = frozenset({"eval", "evaluation"})
_GENERIC = ("dataset", "images", "image", "imgs", "split", "data", "sets", "set", "part", "fold", "folder")


@dataclass(frozen=True, slots=True)
class Hint:
    """What a name says: the part, whether it says nothing else, and whether it is a word for evaluation."""

    part: str
    exact: bool
    evaluation: bool = False


def part_hint(name: str) -> Hint | None:
    """The one part that a name's words mean, None for none or several.

    >>> part_hint("Training"), part_hint("seg_test")
    (Hint(part='train', exact=True, evaluation=False), Hint(part='test', exact=False, evaluation=False))
    """
    words = [_without_ending(word) for word in _words(name)]
    known = [word for word in words if word in _PART_OF_WORD]
    parts = {_PART_OF_WORD[word] for word in known}
    if len(parts) != 1:
        return None
    exact = all(word in _PART_OF_WORD or word in _GENERIC for word in words)
    return Hint(parts.pop(), exact, known[0] in _EVALUATION)


def _words(name: str) -> list[str]:
    """`seg_train`, `TestSet` and `val2017` in words of small letters."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+", parted.casefold())


def _without_ending(word: str) -> str:
    stems = (word.removesuffix(ending) for ending in _GENERIC if word.endswith(ending))
    return next((stem for stem in stems if stem in _PART_OF_WORD), word)


def settled(hints: dict[str, Hint]) -> dict[str, str]:
    """The part of each name: `eval` is the test part, or validation where another name means test."""
    test_named = any(hint.part == "test" and not hint.evaluation for hint in hints.values())
    return {
        name: "validation" if hint.evaluation and test_named else hint.part for name, hint in hints.items()
    }


def parts_of_values(values: Iterable[str]) -> dict[str, str]:
    """The part that each distinct value of a column means; those that mean none are absent."""
    hints = {value: part_hint(value) for value in set(values) if value}
    return settled({value: hint for value, hint in hints.items() if hint and hint.exact})


def parts_of_files(names: Collection[str], where: str) -> dict[str, str]:
    """The part that each file's name or folders say; none says one, or each does; raises SourceError.

    The file's own name counts before its folders, the nearest folder first.
    """
    hints = {name: _nearest_hint(name) for name in names}
    unnamed = [name for name, hint in hints.items() if hint is None]
    if len(unnamed) == len(hints):
        return dict.fromkeys(names, "")
    if unnamed:
        raise SourceError(
            f"{where}: {len(unnamed):,} of {len(hints):,} files name no part, the others do: "
            f"{some(unnamed, most=5)}",
            hint="name each with train, validation or test, or move them elsewhere",
        )
    return settled({name: hint for name, hint in hints.items() if hint})


def _nearest_hint(name: str) -> Hint | None:
    """What the last telling word of the file's name says, else of its nearest folder."""
    for piece in reversed(name.split("/")):
        known = [word for word in map(_without_ending, _words(piece)) if word in _PART_OF_WORD]
        if known:
            return Hint(_PART_OF_WORD[known[-1]], True, known[-1] in _EVALUATION)
    return None


# -- part folders ----------------------------------------------------------------------------------------
# Which folders are parts: decided by their names and by the folders that they hold.
# `Training` and `Testing`, or `seg_train` and `seg_test`, are parts where they hold the same class folders.
# A lone `train` beside other folders of images may as well be a class, so it stops the run; so do folders
# that hold the same folders under names that mean no part, and parts inside the class folders.


_A_LIST = "or give a list with path,label"


@dataclass(frozen=True, slots=True)
class PartFolder:
    """A folder below the root that is a part; its class folders lie directly in it."""

    path: str
    part: str


@dataclass(slots=True)
class _Top:
    """A folder at the top, or the one it wraps: images directly in it, and below each folder inside."""

    path: str
    direct: int = 0
    inner: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    folders: set[str] = field(default_factory=set)

    @property
    def images(self) -> int:
        return self.direct + sum(self.inner.values())

    @property
    def only_folders(self) -> bool:
        return not self.direct and bool(self.inner)

    def take(self, path: str) -> None:
        """Count the image of this path below the folder."""
        folder, _, rest = path.partition("/")
        if rest:
            self.inner[folder] += 1
        else:
            self.direct += 1

    def shares(self, classes: Collection[str]) -> bool:
        """Whether most of its folders are among these classes."""
        common = sum(name in classes for name in self.inner)
        return common > 0 and 2 * common >= len(self.inner)


def find_part_folders(listing: Listing, where: str) -> tuple[PartFolder, ...]:
    """The folders that are parts, none for unsplit data; raises SourceError for ambiguous layouts."""
    tops = _tops(listing)
    parts = _named_parts(tops, where)
    if not parts:
        _refuse_parts_without_classes(tops, where)
        _refuse_second_level(tops, where)
        return ()
    _refuse_twice(parts, where)
    return tuple(PartFolder(tops[top].path, part) for top, part in parts.items())


def _tops(listing: Listing) -> dict[str, _Top]:
    lost = [lost.path for lost in listing.lost if lost.folder]
    tops: dict[str, _Top] = {path: _Top(path) for path in (*listing.folders, *lost) if "/" not in path}
    for folder in listing.folders:
        top, _, rest = folder.partition("/")
        if rest:
            tops[top].folders.add(rest.partition("/")[0])
    for path in listing.files:
        top, _, rest = path.partition("/")
        if rest:
            tops[top].take(rest)
    return {name: _unwrapped(listing, name, top) for name, top in tops.items()}


def _named_parts(tops: Mapping[str, _Top], where: str) -> dict[str, str]:
    """Top folders whose names mean parts; empty where there is no training part among them."""
    hints = {top: hint for top in tops if (hint := part_hint(top))}
    exact = {top: hint for top, hint in hints.items() if hint.exact}
    train = [top for top, hint in exact.items() if hint.part == "train" and tops[top].folders]
    loose = not train
    if loose:
        train = [top for top, hint in hints.items() if hint.part == "train" and tops[top].only_folders]
    classes = {name for top in train for name in tops[top].inner}
    held_out = {top: hint for top, hint in hints.items() if hint.part != "train"}
    others = {top: hint for top, hint in held_out.items() if _is_part(top, tops[top], hint, classes)}
    if not train or (loose and not others):
        return {}
    if not others:
        _refuse_lone_train(tops, train, classes, where)
    return settled({**{top: hints[top] for top in train}, **_fitting(others)})


def _is_part(name: str, top: _Top, hint: Hint, classes: Collection[str]) -> bool:
    """Whether a folder beside the training folder is a part: by its plain name, or by what it holds."""
    plain = name.casefold() in ("val", "valid", "validation", "test")
    return plain or top.shares(classes) or (hint.exact and not top.inner and not top.folders)


def _fitting(others: Mapping[str, Hint]) -> dict[str, Hint]:
    """Without `eval` where both other parts are named, and without loose names where exact ones are."""
    exact = {hint.part for hint in others.values() if hint.exact and not hint.evaluation}
    return {
        top: hint
        for top, hint in others.items()
        if not (hint.evaluation and len(exact) == 2) and (hint.exact or hint.part not in exact)
    }


def _refuse_lone_train(
    tops: Mapping[str, _Top], train: Collection[str], classes: Collection[str], where: str
) -> None:
    """Raise SourceError for a training folder without any other part, beside folders that look like data."""
    beside = {top: found for top, found in tops.items() if top not in train and found.images}
    like_classes = [top for top, found in beside.items() if found.direct and not found.inner]
    alike = [top for top, found in beside.items() if found.shares(classes)]
    images, trained = sum(found.images for found in beside.values()), sum(tops[t].images for t in train)
    if images >= trained or len(like_classes) > 1 or alike:
        name = some(train)
        raise SourceError(
            f"{where}: is {name} a part or a class? It has no validation or test beside it, but other "
            f"folders with {images:,} images: {some(sorted(beside, key=natural_key), most=5)}",
            hint=f"to use {name} alone, give {name} itself as the data; call other parts validation and "
            f"test; for a class called {name}, give a list with path,label",
        )


def _refuse_parts_without_classes(tops: Mapping[str, _Top], where: str) -> None:
    hints = {top: hint for top in tops if (hint := part_hint(top)) and hint.exact}
    if len(tops) > 1 and len(hints) == len(tops) and any(hint.part == "train" for hint in hints.values()):
        raise SourceError(
            f"{where}: has {some(tops)} but no class folders inside train",
            hint="train/CLASS/image.jpg, and the same for the other parts",
        )


def _refuse_twice(parts: Mapping[str, str], where: str) -> None:
    by_part: dict[str, list[str]] = defaultdict(list)
    for top, part in parts.items():
        by_part[part].append(top)
    twice = [top for names in by_part.values() if len(names) > 1 for top in names]
    if twice:
        raise SourceError(f"{where}: {some(twice)} mean the same part", hint="keep one of them")


def _unwrapped(listing: Listing, name: str, found: _Top) -> _Top:
    """What `seg_train/seg_train` holds, for a part that holds nothing but a folder of the same meaning."""
    hint = part_hint(name)
    path = name
    while hint and not found.direct and len(found.folders) == 1:
        (only,) = found.folders
        if not _means(only, path, hint.part):
            break
        path = f"{path}/{only}"
        found = _inside(listing, path)
    return found


def _inside(listing: Listing, path: str) -> _Top:
    found = _Top(path)
    start = f"{path}/"
    for name in listing.files:
        if name.startswith(start):
            found.take(name[len(start) :])
    found.folders |= {f[len(start) :].split("/")[0] for f in listing.folders if f.startswith(start)}
    return found


def _means(name: str, path: str, part: str) -> bool:
    hint = part_hint(name)
    return name.casefold() == path.rpartition("/")[2].casefold() or bool(hint and hint.part == part)


def _refuse_second_level(tops: Mapping[str, _Top], where: str) -> None:
    """Raise SourceError where the second level looks like the classes, or like the parts."""
    nested = {top: found for top, found in tops.items() if found.only_folders}
    for top, found in nested.items():
        parts = {name: hint.part for name in found.inner if (hint := part_hint(name)) and hint.exact}
        if "train" in parts.values() and len(set(parts.values())) > 1:
            raise SourceError(
                f"{where}: parts inside class folders: {some(f'{top}/{name}' for name in parts)}",
                hint=f"turn the order round, train/CLASS/image.jpg and test/CLASS/image.jpg, {_A_LIST},part",
            )
    common = _common(found.inner for found in nested.values())
    held = sum(len(found.inner) for found in nested.values())
    in_common = sum(name in common for found in nested.values() for name in found.inner)
    images = sum(found.images for found in tops.values())
    most = 2 * sum(found.images for found in nested.values()) > images
    if len(nested) > 1 and len(common) > 1 and 2 * in_common > held and most:
        raise SourceError(
            f"{where}: {some(sorted(nested, key=natural_key), most=5)} hold the same folders "
            f"({some(sorted(common, key=natural_key), most=5)}), so these look like the classes, not those",
            hint=(
                "if they are parts, call them train, validation and test; if not, keep one level of "
                f"folders, one for each class, {_A_LIST}"
            ),
        )


def _common(inner: Iterable[Mapping[str, int]]) -> frozenset[str]:
    """Names that stand in more than half of the folders."""
    every = [set(names) for names in inner]
    union = set().union(*every)
    return frozenset(name for name in union if 2 * sum(name in names for names in every) > len(every))


# -- part columns ----------------------------------------------------------------------------------------
# Which column of a list or table names the parts: `part`, or another usual name with part names in it.


PART_COLUMNS = ("part", "split", "set", "subset", "partition", "fold", "is_valid")
_VALID = {"true": "validation", "1": "validation", "false": "train", "0": "train"}


@dataclass(frozen=True, slots=True)
class PartColumn:
    """The column that names the parts ("" without one), the part of each of its values, and what to say."""

    name: str = ""
    part_of: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def part(self, value: Any) -> str | None:
        """The part a cell names, "" for an empty one; None for what names no part."""
        text = as_text(value).strip()
        return self.part_of.get(text) if text else ""


def find_part_column(columns: Mapping[str, Iterable[Any]], where: str) -> PartColumn:
    """`columns` hold the values of those whose name is in PART_COLUMNS (in any case).

    Raises SourceError for a column that mixes part names and other values, which have no meaning. `part` may
    hold any value; its rows are checked one by one.
    """
    named = sorted(columns, key=lambda name: PART_COLUMNS.index(name.casefold()))
    chosen = PartColumn()
    findings: list[Finding] = []
    for name in named:
        values = {text for value in columns[name] if (text := as_text(value).strip())}
        part_of = _parts(name, values)
        if chosen.name or not (part_of or (name == "part" and values)):
            findings += _not_used(name, values, chosen.name)
            continue
        other = sorted(values - set(part_of), key=natural_key)
        if other and name != "part":
            raise SourceError(
                f"{where}: column {printable(name)} names parts, but also {some(other, most=5)}",
                hint="use train, validation and test there, and remove rows that belong to none; "
                "with another name for the column the images are divided anew",
            )
        chosen = PartColumn(name, part_of)
        findings += _as_read(chosen)
    return PartColumn(chosen.name, chosen.part_of, tuple(findings))


def _parts(name: str, values: set[str]) -> dict[str, str]:
    if name.casefold() == "is_valid" and {value.casefold() for value in values} <= set(_VALID):
        return {value: _VALID[value.casefold()] for value in values}
    return parts_of_values(values)


def _as_read(column: PartColumn) -> list[Finding]:
    """Said where the names are not those that saccade writes itself."""
    plain = column.name == "part" and all(value == part for value, part in column.part_of.items())
    usual = {"val", "valid"}
    if plain or (column.name == "part" and set(column.part_of) - set(column.part_of.values()) <= usual):
        return []
    said = ", ".join(
        part if value == part else f"{printable(value)} as {part}"
        for value, part in sorted(column.part_of.items())
    )
    return [
        how_it_is_read(
            f"column {printable(column.name)} read as the parts: {said}",
            "Rename the column if that is not what it means",
        )
    ]


def _not_used(name: str, values: set[str], chosen: str) -> list[Finding]:
    shown = some(sorted(values, key=natural_key), most=5)
    if not values:
        return []
    if chosen:
        message = (
            f"column {printable(name)} ({shown}) is not used: column {printable(chosen)} names the parts"
        )
        return [doubt(message, "Remove the column that is not meant")]
    return [
        doubt(
            f"column {printable(name)} ({shown}) is not used: its values are no part names, so the images "
            "are divided anew",
            "To keep that division, write train, validation or test into a column called part, fold by fold; "
            f"to keep each value in one part, pass --group {printable(name)}",
        )
    ]
