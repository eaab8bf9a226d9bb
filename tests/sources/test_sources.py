"""From locations to data sets: folders, lists, archives, shards, tables, named sets, groups."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.errors import ImageError, SourceError
from saccade.images.decoder import decode
from saccade.records import Dataset
from saccade.sources import load_source, storage
from saccade.sources.archive_index import ZipMember, unpack
from saccade.sources.naming import natural_key
from saccade.sources.storage import FolderStorage
from saccade.terminal import printable


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade % 256, shade // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root: Path, names: Iterable[str]) -> Path:
    """Write one picture under each name; every picture is different."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return root


def labels(dataset: Dataset) -> dict[str, str]:
    return {record.path: record.label for record in dataset.records}


def parts(dataset: Dataset) -> dict[str, str]:
    return {record.path: record.part for record in dataset.records}


def problem(location: str | Path, **options: object) -> str:
    with pytest.raises(SourceError) as caught:
        load_source(location, **options)
    return str(caught.value)


def assert_reads(dataset: Dataset) -> None:
    """Every record's bytes decode, and the storage reads the same ones after a trip through pickle."""
    packed = pickle.dumps(dataset.storage)
    assert len(packed) < 1000  # it travels to worker processes with every chunk of work
    copy = pickle.loads(packed)
    assert dataset.records
    for record in dataset.records:
        data = dataset.storage.read(record.path)
        assert decode(data, name=record.path).pixels.ndim == 3
        assert copy.read(record.path) == data


FLAT = ("cat/1.png", "cat/10.png", "cat/2.png", "dog/a.png", "dog/b.JPG")


# --- folders ----------------------------------------------------------------------------------------


def test_folder_per_class(tmp_path: Path) -> None:
    dataset = load_source(fill(tmp_path, FLAT))
    assert labels(dataset) == {name: name.split("/")[0] for name in FLAT}
    assert [record.path for record in dataset.records] == sorted(FLAT)
    assert dataset.classes == ("cat", "dog")
    assert dataset.given_parts == ()
    assert dataset.root == tmp_path
    assert (dict(dataset.ignored), dataset.listed, dataset.empty_classes) == ({}, (), ())
    assert_reads(dataset)


def test_classes_stand_in_natural_order(tmp_path: Path) -> None:
    dataset = load_source(fill(tmp_path, [f"{name}/x.png" for name in ("10", "2", "1", "b2", "b10", "B3")]))
    assert dataset.classes == ("1", "2", "10", "b2", "B3", "b10")
    assert natural_key("a1") != natural_key("a01")


def test_split_folders_and_their_other_names(tmp_path: Path) -> None:
    for number, name in enumerate(("val", "valid", "validation")):
        root = fill(tmp_path / str(number), [f"train/{c}/{i}.png" for c in "ab" for i in range(2)])
        fill(root, [f"{name}/a/9.png", "test/b/9.png", "derived/a/9.png"])
        dataset = load_source(root)
        assert dataset.given_parts == ("train", "validation", "test")
        assert parts(dataset)[f"{name}/a/9.png"] == "validation"
        assert "derived/: 1 image, not one of train, validation, test; left alone" in dataset.listed
        assert "validation: no image of b" in dataset.listed
        assert "test: no image of a" in dataset.listed
        assert dataset.classes == ("a", "b")


def test_two_folders_for_one_part_stop(tmp_path: Path) -> None:
    root = fill(tmp_path, ["train/a/1.png", "train/b/1.png", "val/a/2.png", "valid/a/3.png"])
    assert "val, valid mean the same part" in problem(root)


def test_train_may_be_a_class(tmp_path: Path) -> None:
    dataset = load_source(fill(tmp_path, ["train/1.png", "bus/1.png"]))
    assert dataset.classes == ("bus", "train")
    assert dataset.given_parts == ()


def test_parts_without_class_folders_stop(tmp_path: Path) -> None:
    assert "train/CLASS/image.jpg" in problem(fill(tmp_path, ["train/1.png", "test/1.png"]))


def test_images_deeper_down_belong_to_their_class_and_are_said(tmp_path: Path) -> None:
    dataset = load_source(
        fill(tmp_path, ["cat/1.png", "cat/indoor/2.png", "cat/indoor/night/3.png", "dog/1.png"])
    )
    assert labels(dataset)["cat/indoor/night/3.png"] == "cat"
    assert "cat/: 2 images in folders deeper down count as this class" in dataset.listed


def test_images_beside_the_class_folders_are_listed(tmp_path: Path) -> None:
    dataset = load_source(fill(tmp_path, [*FLAT, "stray.png"]))
    assert "stray.png" not in labels(dataset)
    assert any(line.startswith("stray.png: lies beside the class folders") for line in dataset.listed)
    assert "no class folders" in problem(fill(tmp_path / "cat", []))


def test_junk_is_counted_and_never_a_class(tmp_path: Path) -> None:
    junk = ["Thumbs.db", ".DS_Store", "cat/.DS_Store", "cat/._1.png", "__MACOSX/cat/1.png"]
    junk += [".ipynb_checkpoints/1.png", ".hidden/1.png", "cat/.cache/1.png", "cat/notes.txt"]
    dataset = load_source(fill(tmp_path, [*FLAT, *junk]))
    assert dataset.classes == ("cat", "dog")
    assert set(labels(dataset)) == set(FLAT)
    assert dict(dataset.ignored) == {
        ".DS_Store": 2,
        ".ipynb_checkpoints": 1,
        ".txt files": 1,
        "Thumbs.db": 1,
        "__MACOSX": 1,
        "hidden files": 1,
        "hidden folders": 2,
    }


def test_unknown_files_are_listed_by_name(tmp_path: Path) -> None:
    dataset = load_source(fill(tmp_path, [*FLAT, "cat/IMG_1", "cat/x.dat"]))
    assert "cat/IMG_1: no extension; ignored, rename it to use it (for example to .jpg)" in dataset.listed
    assert any(line.startswith("cat/x.dat: not an image by its extension") for line in dataset.listed)


def test_pictures_of_unread_kinds_become_records(tmp_path: Path) -> None:
    """So that the scan sets them aside by name, with how to convert them."""
    assert "cat/x.heic" in labels(load_source(fill(tmp_path, [*FLAT, "cat/x.heic"])))


def test_empty_class_stops_unless_dropped(tmp_path: Path) -> None:
    root = fill(tmp_path, FLAT)
    (root / "bird").mkdir()
    (root / "fish" / "deep").mkdir(parents=True)
    message = problem(root)
    assert "bird, fish" in message
    assert "--drop-empty" in message
    dataset = load_source(root, drop_empty=True)
    assert dataset.classes == ("cat", "dog")
    assert dataset.empty_classes == ("bird", "fish")


def test_a_class_empty_in_one_part_only_is_said_and_used(tmp_path: Path) -> None:
    root = fill(tmp_path, ["train/a/1.png", "train/b/1.png", "test/a/2.png"])
    (root / "test" / "b").mkdir()
    dataset = load_source(root)
    assert "test: no image of b" in dataset.listed
    assert dataset.empty_classes == ()


def test_classes_that_look_alike_stop(tmp_path: Path) -> None:
    message = problem(fill(tmp_path, ["Cat/1.png", "cat/1.png", "dog/1.png"]))
    assert "'Cat'/'cat'" in message
    assert "merge" in message


def test_one_class_stops_unless_allowed(tmp_path: Path) -> None:
    root = fill(tmp_path, ["cat/1.png", "cat/2.png"])
    assert "only one class (cat)" in problem(root)
    assert load_source(root, min_classes=1).classes == ("cat",)


def test_nothing_there(tmp_path: Path) -> None:
    assert "no images found" in problem(tmp_path)
    assert "data path does not exist" in problem(tmp_path / "absent")
    (tmp_path / "x.docx").write_bytes(b"PK")
    assert "not a data set that saccade reads" in problem(tmp_path / "x.docx")


def test_links_stay_inside_and_loops_end(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", ["secret.png", "more/1.png"])
    root = fill(tmp_path / "photos", FLAT)
    (root / "dog" / "inside.png").symlink_to(root / "cat" / "1.png")
    (root / "dog" / "escape.png").symlink_to(outside / "secret.png")
    (root / "bird").symlink_to(outside / "more")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "self").symlink_to(root / "cat" / "self")
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "cat2").symlink_to(root / "cat")
    assert "class folders without an image: bird" in problem(root)
    dataset = load_source(root, drop_empty=True)
    assert set(labels(dataset)) == {*FLAT, "dog/inside.png"}
    assert dataset.classes == ("cat", "dog")
    said = "\n".join(dataset.listed)
    for name in ("dog/escape.png", "bird"):
        assert f"{name}: a link that leads out" in said
    for name in ("cat/loop", "cat2"):
        assert f"{name}: a link to a folder that is read anyway" in said
    for name in ("cat/self", "dog/gone.png"):
        assert f"{name}: a link that leads nowhere" in said
    assert_reads(dataset)


def test_a_linked_folder_inside_the_root_is_a_class(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a/1.png", ".store/b/1.png"])
    (root / "b").symlink_to(root / ".store" / "b")
    assert labels(load_source(root)) == {"a/1.png": "a", "b/1.png": "b"}


def test_a_folder_linked_twice_at_two_depths_is_read_once(tmp_path: Path) -> None:
    root = fill(tmp_path, [".store/b/1.png", ".store/b/sub/2.png", "c/3.png"])
    (root / "a").symlink_to(root / ".store" / "b" / "sub")
    (root / "b").symlink_to(root / ".store" / "b")
    dataset = load_source(root)
    assert set(labels(dataset)) == {"a/2.png", "b/1.png", "c/3.png"}
    assert "b/sub: the same folder as one already read; read once" in dataset.listed


def test_chain_of_forty_links(tmp_path: Path) -> None:
    root = fill(tmp_path, FLAT)
    for n in range(40):
        (root / "dog" / f"l{n}.png").symlink_to(root / "dog" / (f"l{n - 1}.png" if n else "a.png"))
    assert "dog/l39.png" in labels(load_source(root))


def test_storage_refuses_links_that_lead_out_and_vanished_files(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", FLAT)
    fill(tmp_path, ["secret.png"])
    (root / "x.png").symlink_to(tmp_path / "secret.png")
    storage = FolderStorage(root)
    for path in ("x.png", "../secret.png"):
        with pytest.raises(ImageError, match="leads out of the data's folder"):
            storage.read(path)
    with pytest.raises(ImageError, match="no longer there"):
        storage.read("cat/gone.png")
    with pytest.raises(ImageError, match="not a regular file"):
        storage.read("cat")
    with pytest.raises(ImageError, match="more than the limit"):
        FolderStorage(root, max_bytes=10).read("cat/1.png")


# --- lists ------------------------------------------------------------------------------------------


def write_list(root: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    fill(root, ["a.png", "b.png", "sub/c.png"])
    data = text.encode() if isinstance(text, str) else text
    (root / name).write_bytes(data)
    return root / name


PLAIN = "path,label\na.png,cat\nb.png,dog\nsub/c.png,cat\n"
EXPECTED = {"a.png": "cat", "b.png": "dog", "sub/c.png": "cat"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", PLAIN),
        ("bom.csv", b"\xef\xbb\xbf" + PLAIN.encode()),
        ("crlf.csv", PLAIN.replace("\n", "\r\n")),
        ("semicolon.csv", PLAIN.replace(",", ";")),
        ("tab.tsv", PLAIN.replace(",", "\t")),
        ("upper.csv", PLAIN.replace("path,label", " Path ,LABEL")),
        ("blank.csv", "\n" + PLAIN.replace("\n", "\n\n")),
        ("spaces.csv", PLAIN.replace(",cat", ", cat ")),
        ("dots.csv", PLAIN.replace("a.png", "./sub/../a.png")),
        ("l.jsonl", "\n".join(json.dumps({"label": v, "path": k}) for k, v in EXPECTED.items())),
    ],
)
def test_lists_in_all_their_spellings(tmp_path: Path, name: str, text: str | bytes) -> None:
    dataset = load_source(write_list(tmp_path, text, name))
    assert labels(dataset) == EXPECTED
    assert dataset.classes == ("cat", "dog")
    assert dataset.root == tmp_path
    assert dataset.listed == ()
    assert_reads(dataset)


def test_parts_and_groups_of_a_list(tmp_path: Path) -> None:
    text = "path,label,part,group,patient\na.png,cat,train,g1,p1\nb.png,dog,val,,p2\nsub/c.png,cat,,g2,p1\n"
    path = write_list(tmp_path, text)
    dataset = load_source(path)
    assert parts(dataset) == {"a.png": "train", "b.png": "validation", "sub/c.png": ""}
    assert [record.group for record in dataset.records] == ["g1", "", "g2"]
    assert dataset.given_parts == ("train", "validation")
    assert [found.message for found in dataset.findings] == ["labels.csv: columns not used: patient"]
    assert [record.group for record in load_source(path, group="patient").records] == ["p1", "p2", "p1"]
    assert "no column site" in problem(path, group="site")


def test_parquet_list(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    fill(tmp_path, EXPECTED)
    table = pyarrow.table({"path": list(EXPECTED), "label": list(EXPECTED.values()), "group": [1, 2, None]})
    parquet.write_table(table, tmp_path / "l.parquet")
    dataset = load_source(tmp_path / "l.parquet")
    assert labels(dataset) == EXPECTED
    assert [record.group for record in dataset.records] == ["1", "2", ""]


def test_all_problems_of_a_list_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (
        "path,label,part\n"  # 1
        "a.png,cat,train\n"
        "a.png,dog,train\n"  # 3: contradicts
        "b.png,,train\n"  # 4: no label
        ",cat,train\n"  # 5: no path
        "/etc/x.png,cat,train\n"  # 6: absolute
        '"quoted\nnewline.png",cat,holdout\n'  # 7 and 8: unknown part
        "sub/c.png,cat,train,too,many\n"  # 9
        "b.png,dog,\n"
    )
    message = problem(write_list(tmp_path, text))
    assert "6 rows cannot be used" in message
    for words in (
        "line 3: a.png is dog, part train here and cat, part train in line 2",
        "line 4: no label",
        "line 5: no path",
        "line 6: absolute path /etc/x.png",
        "line 7: unknown part 'holdout'",
        "line 9: 5 fields where the header names 3",
    ):
        assert words in message


def test_more_than_twenty_problems_are_counted(tmp_path: Path) -> None:
    message = problem(write_list(tmp_path, "path,label\n" + "a.png,\n" * 30))
    assert message.count("line ") == 20
    assert "and 10 more" in message


def test_missing_files_are_set_aside_and_repeated_rows_used_once(tmp_path: Path) -> None:
    dataset = load_source(write_list(tmp_path, PLAIN + "gone.png,dog\na.png,cat\n"))
    gone = next(record for record in dataset.records if record.path == "gone.png")
    assert (gone.status, gone.note) == (
        "set_aside",
        "no such file (line 5 of labels.csv). Left out. Restore it or remove the row",
    )
    assert "gone.png: no such file (line 5); set aside, restore it or remove the row" in dataset.listed
    assert [found.message for found in dataset.findings] == [
        "labels.csv: 1 row repeats an earlier one; used once: a.png: line 6 repeats line 2"
    ]
    assert not any("repeats" in line for line in dataset.listed), "a row is no file to move or rename"
    assert len(dataset.records) == 4


def test_a_list_beside_the_wrong_folder_stops(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("path,label\nx.png,cat\ny.png,dog\n")
    message = problem(path)
    assert "none of the 2 files it names exist" in message
    assert str(tmp_path) in message


def test_paths_may_lead_beside_the_list_and_are_said(tmp_path: Path) -> None:
    """`saccade split DATA --out elsewhere/split.csv` writes such paths."""
    fill(tmp_path / "photos", FLAT)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "split.csv").write_text(
        "path,label,part,group\n" + "".join(f"../photos/{name},{name[:3]},train,\n" for name in FLAT)
    )
    dataset = load_source(tmp_path / "out" / "split.csv")
    assert len(dataset.records) == len(FLAT)
    assert "../photos/cat/1.png: outside the folder of the list (line 2); used" in dataset.listed
    assert_reads(dataset)


def test_absolute_paths_inside_the_folder_become_relative(tmp_path: Path) -> None:
    text = PLAIN.replace("a.png", str(tmp_path / "a.png"))
    assert labels(load_source(write_list(tmp_path, text))) == EXPECTED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,class\na.png,cat\n", "no column path, label; its columns are: file, class"),
        ("", "its columns are: none"),
        ("path,label\n", "no rows below the header"),
        ("path,label,label\na.png,cat,cat\n", "column label appears twice"),
        ('path,label\n"a.png,cat\nb.png,dog\n', "line 2: cannot be read"),
        ("path,label\na.png,cat\n", "only one class (cat)"),
        ("path,label\na.png,cat\nb.png,Cat\n", "'Cat'/'cat'"),
        (PLAIN.encode("utf-16"), "save it as UTF-8"),
    ],
)
def test_lists_that_cannot_be_read_say_what_to_do(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in problem(write_list(tmp_path, text))


def test_bad_json_lines_are_named(tmp_path: Path) -> None:
    text = '{"path": "a.png", "label": "cat"}\n[1]\n{"path": "b.png", "lab\n'
    message = problem(write_list(tmp_path, text, "l.jsonl"))
    assert "line 2: no JSON object" in message
    assert "line 3: no JSON object" in message


STRANGE = (
    "with space.png",
    'quo"te.png',
    "new\nline.png",
    "smile \N{SLIGHTLY SMILING FACE}.png",
    "-leading.png",
    "semi;colon,comma.png",
    "é" * 125 + ".png",  # 254 bytes
    "=cmd.png",
)


def test_strange_names_survive_csv_and_json(tmp_path: Path) -> None:
    fill(tmp_path, [f"cat/{name}" for name in STRANGE] + ["dog/1.png"])
    from_folder = load_source(tmp_path)
    with open(tmp_path / "l.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "label"), *((r.path, r.label) for r in from_folder.records)])
    lines = [json.dumps({"path": r.path, "label": r.label}) for r in from_folder.records]
    (tmp_path / "l.jsonl").write_text("\n".join(lines))
    assert len(labels(from_folder)) == len(STRANGE) + 1
    for name in ("l.csv", "l.jsonl"):
        again = load_source(tmp_path / name)
        assert labels(again) == labels(from_folder)
        assert_reads(again)
    assert all(printable(record.path).isprintable() for record in from_folder.records)


def test_names_that_are_not_utf8_are_read_and_printable(tmp_path: Path) -> None:
    fill(tmp_path, FLAT)
    try:
        with open(os.fsencode(tmp_path) + b"/cat/caf\xe9.png", "wb") as file:
            file.write(png(99))
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    dataset = load_source(tmp_path)
    odd = next(record.path for record in dataset.records if not record.path.isascii())
    assert printable(odd) == "cat/caf\\udce9.png"
    assert decode(dataset.storage.read(odd), name=odd).width == 8
    rows = b"path,label\ncat/caf\xe9.png,cat\ndog/a.png,dog\n"
    (tmp_path / "l.csv").write_bytes(rows)
    assert odd in labels(load_source(tmp_path / "l.csv"))


def test_both_unicode_forms_of_a_name_are_kept_and_said(tmp_path: Path) -> None:
    names = [
        "cat/caf\N{LATIN SMALL LETTER E WITH ACUTE}.png",
        "cat/cafe\N{COMBINING ACUTE ACCENT}.png",
        "dog/1.png",
    ]
    dataset = load_source(fill(tmp_path, names))
    if len(list((tmp_path / "cat").iterdir())) < 2:
        pytest.skip("this file system keeps one Unicode form only")
    assert set(labels(dataset)) == set(names)
    assert any("different Unicode forms; all kept" in line for line in dataset.listed)


# --- groups -----------------------------------------------------------------------------------------


def test_groups_by_pattern(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a/p1_x.png", "a/p2_x.png", "b/p1_y.png"])
    groups = {r.path: r.group for r in load_source(root, group_pattern=r"(p\d+)_").records}
    assert groups == {"a/p1_x.png": "p1", "a/p2_x.png": "p2", "b/p1_y.png": "p1"}
    assert {r.group for r in load_source(root, group_pattern=r"p\d+").records} == {"p1", "p2"}


def test_a_pattern_that_finds_nothing_stops_unless_it_may(tmp_path: Path) -> None:
    root = fill(tmp_path, ["a/p1_x.png", "b/other.png"])
    assert "no group in 1 of 2 paths: b/other.png" in problem(root, group_pattern=r"(p\d+)_")
    groups = [r.group for r in load_source(root, group_pattern=r"(p\d+)_|").records]
    assert groups == ["p1", ""]


def test_group_options_that_make_no_sense(tmp_path: Path) -> None:
    root = fill(tmp_path, FLAT)
    assert "no regular expression" in problem(root, group_pattern="(")
    assert "a folder has no columns" in problem(root, group="patient")
    assert "give one of them" in problem(root, group="patient", group_pattern="x")


# --- archives ---------------------------------------------------------------------------------------


def make_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


MAKERS = {"zip": make_zip, "tar": make_tar}


def pictures(names: Iterable[str]) -> dict[str, bytes]:
    return {name: png(number) for number, name in enumerate(names)}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_hold_the_same_layouts_as_folders(tmp_path: Path, kind: str) -> None:
    split = ["train/a/1.png", "train/b/1.png", "val/a/2.png", "other/a/3.png"]
    dataset = load_source(MAKERS[kind](tmp_path / f"split.{kind}", pictures(split)))
    assert parts(dataset) == {"train/a/1.png": "train", "train/b/1.png": "train", "val/a/2.png": "validation"}
    assert_reads(dataset)
    flat = {**pictures(FLAT), "__MACOSX/cat/._1.png": b"x", "cat/.DS_Store": b"x", "readme.txt": b"x"}
    dataset = load_source(MAKERS[kind](tmp_path / f"flat.{kind}", flat))
    assert labels(dataset) == {name: name[:3] for name in FLAT}
    assert dict(dataset.ignored) == {".DS_Store": 1, ".txt files": 1, "__MACOSX": 1}
    assert_reads(dataset)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"flat.{kind}", f"split.{kind}"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_folder_around_everything_is_looked_through(tmp_path: Path, kind: str) -> None:
    names = [*(f"photos/v2/{name}" for name in FLAT), "__MACOSX/photos/._v2"]
    dataset = load_source(MAKERS[kind](tmp_path / f"a.{kind}", pictures(names)))
    assert set(labels(dataset)) == set(FLAT)
    assert "everything lies in photos/v2/" in dataset.listed[0]
    assert_reads(dataset)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_list_inside_an_archive(tmp_path: Path, kind: str) -> None:
    files = {
        **pictures(["images/1.png", "images/2.png"]),
        "labels.csv": b"path,label,site\nimages/1.png,a,s1\n",
    }
    files["labels.csv"] += b"images/2.png,b,s2\nimages/3.png,b,s2\n"
    path = MAKERS[kind](tmp_path / f"a.{kind}", files)
    dataset = load_source(path, group="site")
    assert labels(dataset) == {"images/1.png": "a", "images/2.png": "b", "images/3.png": "b"}
    assert [(r.group, r.status) for r in dataset.records] == [
        ("s1", "used"),
        ("s2", "used"),
        ("s2", "set_aside"),
    ]
    files["labels.csv"] = b"path,label\n../images/1.png,a\n"
    assert "line 2: path ../images/1.png leads out" in problem(MAKERS[kind](tmp_path / f"b.{kind}", files))


@pytest.mark.parametrize(
    "name", ["../evil.png", "a/../../evil.png", "/evil.png", "C:/evil.png", "..\\evil.png"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_of_an_archive_stop(tmp_path: Path, kind: str, name: str) -> None:
    path = MAKERS[kind](tmp_path / f"a.{kind}", {**pictures(FLAT), name: png()})
    assert "lead out of the archive" in problem(path)


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", pictures(FLAT))
    kinds = {
        "sym": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "device": tarfile.CHRTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    with tarfile.open(path, "a") as archive:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(f"{'cat' if name in ('sym', 'hard') else 'dog'}/{name}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    dataset = load_source(path)
    assert set(labels(dataset)) == set(FLAT)
    for name in kinds:
        assert any(
            f"/{name}.png: a link or device inside the archive; not followed" in x for x in dataset.lost
        )


def test_a_second_name_of_a_file_in_a_tar_is_read(tmp_path: Path) -> None:
    """GNU tar stores a file with two names once, and the second name as a hard link."""
    path = make_tar(tmp_path / "a.tar", pictures(FLAT))
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("dog/again.png")
        info.type, info.linkname = tarfile.LNKTYPE, "cat/1.png"
        archive.addfile(info)
    dataset = load_source(path)
    assert labels(dataset)["dog/again.png"] == "dog"
    assert dataset.storage.read("dog/again.png") == dataset.storage.read("cat/1.png")


def test_a_link_in_a_zip_is_not_followed(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", pictures(FLAT))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("cat/link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    dataset = load_source(path)
    assert any(line.startswith("cat/link.png: a link or device inside the archive") for line in dataset.lost)
    assert "cat/link.png" not in labels(dataset)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_two_members_of_one_name_stop(tmp_path: Path, kind: str) -> None:
    path = MAKERS[kind](tmp_path / f"a.{kind}", pictures(FLAT))
    if kind == "zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("cat/1.png", b"other")
    else:
        with tarfile.open(path, "a") as archive:
            archive.addfile(tarfile.TarInfo("cat/1.png"), io.BytesIO(b""))
    assert "several members of one name: cat/1.png" in problem(path)


def test_zip_members_packed_like_bombs_are_refused_one_by_one(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {**pictures(FLAT), "cat/bomb.png": bytes(50_000_000)})
    dataset = load_source(path)
    with pytest.raises(ImageError, match="packed more than 100 to 1"):
        dataset.storage.read("cat/bomb.png")
    assert dataset.storage.read("cat/1.png") == png(0)


def test_a_zip_member_that_lies_about_its_size_is_refused() -> None:
    packed = zlib.compress(bytes(100_000))[2:-4]

    def member(size: int, crc: int, method: int = 8) -> ZipMember:
        return ZipMember(0, len(packed), size, crc, method)

    assert unpack(packed, member(100_000, zlib.crc32(bytes(100_000)))) == bytes(100_000)
    for size in (10, 99_999, 100_001):
        with pytest.raises(ImageError, match="wrong size or checksum"):
            unpack(packed, member(size, zlib.crc32(bytes(size))))
    with pytest.raises(ImageError, match="wrong size or checksum"):
        unpack(packed, member(100_000, 0))
    with pytest.raises(ImageError, match="zip method 14"):
        unpack(packed, member(100_000, 0, method=14))


def test_damaged_members_and_archives(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", pictures(FLAT), zipfile.ZIP_STORED)
    dataset = load_source(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(ImageError, match="damaged in its archive"):
        dataset.storage.read("cat/1.png")
    with pytest.raises(ImageError, match="not in the archive"):
        dataset.storage.read("cat/9.png")
    path.unlink()
    with pytest.raises(ImageError, match="no longer there"):
        dataset.storage.read("cat/1.png")
    for kind in ("zip", "tar"):
        bad = tmp_path / f"bad.{kind}"
        bad.write_bytes(b"nonsense" * 200)
        assert f"cannot be read as {kind}" in problem(bad)


def test_an_archive_that_was_cut_short_since_is_said(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", pictures(FLAT))
    dataset = load_source(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ImageError, match="its archive cannot be read any more"):
        dataset.storage.read("dog/b.JPG")


def test_packed_tars_say_to_unpack(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"x"))
    assert "gunzip" in problem(tmp_path / "a.tar.gz")


# --- shards -----------------------------------------------------------------------------------------


def test_webdataset_shards(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for shard in range(2):
            files: dict[str, bytes] = {}
            for n in range(3):
                key = f"{part}{shard}{n}"
                files[f"{key}.png"] = png(n)
                files[f"{key}.cls"] = str(n % 2).encode()
                files[f"{key}.json"] = json.dumps({"patient": n}).encode()
            make_tar(tmp_path / f"set-{part}-{shard:04d}.tar", files)
    dataset = load_source(tmp_path)
    assert len(dataset.records) == 12
    assert dataset.classes == ("0", "1")
    assert dataset.given_parts == ("train", "validation")
    assert dataset.records[0].path == "set-train-0000.tar/train00.png"
    assert_reads(dataset)
    assert {r.group for r in load_source(tmp_path, group="patient").records} == {"0", "1", "2"}
    pattern = load_source(tmp_path / "set-train-{0000..0001}.tar")
    assert [r.path for r in pattern.records] == [r.path for r in dataset.records if r.part == "train"]
    assert len(load_source(str(tmp_path / "set-*-0001.tar")).records) == 6
    assert len(load_source(tmp_path / "set-val-0000.tar").records) == 3


def test_shard_labels_from_json_and_text(tmp_path: Path) -> None:
    files = {"1.jpg": png(1), "1.json": b'{"label": "rose"}', "2.jpg": png(2), "2.txt": b"tulip\n"}
    assert labels(load_source(make_tar(tmp_path / "a.tar", files))) == {
        "a.tar/1.jpg": "rose",
        "a.tar/2.jpg": "tulip",
    }
    files["3.png"] = png(3)
    assert "1 samples without a label: a.tar/3.png" in problem(make_tar(tmp_path / "a.tar", files))


def test_a_tar_of_class_folders_with_texts_is_no_shard(tmp_path: Path) -> None:
    files = {**pictures(FLAT), "cat/1.json": b"{}", "cat/2.txt": b"a caption"}
    assert labels(load_source(make_tar(tmp_path / "a.tar", files))) == {name: name[:3] for name in FLAT}


# --- tables with images -----------------------------------------------------------------------------


def image_table(numbers: range) -> object:
    pyarrow = pytest.importorskip("pyarrow")
    images = [{"bytes": png(n), "path": f"{n}.png"} for n in numbers]
    features = {"image": {"_type": "Image"}, "label": {"names": ["rose", "tulip"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = {
        "image": pyarrow.array(images, kind),
        "label": pyarrow.array([n % 2 for n in numbers]),
        "site": pyarrow.array([f"s{n % 3}" for n in numbers]),
    }
    return pyarrow.table(columns).replace_schema_metadata(metadata)


def test_parquet_with_an_image_column(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "data").mkdir()
    for name, numbers in (("train-00000-of-00001", range(10)), ("test-00000-of-00001", range(10, 14))):
        parquet.write_table(image_table(numbers), tmp_path / "data" / f"{name}.parquet", row_group_size=4)
    dataset = load_source(tmp_path, group="site")
    assert dataset.classes == ("rose", "tulip")
    assert dataset.given_parts == ("train", "test")
    assert len(dataset.records) == 14
    for record in dataset.records:
        number = int(record.path[-7:]) + (10 if record.part == "test" else 0)
        assert dataset.storage.read(record.path) == png(number)
        assert (record.label, record.group) == (("rose", "tulip")[number % 2], f"s{number % 3}")
    assert_reads(dataset)
    one = load_source(tmp_path / "data" / "train-00000-of-00001.parquet")
    assert one.records[0].path == "train-00000-of-00001.parquet/0000000"
    assert one.records[0].part == "train"


def test_folders_saved_by_datasets(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    for part, numbers in (("train", range(6)), ("validation", range(6, 9))):
        folder = tmp_path / part
        folder.mkdir()
        table = image_table(numbers)
        target = pyarrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb")
        with target, pyarrow.ipc.new_stream(target, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
        names = {"names": ["rose", "tulip"], "_type": "ClassLabel"}
        (folder / "dataset_info.json").write_text(json.dumps({"features": {"label": names}}))
        (folder / "state.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    dataset = load_source(tmp_path)
    assert dataset.given_parts == ("train", "validation")
    assert dataset.records[0].path == "train/data-00000-of-00001.arrow/0000000"
    assert [decode(dataset.storage.read(r.path)).pixels[0, 0, 0] for r in dataset.records] == list(range(9))
    assert_reads(dataset)
    assert len(load_source(tmp_path / "train").records) == 6


def test_tables_that_do_not_fit_say_which_columns_they_have(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"x": [1], "label": [0]}), path)
    assert "needs one image column" in problem(path)
    parquet.write_table(image_table(range(2)).drop_columns(["label"]), path)
    assert "which column is the label" in problem(path)
    path.write_bytes(b"PAR1 nonsense")
    assert "cannot be read" in problem(path)


def test_rows_without_bytes_and_rows_that_are_gone(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    images = pyarrow.array([{"bytes": None, "path": "x"}, {"bytes": png(), "path": "y"}])
    images = images.cast(pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
    table = pyarrow.table({"image": images, "label": ["a", "b"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    dataset = load_source(tmp_path / "t.parquet")
    with pytest.raises(ImageError, match="holds no bytes"):
        dataset.storage.read("t.parquet/0000000")
    with pytest.raises(ImageError, match="no such row"):
        dataset.storage.read("t.parquet/0000009")
    (tmp_path / "t.parquet").unlink()
    with pytest.raises(ImageError, match="no longer there"):
        dataset.storage.read("t.parquet/0000001")


# --- by name ----------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_torchvision_names_find_what_torchvision_downloaded(tmp_path: Path) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    images = np.arange(12 * 28 * 28, dtype=np.uint8).reshape(12, 28, 28)
    numbers = np.arange(12, dtype=np.uint8) % 10
    (folder / "train-images-idx3-ubyte").write_bytes(idx(images))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(numbers)))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images[:3])))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(numbers[:3]))
    dataset = load_source(f"torchvision:FashionMNIST?root={tmp_path}")
    assert dataset.given_parts == ("train", "test")
    assert len(dataset.classes) == 10
    assert labels(dataset)["train/00009.pgm"] == "Ankle boot"
    assert np.array_equal(decode(dataset.storage.read("train/00005.pgm")).pixels[..., 0], images[5])
    assert_reads(dataset)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(numbers[:2]))
    import saccade.sources.named

    saccade.sources.named.read_idx.cache_clear()
    assert "does not fit 3 images" in problem(f"torchvision:FashionMNIST?root={tmp_path}")


def test_names_that_cannot_be_had_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    def no_network(address: str, timeout: float) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    message = problem(f"torchvision:MNIST?root={tmp_path}")
    assert "Network is unreachable" in message
    assert "?root=DIR" in message
    assert "folder of images" in message
    assert "pickles" in problem("torchvision:CIFAR10")
    assert "offered by name: MNIST, FashionMNIST, KMNIST" in problem("torchvision:Nothing")
    assert "only ?root=DIR" in problem("torchvision:MNIST?folder=x")


def test_a_download_that_is_not_the_published_file_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.request

    monkeypatch.setattr(urllib.request, "urlopen", lambda address, timeout: io.BytesIO(b"a login page"))
    assert "not the published file" in problem(f"torchvision:MNIST?root={tmp_path}")
    assert not list(tmp_path.rglob("*.gz"))


def test_a_file_that_grew_is_read_whole_but_never_beyond_the_limit() -> None:
    assert storage._read_all(io.BytesIO(b"abc"), 3, 100) == b"abc"
    assert storage._read_all(io.BytesIO(b"abcdef"), 3, 100) == b"abcdef"
    assert storage._read_all(io.BytesIO(b"abcdef"), 3, 4) == b"abcde"  # one more than allowed, which tells
