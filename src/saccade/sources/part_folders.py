"""Which folders are parts: decided by their names and by the folders that they hold.

`Training` and `Testing`, or `seg_train` and `seg_test`, are parts where they hold the same class folders.
A lone `train` beside other folders of images may as well be a class, so it stops the run; so do folders
that hold the same folders under names that mean no part, and parts inside the class folders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from saccade.errors import SourceError
from saccade.sources.listing import Listing
from saccade.sources.names import natural_key, some
from saccade.sources.part_names import Hint, part_hint, settled

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
    """The folders that are parts, none for unsplit data; raises SourceError where nobody can tell."""
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
        train = [top for top, hint in hints.items() if hint.part == "train" and _only_folders(tops[top])]
    classes = {name for top in train for name in tops[top].inner}
    held_out = {top: hint for top, hint in hints.items() if hint.part != "train"}
    others = {top: hint for top, hint in held_out.items() if _is_part(top, tops[top], hint, classes)}
    if not train or (loose and not others):
        return {}
    if not others:
        _refuse_lone_train(tops, train, classes, where)
    return settled({**{top: hints[top] for top in train}, **_fitting(others)})


def _only_folders(top: _Top) -> bool:
    return not top.direct and bool(top.inner)


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
            f"{where}: is {name} a part or a class? Beside it stands neither validation nor test, but other "
            f"folders with {images:,} images: {some(sorted(beside, key=natural_key), most=5)}. Do: to use "
            f"{name} alone, give {name} itself as the data; call other parts validation and test; for a "
            f"class called {name}, give a list with path,label"
        )


def _refuse_parts_without_classes(tops: Mapping[str, _Top], where: str) -> None:
    hints = {top: hint for top in tops if (hint := part_hint(top)) and hint.exact}
    if len(tops) > 1 and len(hints) == len(tops) and any(hint.part == "train" for hint in hints.values()):
        raise SourceError(
            f"{where}: has {some(tops)} but no class folders inside train; "
            "do: train/CLASS/image.jpg, and the same for the other parts"
        )


def _refuse_twice(parts: Mapping[str, str], where: str) -> None:
    by_part: dict[str, list[str]] = defaultdict(list)
    for top, part in parts.items():
        by_part[part].append(top)
    twice = [top for names in by_part.values() if len(names) > 1 for top in names]
    if twice:
        raise SourceError(f"{where}: {some(twice)} mean the same part; keep one of them")


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
    nested = {top: found for top, found in tops.items() if _only_folders(found)}
    for top, found in nested.items():
        parts = {name: hint.part for name in found.inner if (hint := part_hint(name)) and hint.exact}
        if "train" in parts.values() and len(set(parts.values())) > 1:
            raise SourceError(
                f"{where}: parts inside class folders: {some(f'{top}/{name}' for name in parts)}. "
                f"Do: turn the order round, train/CLASS/image.jpg and test/CLASS/image.jpg, {_A_LIST},part"
            )
    common = _common(found.inner for found in nested.values())
    held = sum(len(found.inner) for found in nested.values())
    in_common = sum(name in common for found in nested.values() for name in found.inner)
    images = sum(found.images for found in tops.values())
    most = 2 * sum(found.images for found in nested.values()) > images
    if len(nested) > 1 and len(common) > 1 and 2 * in_common > held and most:
        raise SourceError(
            f"{where}: {some(sorted(nested, key=natural_key), most=5)} hold the same folders "
            f"({some(sorted(common, key=natural_key), most=5)}), so these look like the classes, not those. "
            "Do: if they are parts, call them train, validation and test; if not, keep one level of "
            f"folders, one for each class, {_A_LIST}"
        )


def _common(inner: Iterable[Mapping[str, int]]) -> frozenset[str]:
    """Names that stand in more than half of the folders."""
    every = [set(names) for names in inner]
    union = set().union(*every)
    return frozenset(name for name in union if 2 * sum(name in names for names in every) > len(every))
