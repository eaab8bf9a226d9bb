"""`saccade train` from a folder to a certified file, then every command that follows on its run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

import saccade as package
from saccade.artefact import Artefact
from saccade.cli import main
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder

SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "2", "--batch-size", "16")
Saccade = Callable[..., Any]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos", images=20)


@pytest.fixture(scope="module")
def run(photos: Path) -> RunFolder:
    """A finished run that the tests of this module only look at, or add to."""
    out = photos.parent / "run"
    assert main(["train", str(photos), "--out", str(out), *SMALL]) == 0
    return RunFolder(out)


def test_the_run_folder_is_as_the_design_says(run: RunFolder) -> None:
    files = {str(path.relative_to(run.root)) for path in run.root.rglob("*") if path.is_file()}
    wanted = {
        "recipe.toml",
        "environment.json",
        "dataset.csv",
        "audit.json",
        "history.jsonl",
        "bundle/weights.safetensors",
        "bundle/model.json",
        "predictions/validation.csv",
        "predictions/test.csv",
        "metrics/validation.json",
        "metrics/test.json",
        "report/report.html",
        "report/audit.html",
        "report/model_card.md",
        "report/bom.json",
        "export/model.onnx",
        "export/certificate.json",
        "export/classes.json",
    }
    assert wanted <= files
    assert any(name.startswith("checkpoints/") for name in files)
    assert run.dataset.read_text().splitlines()[0] == (
        "path,label,part,group,sha256,width,height,mode,status,note"
    )
    assert run.read_recipe() == Recipe.from_toml(run.recipe.read_text())


def test_figures_have_all_that_the_design_names(run: RunFolder) -> None:
    values = run.read_metrics("test")
    assert {"value", "low", "high"} <= values["accuracy"].keys()
    assert {"images", "balanced_accuracy", "macro_f1", "log_loss", "ece"} <= values.keys()
    assert values["top_k"].keys() == {"1"}  # three classes have no top 5
    assert {"label", "precision", "recall", "f1", "support"} <= values["per_class"][0].keys()
    assert values["confusion_matrix"]["labels"] == ["bar", "checker", "disc"]
    assert np.sum(values["confusion_matrix"]["counts"]) == values["images"]


def test_class_names_and_preprocessing_stand_beside_the_model(run: RunFolder) -> None:
    """As the model's own metadata have them: some runtimes cannot read these."""
    values = json.loads((run.root / "export/classes.json").read_text("utf-8"))
    model = Artefact.open(run.onnx)
    assert values["model"] == run.onnx.name
    assert tuple(values["classes"]) == model.classes == ("bar", "checker", "disc")
    assert values["preprocess"] == model.preprocess.as_json()
    assert (tuple(values["background"]), values["gray_maximum"]) == (model.background, model.gray_maximum)


def test_what_validation_chose_travels_with_the_model(run: RunFolder) -> None:
    """From the figures into model.json, model.onnx and classes.json: when to abstain, and which sets."""
    extra = run.read_metrics("test")["extra"]
    recommended, sets = extra["answer_or_ask"]["recommended"], extra["label_sets"]["all"]
    model, beside = Artefact.open(run.onnx), json.loads(run.class_list.read_text("utf-8"))
    for found in (run.read_model()["training"], beside):
        assert found["asking"] == model.metadata["saccade.asking"]
        assert found["label_sets"] == model.metadata["saccade.label_sets"]
    assert model.metadata["saccade.asking"]["threshold"] == recommended["threshold"]
    assert model.metadata["saccade.asking"]["precision"] == 0.95
    assert model.deciding.included == tuple(sets["limits"])


def test_every_export_abstains_as_the_run_was_last_evaluated(
    run: RunFolder, saccade: Saccade, tmp_path: Path
) -> None:
    copy = RunFolder(shutil.copytree(run.root, tmp_path / "copy"))

    def precision(metadata: Mapping[str, Any]) -> float:
        return float(metadata["asking"]["precision"])

    assert saccade("evaluate", copy.root, "--target-precision", "0.5").code == 0
    said = saccade("export", copy.root, "--format", "split", "--out", tmp_path / "split")
    assert said.code == 0, said.err
    beside = json.loads((tmp_path / "split/classes.json").read_text("utf-8"))
    own = Artefact.open(copy.onnx)  # which its certificate must still be of
    assert precision(beside) == own.metadata["saccade.asking"]["precision"] == 0.5
    assert beside == json.loads(copy.class_list.read_text("utf-8")) | {"model": beside["model"]}
    assert saccade("certify", copy.onnx, "--against", copy.root).code == 0

    wanted = ("--target-precision", "0.6", "--priors", "uniform")
    said = saccade("export", copy.root, "--format", "split", *wanted, "--out", tmp_path / "other")
    assert said.code == 0, said.err
    assert precision(json.loads((tmp_path / "other/classes.json").read_text("utf-8"))) == 0.6
    assert Artefact.open(copy.onnx).sha256 == own.sha256
    said = saccade("export", copy.root, "--target-precision", "0.6")
    assert said.code == 2
    assert "is the run's own model" in said.err
    assert f"saccade evaluate {copy.root} --target-precision 0.6" in said.err


def test_the_model_says_how_unlike_the_training_images_an_image_is(
    run: RunFolder, photos: Path, saccade: Saccade, tmp_path: Path
) -> None:
    about = json.loads(run.class_list.read_text("utf-8"))["unfamiliar"]
    assert (about["images"], about["limit"]) == (21, 1.0)
    first, *others = run.read_certificate()["runtimes"]
    assert first["unfamiliarity_difference"] is None  # the others are compared with it
    assert all(row["unfamiliarity_difference"] < 1e-3 for row in others)
    assert saccade("predict", run.root, photos, "--out", tmp_path / "o.csv").code == 0
    with (tmp_path / "o.csv").open() as file:
        found = [(row["unfamiliar"], float(row["unfamiliarity"])) for row in csv.DictReader(file)]
    assert all(told == str(score > 1).lower() for told, score in found)
    assert 0.5 < np.quantile([score for _, score in found], 0.9) < 1.1


def test_every_promise_has_a_verdict(run: RunFolder) -> None:
    verdicts = run.read_environment()["promises"]
    assert list(verdicts) == [str(number) for number in range(1, 11)]
    assert [n for n, verdict in verdicts.items() if verdict["kept"] is False] == []
    assert {n for n, verdict in verdicts.items() if verdict["kept"] is None} == {"4", "5"}  # from scratch


def test_the_certificate_holds_for_all_validation_and_test_images(run: RunFolder) -> None:
    certificate = run.read_certificate()
    judged = sum(run.read_metrics(part)["images"] for part in ("validation", "test"))
    assert certificate["kind"] == "float"
    assert certificate["passed"] is True
    assert certificate["images"] == judged
    assert certificate["max_probability_difference"] <= certificate["tolerance"] == 1e-3
    assert certificate["decoders"]["pillow"] == PIL.__version__
    assert certificate["decoders"].items() <= run.read_record().versions.items()


def test_the_same_command_again_prints_the_result_and_changes_nothing(
    saccade: Saccade, run: RunFolder, photos: Path
) -> None:
    before = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}
    answer = saccade("train", photos, "--out", run.root, *SMALL)
    assert answer.code == 0
    assert "is finished" in answer.out
    assert "accuracy" in answer.out
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == before


def test_another_recipe_in_the_same_folder_is_refused_by_key(
    saccade: Saccade, run: RunFolder, photos: Path
) -> None:
    answer = saccade("train", photos, "--out", run.root, *SMALL, "--seed", "1")
    assert answer.code == 2
    assert "seed: there 0, now 1" in answer.err


def test_other_data_in_the_same_folder_are_refused(saccade: Saccade, run: RunFolder, tmp_path: Path) -> None:
    answer = saccade("train", tmp_path, "--out", run.root, *SMALL)
    assert answer.code == 2
    assert "data: there" in answer.err


def test_figures_and_report_are_remade_from_the_predictions_alone(saccade: Saccade, run: RunFolder) -> None:
    metrics = run.metrics("test").read_bytes()
    run.metrics("test").unlink()
    run.report.unlink()
    (run.bundle / "weights.safetensors").rename(run.root / "hidden.safetensors")
    try:
        answer = saccade("evaluate", run.root)
    finally:
        (run.root / "hidden.safetensors").rename(run.bundle / "weights.safetensors")
    assert answer.code == 0
    assert run.metrics("test").read_bytes() == metrics
    assert run.report.is_file()


def test_new_data_are_measured_beside_the_run(
    saccade: Saccade, run: RunFolder, tmp_path: Path, photo_writer: Callable[..., Path]
) -> None:
    before = run.metrics("test").read_bytes()
    new = photo_writer(tmp_path / "new", images=5, seed=9, classes=("disc", "bar"))
    answer = saccade("evaluate", run.root, new)
    assert answer.code == 0, answer.err
    measured = RunFolder(run.root / "evaluations" / "new").read_metrics("test")
    assert measured["images"] == 10
    assert run.metrics("test").read_bytes() == before
    assert "leak" not in answer.out.lower()


def test_new_data_that_were_trained_on_are_called_a_leak(
    saccade: Saccade, run: RunFolder, photos: Path
) -> None:
    answer = saccade("evaluate", run.root, photos, "--name", "again")
    assert answer.code == 0
    assert "warning: leak" in answer.out


def test_new_data_with_an_unknown_class_are_refused_by_name(
    saccade: Saccade, run: RunFolder, make_photos: Callable[..., Path]
) -> None:
    answer = saccade("evaluate", run.root, make_photos("odd", classes=("disc", "spiral")))
    assert answer.code == 2
    assert "spiral" in answer.err


def test_a_run_compared_with_itself_shows_no_difference(saccade: Saccade, run: RunFolder) -> None:
    answer = saccade("compare", run.root, run.root)
    assert answer.code == 0
    assert "No real difference" in answer.out


def test_predictions_of_the_exported_file_equal_the_trained_models(
    saccade: Saccade, run: RunFolder, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.csv"
    stored = run.read_predictions("test")
    answer = saccade("predict", run.root, *(photos / path for path in stored.paths), "--out", out)
    assert answer.code == 0
    with out.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["predicted"] for row in rows] == list(stored.predicted)
    values = np.array([[float(row[f"p_{label}"]) for label in stored.classes] for row in rows])
    np.testing.assert_allclose(values, stored.probabilities, atol=1e-4)


def test_predict_tells_some_failures_from_all(
    saccade: Saccade, run: RunFolder, photos: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>404</html>")
    good = next(photos.rglob("*.png"))
    some = saccade("predict", run.root, good, bad)
    assert some.code == 1
    assert "bad.jpg" in some.out + some.err
    assert saccade("predict", run.root, bad).code == 2
    assert saccade("predict", tmp_path / "none.onnx", good).code == 2


def test_an_int8_model_is_written_and_not_certified_on_too_few_images(
    saccade: Saccade, run: RunFolder
) -> None:
    answer = saccade("export", run.root, "--int8")
    first = answer.out.splitlines()[0]
    assert first.endswith("are too few to certify an int8 file: at least 73 are needed"), "said before work"
    values = json.loads(run.certificate(run.int8).read_text())
    assert values["kind"] == "int8"
    assert values["validation_images"] == len(run.read_predictions("validation")) < 73
    assert not values["passed"]
    assert answer.code == 1
    assert values["accuracy_change"] < -0.01 or "Too few images to certify" in answer.out
    assert "95 %:" in answer.out
    assert "Guard" not in answer.out, "no choice of layers makes more images"
    assert run.int8.stat().st_size < run.onnx.stat().st_size, "the guard may have given layers back to float"
    assert saccade("certify", run.int8, "--against", run.root).code == answer.code


def test_a_full_report_looks_at_mistakes_and_draws_a_map(saccade: Saccade, run: RunFolder) -> None:
    answer = saccade("report", run.root, "--full")
    assert answer.code == 0
    points = run.read_insights()["map"]["points"]
    assert len(points) == sum(r.used and r.part in ("train", "test") for r in run.read_dataset())
    wrong = run.read_predictions("test").wrong
    assert ("neighbours" in run.read_insights()) == bool(wrong)
    maps = run.read_insights()["saliency"]["maps"]
    assert sum(one["label"] != one["predicted"] for one in maps) == len(wrong)
    page = run.report.read_text("utf-8")
    assert page.count("where the network looked, bright") > 0
    assert '<section id="map"' in page


def test_promise_8_a_file_that_answers_differently_fails_its_certificate(
    saccade: Saccade, run: RunFolder, tmp_path: Path
) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(run.onnx.read_bytes())
    last = next(tensor for tensor in model.graph.initializer if sorted(tensor.dims) == [3, 512])
    changed = numpy_helper.to_array(last) * np.float32(1.5)
    last.CopyFrom(numpy_helper.from_array(changed, last.name))
    odd = tmp_path / "odd.onnx"
    odd.write_bytes(model.SerializeToString())
    answer = saccade("certify", odd, "--against", run.root)
    assert answer.code == 1
    assert "FAILED" in answer.out


@pytest.mark.slow
def test_bench_puts_engines_side_by_side(saccade: Saccade, run: RunFolder) -> None:
    answer = saccade("bench", run.root, "--rounds", "1")
    assert answer.code == 0
    assert "torch" in answer.out
    assert "ONNX Runtime float32" in answer.out


def test_python_and_the_command_line_make_the_same_run(run: RunFolder, photos: Path, tmp_path: Path) -> None:
    model = package.ImageClassifier(
        backbone="small_cnn", image_size=16, epochs=2, batch_size=16, out=str(tmp_path / "run")
    ).fit(photos)
    other = RunFolder(tmp_path / "run")
    for name in ("recipe.toml", "dataset.csv", "audit.json", "predictions/test.csv", "metrics/test.json"):
        assert (other.root / name).read_bytes() == (run.root / name).read_bytes(), name
    assert other.onnx.read_bytes() == run.onnx.read_bytes()
    assert list(model.classes_) == ["bar", "checker", "disc"]
    stored = run.read_predictions("test")
    paths = [photos / path for path in stored.paths]
    assert model.predict(paths).tolist() == list(stored.predicted)
    np.testing.assert_allclose(model.predict_proba(paths), stored.probabilities, atol=1e-4)
    pixels = np.asarray(Image.open(paths[0]).convert("RGB"))
    assert package.load(model.export(tmp_path / "m.onnx")).predict(pixels) == [stored.predicted[0]]
    assert model.report(tmp_path / "r.html").stat().st_size > 10_000
