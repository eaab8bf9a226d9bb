"""Findings of the audit on small real folders with planted faults."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from saccade.data.audit import audit, audit_as_json
from saccade.data.scan import scan
from saccade.data.storage import FolderStorage
from saccade.records import Audit, Dataset, Finding, ImageRecord


def folder_dataset(root: Path) -> Dataset:
    """A folder per class, every file taken; a stand-in for `load_source` that knows no rules."""
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    records = tuple(ImageRecord(path, path.split("/")[0]) for path in paths)
    classes = tuple(sorted({record.label for record in records}))
    return Dataset(root, records, classes, FolderStorage(root))


def audited(root: Path) -> Audit:
    return audit(*scan(folder_dataset(root)))


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


def test_json_holds_plain_values(make_photos: Callable[..., Path]) -> None:
    import json

    root = make_photos()
    shutil.copy(root / "bar" / "bar_000.png", root / "bar" / "copy.png")
    values = json.loads(json.dumps(audit_as_json(audited(root))))
    kinds = [finding["kind"] for finding in values["findings"]]
    assert "identical_files" in kinds
    assert {"kind", "severity", "paths", "remedy", "message", "confidence", "figure"} <= set(
        values["findings"][0]
    )
