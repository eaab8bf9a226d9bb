"""Findings of the audit on small real folders with planted faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from saccade.audit import KINDS, audit, audit_as_json
from saccade.audit.decisions import Decisions, parse_decisions
from saccade.audit.scan import scan
from saccade.audit.shortcuts import cross_validated
from saccade.records import Audit, Dataset, Finding, ImageRecord
from saccade.sources import load_source
from saccade.sources.storage import FolderStorage


def folder_dataset(root: Path) -> Dataset:
    """A folder per class, every file taken; a stand-in for `load_source` that knows no rules."""
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    records = tuple(ImageRecord(path, path.split("/")[0]) for path in paths)
    classes = tuple(sorted({record.label for record in records}))
    return Dataset(root, records, classes, FolderStorage(root))


def audited(root: Path, decisions: str = "", *, near_duplicates: bool = False) -> Audit:
    """The audit of a folder; without the search for near-duplicates, which has its own tests."""
    text = f"path,other,decision\n{decisions}"
    decided = parse_decisions(text, where="decisions")
    return audit(*scan(folder_dataset(root)), decisions=decided, near_duplicates=near_duplicates)


def of_kind(result: Audit, kind: str) -> list[Finding]:
    return [finding for finding in result.findings if finding.kind == kind]


def test_clean_data_has_no_warning(make_photos: Callable[..., Path]) -> None:
    result = audited(make_photos())
    assert result.worst == "info", [finding.message for finding in result.findings]
    assert len(result.dataset.used()) == 36


def test_a_truncated_file_is_set_aside_by_name(make_photos: Callable[..., Path]) -> None:
    root = make_photos(suffix=".jpg")
    broken = root / "bar" / "bar_003.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    result = audited(root)
    (finding,) = of_kind(result, "unreadable")
    assert finding.paths == ("bar/bar_003.jpg",)
    assert finding.severity == "warning"
    assert "Left out" in finding.message
    assert finding.remedy
    assert "bar/bar_003.jpg" not in {record.path for record in result.dataset.used()}


def test_one_picture_under_two_labels_is_set_aside_with_all_copies(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    shutil.copy(root / "bar" / "bar_000.png", root / "disc" / "other.png")
    result = audited(root)
    (finding,) = of_kind(result, "label_conflict")
    assert finding.severity == "error"
    assert finding.paths == ("bar/bar_000.png", "disc/other.png")
    aside = {record.path: record.note for record in result.dataset.records if not record.used}
    assert set(aside) == set(finding.paths)
    assert all("label conflict" in note for note in aside.values())


def test_copies_under_one_label_stay_and_share_a_cluster(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    shutil.copy(root / "bar" / "bar_000.png", root / "bar" / "copy.png")
    result = audited(root)
    (finding,) = of_kind(result, "identical_files")
    assert finding.paths == ("bar/bar_000.png", "bar/copy.png")
    assert result.clusters["bar/bar_000.png"] == result.clusters["bar/copy.png"]
    assert set(result.clusters) == set(finding.paths)


def test_a_class_of_two_images_is_too_small(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    for path in sorted((root / "bar").iterdir())[2:]:
        path.unlink()
    (finding,) = of_kind(audited(root), "too_small")
    assert "bar (2)" in finding.message


def test_copies_do_not_make_a_class_large_enough(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    for path in sorted((root / "bar").iterdir())[2:]:
        shutil.copy(root / "bar" / "bar_000.png", path)
    (finding,) = of_kind(audited(root), "too_small")
    assert finding.severity == "error"
    assert "bar (2)" in finding.message


def test_imbalance_is_reported_with_both_counts(make_photos: Callable[..., Path]) -> None:
    root = make_photos(images=40)
    for path in sorted((root / "bar").iterdir())[4:]:
        path.unlink()
    (finding,) = of_kind(audited(root), "imbalance")
    assert "40 and 4" in finding.message
    assert "macro F1" in finding.remedy
    assert finding.remedy.endswith("--evaluate.logit_adjustment auto")
    assert finding.figure["ratio"] == 10


def test_imbalance_of_a_given_split_is_that_of_its_training_part(make_photos: Callable[..., Path]) -> None:
    """An even test part hides nothing, and an uneven one is nothing to train against."""
    root = make_photos(images=24)
    for label in ("bar", "checker", "disc"):
        for number, path in enumerate(sorted((root / label).iterdir())):
            part = "train" if number < (20 if label != "bar" else 2) else "test"
            (root / part / label).mkdir(parents=True, exist_ok=True)
            path.rename(root / part / label / path.name)
        (root / label).rmdir()
    (finding,) = of_kind(audit(*scan(load_source(str(root))), near_duplicates=False), "imbalance")
    assert "10 times the training images of bar (20 and 2)" in finding.message


def test_names_that_differ_in_unicode_form_only(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    (root / "bar" / "bar_000.png").rename(root / "bar" / "caf\u00e9.png")
    (root / "bar" / "bar_001.png").rename(root / "bar" / "cafe\u0301.png")
    result = audited(root)
    (finding,) = of_kind(result, "name_forms")
    assert len(finding.paths) == 2
    assert len(result.dataset.used()) == 36


def test_findings_stand_in_the_order_of_the_table(make_photos: Callable[..., Path]) -> None:
    root = make_photos(images=40)
    shutil.copy(root / "bar" / "bar_000.png", root / "disc" / "other.png")
    shutil.copy(root / "bar" / "bar_001.png", root / "bar" / "copy.png")
    (root / "bar" / "empty.png").touch()
    order = [list(KINDS).index(finding.kind) for finding in audited(root).findings]
    assert len(set(order)) >= 4
    assert order == sorted(order)


# -- single images -----------------------------------------------------------------------------


def photo(rng: np.random.Generator, side: int = 160) -> Image.Image:
    """Something with detail at all scales, as photos have."""
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((side, side), 3), float
        )
        for n in (4, 12, 40, side)
    ]
    return Image.fromarray(
        sum(w * layer for w, layer in zip((0.4, 0.3, 0.2, 0.1), layers, strict=True)).astype(np.uint8)
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(12):
            photo(rng).save(tmp_path / label / f"{i:02d}.png")
    return tmp_path


def planted(kind: str) -> Image.Image:
    image = photo(np.random.default_rng(99))
    return {
        "blank": lambda: Image.new("RGB", (160, 160), (10, 200, 90)),
        "too_dark": lambda: image.point(lambda level: level * 0.1),
        "too_bright": lambda: image.point(lambda level: 235 + level * 0.08),
        "blurred": lambda: image.filter(ImageFilter.GaussianBlur(4)),
        "tiny": lambda: image.resize((10, 10)),
        "odd_aspect": lambda: image.crop((0, 0, 160, 30)),
        "odd_size": lambda: image.resize((1000, 1000)),
    }[kind]()


@pytest.mark.parametrize(
    "kind", ["blank", "too_dark", "too_bright", "blurred", "tiny", "odd_aspect", "odd_size"]
)
def test_a_planted_image_is_found_and_nothing_else(photos: Path, kind: str) -> None:
    planted(kind).save(photos / "a" / "planted.png")
    result = audited(photos)
    (finding,) = of_kind(result, kind)
    assert finding.paths == ("a/planted.png",)
    single = ("blank", "too_dark", "too_bright", "blurred", "tiny", "odd_aspect")
    assert [found.kind for found in result.findings if found.kind in single] == [kind] * (kind in single)
    assert "a/planted.png" in {record.path for record in result.dataset.used()}


def test_a_dull_blurred_image_is_found_behind_the_rounding(photos: Path) -> None:
    dull = planted("blurred").point(lambda level: 40 + level * 0.6)
    dull.save(photos / "a" / "planted.png")
    assert [finding.paths for finding in of_kind(audited(photos), "blurred")] == [("a/planted.png",)]


def test_portraits_among_landscapes_are_not_odd(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(6):
            image = photo(rng).resize((200, 100))
            (image.rotate(90, expand=True) if i == 0 else image).save(tmp_path / label / f"{i}.png")
    assert not of_kind(audited(tmp_path), "odd_aspect")


@pytest.mark.parametrize("edit", ["turned", "halved", "jpeg", "slightly_blurred", "darker"])
def test_ordinary_images_are_not_called_bad(photos: Path, edit: str) -> None:
    image = photo(np.random.default_rng(99))
    edits: Mapping[str, Callable[[], Image.Image]] = {
        "turned": lambda: image.resize((160, 100)).rotate(90, expand=True),
        "halved": lambda: image.resize((80, 80)),
        "jpeg": lambda: image,
        "slightly_blurred": lambda: image.filter(ImageFilter.GaussianBlur(0.7)),
        "darker": lambda: image.point(lambda level: level * 0.4),
    }
    suffix = ".jpg" if edit == "jpeg" else ".png"
    edits[edit]().save(photos / "a" / f"edited{suffix}")
    kinds = {finding.kind for finding in audited(photos).findings}
    assert not kinds & {"blank", "too_dark", "too_bright", "blurred", "tiny", "odd_aspect"}


# -- shortcuts ---------------------------------------------------------------------------------


def shortcut_photos(root: Path, save: Callable[[Image.Image, Path, str], None]) -> Path:
    rng = np.random.default_rng(1)
    for label in ("a", "b"):
        (root / label).mkdir()
        for i in range(40):
            save(photo(rng, 64), root / label / str(i), label)
    return root


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("JPEG quality", lambda im, path, label: im.save(f"{path}.jpg", quality=90 if label == "a" else 60)),
        ("the file format", lambda im, path, label: im.save(f"{path}.{'png' if label == 'a' else 'bmp'}")),
        (
            "the exact size",
            lambda im, path, label: im.resize((64, 64) if label == "a" else (64, 48)).save(f"{path}.png"),
        ),
        (
            "brightness",
            lambda im, path, label: im.point(lambda v: v * (1 if label == "a" else 0.5)).save(f"{path}.png"),
        ),
        (
            "the colour mode",
            lambda im, path, label: im.convert("RGB" if label == "a" else "L").save(f"{path}.png"),
        ),
    ],
)
def test_a_property_that_gives_the_label_away_is_found(
    tmp_path: Path, name: str, save: Callable[[Image.Image, Path, str], None]
) -> None:
    findings = of_kind(audited(shortcut_photos(tmp_path, save)), "shortcut")
    named = {finding.figure["property"]: finding for finding in findings}
    assert named[name].figure["accuracy"] >= 0.95
    assert "alone" in named[name].message
    assert {path.split("/")[0] for path in named[name].paths} == {"a", "b"}
    assert set(named[name].figure["per_class"]) == {"a", "b"}


def test_no_shortcut_where_there_is_none(tmp_path: Path) -> None:
    result = audited(shortcut_photos(tmp_path, lambda im, path, label: im.save(f"{path}.jpg")))
    assert not of_kind(result, "shortcut")
    (checked,) = of_kind(result, "shortcuts_checked")
    assert set(checked.figure["balanced_accuracy"]) >= {"file size", "brightness", "the camera"}


@pytest.mark.parametrize("categories", [False, True])
def test_random_values_score_like_chance(categories: bool) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(3000) % 3
    scores = []
    for _ in range(30):
        values = rng.integers(0, 8, 3000).astype(float) if categories else rng.normal(size=3000)
        scores.append(cross_validated(values, labels, np.arange(3000), categories=categories))
    assert max(abs(score.deviations) for score in scores) < 5
    assert abs(np.mean([score.accuracy for score in scores]) - 1 / 3) < 0.01


def test_copies_in_one_fold_cannot_vouch_for_each_other() -> None:
    rng = np.random.default_rng(0)
    values: NDArray[np.float64] = np.repeat(rng.normal(size=24), 50)
    labels, units = np.repeat(rng.integers(0, 2, 24), 50), np.repeat(np.arange(24), 50)
    apart = cross_validated(values, labels, np.arange(1200))
    together = cross_validated(values, labels, units)
    assert apart.accuracy > 0.8  # the value is as good as the image's name
    assert together.accuracy < 0.7


# -- decisions ---------------------------------------------------------------------------------


def test_a_kept_copy_settles_a_conflict(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    shutil.copy(root / "bar" / "bar_000.png", root / "disc" / "other.png")
    result = audited(root, "bar/bar_000.png,,keep\n")
    assert not of_kind(result, "label_conflict")
    used = {record.path for record in result.dataset.used()}
    assert "bar/bar_000.png" in used
    assert "disc/other.png" not in used


def test_keeping_both_sides_of_a_conflict_settles_nothing(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    shutil.copy(root / "bar" / "bar_000.png", root / "disc" / "other.png")
    result = audited(root, "bar/bar_000.png,,keep\ndisc/other.png,,keep\n")
    assert len(of_kind(result, "label_conflict")) == 1


def test_a_dropped_image_is_left_out(make_photos: Callable[..., Path]) -> None:
    result = audited(make_photos(), "bar/bar_000.png,,drop\n")
    (finding,) = of_kind(result, "dropped")
    assert finding.paths == ("bar/bar_000.png",)
    assert len(result.dataset.used()) == 35


def test_a_kept_image_is_not_reported_again(photos: Path) -> None:
    planted("blurred").save(photos / "a" / "planted.png")
    assert not of_kind(audited(photos, "a/planted.png,,keep\n"), "blurred")


def test_a_decision_about_a_file_that_is_gone_is_said(make_photos: Callable[..., Path]) -> None:
    (finding,) = of_kind(audited(make_photos(), "bar/gone.png,,keep\n"), "decisions")
    assert finding.paths == ("bar/gone.png",)


def test_what_was_decided_is_told_and_a_new_label_counts(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    scanned = scan(folder_dataset(root))
    text = (
        "path,decision,new_label,other\nbar/bar_000.png,relabel,disc,\nbar/bar_001.png,keep,,\n"
        "disc/disc_001.png,not a duplicate,,bar/bar_002.png\ndisc/disc_001.png,not a duplicate,,gone.png\n"
    )
    result = audit(*scanned, decisions=parse_decisions(text, where="d.csv"), near_duplicates=False)
    (changed,), (kept,) = of_kind(result, "relabelled"), of_kind(result, "kept")
    assert changed.message == "1 image with another label by d.csv: bar/bar_000.png"
    assert changed.figure["labels"] == {"bar/bar_000.png": ["bar", "disc"]}
    assert kept.paths == ("bar/bar_001.png",)
    (parted,) = of_kind(result, "parted")
    assert parted.message == "1 pair parted by d.csv: bar/bar_002.png and disc/disc_001.png"
    assert parted.figure["pairs"] == [["bar/bar_002.png", "disc/disc_001.png"]]
    assert result.dataset.counts() == {"bar": 11, "checker": 12, "disc": 13}


def test_no_decisions_change_nothing(make_photos: Callable[..., Path]) -> None:
    scanned = scan(folder_dataset(make_photos()))
    without = audit(*scanned, near_duplicates=False)
    assert without == audit(*scanned, decisions=Decisions(), near_duplicates=False)


def test_json_holds_plain_values(make_photos: Callable[..., Path]) -> None:
    root = make_photos()
    shutil.copy(root / "bar" / "bar_000.png", root / "bar" / "copy.png")
    values = json.loads(json.dumps(audit_as_json(audited(root))))
    kinds = [finding["kind"] for finding in values["findings"]]
    assert "identical_files" in kinds
    assert {"kind", "severity", "paths", "remedy", "message", "confidence", "figure"} <= set(
        values["findings"][0]
    )


def test_the_manual_names_every_kind() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8")
    assert len(KINDS) > 20
    assert [kind for kind in KINDS if f"`{kind}`" not in manual] == []


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("white", [255, 250])
def test_drawings_that_vanish_on_the_background_name_it(tmp_path: Path, mode: str, white: int) -> None:
    """White on transparent, laid on white: nothing is left, and all images are the same."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(3):
            pixels = np.full((32, 32, 4), white, np.uint8)
            pixels[..., 3] = 0
            pixels[4 + number : 20, 4:20, 3] = 255 if white == 255 else 90
            image = Image.fromarray(pixels)
            image = image.quantize(8) if mode == "P" else image.convert(mode)
            image.save(tmp_path / label / f"{number}.png")
    spoilt = [
        found
        for found in audited(tmp_path).findings
        if found.kind in ("label_conflict", "blank", "too_bright")
    ]
    assert spoilt
    for found in spoilt:
        assert "have transparent pixels" in found.remedy
        assert "--data.background 0,0,0" in found.remedy


def test_blank_images_without_transparency_do_not_name_the_background(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(2):
            shade = 40 + 50 * number + 20 * (label == "b")
            Image.new("RGB", (32, 32), (shade,) * 3).save(tmp_path / label / f"{number}.png")
    (found,) = of_kind(audited(tmp_path), "blank")
    assert "background" not in found.remedy
