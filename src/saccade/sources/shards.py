"""WebDataset shards: tar files in which KEY.jpg, KEY.cls, KEY.json, KEY.txt make one sample.

The label is the text of .cls, else "label", "cls" or "class" of .json, else the text of .txt. The part
comes from the shards' names or folders where each says one, else from a part, split or the like of .json.
"""

from __future__ import annotations

import glob
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from saccade.errors import ImageError, SourceError
from saccade.records import Dataset, Finding
from saccade.sources.archive_index import Index, TarMember, archive_index
from saccade.sources.names import natural_key, printable, some
from saccade.sources.naming import IMAGE_SUFFIXES, suffix
from saccade.sources.part_columns import PART_COLUMNS
from saccade.sources.part_names import parts_of_files
from saccade.sources.rows import Row, labelled
from saccade.sources.said import doubt
from saccade.sources.storage import ShardStorage, read_range
from saccade.sources.values import as_text

_LABEL_KEYS = ("label", "cls", "class")
_LABEL_SUFFIXES = ("cls", "json", "txt")
_MOST_LABEL_BYTES = 1_000_000

Sample = dict[str, tuple[str, TarMember]]


def shards_at(path: Path) -> tuple[Path, ...]:
    """The tar files a folder holds (down to its second level), or a pattern with * or {000..011} names."""
    if path.is_dir():
        found = [*path.glob("*.tar"), *path.glob("*/*.tar")]
    else:
        expanded = _expand_braces(str(path))
        found = [Path(name) for pattern in expanded for name in glob.glob(pattern) if name.endswith(".tar")]
    return tuple(sorted(set(found), key=lambda shard: natural_key(str(shard))))


def _expand_braces(pattern: str) -> list[str]:
    """`a-{08..10}.tar` as a-08.tar, a-09.tar, a-10.tar."""
    match = re.search(r"\{(\d{1,9})\.\.(\d{1,9})\}", pattern)
    if not match:
        return [pattern]
    first, last = match.groups()
    if int(last) - int(first) > 1_000_000:
        raise SourceError(f"{printable(pattern)}: names more than a million shards; correct the range")
    numbers = range(int(first), int(last) + 1)
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [name for n in numbers for name in _expand_braces(f"{head}{n:0{len(first)}d}{tail}")]


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
        raise SourceError(f"{where}: {message}. Do: {remedy}")
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
        raise SourceError(f"{printable(str(shard))}: a sample's .json has no {group!r}; correct --group")
    named = {
        name: value for name, value in fields.items() if name.casefold() in PART_COLUMNS and name != group
    }
    return Row(path, label, fields.get(group or "group", ""), part, named)


def _small_text(shard: Path, member: TarMember) -> str:
    try:
        data = read_range(str(shard), member.offset, min(member.size, _MOST_LABEL_BYTES))
    except ImageError as error:
        raise SourceError(f"{printable(str(shard))}: {error.reason}. {error.remedy}") from None
    return data.decode("utf-8", "surrogateescape").strip()
