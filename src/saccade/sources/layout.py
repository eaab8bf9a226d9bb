"""From paths to labels and parts: a folder per class, alone or below train/, val/ and test/.

The class is the first folder (the first below the part); images in deeper folders belong to that class, and
`listed` says so. Images beside the class folders have no class. A class or a part that loses all or most of
its files by a rule stops the run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from saccade.errors import SourceError
from saccade.records import PARTS, Finding, ImageRecord
from saccade.sources.listing import OWN_OUTPUT, Listing, Lost
from saccade.sources.naming import ARCHIVE_SUFFIXES, check_classes, how_it_is_read, natural_key, some, suffix
from saccade.sources.parts import PartFolder, find_part_folders, part_hint
from saccade.terminal import printable

_BESIDE = "lies beside the class folders, so it has no class"
_MOST_LINES = 1000  # about one thing; how many more there are is said
_SHOWN_REASONS = 3

Place = tuple[str, str]  # part ("" without), class
WHOLE_PART = ""  # in the place of a class: images that lie in the part's folder itself


@dataclass(frozen=True, slots=True)
class Layout:
    """Records in path order, classes in natural order, lines and findings for the audit."""

    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    given_parts: tuple[str, ...]
    listed: tuple[str, ...]
    empty_classes: tuple[str, ...]
    lost: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class _Sorting:
    """Records by the folders of their paths, and what lies elsewhere."""

    part_folders: tuple[PartFolder, ...]
    records: list[ImageRecord] = field(default_factory=list)
    without_class: list[str] = field(default_factory=list)
    deeper: Counter[str] = field(default_factory=Counter)
    beside: Counter[str] = field(default_factory=Counter)
    tops: dict[str, tuple[list[str], str]] = field(init=False)

    def __post_init__(self) -> None:
        self.tops = {f.path.split("/")[0]: (f.path.split("/"), f.part) for f in self.part_folders}

    def place(self, folders: Sequence[str]) -> Place | None:
        """The part and class of what lies in these folders; None for what lies beside the parts."""
        if not self.part_folders:
            return "", folders[0] if folders else WHOLE_PART
        pieces, part = self.tops.get(folders[0] if folders else "", ([], ""))
        if not part or folders[: len(pieces)] != pieces:
            return None
        return part, folders[len(pieces)] if len(folders) > len(pieces) else WHOLE_PART

    def depth(self, folders: Sequence[str]) -> int:
        """How many folders lead to the class, its own included."""
        return 1 + (len(self.tops[folders[0]][0]) if self.part_folders else 0)


def arrange(listing: Listing, where: str, *, drop_empty: bool, min_classes: int) -> Layout:
    """Give each image its label and part by its folders; raises SourceError where that has no sense."""
    sorting = _Sorting(find_part_folders(listing, where))
    _sort(sorting, listing.files)
    records = sorting.records
    if not records:
        raise _nothing_found(where, listing, sorting)
    _refuse_lost_parts(listing, sorting, where, drop_empty=drop_empty)
    empty = _empty_classes(listing, sorting, {record.label for record in records})
    if empty and not drop_empty:
        reasons = _reasons(_below_classes(listing, sorting, empty))
        raise SourceError(
            f"{where}: class folders without an image: {some(empty)}",
            *reasons,
            hint="fill or remove them, or pass --drop-empty",
        )
    _refuse_mostly_lost(listing, sorting, where, dropped=empty)
    classes = check_classes(
        {record.label for record in records}, where, min_classes=min_classes, remedy="rename the folder"
    )
    given = tuple(part for part in PARTS if any(record.part == part for record in records))
    lost = [*map(str, _that_may_matter(listing, sorting)), *_beside_lines(sorting)]
    listed = [*listing.listed, *_beside_lines(sorting), *_deeper_lines(sorting)]
    listed += classes_missing_in_parts(records, classes, given)
    findings = _readings(sorting)
    return Layout(tuple(records), classes, given, tuple(listed), empty, tuple(lost), findings)


def places(listing: Listing, where: str) -> Callable[[str], Place]:
    """What tells part and class of an image by the folder that it lies in; "" for what has none.

    Raises SourceError for an ambiguous layout.
    """
    sorting = _Sorting(find_part_folders(listing, where))
    return lambda folder: sorting.place(folder.split("/") if folder else []) or ("", WHOLE_PART)


def _sort(sorting: _Sorting, files: Iterable[str]) -> None:
    """A record for each image that has a class; what has none, or lies deeper, is counted."""
    for path in files:
        folders = path.split("/")[:-1]
        place = sorting.place(folders)
        if place is None and folders:
            sorting.beside[folders[0]] += 1
        elif place is None or not place[1]:
            sorting.without_class.append(path)
        else:
            sorting.records.append(ImageRecord(path, place[1], place[0]))
            depth = sorting.depth(folders)
            if len(folders) > depth:
                sorting.deeper["/".join(folders[:depth])] += 1


def _beside_lines(sorting: _Sorting) -> list[str]:
    outside = sorting.without_class
    lines = [f"{printable(path)}: {_BESIDE}; move it into one" for path in outside[:_MOST_LINES]]
    if len(outside) > _MOST_LINES:
        lines.append(f"and {len(outside) - _MOST_LINES:,} more images: {_BESIDE}")
    return lines + [
        f"{printable(top)}/: {_images(n)}, not one of train, validation, test; left alone"
        for top, n in sorted(sorting.beside.items())
    ]


def _deeper_lines(sorting: _Sorting) -> list[str]:
    return [
        f"{printable(top)}/: {_images(n)} in folders deeper down count as this class"
        for top, n in sorted(sorting.deeper.items())
    ]


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _readings(sorting: _Sorting) -> tuple[Finding, ...]:
    """Said where folders are parts by other names than train, validation and test."""
    plain = {"train", "val", "valid", "validation", "test"}
    odd = [folder for folder in sorting.part_folders if folder.path.casefold() not in plain]
    if not odd:
        return ()
    said = ", ".join(f"{printable(folder.path)} as {folder.part}" for folder in sorting.part_folders)
    return (how_it_is_read(f"folders read as parts: {said}", "Rename them if that is not what they mean"),)


# -- what is lost --------------------------------------------------------------------------------


def _refuse_lost_parts(listing: Listing, sorting: _Sorting, where: str, *, drop_empty: bool) -> None:
    """Raise SourceError for a part of which no image can be used; an empty one may be dropped."""
    filled = {record.part for record in sorting.records}
    empty = [folder for folder in sorting.part_folders if folder.part not in filled]
    unlabelled = {
        place[0] for path in sorting.without_class if (place := sorting.place(path.split("/")[:-1]))
    }
    for folder in empty:
        name = printable(folder.path)
        if folder.part in unlabelled and sorting.part_folders:
            raise SourceError(
                f"{where}: {name} holds images but no class folders: the {folder.part} part would be lost",
                hint=f"{name}/CLASS/image.jpg, or move {name} elsewhere and use it with `saccade predict`",
            )
        lost = [lost for lost in listing.lost if f"{lost.path}/".startswith(f"{folder.path}/")]
        if lost or not drop_empty:
            raise SourceError(
                f"{where}: {name} holds no image: the {folder.part} part would be lost",
                *_reasons(lost),
                hint=f"fill it or remove it{'' if lost else ', or pass --drop-empty'}",
            )
    packed = [lost for lost in listing.lost if _is_packed_part(lost.path, filled)] if filled != {""} else []
    if packed:
        raise SourceError(
            f"{where}: a part is packed: {some(lost.path for lost in packed)}",
            hint="unpack it or move it elsewhere",
        )


def _is_packed_part(path: str, filled: Iterable[str]) -> bool:
    """Whether an archive beside the parts is named like a part that no folder gives."""
    stem, ending = path.partition(".")[0], suffix(path)
    hint = part_hint(stem) if "/" not in path and ending in ARCHIVE_SUFFIXES else None
    return bool(hint and hint.exact and hint.part not in filled)


def _empty_classes(listing: Listing, sorting: _Sorting, filled: set[str]) -> tuple[str, ...]:
    """Class folders in which, over all parts, no image lies; folders that a rule keeps out count as well."""
    lost = [lost.path for lost in listing.lost if lost.folder and not lost.again]
    named = set()
    for folder in (*listing.folders, *lost):
        folders = folder.split("/")
        place = sorting.place(folders)
        if place and place[1] and len(folders) == sorting.depth(folders):
            named.add(place[1])
    return tuple(sorted(named - filled, key=natural_key))


def _below_classes(listing: Listing, sorting: _Sorting, classes: Iterable[str]) -> list[Lost]:
    wanted = set(classes)
    return [lost for lost in listing.lost if (place := _place_of(lost, sorting)) and place[1] in wanted]


def _place_of(lost: Lost, sorting: _Sorting) -> Place | None:
    pieces = lost.path.split("/")
    return sorting.place(pieces if lost.folder else pieces[:-1])


def _refuse_mostly_lost(listing: Listing, sorting: _Sorting, where: str, *, dropped: Collection[str]) -> None:
    """Raise SourceError for classes, and parts of classes, of which a rule keeps out more than it leaves."""
    kept = Counter((record.part, record.label) for record in sorting.records)
    lost: Counter[Place] = Counter()
    for folder, count in listing.lost_files.items():
        place = sorting.place(folder.split("/") if folder else [])
        if place and place[1]:
            lost[place] += count
    gone = {place for place, count in lost.items() if count > kept[place]}
    for one in listing.lost:
        place = _place_of(one, sorting) if one.folder and not one.again else None
        if place and place[1] and not kept[place]:
            gone.add(place)
    gone = {place for place in gone if place[1] not in dropped}
    if gone:
        named = [lost for lost in listing.lost if _place_of(lost, sorting) in gone]
        counts = some(
            f"{'/'.join(filter(None, place))} (used {kept[place]:,}, not used {max(1, lost[place]):,})"
            for place in sorted(gone)
        )
        raise SourceError(
            f"{where}: most files of a class cannot be used: {counts}",
            *_reasons(named),
            hint="correct what is named here, or move these files elsewhere",
        )
    _refuse_unlabelled(sorting, where)


def _refuse_unlabelled(sorting: _Sorting, where: str) -> None:
    """Raise SourceError for a part with more images beside its class folders than in them."""
    kept = Counter(record.part for record in sorting.records)
    places = [sorting.place(path.split("/")[:-1]) for path in sorting.without_class]
    beside = Counter(place[0] for place in places if place and place[0])
    for part, count in beside.items():
        if count > kept[part]:
            raise SourceError(
                f"{where}: {_images(count)} of {part} lie beside its class folders, {kept[part]:,} in them",
                hint="move each into the folder of its class",
            )


def _that_may_matter(listing: Listing, sorting: _Sorting) -> list[Lost]:
    """What is lost inside class folders, and images, folders and archives elsewhere."""
    return [
        lost
        for lost in listing.lost
        if ((place := _place_of(lost, sorting)) and place[1] and not _just_again(lost, sorting))
        or suffix(lost.path) in ARCHIVE_SUFFIXES
        or ("link" in lost.why and not lost.again)
    ]


def _just_again(lost: Lost, sorting: _Sorting) -> bool:
    """A link inside a class folder to what is read anyway loses nothing; a class folder that is one does."""
    pieces = lost.path.split("/")
    return lost.again and len(pieces) > sorting.depth(pieces)


def _reasons(lost: Sequence[Lost]) -> list[str]:
    """Lines that name what was lost, the first few of each reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for one in lost:
        by_reason[one.why].append(one.path)
    reasons = [f"{some(paths, most=3)}: {why}" for why, paths in by_reason.items()]
    return reasons[:_SHOWN_REASONS]


def classes_missing_in_parts(
    records: Sequence[ImageRecord], classes: tuple[str, ...], given: tuple[str, ...]
) -> list[str]:
    """One line for each given part in which some class has no image; classes are matched by name."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        seen[record.part].update(record.labels)
    missing = {part: [label for label in classes if label not in seen[part]] for part in given}
    return [f"{part}: no image of {some(labels)}" for part, labels in missing.items() if labels]


def _nothing_found(where: str, listing: Listing, sorting: _Sorting) -> SourceError:
    reasons = _reasons(listing.lost)
    if sorting.without_class:
        return SourceError(
            f"{where}: images, but no class folders",
            *reasons,
            hint="put each class into a folder of its own, or give a list with path,label",
        )
    if listing.lost:
        links = any("link" in lost.why for lost in listing.lost)
        remedy = ", or give a list with path,label (its paths may lead out with ../)" if links else ""
        return SourceError(
            f"{where}: no images that can be used", *reasons, hint=f"correct what is named here{remedy}"
        )
    if OWN_OUTPUT in listing.ignored:
        return SourceError(
            f"{where}: holds what saccade wrote, and no images", hint="give the folder of the images"
        )
    return SourceError(
        f"{where}: no images found", hint="check the path, it must hold a folder of images for each class"
    )
