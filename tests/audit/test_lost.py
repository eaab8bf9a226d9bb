"""What a rule keeps out is said: classes and parts stop the run, single files are warned of."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saccade.audit import audit
from saccade.audit.auditing import lost_by_reading
from saccade.audit.scan import scan
from saccade.errors import SourceError, SplitError
from saccade.records import Dataset
from saccade.sources import load_source
from saccade.split import split


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


def tar_of(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tree(counts: Mapping[str, int]) -> list[str]:
    """So many images in each of these folders."""
    return [f"{folder}/{n}.png" for folder, count in counts.items() for n in range(count)]


def refusal(location: Path | str, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        load_source(location, **options)
    return str(caught.value)


def said(dataset: Dataset, kind: str) -> str:
    return "\n".join(found.message for found in dataset.findings if found.kind == kind)


def of_part(dataset: Dataset) -> dict[str, int]:
    return {part: sum(r.part == part for r in dataset.records) for part in dataset.given_parts}


def parquet(path: Path, numbers: range, **columns: list[Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    module = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": png(n), "path": f"{n}.png"} for n in numbers], kind)
    labels = ["rose" if n % 2 else "tulip" for n in numbers]
    module.write_table(pyarrow.table({"image": images, "label": labels, **columns}), path)
    return path


posix = pytest.mark.skipif(os.name != "posix", reason="needs links and names of bytes")
KINDS = ("a", "b", "c")


def photos(root: Path, *folders: str, images: int = 3) -> Path:
    return to_folder(root, tree(dict.fromkeys(folders, images)))


# --- links -------------------------------------------------------------------------------------------


@posix
def test_data_made_of_links_to_files_elsewhere_stop_with_the_reason(tmp_path: Path) -> None:
    store = photos(tmp_path / "store", *KINDS)
    for name in tree(dict.fromkeys(KINDS, 3)):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).symlink_to(store / name)
    message = refusal(tmp_path / "in")
    assert "a/0.png, a/1.png, a/2.png and 6 more: a link that leads out of the data's folder" in message
    assert "give a list with path,label (its paths may lead out with ../)" in message


@posix
@pytest.mark.parametrize("real", [(), ("a",), ("a", "b")])
def test_linked_classes_are_empty_classes(tmp_path: Path, real: tuple[str, ...]) -> None:
    store = photos(tmp_path / "store", *KINDS)
    root = photos(tmp_path / "in", *real)
    root.mkdir(exist_ok=True)
    linked = [kind for kind in KINDS if kind not in real]
    for kind in linked:
        (root / kind).symlink_to(store / kind)
    message = refusal(root)
    assert f"{', '.join(linked)}: a link that leads out of the data's folder" in message
    if len(real) > 1:
        assert "class folders without an image: c" in message
        dataset = load_source(root, drop_empty=True)
        assert (dataset.classes, dataset.empty_classes) == (real, ("c",))


@posix
@pytest.mark.parametrize("name", ["val", "valid", "test", "dev"])
def test_a_linked_part_stops(tmp_path: Path, name: str) -> None:
    store = photos(tmp_path / "store", *KINDS)
    root = photos(tmp_path / "in/train", *KINDS).parent
    (root / name).symlink_to(store)
    assert f"{name} holds no image" in refusal(root)
    assert f"{name}: a link that leads out" in refusal(root, drop_empty=True)


@posix
def test_a_part_that_links_to_another_stops(tmp_path: Path) -> None:
    root = photos(tmp_path, *(f"{part}/{kind}" for part in ("train", "test") for kind in KINDS))
    (root / "val").symlink_to(root / "test")
    assert "val: a link to a folder that is read anyway" in refusal(root)


@posix
def test_a_class_that_is_linked_in_one_part_only_stops(tmp_path: Path) -> None:
    store = photos(tmp_path / "store", "c")
    root = photos(tmp_path / "in", "train/a", "train/b", "train/c", "test/a", "test/b")
    (root / "test" / "c").symlink_to(store / "c")
    message = refusal(root)
    assert "test/c (used 0, not used 1)" in message
    assert "test/c: a link that leads out" in message


@posix
@pytest.mark.parametrize("target", ["outside.png", "nowhere.png"])
def test_a_single_link_is_a_warning_and_most_of_a_class_stop(tmp_path: Path, target: str) -> None:
    to_folder(tmp_path, ["outside.png"])
    root = photos(tmp_path / "in", *KINDS)
    (root / "a" / "link0.png").symlink_to(tmp_path / target)
    dataset = load_source(root)
    (line,) = dataset.lost
    assert line.startswith("a/link0.png: a link that leads")
    found = next(found for found in audit_of(dataset) if found.kind == "not_used")
    assert (found.severity, line in found.message) == ("warning", True)
    for n in range(1, 4):
        (root / "a" / f"link{n}.png").symlink_to(tmp_path / target)
    assert "most files of a class cannot be used: a (used 3, not used 4)" in refusal(root)


@posix
def test_a_dead_link_in_the_place_of_a_class_is_an_empty_class(tmp_path: Path) -> None:
    root = photos(tmp_path, *KINDS)
    (root / "unmounted").symlink_to("/nowhere/at/all")
    assert "unmounted: a link that leads nowhere" in refusal(root)


@posix
def test_links_to_texts_are_no_loss(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    root = photos(tmp_path / "in", *KINDS)
    (root / "a" / "notes.txt").symlink_to(tmp_path / "notes.txt")
    assert load_source(root).lost == ()


def test_a_tar_of_links_stops_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in tree(dict.fromkeys(KINDS, 2)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, f"../store/{name}"
            archive.addfile(info)
    assert "a link or device inside the archive; not followed" in refusal(path)


# --- extensions --------------------------------------------------------------------------------------


def audit_of(dataset: Dataset) -> tuple[Any, ...]:
    scanned = scan(dataset, workers=1)
    return audit(scanned.dataset, scanned.measurements, near_duplicates=False).findings


@pytest.mark.parametrize("container", ["folder", "tar"])
@pytest.mark.parametrize("ending", ["dat", "mp4", "npy", "zip", ""])
def test_most_files_of_a_class_by_their_extension_stop(tmp_path: Path, container: str, ending: str) -> None:
    odd = [f"a/odd{n}.{ending}".rstrip(".") for n in range(4)]
    names = [*tree(dict.fromkeys(KINDS, 3)), *odd]
    at = to_folder(tmp_path / "in", names)
    location = at if container == "folder" else tar_of(tmp_path / "a.tar", dict.fromkeys(names, b"x"))
    assert "a (used 3, not used 4)" in refusal(location)


def test_a_class_of_unknown_files_only_names_them(tmp_path: Path) -> None:
    root = to_folder(tmp_path, [*tree(dict.fromkeys(KINDS, 3)), "d/1.dat", "d/2.dat"])
    message = refusal(root)
    assert "class folders without an image: d" in message
    assert "d/1.dat, d/2.dat: not an image by its extension" in message


def test_single_files_in_class_folders_are_warned_of_and_those_beside_are_listed(tmp_path: Path) -> None:
    root = to_folder(tmp_path, [*tree(dict.fromkeys(KINDS, 3)), "a/x.dat", "LICENSE", "stray.png", "old.zip"])
    dataset = load_source(root)
    assert [line.partition(":")[0] for line in dataset.lost] == ["a/x.dat", "old.zip", "stray.png"]
    assert any(line.startswith("LICENSE: ") for line in dataset.listed)
    severity = {found.kind: found.severity for found in audit_of(dataset)}
    assert severity["not_used"] == "warning"
    assert severity["listed"] == "info"


def test_arrays_beside_the_images_of_their_names_are_no_loss(tmp_path: Path) -> None:
    names = [f"{kind}/{n}.{end}" for kind in KINDS for n in range(3) for end in ("png", "npy")]
    dataset = load_source(to_folder(tmp_path, names))
    assert (len(dataset.records), dataset.lost) == (9, ())


def test_more_images_beside_the_class_folders_of_a_part_than_in_them_stop(tmp_path: Path) -> None:
    root = photos(tmp_path, "train/a", "train/b")
    to_folder(root, [f"train/{n}.png" for n in range(7)])
    assert "7 images of train lie beside its class folders, 6 in them" in refusal(root)


def test_a_class_or_part_of_a_format_that_is_not_read_is_an_error(tmp_path: Path) -> None:
    root = photos(tmp_path, "train/a", "train/b", "test/a", "test/b")
    for n in range(8):
        (root / "train" / "a" / f"drawing{n}.psd").write_bytes(b"8BPS" + bytes(40 + n))
    for path in [*(root / "test").glob("*/*.png")]:
        path.write_bytes(b"")
    scanned = scan(load_source(root), workers=1)
    lost = lost_by_reading(scanned.dataset)
    assert "the test part has no image that can be used" in lost
    assert "8 of 11 images of a have formats not read here" in lost
    found = audit(scanned.dataset, scanned.measurements, near_duplicates=False)
    assert [f.severity for f in found.findings if f.kind == "lost"] == ["error", "error"]
    with pytest.raises(SplitError, match="the test part has no image"):
        split(found)


# --- labels ------------------------------------------------------------------------------------------


def lines_of(root: Path, values: Iterable[Any], name: str = "l.jsonl") -> Path:
    rows = list(values)
    to_folder(root, [f"{n}.png" for n in range(len(rows))])
    text = "".join(json.dumps({"path": f"{n}.png", "label": value}) + "\n" for n, value in enumerate(rows))
    (root / name).write_text(text)
    return root / name


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (float("nan"), "line 3: no label"),
        (None, "line 3: no label"),
        (
            ["cat", "red"],
            "line 3: 2 labels; an image has one class here: write one as text, or add --multi-label",
        ),
        (["cat"], "line 3: a list with 1 label"),
        ([], "line 3: 0 labels"),
        ({"name": "cat"}, "line 3: an object as label"),
        ("B\ud83d", "line 3: label B\\ud83d is not UTF-8; a character is cut in half"),
        ("B\udd00r", "line 3: label B\\udd00r is not UTF-8; a character is cut in half"),
        ("B\udce4r", "line 3: label B\\udce4r is not UTF-8; save it as UTF-8"),
        ("  ", "line 3: no label"),
    ],
)
def test_labels_that_are_no_text_stop_with_their_line(tmp_path: Path, label: Any, words: str) -> None:
    assert words in refusal(lines_of(tmp_path, ["cat", "dog", label]))


@pytest.mark.parametrize("label", [0, 1.0, True, "NaN", "None", "NA", "[]", "{}"])
def test_labels_that_read_like_nothing_are_classes(tmp_path: Path, label: Any) -> None:
    dataset = load_source(lines_of(tmp_path, ["cat", "dog", label]))
    assert dataset.records[2].label == ("1" if label == 1.0 and label is not True else str(label))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0.0, 1.0, float("nan")], "line 3: no label"),
        ([["a", "b"], ["a"], ["b"]], "line 1: 2 labels"),
        ([{"x": 1}, {"x": 2}, {"x": 1}], "line 1: an object as label"),
        ([b"a", b"b", b"\xff"], "line 3: label \\udcff is not UTF-8"),
    ],
)
def test_labels_in_a_parquet_list(tmp_path: Path, labels: list[Any], words: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    module = pytest.importorskip("pyarrow.parquet")
    to_folder(tmp_path, ["0.png", "1.png", "2.png"])
    table = pyarrow.table({"path": ["0.png", "1.png", "2.png"], "label": labels})
    module.write_table(table, tmp_path / "l.parquet")
    assert words in refusal(tmp_path / "l.parquet")


def test_labels_in_a_table_with_images_and_in_shards(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = parquet(tmp_path / "t.parquet", range(2))
    import pyarrow.parquet as module

    table = module.read_table(path).drop_columns(["label"])
    module.write_table(table.append_column("label", [[[0, 2], [1]]]), path)
    assert "t.parquet/0000000: 2 labels; an image has one class here" in refusal(path)
    module.write_table(table.append_column("label", [[float("nan"), 1.0]]), path)
    assert "1 rows without a label: t.parquet/0000000" in refusal(path)
    files = {
        "1.png": png(1),
        "1.json": b'{"label": ["a", "b"]}',
        "2.png": png(2),
        "2.cls": "Bär".encode("cp1252"),
    }
    message = refusal(tar_of(tmp_path / "s.tar", files))
    assert "s.tar/1.png: 2 labels" in message
    assert "s.tar/2.png: label B\\udce4r is not UTF-8" in message


def test_samples_without_an_image_are_warned_of_and_most_of_them_stop(tmp_path: Path) -> None:
    files = {
        f"{n}.{end}": png(n) if end == "png" else b"ab"[n % 2 :][:1]
        for n in range(4)
        for end in ("png", "cls")
    }
    odd = {"9.v1.png": png(9), "9.cls": b"a"}
    dataset = load_source(tar_of(tmp_path / "s.tar", files | odd))
    assert "1 samples without an image that can be read, s.tar/9" in said(dataset, "not_used")
    odd = {f"{n}.{end}": b"a" for n in range(10, 16) for end in ("v1.png", "cls")}
    assert "the key ends at the first dot" in refusal(tar_of(tmp_path / "s.tar", files | odd))


# --- encodings and spellings -------------------------------------------------------------------------

UMLAUTS = ("Bär", "Löwe", "Käfer")


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gbk"]
)
def test_lists_in_other_encodings_stop_when_they_are_read(tmp_path: Path, encoding: str) -> None:
    labels = ("猫", "犬", "鳥") if encoding == "gbk" else UMLAUTS
    to_folder(tmp_path, [f"{n}.png" for n in range(3)])
    text = "path,label\n" + "".join(f"{n}.png,{label}\n" for n, label in enumerate(labels))
    (tmp_path / "l.csv").write_bytes(text.encode(encoding))
    assert "save it as UTF-8" in refusal(tmp_path / "l.csv")


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman"])
def test_paths_in_the_encoding_of_a_spreadsheet_find_their_files(tmp_path: Path, encoding: str) -> None:
    names = [f"{name}.png" for name in UMLAUTS]
    to_folder(tmp_path, names)
    text = "path;label\n" + "".join(f"{name};{n % 2}\n" for n, name in enumerate(names))
    (tmp_path / "l.csv").write_bytes(text.encode(encoding))
    dataset = load_source(tmp_path / "l.csv")
    assert {record.path for record in dataset.used()} == set(names)
    (found,) = dataset.findings
    assert "3 paths of l.csv name files that differ in encoding (" in found.message


@posix
def test_class_folders_that_are_not_utf8_stop_and_file_names_need_not_be(tmp_path: Path) -> None:
    root = photos(tmp_path, *KINDS)
    try:
        os.mkdir(os.fsencode(root) + b"/B\xe4r")
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    with open(os.fsencode(root) + b"/B\xe4r/1.png", "wb") as file:
        file.write(png(99))
    message = refusal(root)
    assert "class names that are not UTF-8: B\\udce4r\nhint: rename the folder" in message
    os.rename(os.fsencode(root) + b"/B\xe4r/1.png", os.fsencode(root) + b"/a/B\xe4r.png")
    os.rmdir(os.fsencode(root) + b"/B\xe4r")
    assert len(load_source(root).records) == 10


def test_names_in_a_tar_that_are_not_utf8_stop(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in ("Bär/1.png", "Löwe/1.png"):
            archive.addfile(tarfile.TarInfo(name))
    assert "class names that are not UTF-8" in refusal(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("0", "0.0"),
        ("1", "01"),
        ("10", "10.00"),
        ("-0", "0"),
        ("cat", "Cat "),
        ("T shirt", "T\N{NO-BREAK SPACE}shirt"),
        ("cat", "cat\N{ZERO WIDTH SPACE}"),
        (unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")),
    ],
)
def test_classes_that_a_person_takes_for_one_stop(tmp_path: Path, first: str, second: str) -> None:
    message = refusal(lines_of(tmp_path, [first, second, "dog"]))
    assert "merge each into one name" in message


@pytest.mark.parametrize(("first", "second"), [("1", "10"), ("1.5", "1.05"), ("1e3", "1000"), ("a1", "a01")])
def test_classes_that_differ_stay_apart(tmp_path: Path, first: str, second: str) -> None:
    assert len(load_source(lines_of(tmp_path, [first, second])).classes) == 2


def test_letters_lost_before_are_warned_of(tmp_path: Path) -> None:
    dataset = load_source(lines_of(tmp_path, ["B\N{REPLACEMENT CHARACTER}r", "dog"]))
    assert "letters of class names were lost before saccade read them" in said(dataset, "not_used")


# --- lists from other systems ------------------------------------------------------------------------


def list_of(root: Path, paths: Iterable[str]) -> Path:
    with open(root / "l.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([path, "rose" if n % 2 else "tulip"] for n, path in enumerate(paths))
    return root / "l.csv"


@pytest.mark.parametrize(
    ("written", "there", "how"),
    [
        ("img\\a\\{}.png", "img/a/{}.png", "backslashes"),
        (".\\img\\{}.png", "img/{}.png", "backslashes"),
        ("img/{}.JPG", "img/{}.jpg", "upper and lower case"),
        ("IMG/{}.png", "img/{}.png", "upper and lower case"),
        ("Img\\{}.PNG", "img/{}.png", "upper and lower case"),
        (
            "caf\N{LATIN SMALL LETTER E WITH ACUTE}_{}.png",
            "cafe\N{COMBINING ACUTE ACCENT}_{}.png",
            "Unicode form",
        ),
        (
            "cafe\N{COMBINING ACUTE ACCENT}/{}.png",
            "caf\N{LATIN SMALL LETTER E WITH ACUTE}/{}.png",
            "Unicode form",
        ),
    ],
)
@pytest.mark.parametrize("container", ["folder", "zip"])
def test_paths_of_another_system_find_their_file(
    tmp_path: Path, written: str, there: str, how: str, container: str
) -> None:
    names = [there.format(n) for n in range(4)]
    root = to_folder(tmp_path / "in", names)
    path = list_of(root, [written.format(n) if n else there.format(n) for n in range(4)])
    if container == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in [*names, "l.csv"]:
                archive.write(root / name, name)
        path = tmp_path / "a.zip"
    dataset = load_source(path)
    if "case" in how and (root / names[0].upper()).exists():
        pytest.skip("this file system tells no case")
    assert [record.path for record in dataset.records] == sorted(names)
    assert all(record.used for record in dataset.records)
    assert f"3 paths of l.csv name files that differ in {how}" in said(dataset, "reading")


def test_backslash_in_a_real_name_is_kept(tmp_path: Path) -> None:
    root = to_folder(tmp_path, ["a\\b.png", "c.png"])
    assert [record.path for record in load_source(list_of(root, ["a\\b.png", "c.png"])).records] == [
        "a\\b.png",
        "c.png",
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("C:\\data\\0.png", "line 2: absolute Windows path C:\\data\\0.png"),
        ("D:/data/0.png", "line 2: absolute Windows path"),
        ("\\\\server\\share\\0.png", "line 2: absolute Windows path"),
    ],
)
def test_windows_paths_with_a_drive_stop(tmp_path: Path, path: str, words: str) -> None:
    root = to_folder(tmp_path, ["0.png", "1.png"])
    message = refusal(list_of(root, [path, "1.png"]))
    assert words.replace("\\", "\\\\") in message or words in message
    assert "write it relative to the list, with /" in message


def test_of_two_files_that_differ_in_case_none_is_taken(tmp_path: Path) -> None:
    root = to_folder(tmp_path, ["A.png", "a.png", "1.png", "2.png", "3.png", "4.png"])
    if len(list(root.iterdir())) < 6:
        pytest.skip("this file system tells no case")
    dataset = load_source(list_of(root, ["1.png", "2.png", "3.png", "4.png", "a.PNG"]))
    (odd,) = [record for record in dataset.records if not record.used]
    assert "2 files differ from it in upper and lower case only" in odd.note


def test_most_files_of_a_class_missing_stop(tmp_path: Path) -> None:
    root = to_folder(tmp_path, [f"{n}.png" for n in range(6)])
    good = [f"{n}.png" for n in range(6)]
    message = refusal(
        list_of(root, [*good, "gone0.png", "5.png", "gone1.png", "5.png", "x.png", "5.png", "y.png"])
    )
    assert "most files of a class do not exist: tulip (4 of 7); the first is gone0.png" in message


# --- names in archives -------------------------------------------------------------------------------


class Unflagged(zipfile.ZipInfo):
    """A member whose name is written in some encoding without the UTF-8 flag."""

    encoding = "gbk"

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # what zipfile calls
        return self.filename.encode(self.encoding), self.flag_bits & ~0x800


def zip_in(path: Path, names: Iterable[str], encoding: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            info = Unflagged(name)
            info.encoding = encoding
            archive.writestr(info, png(number))
    return path


@pytest.mark.parametrize(
    ("classes", "encoding", "read"),
    [
        (("猫", "犬"), "gbk", ("è", "Ȯ")),  # valid UTF-8 by chance
        (("白色", "黑色"), "gbk", None),
        (("Bär", "Löwe"), "cp1252", None),
        (("Bär", "Löwe"), "cp850", ("Bär", "Löwe")),
        (("кот", "пёс"), "cp866", None),
        (("Bär", "Löwe"), "utf-8", ("Bär", "Löwe")),  # too few to be sure of
    ],
)
def test_names_without_a_declared_encoding_are_warned_of(
    tmp_path: Path, classes: tuple[str, ...], encoding: str, read: tuple[str, ...] | None
) -> None:
    names = [f"{label}/{n}.png" for label in classes for n in range(2)]
    dataset = load_source(zip_in(tmp_path / "a.zip", names, encoding))
    (found,) = dataset.findings
    assert (found.kind, found.severity) == ("not_used", "warning")
    assert "4 names in this archive have no declared encoding and read as " in found.message
    assert "zip it again with UTF-8" in found.remedy
    if read:
        assert set(dataset.classes) == set(read)
    for record in dataset.records:
        assert dataset.storage.read(record.path).startswith(b"\x89PNG")


def test_many_utf8_names_without_the_flag_are_read_as_such(tmp_path: Path) -> None:
    """macOS writes them."""
    classes = ("Bär", "Löwe", "Käfer", "Ente")
    names = [f"{label}/{label}{n}.png" for label in classes for n in range(2)]
    dataset = load_source(zip_in(tmp_path / "a.zip", names, "utf-8"))
    assert set(dataset.classes) == set(classes)
    assert dataset.findings == ()


def test_declared_names_need_no_remark(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for label in ("猫", "犬"):
            archive.writestr(f"{label}/1.png", png())
    dataset = load_source(tmp_path / "a.zip")
    assert (set(dataset.classes), dataset.findings) == ({"猫", "犬"}, ())


# --- what saccade wrote ------------------------------------------------------------------------------

RUN = (
    "recipe.toml",
    "environment.json",
    "dataset.csv",
    ".lock",
    "bundle/weights.safetensors",
    "report/report.html",
)
AUDIT = ("audit.json", "audit.html")


@pytest.mark.parametrize(
    "written",
    [
        [f"run/{name}" for name in RUN],
        [f"runs/one/{name}" for name in RUN] + [f"runs/two/{name}" for name in RUN],
        [f"found/{name}" for name in AUDIT],
        [f"out/{name}" for name in AUDIT] + [f"out/runs/one/{name}" for name in RUN],
        ["begun/.lock"],
        list(AUDIT),
    ],
)
@pytest.mark.parametrize("container", ["folder", "tar"])
def test_runs_and_audits_inside_the_data_are_no_classes(
    tmp_path: Path, written: list[str], container: str
) -> None:
    names = [*tree(dict.fromkeys(KINDS, 2)), *written]
    location = to_folder(tmp_path / "in", names)
    if container == "tar":
        location = tar_of(tmp_path / "a.tar", dict.fromkeys(names, b"x"))
    dataset = load_source(location)
    assert dataset.classes == KINDS
    assert len(dataset.records) == 6
    assert (dataset.lost, dataset.listed) == ((), ())
    assert ("folders written by saccade" in dataset.ignored) == any("/" in name for name in written)


def test_an_audit_written_into_a_class_folder_does_not_hide_the_class(tmp_path: Path) -> None:
    names = [*tree(dict.fromkeys(KINDS, 2)), *(f"a/{name}" for name in (*AUDIT, *RUN[:3]))]
    assert load_source(to_folder(tmp_path, names)).classes == KINDS


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (tree({"a/one": 2, "b/one": 2, "c/one": 2}), ["a/.lock"]),
        (tree({"a/one": 2, "b/one": 2, "c/one": 2}), [f"a/{name}" for name in AUDIT]),
        (tree({"a/one/two": 2, "b": 2, "c": 2}), [f"a/{name}" for name in AUDIT]),
        (tree({f"{part}/{kind}": 2 for part in ("train", "val") for kind in KINDS}), ["val/.lock"]),
        (
            tree({f"{part}/{kind}": 2 for part in ("train", "val") for kind in KINDS}),
            [f"val/{name}" for name in AUDIT],
        ),
    ],
)
@pytest.mark.parametrize("container", ["folder", "tar"])
def test_an_audit_or_a_lock_above_images_hides_none_of_them(
    tmp_path: Path, names: list[str], written: list[str], container: str
) -> None:
    location = to_folder(tmp_path / "in", [*names, *written])
    if container == "tar":
        location = tar_of(tmp_path / "a.tar", dict.fromkeys([*names, *written], b"x"))
    dataset = load_source(location)
    assert {record.path for record in dataset.records} == set(names)
    assert "folders written by saccade" not in dataset.ignored


def test_long_numbers_that_differ_are_different_classes(tmp_path: Path) -> None:
    first, second = "1" * 40, "1" * 39 + "2"
    assert load_source(to_folder(tmp_path, tree({first: 2, second: 2}))).classes == (first, second)


def test_a_run_given_as_data_is_called_one(tmp_path: Path) -> None:
    assert "holds what saccade wrote, and no images" in refusal(to_folder(tmp_path, RUN))


def test_an_empty_class_beside_a_run_is_still_one(tmp_path: Path) -> None:
    root = to_folder(tmp_path, [*tree(dict.fromkeys(KINDS, 2)), *(f"run/{name}" for name in RUN)])
    (root / "d").mkdir()
    with pytest.raises(SourceError, match=r"class folders without an image: d\n"):
        load_source(root)


def test_the_source_s_findings_survive_new_records(tmp_path: Path) -> None:
    dataset = load_source(photos(tmp_path, "Training/a", "Training/b", "Testing/a", "Testing/b"))
    again = dataset.with_records(replace(record, note="x") for record in dataset.records)
    assert again.findings == dataset.findings != ()
    assert of_part(again) == {"train": 6, "test": 6}
