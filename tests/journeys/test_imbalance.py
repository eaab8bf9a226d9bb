"""Classes that are unevenly common: an adjusted model, what undoes it, and other shares at deployment."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade import load
from saccade.cli import main
from saccade.priors import reweighed
from saccade.run_folder import RunFolder
from saccade.serve.limits import ServeLimits
from saccade.serve.model import Model, golden_pixels

Saccade = Callable[..., Any]
SMALL = ("--backbone", "test_efficientnet", "--image-size", "32", "--batch-size", "16", "--method", "head")
ADJUSTED = ("--evaluate.logit_adjustment", "0.8")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    """Shapes: 24 bars, 12 checkers, 8 discs."""
    folder = photo_writer(tmp_path_factory.mktemp("data") / "photos", images=24)
    for place, kept in zip(sorted(folder.iterdir()), (24, 12, 8), strict=True):
        for file in sorted(place.iterdir())[kept:]:
            file.unlink()
    return folder


def trained(photos: Path, out: Path, weights: Path, *flags: str) -> RunFolder:
    words = ("train", photos, "--out", out, *SMALL, "--weights", weights)
    assert main([str(word) for word in (*words, *flags)]) == 0
    return RunFolder(out)


@pytest.fixture(scope="module")
def plain(photos: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(photos, tmp_path_factory.mktemp("plain") / "run", tiny_weights)


@pytest.fixture(scope="module")
def adjusted(photos: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(photos, tmp_path_factory.mktemp("adjusted") / "run", tiny_weights, *ADJUSTED)


def shares_of(run: RunFolder) -> NDArray[np.float64]:
    labels = [record.label for record in run.read_dataset() if record.used and record.part == "train"]
    counts = np.array([labels.count(label) for label in run.read_model()["classes"]], dtype=float)
    return counts / counts.sum()


def answers(saccade: Saccade, model: Path, photos: Path, out: Path, *flags: str) -> NDArray[np.float64]:
    said = saccade("predict", model, photos, "--out", out, *flags)
    assert said.code == 0, said.err
    with out.open(newline="") as rows:
        return np.array(
            [[float(v) for k, v in row.items() if k.startswith("p_")] for row in csv.DictReader(rows)]
        )


def test_the_adjusted_model_names_rare_classes_more_readily(plain: RunFolder, adjusted: RunFolder) -> None:
    model = adjusted.read_model()
    shares = shares_of(adjusted)
    assert model["answer"]["offsets"] == pytest.approx(0.8 * np.log(shares.max() / shares))
    assert "temperature" in plain.read_model()
    before, after = (run.read_predictions("test").probabilities for run in (plain, adjusted))
    np.testing.assert_allclose(after, reweighed(before, shares**-0.8 / (shares**-0.8).max()), rtol=1e-6)
    assert adjusted.read_environment()["promises"]["8"]["kept"] is True
    assert "Offsets of the classes" in (adjusted.root / "report/report.html").read_text()


def test_training_priors_undo_it(
    saccade: Saccade, plain: RunFolder, adjusted: RunFolder, photos: Path, tmp_path: Path
) -> None:
    expected = answers(saccade, plain.root, photos, tmp_path / "plain.csv")
    undone = answers(saccade, adjusted.root, photos, tmp_path / "undone.csv", "--priors", "training")
    np.testing.assert_allclose(undone, expected, atol=1e-5)
    said = saccade("predict", adjusted.root, photos / "bar", "--priors", "training")
    assert "thresholds of" in said.out + said.err
    assert "thresholds of" not in (said := saccade("predict", adjusted.root, photos / "bar")).out + said.err
    kept = answers(saccade, adjusted.root, photos, tmp_path / "kept.csv")
    assert np.abs(kept - expected).max() > 0.02
    with pytest.warns(UserWarning, match="thresholds of .* are for other class shares"):
        predictor = load(adjusted.root, priors="training")
    for same in (predictor, pickle.loads(pickle.dumps(predictor))):
        np.testing.assert_allclose(same.predict_proba(photos), expected, atol=1e-5)


def test_an_export_for_other_shares_is_certified_and_answers_by_itself(
    saccade: Saccade, adjusted: RunFolder, photos: Path, tmp_path: Path
) -> None:
    priors = "disc=0.8,bar=0.1,checker=0.1"
    said = saccade("export", adjusted.root, "--priors", priors, "--out", tmp_path / "discs.onnx")
    assert said.code == 0, said.err
    alone = answers(saccade, tmp_path / "discs.onnx", photos, tmp_path / "alone.csv")
    asked = answers(saccade, adjusted.root, photos, tmp_path / "asked.csv", "--priors", priors)
    np.testing.assert_allclose(alone, asked, atol=1e-5)
    adjusted.certificate(tmp_path / "discs.onnx").unlink()  # the file itself says what it answers for
    assert saccade("certify", tmp_path / "discs.onnx", "--against", adjusted.root).code == 0
    own = answers(saccade, adjusted.root, photos, tmp_path / "own.csv")
    assert np.abs(alone - own).max() > 0.02
    again = answers(saccade, tmp_path / "discs.onnx", photos, tmp_path / "again.csv", "--priors", "training")
    undone = answers(saccade, adjusted.root, photos, tmp_path / "undone.csv", "--priors", "training")
    np.testing.assert_allclose(again, undone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["fp16", "split", "openvino", "hf"])
def test_every_format_answers_for_other_shares(
    format: str, saccade: Saccade, adjusted: RunFolder, tmp_path: Path
) -> None:
    """The certificate compares it with the run's own answers for these shares."""
    out = tmp_path / ("a.fp16.onnx" if format == "fp16" else "folder")
    words = ("--format", format, "--priors", "uniform", "--out", out)
    said = saccade("export", adjusted.root, *words)
    assert said.code == 0, said.err + said.out
    assert saccade("certify", out, "--against", adjusted.root).code == 0


@pytest.mark.parametrize(
    "format",
    ["triton", pytest.param("int8", marks=pytest.mark.slow), pytest.param("web", marks=pytest.mark.slow)],
)
def test_so_do_those_that_are_made_of_a_float_file(
    format: str, saccade: Saccade, adjusted: RunFolder, photos: Path, tmp_path: Path, web_library: Path
) -> None:
    out = tmp_path / ("float.onnx" if format == "int8" else "page")
    said = saccade("export", adjusted.root, "--format", format, "--priors", "uniform", "--out", out)
    assert said.code == (1 if format == "int8" else 0), "int8: too few validation images"
    model = {"int8": out, "web": out / "site/model.onnx", "triton": out / "run/1/model.onnx"}[format]
    alone = answers(saccade, model, photos, tmp_path / "alone.csv")
    same = adjusted.root
    if format == "int8":  # the same rounding, so that only the shares are compared
        same = tmp_path / "plain.onnx"
        saccade("export", adjusted.root, "--format", format, "--out", same)
    asked = answers(saccade, same, photos, tmp_path / "asked.csv", "--priors", "uniform")
    own = answers(saccade, same, photos, tmp_path / "own.csv")
    assert np.abs(alone - asked).mean() < 0.3 * np.abs(own - asked).mean()
    if format == "web":
        about = json.loads((out / "site" / "about.json").read_text())
        assert about["name"] == "run"
        assert about["accuracy"] is None, "it was measured with the run's own shares"


def test_without_out_the_runs_own_model_is_left_alone(saccade: Saccade, plain: RunFolder) -> None:
    before = plain.onnx.read_bytes()
    assert saccade("export", plain.root, "--priors", "uniform").code == 0
    assert plain.onnx.read_bytes() == before
    assert (plain.onnx.parent / "model.priors.onnx").is_file()
    refused = saccade("export", plain.root, "--priors", "uniform", "--out", plain.onnx)
    assert refused.code == 2
    assert "is the run's own model" in refused.err


def test_figures_for_other_shares_stand_in_an_evaluation_of_their_own(
    saccade: Saccade, plain: RunFolder, adjusted: RunFolder, photos: Path
) -> None:
    before = adjusted.read_metrics("test")
    said = saccade("evaluate", adjusted.root, "--priors", "training")
    assert said.code == 0, said.err
    assert adjusted.read_metrics("test") == before
    place = adjusted.evaluation("priors")
    expected = plain.read_metrics("test")["log_loss"]
    assert place.read_metrics("test")["log_loss"] == pytest.approx(expected, rel=1e-6)
    assert saccade("evaluate", adjusted.root, photos, "--name", "all", "--priors", "uniform").code == 0
    assert adjusted.evaluation("all").read_predictions("test").probabilities.shape[1] == 3


def test_a_server_answers_for_the_shares_it_is_given(adjusted: RunFolder) -> None:
    limits = ServeLimits()
    model, undone = (Model.open(adjusted.root, limits, priors=priors) for priors in ("", "training"))
    own = model.artefact.probabilities([golden_pixels(model.artefact.preprocess.pixels)])
    np.testing.assert_allclose(undone.golden, reweighed(own, undone.artefact.ratio)[0])
    assert np.abs(undone.golden - own[0]).max() > 1e-3
    assert model.deciding.least
    assert not undone.deciding.least  # those are for the file's own shares


@pytest.mark.parametrize(
    "words", [("predict", "PHOTOS"), ("export",), ("evaluate",), ("serve",)], ids=lambda words: words[0]
)
def test_shares_of_no_class_are_refused(
    saccade: Saccade, plain: RunFolder, photos: Path, words: Sequence[str]
) -> None:
    rest = [photos if word == "PHOTOS" else word for word in words[1:]]
    said = saccade(words[0], plain.root, *rest, "--priors", "disk=0.5")
    assert said.code == 2
    assert "--priors names no class of the model: disk" in said.err
    assert "did you mean 'disc'?" in said.err


@pytest.mark.parametrize(
    ("flags", "power"),
    [
        (("--train.class_weights",), 0.0),
        (("--train.sampling", "balanced"), 0.0),
        (("--train.sampling", "square_root"), 0.5),
        (("--train.logit_adjustment", "0.7"), 0.3),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, tuple) else None,
)
def test_what_training_made_of_the_shares_is_written_with_the_model(
    flags: tuple[str, ...], power: float, photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """A head on weighted, drawn or adjusted classes answers for these shares to a power."""
    run = trained(photos, tmp_path / "run", tiny_weights, *flags, "--no-export.onnx")
    shares = shares_of(run)
    stored = run.read_model()["training"]["priors"]
    assert stored["training"] == pytest.approx(shares)
    assert stored["assumed"] == pytest.approx(shares**power / (shares**power).sum())


def test_auto_says_what_it_chose(photos: Path, tiny_weights: Path, tmp_path: Path) -> None:
    run = trained(
        photos, tmp_path / "run", tiny_weights, "--evaluate.logit_adjustment", "auto", "--no-export.onnx"
    )
    notes = [note for note in run.read_model()["training"]["notes"] if "logit adjustment" in note]
    assert len(notes) == 1
    assert "balanced accuracy" in notes[0]
    strength = json.loads((run.bundle / "model.json").read_text())["training"].get("priors", {})
    assert bool(strength) == ("of strength" in notes[0] and not notes[0].startswith("no "))
