"""`ImageClassifier`: the pipeline with a scikit-learn interface; it calls what the command line calls."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.errors import RecipeError, RunError
from saccade.notebook.progress import terminal_for
from saccade.notebook.views import Views
from saccade.recipe import SHORT_FLAGS, Recipe, merged_recipe, read_recipe_file
from saccade.records import Metrics
from saccade.run_folder import RunFolder, write_bytes
from saccade.terminal import Terminal
from saccade.threads import calm_openmp


class ImageClassifier(Views):
    """Trains on a folder (or list) of labelled images and predicts with the certified `model.onnx`.

    recipe: path of a TOML file with recipe fields.
    out: the run folder; "" is a temporary one that lives as long as this object.
    quiet: whether nothing is said while it trains; None is to be quiet everywhere but in a notebook.
    fields: fields of the recipe, which win over the file. Short names as on the command line (`backbone`,
    `epochs`, `image_size`) or full ones with two underscores (`train__batch_size`).

    Raises RecipeError for an unknown field or a value that does not hold.

    >>> model = ImageClassifier(backbone="fast_cnn", epochs=4, batch_size=8).fit("photos/")
    >>> model.classes_.tolist()
    ['blue', 'green', 'red']
    """

    def __init__(self, *, recipe: str = "", out: str = "", quiet: bool | None = None, **fields: Any) -> None:
        self.recipe = _recipe(recipe, fields)  # first: what is refused changes nothing
        self.recipe_file = recipe
        self.out = out
        self.quiet = quiet
        self.fields = fields

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments, as scikit-learn's `clone` wants them.

        deep: as scikit-learn has it; there is nothing nested here.

        >>> ImageClassifier(epochs=3).get_params()["epochs"]
        3
        """
        return {"recipe": self.recipe_file, "out": self.out, "quiet": self.quiet, **self.fields}

    def set_params(self, **changes: Any) -> ImageClassifier:
        """Change constructor arguments; what was fitted is forgotten.

        changes: arguments of the constructor.

        >>> ImageClassifier(epochs=3).set_params(epochs=5).recipe.train.epochs
        5
        """
        self.__init__(**{**self.get_params(), **changes})  # type: ignore[misc]
        self.__dict__.pop("run_", None)
        return self

    def fit(self, data: str | Path, y: None = None) -> ImageClassifier:
        """Audit, split, train, evaluate, export and report, as `saccade train` does; returns this object.

        data: a folder with a folder for each class, a list or an archive (docs/data.md). y: not used.
        Sets `classes_` (class names, in the order of the probabilities) and `run_` (the run folder). Raises
        SaccadeError. The example is the class's.
        """
        calm_openmp()
        from saccade import pipeline

        out = self.out
        if not out:
            temporary = tempfile.mkdtemp(prefix="saccade-")
            discard = weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
            out = str(Path(temporary) / "run")
        result = pipeline.train(str(data), self.recipe, self._terminal, out=out)
        self.run_ = result.run
        self._keep_only(discard if not self.out else None)
        self.classes_ = np.array(self._predictor.classes)
        return self

    def _keep_only(self, discard: weakref.finalize[..., Any] | None) -> None:
        """The temporary run of an earlier fit goes when another takes its place."""
        earlier = self.__dict__.get("_discard")
        if earlier is not None:
            earlier()
        self._discard = discard

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles share the run folder, and open its model file for themselves."""
        own = ("_discard", "_loaded", "_loaded_from")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def predict(self, images: Any) -> list[str]:
        """The most probable class of each image.

        images: paths, folders, uint8 arrays (height, width, 3), Pillow images, or the content of image files;
        one or a list of them. Raises DataError for an image that cannot be used.

        >>> model.predict(["photos/red/0.png", "photos/blue/1.png"])
        ['red', 'blue']
        """
        return list(self._predictor.predict(images))

    def predict_proba(self, images: Any) -> NDArray[np.float64]:
        """(images, classes) probabilities, columns in the order of `classes_`.

        images: as for `predict`.

        >>> model.predict_proba("photos/red/0.png").shape
        (1, 3)
        """
        return np.asarray(self._predictor.predict_proba(images))

    def evaluate(self, data: str | Path) -> Metrics:
        """Metrics on labelled images that were not trained on.

        data: as for `fit`. `.accuracy` of what is returned has value, low and high (95 % interval).

        >>> model.evaluate("new_photos/").accuracy.value
        1.0
        """
        from saccade import pipeline

        measured = pipeline.evaluate(str(self._run.root), str(data), self._terminal)
        return next(measured[part] for part in ("test", "validation", "train") if part in measured)

    def score(self, data: str | Path, y: None = None) -> float:
        """Accuracy on labelled images, 0 to 1.

        data: as for `evaluate`. y: not used.

        >>> model.score("new_photos/")
        1.0
        """
        return self.evaluate(data).accuracy.value

    def export(self, path: str | Path) -> Path:
        """Copy the certified `model.onnx` to `path`, its certificate beside it; returns the path.

        >>> model.export("model.onnx").name
        'model.onnx'
        """
        from saccade.run_folder import certificate_beside

        target = Path(path)
        write_bytes(target, self._run.read(self._run.onnx))
        write_bytes(certificate_beside(target), self._run.read(self._run.certificate()))
        return target

    def report(self, path: str | Path) -> Path:
        """Copy the self-contained report to `path`, which it returns.

        >>> model.report("report.html").name
        'report.html'
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._run.report, target)
        return target

    @property
    def _run(self) -> RunFolder:
        if "run_" not in self.__dict__:
            raise RunError("this ImageClassifier is not fitted", hint="call fit(data) first")
        return self.run_

    @property
    def _predictor(self) -> Any:
        from saccade.predict import Predictor

        if getattr(self, "_loaded_from", None) != self._run.onnx:
            self._loaded, self._loaded_from = Predictor(self._run.onnx), self._run.onnx
        return self._loaded

    @property
    def _terminal(self) -> Terminal:
        return terminal_for(self.quiet)


def _recipe(file: str, fields: dict[str, Any]) -> Recipe:
    """Short names become the fields they stand for; precedence as on the command line."""
    short = {name.replace("-", "_"): field for name, field in SHORT_FLAGS.items()}
    values = {short.get(name, name.replace("__", ".")): value for name, value in fields.items()}
    if len(values) < len(fields):
        raise RecipeError(
            f"one field is given twice, by its short and its full name: {', '.join(sorted(fields))}",
            hint="leave one of the two out",
        )
    return merged_recipe(values, read_recipe_file(file) if file else {}, where="ImageClassifier")
