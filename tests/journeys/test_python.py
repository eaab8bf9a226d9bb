"""`ImageClassifier` as people of scikit-learn use it: real trainings, few and small."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
import sklearn
import sklearn.exceptions
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline

from saccade import ImageClassifier, Predictor
from saccade.errors import (
    DataError,
    NotFittedError,
    RecipeError,
    RunError,
    SaccadeError,
    SourceError,
    TrainingError,
)
from saccade.recipe import SHORT_FLAGS
from saccade.run_folder import RunFolder
from saccade.training import Callback

SMALL = {"backbone": "small_cnn", "image_size": 16, "epochs": 1, "batch_size": 8}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("python") / "photos", images=12, side=24)


@pytest.fixture(scope="module")
def paths(photos: Path) -> list[str]:
    return sorted(map(str, photos.rglob("*.png")))


@pytest.fixture(scope="module")
def labels(paths: list[str]) -> list[str]:
    return [Path(path).parent.name for path in paths]


@pytest.fixture(scope="module")
def groups(paths: list[str]) -> list[int]:
    """Two photos of a class were taken at each site."""
    return [int(Path(path).stem[-3:]) // 2 for path in paths]


@pytest.fixture
def no_routing() -> Iterator[None]:
    yield
    sklearn.set_config(enable_metadata_routing=False)


def test_the_constructor_names_every_short_flag_and_checks_nothing() -> None:
    model = ImageClassifier("none of these", lr=-1, augment__policy=7)
    of_fit = {"path_column", "label_column", "root"}
    assert {name.replace("-", "_") for name in SHORT_FLAGS} - of_fit < model.get_params().keys()
    twin = clone(model)
    assert twin is not model
    assert twin.get_params() == model.get_params()
    assert is_classifier(model)
    assert model.set_params(lr=0.1, train__momentum=0.5).get_params()["train__momentum"] == 0.5


@pytest.mark.examples
def test_folds_respect_groups_and_score_as_trained_by_hand(
    paths: list[str], labels: list[str], groups: list[int]
) -> None:
    X, y, sites = np.array(paths), np.array(labels), np.array(groups)
    folds = GroupKFold(2)
    scores = cross_val_score(ImageClassifier(**SMALL), X, y, groups=sites, cv=folds, params={"groups": sites})
    train, test = next(folds.split(X, y, sites))
    byhand = ImageClassifier(**SMALL).fit(X[train], y[train], groups=sites[train])
    assert scores[0] == byhand.score(X[test], y[test]) == np.mean(byhand.predict(X[test]) == y[test])
    records = byhand.run_.read_dataset()
    parts = {part: {r.group for r in records if r.part == part} for part in ("train", "validation", "test")}
    assert set().union(*parts.values()) == set(map(str, set(sites[train])))
    assert not (parts["train"] & parts["validation"]) | (parts["train"] & parts["test"])
    drawn = ConfusionMatrixDisplay.from_estimator(byhand, X[test], y[test])
    assert np.trace(drawn.confusion_matrix) == round(scores[0] * len(test))


@pytest.mark.usefixtures("no_routing")
@pytest.mark.examples
def test_a_grid_goes_through_method_and_rate_in_a_pipeline(
    tiny_weights: Path, paths: list[str], labels: list[str], groups: list[int]
) -> None:
    sklearn.set_config(enable_metadata_routing=True)
    model = ImageClassifier("test_efficientnet", weights=str(tiny_weights), image_size=40, epochs=1)
    pipeline = Pipeline([("photos", model.set_fit_request(groups=True))])
    grid = [
        {"photos__method": ["head"], "photos__lr": [1e-3]},
        {"photos__method": ["finetune"], "photos__lr": [0.01]},
    ]
    y = np.unique(labels, return_inverse=True)[1]
    search = GridSearchCV(
        pipeline, grid, cv=[(range(0, 36, 2), range(1, 36, 2))], refit=False, error_score="raise"
    )
    with pytest.warns(UserWarning, match=r"train\.lr = 0\.001 would have no effect"):
        search.fit(np.array(paths), y, groups=np.array(groups))
    assert len(search.cv_results_["mean_test_score"]) == 2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.fixture(scope="module")
def fitted(
    paths: list[str], labels: list[str], groups: list[int], tmp_path_factory: pytest.TempPathFactory
) -> ImageClassifier:
    """Gray arrays, numbers as labels."""
    numbers = {"bar": 10, "checker": 9, "disc": 100}
    gray = np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])
    out = str(tmp_path_factory.mktemp("fitted") / "run")
    return ImageClassifier(**SMALL, out=out, callbacks=[Seeing()]).fit(
        gray, [numbers[label] for label in labels], groups=groups
    )


class Seeing(Callback):
    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_epoch_end(self, state: Any, row: Any) -> None:
        self.epochs.append(row.epoch)


def test_labels_come_back_as_numbers_in_their_order(fitted: ImageClassifier, paths: list[str]) -> None:
    assert fitted.classes_.tolist() == [9, 10, 100]
    gray = np.asarray(Image.open(paths[0]).convert("L"))
    stack = np.stack([gray, gray, gray])  # three of them are no picture of three colours
    answers = fitted.predict(stack)
    assert answers.shape == (3,)
    assert answers.dtype == fitted.classes_.dtype
    probabilities = fitted.predict_proba([paths[0], gray])
    assert np.array_equal(probabilities[1], fitted.predict_proba(stack)[2])
    named = Predictor(fitted.run_.onnx).predict_proba([gray])[0]
    assert dict(zip(fitted.classes_.tolist(), probabilities[1].tolist(), strict=True)) == dict(
        zip((9, 10, 100), named.tolist(), strict=True)
    )
    assert fitted.callbacks is not None
    assert fitted.callbacks[0].epochs == [1]
    assert fitted.run_.read_record().callbacks == (f"{__name__}.Seeing",)
    assert fitted.run_.recipe.read_text().startswith("# Watched by")


def test_what_was_given_is_audited_divided_and_evaluated_again(
    fitted: ImageClassifier, tmp_path: Path
) -> None:
    assert len(fitted.run_.read_dataset()) == 36
    assert fitted.run_.has(fitted.run_.audit)
    measured = fitted.evaluate([np.zeros((24, 24), np.uint8), np.full((24, 24), 255, np.uint8)], [9, 10])
    assert measured.images == 2
    again = ImageClassifier.load(fitted.run_.root)
    assert again.classes_.tolist() == [9, 10, 100]
    assert ImageClassifier.load(fitted.export(tmp_path / "m.onnx")).classes_.tolist() == ["9", "10", "100"]


@pytest.mark.examples
def test_the_folds_of_a_search_have_a_folder_each(
    paths: list[str], labels: list[str], tmp_path: Path
) -> None:
    model = ImageClassifier(**SMALL, out=str(tmp_path / "cv"))
    with pytest.warns(UserWarning, match="holds a run of other images or settings, so this one is in"):
        scores = cross_val_score(model, np.array(paths), np.array(labels), cv=2)
    assert np.isfinite(scores).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cv", "cv-2"]
    assert [len(RunFolder(tmp_path / name).read_dataset()) for name in ("cv", "cv-2")] == [18, 18]


def test_a_cell_that_is_changed_and_run_again_gets_a_folder_of_its_own(photos: Path, tmp_path: Path) -> None:
    model = ImageClassifier(**SMALL, out=str(tmp_path / "run")).fit(photos)
    with pytest.warns(UserWarning, match="run holds a run of other images or settings, so this one is in"):
        model.set_params(image_size=24).fit(photos)
    assert model.run_.root == tmp_path / "run-2"
    model.set_params(image_size=16).fit(photos)  # as it was: the run is there already
    assert model.run_.root == tmp_path / "run"


def test_what_cannot_be_read_does_not_count_and_is_named(
    fitted: ImageClassifier, paths: list[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff no more")
    own = fitted.predict(paths)
    with pytest.warns(UserWarning, match=r"1 of 37 images cannot be read and do not count: .*bad\.jpg"):
        assert fitted.score([*paths, str(bad)], [*own, 9]) == 1.0
    with pytest.raises(DataError, match="1 of 2 inputs failed") as caught:
        fitted.predict([paths[0], bad])
    assert "Left out" not in str(caught.value)
    assert [bool(answer.error) for answer in fitted.answers([paths[0], bad])] == [False, True]
    with pytest.raises(DataError, match="1 of 1 images cannot be read"):
        fitted.score([bad], [9])
    with pytest.raises(DataError, match=r"1 of the 2 images do not exist: none\.jpg"):
        fitted.score([paths[0], "none.jpg"], [9, 9])
    with pytest.warns(UserWarning, match="2 of 3 labels are no class .*: heavy, light; its classes are 9, "):
        assert fitted.score(paths[:3], ["light", "heavy", str(own[2])]) == pytest.approx(1 / 3)


def test_what_is_not_fitted_says_so_as_scikit_learn_does(paths: list[str]) -> None:
    for name in ("classes_", "run_"):
        with pytest.raises(NotFittedError, match="is not fitted\nhint: call fit"):
            getattr(ImageClassifier(), name)
        assert not hasattr(ImageClassifier(), name)
    with pytest.raises(AttributeError, match="has no attribute 'clases_'"):
        _ = ImageClassifier().clases_  # type: ignore[attr-defined]
    for ask in (ImageClassifier().predict, ImageClassifier().score):
        with pytest.raises(sklearn.exceptions.NotFittedError, match="call fit") as caught:
            ask(np.array(paths))
        assert isinstance(caught.value, NotFittedError)
        assert isinstance(caught.value, RunError)
        copied = pickle.loads(pickle.dumps(caught.value))
        assert (type(copied), copied.hint) == (type(caught.value), caught.value.hint)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from saccade import ImageClassifier
from saccade.errors import MissingExtraError
try:
    ImageClassifier(method="head").fit(sys.argv[1])
except MissingExtraError as error:
    print(error)
"""


def test_without_torch_the_line_that_installs_it_is_said(photos: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(photos)], capture_output=True, text=True, check=True
    )
    assert "pip install 'saccade[train]'" in done.stdout


def test_a_network_or_an_unknown_word_is_refused_in_words_of_python(paths: list[str]) -> None:
    from torch import nn

    with pytest.raises(SaccadeError, match=r"is a network .*an instance of Linear") as caught:
        ImageClassifier(backbone=nn.Linear(3, 3)).fit(paths)
    assert "give the class or a function build(classes), not a network" in caught.value.hint
    for name, meant in {"methd": "method", "bs": "batch_size", "n_jobs": "train__workers"}.items():
        with pytest.raises(RecipeError, match=f"unknown key {name!r}\nhint: did you mean {meant!r}"):
            ImageClassifier(**{name: 1}).fit(paths)
    with pytest.raises(RecipeError, match="did you mean 'lr'"):
        GridSearchCV(ImageClassifier(**SMALL), {"learning_rate": [0.1]}, cv=2).fit(
            np.array(paths), np.array([Path(path).parent.name for path in paths])
        )


PREDICT = """
import sys, joblib, numpy
model = joblib.load(sys.argv[1])
print(model.predict_proba(numpy.full((20, 30), 99, numpy.uint8)).tolist())
print(sorted({"torch", "sklearn", "matplotlib"} & set(sys.modules)), model.get_params()["callbacks"])
model.export(sys.argv[2])
"""


def test_a_pickle_predicts_in_another_process_without_its_run(
    photos: Path, fitted: ImageClassifier, tmp_path: Path
) -> None:
    gone = copy.deepcopy(fitted)
    gone.run_ = RunFolder(tmp_path / "gone")
    joblib.dump(gone, tmp_path / "model.joblib")
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, str(tmp_path / "model.joblib"), str(tmp_path / "m.onnx")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    first, second = done.stdout.splitlines()
    wanted = fitted.predict_proba(np.full((20, 30), 99, np.uint8))
    np.testing.assert_allclose(json.loads(first), wanted, atol=1e-6)
    assert second == "[] None"
    assert Predictor(tmp_path / "m.onnx").classes == Predictor(fitted.run_.onnx).classes
    with pytest.raises(RunError, match="the run folder is gone"):
        gone.evaluate(photos)


def test_frames_name_columns_when_they_fit_and_when_they_ask(
    photos: Path, paths: list[str], labels: list[str]
) -> None:
    frame = pandas.DataFrame(
        {"filename": [os.path.relpath(path, photos) for path in paths], "species": labels}
    )
    frame["site"] = [f"site {int(Path(path).stem[-3:]) // 4}" for path in paths]
    model = ImageClassifier(**SMALL).fit(frame, path="filename", label="species", group="site", root=photos)
    assert model.predict(frame[:3]).shape == (3,)
    assert {record.path for record in model.run_.read_dataset()} == set(frame["filename"])
    _paths_begin_where_root_says(model, photos, frame)
    assert model.score(frame) == np.mean(model.predict(frame) == frame["species"])
    with pytest.warns(
        UserWarning, match="leak: 2. of these 36 images were in the training or validation part"
    ):
        assert model.evaluate(frame).images == 36


def _paths_begin_where_root_says(model: ImageClassifier, photos: Path, frame: pandas.DataFrame) -> None:
    """Without root= those of a list begin in the current folder, those of a data frame as in `fit`."""
    wanted, names = model.predict(frame[:3]), list(frame["filename"][:3])
    for images in (names, np.array(names), frame[:3]):
        assert model.predict(images, root=photos).tolist() == wanted.tolist()
    assert model.predict(names[0], root=photos).tolist() == wanted[:1].tolist()
    assert model.predict([photos / name for name in names]).tolist() == wanted.tolist()
    with pytest.raises(DataError, match="3 inputs failed"):
        model.predict(names)
    with pytest.raises(DataError, match="3 inputs failed"):
        model.predict(frame[:3], root="")
    assert [answer.error for answer in model.answers(names, root=photos)] == [""] * 3
    assert model.predict_proba(names, root=photos).shape == (3, 3)
    assert model.score(names, list(wanted), root=photos) == 1.0
    with pytest.raises(DataError, match="3 of the 3 images do not exist: elsewhere"):
        model.score(frame[:3], root="elsewhere")
    mistaken = model.mistakes_
    assert len(mistaken) > 0
    assert model.predict(mistaken["path"]).tolist() == list(mistaken["predicted"])


@pytest.mark.parametrize("moment", ["on_step", "on_epoch_end", "on_finish", "on_close"])
def test_a_callback_that_fails_is_named_and_the_run_goes_on(
    moment: str, photos: Path, tmp_path: Path
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("oh")

    failing = type("Failing", (Callback,), {moment: fail})
    model = ImageClassifier(**SMALL, out=str(tmp_path / "run"), callbacks=[failing()])
    with pytest.raises(TrainingError, match=rf"Failing failed in {moment}: ZeroDivisionError: oh") as caught:
        model.fit(photos)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    if moment == "on_epoch_end":
        seeing = Seeing()
        model.set_params(callbacks=[seeing]).fit(photos)
        assert seeing.epochs == [], "the epoch of the failure is kept, not trained again"
        assert model.run_.read_record().callbacks == (f"{__name__}.Failing", f"{__name__}.Seeing")


UNORDERED: dict[str, tuple[Any, str]] = {
    "set": (lambda paths, y: (set(paths), y, None), "a set is no list of images"),
    "labels by path": (
        lambda paths, y: (paths, dict(zip(paths, y, strict=True)), None),
        "a dict is no list of labels",
    ),
    "groups": (lambda paths, y: (paths, y, frozenset(paths)), "a frozenset is no list of groups"),
}


@pytest.mark.parametrize("name", UNORDERED)
def test_what_has_no_order_is_refused(name: str, paths: list[str], labels: list[str]) -> None:
    make, words = UNORDERED[name]
    images, y, groups = make(paths, labels)
    with pytest.raises(DataError, match=words):
        ImageClassifier(**SMALL).fit(images, y, groups=groups)


def test_answers_to_a_set_would_be_in_no_order(fitted: ImageClassifier, paths: list[str]) -> None:
    for ask in (fitted.predict, fitted.answers, fitted.predict_proba):
        with pytest.raises(DataError, match="a set is no list of images"):
            ask(set(paths))
    with pytest.raises(DataError, match="a set is no list of images"):
        fitted.score(set(paths), [9] * 36)
    with pytest.raises(DataError, match="brings its own labels"):
        fitted.score(str(Path(paths[0]).parents[1]), [9] * 36)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"out": 3}, "out = 3 is no folder"),
        ({"quiet": "yes"}, "quiet = 'yes' is neither True, False nor None"),
        ({"callbacks": print}, "callbacks are a builtin_function_or_method, not a list"),
        ({"callbacks": Seeing()}, r"callbacks are a Seeing, not a list\nhint: .*callbacks=\[Watcher\(\)\]"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(wrong: dict[str, Any], words: str, paths: list[str]) -> None:
    with pytest.raises(RecipeError, match=words):
        ImageClassifier(**wrong).fit(paths)


def test_rows_that_repeat_or_contradict_are_rows_and_no_lines_of_a_file(
    paths: list[str], labels: list[str]
) -> None:
    model = ImageClassifier(**SMALL)
    with pytest.raises(DataError, match=r"given \(rows count from 0\): 1 row cannot be used") as caught:
        model.fit([*paths, paths[1]], [*labels, "disc"])
    assert "row 36: " in str(caught.value)
    assert "in row 1; keep one of the rows" in str(caught.value)
    model.fit([*paths, *paths[:2]], [*labels, *labels[:2]])
    said = [found["message"] for found in model.run_.read_audit()["findings"]]
    assert any("2 rows repeat earlier ones; used once: " in message for message in said)
    assert not any("no part of the data" in message for message in said)


def test_what_cannot_be_trained_on_leaves_nothing(photos: Path, paths: list[str], tmp_path: Path) -> None:
    model = ImageClassifier(**SMALL, out=str(tmp_path / "run"))
    for data, y, words in (
        (paths, ["one"] * 36, "a classifier needs at least 2"),
        (["none.jpg", *paths], ["bar"] * 37, "1 of the 37 images do not exist: none.jpg"),
        ([], [], "the list is empty"),
    ):
        with pytest.raises(DataError, match=words):
            model.fit(data, y)
    with pytest.raises(DataError, match="brings its own labels"):
        model.fit(photos, ["bar"])
    for name, meant in (("metod", "method"), ("learning_rate", "lr")):
        with pytest.raises(RecipeError, match=f"unknown key {name!r}\nhint: did you mean '{meant}") as caught:
            clone(model).set_params(**{name: 1}).fit(paths)
        assert caught.value.hint
    with pytest.raises(RecipeError, match="names a column of a list in a file"):
        clone(model).set_params(group="site").fit(paths)
    with pytest.raises(SourceError, match="does not exist"):
        model.fit("no such folder")
    assert list(tmp_path.iterdir()) == []
