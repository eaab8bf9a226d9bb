"""Gray of 16 bits and many channels through the command line: learnt, certified, predicted, served."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.artefact import Artefact
from saccade.cli import main
from saccade.preprocess import PixelFormat
from saccade.run_folder import RunFolder

SIDE = 16
FLAGS = (
    *("--backbone", "small_cnn", "--image-size", str(SIDE), "--model.head", "mlp", "--epochs", "3"),
    *("--batch-size", "8", "--lr", "0.003", "--augment", "none", "--no-split.near_duplicates"),
)
KINDS = ("bars", "stripes")
Saccade = Callable[..., Any]


def patterns(count: int) -> Iterator[tuple[str, int, NDArray[np.int64], np.random.Generator]]:
    """Bars across or stripes down, 0 or 1, shifted at random."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in range(count):
        for kind in KINDS:
            along = x if kind == "stripes" else y
            yield kind, number, (along + rng.integers(0, 4)) // 2 % 2, rng


def fine_gray(folder: Path) -> Path:
    """Gray of 16 bits; what tells the classes apart are 60 levels, a quarter of a level of 8 bits."""
    for kind, number, pattern, rng in patterns(30):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        values = 30_010 + pattern * 60 + rng.integers(0, 30, (SIDE, SIDE))
        Image.fromarray(values.astype(np.uint16)).save(folder / kind / f"{number}.png")
    return folder


def five_channels(count: int) -> Iterator[tuple[str, NDArray[np.uint16]]]:
    """Noise, but for the fourth of five channels."""
    for kind, _, pattern, rng in patterns(count):
        values = rng.integers(0, 50_000, (SIDE, SIDE, 5))
        values[..., 3] = pattern * 30_000 + rng.integers(0, 20_000, (SIDE, SIDE))
        yield kind, values.astype(np.uint16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fine_gray(tmp_path_factory.mktemp("gray") / "data")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("gray") / "run"
    assert main(["train", str(data), "--out", str(out), "--channels", "gray", *FLAGS]) == 0
    return RunFolder(out)


def accuracy(run: RunFolder) -> float:
    return float(run.read_metrics("test")["accuracy"]["value"])


def test_levels_that_8_bits_would_lose_are_learnt_and_the_file_is_certified(run: RunFolder) -> None:
    assert accuracy(run) == 1
    assert run.read_certificate()["passed"]
    assert run.read_record().resolved["data.preprocess"]["pixels"] == {"channels": "gray", "bits": 16}
    assert {record.mode for record in run.read_dataset()} == {"I;16"}
    artefact = Artefact.open(run.onnx)
    assert artefact.preprocess.pixels == PixelFormat("gray", 16)
    assert artefact.session.get_inputs()[0].type == "tensor(uint16)"
    promises = run.read_record().promises
    assert promises["3"]["state"] == promises["8"]["state"] == "kept"


def test_files_arrays_and_pictures_in_memory_get_one_answer(run: RunFolder, data: Path) -> None:
    from saccade.predict import Predictor

    file = next((data / "bars").iterdir())
    values = np.array(Image.open(file))
    predictor = Predictor(run.onnx)
    given = [file, values, values[..., None], Image.open(file), file.read_bytes()]
    answers = predictor.predict_proba(given)
    assert (answers == answers[0]).all()
    assert predictor.predict(np.stack([values, values])) == ["bars", "bars"]
    refused = next(predictor.answers([np.zeros((SIDE, SIDE, 5), np.uint16)]))
    assert "5 channels, where one of gray is declared" in refused.error


def test_it_is_served(run: RunFolder, data: Path) -> None:
    pytest.importorskip("starlette")
    from saccade.serve.engine import predict_one
    from saccade.serve.limits import ServeLimits
    from saccade.serve.model import Model, golden_files
    from saccade.serve.problems import Refused
    from saccade.serve.protocol import model_metadata, parse_infer_request

    model = Model.open(run.root, ServeLimits())
    model.check_golden(predict_one(model, golden_files(model.artefact.preprocess.pixels)[0]))
    file = next((data / "stripes").iterdir())
    values = np.array(Image.open(file))[None, :, :, None]
    tensor = {
        "name": "image",
        "datatype": "UINT16",
        "shape": list(values.shape),
        "data": values.ravel().tolist(),
    }
    pixels = model.artefact.preprocess.pixels
    asked = parse_infer_request({}, json.dumps({"inputs": [tensor]}).encode(), max_images=4, pixels=pixels)
    as_pixels, as_file = predict_one(model, asked.images[0]), predict_one(model, file.read_bytes())
    assert np.array_equal(as_pixels.probabilities, as_file.probabilities)  # type: ignore[union-attr]
    takes = model_metadata("m", model.artefact)["inputs"][0]
    assert (takes["datatype"], takes["shape"]) == ("UINT16", [-1, -1, -1, 1])
    other = json.dumps({"inputs": [{**tensor, "datatype": "UINT8"}]}).encode()
    with pytest.raises(Refused, match="image is UINT16 or BYTES, not 'UINT8'"):
        parse_infer_request({}, other, max_images=4, pixels=pixels)


@pytest.mark.parametrize(("name", "why"), [("web", "browsers decode RGB"), ("hf", "read RGB only")])
def test_formats_that_know_rgb_alone_refuse_by_name(
    run: RunFolder, name: str, why: str, saccade: Saccade, tmp_path: Path
) -> None:
    done = saccade("export", run.root, "--format", name, "--out", tmp_path / "out")
    assert done.code == 2
    assert "gray of 16 bits" in done.err
    assert why in done.err


def test_with_8_bits_the_same_images_are_all_one(data: Path, tmp_path: Path, saccade: Saccade) -> None:
    done = saccade("train", data, "--out", tmp_path, "--channels", "gray", "--data.bits", "8", *FLAGS)
    assert done.code == 2
    assert "one image has 2 labels" in done.out
    assert "none of the 60 images can be used" in done.err


@pytest.mark.slow
def test_a_class_in_the_fourth_of_five_channels(tmp_path: Path, saccade: Saccade) -> None:
    """TIFF pages and .npy in one folder; a photo among them is set aside by name."""
    data, out = tmp_path / "data", tmp_path / "run"
    for number, (kind, values) in enumerate(five_channels(30)):
        (data / kind).mkdir(parents=True, exist_ok=True)
        if number % 4 < 2:
            np.save(data / kind / f"{number}.npy", values)
        else:
            pages = [Image.fromarray(values[..., i]) for i in range(5)]
            pages[0].save(data / kind / f"{number}.tif", save_all=True, append_images=pages[1:])
    Image.new("RGB", (SIDE, SIDE)).save(data / "bars" / "photo.png")
    done = saccade("train", data, "--out", out, "--channels", "5", *FLAGS)
    assert done.code == 0, done.err
    assert "photo.png: 3 channels, where 5 are declared. Left out" in done.out + done.err
    assert accuracy(RunFolder(out)) == 1
    assert RunFolder(out).read_certificate()["passed"]
    for kind in ("openvino", "triton", "split"):
        assert saccade("export", out, "--format", kind, "--out", tmp_path / kind).code == 0
    predicted = saccade("predict", out, data / "stripes")
    assert predicted.code == 0
    assert predicted.out.count(": stripes ") == 30


@pytest.mark.slow
def test_arrays_in_python(tmp_path: Path) -> None:
    import saccade

    kinds, arrays = zip(*five_channels(24), strict=True)
    images = np.stack(arrays)
    model = saccade.ImageClassifier(
        backbone="small_cnn", image_size=SIDE, epochs=3, batch_size=8, lr=0.003, augment="none",
        model__head="mlp", channels=5, split__near_duplicates=False, out=str(tmp_path / "run"), quiet=True,
    )  # fmt: skip
    model.fit(images, list(kinds))
    assert list(model.predict(images[:6])) == list(kinds[:6])


def test_folds_of_four_channels_end_with_one_model_and_its_cost(tmp_path: Path, saccade: Saccade) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    for number, (kind, values) in enumerate(five_channels(12)):
        (data / kind).mkdir(parents=True, exist_ok=True)
        np.save(data / kind / f"{number}.npy", values[..., :4])
    done = saccade("train", data, "--out", out, "--channels", "4", "--folds", "2", *FLAGS)
    assert done.code == 0, done.err
    record = RunFolder(out).read_record()
    assert record.finished
    assert record.folds["milliseconds"] > 0
    assert RunFolder(out).read_certificate()["passed"]
