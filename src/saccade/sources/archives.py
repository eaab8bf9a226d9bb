"""Data sets inside zip and tar archives, and WebDataset shards."""

from __future__ import annotations

import glob
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from saccade.errors import ImageError, SourceError
from saccade.records import Dataset, Finding
from saccade.sources.archive_index import (
    ArchiveStorage,
    Index,
    ShardStorage,
    TarMember,
    archive_index,
    read_range,
)
from saccade.sources.layout import arrange
from saccade.sources.listing import Collector, Listing
from saccade.sources.lists import load_list_inside
from saccade.sources.naming import IMAGE_SUFFIXES, as_text, doubt, natural_key, some, suffix
from saccade.sources.parts import PART_COLUMNS, part_hint, parts_of_files
from saccade.sources.tables import TEXT_SUFFIXES, Columns, Row, labelled, parse_text_table, refuse_columns
from saccade.terminal import printable

NOT_FOLLOWED = "a link or device inside the archive; not followed, pack what it names"


def load_archive(path: Path, *, columns: Columns, drop_empty: bool, min_classes: int) -> Dataset:
    """The data set inside a zip or tar file; a single folder around everything is looked through."""
    where = printable(str(path))
    index = archive_index(str(path))
    inner, folder = _without_wrapper(index)
    undeclared = _undeclared_names(index)
    storage = ArchiveStorage(str(path), folder)
    table_name = _list_at_root(inner)
    if table_name:
        table = parse_text_table(_read(storage, table_name, where), f"{where}: {table_name}")
        dataset = load_list_inside(
            table, table_name, path, storage, inner.files, columns=columns, min_classes=min_classes
        )
        return replace(dataset, findings=(*undeclared, *dataset.findings))
    refuse_columns(columns, f"{where}: it")
    listing = listing_of(inner)
    layout = arrange(listing, where, drop_empty=drop_empty, min_classes=min_classes)
    said = (f"{where}: everything lies in {printable(folder)}/; paths are given below it",) if folder else ()
    return Dataset(
        path,
        layout.records,
        layout.classes,
        storage,
        layout.given_parts,
        ignored=listing.ignored,
        listed=(*said, *layout.listed),
        empty_classes=layout.empty_classes,
        lost=layout.lost,
        findings=(*undeclared, *layout.findings),
    )


def images_in_archive(path: Path) -> tuple[Listing, ArchiveStorage]:
    """The images in a zip or tar file and what reads them; raises SourceError, OSError."""
    return listing_of(archive_index(str(path))), ArchiveStorage(str(path))


def _means_part(name: str) -> bool:
    hint = part_hint(name)
    return bool(hint and hint.exact)


def _undeclared_names(index: Index) -> tuple[Finding, ...]:
    """Said where names may read otherwise than they were written; they become class names of the model."""
    names = index.undeclared
    if not names:
        return ()
    return (
        doubt(
            f"{len(names):,} names in this archive have no declared encoding and read as "
            f"{some(names, most=3)}",
            "If that is wrong, unpack it with the right encoding, or zip it again with UTF-8 names",
        ),
    )


def _read(storage: ArchiveStorage, name: str, where: str) -> bytes:
    try:
        return storage.read(name)
    except ImageError as error:
        raise SourceError(f"{where}: {printable(name)}: {error.reason}", hint=error.remedy) from None


def _list_at_root(index: Index) -> str:
    """The list (path,label) beside the image folders; "" if there is none, or more than one."""
    names = [name for name in index.files if "/" not in name and suffix(name) in TEXT_SUFFIXES]
    return names[0] if len(names) == 1 else ""


def listing_of(index: Index, *, read_npy: bool = False) -> Listing:
    """The index's names as a Listing, by the same rules as a folder on disk."""
    found = Collector(read_npy=read_npy)
    for path in index.passed_over:
        found.lose(path, NOT_FOLLOWED, folder=not suffix(path))
    accepted: dict[str, bool] = {"": True}

    def accept(folder: str) -> bool:
        if folder not in accepted:
            parent = folder.rpartition("/")[0]
            accepted[folder] = accept(parent) and found.folder(folder)
        return accepted[folder]

    for folder in sorted(index.folders):
        accept(folder)
    for name in sorted(index.files):
        if accept(name.rpartition("/")[0]):
            found.file(name)
    return found.listing()


def _without_wrapper(index: Index) -> tuple[Index, str]:
    """The index below the one folder that holds everything, and that folder; as it is without one."""
    prefix = ""
    while True:
        tops = {name.split("/")[0] for name in (*index.files, *index.folders)}
        inner_folders = any(name.count("/") > 1 for name in index.files)
        tops -= {"__MACOSX"}
        top = next(iter(tops), "")
        if len(tops) != 1 or top in index.files or not inner_folders or _means_part(top):
            return index, prefix
        prefix = f"{prefix}/{top}" if prefix else top
        index = Index(
            index.where,
            {name[len(top) + 1 :]: at for name, at in index.files.items() if name.startswith(top + "/")},
            [name[len(top) + 1 :] for name in index.folders if name.startswith(top + "/")],
            [name[len(top) + 1 :] for name in index.passed_over if name.startswith(top + "/")],
        )


def refuse_packed_tar(path: Path) -> NoReturn:
    """Raise SourceError for a tar inside gzip and the like: it cannot be read in place."""
    raise SourceError(
        f"{printable(str(path))}: a packed tar cannot be read in place",
        hint="unpack it and give the folder, or keep a plain .tar (gunzip, unxz, bunzip2)",
    )


# -- shards ----------------------------------------------------------------------------------------------
# WebDataset shards: tar files in which KEY.jpg, KEY.cls, KEY.json, KEY.txt make one sample.
# The label is the text of .cls, else "label", "cls" or "class" of .json, else the text of .txt. The part
# comes from the shards' names or folders where each says one, else from a part, split or the like of .json.


_LABEL_KEYS = ("label", "cls", "class")
_LABEL_SUFFIXES = ("cls", "json", "txt")
_MOST_LABEL_BYTES = 1_000_000

Sample = dict[str, tuple[str, TarMember]]


def shards_at(path: Path) -> tuple[Path, ...]:
    """The tar files a folder holds (down to its second level), or a pattern with * or {000..011} names."""
    if path.is_dir():
        found = [*path.glob("*.tar"), *path.glob("*/*.tar")]
    else:
        expanded = expand_braces(str(path))
        found = [Path(name) for pattern in expanded for name in glob.glob(pattern) if name.endswith(".tar")]
    return tuple(sorted(set(found), key=lambda shard: natural_key(str(shard))))


def expand_braces(pattern: str) -> list[str]:
    """`a-{08..10}.tar` as a-08.tar, a-09.tar, a-10.tar."""
    match = re.search(r"\{(\d{1,9})\.\.(\d{1,9})\}", pattern)
    if not match:
        return [pattern]
    first, last = match.groups()
    if int(last) - int(first) > 1_000_000:
        raise SourceError(f"{printable(pattern)}: names more than a million shards", hint="correct the range")
    numbers = range(int(first), int(last) + 1)
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [name for n in numbers for name in expand_braces(f"{head}{n:0{len(first)}d}{tail}")]


def is_shard(path: Path) -> bool:
    """Whether a tar holds samples (an image with its label beside it under one key), not class folders."""
    samples = _samples(archive_index(str(path)))
    return any(_image_of(sample) and ("cls" in sample or _flat(sample)) for sample in samples.values())


def _flat(sample: Sample) -> bool:
    """Beside its label, an image in no folder cannot have its class from one."""
    return any("/" not in name for name, _ in sample.values()) and any(s in sample for s in _LABEL_SUFFIXES)


def _samples(index: Index) -> dict[str, Sample]:
    """Members by key (the path up to the first dot of its last piece), then by extension."""
    samples: dict[str, Sample] = defaultdict(dict)
    for name, member in index.files.items():
        folder, _, last = name.rpartition("/")
        stem, _, extension = last.partition(".")
        if stem:
            samples[f"{folder}/{stem}" if folder else stem][extension.lower()] = (name, member)
    return samples


def _image_of(sample: Sample) -> str:
    return next((extension for extension in sorted(sample) if extension in IMAGE_SUFFIXES), "")


def load_shards(
    root: Path, shards: Iterable[Path], *, group: str | None = None, min_classes: int = 2
) -> Dataset:
    """The samples of all shards as one data set; paths are SHARD/MEMBER."""
    files = {shard.relative_to(root).as_posix(): shard for shard in shards}
    where = printable(str(root))
    parts = parts_of_files(files, where)
    rows: list[Row] = []
    lost: list[str] = []
    for name, shard in files.items():
        index = archive_index(str(shard))
        lost += [f"{name}/{path}" for path in index.passed_over]
        for sample in _samples(index).values():
            if extension := _image_of(sample):
                rows.append(_row(shard, f"{name}/{sample[extension][0]}", sample, parts[name], group))
            elif "cls" in sample or any(suffix(extension) in IMAGE_SUFFIXES for extension in sample):
                lost.append(f"{name}/{min(sample.values())[0]}")
    findings = _samples_lost(lost, len(rows), where)
    remedy = "add KEY.cls, or KEY.json with a label, beside each image"
    unlabelled = "samples without a label"
    found = labelled(rows, where, min_classes=min_classes, unlabelled=unlabelled, remedy=remedy)
    return Dataset(
        root,
        found.records,
        found.classes,
        ShardStorage(root),
        found.given_parts,
        listed=found.listed,
        findings=(*findings, *found.findings),
    )


def _samples_lost(lost: Sequence[str], used: int, where: str) -> tuple[Finding, ...]:
    """A warning about samples without a file that is an image; raises SourceError where most are."""
    if not lost:
        return ()
    message = (
        f"{len(lost):,} samples without an image that can be read, {some(lost, most=3)} first: a link, or an "
        "extension that is none of an image (the key ends at the first dot)"
    )
    remedy = "Pack them again as KEY.jpg or KEY.png, with no other dot in the name"
    if len(lost) > used:
        raise SourceError(f"{where}: {message}", hint=remedy)
    return (doubt(message, remedy, paths=lost),)


def _row(shard: Path, path: str, sample: Sample, part: str, group: str | None) -> Row:
    """Label, group and part of one sample, as it says them."""
    texts = {s: _small_text(shard, sample[s][1]) for s in _LABEL_SUFFIXES if s in sample}
    fields: dict[str, object] = {}
    if "json" in texts:
        try:
            loaded = json.loads(texts["json"])
            fields = loaded if isinstance(loaded, dict) else {}
        except (ValueError, RecursionError):
            fields = {}
    labels = [texts.get("cls"), *(fields.get(key) for key in _LABEL_KEYS), texts.get("txt")]
    label = next((value for value in labels if as_text(value).strip()), "")
    if group and group not in fields:
        raise SourceError(
            f"{printable(str(shard))}: a sample's .json has no {group!r}", hint="correct --group"
        )
    named = {
        name: value for name, value in fields.items() if name.casefold() in PART_COLUMNS and name != group
    }
    return Row(path, label, fields.get(group or "group", ""), part, named)


def _small_text(shard: Path, member: TarMember) -> str:
    try:
        data = read_range(str(shard), member.offset, min(member.size, _MOST_LABEL_BYTES))
    except ImageError as error:
        raise SourceError(f"{printable(str(shard))}: {error.reason}", hint=error.remedy) from None
    return data.decode("utf-8", "surrogateescape").strip()
