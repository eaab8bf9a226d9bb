"""The audit's page: self-contained, escaped, with the pictures that prove each finding."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from saccade.audit import audit
from saccade.audit.scan import scan
from saccade.records import Audit, Dataset, Finding, ImageRecord, Pair
from saccade.report.audit_page import FINDINGS_SHOWN, audit_html, write_audit_page
from saccade.sources.storage import FolderStorage

EVIL = "<img src=x onerror=alert(1)>.png"


def folder_dataset(root: Path) -> Dataset:
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    records = tuple(ImageRecord(path, path.split("/")[0]) for path in paths)
    return Dataset(root, records, tuple(sorted({r.label for r in records})), FolderStorage(root))


@pytest.fixture
def faulty(make_photos: Callable[..., Path]) -> Dataset:
    root = make_photos(side=90)
    shutil.copy(root / "bar" / "bar_000.png", root / "disc" / "other.png")
    shutil.copy(root / "bar" / "bar_001.png", root / "bar" / EVIL)
    (root / "bar" / "empty.png").touch()
    return folder_dataset(root)


def page_of(dataset: Dataset) -> str:
    return audit_html(audit(*scan(dataset), near_duplicates=False), dataset.storage.read)


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_proof_pictures_stand_in_the_page(faulty: Dataset) -> None:
    page = page_of(faulty)
    sources = [attrs["src"] or "" for tag, attrs in Tags(page).seen if tag == "img"]
    assert len(sources) >= 4
    assert all(source.startswith("data:image/") for source in sources)
    picture = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    assert picture.size == (90, 90)
    for title in ("One picture under two labels", "Byte-identical copies", "Files that cannot be used"):
        assert title in page
    assert page.index("One picture under two labels") < page.index("Byte-identical copies")


def test_nothing_is_loaded_from_elsewhere_and_no_script_runs(faulty: Dataset) -> None:
    for tag, attrs in Tags(page_of(faulty)).seen:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name, value in attrs.items():
            assert not name.startswith("on")
            assert not re.match(r"\s*(https?:)?//", value or ""), (tag, name, value)


def test_names_are_escaped(faulty: Dataset) -> None:
    page = page_of(faulty)
    assert EVIL not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page


def test_pictures_carry_no_metadata(make_photos: Callable[..., Path]) -> None:
    root = make_photos(suffix=".jpg", side=90)
    exif = Image.Exif()
    exif[0x010F], exif.get_ifd(0x8825)[1] = "SecretCamera", "N"
    path = root / "bar" / "bar_000.jpg"
    Image.open(path).save(path, exif=exif)
    assert b"SecretCamera" in path.read_bytes()
    shutil.copy(path, root / "bar" / "copy.jpg")
    page = page_of(folder_dataset(root))
    pictures = [base64.b64decode(data) for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)]
    assert len(pictures) >= 2
    assert not any(b"SecretCamera" in picture or b"Exif" in picture for picture in pictures)


def test_without_images_the_page_says_so(faulty: Dataset) -> None:
    page = audit_html(audit(*scan(faulty), near_duplicates=False))
    assert "image not at hand" in page


def test_pairs_say_why_and_how_sure(make_photos: Callable[..., Path]) -> None:
    dataset = folder_dataset(make_photos())
    first, second = "bar/bar_000.png", "disc/disc_000.png"
    finding = Finding("possible_duplicates", "info", "1 pair", "Look", (first, second), "look")
    pair = Pair(first, second, "look", 0.61, "mirrored")
    page = audit_html(Audit(dataset, (finding,), (pair,)), dataset.storage.read)
    assert "look at these, mirrored: agreement 0.61" in page
    assert page.index(first) < page.index(second)


def test_thousands_of_findings_keep_the_page_small(make_photos: Callable[..., Path]) -> None:
    dataset = folder_dataset(make_photos())
    paths = [record.path for record in dataset.records]
    findings = tuple(
        Finding("near_duplicates", "warning", f"set {i}", "Look", (paths[i % 36], paths[(i + 1) % 36]))
        for i in range(5000)
    )
    page = audit_html(Audit(dataset, findings), dataset.storage.read)
    assert len(page) < 400_000
    assert f"set {FINDINGS_SHOWN - 1}." in page
    assert "in <code>audit.json</code>" in page


def test_clean_data_is_called_good(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    dataset = folder_dataset(make_photos())
    path = write_audit_page(
        audit(*scan(dataset), near_duplicates=False), tmp_path / "out" / "audit.html", dataset.storage.read
    )
    text = path.read_text("utf-8")
    assert "Nothing that needs doing" in text
    assert "disc" in text
