"""What a fitted ImageClassifier tells and shows: tables, figures, the report, a card in a notebook.

Everything is read from the run folder, so it is the same after `ImageClassifier.load(run)`. Copies and
pickles take figures and tables along, for the time when the folder is gone; pictures and the report stay.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from saccade.errors import MissingExtraError, RecipeError, RunError, SaccadeError
from saccade.evaluation.metrics import metrics_from_json
from saccade.evaluation.remedies import fitted
from saccade.notebook import cards, reading
from saccade.records import EpochRow, Metrics
from saccade.run_folder import RunFolder
from saccade.run_record import RunRecord
from saccade.terminal import counted

if TYPE_CHECKING:
    from saccade.notebook.plots import Plot

IMAGES_SHOWN = 12


class Views:
    """Attributes and methods that an ImageClassifier has beside fit and predict.

    What needs a fitted model raises RunError, with what to do, where there is none.

    >>> from saccade import ImageClassifier
    >>> model = ImageClassifier(backbone="fast_cnn", epochs=4, batch_size=8).fit("photos/")
    >>> repr(model).partition("# ")[2]
    'fitted: 3 classes, test accuracy 100.0 % (7 images)'
    """

    if TYPE_CHECKING:  # what the classifier itself has

        @property
        def _run(self) -> RunFolder: ...

        @property
        def _predictor(self) -> Any: ...

        classes_: Any
        run_: RunFolder
        recipe: Any

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...

    # -- tables --------------------------------------------------------------------------------

    @property
    def history_(self) -> Any:
        """One row an epoch: phase, epoch, lr, losses, accuracies, seconds since the start.

        A pandas DataFrame where pandas is installed, else a list of dicts. A fit of a head has no lr (NaN).

        >>> list(model.history_["epoch"])
        [1, 2, 3, 4]
        """
        rows = self._told("history")
        return _table([row if row["lr"] else {**row, "lr": math.nan} for row in rows])

    @property
    def metrics_(self) -> dict[str, dict[str, float]]:
        """Figures by part: `metrics_["test"]["accuracy"]`; `pandas.DataFrame(model.metrics_)` is a table.

        `accuracy_low` and `accuracy_high` are its 95 % interval, `images` how many were measured.

        >>> model.metrics_["test"]["accuracy"]
        1.0
        """
        return {part: reading.plain_figures(found) for part, found in self._measured.items()}

    @property
    def mistakes_(self) -> Any:
        """Wrong answers on the test part (without one: validation), the most confident first.

        Columns path, label, predicted, confidence, as a table like `history_`; with several labels an image,
        label and predicted are lists, and there is no confidence. Paths are those of the files, for
        `predict`; of images in an archive or table, their names in it.

        >>> len(model.mistakes_)
        0
        """
        told = self._told("mistakes")
        if any(isinstance(row["label"], list) for row in told):
            rows = [{**row, "path": reading.from_here(row["path"])} for row in told]
            return _table(rows, ("path", "label", "predicted"))
        value = {str(label): label for label in self.classes_.tolist()}  # of the type that labels had in fit
        rows = [
            {
                **row,
                "path": reading.from_here(row["path"]),
                "label": value[row["label"]],
                "predicted": value[row["predicted"]],
            }
            for row in told
        ]
        return _table(rows, ("path", "label", "predicted", "confidence"))

    # -- figures -------------------------------------------------------------------------------

    def show_batch(self, images: int = IMAGES_SHOWN) -> Plot:
        """The first training images of epoch 1 as the network saw them, augmented, with their classes.

        images: how many. Returns a matplotlib figure.

        >>> model.show_batch(6).get_suptitle()
        'Training images as the network sees them'
        """
        _check_count(images)
        run = self._run
        _need_matplotlib()
        from saccade.notebook import plots

        tiles = list(reading.training_tiles(run, images))
        return plots.tiles_plot(tiles, "Training images as the network sees them")

    def plot_history(self) -> Plot:
        """Loss and accuracy over the epochs, as a matplotlib figure.

        With method "head" nothing goes on from epoch to epoch: each fit is a point.

        >>> model.plot_history().axes[0].get_xlabel()
        'Epoch'
        """
        history = [EpochRow(**row) for row in self._told("history")]
        _need_matplotlib()
        from saccade.notebook import plots
        from saccade.transforms import Augmentation

        augmentation = reading.augmentation_of(self._record.resolved, history)
        changed = augmentation != Augmentation() and not fitted(history)
        return plots.history_plot(history, augmented=changed)

    def plot_confusion(self, part: str = "") -> Plot:
        """What was taken for what, as a matplotlib figure.

        part: "test", "validation" or "train"; "" is test, or validation where there is no test part.

        >>> model.plot_confusion("validation").axes[0].get_ylabel()
        'True class'
        """
        measured = self._measured
        part = part or next(iter(measured))
        if part not in measured:
            raise RecipeError(
                f"this run has no figures of a part {part!r}", hint=f"choose from: {', '.join(measured)}"
            )
        if measured[part].multi_label:
            raise RecipeError(
                "an image may have several labels, so none is taken for another",
                hint="the report has a table of the labels: show_report()",
            )
        _need_matplotlib()
        from saccade.notebook import plots

        return plots.confusion_plot(measured[part], part)

    def show_mistakes(self, images: int = IMAGES_SHOWN) -> Plot:
        """The most confident wrong answers with their pictures, as a matplotlib figure.

        images: how many at most.

        >>> model.show_mistakes().get_suptitle()
        'No mistake among the 7 test images'
        """
        _check_count(images)
        part, answers = reading.judged(self._run)
        _need_matplotlib()
        from saccade.notebook import plots

        wrong, count = answers.wrong, f"{len(answers):,} {part} images"
        if not wrong:
            return plots.tiles_plot([], f"No mistake among the {count}")
        tiles = list(reading.mistaken_tiles(self._run, answers, wrong[:images]))
        return plots.tiles_plot(tiles, f"{len(wrong):,} of {count} are mistaken, the most confident first")

    def show_report(self, height: int = 600) -> cards.Page:
        """The report, embedded in the notebook; elsewhere what it returns says where the file is.

        height: of the frame, in pixels.

        >>> "report.html" in repr(model.show_report())
        True
        """
        run = self._run
        return cards.Page(run.report, run.read(run.report).decode("utf-8", "replace"), height)

    # -- in one line, and as a card ------------------------------------------------------------

    def __repr__(self) -> str:
        classes = self.__dict__.get("classes_", ())
        told = [self._known, f"fitted: {counted(len(classes), 'class', 'classes')}"]
        if self._can_tell:
            told[1] = cards.in_one_line(self._record, self._measured)
        known = self._can_tell or len(classes)
        return f"{self._call}  # {'; '.join(filter(None, told))}" if known else self._call

    def _repr_html_(self) -> str:
        if self._can_tell:
            call = f"{self._call}  # {self._known}" if self._known else self._call
            gone = not self.run_.root.is_dir()
            return cards.fitted(call, self._record, self._measured, gone=gone)
        classes = self.__dict__.get("classes_")
        if classes is None:
            return cards.unfitted(self._call)
        return cards.without_run(self._call, list(classes), self._known)

    @property
    def _call(self) -> str:
        """The constructor with what is not its default."""
        parameters = inspect.signature(type(self)).parameters
        defaults = {name: parameter.default for name, parameter in parameters.items()}
        given = [
            f"{name}={value!r}"
            for name, value in self.get_params(deep=False).items()
            if name not in defaults or value != defaults[name]
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    @property
    def _known(self) -> str:
        """What the constructor's arguments do not say: settings in a recipe's file, or the size of images."""
        if self._can_tell:
            given = self._told("settings") if self.recipe else {}
            return ", ".join(f"{name}={value!r}" for name, value in given.items())
        if not self.__dict__.get("_exported"):
            return ""
        size = self._predictor.artefact.preprocess.size
        return f"images of {size} x {size} pixels"

    # -- the run, or what was taken along of it ------------------------------------------------

    @property
    def _measured(self) -> dict[str, Metrics]:
        return {part: metrics_from_json(values) for part, values in self._told("metrics").items()}

    @property
    def _record(self) -> RunRecord:
        return RunRecord.from_json(self._told("record"))

    def _told(self, what: str) -> Any:
        """A value of `reading.TOLD`; raises RunError where there is none."""
        kept = self.__dict__.get("_kept")
        if kept is not None and not self.run_.root.is_dir():
            return kept[what]
        return reading.TOLD[what](self._run)

    @property
    def _can_tell(self) -> bool:
        """Whether there are figures to read: a text of the object never raises."""
        try:
            return self._run.environment.is_file()
        except RunError:
            return "_kept" in self.__dict__

    def _taken_along(self) -> dict[str, Any]:
        """Figures and tables for a copy, which may outlive the run folder."""
        try:
            return {"_kept": {what: read(self._run) for what, read in reading.TOLD.items()}}
        except SaccadeError:  # not fitted, damaged, or gone before: then the copy has what this one has
            return {}


def _check_count(images: int) -> None:
    if images < 1:
        raise RecipeError(f"images must be at least 1, got {images}")


def _table(rows: list[dict[str, Any]], columns: Sequence[str] = ()) -> Any:
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows, columns=list(columns) or None)


def _need_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "train", "a figure")
