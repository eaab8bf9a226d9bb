"""Near-duplicates in the audit: labels, parts, decisions, memory, and the search after a split."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from saccade.audit import SecondSearch, audit, audit_as_json
from saccade.audit.decisions import NO_DECISIONS, Decisions, parse_decisions
from saccade.audit.scan import Scan, scan
from saccade.audit.similar import SearchMemory, Similar, find_similar, similar_findings
from saccade.near_duplicates import PairIndices, PairSearch, Planted
from saccade.records import Audit, Dataset, Finding, ImageRecord, Pair
from saccade.sources.storage import FolderStorage
from saccade.split import split
from saccade.split.atoms import gather_atoms, linked_pairs

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
    assert named == {f"group site {i} is in test and train" for i in range(4)}


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
    from saccade.audit import similar

    real, asked = similar.search_pairs, []

    def search_pairs(descriptions: object, *, new: object = None, **options: object) -> PairSearch:
        asked.append(len(descriptions) if new is None else int(np.sum(new)))  # type: ignore[arg-type]
        return real(descriptions, new=new, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(similar, "search_pairs", search_pairs)
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
    found = PairSearch([PairIndices(2, 7, "likely", 9.5, "mirrored")], planted=Planted(20, 19))
    memory.keep(names, found)
    assert memory.recall([bytes([i]) * 32 for i in range(100, 110)]) is None
    recalled = memory.recall([names[7], names[2], b"n" * 32, *names[4:7]])
    assert recalled is not None
    assert recalled.pairs == [PairIndices(0, 1, "likely", 9.5, "mirrored")]
    assert recalled.new.tolist() == [False, False, True, False, False, False]
    assert recalled.planted == found.planted


def test_what_a_search_on_disk_may_miss_is_said(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(photos / "a/00.png", photos / "a/mirror.jpg", ImageOps.mirror)
    in_memory = audit(*scanned(photos))
    assert not of_kind(in_memory, "missed_duplicates")
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("saccade.near_duplicates.stored.IN_MEMORY_IMAGES", 10)
    found = scanned(photos)
    assert isinstance(found.measurements.descriptions.thumbnails, np.memmap)
    on_disk = audit(*found, cache=tmp_path / "cache")
    assert [(pair.first, pair.second) for pair in on_disk.pairs] == [("a/00.png", "a/mirror.jpg")]
    (missed,) = of_kind(on_disk, "missed_duplicates")
    assert missed.message.startswith("about 0.0% of the near-duplicates may be missed: of 3 edited copies")
    assert missed.figure == {"missed_share": 0, "copies": 3, "found": 3}
    assert audit(*scanned(photos), cache=tmp_path / "cache") == on_disk


# -- a fixed camera ------------------------------------------------------------------------------


def shot(rng: np.random.Generator, scene: Image.Image, *, scratched: bool) -> Image.Image:
    """Another part in the same place: moved a little, under its own light, with its own noise and scratch."""
    image = scene.copy()
    if scratched:
        points = rng.integers(30, 98, 2) + rng.normal(0, 9, (5, 2))
        ImageDraw.Draw(image).line([tuple(point) for point in points.tolist()], (240, 20, 20), 3)
    moved = image.rotate(rng.normal(0, 0.5), 3, translate=tuple(rng.integers(-2, 3, 2).tolist()))
    levels = np.asarray(moved, float) * rng.uniform(0.88, 1.12) + rng.normal(0, 4, (*scene.size, 3))
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty good parts and thirty scratched ones from one camera line."""
    rng = np.random.default_rng(3)
    root, scene = tmp_path_factory.mktemp("line"), photo(rng)
    for label in ("good", "scratch"):
        (root / label).mkdir()
        for i in range(30):
            shot(rng, scene, scratched=label == "scratch").save(root / label / f"{i:02d}.jpg", quality=90)
    return root


def test_parts_on_one_camera_line_are_divided_like_any_images(line: Path) -> None:
    found = scanned(line)
    result = audit(*found)
    (scene,) = of_kind(result, "same_scene")
    assert scene.message.startswith("60 of 60 images show the same scene (a fixed camera, one form?)")
    assert not of_kind(result, "near_duplicate_conflict")
    assert not of_kind(result, "look_alike")
    made = split(result, cross_check=SecondSearch(result, found.measurements, NO_DECISIONS))
    assert [len(made.dataset.used(part)) for part in ("train", "validation", "test")] == [42, 9, 9]
    assert made.promise_kept


def test_a_line_that_grows_is_judged_anew(line: Path, tmp_path: Path) -> None:
    grown = tmp_path / "grown"
    for label in ("good", "scratch"):
        (grown / label).mkdir(parents=True)
        for source in sorted((line / label).iterdir())[:18]:
            shutil.copyfile(source, grown / label / source.name)
    few = audit(*scanned(grown), cache=tmp_path / "cache")
    assert len(few.clusters) > 18  # too few to know the scene from the parts
    for label in ("good", "scratch"):
        shutil.copytree(line / label, grown / label, dirs_exist_ok=True)
    result = audit(*scanned(grown), cache=tmp_path / "cache")
    assert result == audit(*scanned(grown))
    assert result == audit(*scanned(grown), cache=tmp_path / "cache")
    assert len(result.clusters) < 8


def alike(counts: dict[str, int], sizes: dict[str, int]) -> list[Finding]:
    """Findings about one cluster that holds so many images of the classes, of so many in all."""
    records = [ImageRecord(f"{label}/{i}", label) for label, size in sizes.items() for i in range(size)]
    members = [f"{label}/{i}" for label, count in counts.items() for i in range(count)]
    pairs = tuple(Pair(a, b, "likely", 10.0) for a, b in pairwise(members))
    dataset = Dataset(Path(), tuple(records), tuple(sizes), FolderStorage(Path()))
    return similar_findings(dataset, Similar(pairs, dict.fromkeys(members, 0)), NO_DECISIONS)


def test_many_images_that_look_alike_are_not_many_wrong_labels() -> None:
    (finding,) = alike({"good": 28, "scratch": 27}, {"good": 30, "scratch": 30})
    assert finding.kind == "look_alike"
    assert "55 images look alike and stay together (28 of 30 of good, 27 of 30 of scratch)" in finding.message
    for way in ("--no-split.near_duplicates", "--group", "--group-pattern", "audit-decisions.csv"):
        assert way in finding.remedy


@pytest.mark.parametrize(
    ("counts", "kind"),
    [
        ({"a": 1, "b": 1}, "near_duplicate_conflict"),
        ({"a": 6, "b": 5}, "near_duplicate_conflict"),
        ({"a": 20, "b": 1}, "near_duplicate_conflict"),
        ({"a": 20}, "near_duplicates"),
        ({"a": 50}, "look_alike"),
        ({"a": 10, "b": 4}, "look_alike"),
        ({"a": 50, "b": 1}, "look_alike"),
    ],
)
def test_a_wrong_label_is_suspected_where_few_images_disagree(counts: dict[str, int], kind: str) -> None:
    assert [found.kind for found in alike(counts, {"a": 100, "b": 100})] == [kind]


# -- drawings by several hands ---------------------------------------------------------------------


def drawing(shape: str, hand: int, number: int) -> Image.Image:
    """One stroke figure, 48 x 48, in the hand's own slant, width and size."""
    habit, rng = np.random.default_rng([1, hand]), np.random.default_rng([2, hand, number])
    points = np.array(FIGURES[shape], float) * habit.uniform(0.5, 0.9, 2)
    points[:, 0] += habit.uniform(-0.4, 0.4) * points[:, 1]
    points = 48 + 40 * points + rng.normal(0, 4, points.shape)
    image = Image.new("L", (96, 96), 255)
    line = [tuple(point) for point in points.tolist()]
    ImageDraw.Draw(image).line(line, fill=0, width=int(habit.integers(3, 9)))
    return image.resize((48, 48), Image.Resampling.LANCZOS)


FIGURES = {
    "circle": [(np.cos(t), np.sin(t)) for t in np.linspace(0, 2 * np.pi, 13)],
    "cross": [(-1, 0), (1, 0), (0, 0), (0, -1), (0, 1)],
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)],
    "zigzag": [(-1, -1), (-0.3, 1), (0.3, -1), (1, 1)],
}


@pytest.mark.slow
def test_drawings_that_look_alike_do_not_join_the_persons_who_drew_them(tmp_path: Path) -> None:
    for shape in FIGURES:
        (tmp_path / shape).mkdir()
        for hand in range(12):
            for number in range(2):
                drawing(shape, hand, number).save(tmp_path / shape / f"p{hand:02d}-{number}.png")
    for hand in range(11):  # each person has one drawing that is nearly the last person's
        shape = list(FIGURES)[hand % 4]
        twin = tmp_path / shape / f"p{hand + 1:02d}-0.png"
        edited(tmp_path / shape / f"p{hand:02d}-0.png", twin, lambda image: image.resize((44, 44)))
    found = scanned(tmp_path)
    persons = (replace(r, group=Path(r.path).name[:3]) for r in found.dataset.records)
    found = Scan(found.dataset.with_records(persons), found.measurements)
    result = audit(*found)
    whole = gather_atoms(result.dataset.used(), result.clusters, seed=0, pairs=linked_pairs(result))
    assert len(whole) < 3  # what hangs together cannot be divided
    made = split(result, cross_check=SecondSearch(result, found.measurements, NO_DECISIONS))
    gone = [record for record in made.dataset.records if not record.used]
    assert 0 < len(gone) <= 11
    assert all(record.note.startswith("looks like ") for record in gone)
    assert made.promise_kept
    assert made.verified["verified_pairs_across"] == 0


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
