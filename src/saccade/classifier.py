"""`ImageClassifier`: the scikit-learn face of the pipeline; the same functions as the command line."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.errors import RecipeError, RunError
from saccade.recipe import SHORT_FLAGS, Recipe, merged_recipe, read_recipe_file
from saccade.records import Metrics
from saccade.run_folder import RunFolder, write_bytes
from saccade.terminal import Terminal
from saccade.threads import calm_openmp


class ImageClassifier:
    """Trains on a folder (or list) of labelled images and answers with the certified `model.onnx`.

    Keyword arguments are recipe fields: short names as on the command line (`backbone`, `epochs`,
    `image_size`, ...) or full ones with two underscores (`train__batch_size`). `recipe` names a TOML file,
    `out` the run folder (default: a temporary one that lives as long as this object).

    >>> model = ImageClassifier(backbone="small_cnn", epochs=3)  # doctest: +SKIP
    >>> model.fit("photos/").predict(["a.jpg"])                  # doctest: +SKIP
    ['tulip']
    """

    def __init__(self, *, recipe: str = "", out: str = "", quiet: bool = True, **fields: Any) -> None:
        self.recipe = _recipe(recipe, fields)  # first: what is refused changes nothing
        self.recipe_file = recipe
        self.out = out
        self.quiet = quiet
        self.fields = fields

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments, as scikit-learn's `clone` wants them."""
        return {"recipe": self.recipe_file, "out": self.out, "quiet": self.quiet, **self.fields}

    def set_params(self, **changes: Any) -> ImageClassifier:
        """Change constructor arguments; what was fitted is forgotten."""
        self.__init__(**{**self.get_params(), **changes})  # type: ignore[misc]
        self.__dict__.pop("run_", None)
        return self

    def fit(self, data: str | Path, y: None = None) -> ImageClassifier:
        """Audit, split, train, evaluate, export and report, as `saccade train` does; raises SaccadeError."""
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
        """The most probable class of each image: paths, uint8 arrays (height, width, 3) or Pillow images."""
        return list(self._predictor.predict(images))

    def predict_proba(self, images: Any) -> NDArray[np.float64]:
        """(images, classes) probabilities, columns in the order of `classes_`."""
        return np.asarray(self._predictor.predict_proba(images))

    def evaluate(self, data: str | Path) -> Metrics:
        """Figures on labelled images that were not trained on; `.accuracy` has value, low and high."""
        from saccade import pipeline

        measured = pipeline.evaluate(str(self._run.root), str(data), self._terminal)
        return next(measured[part] for part in ("test", "validation", "train") if part in measured)

    def score(self, data: str | Path, y: None = None) -> float:
        """Accuracy on labelled images."""
        return self.evaluate(data).accuracy.value

    def export(self, path: str | Path) -> Path:
        """Copy the certified `model.onnx` to `path`, its certificate beside it."""
        from saccade.run_folder import certificate_beside

        target = Path(path)
        write_bytes(target, self._run.read(self._run.onnx))
        write_bytes(certificate_beside(target), self._run.read(self._run.certificate()))
        return target

    def report(self, path: str | Path) -> Path:
        """Copy the self-contained report to `path`."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._run.report, target)
        return target

    @property
    def _run(self) -> RunFolder:
        if "run_" not in self.__dict__:
            raise RunError("this ImageClassifier is not fitted yet; call fit(data) first")
        return self.run_

    @property
    def _predictor(self) -> Any:
        from saccade.predict import Predictor

        if getattr(self, "_loaded_from", None) != self._run.onnx:
            self._loaded, self._loaded_from = Predictor(self._run.onnx), self._run.onnx
        return self._loaded

    @property
    def _terminal(self) -> Terminal:
        return Terminal(quiet=self.quiet)


def _recipe(file: str, fields: dict[str, Any]) -> Recipe:
    """Short names become the fields they stand for; precedence as on the command line."""
    short = {name.replace("-", "_"): field for name, field in SHORT_FLAGS.items()}
    values = {short.get(name, name.replace("__", ".")): value for name, value in fields.items()}
    if len(values) < len(fields):
        raise RecipeError(
            f"one field is given twice, by its short and its full name: {', '.join(sorted(fields))}"
        )
    return merged_recipe(values, read_recipe_file(file) if file else {}, where="ImageClassifier")
