"""Copies and near-duplicates in an audit: the search, what it means for labels and parts, the cross-check."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.audit.decisions import Decisions
from saccade.audit.findings import finding, naming_background, some
from saccade.audit.quality import Measurements
from saccade.caches.scans import ScanCache
from saccade.caches.store import made_by
from saccade.near_duplicates import (
    CrossChecker,
    Descriptions,
    PairIndices,
    PairSearch,
    Planted,
    cluster,
    search_pairs,
)
from saccade.near_duplicates.cross_check import DESCRIPTOR
from saccade.near_duplicates.descriptors import DESCRIBING_VERSION
from saccade.near_duplicates.pairs import SEARCHING_VERSION
from saccade.records import Audit, Confidence, Dataset, Finding, ImageRecord, Pair
from saccade.terminal import Progress, counted, silent

BANDS: tuple[Confidence, ...] = ("look", "likely", "certain")
LOOK_LISTED = 1000  # pairs; more than anyone looks at
MANY_ALIKE = 12  # images of one cluster, from which
MOST_OF_CLASS = 0.5  # this share of a class
SPANNING_SHARE = 0.2  # or this share of the cluster under other labels is no wrong label


class Similar(NamedTuple):
    """Pairs, clusters of copies and near-duplicates, both by path; what the guard against chains did.

    `same_scene` is how many images show a scene that many share, and are judged by what they show beyond it.
    `planted` is measured where there are too many images to compare all: copies planted, and found.
    """

    pairs: tuple[Pair, ...] = ()
    clusters: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()
    same_scene: int = 0
    planted: Planted | None = None


def find_similar(
    dataset: Dataset,
    measurements: Measurements,
    decisions: Decisions,
    *,
    search: bool = True,
    memory: SearchMemory | None = None,
    progress: Progress = silent,
) -> Similar:
    """Near-duplicates among the images in use; of equal pictures only the first one is compared.

    Without `search` the clusters are those of equal pictures alone.
    """
    rows, picture_of = _distinct(dataset)
    paths = [dataset.records[row].path for row in rows]
    found = PairSearch([])
    if search and len(rows) > 1:
        names = [bytes.fromhex(dataset.records[row].pixel_sha256) for row in rows]
        found = _search(measurements.descriptions.some(rows), names, memory, progress)
    kept = [pair for pair in found.pairs if not decisions.parted(paths[pair.first], paths[pair.second])]
    groups = cluster(len(rows), kept)
    pairs = tuple(_by_path(pair, paths) for pair in kept)
    numbers = {path: int(groups.labels[picture]) for path, picture in picture_of.items()}
    sizes = np.bincount(groups.labels[list(picture_of.values())], minlength=1)
    clusters = {path: number for path, number in numbers.items() if sizes[number] > 1}
    return Similar(pairs, clusters, groups.notes, found.same_scene, found.planted)


def _distinct(dataset: Dataset) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Rows of the first image of each picture in use, and each path's picture as a position among them."""
    position: dict[str, int] = {}
    rows: list[int] = []
    picture_of: dict[str, int] = {}
    for row, record in enumerate(dataset.records):
        if not record.used:
            continue
        if record.pixel_sha256 not in position:
            position[record.pixel_sha256] = len(rows)
            rows.append(row)
        picture_of[record.path] = position[record.pixel_sha256]
    return np.array(rows, np.int64), picture_of


def _search(
    descriptions: Descriptions, names: Sequence[bytes], memory: SearchMemory | None, progress: Progress
) -> PairSearch:
    """All pairs; those among images that an earlier search has seen come from memory."""
    known = memory.recall(names) if memory else None
    if known is not None and not known.new.any():
        return PairSearch(known.pairs, known.same_scene, known.planted)
    if known is None or known.same_scene:  # what a scene is, and what goes beyond it, changes with the images
        found = search_pairs(descriptions, progress=progress)
    else:
        found = search_pairs(descriptions, new=known.new, progress=progress)
        if not found.same_scene:
            pairs = sorted([*known.pairs, *found.pairs], key=lambda pair: (pair.first, pair.second))
            found = found._replace(pairs=pairs)
    if memory:
        memory.keep(names, found)
    return found


def _by_path(pair: PairIndices, paths: Sequence[str]) -> Pair:
    return Pair(paths[pair.first], paths[pair.second], pair.band, pair.score, pair.how)


# -- what it means -------------------------------------------------------------------------------


def similar_findings(dataset: Dataset, similar: Similar, decisions: Decisions) -> list[Finding]:
    """Leaks between given parts, labels that disagree, near-duplicates, pairs to look at, cut chains."""
    records = {record.path: record for record in dataset.used()}
    members: defaultdict[int, list[ImageRecord]] = defaultdict(list)
    for path, number in similar.clusters.items():
        members[number].append(records[path])
    links: defaultdict[int, list[Pair]] = defaultdict(list)
    loose = []
    for pair in similar.pairs:
        together = similar.clusters.get(pair.first) == similar.clusters.get(pair.second, -1)
        if together:
            links[similar.clusters[pair.first]].append(pair)
        elif pair.band == "look":
            loose.append(pair)
    sizes = Counter(record.label for record in records.values())
    findings = [
        found
        for number, group in members.items()
        for found in _about_cluster(group, links[number], decisions, sizes)
    ]
    chains = [finding("broken_chain", note) for note in similar.notes]
    return [
        *findings,
        *_to_look_at(loose),
        *chains,
        *_about_scene(similar.same_scene, len(records)),
        *_about_planted(similar.planted),
    ]


def _about_scene(shown: int, images: int) -> list[Finding]:
    if not shown:
        return []
    message = (
        f"{shown:,} of {counted(images, 'image')} show the same scene (a fixed camera, one form?): two of "
        "them count as near-duplicates only by what they share beyond it"
    )
    return [finding("same_scene", message, figure={"images": shown})]


def _about_planted(planted: Planted | None) -> list[Finding]:
    if planted is None or not planted.copies:
        return []
    missed = 1 - planted.found / planted.copies
    message = (
        f"about {missed:.1%} of the near-duplicates may be missed: of {planted.copies:,} edited copies that "
        f"were planted among the images, {planted.found:,} were found"
    )
    figure = {"missed_share": missed, **planted._asdict()}
    return [finding("missed_duplicates", message, figure=figure)]


def _about_cluster(
    group: Sequence[ImageRecord], links: Sequence[Pair], decisions: Decisions, sizes: Mapping[str, int]
) -> list[Finding]:
    """Findings about one cluster; copies with equal pixels and one label have a finding of their own.

    `sizes` counts the images of each class. Many images that span classes or are most of one are not
    many wrong labels.
    """
    labels = sorted({record.label for record in group})
    parts = sorted({record.part for record in group if record.part})
    accepted = all(record.path in decisions.kept for record in group)
    findings = []
    if len(parts) > 1:
        findings.append(_cluster_finding("leak", group, links, f" in {' and '.join(parts)}"))
    if links and not accepted and _look_alikes(group, sizes):
        findings.append(_look_alike_finding(group, links, sizes))
    elif links and len(labels) > 1 and not accepted:
        findings.append(
            _cluster_finding(
                "near_duplicate_conflict", group, links, f" as {' and '.join(map(_said, labels))}"
            )
        )
    elif links and len(parts) < 2 and not accepted:
        findings.append(_cluster_finding("near_duplicates", group, links, ""))
    return findings


def _said(label: str) -> str:
    return label or "no label"


def _joined(labels: Sequence[str]) -> str:
    return " and ".join(map(_said, labels))


def _look_alikes(group: Sequence[ImageRecord], sizes: Mapping[str, int]) -> bool:
    """Whether so many images hang together that what they share says little about their labels."""
    if len(group) < MANY_ALIKE:
        return False
    held = Counter(record.label for record in group)
    largest = max(held.values())
    spans = len(group) - largest >= len(group) * SPANNING_SHARE
    return spans or any(count >= MOST_OF_CLASS * sizes[label] for label, count in held.items())


def _look_alike_finding(
    group: Sequence[ImageRecord], links: Sequence[Pair], sizes: Mapping[str, int]
) -> Finding:
    held = Counter(record.label for record in group)
    listed = [f"{count} of {sizes[label]} of {label}" for label, count in held.most_common()]
    message = f"{len(group)} images look alike and stay together ({some(listed)})"
    return _cluster_finding("look_alike", group, links, "", message=message)


def _cluster_finding(
    kind: str, group: Sequence[ImageRecord], links: Sequence[Pair], where: str, *, message: str = ""
) -> Finding:
    """A finding about a cluster; `where` says in which parts or classes, `message` replaces the usual one."""
    paths = [record.path for record in group]
    strongest = max(links, key=lambda pair: pair.score, default=None)
    how = f": {strongest.how}" if strongest and strongest.how and len(paths) == 2 else ""
    if not message and len(paths) == 2:
        message = f"{paths[0]} and {paths[1]} show the same thing{where}{how}"
    elif not message:
        message = f"{len(paths)} images show the same thing{where}: {some(paths)}"
    weakest: Confidence = min((pair.band for pair in links), key=BANDS.index, default="certain")
    figure = {
        "labels": sorted({record.label for record in group}),
        "score": strongest.score if strongest else None,
        "pairs": [[pair.first, pair.second, pair.band, pair.score, pair.how] for pair in links[:100]],
    }
    return finding(kind, message, paths=paths, confidence=weakest, figure=figure)


def _to_look_at(pairs: Iterable[Pair]) -> list[Finding]:
    """One finding for all pairs of the weakest band; each two of its paths belong together."""
    ranked = sorted(pairs, key=lambda pair: -pair.score)
    if not ranked:
        return []
    listed = ranked[:LOOK_LISTED]
    paths = [path for pair in listed for path in (pair.first, pair.second)]
    message = f"{counted(len(ranked), 'pair')} of images may show the same thing; they are not kept together"
    figure = {
        "pairs": [[pair.first, pair.second, pair.band, pair.score, pair.how] for pair in listed],
        "all_pairs": len(ranked),
    }
    return [finding("possible_duplicates", message, paths=paths, confidence="look", figure=figure)]


# -- after a split -------------------------------------------------------------------------------


class SecondSearch:
    """Searches a split once more, with another descriptor: (path -> part) -> (verified pairs, unresolved).

    Pairs that a person has decided about, and links that the guard against chains has cut, do not count.
    """

    descriptor = DESCRIPTOR

    def __init__(
        self, audit: Audit, measurements: Measurements, decisions: Decisions, *, progress: Progress = silent
    ) -> None:
        self._rows, picture_of = _distinct(audit.dataset)
        self._paths = [audit.dataset.records[row].path for row in self._rows]
        self._copies: defaultdict[int, list[str]] = defaultdict(list)
        for path, picture in picture_of.items():
            self._copies[picture].append(path)
        self._check = CrossChecker(measurements.descriptions.some(self._rows))
        self._ignored = _settled(audit, decisions, picture_of)
        self._progress = progress

    def __call__(self, parts: Mapping[str, str]) -> tuple[list[Pair], int]:
        own = [parts.get(path, "") for path in self._paths]
        found = self._check(own, ignored=self._ignored, progress=self._progress)
        return [_by_path(pair, self._paths) for pair in found.verified], len(found.unresolved)


def _settled(audit: Audit, decisions: Decisions, picture_of: Mapping[str, int]) -> frozenset[tuple[int, int]]:
    cut = [
        (pair.first, pair.second)
        for pair in audit.pairs
        if pair.band != "look" and audit.clusters.get(pair.first) != audit.clusters.get(pair.second)
    ]
    apart = [tuple(pair) for pair in decisions.apart if len(pair) == 2 and pair <= picture_of.keys()]
    numbers = [sorted((picture_of[first], picture_of[second])) for first, second in [*cut, *apart]]
    return frozenset((first, second) for first, second in numbers)


# -- copies ----------------------------------------------------------------------------------------------
# The same picture more than once, pixel for pixel: copies under one label, and under several.


def same_picture(records: Iterable[ImageRecord]) -> list[list[ImageRecord]]:
    """Sets of two or more records with the same upright pixels (byte-identical files have them too)."""
    by_pixels: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        by_pixels[record.pixel_sha256 or record.sha256 or record.path].append(record)
    return [group for group in by_pixels.values() if len(group) > 1]


def settle_conflicts(dataset: Dataset, kept: Collection[str]) -> tuple[Dataset, list[Finding]]:
    """Set aside every picture under two labels, with all copies, unless the copies to keep share one label.

    `kept` are the paths that the user's decisions name as right.
    """
    aside: dict[str, str] = {}
    findings = []
    for group in same_picture(dataset.used()):
        labels = sorted({record.label for record in group})
        right = {record.label for record in group if record.path in kept}
        if len(labels) < 2:
            continue
        if len(right) == 1:
            label = next(iter(right))
            others = [record for record in group if record.label != label]
            note = f"a decision keeps this picture as {label!r}"
            aside |= dict.fromkeys((record.path for record in others), note)
        else:
            conflict = _conflict(group, labels)
            findings.append(conflict)
            note = f"label conflict: {conflict.message}. {conflict.remedy}"
            aside |= dict.fromkeys(conflict.paths, note)
    return set_aside(dataset, aside), findings


def _conflict(group: list[ImageRecord], labels: list[str]) -> Finding:
    named = some([f"{record.path} ({_said(record.label)})" for record in group])
    what = "sets of labels" if group[0].several else "labels"
    found = finding(
        "label_conflict",
        f"one image has {len(labels)} {what}: {named}. All copies are set aside",
        paths=[record.path for record in group],
        figure={"labels": labels},
    )
    return naming_background(found, group)


def identical_copies(dataset: Dataset) -> list[Finding]:
    """One finding for each set of copies under one label: the same bytes, or only the same pixels."""
    findings = []
    for group in same_picture(dataset.used()):
        same_bytes = len({record.sha256 for record in group}) == 1
        kind, what = (
            ("identical_files", "byte-identical copies")
            if same_bytes
            else ("identical_pixels", "files with the same pixels")
        )
        paths = [record.path for record in group]
        found = finding(kind, f"{len(paths)} {what}: {some(paths)}", paths=paths)
        findings.append(found if same_bytes else naming_background(found, group))
    return findings


def set_aside(dataset: Dataset, reasons: Mapping[str, str]) -> Dataset:
    """The data set without these paths, each with its reason."""
    if not reasons:
        return dataset
    return dataset.with_records(
        record.set_aside(reasons[record.path]) if record.path in reasons else record
        for record in dataset.records
    )


# -- memory ----------------------------------------------------------------------------------------------
# Remembers the pairs of earlier searches by the pictures' hashes, so that only new images are searched.


_NAME_BYTES = 16  # of a SHA-256; enough that no two pictures of a data set share them
_LEAST_KNOWN = 0.5  # share of the images that must be known for a restricted search to be worth it


class Recalled(NamedTuple):
    """Known pairs, in the numbers of the images at hand, and which of these are new.

    `same_scene` is how many images showed one scene in the earlier search.
    """

    pairs: list[PairIndices]
    new: NDArray[np.bool_]
    same_scene: int = 0
    planted: Planted | None = None


class SearchMemory:
    """Searches kept in the scan's cache, each with the pictures it compared."""

    def __init__(self, folder: Path) -> None:
        version = made_by(searching=SEARCHING_VERSION, describing=DESCRIBING_VERSION)
        self._folder, self._version = folder, version.encode()

    def recall(self, names: Sequence[bytes]) -> Recalled | None:
        """What the earlier search that shares most pictures found; None when too few are known."""
        wanted = [name[:_NAME_BYTES] for name in names]
        with ScanCache(self._folder) as cache:
            searches = cache.searches(self._version)
        best: tuple[list[bytes], bytes] | None = None
        most = _LEAST_KNOWN * len(wanted)
        for members, pairs in searches:
            known = [members[at : at + _NAME_BYTES] for at in range(0, len(members), _NAME_BYTES)]
            shared = len(set(known).intersection(wanted))
            if shared >= most:
                best, most = (known, pairs), shared + 1
        return None if best is None else _translated(wanted, *best)

    def keep(self, names: Sequence[bytes], found: PairSearch) -> None:
        """Remember a whole search over these pictures."""
        rows = [(pair.first, pair.second, pair.band, pair.score, pair.how) for pair in found.pairs]
        kept = json.dumps([found.same_scene, rows, found.planted])
        members = b"".join(name[:_NAME_BYTES] for name in names)
        with ScanCache(self._folder) as cache:
            cache.add_search(self._version, members, kept.encode("ascii"))


def _translated(wanted: Sequence[bytes], known: Sequence[bytes], kept: bytes) -> Recalled:
    same_scene, pairs, *planted = json.loads(kept)  # earlier versions kept two values
    place = {name: i for i, name in enumerate(wanted)}
    at = [place.get(name, -1) for name in known]
    translated = [
        PairIndices(min(at[first], at[second]), max(at[first], at[second]), *rest)
        for first, second, *rest in pairs
        if at[first] >= 0 and at[second] >= 0
    ]
    seen = set(known)
    new = np.array([name not in seen for name in wanted], bool)
    pairs = sorted(translated, key=lambda pair: (pair.first, pair.second))
    return Recalled(pairs, new, same_scene, Planted(*planted[0]) if planted and planted[0] else None)
