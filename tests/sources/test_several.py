"""Lists whose images may have several labels: the same sets out of every form, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from saccade.errors import SourceError
from saccade.records import Dataset
from saccade.sources import Columns, load_source

SETS = {"a.png": ("cat", "dog"), "b.png": (), "c.png": ("bird", "cat"), "d.png": ("dog",)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(SETS):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(tmp_path / name)
    return tmp_path


def write(folder: Path, text: str, name: str = "list.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def delimited(folder: Path, mark: str) -> Path:
    rows = "".join(f'{name},"{mark.join(reversed(labels))}"\n' for name, labels in SETS.items())
    return write(folder, f"path,label\n{rows}")


def one_hot(folder: Path, yes: str = "1", no: str = "0") -> Path:
    def cells(labels: tuple[str, ...]) -> str:
        return ",".join(yes if name in labels else no for name in ("cat", "dog", "bird"))

    rows = "".join(f"{name},{cells(labels)},x\n" for name, labels in SETS.items())
    return write(folder, f"path,cat,dog,bird,note\n{rows}")


def repeated(folder: Path) -> Path:
    rows = "".join(f"{name},{label}\n" for name, labels in SETS.items() for label in labels or ("",))
    return write(folder, f"path,label\n{rows}")


def json_lines(folder: Path) -> Path:
    rows = (json.dumps({"path": name, "label": labels}) for name, labels in SETS.items())
    return write(folder, "\n".join(rows), "list.jsonl")


def parquet(folder: Path) -> Path:
    table = pyarrow.table({"path": list(SETS), "label": [list(labels) for labels in SETS.values()]})
    pyarrow.parquet.write_table(table, folder / "list.parquet")
    return folder / "list.parquet"


FORMS: dict[str, tuple[Callable[[Path], Path], Columns]] = {
    "comma": (lambda folder: delimited(folder, ","), Columns(delimiter=",")),
    "semicolon": (lambda folder: delimited(folder, ";"), Columns(delimiter=";")),
    "bar": (lambda folder: delimited(folder, " | "), Columns(delimiter="|")),
    "one-hot": (one_hot, Columns(one_hot="cat,dog,bird")),
    "one-hot in words": (lambda folder: one_hot(folder, "True", ""), Columns(one_hot="[bcd]*")),
    "repeated rows": (repeated, Columns(several=True)),
    "lists in JSON": (json_lines, Columns(several=True)),
    "lists in Parquet": (parquet, Columns(several=True)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_sets(form: str, folder: Path) -> None:
    make, columns = FORMS[form]
    dataset = load_source(make(folder), columns=columns)
    assert dataset.multi_label
    assert dataset.classes == ("bird", "cat", "dog")
    assert {record.path: record.labels for record in dataset.records} == SETS
    assert [record.label for record in dataset.records] == ["cat,dog", "", "bird,cat", "dog"]
    assert dataset.counts() == {"bird": 1, "cat": 2, "dog": 2}


def test_names_with_the_mark_in_them_are_quoted(folder: Path) -> None:
    text = 'path,label\na.png,"""fox, red"",cat"\nb.png,cat\n'
    dataset = load_source(write(folder, text), columns=Columns(delimiter=","))
    assert dataset.classes == ("cat", "fox, red")
    assert dataset.records[0].labels == ("cat", "fox, red")
    assert dataset.records[0].label == 'cat,"fox, red"'


def test_without_a_flag_a_list_is_read_as_before_and_said_to_look_like_sets(folder: Path) -> None:
    rows = 'a.png,"cat,dog"\nb.png,"bird,cat"\nc.png,"bird,dog"\nd.png,"bird,cat,dog"\n'
    dataset = load_source(write(folder, f"path,label\n{rows}"))
    assert not dataset.multi_label
    assert dataset.classes == ("bird,cat", "bird,cat,dog", "bird,dog", "cat,dog")
    said = [found for found in dataset.findings if "look like several" in found.message]
    assert [found.severity for found in said] == ["warning"]
    assert '--label-delimiter ","' in said[0].remedy


def test_repeated_rows_with_other_labels_name_the_flag(folder: Path) -> None:
    with pytest.raises(SourceError, match="keep one of the rows") as refused:
        load_source(write(folder, "path,label\na.png,cat\na.png,dog\nb.png,cat\n"))
    assert "--multi-label" in refused.value.hint


def test_lists_in_cells_name_the_flag(folder: Path) -> None:
    with pytest.raises(SourceError, match="--multi-label"):
        load_source(json_lines(folder))


def test_columns_of_0_and_1_without_labels_name_the_flag(folder: Path) -> None:
    with pytest.raises(SourceError, match="no column label") as refused:
        load_source(one_hot(folder))
    assert '--label-columns "cat,dog,bird"' in refused.value.hint


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        ("path,cat,dog\na.png,2,0\n", Columns(one_hot="cat,dog"), "'2' in column cat; use 1 or 0"),
        ("path,cat,dog\na.png,1,0\n", Columns(one_hot="cow,dog"), "no column cow"),
        ("path,cat,dog\na.png,1,0\n", Columns(one_hot="*"), "also means the column path"),
        ("path,label,cat\na.png,x,1\n", Columns(one_hot="cat"), "both name the labels"),
        ("path,label\na.png,cat\nb.png,cat\n", Columns(delimiter=","), "only one class"),
        ("path,label,part\na.png,cat,train\na.png,dog,test\n", Columns(several=True), "keep one of the rows"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, columns: Columns, words: str, folder: Path) -> None:
    with pytest.raises(SourceError, match=words):
        load_source(write(folder, text), columns=columns)


@pytest.mark.parametrize("columns", [Columns(several=True), Columns(delimiter=","), Columns(one_hot="a")])
def test_a_folder_has_one_label_an_image(columns: Columns, make_photos: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match=r"--multi-label|--label-delimiter|--label-columns"):
        load_source(make_photos(images=2), columns=columns)


def test_a_table_with_images_names_no_flag_that_it_refuses(folder: Path) -> None:
    images = [(folder / name).read_bytes() for name in SETS]
    table = pyarrow.table({"image": images, "label": [list(labels) for labels in SETS.values()]})
    pyarrow.parquet.write_table(table, folder / "images.parquet")
    with pytest.raises(SourceError, match="write one as text, or list the images as files, with --multi-lab"):
        load_source(folder / "images.parquet")
    for columns, flag in (
        (Columns(several=True), "--multi-label"),
        (Columns(delimiter=","), "--label-delimiter"),
        (Columns(one_hot="label"), "--label-columns"),
    ):
        with pytest.raises(SourceError, match=f"has one label a row, so {flag} means nothing"):
            load_source(folder / "images.parquet", columns=columns)


@pytest.mark.parametrize("rows", ["gone.png,cat\ngone.png,dog\ngone.png,cat\n", 'gone.png,"cat,dog"\n'])
def test_every_label_of_a_missing_file_counts(rows: str, folder: Path) -> None:
    text = f"path,label\n{rows}a.png,cat\nb.png,cat\nc.png,bird\n"
    with pytest.raises(SourceError, match=r"most files of a class do not exist: dog \(1 of 1\); the first"):
        load_source(write(folder, text), columns=Columns(delimiter=","))


def test_equal_data_have_an_equal_fingerprint_whatever_the_form(folder: Path) -> None:
    def found(form: str) -> Dataset:
        make, columns = FORMS[form]
        return load_source(make(folder), columns=columns)

    assert (
        found("comma").fingerprint() == found("one-hot").fingerprint() == found("repeated rows").fingerprint()
    )


def test_no_label_is_said_to_be_missing_in_a_part_that_has_it(folder: Path) -> None:
    text = 'path,label,part\na.png,"cat,dog",train\nb.png,"cat,dog",test\nc.png,cat,train\nd.png,dog,test\n'
    assert not load_source(write(folder, text), columns=Columns(delimiter=",")).listed
    without = text.replace('b.png,"cat,dog"', "b.png,dog")
    assert load_source(write(folder, without), columns=Columns(delimiter=",")).listed == (
        "test: no image of cat",
    )
