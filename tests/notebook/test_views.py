"""Tables, figures and the card of a classifier, beside the files of its run."""

from __future__ import annotations

import dataclasses
import io
import itertools
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import saccade
from saccade.errors import DataError, NotFittedError, RecipeError, RunError
from saccade.evaluation.metrics import metrics_from_json
from saccade.notebook import cards, plots, reading
from saccade.records import EpochRow, Interval, Metrics
from saccade.run_folder import RunFolder
from saccade.transforms.sampling import epoch_order

HOSTILE = "<script>alert(1)</script>"
CLASSES = ("bar", "disc", HOSTILE.replace("/", "\N{DIVISION SLASH}"))
VIEWS = ("plot_history", "plot_confusion", "show_batch", "show_mistakes", "show_report")


@pytest.fixture(scope="module")
def photos(photo_writer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_writer(tmp_path_factory.mktemp("views") / "photos", classes=CLASSES, images=14, side=24)


@pytest.fixture(scope="module")
def model(photos: Path) -> saccade.ImageClassifier:
    """Trained so briefly that it makes mistakes."""
    return saccade.ImageClassifier(
        backbone="small_cnn", image_size=16, epochs=2, augment__policy="none", out=str(photos.parent / "run")
    ).fit(photos)


# -- tables --------------------------------------------------------------------------------------


def test_the_history_is_that_of_the_run(
    model: saccade.ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = model.history_
    assert [EpochRow(**row) for row in rows] == model.run_.read_history()
    assert [row["epoch"] for row in rows] == [1, 2]


def test_tables_are_data_frames_where_pandas_is_there(model: saccade.ImageClassifier) -> None:
    pandas = pytest.importorskip("pandas")
    assert isinstance(model.history_, pandas.DataFrame)
    assert model.history_["epoch"].tolist() == [1, 2]
    assert list(model.mistakes_.columns) == ["path", "label", "predicted", "confidence"]


def test_metrics_are_the_figures_of_every_part(model: saccade.ImageClassifier) -> None:
    measured = model.metrics_
    assert list(measured) == ["test", "validation", "train"]
    for part, figures in measured.items():
        stored = model.run_.read_metrics(part)
        assert figures["images"] == stored["images"]
        assert figures["accuracy"] == stored["accuracy"]["value"]
        assert figures["accuracy_low"] < figures["accuracy"] < figures["accuracy_high"] or part == "train"


def test_mistakes_are_those_of_the_predictions_file(
    model: saccade.ImageClassifier, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    stored = model.run_.read_predictions("test")
    wrong = {
        (path, label, str(model.classes_[row.argmax()]), float(row.max()))
        for path, label, row in zip(stored.paths, stored.labels, stored.probabilities, strict=True)
        if label != model.classes_[row.argmax()]
    }
    assert wrong, "the model makes mistakes"
    assert {(row["path"], *list(row.values())[1:]) for row in model.mistakes_} == {
        (str(photos / path), *others) for path, *others in wrong
    }
    confidences = [row["confidence"] for row in model.mistakes_]
    assert confidences == sorted(confidences, reverse=True)


# -- figures -------------------------------------------------------------------------------------


def pictures(figure: plots.Plot) -> list[Any]:
    return [axes.images[0].get_array() for axes in figure.axes]


def test_a_batch_is_what_the_first_epoch_began_with(model: saccade.ImageClassifier, photos: Path) -> None:
    figure = model.show_batch(5)
    records = [record for record in model.run_.read_dataset() if record.part == "train"]
    first = [records[i] for i in epoch_order(len(records), seed=0, epoch=0)[:5]]
    assert [axes.get_title() for axes in figure.axes] == [plots.short(record.label) for record in first]
    for shown, record in zip(pictures(figure), first, strict=True):
        with Image.open(photos / record.path) as image:  # of 24 pixels, seen at 16
            wanted = image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(wanted, float) - shown).mean() < 12


def test_the_batch_is_augmented_as_in_training(model: saccade.ImageClassifier, tmp_path: Path) -> None:
    plain = pictures(model.show_batch(4))
    shutil.copytree(model.run_.root, tmp_path / "run")
    other = saccade.ImageClassifier()
    other.run_ = RunFolder(tmp_path / "run")
    record = other.run_.read_record()
    strengths = {**record.resolved["augment"], "rotation": 45.0}
    other.run_.update_record(resolved={**record.resolved, "augment": strengths})
    turned = pictures(other.show_batch(4))
    assert all(np.abs(a.astype(float) - b).mean() > 5 for a, b in zip(plain, turned, strict=True))


def test_mistakes_are_shown_with_picture_and_words(model: saccade.ImageClassifier, photos: Path) -> None:
    stored = model.run_.read_predictions("test")
    first = stored.wrong[0]
    figure = model.show_mistakes(2)
    label, taken_for, sure = figure.axes[0].get_title().split("\n")
    assert label == plots.short(stored.labels[first])
    assert taken_for == f"taken for {plots.short(stored.predicted[first])}"
    assert sure == f"{stored.confidence[first]:.0%} sure"
    with Image.open(photos / stored.paths[first]) as image:
        assert np.array_equal(pictures(figure)[0], np.asarray(image.convert("RGB")))
    assert figure.get_suptitle().startswith(f"{len(stored.wrong)} of {len(stored)} test images")


def test_long_names_of_classes_do_not_overlap() -> None:
    names = [f"Epinephelus marginatus the {i}th" for i in range(12)]
    captions = [
        f"{plots.short(a)}\ntaken for {plots.short(b)}\n98% sure" for a, b in itertools.pairwise(names)
    ]
    figure = plots.tiles_plot([plots.Tile(None, caption) for caption in captions], "Mistaken")
    figure._repr_png_()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert len(boxes) == 11
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_pictures_that_are_gone_leave_words(model: saccade.ImageClassifier, photos: Path) -> None:
    photos.rename(photos.with_name("moved"))
    try:
        axes = model.show_mistakes(1).axes[0]
        assert [text.get_text() for text in axes.texts] == ["image not at hand"]
        with pytest.raises(DataError, match="photos"):
            model.show_batch()
    finally:
        photos.with_name("moved").rename(photos)


def test_the_curves_have_titles_axes_and_values(model: saccade.ImageClassifier) -> None:
    loss, accuracy = model.plot_history().axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("Epoch", "Loss (cross-entropy, nats)")
    assert accuracy.get_ylabel() == "Accuracy"
    history = model.run_.read_history()
    lines = {line.get_label(): line.get_ydata() for line in loss.lines}
    assert list(lines["validation"]) == [row.validation_loss for row in history]
    assert list(lines["training"]) == [row.train_loss for row in history], "nothing was augmented"
    assert accuracy.get_ylim()[1] == 1


def epochs(*rates: float) -> list[EpochRow]:
    return [EpochRow("main", i, rate, 0.5, 1.0, 0.6, 1.0, 1.0) for i, rate in enumerate(rates, start=1)]


def test_training_is_seen_also_where_validation_is_equal() -> None:
    figure = plots.history_plot(epochs(0.1, 0.1), augmented=True)
    training, validation, _ = figure.axes[1].lines
    assert (training.get_label(), validation.get_label()) == ("training (augmented)", "validation")
    assert list(training.get_ydata()) == list(validation.get_ydata())
    assert training.get_linewidth() > 2 * validation.get_linewidth()
    assert training.get_markersize() > 2 * validation.get_markersize()


def test_fits_of_a_head_are_points_and_no_epochs() -> None:
    figure = plots.history_plot(epochs(0, 0, 0), augmented=False)
    assert {axes.get_xlabel() for axes in figure.axes} == {"Fit"}
    assert figure.get_suptitle().startswith("Training: kept fit 1 of 3")
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["None", "None", ":"]


def test_a_fit_has_no_learning_rate(model: saccade.ImageClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [dataclasses.asdict(row) for row in epochs(0, 0.1)]
    monkeypatch.setitem(reading.TOLD, "history", lambda run: rows)
    assert model.history_["lr"].isna().tolist() == [True, False]


def test_the_confusion_of_a_part_can_be_named(model: saccade.ImageClassifier) -> None:
    count = model.run_.read_metrics("train")["images"]
    assert model.plot_confusion("train").axes[0].get_title() == f"Confusion: {count} train images"
    with pytest.raises(RecipeError, match=r"no figures of a part 'holdout'\nhint: choose from: test, valid"):
        model.plot_confusion("holdout")


def confused(classes: tuple[str, ...]) -> Metrics:
    counts = np.eye(len(classes), dtype=int) * 30
    counts[:, 0] += 1
    rows = tuple(map(tuple, counts.tolist()))
    share = Interval(0.9, 0.8, 0.95)
    return Metrics(int(counts.sum()), share, 0.9, 0.9, {}, (), classes, rows, 0.3, 0.02)


@pytest.mark.parametrize("count", [2, 40])
def test_no_two_labels_of_a_confusion_overlap(count: int) -> None:
    names = tuple(f"$species_{i} with a name that is long" for i in range(count))
    figure = plots.confusion_plot(confused(names), "test")
    assert Image.open(io.BytesIO(figure._repr_png_())).width < 1700
    axes = figure.axes[0]
    boxes = [label.get_window_extent() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    assert len(boxes) == 2 * count
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(figure.bbox.x0 <= box.x0 and box.y0 >= figure.bbox.y0 for box in boxes), "none is cut off"
    assert len(axes.texts) == 2 * count - 1, "every count stands in its cell"


def test_of_very_many_classes_the_most_confused_are_shown() -> None:
    metrics = confused(tuple(f"c{i}" for i in range(130)))
    axes = plots.confusion_plot(metrics, "test").axes[0]
    assert len(axes.get_yticklabels()) == plots.CLASSES_SHOWN
    assert axes.get_title().endswith("the 100 most confused classes")


# -- text and card -------------------------------------------------------------------------------


def test_the_card_tells_the_result_and_what_next(model: saccade.ImageClassifier) -> None:
    card, accuracy = model._repr_html_(), model.metrics_["test"]["accuracy"]
    assert f"{100 * accuracy:.1f} %</span> test accuracy" in card
    assert "3 classes: " in card
    assert "model.show_mistakes()" in card
    assert "<script" not in card
    assert "&lt;script&gt;alert(1)" in card


def test_what_went_wrong_stands_in_the_card(model: saccade.ImageClassifier, tmp_path: Path) -> None:
    shutil.copytree(model.run_.root, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    broken = {"1": {"kept": False, "evidence": "2 <pairs> cross"}}
    run.update_record(promises={**run.read_record().promises, **broken})
    card = cards.fitted("ImageClassifier()", run.read_record(), {})
    assert "Broken: promise 1: 2 &lt;pairs&gt; cross" in card
    assert "Broken" not in model._repr_html_()


def test_the_report_comes_whole_and_locked_in(model: saccade.ImageClassifier) -> None:
    page = model.show_report(height=321)
    shown = page._repr_html_()
    assert shown.startswith("<iframe sandbox srcdoc=")
    assert 'height="321"' in shown
    assert shown.count("<") == 2, "what is inside is escaped"
    assert repr(page) == f"{model.run_.report} (open it in a browser)"


def test_the_text_is_the_call_and_the_result(model: saccade.ImageClassifier) -> None:
    accuracy = model.metrics_["test"]["accuracy"]
    call, _, result = repr(model).partition("  # ")
    assert call == (
        f"ImageClassifier(backbone='small_cnn', epochs=2, image_size=16, out={model.out!r}, "
        "augment__policy='none')"
    )
    images = model.metrics_["test"]["images"]
    assert result == f"fitted: 3 classes, test accuracy {100 * accuracy:.1f} % ({images} images)"


def test_before_fit_everything_says_what_to_do() -> None:
    unfitted = saccade.ImageClassifier(epochs=3)
    assert repr(unfitted) == "ImageClassifier(epochs=3)"
    assert "Not fitted yet: call <code>fit(" in unfitted._repr_html_()
    for name in VIEWS:
        with pytest.raises(RunError, match="is not fitted"):
            getattr(unfitted, name)()
    for name in ("history_", "metrics_", "mistakes_"):
        with pytest.raises(RunError, match="is not fitted"):
            getattr(unfitted, name)
        assert not hasattr(unfitted, name), "as scikit-learn's tools ask"


def test_labels_in_tables_are_of_the_type_that_fit_was_given(photos: Path) -> None:
    files = sorted(photos.glob("*/*.png"))
    labels = [CLASSES.index(path.parent.name) for path in files]
    model = saccade.ImageClassifier(backbone="small_cnn", image_size=16, epochs=1).fit(files, labels)
    rows = model.mistakes_.to_dict("records") if hasattr(model.mistakes_, "columns") else model.mistakes_
    assert rows, "after one epoch there are mistakes"
    assert {type(row["label"]) for row in rows} == {int}
    assert model.show_batch(3).axes[0].get_title() in ("0", "1", "2")
    assert model.show_mistakes(1).axes[0].images, "the picture is found"


def test_a_model_whose_run_is_gone_still_has_a_text(model: saccade.ImageClassifier, tmp_path: Path) -> None:
    other = saccade.ImageClassifier()
    other.run_, other.classes_ = RunFolder(tmp_path / "gone"), model.classes_
    assert repr(other) == "ImageClassifier()  # fitted: 3 classes"
    assert "its run folder, with figures and report, is not here" in other._repr_html_()
    with pytest.raises(RunError, match="the run folder is gone") as caught:
        _ = other.history_
    assert not isinstance(caught.value, NotFittedError)


def test_a_pickle_takes_figures_and_tables_along(
    model: saccade.ImageClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    copied = tmp_path / "run"
    shutil.copytree(model.run_.root, copied)
    other = pickle.loads(pickle.dumps(saccade.ImageClassifier.load(copied)))
    text, card = repr(other), other._repr_html_()
    shutil.rmtree(copied)
    again = pickle.loads(pickle.dumps(other))  # a pickle of a pickle
    assert again.metrics_ == model.metrics_
    assert again.history_ == model.history_
    assert again.mistakes_ == model.mistakes_ != []
    assert repr(again) == text
    headline = card[card.index("font-size: 1.6em") : card.index("3 classes: ")]
    assert headline in again._repr_html_()
    assert "Its run folder is gone" in again._repr_html_()
    assert again.plot_confusion().axes[0].get_title() == model.plot_confusion().axes[0].get_title()
    assert again.plot_history().get_suptitle() == model.plot_history().get_suptitle()
    for name in ("show_batch", "show_mistakes", "show_report"):
        with pytest.raises(RunError, match="the run folder is gone") as caught:
            getattr(again, name)()
        assert not isinstance(caught.value, NotFittedError)


def test_a_loaded_one_says_what_it_was_made_with(model: saccade.ImageClassifier, tmp_path: Path) -> None:
    call, _, told = repr(saccade.ImageClassifier.load(model.out)).partition("  # ")
    assert call == f"ImageClassifier(recipe={str(model.run_.recipe)!r})"
    settings, _, result = told.partition("; ")
    assert settings == "backbone='small_cnn', method='finetune', augment='none', image_size=16, epochs=2"
    assert result.startswith("fitted: 3 classes, test accuracy")
    file = saccade.ImageClassifier.load(model.export(tmp_path / "net.onnx"))
    assert repr(file) == "ImageClassifier()  # images of 16 x 16 pixels; fitted: 3 classes"
    assert "images of 16 x 16 pixels" in file._repr_html_()


def test_figures_have_a_short_text_and_a_table(model: saccade.ImageClassifier) -> None:
    stored = metrics_from_json(model.run_.read_metrics("test"))
    lines, page = repr(stored).splitlines(), stored._repr_html_()
    assert lines[0] == f"accuracy           {stored.accuracy}, {stored.images} images"
    assert [line.split()[0] for line in lines[6:]] == list(stored.classes)
    assert lines[6].split()[1:] == [
        f"{share:.3f}" for share in dataclasses.astuple(stored.per_class[0])[1:4]
    ] + [str(stored.per_class[0].support)]
    assert page.count("<tr>") == 4 + 1 + 3
    assert "<script" not in page
    many = dataclasses.replace(stored, per_class=stored.per_class * 20)
    assert repr(many).endswith("and 30 more classes in per_class")
    assert "and 30 more classes" in many._repr_html_()
