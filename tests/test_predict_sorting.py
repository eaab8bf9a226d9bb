"""Photos sorted into folders, the contact sheet, and CSV files that Excel opens right."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.errors import RecipeError
from saccade.predict import Answer, write_answers
from saccade.predict.command import predict_command
from saccade.predict.contact_sheet import ContactSheet
from saccade.predict.sorting import Sorter, folder_names
from saccade.run_folder import read_predictions
from saccade.terminal import Terminal

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """IMG_1.jpg in three folders, one of them in upper case, and a damaged one."""
    root = tmp_path / "Fotos"
    for folder, name, colour in (
        ("Süd", "IMG_1.jpg", "red"),
        ("Ost", "IMG_1.jpg", "red"),
        ("West", "img_1.JPG", "red"),
        ("West", "b.png", "blue"),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        size = (20, 10 + len(folder))
        Image.new("RGB", size, COLOURS[colour]).save(root / folder / name, None if "b" in name else "JPEG")
    (root / "Ost" / "IMG_2.jpg").write_bytes(b"\xff\xd8\xff")
    return root


def run(model: Path, *inputs: object, **options: object) -> tuple[int, list[str]]:
    stream = io.StringIO()
    code = predict_command(str(model), [str(i) for i in inputs], Terminal(stream=stream), **options)  # type: ignore[arg-type]
    return code, stream.getvalue().splitlines()


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


# ── sorting ──────────────────────────────────────────────────────────────────────────────────────────


def test_each_photo_is_copied_once_and_none_is_lost(model: Path, photos: Path, tmp_path: Path) -> None:
    before = contents(photos)
    target = tmp_path / "sorted"
    out = tmp_path / "o.csv"
    code, said = run(model, photos, photos / "West" / "b.png", sort_into=str(target), out=str(out))
    assert code == 1
    assert contents(photos) == before
    found = contents(target)
    assert sorted(found) == [
        *("blue/b.png", "failed.csv", "red/IMG_1-2.jpg", "red/IMG_1.jpg", "red/img_1-3.JPG", "sorted.csv")
    ]
    listed = rows(target / "sorted.csv")
    assert [row["predicted"] for row in listed] == ["red", "red", "blue", "red"]
    for row in listed:
        assert found[row["copy"]] == Path(row["path"]).read_bytes()
        assert os.stat(target / row["copy"]).st_mtime_ns == os.stat(row["path"]).st_mtime_ns
    assert [row["path"] for row in rows(target / "failed.csv")] == [str(photos / "Ost" / "IMG_2.jpg")]
    assert rows(tmp_path / "o.csv.failed.csv") == rows(target / "failed.csv")
    assert said == [
        f"5 predictions written to {out}",
        f"4 photos in 2 folders of {target}, listed in {target / 'sorted.csv'}",
        "        1  blue",
        "        3  red",
        "1 could not be read and are in no folder",
        "1 given more than once, placed once",
    ]


def test_a_copy_that_is_stopped_leaves_no_half_photo(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(original: io.BufferedReader, copy: io.BufferedWriter, length: int) -> None:
        copy.write(original.read(10))
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfileobj", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(model, photos, sort_into=str(tmp_path / "sorted"))
    assert contents(tmp_path / "sorted") == {}


def test_links_lead_to_the_photos(model: Path, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    assert run(model, photos / "West", sort_into=str(target), link=True)[0] == 0
    assert (target / "blue" / "b.png").is_symlink()
    assert (target / "blue" / "b.png").resolve() == (photos / "West" / "b.png").resolve()


def test_a_target_that_would_mix_or_overwrite_is_refused(model: Path, photos: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    with pytest.raises(RecipeError, match="holds photos that are to be sorted") as caught:
        run(model, photos / "Ost", sort_into=str(photos))
    assert caught.value.hint == "give a folder beside them"
    with pytest.raises(RecipeError, match="is not empty"):
        run(model, photos / "Ost", sort_into=str(photos / "West"))
    with pytest.raises(RecipeError, match=r"lies in .*Fotos, whose photos are to be sorted"):
        run(model, photos, sort_into=str(photos / "new"))
    with pytest.raises(RecipeError, match="is not a folder"):
        run(model, photos / "Ost", sort_into=str(photos / "West" / "b.png"))
    with pytest.raises(RecipeError, match="--link is without effect"):
        run(model, photos, link=True)
    with pytest.raises(RecipeError, match="no name of a page"):
        run(model, photos, contact_sheet="sheet.pdf")
    assert contents(tmp_path) == before


def test_a_disk_that_is_too_small_is_said_before(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    with pytest.raises(RecipeError, match=r"needs 0\.0 GB, 0\.0 GB are free"):
        run(model, photos, sort_into=str(tmp_path / "sorted"))
    assert run(model, photos / "West", sort_into=str(tmp_path / "sorted"), link=True)[0] == 0


def test_where_nothing_can_be_read_there_is_no_folder_of_a_class(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    assert run(model, photos / "Ost" / "IMG_2.jpg", sort_into=str(tmp_path / "s"))[0] == 2
    assert sorted(contents(tmp_path / "s")) == ["failed.csv", "sorted.csv"]


def test_class_names_that_are_no_folder_names_are_said(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"as it is")
    classes = ("../../up", "b")
    stream = io.StringIO()
    sorter = Sorter(tmp_path / "s" / "t", classes)
    sorter.take(Answer(str(photo), classes, np.array([0.9, 0.1])))
    sorter.place(Terminal(stream=stream))
    assert (tmp_path / "s" / "t" / "_.._.._up" / "a.jpg").read_bytes() == b"as it is"
    assert "_.._.._up (class '../../up', which cannot be a folder's name)" in stream.getvalue()


@settings(max_examples=50)
@given(
    st.lists(
        st.text() | st.sampled_from(["CON", "nul.txt", "..", "sorted.csv", "a/b", "A:B"]),
        max_size=6,
        unique=True,
    )
)
def test_folder_names_are_single_valid_and_different(classes: list[str]) -> None:
    names = list(folder_names(classes).values())
    assert len({name.casefold() for name in names} | {"sorted.csv", "failed.csv"}) == len(classes) + 2
    for name in names:
        assert name
        assert name[0] != "."
        assert name[-1] not in ". "
        assert not set(name) & set('<>:"/\\|?*\0\n')
        assert name.partition(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}
        assert len(name.encode("utf-8", "surrogateescape")) < 255


# ── contact sheet ────────────────────────────────────────────────────────────────────────────────────


class Tags(HTMLParser):
    """The tags of a page, and the text outside of its style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_least_certain_photo_comes_first(model: Path, photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (130, 120, 30)).save(photos / "Süd" / "between.png")
    page = tmp_path / "sheet.html"
    code, said = run(model, photos, contact_sheet=str(page))
    assert code == 1
    assert said == [f"5 photos, the least certain first: {page}"]
    shown = Tags(page.read_text("utf-8"))
    pictures = [values for tag, values in shown.tags if tag == "img"]
    assert len(pictures) == 5
    assert all(str(values["src"]).startswith("data:image/") for values in pictures)
    places = [shown.text.index(name) for name in ("between.png", "b.png", "1 could not be read", "IMG_2.jpg")]
    assert places == sorted(places)


def test_no_name_reaches_the_page_as_markup() -> None:
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>\u202e.jpg'
    sheet = ContactSheet()
    classes = (evil, "'\"&")
    sheet.see(Answer(evil, classes, np.array([0.5, 0.5])), np.zeros((9, 9, 3), np.uint8), 0)
    sheet.take(Answer(evil, classes, np.zeros(2), evil))
    shown = Tags(sheet.page())
    tags = [tag for tag, _ in shown.tags]
    assert tags.count("img") == 1
    assert "script" not in tags
    assert {name for _, values in shown.tags for name in values} <= {
        *("lang", "charset", "http-equiv", "content", "name", "class", "src", "width", "height", "alt"),
        *("loading", "style"),
    }
    assert "\u202e" not in shown.text
    assert shown.text.count("<script>alert(1)</script>") == 4  # class, path, and both of the failed one


def test_only_the_least_certain_are_kept() -> None:
    sheet = ContactSheet(most=3)
    for number, confidence in enumerate([0.9, 0.6, 0.8, 0.5, 0.7, 0.6]):
        answer = Answer(f"{number}.jpg", ("a", "b"), np.array([confidence, 1 - confidence]))
        sheet.see(answer, np.zeros((9, 9, 3), np.uint8), number)
    text = Tags(sheet.page()).text
    assert [name for name in ("3.jpg", "1.jpg", "5.jpg") if name in text] == ["3.jpg", "1.jpg", "5.jpg"]
    assert text.index("3.jpg") < text.index("1.jpg") < text.index("5.jpg")
    assert "0.jpg" not in text
    assert sheet.summary() == "the 3 least certain of 6 photos"


# ── Excel ────────────────────────────────────────────────────────────────────────────────────────────

MARK = b"\xef\xbb\xbf"


def answers(*names: str, classes: tuple[str, ...] = ("a", "b")) -> list[Answer]:
    return [Answer(name, classes, np.array([0.75, 0.25])) for name in names]


@pytest.mark.parametrize(
    ("given", "marked"),
    [
        (answers("a.jpg"), False),
        (answers("Gänseblümchen/a.jpg"), True),
        (answers("a.jpg", classes=("Löwenzahn", "b")), True),
        (answers("no utf-8 \udcff.jpg", "ä.jpg"), False),
    ],
)
def test_a_byte_order_mark_stands_where_excel_needs_one(
    given: list[Answer], marked: bool, tmp_path: Path
) -> None:
    write_answers(tmp_path / "o.csv", given)
    assert (tmp_path / "o.csv").read_bytes().startswith(MARK) is marked
    write_answers(tmp_path / "o.jsonl", given)
    assert not (tmp_path / "o.jsonl").read_bytes().startswith(MARK)


def test_answers_with_a_mark_are_read_back(tmp_path: Path) -> None:
    given = answers("Gänseblümchen/ä.jpg", classes=("Gänseblümchen", "Löwenzahn"))
    write_answers(tmp_path / "o.csv", given)
    read = read_predictions(tmp_path / "o.csv")
    assert read.paths == ("Gänseblümchen/ä.jpg",)
    assert read.classes == ("Gänseblümchen", "Löwenzahn")
