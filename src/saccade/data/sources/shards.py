"""WebDataset shards: tar files in which KEY.jpg, KEY.cls, KEY.json, KEY.txt make one sample.

The label is the text of .cls, else "label", "cls" or "class" of .json, else the text of .txt. The part
comes from the shards' names or folders where each holds one of train, val, valid, validation, test.
"""

from __future__ import annotations

import glob
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from saccade.data.archive_index import Index, TarMember, archive_index
from saccade.data.names import natural_key, printable, some
from saccade.data.sources.layout import classes_missing_in_parts
from saccade.data.sources.naming import IMAGE_SUFFIXES, PART_OF_FOLDER, check_classes
from saccade.data.sources.tables import as_text
from saccade.data.storage import ShardStorage, read_range
from saccade.errors import ImageError, SourceError
from saccade.records import PARTS, Dataset, ImageRecord

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
    files = tuple(shards)
    where = printable(str(root))
    parts = _parts(root, files)
    records: list[ImageRecord] = []
    unlabelled: list[str] = []
    listed: list[str] = []
    for shard, part in zip(files, parts, strict=True):
        index = archive_index(str(shard))
        listed += index.passed_over
        for sample in _samples(index).values():
            extension = _image_of(sample)
            if not extension:
                continue
            path = f"{shard.relative_to(root).as_posix()}/{sample[extension][0]}"
            label, its_group = _label_and_group(shard, sample, group)
            if not label:
                unlabelled.append(path)
            records.append(ImageRecord(path, label, part, its_group))
    if unlabelled:
        raise SourceError(
            f"{where}: {len(unlabelled):,} samples without a label: {some(unlabelled, most=5)}; "
            "add KEY.cls, or KEY.json with a label, beside each image"
        )
    records.sort(key=lambda record: record.path)
    classes = check_classes({record.label for record in records}, where, min_classes=min_classes)
    given = tuple(part for part in PARTS if part in parts)
    listed += classes_missing_in_parts(records, classes, given)
    return Dataset(root, tuple(records), classes, ShardStorage(root), given, listed=tuple(listed))


def _parts(root: Path, shards: tuple[Path, ...]) -> list[str]:
    """The part each shard's name or folder says; "" for all unless each says one."""
    parts = []
    for shard in shards:
        words = re.split(r"[^a-z]+", shard.relative_to(root).as_posix().lower())
        parts.append(next((PART_OF_FOLDER[word] for word in words if word in PART_OF_FOLDER), ""))
    return parts if all(parts) else [""] * len(parts)


def _label_and_group(shard: Path, sample: Sample, group: str | None) -> tuple[str, str]:
    """Label and group of one sample; "" where it says none."""
    texts = {s: _small_text(shard, sample[s][1]) for s in _LABEL_SUFFIXES if s in sample}
    label = texts.get("cls", "")
    fields: dict[str, object] = {}
    if "json" in texts:
        try:
            loaded = json.loads(texts["json"])
            fields = loaded if isinstance(loaded, dict) else {}
        except (ValueError, RecursionError):
            fields = {}
    for key in _LABEL_KEYS:
        label = label or as_text(fields.get(key)).strip()
    if group and group not in fields:
        raise SourceError(f"{printable(str(shard))}: a sample's .json has no {group!r}; correct --group")
    return label or texts.get("txt", ""), as_text(fields.get(group or "group")).strip()


def _small_text(shard: Path, member: TarMember) -> str:
    try:
        data = read_range(str(shard), member.offset, min(member.size, _MOST_LABEL_BYTES))
    except ImageError as error:
        raise SourceError(f"{printable(str(shard))}: {error.reason}. {error.remedy}") from None
    return data.decode("utf-8", "replace").strip()
