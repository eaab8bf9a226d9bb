"""Parts by other names, in folders, archives, shards, Parquet, Hugging Face folders and lists alike."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saccade.errors import SourceError
from saccade.records import Dataset
from saccade.sources import load_source
from saccade.sources.parts import part_hint


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade % 256, shade // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def to_folder(root: Path, names: Iterable[str]) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return root


def to_zip(root: Path, names: Iterable[str]) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, png(number))
    return root.with_suffix(".zip")


def tar_of(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def to_tar(root: Path, names: Iterable[str]) -> Path:
    return tar_of(root.with_suffix(".tar"), {name: png(number) for number, name in enumerate(names)})


CONTAINERS: dict[str, Callable[[Path, Iterable[str]], Path]] = {
    "folder": to_folder,
    "zip": to_zip,
    "tar": to_tar,
}


def tree(counts: Mapping[str, int]) -> list[str]:
    """So many images in each of these folders."""
    return [f"{folder}/{n}.png" for folder, count in counts.items() for n in range(count)]


def classes_in(*parts: str, classes: str = "abc") -> dict[str, int]:
    return {f"{part}/{name}": 4 - 2 * (number > 0) for number, part in enumerate(parts) for name in classes}


def refusal(location: Path | str, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        load_source(location, **options)
    return str(caught.value)


def of_part(dataset: Dataset) -> dict[str, int]:
    return {part: sum(r.part == part for r in dataset.records) for part in dataset.given_parts}


def said(dataset: Dataset, kind: str) -> str:
    return "\n".join(found.message for found in dataset.findings if found.kind == kind)


# --- folders and archives ----------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("train", "other", "part"),
    [
        ("Training", "Testing", "test"),
        ("training_set", "test_set", "test"),
        ("Training", "Test", "test"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("train/train", "test/test", "test"),
        ("train", "dev", "validation"),
        ("train", "eval", "test"),
        ("TRAIN", "Evaluation", "test"),
        ("trainset", "validset", "validation"),
        ("train2017", "val2017", "validation"),
        ("TrainImages", "ValImages", "validation"),
        ("flowers-train", "flowers-test", "test"),
        ("train_data", "dev_data", "validation"),
    ],
)
def test_parts_are_known_by_what_their_names_mean(
    tmp_path: Path, container: str, train: str, other: str, part: str
) -> None:
    location = CONTAINERS[container](tmp_path / "data", tree(classes_in(train, other)))
    dataset = load_source(location)
    assert of_part(dataset) == {"train": 12, part: 6}
    assert dataset.classes == ("a", "b", "c")
    assert f"{train} as train" in said(dataset, "reading")
    assert f"{other} as {part}" in said(dataset, "reading")


def test_plain_names_need_no_remark(tmp_path: Path) -> None:
    dataset = load_source(to_folder(tmp_path, tree(classes_in("train", "val", "test"))))
    assert dataset.findings == ()


def test_eval_is_validation_where_another_folder_is_the_test_part(tmp_path: Path) -> None:
    dataset = load_source(to_folder(tmp_path, tree(classes_in("training", "eval", "testing"))))
    assert of_part(dataset) == {"train": 12, "validation": 6, "test": 6}
    assert "eval as validation" in said(dataset, "reading")


def test_eval_beside_both_other_parts_is_left_alone_and_warned_of(tmp_path: Path) -> None:
    dataset = load_source(to_folder(tmp_path, tree(classes_in("train", "val", "test", "eval"))))
    assert of_part(dataset) == {"train": 12, "validation": 6, "test": 6}
    assert any(line.startswith("eval/: 6 images") for line in dataset.lost)


def test_a_class_missing_in_a_part_does_not_hide_the_part(tmp_path: Path) -> None:
    counts = {"Training/a": 3, "Training/b": 3, "Training/c": 3, "Testing/a": 2, "Testing/c": 2}
    dataset = load_source(to_folder(tmp_path, tree(counts)))
    assert of_part(dataset) == {"train": 9, "test": 4}
    assert "test: no image of b" in dataset.listed


def test_classes_whose_names_hold_a_part_word_stay_classes(tmp_path: Path) -> None:
    names = ["train_station", "test_tube", "dev_board", "validation_stamp"]
    dataset = load_source(to_folder(tmp_path, tree(dict.fromkeys(names, 3))))
    assert dataset.classes == ("dev_board", "test_tube", "train_station", "validation_stamp")
    assert dataset.given_parts == ()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("counts", "words"),
    [
        # top folders of names that mean no part, with the same folders in each
        (classes_in("first", "second"), "hold the same folders"),
        (classes_in("2019", "2020", "2021", classes="xyz"), "hold the same folders"),
        (classes_in("site_a", "site_b"), "call them train, validation and test"),
        ({"s1/a": 2, "s1/b": 2, "s1/c": 2, "s2/a": 2, "s2/b": 2}, "hold the same folders"),
        (classes_in("val", "test"), "hold the same folders"),
        (classes_in("fold_0", "fold_1", "fold_2"), "hold the same folders"),
        # parts inside the classes
        (
            classes_in("cat", "dog", classes="") | {"cat/train": 3, "cat/test": 1, "dog/train": 3},
            "turn the order",
        ),
        (
            {"cat/Training": 3, "cat/Testing": 1, "dog/Training": 3, "dog/Testing": 1},
            "parts inside class folders",
        ),
        # a train that may be a class
        ({"car": 5, "bus": 5, "train/steam": 2, "train/electric": 2}, "is train a part or a class"),
        ({"car": 2, "bus": 2, "train/steam": 5, "train/electric": 5}, "is train a part or a class"),
        (classes_in("train", "holdout"), "is train a part or a class"),
        ({"Training/a": 3, "Training/b": 3, "Testing/x": 3, "Testing/y": 3}, "is Training a part or a class"),
        # parts without classes
        ({"Training": 3, "Testing": 3}, "no class folders inside train"),
        ({"train/a": 3, "train/b": 3, "test": 4}, "test holds images but no class folders"),
        ({"train/a": 3, "train/b": 3, "dev": 4}, "dev holds images but no class folders"),
        # one part twice
        (classes_in("train", "training", "test"), "mean the same part"),
        (classes_in("train", "val", "dev"), "mean the same part"),
    ],
)
def test_layouts_that_nobody_can_tell_stop(
    tmp_path: Path, container: str, counts: dict[str, int], words: str
) -> None:
    message = refusal(CONTAINERS[container](tmp_path / "data", tree(counts)))
    assert words in message
    assert "\nhint: " in message


@pytest.mark.parametrize(
    "counts",
    [
        {"vehicles/car": 3, "vehicles/bus": 3, "animals/cat": 3, "animals/dog": 3},
        {"cat/images": 3, "dog/images": 3},
        {"cat": 3, "cat/close": 2, "cat/far": 2, "dog": 3, "dog/close": 2, "dog/far": 2},
        {"vehicles/car": 3, "vehicles/other": 3, "animals/cat": 3, "animals/other": 3},
        {"train": 3, "bus": 3},
    ],
)
def test_folders_below_the_classes_are_no_classes(tmp_path: Path, counts: dict[str, int]) -> None:
    dataset = load_source(to_folder(tmp_path, tree(counts)))
    assert set(dataset.classes) == {folder.split("/")[0] for folder in counts}
    assert dataset.given_parts == ()


def test_an_empty_part_stops_unless_dropped(tmp_path: Path) -> None:
    root = to_folder(tmp_path, tree(classes_in("train", "test")))
    (root / "val").mkdir()
    assert "val holds no image: the validation part would be lost" in refusal(root)
    assert of_part(load_source(root, drop_empty=True)) == {"train": 12, "test": 6}


def test_a_packed_part_stops(tmp_path: Path) -> None:
    root = to_folder(tmp_path, tree(classes_in("train", "val")))
    (root / "test.zip").write_bytes(b"PK")
    assert "a part is packed: test.zip" in refusal(root)
    to_folder(tmp_path, tree({"test/a": 1}))
    assert any(line.startswith("test.zip: ") for line in load_source(root).lost)


@pytest.mark.parametrize(
    ("name", "part", "exact"),
    [
        ("Training", "train", True),
        ("test-data", "test", True),
        ("val2017", "validation", True),
        ("seg_train", "train", False),
        ("DevSet", "validation", True),
        ("contest", "", False),
        ("retrained", "", False),
        ("developer", "", False),
        ("train_test", "", False),
        ("evaluation_board", "test", False),
    ],
)
def test_what_a_name_says(name: str, part: str, exact: bool) -> None:
    hint = part_hint(name)
    assert (hint.part if hint else "") == part
    assert (hint is not None and hint.exact) == exact


# --- shards, tables, lists ---------------------------------------------------------------------------


def shards(root: Path, names: Iterable[str], sample: dict[str, Any] | None = None) -> Path:
    for number, name in enumerate(names):
        files: dict[str, bytes] = {}
        for n in range(4):
            key = f"{number}{n}"
            files |= {f"{key}.png": png(10 * number + n), f"{key}.cls": b"rose" if n % 2 else b"tulip"}
            if sample:
                files[f"{key}.json"] = json.dumps({k: v[n] for k, v in sample.items()}).encode()
        tar_of(root / name, files)
    return root


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("train-000.tar", "dev-000.tar"), {"train": 4, "validation": 4}),
        (("Training/000.tar", "Testing/000.tar"), {"train": 4, "test": 4}),
        (
            ("set-train-000.tar", "set-eval-000.tar", "set-test-000.tar"),
            {"train": 4, "validation": 4, "test": 4},
        ),
        (("rapid-test/train-0.tar", "rapid-test/val-0.tar"), {"train": 4, "validation": 4}),
        (("covid-test-train-0.tar", "covid-test-val-0.tar"), {"train": 4, "validation": 4}),
        (("photos-000.tar", "photos-001.tar"), {}),
    ],
)
def test_shards_say_their_part_in_other_words(tmp_path: Path, names: tuple[str, ...], parts: object) -> None:
    assert of_part(load_source(shards(tmp_path, names))) == parts


def test_shards_of_which_some_name_no_part_stop(tmp_path: Path) -> None:
    message = refusal(shards(tmp_path, ["train-000.tar", "train-001.tar", "holdout-000.tar"]))
    assert "1 of 3 files name no part, the others do: holdout-000.tar" in message


def test_samples_may_say_their_part_themselves(tmp_path: Path) -> None:
    fields = {"split": ["train", "train", "test", "test"]}
    dataset = load_source(shards(tmp_path, ["a-0.tar", "b-0.tar"], fields))
    assert of_part(dataset) == {"train": 4, "test": 4}
    assert "column split read as the parts: test, train" in said(dataset, "reading")
    fields = {"split": ["train", "train", "test", "other"]}
    assert "names parts, but also other" in refusal(shards(tmp_path, ["a-0.tar", "b-0.tar"], fields))


def parquet(path: Path, numbers: range, **columns: list[Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    module = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": png(n), "path": f"{n}.png"} for n in numbers], kind)
    labels = ["rose" if n % 2 else "tulip" for n in numbers]
    module.write_table(pyarrow.table({"image": images, "label": labels, **columns}), path)
    return path


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("train-00000-of-00001", "dev-00000-of-00001"), {"train": 4, "validation": 4}),
        (("training-00000-of-00001", "testing-00000-of-00001"), {"train": 4, "test": 4}),
        (("a-00000-of-00002", "a-00001-of-00002"), {}),
    ],
)
def test_tables_say_their_part_in_other_words(tmp_path: Path, names: tuple[str, ...], parts: object) -> None:
    for number, name in enumerate(names):
        parquet(tmp_path / "data" / f"{name}.parquet", range(4 * number, 4 * number + 4))
    assert of_part(load_source(tmp_path)) == parts


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train-00000-of-00001", "holdout-00000-of-00001"), "name no part, the others do: data/holdout"),
        (("first-00000-of-00001", "second-00000-of-00001"), "name the parts data/first, data/second"),
    ],
)
def test_tables_of_unknown_parts_stop(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    for number, name in enumerate(names):
        parquet(tmp_path / "data" / f"{name}.parquet", range(4 * number, 4 * number + 4))
    assert words in refusal(tmp_path)


def test_a_table_with_images_may_name_the_parts_in_a_column(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "t.parquet", range(4), subset=["train", "train", "dev", "dev"], site=[1, 2, 3, 4]
    )
    dataset = load_source(path)
    assert of_part(dataset) == {"train": 2, "validation": 2}
    assert "columns not used: site" in said(dataset, "reading")
    other = parquet(tmp_path / "train.parquet", range(4), split=["train", "train", "test", "test"])
    dataset = load_source(other)
    assert of_part(dataset) == {"train": 4}
    assert "column split names another part than the file for 2 rows" in said(dataset, "not_used")


def saved_by_datasets(root: Path, splits: Iterable[str]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    for number, split in enumerate(splits):
        folder = root / split
        folder.mkdir(parents=True)
        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        images = pyarrow.array([{"bytes": png(4 * number + n), "path": ""} for n in range(4)], kind)
        table = pyarrow.table({"image": images, "label": ["rose", "tulip"] * 2})
        target = pyarrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb")
        with target, pyarrow.ipc.new_stream(target, table.schema) as writer:
            writer.write_table(table)
        (folder / "state.json").write_text("{}")
    (root / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return root


def test_splits_of_hugging_face_by_other_names(tmp_path: Path) -> None:
    assert of_part(load_source(saved_by_datasets(tmp_path / "a", ["training", "dev"]))) == {
        "train": 4,
        "validation": 4,
    }
    assert "name no part" in refusal(saved_by_datasets(tmp_path / "b", ["train", "unsupervised"]))
    assert "name the parts first, second" in refusal(saved_by_datasets(tmp_path / "c", ["first", "second"]))


def listed(root: Path, header: str, values: Iterable[Any], name: str = "l.csv") -> Path:
    rows = list(values)
    to_folder(root, [f"{n}.png" for n in range(len(rows))])
    lines = [f"{n}.png,{'rose' if n % 2 else 'tulip'},{value}" for n, value in enumerate(rows)]
    (root / name).write_text("\n".join([f"path,label,{header}", *lines]))
    return root / name


@pytest.mark.parametrize(
    ("header", "values", "parts"),
    [
        ("split", ["train", "train", "test", "test"], {"train": 2, "test": 2}),
        ("Set", ["Training", "Training", "Validation", "Testing"], {"train": 2, "validation": 1, "test": 1}),
        ("subset", ["train", "dev", "eval", "train"], {"train": 2, "validation": 1, "test": 1}),
        ("partition", ["train", "eval", "test", "train"], {"train": 2, "validation": 1, "test": 1}),
        ("fold", ["train", "train", "val", ""], {"train": 2, "validation": 1}),
        ("is_valid", ["False", "False", "True", "True"], {"train": 2, "validation": 2}),
        ("is_valid", ["0", "1", "0", "1"], {"train": 2, "validation": 2}),
        ("part", ["training", "TRAIN", "dev", "testing"], {"train": 2, "validation": 1, "test": 1}),
    ],
)
def test_a_column_of_part_names_names_the_parts(
    tmp_path: Path, header: str, values: list[str], parts: dict[str, int]
) -> None:
    dataset = load_source(listed(tmp_path, header, values))
    assert of_part(dataset) == parts
    assert f"column {header} read as the parts" in said(dataset, "reading")
    assert "columns not used" not in said(dataset, "reading")


def test_a_column_of_fold_numbers_is_warned_of(tmp_path: Path) -> None:
    path = listed(tmp_path, "fold", [0, 1, 2, 3, 4, 0])
    dataset = load_source(path)
    assert dataset.given_parts == ()
    found, _ = dataset.findings  # the other says that it is not used
    assert (found.kind, found.severity) == ("not_used", "warning")
    assert "column fold (0, 1, 2, 3, 4) is not used" in found.message
    assert "divided anew" in found.message
    assert "train, validation or test" in found.remedy
    assert load_source(path, group="fold").findings == ()


def test_part_names_beside_other_values_stop(tmp_path: Path) -> None:
    message = refusal(listed(tmp_path, "split", ["train", "test", "extra", "train"]))
    assert "column split names parts, but also extra" in message


def test_of_two_columns_part_counts_and_the_other_is_warned_of(tmp_path: Path) -> None:
    path = listed(tmp_path, "part,split", ["train,test", "train,test", "test,train", "test,train"])
    dataset = load_source(path)
    assert [record.part for record in dataset.records] == ["train", "train", "test", "test"]
    assert "column split (test, train) is not used: column part names the parts" in said(dataset, "not_used")


def test_an_empty_part_column_leaves_the_word_to_another(tmp_path: Path) -> None:
    assert of_part(load_source(listed(tmp_path, "part,split", [",train", ",train", ",test"]))) == {
        "train": 2,
        "test": 1,
    }
