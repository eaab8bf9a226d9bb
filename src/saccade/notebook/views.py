"""What a fitted ImageClassifier tells and shows: tables, figures, the report, a card in a notebook.

Everything is read from the run folder, so it is the same after `ImageClassifier.load(run)`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from saccade.errors import MissingExtraError, RecipeError, RunError
from saccade.notebook import cards, reading
from saccade.run_folder import RunFolder
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

        classes_: Any

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...

    # -- tables --------------------------------------------------------------------------------

    @property
    def history_(self) -> Any:
        """One row an epoch: phase, epoch, lr, losses, accuracies, seconds since the start.

        A pandas DataFrame where pandas is installed, else a list of dicts.

        >>> list(model.history_["epoch"])
        [1, 2, 3, 4]
        """
        return _table([dataclasses.asdict(row) for row in self._run.read_history()])

    @property
    def metrics_(self) -> dict[str, dict[str, float]]:
        """Figures by part: `metrics_["test"]["accuracy"]`; `pandas.DataFrame(model.metrics_)` is a table.

        `accuracy_low` and `accuracy_high` are its 95 % interval, `images` how many were measured.

        >>> model.metrics_["test"]["accuracy"]
        1.0
        """
        return {part: reading.plain_figures(found) for part, found in reading.measured(self._run).items()}

    @property
    def mistakes_(self) -> Any:
        """Wrong answers on the test part (without one: validation), the most confident first.

        Columns path, label, predicted, confidence, as a table like `history_`.

        >>> len(model.mistakes_)
        0
        """
        _, answers = reading.judged(self._run)
        value = {str(label): label for label in self.classes_.tolist()}  # of the type that labels had in fit
        rows = [
            {
                "path": answers.paths[row],
                "label": value[answers.labels[row]],
                "predicted": value[answers.predicted[row]],
                "confidence": float(answers.confidence[row]),
            }
            for row in answers.wrong
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

        >>> model.plot_history().axes[0].get_xlabel()
        'Epoch'
        """
        history = self._run.read_history()
        _need_matplotlib()
        from saccade.notebook import plots

        return plots.history_plot(history)

    def plot_confusion(self, part: str = "") -> Plot:
        """What was taken for what, as a matplotlib figure.

        part: "test", "validation" or "train"; "" is test, or validation where there is no test part.

        >>> model.plot_confusion("validation").axes[0].get_ylabel()
        'True class'
        """
        measured = reading.measured(self._run)
        part = part or next(iter(measured))
        if part not in measured:
            raise RecipeError(
                f"this run has no figures of a part {part!r}", hint=f"choose from: {', '.join(measured)}"
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
        run, classes = self._shown_run, self.__dict__.get("classes_", ())
        result = cards.in_one_line(run) if run else f"fitted: {counted(len(classes), 'class', 'classes')}"
        return f"{self._call}  # {result}" if run or len(classes) else self._call

    def _repr_html_(self) -> str:
        run = self._shown_run
        if run is not None:
            return cards.fitted(self._call, run)
        classes = self.__dict__.get("classes_")
        return cards.unfitted(self._call) if classes is None else cards.without_run(self._call, list(classes))

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
    def _shown_run(self) -> RunFolder | None:
        """The run, where there is one to read: a text of the object never raises."""
        try:
            run = self._run
        except RunError:
            return None
        return run if run.environment.is_file() else None


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
