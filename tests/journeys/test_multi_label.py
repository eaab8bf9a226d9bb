"""Images with several labels, from the list to the answer: one small real run, looked at whole."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from saccade import ImageClassifier, Predictor
from saccade.artefact import THRESHOLDS_KEY, Artefact
from saccade.bundle import load_bundle
from saccade.cli import main
from saccade.errors import ModelError, RecipeError
from saccade.label_sets import split_labels
from saccade.run_folder import RunFolder

Saccade = Callable[..., Any]
CLASSES = ("bar", "checker", "disc", "ring")


@pytest.fixture(scope="module")
def mosaics(tmp_path_factory: pytest.TempPathFactory, mosaic_writer: Callable[..., Path]) -> Path:
    return mosaic_writer(tmp_path_factory.mktemp("mosaics"), images=70)


@pytest.fixture(scope="module")
def flags(tiny_weights: Path) -> Sequence[str]:
    return (
        "--backbone",
        "test_efficientnet",
        "--weights",
        str(tiny_weights),
        "--image-size",
        "48",
        "--batch-size",
        "16",
    )


@pytest.fixture(scope="module")
def run(mosaics: Path, flags: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(out.parent / "cache"))
        code = main(
            ["train", str(mosaics), "--label-delimiter", ",", "--method", "head", "--out", str(out), *flags]
        )
    assert code == 0
    return RunFolder(out)


def truth_of(run: RunFolder, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, answers and probabilities out of the CSV alone, by the columns that are documented."""
    with open(run.predictions(part), newline="") as file:
        rows = list(csv.DictReader(file))
    truth, named = (
        np.array([[name in split_labels(row[column]) for name in CLASSES] for row in rows])
        for column in ("label", "predicted")
    )
    return truth, named, np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows])


@pytest.mark.parametrize("part", ["validation", "test"])
def test_figures_are_those_of_scikit_learn_on_the_predictions(run: RunFolder, part: str) -> None:
    truth, named, probabilities = truth_of(run, part)
    figures = run.read_metrics(part)
    assert figures["mean_average_precision"] == pytest.approx(
        average_precision_score(truth, probabilities), abs=1e-9
    )
    assert figures["micro_f1"] == pytest.approx(f1_score(truth, named, average="micro"))
    assert figures["macro_f1"] == pytest.approx(f1_score(truth, named, average="macro"))
    assert figures["exact_match"]["value"] == pytest.approx(accuracy_score(truth, named))
    assert figures["labels"] == list(CLASSES)
    low, high = figures["extra"]["intervals"]["mean_average_precision"]
    assert low <= figures["mean_average_precision"] <= high


def test_it_learnt_something_and_what_it_says_of_itself_fits(run: RunFolder) -> None:
    figures = run.read_metrics("test")
    assert figures["mean_average_precision"] > figures["extra"]["prevalence"] + 0.1
    record = run.read_record()
    assert not {n: p for n, p in record.promises.items() if p["kept"] is False}
    said = " ".join(finding["message"] for finding in record.diagnosis or ())
    assert "precision" in said or "label" in said
    assert "accuracy" not in said
    assert run.read_history()[-1].validation_accuracy <= 1


def test_answer_and_thresholds_travel_with_the_model(run: RunFolder, mosaics: Path) -> None:
    bundle = load_bundle(run.bundle)
    assert bundle.answer.activation == "sigmoid"
    assert len(bundle.answer.temperatures) == len(CLASSES)
    assert list(bundle.thresholds) == list(CLASSES)
    artefact = Artefact.open(run.onnx)
    assert artefact.multi_label
    assert dict(zip(artefact.classes, artefact.thresholds or (), strict=True)) == dict(bundle.thresholds)
    assert json.loads(run.class_list.read_text())["thresholds"] == dict(bundle.thresholds)
    certificate = run.read_certificate()
    assert certificate["passed"]
    assert certificate["same"] == "set of labels"
    assert certificate["top1_agreement"] == 1
    predictions = run.read_predictions("test")
    limits = np.array([bundle.thresholds[name] for name in CLASSES])
    assert predictions.named is not None
    assert (predictions.named == (predictions.probabilities >= limits)).all()
    answers = Predictor(run.root).predict([mosaics.parent / path for path in predictions.paths])
    assert answers == [split_labels(text) for text in predictions.predicted]


def test_a_file_with_other_thresholds_is_not_certified(run: RunFolder, tmp_path: Path) -> None:
    model = onnx.load(run.onnx)
    for entry in model.metadata_props:
        if entry.key == THRESHOLDS_KEY:
            entry.value = json.dumps(dict.fromkeys(CLASSES, 0.25))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="other thresholds"):
        main_raising("certify", tmp_path / "other.onnx", "--against", run.root)


def main_raising(*words: object) -> None:
    from saccade.pipeline import certify
    from saccade.terminal import Terminal

    _, file, _, against = map(str, words)
    certify(file, against, Terminal(quiet=True))


def test_the_report_has_the_sections_of_labels(run: RunFolder) -> None:
    page = run.report.read_text()
    for anchor in ("labels", "together", "label_mistakes", "reliability"):
        assert f'id="{anchor}"' in page
    assert 'id="confusion"' not in page
    assert "mean average precision" in page
    assert "set of labels" in page


def test_figures_and_report_are_remade_without_the_model(saccade: Saccade, run: RunFolder) -> None:
    before = run.read_metrics("test")
    run.report.unlink()
    answer = saccade("evaluate", run.root)
    assert answer.code == 0, answer.err
    assert run.read_metrics("test") == before
    assert 'id="label_mistakes"' in run.report.read_text()
    assert "mean average precision" in answer.out


def test_a_full_report_says_that_it_adds_nothing_and_computes_nothing(
    saccade: Saccade, run: RunFolder
) -> None:
    answer = saccade("report", run.root, "--full")
    assert answer.code == 0
    assert "for these --full adds nothing" in answer.out
    assert "features" not in answer.out + answer.err
    assert run.of_full_report() == ()


def test_new_data_are_evaluated_and_runs_compared(saccade: Saccade, run: RunFolder, mosaics: Path) -> None:
    table = pandas.read_csv(mosaics, keep_default_na=False)
    columns = {name: [int(name in split_labels(text)) for text in table["label"]] for name in CLASSES}
    new = mosaics.with_name("one_hot.csv")
    pandas.DataFrame({"path": table["path"], **columns}).to_csv(new, index=False)
    answer = saccade("evaluate", run.root, new, "--label-columns", ",".join(CLASSES), "--name", "again")
    assert answer.code == 0, answer.err
    again = run.evaluation("again")
    assert again.read_metrics("test")["images"] == len(run.read_dataset())
    assert all(record.several for record in again.read_dataset())
    answer = saccade("compare", run.root, run.root)
    assert answer.code == 0, answer.err


def test_predict_prints_and_writes_sets(
    saccade: Saccade, run: RunFolder, mosaics: Path, tmp_path: Path
) -> None:
    photos = [mosaics.parent / path for path in run.read_predictions("test").paths[:4]]
    answer = saccade("predict", run.root, *photos)
    assert answer.code == 0, answer.err
    expected = Predictor(run.root).predict(photos)
    for line, labels in zip(answer.out.splitlines(), expected, strict=True):
        assert all(f"{label} " in line for label in labels)
    for ending in ("csv", "jsonl", "parquet"):
        assert saccade("predict", run.root, *photos, "--out", tmp_path / f"found.{ending}").code == 0
    table = pandas.read_csv(tmp_path / "found.csv", keep_default_na=False)
    decided = ["abstained", "unfamiliar", "unfamiliarity", "label_set"]
    assert list(table.columns) == ["path", "label", "predicted", *decided, *(f"p_{name}" for name in CLASSES)]
    assert not table["abstained"].any()
    assert [split_labels(text) for text in table["predicted"]] == expected
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [tuple(line["predicted"]) for line in lines] == expected
    assert list(pandas.read_parquet(tmp_path / "found.parquet")["predicted"]) == list(table["predicted"])


@pytest.mark.parametrize("words", [("--sort-into", "sorted"), ("--out", "found.csv", "--top-k", "2")])
def test_what_needs_one_answer_an_image_is_refused(
    words: tuple[str, ...],
    saccade: Saccade,
    run: RunFolder,
    mosaics: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = saccade("predict", run.root, mosaics.parent / "000.png", *words)
    assert answer.code == 2
    assert "any number of labels" in answer.err
    assert not list(tmp_path.iterdir())


def test_a_run_that_continues_and_one_that_is_finished_know_their_labels(
    saccade: Saccade, run: RunFolder, mosaics: Path, flags: Sequence[str]
) -> None:
    answer = saccade("train", "--resume", run.root)
    assert answer.code == 0, answer.err
    assert "is finished" in answer.out


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data.label_delimiter": ",", "data.label_columns": "a"}, "give one of them"),
        ({"data.label_delimiter": "ab"}, "not one mark"),
        ({"data.multi_label": True, "train.monitor": "top5"}, "no figure of images with several labels"),
        ({"train.monitor": "mean_average_precision"}, "no figure of images with one label"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(fields: dict[str, Any], words: str) -> None:
    from saccade.recipe import Recipe

    with pytest.raises(RecipeError) as refused:
        Recipe.from_mapping(fields)
    assert words in f"{refused.value} {refused.value.hint}"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tail", "full", "auto", "finetune"])
def test_every_method_trains(
    method: str, saccade: Saccade, mosaics: Path, flags: Sequence[str], tmp_path: Path
) -> None:
    short = ("--epochs", "2") if method != "tail" else ("--epochs", "2", "--unfreeze", "1")
    extra = (
        ("--augment.mix_up", "0.2", "--augment.cut_mix", "1", "--train.class_weights")
        if method == "full"
        else ()
    )
    watched = ("--train.monitor", "mean_average_precision") if method == "finetune" else ()
    words = ("train", mosaics, "--label-delimiter", ",", "--method", method, "--out", tmp_path / "run")
    answer = saccade(*words, *flags, *short, *extra, *watched)
    assert answer.code == 0, answer.err
    assert RunFolder(tmp_path / "run").read_metrics("test")["mean_average_precision"] > 0.3


def test_python_takes_lists_matrices_and_frames_alike(
    mosaics: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    table = pandas.read_csv(mosaics, keep_default_na=False)
    paths = [str(mosaics.parent / name) for name in table["path"]]
    sets = [list(split_labels(text)) for text in table["label"]]
    matrix = np.array([[name in labels for name in CLASSES] for labels in sets]).astype(int)
    small = {
        "backbone": "test_efficientnet",
        "weights": str(tiny_weights),
        "image_size": 48,
        "method": "head",
    }
    model = ImageClassifier(**small, out=str(tmp_path / "run")).fit(paths, sets)
    assert model.classes_.tolist() == list(CLASSES)
    found = model.predict(paths[:5])
    assert found.shape == (5, 4)
    assert set(np.unique(found)) <= {0, 1}
    probabilities = model.predict_proba(paths[:5])
    limits = [model.run_.read_model()["thresholds"][name] for name in CLASSES]
    assert (found == (probabilities >= np.array(limits))).all()
    assert model.score(paths[:20], sets[:20]) == accuracy_score(matrix[:20], model.predict(paths[:20]))
    assert model.score(paths[:20], pandas.DataFrame(matrix[:20], columns=CLASSES)) == model.score(
        paths[:20], sets[:20]
    )
    with pytest.warns(UserWarning, match="leak"):
        measured = model.evaluate(paths[:20], sets[:20])
    assert measured.mean_average_precision is not None
    assert "mean avg. precision" in repr(measured)
    assert "mean average precision" in repr(model)
