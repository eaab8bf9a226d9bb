"""A manifest: what stands in it, that it is data like its folder, and what a second index reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from saccade.errors import SourceError
from saccade.sources import indexing, load_source
from saccade.sources.columns import stored_stamps
from saccade.sources.indexing import write_index
from saccade.sources.inputs import given_by
from saccade.sources.remote import Listed


@pytest.fixture
def photos(make_photos: Callable[..., Path]) -> Path:
    root = make_photos(images=4, side=8)
    (root / ".hidden").mkdir()
    (root / ".hidden/a.png").write_bytes(b"x")
    (root / "disc/Thumbs.db").write_bytes(b"x")
    return root


def test_a_manifest_is_data_like_its_folder(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere/manifest.parquet"
    indexed = write_index(str(photos), out)
    assert (indexed.rows, dict(indexed.classes)) == (12, {"bar": 4, "checker": 4, "disc": 4})
    assert indexed.passed_over == {"junk": 1}
    table = parquet.read_table(out)
    assert table.column_names == ["path", "label", "part", "size", "etag", "modified", "sha256"]
    assert table.column("path").to_pylist() == sorted(table.column("path").to_pylist())
    here, there = load_source(photos), load_source(out)
    assert there.records == here.records
    assert (there.root, there.findings) == (here.root, ())
    (given,) = given_by([str(out)])
    assert [name for name, _ in given.inputs()] == [str(photos / record.path) for record in here.records]


def test_parts_and_images_beside_the_classes(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "parted"
    for part, images in (("train", 6), ("val", 2), ("test", 2)):
        make_photos(f"parted/{part}", images=images, side=8)
    (root / "train/loose.png").write_bytes((root / "train/disc/disc_000.png").read_bytes())
    indexed = write_index(str(root), tmp_path / "m.parquet")
    assert (indexed.rows, indexed.without_class) == (31, 1)
    here, there = load_source(root), load_source(tmp_path / "m.parquet")
    assert there.records == here.records
    assert there.given_parts == ("train", "validation", "test")
    (given,) = given_by([str(tmp_path / "m.parquet")])
    assert given.count == 31


def test_a_second_index_reads_what_is_new_or_changed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.parquet"
    assert write_index(str(photos), out, hashes=True).read == 12
    before = dict(
        zip(*(parquet.read_table(out).column(name).to_pylist() for name in ("path", "sha256")), strict=True)
    )
    (photos / "bar/bar_000.png").unlink()
    (photos / "disc/disc_001.png").write_bytes((photos / "disc/disc_002.png").read_bytes())
    os.utime(photos / "disc/disc_001.png", ns=(1, 1))
    (photos / "disc/new.png").write_bytes((photos / "disc/disc_002.png").read_bytes())
    again = write_index(str(photos), out, hashes=True)
    assert (again.unchanged, again.new, again.changed, again.gone, again.read) == (10, 1, 1, 1, 2)
    after = dict(
        zip(*(parquet.read_table(out).column(name).to_pylist() for name in ("path", "sha256")), strict=True)
    )
    assert after["disc/disc_001.png"] == after["disc/new.png"] == before["disc/disc_002.png"]
    assert after["bar/bar_001.png"] == before["bar/bar_001.png"]
    assert not list(tmp_path.glob(".*part"))


def test_a_manifest_of_something_else_stays(
    photos: Path, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "manifest.parquet"
    write_index(str(photos), out)
    with pytest.raises(SourceError, match="is a manifest of"):
        write_index(str(make_photos("others", side=8)), out)
    with pytest.raises(SourceError, match="is no folder"):
        write_index(str(out), tmp_path / "again.parquet")


def listing(images: int, start: int = 0) -> Iterator[Listed]:
    for number in range(start, images):
        yield Listed(f"class_{number % 3}/{number:08d}.jpg", 1000 + number % 7, f"{number:x}", 0)


def test_rows_pass_by_in_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However many there are: no more than a group is held, and groups are as large as they should be."""
    rows = sorted(listing(1000))
    monkeypatch.setattr(indexing, "ROWS_A_GROUP", 256)
    monkeypatch.setattr(indexing, "entries", lambda root: iter(rows))
    monkeypatch.setattr(indexing, "_root_of", lambda location: location)
    indexed = write_index("s3://bucket/photos", tmp_path / "m.parquet")
    assert indexed.rows == 1000
    file = parquet.ParquetFile(tmp_path / "m.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [256, 256, 256, 232]
    monkeypatch.setattr(indexing, "entries", lambda root: iter(rows[::-1]))  # as some services list
    again = write_index("s3://bucket/photos", tmp_path / "m.parquet")
    assert (again.unchanged, again.new, again.gone) == (1000, 0, 0)


def test_an_object_of_which_a_manifest_does_not_know_all_has_no_stamp(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = {"path": ["a.jpg", "b.jpg", "c.jpg"], "size": [10, None, 12], "etag": ["x", "y", None]}
    table = pyarrow.table({**rows, "modified": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "manifest.parquet")
    assert set(stored_stamps(tmp_path / "manifest.parquet")) == {"a.jpg"}
