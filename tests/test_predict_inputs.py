"""What stands behind the model: lists, archives, tables, standard input, and all of them made to do harm."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.errors import RecipeError, SourceError
from saccade.predict.command import predict_command
from saccade.sources.inputs import given_by
from saccade.sources.tables import Columns
from saccade.terminal import Terminal

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model.onnx")


def image(colour: str, size: tuple[int, int] = (12, 9), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(file, kind)
    return file.getvalue()


FILES = {"deep/b.png": image("green"), "a.jpg": image("red", kind="JPEG"), "c.png": image("blue", (30, 8))}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images; the current folder is the one above them."""
    for name, data in FILES.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def run(model: Path, *inputs: str, **options: object) -> tuple[int, list[str]]:
    stream = io.StringIO()
    code = predict_command(str(model), inputs, Terminal(stream=stream), **options)  # type: ignore[arg-type]
    return code, stream.getvalue().splitlines()


def predicted(model: Path, *inputs: str, **options: object) -> dict[str, str]:
    """Name -> class, in the order of the rows."""
    run(model, *inputs, out="o.csv", **options)
    with open("o.csv", encoding="utf-8-sig") as file:
        return {row["path"]: row["predicted"] for row in csv.DictReader(file)}


def failures(out: str = "o.csv") -> dict[str, str]:
    with open(f"{out}.failed.csv", encoding="utf-8-sig", newline="") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────

NAMED = {"photos/c.png": "blue", "photos/a.jpg": "red", "photos/deep/b.png": "green"}
LISTS = {
    "list.txt": "photos/c.png\r\n\n  \nphotos/a.jpg\nphotos/deep/b.png",
    "marked.txt": "\ufeffphotos/c.png\nphotos/a.jpg\nphotos/deep/b.png\n",
    "list.csv": "label;path\n;photos/c.png\nx;photos/a.jpg\n;photos\\deep\\b.png\n",
    "list.tsv": '\ufeffpath\n"photos/c.png"\nphotos/a.jpg\nphotos/deep/b.png\n',
    "list.jsonl": "".join(json.dumps({"path": name, "id": 1}) + "\n" for name in NAMED),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_name_files_in_their_order(name: str, model: Path, photos: Path) -> None:
    Path(name).write_text(LISTS[name], "utf-8", newline="")
    assert predicted(model, name) == NAMED
    assert list(predicted(model, name)) == list(NAMED)
    assert [given.count for given in given_by([name])] == [3]


def test_a_list_in_parquet_names_files(model: Path, photos: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table({"file": list(NAMED), "n": [1, 2, 3]}), "list.parquet")
    assert predicted(model, "list.parquet", columns=Columns("file")) == NAMED
    assert run(model, "list.parquet", out="o.csv")[0] == 2
    assert failures()["list.parquet"].startswith("no column path; its columns are: file, n")


def test_the_folder_that_names_begin_in_can_be_said(model: Path, photos: Path) -> None:
    Path("list.txt").write_text("c.png\na.jpg\ndeep/b.png\n")
    found = predicted(model, "list.txt", columns=Columns(root="photos"))
    assert found == {os.path.abspath(name): label for name, label in NAMED.items()}


def test_what_a_list_names_wrongly_fails_alone(model: Path, photos: Path) -> None:
    os.mkfifo("pipe.png")
    Path("list.csv").write_text(
        "path\nphotos/a.jpg\ngone.png\n   \n''\nphotos\npipe.png\n/dev/zero\nlist.csv\n"
    )
    assert predicted(model, "list.csv") == {"photos/a.jpg": "red"}
    found = failures()
    assert "no longer there" in found["gone.png"] or "no such file" in found["gone.png"]
    assert all("not a regular file" in found[name] for name in ("photos", "pipe.png", "/dev/zero"))
    assert "not an image" in found["list.csv"]


def test_a_list_that_cannot_be_read_is_refused_before_any_work(model: Path, photos: Path) -> None:
    Path("bad.csv").write_text("path,label\nphotos/a.jpg,x\nphotos/c.png,a,b\n")
    with pytest.raises(SourceError, match=r"bad\.csv: line 3: 3 fields where the header names 2"):
        run(model, "bad.csv", out="o.csv")
    Path("wide.csv").write_text("path\nphotos/a.jpg\n", "utf-16")
    with pytest.raises(SourceError, match="UTF-16"):
        run(model, "wide.csv", out="o.csv")
    Path("open.csv").write_text('path\n"photos/a.jpg\n')
    with pytest.raises(SourceError, match="close the quote that is open"):
        run(model, "open.csv", out="o.csv")
    assert not os.path.exists("o.csv.unfinished")


# ── containers ───────────────────────────────────────────────────────────────────────────────────────


def zipped(place: str, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(place, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return place


def tarred(place: str, files: dict[str, bytes], mode: str = "w") -> str:
    with tarfile.open(place, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return place


@pytest.mark.parametrize("make", [zipped, tarred])
def test_archives_are_read_in_place(
    make: Callable[[str, dict[str, bytes]], str], model: Path, photos: Path
) -> None:
    name = make("photos.zip" if make is zipped else "photos.tar", {**FILES, "notes.txt": b"x"})
    before = sorted(Path().rglob("*"))
    assert predicted(model, name) == {
        f"{name}/a.jpg": "red",
        f"{name}/c.png": "blue",
        f"{name}/deep/b.png": "green",
    }
    assert sorted(Path().rglob("*")) == sorted([*before, Path("o.csv")])
    with pytest.raises(RecipeError, match=f"--sort-into copies files, and {name}"):
        run(model, name, sort_into="sorted")


def test_tables_of_images_are_read_row_by_row(model: Path, photos: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    colours = ["red", "green", "blue"] * 30
    plain: list[bytes | None] = [image(colour) for colour in colours]
    plain[4], plain[5] = None, b"no image"
    parquet.write_table(pyarrow.table({"image": plain}), "plain.parquet", row_group_size=7)
    structs = [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(plain)]
    parquet.write_table(pyarrow.table({"picture": structs, "path": list(map(str, range(90)))}), "hub.parquet")
    for name in ("plain.parquet", "hub.parquet"):
        found = predicted(model, name)
        assert found == {f"{name}/{i:07d}": c for i, c in enumerate(colours) if i not in (4, 5)}
        assert list(found) == sorted(found)
        assert "holds no bytes" in failures()[f"{name}/0000004"]
        assert "not an image" in failures()[f"{name}/0000005"]
    Path("cut.parquet").write_bytes(Path("plain.parquet").read_bytes()[:-40])
    assert run(model, "cut.parquet", "photos/a.jpg", out="o.csv")[0] == 1
    assert "cannot be read" in failures()["cut.parquet"]
    parquet.write_table(pyarrow.table({"image": plain, "photo": plain}), "two.parquet")
    assert run(model, "two.parquet", out="o.csv")[0] == 2
    assert "holds 2 columns of images: image, photo" in failures()["two.parquet"]


def test_a_damaged_table_fails_from_there_on(model: Path, photos: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    options = {"compression": "gzip", "row_group_size": 10, "use_dictionary": False}
    parquet.write_table(
        pyarrow.table({"image": [image("red", (90, 9 + i)) for i in range(30)]}), "t.parquet", **options
    )
    data = bytearray(Path("t.parquet").read_bytes())
    with parquet.ParquetFile("t.parquet") as file:
        start = file.metadata.row_group(1).column(0).data_page_offset
    data[start : start + 60] = b"\xff" * 60
    Path("t.parquet").write_bytes(data)
    assert list(predicted(model, "t.parquet").values()) == ["red"] * 10
    assert ["this row and what follows cannot be read" in why for why in failures().values()] == [True]


def test_a_folder_of_shards_is_read_shard_by_shard(model: Path, photos: Path) -> None:
    os.mkdir("shards")
    tarred("shards/0.tar", {"1.png": image("red"), "1.cls": b"0"})
    tarred("shards/1.tar", {"2.png": image("blue"), "2.cls": b"1"})
    assert predicted(model, "shards") == {"shards/0.tar/1.png": "red", "shards/1.tar/2.png": "blue"}


# ── standard input ───────────────────────────────────────────────────────────────────────────────────


def piped(model: Path, data: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "saccade", "predict", str(model), "-", *options]
    return subprocess.run(command, input=data, capture_output=True)


def test_standard_input_is_paths_or_an_image(model: Path, photos: Path) -> None:
    said = piped(model, b"photos/c.png\nphotos/a.jpg\n\ngone.png\n")
    assert [line.partition(b" ")[0] for line in said.stdout.splitlines()] == [
        b"photos/c.png:",
        b"photos/a.jpg:",
    ]
    assert (said.returncode, b"gone.png: there is no such file" in said.stderr) == (1, True)
    assert piped(model, FILES["a.jpg"]).stdout.startswith(b"-: red ")


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"", []),
        (b"a.jpg\0odd\nname.png\0", ["a.jpg", "odd\nname.png"]),
        (b"latin\xe9.jpg\r\nb.jpg", ["latin\udce9.jpg", "b.jpg"]),
        (b"BM/1.jpg\nRIFF.jpg\n", ["BM/1.jpg", "RIFF.jpg"]),
        (b"x" * 300_000 + b"\na.jpg\n", ["x" * 100, "a.jpg"]),
        (image("red", kind="BMP"), ["-"]),
        (image("red", kind="PPM"), ["-"]),
        (image("red", kind="WEBP"), ["-"]),
        (image("red", kind="TIFF"), ["-"]),
        (image("red", kind="GIF"), ["-"]),
        (image("red", kind="AVIF"), ["-"]),
    ],
)
def test_what_comes_by_standard_input(data: bytes, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", stream)
    (given,) = given_by(["-"])
    assert [name for name, _ in given.inputs()] == names
    assert given.count is None


def test_standard_input_is_given_once(model: Path) -> None:
    with pytest.raises(SourceError, match="twice"):
        run(model, "-", "-")


# ── archives that mean harm ──────────────────────────────────────────────────────────────────────────


OUTSIDE = "../canary.png"


def tar_with(kind: bytes = tarfile.REGTYPE, link: str = "", name: str = "evil.png") -> str:
    """A tar with a good image, and a member of another kind."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    place = tarred("e.tar", {"good.png": image("red")})
    with tarfile.open(place, "a") as archive:
        archive.addfile(info)
    return place


def zip_with(name: str = "evil.png", data: bytes = b"x", **fields: int) -> str:
    """A zip with a good image, and a member whose fields in the directory are not true."""
    place = "e.zip"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("good.png", image("red"))
        info = zipfile.ZipInfo(name)
        info.external_attr = fields.pop("external_attr", 0)
        archive.writestr(info, data, zipfile.ZIP_DEFLATED)
        for field, value in fields.items():
            setattr(archive.filelist[-1], field, value)
    return place


def two_of_one_name(place: str) -> str:
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("good.png", image("red"))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("good.png", image("blue"))
    return place


def packed() -> bytes:
    return Path(zipped("inner.zip", FILES)).read_bytes()


def neither(place: str) -> str:
    Path(place).write_bytes(b"PK\x03\x04" + bytes(100))
    return place


def bomb_png() -> bytes:
    """A PNG that says it has 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tar_that_claims(place: str, size: int) -> str:
    """A tar whose last member says it is larger than the file."""
    info = tarfile.TarInfo("evil.png")
    info.size = size
    tarred(place, {"good.png": image("red")})
    data = Path(place).read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512)
    Path(place).write_bytes(data + info.tobuf() + b"x" * 512)
    return place


LINK = 0o120777 << 16
ALL_OF_IT, ONE_MEMBER = "the archive fails as a whole", "the other image is answered"
BIG = bytes(20_000_000)
EVIL: dict[str, tuple[Callable[[], str], str, str]] = {
    "zip: ..": (lambda: zip_with("../evil.png", image("red")), "lead out", ALL_OF_IT),
    "zip: .. with backslashes": (lambda: zip_with("..\\..\\evil.png", b"x"), "lead out", ALL_OF_IT),
    "zip: absolute": (lambda: zip_with("/tmp/evil.png", b"x"), "lead out", ALL_OF_IT),
    "zip: drive letter": (lambda: zip_with("C:\\evil.png", b"x"), "lead out", ALL_OF_IT),
    "zip: symbolic link": (lambda: zip_with(external_attr=LINK), "link or device", ONE_MEMBER),
    "zip: one name twice": (lambda: two_of_one_name("e.zip"), "several members of one name", ALL_OF_IT),
    "zip: zip inside zip": (lambda: zip_with("evil.zip", packed()), "not an image by its", ONE_MEMBER),
    "zip: packed 1000 to 1": (lambda: zip_with(data=BIG), "100 to 1", ONE_MEMBER),
    "zip: says it is small": (lambda: zip_with(data=BIG, file_size=1000), "wrong size", ONE_MEMBER),
    "zip: says it has 4 GB": (lambda: zip_with(file_size=4 * 10**9), "limit of 200 MB", ONE_MEMBER),
    "zip: lies beyond its end": (lambda: zip_with(header_offset=99_999_999), "no local header", ONE_MEMBER),
    "zip: encrypted": (lambda: zip_with(flag_bits=1), "is encrypted", ALL_OF_IT),
    "zip: unknown method": (lambda: zip_with(compress_type=99), "packed with zip method 99", ONE_MEMBER),
    "zip: an image of 3.6 gigapixels": (lambda: zip_with(data=bomb_png()), "60,000", ONE_MEMBER),
    "tar: ..": (lambda: tarred("e.tar", {"../evil.png": image("red")}), "lead out", ALL_OF_IT),
    "tar: absolute": (lambda: tarred("e.tar", {"/tmp/evil.png": image("red")}), "lead out", ALL_OF_IT),
    "tar: symbolic link": (lambda: tar_with(tarfile.SYMTYPE, OUTSIDE), "link or device", ONE_MEMBER),
    "tar: hard link": (lambda: tar_with(tarfile.LNKTYPE, OUTSIDE), "link or device", ONE_MEMBER),
    "tar: device": (lambda: tar_with(tarfile.CHRTYPE), "link or device", ONE_MEMBER),
    "tar: pipe": (lambda: tar_with(tarfile.FIFOTYPE), "link or device", ONE_MEMBER),
    "tar: one name twice": (lambda: tar_with(name="good.png"), "several members of one name", ALL_OF_IT),
    "tar: claims 8 GB": (lambda: tar_that_claims("e.tar", 2**33), "cannot be read as tar", ALL_OF_IT),
    "tar: cut off": (lambda: tar_that_claims("e.tar", 5000), "cannot be read as tar", ALL_OF_IT),
    "tar: packed": (lambda: tarred("e.tar.gz", FILES, "w:gz"), "cannot be read in place", ALL_OF_IT),
    "neither": (lambda: neither("e.zip"), "cannot be read as zip", ALL_OF_IT),
}


@pytest.fixture
def canary(photos: Path) -> Iterator[None]:
    """A file outside, which no archive may read or change, and no file that was not there before."""
    Path("canary.png").write_bytes(image("green"))
    os.mkdir("inside")
    before = {path: path.stat().st_mtime_ns for path in photos.parent.rglob("*")} | {Path("/tmp/evil.png"): 0}
    assert not Path("/tmp/evil.png").exists()
    os.chdir("inside")
    yield
    assert not Path("/tmp/evil.png").exists()
    after = {path: path.stat().st_mtime_ns for path in photos.parent.rglob("*") if "inside" not in path.parts}
    assert after.keys() == {path for path in before if path.exists() and path.name != "inside"}
    assert all(before[path] == after[path] for path in after)


@pytest.mark.parametrize("name", EVIL)
def test_an_evil_archive_is_named_and_writes_nothing(
    name: str, model: Path, canary: None, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words, what = EVIL[name]
    archive = make()
    here = set(os.listdir())
    started = time.monotonic()
    code, _ = run(model, archive, "../photos/a.jpg", out="o.csv")
    assert time.monotonic() - started < 10
    told = capsys.readouterr().err
    assert code == 1
    assert archive in told
    assert words in told
    assert set(os.listdir()) - here <= {"o.csv", "o.csv.failed.csv"}
    with open("o.csv") as file:
        rows = {row["path"]: row["predicted"] for row in csv.DictReader(file)}
    good = {f"{archive}/good.png": "red"} if what == ONE_MEMBER else {}
    assert rows == {**good, "../photos/a.jpg": "red"}


def test_the_kinds_of_evil_archives_are_many() -> None:
    assert len(EVIL) >= 15


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────


def test_inputs_are_read_only_a_little_ahead(model: Path) -> None:
    from saccade.predict import Predictor
    from saccade.predict.predictor import PIECE_IMAGES, PIECES_AHEAD

    asked = 0

    def endless() -> Iterator[tuple[str, bytes]]:
        nonlocal asked
        while True:
            asked += 1
            yield f"{asked}", FILES["a.jpg"]

    answers = Predictor(model, threads=2).answers_to(endless())
    for done in range(1, 500):
        next(answers)
        assert asked - done <= PIECE_IMAGES * (2 * PIECES_AHEAD + 2)
    answers.close()  # type: ignore[attr-defined]


def test_an_image_that_needs_too_much_memory_fails_alone(
    model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade.artefact import Artefact
    from saccade.errors import TooLargeError

    run_batch = Artefact._run

    def with_little_memory(self: Artefact, batch: np.ndarray) -> np.ndarray:
        if batch.shape[2] == 30:
            raise TooLargeError(
                "m.onnx cannot predict 1 images of 30 x 8 pixels: it needs more", hint="smaller"
            )
        return run_batch(self, batch)

    monkeypatch.setattr(Artefact, "_run", with_little_memory)
    assert predicted(model, "photos") == {"photos/a.jpg": "red", "photos/deep/b.png": "green"}
    assert "Scale it down" in failures()["photos/c.png"]
