"""From paths to labels and parts: a folder per class, alone or below train/, val/ and test/.

Policy: the class is the first folder (the first below the part); images in folders deeper down
belong to that class, and `listed` says so. Images beside the class folders have no class.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from saccade.data.names import natural_key, printable, some
from saccade.data.sources.listing import Listing
from saccade.data.sources.naming import PART_OF_FOLDER, check_classes
from saccade.errors import SourceError
from saccade.records import PARTS, ImageRecord

_BESIDE = "lies beside the class folders, so it has no class"
_MOST_LINES = 1000  # about one thing; how many more there are is said


@dataclass(frozen=True, slots=True)
class Layout:
    """Records in path order, classes in natural order, and what had to be said."""

    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    given_parts: tuple[str, ...]
    listed: tuple[str, ...]
    empty_classes: tuple[str, ...]


def arrange(listing: Listing, where: str, *, drop_empty: bool, min_classes: int) -> Layout:
    """Give each image its label and part by its folders; raises SourceError where that has no sense."""
    part_of = _part_folders(listing, where)
    records, said = _labelled(listing.files, part_of)
    listed = [*listing.listed, *said]
    if not records:
        raise SourceError(_nothing_found(where, said))
    empty = _empty_classes(listing, part_of, {record.label for record in records})
    if empty and not drop_empty:
        closed = "".join(f"\n  {line}" for line in listed if ": cannot be opened" in line)
        raise SourceError(
            f"{where}: class folders without an image: {some(empty)}; "
            f"fill or remove them, or pass --drop-empty{closed}"
        )
    classes = check_classes({record.label for record in records}, where, min_classes=min_classes)
    given = tuple(part for part in PARTS if any(record.part == part for record in records))
    listed += classes_missing_in_parts(records, classes, given)
    return Layout(tuple(records), classes, given, tuple(listed), empty)


def _labelled(files: Iterable[str], part_of: Mapping[str, str]) -> tuple[list[ImageRecord], list[str]]:
    """A record for each image that has a class, and lines about those that have none or lie deeper."""
    records: list[ImageRecord] = []
    at_root: list[str] = []
    deeper: Counter[str] = Counter()
    beside: Counter[str] = Counter()
    for path in files:
        folders = path.split("/")[:-1]
        part = part_of.get(folders[0], "") if part_of and folders else ""
        inside = folders[1:] if part_of else folders
        if part_of and folders and not part:
            beside[folders[0]] += 1
        elif not inside:
            at_root.append(path)
        else:
            records.append(ImageRecord(path, inside[0], part))
            if len(inside) > 1:
                deeper["/".join(folders[: len(folders) - len(inside) + 1])] += 1
    lines = [f"{printable(path)}: {_BESIDE}; move it into one" for path in at_root[:_MOST_LINES]]
    if len(at_root) > _MOST_LINES:
        lines.append(f"and {len(at_root) - _MOST_LINES:,} more images: {_BESIDE}")
    lines += [
        f"{printable(top)}/: {_images(n)}, not one of train, validation, test; left alone"
        for top, n in sorted(beside.items())
    ]
    lines += [
        f"{printable(top)}/: {_images(n)} in folders deeper down count as this class"
        for top, n in sorted(deeper.items())
    ]
    return records, lines


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _part_folders(listing: Listing, where: str) -> dict[str, str]:
    """Top folders that are parts, by folder name; empty for unsplit data.

    A folder called train makes parts only when it holds folders: "train" may be a class among vehicles.
    """
    tops = [folder for folder in listing.folders if "/" not in folder]
    parts = {top: PART_OF_FOLDER[top.casefold()] for top in tops if top.casefold() in PART_OF_FOLDER}
    holding = {folder.split("/")[0] for folder in listing.folders if "/" in folder}
    train = [top for top, part in parts.items() if part == "train"]
    if not any(top in holding for top in train):
        if len(parts) == len(tops) and len(tops) > 1:
            raise SourceError(
                f"{where}: has {some(tops)} but no class folders inside train; "
                "do: train/CLASS/image.jpg, and the same for the other parts"
            )
        return {}
    twice = [part for part, n in Counter(parts.values()).items() if n > 1]
    if twice:
        names = some(top for top, part in parts.items() if part in twice)
        raise SourceError(f"{where}: {names} mean the same part; keep one of them")
    return parts


def _empty_classes(listing: Listing, part_of: dict[str, str], filled: set[str]) -> tuple[str, ...]:
    """Class folders in which, over all parts, no image lies."""
    depth = 2 if part_of else 1
    split = (folder.split("/") for folder in listing.folders)
    named = {names[-1] for names in split if len(names) == depth and (not part_of or names[0] in part_of)}
    return tuple(sorted(named - filled, key=natural_key))


def classes_missing_in_parts(
    records: Sequence[ImageRecord], classes: tuple[str, ...], given: tuple[str, ...]
) -> list[str]:
    """One line for each given part in which some class has no image; classes are matched by name."""
    seen = defaultdict(set)
    for record in records:
        seen[record.part].add(record.label)
    missing = {part: [label for label in classes if label not in seen[part]] for part in given}
    return [f"{part}: no image of {some(labels)}" for part, labels in missing.items() if labels]


def _nothing_found(where: str, said: list[str]) -> str:
    if any(_BESIDE in line for line in said):
        return (
            f"{where}: images, but no class folders; "
            "do: put each class into a folder of its own, or give a list with path,label"
        )
    return f"{where}: no images found; do: check the path, it must hold a folder of images for each class"
