"""Near-duplicates in the audit: labels, parts, decisions, memory, and the search after a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from saccade.data.audit import SecondSearch, audit, audit_as_json
from saccade.data.audit.memory import SearchMemory
from saccade.data.audit.similar import find_similar
from saccade.data.decisions import NO_DECISIONS, Decisions, parse_decisions
from saccade.data.scan import Scan, scan
from saccade.data.similarity import PairIndices
from saccade.data.storage import FolderStorage
from saccade.records import Audit, Dataset, Finding, ImageRecord

IMAGES = 12  # of each of the two classes


def photo(rng: np.random.Generator, side: int = 128) -> Image.Image:
    """Something with detail at all scales, as photos have, unlike any other."""
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((side, side), 3), float
        )
        for n in (4, 10, 24, 60)
    ]
    mixed = sum(weight * layer for weight, layer in zip((0.35, 0.3, 0.2, 0.15), layers, strict=True))
    return Image.fromarray(np.asarray(mixed).astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(7)
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(IMAGES):
            photo(rng).save(tmp_path / "photos" / label / f"{i:02d}.png")
    return tmp_path / "photos"


def edited(source: Path, target: Path, edit: Callable[[Image.Image], Image.Image]) -> None:
    edit(Image.open(source)).save(target, quality=70)


def crop(image: Image.Image) -> Image.Image:
    return image.crop((6, 6, image.width - 6, image.height - 6))


def scanned(root: Path) -> Scan:
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    records = tuple(ImageRecord(path, path.split("/")[-2]) for path in paths)
    labels = tuple(sorted({record.label for record in records}))
    return scan(Dataset(root, records, labels, FolderStorage(root)))


def of_kind(result: Audit, kind: str) -> list[Finding]:
    return [finding for finding in result.findings if finding.kind == kind]


def decided(rows: str) -> Decisions:
    return parse_decisions(f"path,other,decision\n{rows}", where="decisions")


def in_parts(found: Scan, part_of: Callable[[ImageRecord], str]) -> Scan:
    """The same scan as if the user had given a split."""
    records = tuple(replace(record, part=part_of(record)) for record in found.dataset.records)
    dataset = replace(found.dataset, records=records, given_parts=("train", "test"))
    return Scan(dataset, found.measurements)


def test_unlike_photos_are_no_duplicates(photos: Path) -> None:
    result = audit(*scanned(photos))
    assert result.pairs == ()
    assert result.clusters == {}
    assert result.worst == "info"


def test_edited_copies_share_a_cluster_and_a_finding(photos: Path) -> None:
    edited(photos / "a/00.png", photos / "a/00-mirror.jpg", ImageOps.mirror)
    edited(photos / "a/00.png", photos / "a/00-small.jpg", lambda image: image.resize((64, 64)))
    edited(photos / "b/03.png", photos / "b/03-crop.jpg", crop)
    result = audit(*scanned(photos))
    clusters = result.clusters
    assert clusters["a/00.png"] == clusters["a/00-mirror.jpg"] == clusters["a/00-small.jpg"]
    assert clusters["b/03.png"] == clusters["b/03-crop.jpg"] != clusters["a/00.png"]
    assert len(clusters) == 5
    found = {finding.paths for finding in of_kind(result, "near_duplicates")}
    assert found == {("a/00-mirror.jpg", "a/00-small.jpg", "a/00.png"), ("b/03-crop.jpg", "b/03.png")}
    assert all(finding.confidence in ("certain", "likely") for finding in of_kind(result, "near_duplicates"))
    assert {(pair.first, pair.second) for pair in result.pairs} >= {("b/03-crop.jpg", "b/03.png")}


def test_copies_of_a_copy_join_the_cluster(photos: Path) -> None:
    edited(photos / "a/00.png", photos / "a/00-mirror.jpg", ImageOps.mirror)
    (photos / "a/again.jpg").write_bytes((photos / "a/00-mirror.jpg").read_bytes())
    clusters = audit(*scanned(photos)).clusters
    assert clusters["a/00.png"] == clusters["a/00-mirror.jpg"] == clusters["a/again.jpg"]


def test_different_labels_of_one_picture_are_named_and_stay(photos: Path) -> None:
    edited(photos / "a/00.png", photos / "b/mirror.jpg", ImageOps.mirror)
    result = audit(*scanned(photos))
    (finding,) = of_kind(result, "near_duplicate_conflict")
    assert finding.paths == ("a/00.png", "b/mirror.jpg")
    assert finding.figure["labels"] == ["a", "b"]
    assert not of_kind(result, "near_duplicates")
    assert len(result.dataset.used()) == 2 * IMAGES + 1
    assert result.findings[0] is finding


def test_a_picture_in_two_given_parts_is_a_leak(photos: Path) -> None:
    edited(photos / "a/00.png", photos / "a/mirror.jpg", ImageOps.mirror)
    (photos / "b/copy.png").write_bytes((photos / "b/05.png").read_bytes())
    held_out = ("a/mirror.jpg", "b/copy.png")
    result = audit(*in_parts(scanned(photos), lambda record: "test" if record.path in held_out else "train"))
    assert {finding.paths for finding in of_kind(result, "leak")} == {
        ("a/00.png", "a/mirror.jpg"),
        ("b/05.png", "b/copy.png"),
    }
    assert {finding.severity for finding in of_kind(result, "leak")} == {"error"}


def test_a_group_in_two_given_parts_is_a_leak(photos: Path) -> None:
    found = in_parts(scanned(photos), lambda record: "test" if record.path.startswith("a/0") else "train")
    records = tuple(replace(record, group=f"site {i % 20}") for i, record in enumerate(found.dataset.records))
    result = audit(found.dataset.with_records(records), found.measurements, near_duplicates=False)
    named = {finding.message for finding in of_kind(result, "group_leak")}
    assert named == {f"group site {i} stands in test and train" for i in range(4)}


def test_a_pair_that_is_no_duplicate_is_forgotten(photos: Path) -> None:
    edited(photos / "a/00.png", photos / "b/mirror.jpg", ImageOps.mirror)
    found = scanned(photos)
    result = audit(*found, decisions=decided("b/mirror.jpg,a/00.png,not a duplicate\n"))
    assert result.pairs == ()
    assert result.clusters == {}
    assert not of_kind(result, "near_duplicate_conflict")


def test_kept_near_duplicates_are_not_reported_but_stay_together(photos: Path) -> None:
    edited(photos / "a/00.png", photos / "a/mirror.jpg", ImageOps.mirror)
    result = audit(*scanned(photos), decisions=decided("a/00.png,,keep\na/mirror.jpg,,keep\n"))
    assert not of_kind(result, "near_duplicates")
    assert set(result.clusters) == {"a/00.png", "a/mirror.jpg"}


def test_json_names_the_pairs(photos: Path) -> None:
    edited(photos / "a/00.png", photos / "a/mirror.jpg", ImageOps.mirror)
    findings = audit_as_json(audit(*scanned(photos)))["findings"]
    (finding,) = [finding for finding in findings if finding["kind"] == "near_duplicates"]
    (pair,) = finding["figure"]["pairs"]
    assert pair[:3] == ["a/00.png", "a/mirror.jpg", finding["confidence"]]


# -- what is remembered --------------------------------------------------------------------------


def counted_searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each search was asked to treat as new."""
    from saccade.data.audit import similar

    real, asked = similar.find_pairs, []

    def find_pairs(descriptions: object, *, new: object = None, **options: object) -> list[PairIndices]:
        asked.append(len(descriptions) if new is None else int(np.sum(new)))  # type: ignore[arg-type]
        return real(descriptions, new=new, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(similar, "find_pairs", find_pairs)
    return asked


def test_a_second_audit_searches_nothing_and_a_grown_one_the_new_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(photos / "a/00.png", photos / "a/mirror.jpg", ImageOps.mirror)
    asked = counted_searches(monkeypatch)
    first = audit(*scanned(photos), cache=tmp_path / "cache")
    assert audit(*scanned(photos), cache=tmp_path / "cache") == first
    assert asked == [2 * IMAGES + 1]
    edited(photos / "b/03.png", photos / "a/new.jpg", crop)
    (photos / "b/00.png").unlink()
    grown = audit(*scanned(photos), cache=tmp_path / "cache")
    assert asked == [2 * IMAGES + 1, 1]
    assert grown == audit(*scanned(photos))
    assert {(pair.first, pair.second) for pair in grown.pairs} == {
        ("a/00.png", "a/mirror.jpg"),
        ("a/new.jpg", "b/03.png"),
    }


def test_memory_of_other_images_is_no_use(tmp_path: Path) -> None:
    memory = SearchMemory(tmp_path)
    names = [bytes([i]) * 32 for i in range(10)]
    memory.keep(names, [PairIndices(2, 7, "likely", 9.5, "mirrored")])
    assert memory.recall([bytes([i]) * 32 for i in range(100, 110)]) is None
    recalled = memory.recall([names[7], names[2], b"n" * 32, *names[4:7]])
    assert recalled is not None
    assert recalled.pairs == [PairIndices(0, 1, "likely", 9.5, "mirrored")]
    assert recalled.new.tolist() == [False, False, True, False, False, False]


# -- after a split -------------------------------------------------------------------------------


def test_the_second_search_finds_a_planted_leak(photos: Path) -> None:
    edited(photos / "a/00.png", photos / "a/mirror.jpg", ImageOps.mirror)
    found = scanned(photos)
    search = SecondSearch(audit(*found), found.measurements, NO_DECISIONS)
    parts = {record.path: "train" for record in found.dataset.records}
    assert search(parts) == ([], 0)
    pairs, _ = search(parts | {"a/mirror.jpg": "test"})
    assert [(pair.first, pair.second) for pair in pairs] == [("a/00.png", "a/mirror.jpg")]
    assert search.descriptor


def test_the_second_search_respects_decisions(photos: Path) -> None:
    edited(photos / "a/00.png", photos / "a/mirror.jpg", ImageOps.mirror)
    found, decisions = scanned(photos), decided("a/00.png,a/mirror.jpg,not a duplicate\n")
    search = SecondSearch(audit(*found, decisions=decisions), found.measurements, decisions)
    parts = {record.path: "train" for record in found.dataset.records} | {"a/mirror.jpg": "test"}
    assert search(parts)[0] == []


def test_equal_pictures_are_clustered_without_the_search(photos: Path) -> None:
    (photos / "a/copy.png").write_bytes((photos / "a/00.png").read_bytes())
    edited(photos / "a/01.png", photos / "a/mirror.jpg", ImageOps.mirror)
    similar = find_similar(*scanned(photos), NO_DECISIONS, search=False)
    assert set(similar.clusters) == {"a/00.png", "a/copy.png"}
    assert similar.pairs == ()


def test_no_images_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.png").touch()
    result = audit(*scanned(tmp_path))
    assert result.pairs == ()
    assert of_kind(result, "one_class")
