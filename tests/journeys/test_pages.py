"""The pages for newcomers do what they say: their commands run in order, their programs on the result."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from saccade.cli import main
from saccade.predict import Predictor

pytestmark = pytest.mark.examples
ROOT = Path(__file__).parents[2]
FIRST_STEPS = (ROOT / "docs" / "first-steps.md").read_text("utf-8")
STEPS, _, LATER = FIRST_STEPS.partition("\n## Groups\n")
USE = (ROOT / "docs" / "use-your-model.md").read_text("utf-8")


def blocks(page: str, language: str = "") -> list[str]:
    """Code blocks of that language, "" for lines to type."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def saccade_lines(page: str) -> list[str]:
    return [line for block in blocks(page) for line in block.splitlines() if line.startswith("saccade ")]


class Said(NamedTuple):
    line: str
    code: int
    out: str


def typed(line: str) -> Said:
    """What a line of a page does, in this process, so that torch is imported once."""
    out = StringIO()
    with redirect_stdout(out):
        code = main(shlex.split(line)[1:])
    return Said(line, code, out.getvalue())


@pytest.fixture(scope="module")
def desk(photo_writer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder `classify` of First steps: photos in class folders, two of most animals, and new ones."""
    folder = tmp_path_factory.mktemp("classify")
    classes = ("beetle", "bug", "ladybird")
    photos = photo_writer(folder / "photos", classes=classes, images=12, side=64, suffix=".jpg")
    for label in classes:
        for i, photo in enumerate(sorted((photos / label).iterdir())):
            name = f"{label[:2]}{i // 2}_{'left' if i % 2 else 'right'}" if i < 10 else f"alone {i}"
            photo.rename(photo.with_name(f"{name}.jpg"))
    new = photo_writer(folder / "some", classes=classes, images=1, side=64, suffix=".jpg", seed=1)
    (folder / "new").mkdir()
    for photo in new.rglob("*.jpg"):
        photo.rename(folder / "new" / photo.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def first_steps(desk: Path) -> list[Said]:
    return [typed(line) for line in saccade_lines(STEPS)]


def test_first_steps_work_in_order(first_steps: list[Said], desk: Path) -> None:
    lines = [said.line.split()[1] for said in first_steps]
    assert lines[:2] == ["doctor", "audit"]
    assert {"train", "predict"} <= set(lines)
    assert [said for said in first_steps if said.code > (said.line.split()[1] == "audit")] == []
    for named in ("audit/audit.html", "runs/photos-1/report/report.html", "sheet.html", "answers.csv"):
        assert named in FIRST_STEPS
        assert (desk / named).is_file(), named
    assert len([*(desk / "sorted").glob("*/*.jpg")]) == len([*(desk / "new").iterdir()]) == 3


def test_the_lines_that_first_steps_explains_are_printed(first_steps: list[Said]) -> None:
    trained = next(said.out for said in first_steps if said.line == "saccade train photos")
    table = FIRST_STEPS.partition("### What is printed")[2].partition("##")[0]
    explained = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*)\|", table, re.MULTILINE)))
    assert len(explained) > 7
    always = [word for word in explained if word != "Try"]  # which is for runs that lack something
    assert [word for word in always if not re.search(rf"^ *{word} ", trained, re.MULTILINE)] == []


def test_the_group_that_first_steps_names_stays_in_one_part(desk: Path) -> None:
    (line,) = saccade_lines(LATER)
    assert line.startswith("saccade train photos --group-pattern ")
    flags = shlex.split(line)[3:]
    assert main(["split", "photos", *flags, "--out", "split.csv"]) == 0
    rows = csv.DictReader((desk / "split.csv").read_text("utf-8-sig").splitlines())
    parts: dict[str, set[str]] = {}
    for row in rows:
        animal, pair, _ = Path(row["path"]).name.partition("_")
        if pair:
            parts.setdefault(animal, set()).add(row["part"])
    assert len(parts) == 15
    assert [animal for animal, found in parts.items() if len(found) > 1] == []


def test_the_columns_that_the_pages_explain_are_those_of_the_table(
    first_steps: list[Said], desk: Path
) -> None:
    header = (desk / "answers.csv").read_text("utf-8-sig").splitlines()[0].split(",")
    decided = ["abstained", "unfamiliar", "unfamiliarity", "label_set"]
    classes = ["p_beetle", "p_bug", "p_ladybird"]
    assert header == ["path", "label", "predicted", "confidence", *decided, *classes]
    assert [name for name in header[:-1] if f"`{name}`" not in FIRST_STEPS] == []
    assert [name for name in header[:8] if f"| `{name}` |" not in USE] == []


PROVOKED = {
    "data path does not exist": "saccade train none",
    "only one class": "saccade train one",
    "class folders without an image": "saccade train empty",
    "cannot have an image in each of train, validation, test": "saccade train few",
    "lies beside the class folders": "saccade audit beside",
    "model file does not exist": "saccade predict runs/none new",
}


@pytest.mark.parametrize("message", PROVOKED)
def test_a_message_that_first_steps_explains_is_one(
    message: str,
    saccade: Callable[..., Any],
    make_photos: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photos("one", classes=("cat",), images=3)
    make_photos("empty", classes=("cat",), images=3)
    (tmp_path / "empty" / "dog").mkdir()
    make_photos("few", classes=("cat", "dog"), images=2)
    shutil.copy(make_photos("beside", images=3) / "bar" / "bar_000.png", "beside")
    answer = saccade(*shlex.split(PROVOKED[message])[1:])
    assert f"`{message}`" in FIRST_STEPS
    assert message in answer.out + answer.err
    assert answer.code in (1, 2)


# -- Use your model ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(desk: Path, first_steps: list[Said]) -> Path:
    """A folder with `export` and some photos, each a case for a decoder."""
    folder = desk / "elsewhere"
    shutil.copytree("runs/photos-1/export", folder / "export")
    shutil.copytree("new", folder / "new")
    photo = Image.open(next((desk / "new").glob("beetle*")))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    photo.crop((0, 0, 64, 40)).save(folder / "new" / "turned.jpg", exif=turned)
    photo.convert("L").save(folder / "new" / "grey.png")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size).point(lambda value: 255 * (value > 128)))
    photo.save(folder / "new" / "transparent.png")
    return folder


def photos_in(place: Path) -> list[str]:
    found = [f"new/{photo.name}" for photo in sorted((place / "new").iterdir())]
    assert len(found) == 6
    return found


def what_saccade_says(place: Path) -> str:
    answers = Predictor(place / "export" / "model.onnx").answers(
        [place / photo for photo in photos_in(place)]
    )
    lines = zip(photos_in(place), answers, strict=True)
    return "".join(f"{photo}: {answer.predicted} {answer.confidence:.1%}\n" for photo, answer in lines)


def test_photos_are_not_sorted_twice_into_one_folder(first_steps: list[Said], capsys: Any) -> None:
    assert typed("saccade predict runs/photos-1 new --sort-into sorted").code == 2
    assert "sorted is not empty" in capsys.readouterr().err
    assert "`sorted is not empty`" in FIRST_STEPS


def test_the_commands_of_use_your_model_run(desk: Path, first_steps: list[Said]) -> None:
    shutil.rmtree("sorted")
    lines = saccade_lines(USE)
    assert len(lines) > 2
    assert [said for said in map(typed, lines) if said.code] == []
    first = json.loads((desk / "answers.jsonl").read_text("utf-8").splitlines()[0])
    assert first["top"][0]["label"] == first["predicted"]


def test_the_python_program_without_saccade_says_what_saccade_says(place: Path) -> None:
    program = next(block for block in blocks(USE, "python") if "import onnxruntime" in block)
    (place / "predict.py").write_text(program, "utf-8")
    command = [sys.executable, "predict.py", *photos_in(place)]
    said = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert said.stderr == ""
    assert said.stdout == what_saccade_says(place)
    assert "saccade" not in program


def test_the_node_program_says_what_saccade_says(place: Path) -> None:
    example = ROOT / "examples" / "node"
    (block,) = blocks(USE, "js")
    assert block == (example / "predict.mjs").read_text("utf-8")
    assert len(block.splitlines()) <= 60
    node, modules = shutil.which("node"), example / "node_modules"
    if not node or not all((modules / name).is_dir() for name in ("onnxruntime-node", "sharp")):
        pytest.skip("needs node, and `npm install` in examples/node")
    (place / "predict.mjs").write_text(block, "utf-8")
    os.symlink(modules.resolve(), place / "node_modules")
    said = subprocess.run([node, "predict.mjs", *photos_in(place)], cwd=place, capture_output=True, text=True)
    assert said.stderr == ""
    assert said.stdout == what_saccade_says(place)
