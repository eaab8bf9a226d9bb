"""Images and labels as people hold them: what is taken, and what is said of what cannot be."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

from saccade.errors import DataError, RunError, SourceError
from saccade.labelled import Columns, class_order, label_names, label_values, labelled
from saccade.sources import load_source
from saccade.sources.in_python import kind_of_labels, write_inputs

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
FRAME = pandas.DataFrame(
    {"file": ["a.png", "b.png"], "kind": ["x", "y"], "site": [1, 2], "path": ["c.png", "d.png"]}
)


class Polars:
    """As much of a polars data frame as is used: polars itself is no dependency."""

    columns = ("path", "label")

    def __getitem__(self, name: str) -> Any:
        values = {"path": ["a.png", "b.png"], "label": ["x", "y"]}[name]

        class Series:
            def to_list(self) -> list[str]:
                return values

        return Series()


@pytest.mark.parametrize(
    "data",
    [
        ["r/a.png", "s/b.png"],
        ("r/a.png", "s/b.png"),
        np.array(["r/a.png", "s/b.png"]),
        np.array([Path("r/a.png"), "s/b.png"], dtype=object),
        [Path("r/a.png"), Path("s/b.png")],
        pandas.Series(["r/a.png", "s/b.png"], index=[7, 3]),
        pandas.Series(["r/a.png", "s/b.png"], dtype="string"),
    ],
)
def test_paths_come_in_any_list_and_their_folders_are_classes(data: Any) -> None:
    found = labelled(data)
    assert found.images == ["r/a.png", "s/b.png"]
    assert found.labels == ["r", "s"]
    assert labelled(data, columns=Columns(root="photos")).images[0] == "photos/r/a.png"


@pytest.mark.parametrize(
    ("y", "names", "kind"),
    [
        (["b", "a"], ["b", "a"], "str"),
        (np.array(["b", "a"]), ["b", "a"], "str"),
        (pandas.Series(["b", "a"], dtype="category"), ["b", "a"], "str"),
        (pandas.Series([10, 9], dtype="Int64"), ["10", "9"], "int"),
        (np.array([10.0, 9.0]), ["10", "9"], "int"),
        (np.array([True, False]), ["True", "False"], "bool"),
    ],
)
def test_labels_keep_their_type(y: Any, names: list[str], kind: str) -> None:
    assert label_names(y, 2) == (names, kind)
    assert label_values(names, kind).tolist() == pandas.Series(y).tolist()
    assert class_order(names, kind) == [1, 0]


def test_frames_name_their_columns() -> None:
    found = labelled(FRAME, columns=Columns("file", "kind", "site", root="photos"))
    assert (found.images, found.labels, found.groups) == (
        ["photos/a.png", "photos/b.png"],
        ["x", "y"],
        ["1", "2"],
    )
    assert labelled(FRAME, ["p", "q"]).images == ["c.png", "d.png"]
    assert labelled(Polars()).labels == ["x", "y"]
    assert labelled(FRAME.rename(columns={"site": "group"}), ["p", "q"]).groups == ["1", "2"]
    assert labelled(FRAME[["file"]], ["p", "q"]).images == ["a.png", "b.png"]
    numbered = FRAME.set_axis(range(4), axis=1)
    assert labelled(numbered, columns=Columns("0", "1")).labels == ["x", "y"]
    assert labelled(["a", "b"], FRAME[["kind"]]).labels == ["x", "y"]
    assert labelled(["a", "b"], np.array([[4], [3]])).labels == ["4", "3"]


BAD: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "too few labels": (["a.png", "b.png"], ["x"], {}, "2 images, but 1 labels"),
    "too many groups": (["a.png"], ["x"], {"groups": [1, 2]}, "1 images, but 2 groups"),
    "no images": ([], [], {}, "the list is empty"),
    "a number": (3, None, {}, "a int is no list of images"),
    "NaN": (["a", "b", "c"], ["x", np.nan, None], {}, "labels are missing in 2 of 3 rows: 1, 2"),
    "pandas' NA": (["a"], pandas.Series([None], dtype="string"), {}, "labels are missing in 1 of 1"),
    "a group is missing": (["a", "b"], ["x", "y"], {"groups": [1.0, np.nan]}, "groups are missing in 1 of 2"),
    "missing paths": (
        pandas.DataFrame({"path": ["a", None, np.nan], "label": ["x", "y", "y"]}, index=[5, 7, 9]),
        None,
        {},
        "paths are missing in 2 of 3 rows: index 7, 9",
    ),
    "an index of its own": (
        pandas.DataFrame({"path": ["a", "b"], "label": ["x", None]}, index=["one", "two"]),
        None,
        {},
        "labels are missing in 1 of 2 rows: index two",
    ),
    "no path": (["a", "", "c"], ["x", "y", "z"], {}, "images are missing in 1 of 3 rows: 1"),
    "continuous": (["a", "b"], [0.5, 1.0], {}, "labels are of"),
    "mixed": (["a", "b"], [1, "1"], {}, "several types: int, str"),
    "a table of numbers": (["a", "b"], np.array([[0, 1], [2, 0]]), {}, "row 1 of the labels holds .2."),
    "lists in lists": (["a", "b"], [[["x"]], [["y"]]], {}, "labels are of type list"),
    "names and lists": (["a", "b"], ["x", ["y"]], {}, "several types: list, str"),
    "one word": (["a", "b"], "xy", {}, "labels are a str"),
    "arrays without labels": ([RGB, RGB], None, {}, "2 of 2 images have neither label nor path"),
    "an absent column": (
        FRAME,
        None,
        {"columns": Columns("image", "kind")},
        "no column 'image'.*file, kind, site",
    ),
    "columns of a list": (["a"], None, {"columns": Columns(path="x")}, "path: columns are named, but a list"),
    "labels twice": (FRAME, ["x", "y"], {"columns": Columns(label="kind")}, "labels are given twice"),
}


@pytest.mark.parametrize(
    ("y", "labels", "kind"),
    [
        ([["cat", "dog"], []], ["cat,dog", ""], "str"),
        ([[3, 4], [4, 5]], ["3,4", "4,5"], "int"),
        (np.array([[0, 1], [1, 0]]), ["1", "0"], "int"),
        ([[0, 1], [1, 0]], ["1", "0"], "int"),  # not the names 0 and 1 of every image
        ([[True, False], [True, True]], ["0", "0,1"], "int"),
        ([[0.0, 0.0, 1.0], np.array([1, 0, 1])], ["2", "0,2"], "int"),
        ([[0], [1]], ["0", "1"], "int"),  # one name an image
        ([[0, 1], [1]], ["0,1", "1"], "int"),
        ([{0, 1}, {0, 1}], ["0,1", "0,1"], "int"),
        (pandas.DataFrame({"cat": [0, 1], "dog": [1, 1]}), ["dog", "cat,dog"], "str"),
    ],
)
def test_several_labels_are_names_or_rows_of_0_and_1(y: Any, labels: list[str], kind: str) -> None:
    found = labelled(["a.png", "b.png"], y)
    assert (found.labels, found.kind, found.several) == (labels, kind, True)


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_said(name: str) -> None:
    data, y, more, words = BAD[name]
    with pytest.raises(DataError, match=words):
        labelled(data, y, **more)


def test_a_folder_of_what_was_given_is_a_data_set(tmp_path: Path) -> None:
    gray, file = RGB[..., :1], io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    images = [RGB, gray, gray[..., 0], Image.fromarray(RGB), file.getvalue(), file]
    write_inputs(
        tmp_path / "inputs", images, ["3", "3", "3", "4", "4", "4"], kind="int", groups=list("aabbcc")
    )
    dataset = load_source(tmp_path / "inputs")
    assert [(record.label, record.group) for record in dataset.records] == list(
        zip("333444", "aabbcc", strict=True)
    )
    assert kind_of_labels(tmp_path / "inputs") == "int"
    stored = [dataset.storage.read(record.path) for record in dataset.records]
    assert stored[4] == stored[5] == file.getvalue()
    pixels = [np.asarray(Image.open(io.BytesIO(data))) for data in stored]
    for number in (0, 3, 4):
        assert np.array_equal(pixels[number], RGB)
    for number in (1, 2):
        assert np.array_equal(pixels[number], np.repeat(gray, 3, axis=2))


def test_paths_are_named_from_their_common_folder_and_nothing_is_copied(tmp_path: Path) -> None:
    paths = [tmp_path / "photos" / name for name in ("a/1.png", "b/2.png")]
    for path in paths:
        path.parent.mkdir(parents=True)
        Image.fromarray(RGB).save(path)
    folder = write_inputs(tmp_path / "run" / "inputs", [str(path) for path in paths], ["x", "y"])
    assert [record.path for record in load_source(folder).records] == ["a/1.png", "b/2.png"]
    assert sorted(path.name for path in folder.iterdir()) == ["images.csv", "inputs.json"]
    write_inputs(folder, [str(path) for path in paths], ["x", "y"])
    with pytest.raises(RunError, match="holds a run of other images or labels"):
        write_inputs(folder, [str(path) for path in paths], ["y", "x"])


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (["none/a.png", "none/b.png"], "2 of the 2 images do not exist: none/a.png"),
        ([RGB, RGB.astype(float)], r"1 of 2 images cannot be used: image 1: an array of float64 \(2, 3, 3\)"),
        ([RGB, None], "image 1: a NoneType is no image"),
        ([RGB, "none/a.png"], "1 of 2 images cannot be used: image 1"),
    ],
)
def test_images_that_are_none_are_named_and_nothing_is_written(
    tmp_path: Path, images: list[Any], words: str
) -> None:
    with pytest.raises(SourceError, match=words):
        write_inputs(tmp_path / "inputs", images, ["x", "y"])
    assert not (tmp_path / "inputs").exists()
