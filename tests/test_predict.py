"""Prediction: what can be given, what is answered, what is written, and how failures are named."""

from __future__ import annotations

import copy
import csv
import io
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import saccade
from saccade.errors import DataError, MissingExtraError, ModelError, RecipeError
from saccade.evaluation.unfamiliar import Unfamiliar, unit_length
from saccade.images.decoder import DEFAULT_LIMITS, Limits
from saccade.predict import (
    Answer,
    Predictor,
    check_out,
    from_spreadsheet,
    pixels_of,
    spreadsheet_safe,
    write_answers,
)
from saccade.predict.command import predict_command
from saccade.preprocess import Preprocess
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal

MakeModel = Callable[..., Path]
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="module")
def model(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images of different formats and sizes, one of them in a folder below, and things beside them."""
    root = tmp_path / "photos"
    (root / "deeper" / ".hidden").mkdir(parents=True)
    Image.new("RGB", (20, 10), COLOURS["red"]).save(root / "a.jpg")
    Image.new("RGB", (9, 30), COLOURS["green"]).save(root / "b.png")
    Image.new("RGB", (20, 10), COLOURS["blue"]).save(root / "deeper" / "c.webp", lossless=True)
    Image.new("RGB", (20, 10), COLOURS["blue"]).save(root / "deeper" / ".hidden" / "d.png")
    (root / "notes.txt").write_text("no image")
    (root / ".DS_Store").write_bytes(b"x")
    return root


def run(model: Path, *inputs: object, **options: object) -> tuple[int, str]:
    stream = io.StringIO()
    code = predict_command(str(model), [str(i) for i in inputs], Terminal(stream=stream), **options)  # type: ignore[arg-type]
    return code, stream.getvalue()


# ── what can be given ────────────────────────────────────────────────────────────────────────────────


def test_paths_arrays_and_pillow_images_in_one_list(model: Path, photos: Path) -> None:
    array = np.full((5, 40, 3), COLOURS["blue"], dtype=np.uint8)
    images = [photos / "a.jpg", str(photos / "b.png"), array, Image.fromarray(array)]
    assert saccade.load(model).predict(images) == ["red", "green", "blue", "blue"]


def test_one_image_alone_gives_one_answer(model: Path, photos: Path) -> None:
    predictor = Predictor(model)
    assert predictor.predict(photos / "a.jpg") == ["red"]
    assert predictor.predict(np.full((4, 4, 3), COLOURS["green"], np.uint8)) == ["green"]
    assert predictor.predict(Image.new("RGB", (4, 4), COLOURS["blue"])) == ["blue"]
    assert predictor.predict(np.zeros((2, 4, 4, 3), np.uint8)) == ["blue", "blue"]


def test_a_folder_is_walked_without_what_is_hidden(model: Path, photos: Path) -> None:
    answers = list(Predictor(model).answers(photos))
    assert [os.path.relpath(answer.path, photos) for answer in answers] == ["a.jpg", "b.png", "deeper/c.webp"]
    assert [answer.predicted for answer in answers] == ["red", "green", "blue"]


def test_probabilities_and_ranks(model: Path, photos: Path) -> None:
    predictor = Predictor(model)
    probabilities = predictor.predict_proba(photos)
    assert probabilities.shape == (3, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    assert [predictor.classes[i] for i in probabilities.argmax(1)] == ["red", "green", "blue"]
    for labels, row in zip(predictor.predict(photos, top_k=3), probabilities, strict=True):
        assert [predictor.classes.index(label) for label in labels] == np.argsort(
            -row, kind="stable"
        ).tolist()
    assert Predictor(model).predict_proba([]).shape == (0, 3)


def test_a_tie_goes_to_the_first_class() -> None:
    classes = tuple(f"c{i:02d}" for i in range(60))
    answer = Answer("x", classes, np.where(np.arange(60) % 3 == 1, 0.05, 0.0))
    assert answer.predicted == "c01"
    assert [label for label, _ in answer.top(20)] == [label for i, label in enumerate(classes) if i % 3 == 1]


def test_all_orientations_of_a_photo_are_one(tmp_path: Path) -> None:
    """EXIF tag 0x0112 is undone for files and for Pillow images alike."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    stored = {  # how a camera would store the upright picture under each tag
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.transpose(1, 0, 2), 6: pixels.transpose(1, 0, 2)[::-1],
        7: pixels.transpose(1, 0, 2)[::-1, ::-1], 8: pixels.transpose(1, 0, 2)[:, ::-1],
    }  # fmt: skip
    for orientation, turned in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        Image.fromarray(np.ascontiguousarray(turned)).save(path, exif=exif)
        for content in (str(path), Image.open(path)):
            np.testing.assert_array_equal(pixels_of("x", content, DEFAULT_LIMITS), pixels, str(orientation))


def test_transparency_lies_on_the_background_of_training(make_model: MakeModel, tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.save(tmp_path / "clear.png")
    for colour, label in ((COLOURS["red"], "red"), (COLOURS["green"], "green")):
        model = make_model(tmp_path / "m.onnx", metadata={"saccade.background": json.dumps(colour)})
        assert Predictor(model).predict([tmp_path / "clear.png", image]) == [label, label]
    with pytest.raises(ModelError, match="no RGB colour"):
        Predictor(make_model(tmp_path / "m.onnx", metadata={"saccade.background": "[300, 0, 0]"}))


def test_many_images_of_many_sizes_keep_their_order(model: Path) -> None:
    rng = np.random.default_rng(0)
    names = [("red", "green", "blue")[i] for i in rng.integers(0, 3, 100)]
    images = [np.full((*rng.integers(1, 12, 2), 3), COLOURS[name], np.uint8) for name in names]
    assert Predictor(model, threads=3).predict(images) == names


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────


def test_bad_images_are_named_and_the_others_go_on(model: Path, photos: Path) -> None:
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:40])
    (photos / "page.jpg").write_text("<html>404</html>")
    answers = list(Predictor(model).answers([photos, photos / "gone.jpg", np.zeros((3, 3)), 7]))
    assert [bool(answer.error) for answer in answers] == [False, True, False, True, True, True, True]
    assert {answer.predicted for answer in answers if answer.error} == {None}
    assert not any(answer.top(3) for answer in answers if answer.error)
    assert [bool(np.isnan(answer.confidence)) for answer in answers] == [bool(a.error) for a in answers]
    assert "no such file" in answers[4].error
    assert "float64 (3, 3)" in answers[5].error
    assert "a int is no image" in answers[6].error
    with pytest.raises(DataError, match=r"2 of 4 inputs failed.*b\.png.*page\.jpg"):
        Predictor(model).predict(photos)


@pytest.mark.parametrize("name", ["absent.onnx", "absent"])
def test_a_missing_model_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="model file does not exist") as caught:
        Predictor(tmp_path / name)
    assert "\n" not in caught.value.args[0] + caught.value.hint


def test_a_run_folder_stands_for_its_export(make_model: MakeModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a run folder nor"):
        Predictor(tmp_path)
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(ModelError, match="saccade export"):
        Predictor(tmp_path)
    make_model(tmp_path / "export" / "model.onnx")
    assert Predictor(tmp_path).predict(Image.new("RGB", (4, 4), COLOURS["red"])) == ["red"]


def test_the_name_of_a_certificate_is_the_run_folders() -> None:
    from saccade.artefact import certificate_path
    from saccade.run_folder import certificate_beside

    for name in ("a.onnx", "model.int8.onnx"):
        assert certificate_path(Path("x") / name) == certificate_beside(Path("x") / name)


def test_a_pickled_predictor_opens_its_file_again(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    predictor = Predictor("m.onnx", threads=1, limits=Limits(max_pixels=100))
    stored = pickle.dumps(predictor)
    monkeypatch.chdir("/")  # a worker may run elsewhere
    for again in (pickle.loads(stored), copy.deepcopy(predictor)):
        assert again.predict(Image.new("RGB", (4, 4), COLOURS["red"])) == ["red"]
        assert (again.threads, again.limits) == (1, predictor.limits)
    make_model(tmp_path / "m.onnx", temperature=0.2)
    with pytest.raises(ModelError, match=r"m\.onnx has changed since the Predictor was pickled"):
        pickle.loads(stored)
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(ModelError, match="model file does not exist"):
        pickle.loads(stored)


def test_a_predictor_reaches_another_process(model: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        image = np.full((4, 4, 3), COLOURS["green"], np.uint8)
        assert pool.apply(Predictor.predict, (Predictor(model), image)) == ["green"]


# ── the command ──────────────────────────────────────────────────────────────────────────────────────


def test_command_prints_ranked_labels(model: Path, photos: Path) -> None:
    code, said = run(model, photos / "a.jpg", photos / "b.png", top_k=2)
    assert code == 0
    lines = said.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(photos / "a.jpg"), str(photos / "b.png")]
    assert lines[0].split(": ")[1].startswith("red ")
    assert lines[0].count("%") == 2
    assert run(model, photos / "a.jpg", top_k=99)[1].count("%") == 3


def test_exit_codes_say_how_many_failed(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = photos / "empty"
    empty.mkdir()
    assert run(model, photos)[0] == 0
    assert run(model, photos / "a.jpg", photos / "gone.jpg")[0] == 1
    assert "gone.jpg: there is no such file" in capsys.readouterr().err
    assert run(model, photos / "gone.jpg")[0] == 2
    assert run(model, empty)[0] == 2
    assert f"{empty}: a folder without images" in capsys.readouterr().err


def test_many_failures_are_cut_on_screen_and_complete_in_a_file(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(30):
        (photos / f"bad{i:02d}.jpg").write_bytes(b"")
    assert run(model, photos)[0] == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 22
    assert said[-2].startswith("and 10 more")
    assert said[-1] == f"passed over in {photos}: 1 .DS_Store, 1 .txt files, 1 hidden folders"
    assert run(model, photos, out=str(tmp_path / "o.csv"))[0] == 1
    with (tmp_path / "o.csv.failed.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 30
    assert "all 30 inputs that failed are listed in" in capsys.readouterr().err
    assert run(model, photos / "bad00.jpg", out=str(tmp_path / "o.csv"))[0] == 2
    assert f"\nthe input that failed is listed in {tmp_path / 'o.csv'}.failed.csv" in capsys.readouterr().err


def test_what_a_folder_holds_and_is_not_read_is_named(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not read means exit 1, where it may have been an image; a text file beside the images is counted."""
    assert run(model, photos)[0] == 0
    assert "passed over" in capsys.readouterr().err
    (tmp_path / "elsewhere.jpg").write_bytes((photos / "a.jpg").read_bytes())
    (photos / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (photos / "without-extension").write_bytes((photos / "a.jpg").read_bytes())
    (photos / "photo.xyz").write_bytes((photos / "a.jpg").read_bytes())
    os.mkfifo(photos / "pipe.jpg")
    assert run(model, photos)[0] == 1
    said = capsys.readouterr().err
    for name in ("link.jpg", "without-extension", "photo.xyz", "pipe.jpg"):
        assert f"left out of {photos}: {name}: " in said


def test_a_folder_that_is_read_once_leaves_nothing_out(model: Path, photos: Path) -> None:
    (photos / "again").symlink_to(photos / "deeper")
    assert run(model, photos)[0] == 0


def test_refuses_before_any_work(model: Path, photos: Path) -> None:
    with pytest.raises(RecipeError, match=r"choose from: \.csv, \.jsonl, \.parquet"):
        run(model, photos, out="answers.xlsx")
    with pytest.raises(RecipeError, match="--top-k must be at least 1"):
        run(model, photos, top_k=0)
    with pytest.raises(RecipeError, match="nothing to predict"):
        run(model)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────


def test_csv_has_the_columns_of_a_runs_predictions(model: Path, photos: Path, tmp_path: Path) -> None:
    place = RunFolder(tmp_path)
    out = place.predictions("o")
    assert run(model, photos, out=str(out), top_k=2) == (0, f"3 predictions written to {out}\n")
    predictions = place.read_predictions("o")
    assert predictions.classes == ("blue", "green", "red")
    assert predictions.predicted == ("red", "green", "blue")
    np.testing.assert_allclose(predictions.probabilities, Predictor(model).predict_proba(photos), rtol=1e-8)
    with out.open() as file:
        header = next(csv.reader(file))
    assert header == [
        *("path", "label", "predicted", "confidence", "predicted_2", "confidence_2"),
        *("abstained", "unfamiliar", "unfamiliarity", "label_set"),
        *("p_blue", "p_green", "p_red"),
    ]


def test_jsonl_and_parquet_hold_the_same(model: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    expected = Predictor(model).predict_proba(photos)
    run(model, photos, out=str(tmp_path / "o.jsonl"), top_k=2)
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [line["predicted"] for line in lines] == ["red", "green", "blue"]
    assert [len(line["top"]) for line in lines] == [2, 2, 2]
    np.testing.assert_array_equal([list(line["probabilities"].values()) for line in lines], expected)
    run(model, photos, out=str(tmp_path / "o.parquet"))
    table = parquet.read_table(tmp_path / "o.parquet").to_pydict()
    assert table["predicted"] == ["red", "green", "blue"]
    np.testing.assert_array_equal(np.array([table[f"p_{c}"] for c in ("blue", "green", "red")]).T, expected)


def test_odd_names_survive_every_format(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    names = ["=1+1.png", "-x.png", "@a.png", "'=q.png", "two\nlines.png", 'a "b", c.png', "é ☃.png"]
    for name in [*map(os.fsencode, names), b"latin\xe9.png"]:
        Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
        shutil.copy(os.fsencode(tmp_path / "one.png"), os.path.join(os.fsencode(folder), name))
    here = os.getcwd()
    os.chdir(folder)  # so that names stand at the start of a cell
    try:
        given = sorted(os.listdir())
        for suffix in ("csv", "jsonl", "parquet"):
            assert run(model, *given, out=str(tmp_path / f"o.{suffix}"))[0] == 0
    finally:
        os.chdir(here)
    with (tmp_path / "o.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        cells = [row["path"] for row in csv.DictReader(file)]
    assert [from_spreadsheet(cell) for cell in cells] == given
    assert not [cell for cell in cells if cell[0] in "=+-@"]
    lines = (tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["path"] for line in lines] == given


@given(st.text(alphabet="'=+-@\t\rab1", max_size=6))
def test_spreadsheet_cells_round_trip(text: str) -> None:
    safe = spreadsheet_safe(text)
    assert from_spreadsheet(safe) == text
    assert safe[:1] not in ("=", "+", "-", "@", "\t", "\r")


def test_parquet_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'saccade\[train\]'"):
        check_out("o.parquet")


def test_no_answers_still_make_a_file(tmp_path: Path) -> None:
    write_answers(tmp_path / "o.csv", [Answer("x", ("a",), np.zeros(1), "bad")])
    assert (tmp_path / "o.csv").read_text() == (
        "path,label,predicted,confidence,abstained,unfamiliar,unfamiliarity,label_set\n"
    )


# ── when it does not know ────────────────────────────────────────────────────────────────────────────

DECIDING = {
    "saccade.asking": json.dumps({"threshold": 0.5, "by_class": {"green": 1.0}}),
    "saccade.label_sets": json.dumps({"coverage": 0.9, "limits": [0.2]}),
}


def as_input(*colours: tuple[int, ...]) -> np.ndarray:
    """(colours, 3) as the network gets them."""
    preprocess = Preprocess(8)
    return (np.array(colours) / 255 - preprocess.mean) / preprocess.std


SEEN = {"red": (255, 0, 0), "green": (0, 255, 0), "gray": (120, 120, 120)}
RED = Unfamiliar(unit_length(as_input(SEEN["red"]))[0], np.eye(3)[:, :1], 0.5, 30, 30)


@pytest.fixture
def doubtful(make_model: MakeModel, tmp_path: Path) -> Path:
    """Abstains below 0.5, and for green below 1; knows red pictures only, bright or dark."""
    return make_model(tmp_path / "doubtful.onnx", temperature=0.5, metadata=DECIDING, unfamiliar=RED)


def test_every_table_says_where_the_model_does_not_know(doubtful: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    for name, colour in SEEN.items():
        Image.new("RGB", (9, 9), colour).save(tmp_path / f"{name}.png")
    photos = [str(tmp_path / f"{name}.png") for name in SEEN]
    expected = list(Predictor(doubtful).answers(photos))
    assert [answer.abstained for answer in expected] == [False, True, True]
    assert [answer.unfamiliar for answer in expected] == [False, True, True]
    assert [answer.label_set for answer in expected] == [("red",), ("green",), ("blue", "green", "red")]
    scores = [answer.unfamiliarity for answer in expected]
    np.testing.assert_allclose(scores, RED.scores(as_input(*SEEN.values())), atol=1e-3)
    for ending in ("csv", "jsonl", "parquet"):
        assert run(doubtful, *photos, out=str(tmp_path / f"o.{ending}"))[0] == 0
    with (tmp_path / "o.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["abstained"] for row in rows] == ["false", "true", "true"]
    assert [row["unfamiliar"] for row in rows] == ["false", "true", "true"]
    assert [row["label_set"] for row in rows] == ["red", "green", "blue,green,red"]
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    table = parquet.read_table(tmp_path / "o.parquet").to_pylist()
    for answer, row, line, entry in zip(expected, rows, lines, table, strict=True):
        assert float(row["unfamiliarity"]) == pytest.approx(answer.unfamiliarity, rel=1e-8)
        for found in (line, entry):
            told = [found[name] for name in ("abstained", "unfamiliar", "unfamiliarity")]
            assert told == [answer.abstained, answer.unfamiliar, answer.unfamiliarity]
        assert tuple(line["label_set"]) == answer.label_set


def test_a_model_that_tells_nothing_never_abstains(model: Path, photos: Path, tmp_path: Path) -> None:
    run(model, photos, out=str(tmp_path / "o.csv"))
    with (tmp_path / "o.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {
        (row["abstained"], row["unfamiliar"], row["unfamiliarity"], row["label_set"]) for row in rows
    } == {("false", "", "", "")}


# ── light enough ─────────────────────────────────────────────────────────────────────────────────────


def test_predicting_imports_nothing_heavy(model: Path, photos: Path) -> None:
    code = (
        "import sys, saccade;"
        f"assert saccade.load({str(model)!r}).predict({str(photos / 'a.jpg')!r}) == ['red'];"
        "heavy = {'torch', 'onnx', 'timm', 'pyarrow', 'sklearn', 'pydantic', 'rich'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_predicts_where_torch_is_not_installed(
    model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A new environment with the base dependencies only, and the command line in it."""
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    root = Path(__file__).resolve().parents[1]
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--retries", "0", root], capture_output=True, text=True
    )
    if installed.returncode:
        pytest.skip(f"no package registry within reach: {installed.stderr.strip().splitlines()[-1][:200]}")
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    command = [folder / "bin" / "saccade", "predict", model, photos / "a.jpg"]
    subprocess.run(command, check=True, capture_output=True)  # writes the byte code
    started = time.monotonic()
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    print(f"first answer after {time.monotonic() - started:.2f} s")
    assert said.stdout.startswith(f"{photos / 'a.jpg'}: red ")
