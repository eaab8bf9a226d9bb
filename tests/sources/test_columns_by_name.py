"""Lists whose columns have other names, and paths that begin in another folder."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from saccade.errors import SourceError
from saccade.recipe import Recipe
from saccade.sources import Columns, load_source
from saccade.sources.inputs import given_by

ROWS = [
    {"filename": "a.png", "species": "cat", "site": "north"},
    {"filename": "sub/b.png", "species": "dog", "site": "south"},
    {"filename": "ä.png", "species": "cat", "site": "south"},
]
NAMED = Columns("filename", "species", group="site")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for number, row in enumerate(ROWS):
        file = root / row["filename"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number, 9, 9)).save(file)
    return root


def _separated(mark: str) -> Callable[[Path], None]:
    lines = [mark.join(ROWS[0]), *(mark.join(row.values()) for row in ROWS)]
    return lambda path: path.write_text("\n".join(lines)) and None


def _json_lines(path: Path) -> None:
    path.write_text("\n".join(json.dumps(row) for row in ROWS))


def _parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(ROWS), path)


WRITERS = {"csv": _separated(","), "tsv": _separated("\t"), "jsonl": _json_lines, "parquet": _parquet}


@pytest.mark.parametrize("ending", WRITERS)
def test_columns_are_found_by_the_names_that_are_given(photos: Path, tmp_path: Path, ending: str) -> None:
    place = tmp_path / f"labels.{ending}"
    WRITERS[ending](place)
    dataset = load_source(place, columns=Columns("filename", "Species", "site", root=str(photos)))
    assert [(record.path, record.label, record.group) for record in dataset.records] == [
        ("a.png", "cat", "north"),
        ("sub/b.png", "dog", "south"),
        ("ä.png", "cat", "south"),
    ]
    assert all(dataset.storage.read(record.path) for record in dataset.records)


def test_root_may_be_named_from_the_folder_of_the_list(photos: Path) -> None:
    WRITERS["csv"](photos.parent / "labels.csv")
    dataset = load_source(photos.parent / "labels.csv", columns=Columns("filename", "species", root="photos"))
    assert dataset.root == photos


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize(
    ("columns", "hint"),
    [
        (Columns("filname", "species"), "did you mean --path-column filename?"),
        (Columns("filename", "specie"), "did you mean --label-column species?"),
        (Columns("filename", "xyz"), "name one of them with --label-column"),
        (Columns("filename", "species", "sitee"), "did you mean --group site?"),
        (Columns("filename", "species", "xyz"), "name one of them with --group"),
    ],
)
def test_a_wrong_name_is_answered_with_the_columns_that_are_there(
    photos: Path, ending: str, columns: Columns, hint: str
) -> None:
    WRITERS[ending](photos / f"labels.{ending}")
    with pytest.raises(SourceError, match="its columns are: filename, species, site") as caught:
        load_source(photos / f"labels.{ending}", columns=columns)
    assert caught.value.hint == hint


def test_columns_that_nobody_named_are_asked_for_with_the_likely_ones(photos: Path) -> None:
    WRITERS["csv"](photos / "labels.csv")
    with pytest.raises(SourceError) as caught:
        load_source(photos / "labels.csv")
    assert "--path-column filename --label-column species" in caught.value.hint


def test_a_column_that_is_called_path_may_be_something_else(photos: Path) -> None:
    (photos / "l.csv").write_text("path,filename,label\nx,a.png,cat\ny,sub/b.png,dog\n")
    dataset = load_source(photos / "l.csv", columns=Columns(path="filename"))
    assert [record.path for record in dataset.records] == ["a.png", "sub/b.png"]


def test_a_list_in_an_archive_has_named_columns_and_no_other_root(photos: Path, tmp_path: Path) -> None:
    WRITERS["csv"](photos / "labels.csv")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        for path in photos.rglob("*.*"):
            file.write(path, path.relative_to(photos))
    assert load_source(tmp_path / "p.zip", columns=NAMED).classes == ("cat", "dog")
    with pytest.raises(SourceError, match="--root means nothing"):
        load_source(tmp_path / "p.zip", columns=Columns("filename", "species", root="."))


@pytest.mark.parametrize("columns", [Columns(path="x"), Columns(label="x"), Columns(root=".")])
def test_a_folder_has_no_columns(photos: Path, columns: Columns) -> None:
    with pytest.raises(SourceError, match="a folder has no columns, so --"):
        load_source(photos, columns=columns)


def test_root_that_is_no_folder_is_refused(photos: Path) -> None:
    WRITERS["csv"](photos / "labels.csv")
    with pytest.raises(SourceError, match="root is no folder: nowhere"):
        load_source(photos / "labels.csv", columns=Columns("filename", "species", root="nowhere"))


def test_the_recipe_keeps_what_columns_are_called() -> None:
    from saccade.pipeline.prepare import named_columns

    recipe = Recipe.from_mapping(
        {"data.path_column": "filename", "data.label_column": "species", "data.root": "imgs"}
    )
    assert named_columns(Recipe.from_toml(recipe.to_toml())) == Columns("filename", "species", root="imgs")


def named(words: list[str], columns: Columns) -> list[str]:
    return [name for given in given_by(words, columns) for name, _ in given.inputs()]


# -- what predict is given ------------------------------------------------------------------------------


def test_patterns_are_expanded_in_natural_order(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("new/10.jpg", "new/2.jpg", "new/deep/1.jpg", "new/odd[1].jpg", "new/note.txt"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).touch()
    monkeypatch.chdir(photos)
    usual = Columns()
    assert named(["new/*.jpg"], usual) == ["new/2.jpg", "new/10.jpg", "new/odd[1].jpg"]
    assert named(["new/**/*.jpg"], usual)[-1] == "new/odd[1].jpg"
    assert len(named(["new/**/*.jpg"], usual)) == 4
    assert len(named(["new/**"], usual)) == 5, "files, not the folders on the way"
    assert named(["new/odd[1].jpg"], usual) == ["new/odd[1].jpg"], "a file of this very name"
    assert named(["new/*.png", "none.jpg"], usual) == ["new/*.png", "none.jpg"]


def test_a_list_names_what_to_predict(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    _separated(";")(Path("new.csv"))
    found = named(["new.csv"], Columns("filename", root="photos"))
    assert found == [str(photos / row["filename"]) for row in ROWS]
    with pytest.raises(SourceError, match="no column path; its columns are: filename, species, site"):
        named(["new.csv"], Columns())
