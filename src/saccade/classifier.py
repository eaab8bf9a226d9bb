"""`ImageClassifier`: the pipeline with a scikit-learn interface; it calls what the command line calls."""

from __future__ import annotations

import contextlib
import copy
import itertools
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade import extensions, labelled
from saccade.arguments import (
    OWN,
    check_own,
    file_values,
    in_python,
    in_words_of_python,
    own_functions,
    refuse_unknown,
)
from saccade.errors import OtherRunError, RecipeError, RunError
from saccade.labelled import Columns, Labelled
from saccade.notebook.progress import terminal_for
from saccade.notebook.views import Views
from saccade.recipe import SHORT_FLAGS, Recipe, merged_recipe
from saccade.records import Metrics
from saccade.run_folder import RunFolder, certificate_beside, existing_run, write_bytes
from saccade.scikit import Estimator, SetByFit, parameters
from saccade.terminal import Terminal, warn_caller
from saccade.threads import calm_openmp

if TYPE_CHECKING:
    from saccade.predict import Answer


class ImageClassifier(Views, Estimator):
    """Trains on labelled images and predicts with the certified `model.onnx`; a scikit-learn classifier.

    backbone: name of a network (`saccade backbones`), "package.module:function", or a function
    `build(classes, *, weights, **options) -> nn.Module` of your own (docs/extending.md).
    recipe: path of a TOML file with recipe fields, or a `Recipe`.
    out: the run folder; "" is a temporary one that lives as long as this object.
    quiet: whether nothing is said while it trains; None is to be quiet everywhere but in a notebook.
    callbacks: watchers, `saccade.training.Callback` each; they see copies and change nothing.
    weights, pretrained, head, method, epochs, lr, finetune_lr, head_epochs, unfreeze, optimizer, loss,
    schedule, image_size, channels, batch_size, augment, seed, device, precision, average_with_pretrained,
    time_limit, checkpoint_every, max_latency_ms, accept_licence, folds, group, group_pattern, multi_label,
    label_delimiter, label_columns, target_precision, coverage, drop_empty, decisions, repair_split,
    allow_leaks: as on the command line (docs/recipe.md); they win over the recipe's file, and None is its
    default.
    fields: any other field of the recipe, with two underscores for the dot (`train__weight_decay`).

    The constructor keeps what it is given; `fit` checks it. After `fit`: `classes_` (labels, in the order of
    the columns of probabilities) and `run_` (the run folder). A pickle of a fitted one holds its model.

    >>> model = ImageClassifier(backbone="fast_cnn", epochs=4, batch_size=8).fit("photos/")
    >>> model.classes_.tolist()
    ['blue', 'green', 'red']
    """

    backbone: Any
    recipe: Any
    out: str
    quiet: bool | None
    callbacks: Sequence[Any] | None
    group: Any
    classes_: Any = SetByFit()
    run_: RunFolder = SetByFit()  # type: ignore[assignment]

    def __init__(
        self,
        backbone: Any = None,
        *,
        weights: Any = None,
        pretrained: Any = None,
        head: Any = None,
        method: Any = None,
        epochs: Any = None,
        lr: Any = None,
        finetune_lr: Any = None,
        head_epochs: Any = None,
        unfreeze: Any = None,
        optimizer: Any = None,
        loss: Any = None,
        schedule: Any = None,
        image_size: Any = None,
        channels: Any = None,
        batch_size: Any = None,
        augment: Any = None,
        seed: Any = None,
        device: Any = None,
        precision: Any = None,
        average_with_pretrained: Any = None,
        time_limit: Any = None,
        checkpoint_every: Any = None,
        max_latency_ms: Any = None,
        accept_licence: Any = None,
        folds: Any = None,
        group: Any = None,
        group_pattern: Any = None,
        multi_label: Any = None,
        label_delimiter: Any = None,
        label_columns: Any = None,
        target_precision: Any = None,
        coverage: Any = None,
        drop_empty: Any = None,
        decisions: Any = None,
        repair_split: Any = None,
        allow_leaks: Any = None,
        recipe: Any = "",
        out: str = "",
        quiet: bool | None = None,
        callbacks: Sequence[Any] | None = None,
        **fields: Any,
    ) -> None:
        given = locals()
        for name in parameters(ImageClassifier):
            setattr(self, name, given[name])
        self._fields = fields

    # -- training ---------------------------------------------------------------------------------------

    def fit(
        self,
        data: Any,
        y: Any = None,
        *,
        groups: Any = None,
        path: str | int = "",
        label: str | int | Sequence[str] = "",
        group: str | int = "",
        part: str | int = "",
        root: str | Path = "",
    ) -> ImageClassifier:
        """Audit, split, train, evaluate, export and report, as `saccade train` does; returns this object.

        data: a folder with a folder for each class, a list or an archive (docs/data.md); or images, as paths,
        uint8 arrays, Pillow images, bytes or open files; or a data frame. y: the label of each image, as
        text, whole numbers or booleans; without it the folder of a path is its class. Where an image may have
        several labels: a list of names for each, a matrix of 0 and 1, or a data frame of such columns
        (docs/multi-label.md). groups: what images belong to (a patient, a site); a group never stands in two
        parts of the split. path, label, group, part: columns of a data frame, or of a list that is a file; by
        default path, label and, where there is one, group; a list of labels names columns of 0 and 1. root:
        folder in which relative paths begin; a data frame has these columns and this root again in `predict`,
        `score` and so on.

        Images that are given so are written down as a data set in the run folder (`inputs/`): they pass
        through the same audit and the same split as files. Raises SaccadeError. A data frame's example:

        >>> import pandas
        >>> table = pandas.DataFrame({"file": [f"{c}/{n}.png" for c in ("red", "blue") for n in range(16)]})
        >>> table["colour"] = [name.split("/")[0] for name in table["file"]]
        >>> tables = ImageClassifier(backbone="fast_cnn", epochs=4, batch_size=8)
        >>> tables.fit(table, path="file", label="colour", root="photos").classes_.tolist()
        ['blue', 'red']
        """
        calm_openmp()
        if labelled.is_frame(data) and isinstance(label, list | tuple):
            y, label = data[list(label)], ""
        with in_words_of_python():
            named = (path, label, group, part, root)
            self._fit(data, y, groups, Columns(*("" if name is None else str(name) for name in named)))
        return self

    def _fit(self, data: Any, y: Any, groups: Any, columns: Columns) -> None:
        check_own(self.out, self.quiet, self.callbacks)
        if labelled.is_location(data):
            labelled.refuse_labels(data, y, groups, columns.part)
            self._train(str(data), self._recipe(columns.of_list()))
        else:
            given = labelled.labelled(data, y, groups, columns)
            several = {"data.multi_label": True} if given.several else {}
            if self.group:
                raise RecipeError(
                    f"group = {self.group!r} names a column of a list in a file, and images are given",
                    hint="fit(df, group=COLUMN), or fit(images, labels, groups=VALUES)",
                )
            self._train(given, self._recipe(several))
        self._columns = columns
        self._gray_stack = getattr(data, "ndim", 0) == 3

    def _train(self, data: str | Labelled, recipe: Recipe) -> None:
        """In `out`; where that holds another run (a cell that was changed, a fold), in out-2, out-3, ..."""
        from saccade import pipeline

        callbacks = tuple(self.callbacks or ())
        for number in itertools.count(1):
            folder = f"{self.out}-{number}" if number > 1 else self.out
            with contextlib.suppress(OtherRunError), self._place(folder) as out:
                place = data if isinstance(data, str) else data.write(RunFolder(Path(out)).inputs, recipe)
                self._take(
                    pipeline.train(str(place), recipe, self._terminal, out=out, callbacks=callbacks).run
                )
                break
        if number > 1:
            warn_caller(f"{self.out} holds a run of other images or settings, so this one is in {folder}")

    def _recipe(self, extra: Mapping[str, Any] | None = None) -> Recipe:
        """Short names become the fields they stand for; precedence as on the command line.

        `extra`: dotted key -> value, given to `fit`.
        """
        short = {name.replace("-", "_"): field for name, field in SHORT_FLAGS.items()}
        given = {name: value for name, value in self.get_params().items() if name not in OWN}
        given = {name: value for name, value in given.items() if value is not None}
        refuse_unknown(self._fields, parameters(ImageClassifier))
        if callable(given.get("backbone")):
            given["backbone"] = extensions.register_function(given["backbone"])
        extensions.allow_function(given.get("backbone", given.get("model__backbone")))
        if "augment__extra" in given:
            given["augment__extra"] = own_functions(given["augment__extra"])
        values = {short.get(name, name.replace("__", ".")): value for name, value in given.items()}
        if len(values) < len(given):
            raise RecipeError(
                f"one field is given twice, by its short and its full name: {', '.join(sorted(given))}",
                hint="leave one of the two out",
            )
        values |= dict(extra or {})
        # told, not refused: a grid search goes through methods that have no use for a rate
        return merged_recipe(
            values,
            file_values(self.recipe),
            where="ImageClassifier",
            tell=lambda e: warn_caller(in_python(e.problem)),
        )

    @contextlib.contextmanager
    def _place(self, folder: str) -> Iterator[str]:
        """The run folder. A temporary one goes with this object, or when another fit takes its place."""
        if folder:
            began = RunFolder(Path(folder)).recipe.exists()
            discard: Callable[[], Any] | None = None
            out = str(folder)
        else:
            began = False
            temporary = tempfile.mkdtemp(prefix="saccade-")
            discard = weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
            out = str(Path(temporary) / "run")
        try:
            yield out
        except BaseException:
            if discard:
                discard()
            elif not began and not RunFolder(Path(out)).recipe.exists():
                _remove_inputs(RunFolder(Path(out)))
            raise
        earlier = self.__dict__.get("_discard")
        if earlier is not None:
            earlier()
        self._discard = discard

    @classmethod
    def load(cls, run: str | Path) -> ImageClassifier:
        """A fitted classifier from a run folder, or from a `model.onnx` alone; raises SaccadeError.

        run: the folder that `saccade train` or `fit` made, or the model file. From a folder it predicts,
        evaluates, exports and reports; from a file it predicts, scores and exports.

        >>> ImageClassifier.load("model.onnx").predict(["photos/red/0.png"]).tolist()
        ['red']
        """
        from saccade.predict import Predictor, model_file

        folder = existing_run(run) if Path(run).is_dir() else None
        model = cls(recipe=str(folder.recipe)) if folder else cls()
        file = model_file(Path(run))
        Predictor(file)  # refuses a file that is no model, or is not that of its certificate
        if folder:
            model._take(folder)
        else:
            files = {"model.onnx": file, "certificate.json": certificate_beside(file)}
            model._take_files({name: at.read_bytes() for name, at in files.items() if at.is_file()})
        return model

    # -- answers ----------------------------------------------------------------------------------------

    def predict(self, images: Any, *, root: str | Path | None = None) -> NDArray[Any]:
        """(images,) the most probable label of each image, of the type that labels had in `fit`.

        Where an image may have several labels: (images, classes) 1 for each that it has, else 0, columns in
        the order of `classes_`, as scikit-learn has it.

        images: paths, folders, uint8 arrays (height, width, 3) or gray (height, width), Pillow images, or the
        content of image files; one or a list of them; or a data frame with the columns of `fit`. root:
        folder in which relative paths begin; None is the current one, and for a data frame that of `fit`.
        Raises DataError for an image that cannot be used.

        >>> model.predict(["photos/red/0.png", "photos/blue/1.png"]).tolist()
        ['red', 'blue']
        """
        found = self.predict_proba(images, root=root)  # first: it says when nothing is fitted
        if (limits := self._predictor.artefact.thresholds) is not None:
            return (found >= np.array(limits)[self._order]).astype(np.int64)
        best = found.argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, images: Any, *, root: str | Path | None = None) -> NDArray[np.float64]:
        """(images, classes) probabilities, columns in the order of `classes_`.

        images, root: as for `predict`.

        >>> model.predict_proba("photos/red/0.png").shape
        (1, 3)
        """
        probabilities = np.asarray(self._predictor.predict_proba(self._images(images, root)))
        return probabilities[:, self._order]

    def answers(self, images: Any, *, root: str | Path | None = None) -> Iterator[Answer]:
        """One `saccade.predict.Answer` an image, in order; one that cannot be used has an `error` instead.

        images, root: as for `predict`.

        >>> [answer.predicted for answer in model.answers(["photos/red/0.png"])]
        ['red']
        """
        found: Iterator[Answer] = self._predictor.answers(self._images(images, root))
        return found

    def evaluate(self, data: Any, y: Any = None, *, root: str | Path | None = None) -> Metrics:
        """Metrics on labelled images that were not trained on.

        data, y: as for `fit`. root: as for `predict`. `.accuracy` of what is returned has value, low and high
        (95 % interval).

        >>> model.evaluate("new_photos/").accuracy.value
        1.0
        """
        with in_words_of_python():
            return self._evaluate(data, y, root)

    def _evaluate(self, data: Any, y: Any, root: str | Path | None) -> Metrics:
        from saccade import pipeline, sources

        run = str(self._run.root)
        if labelled.is_location(data):
            labelled.refuse_labels(data, y)
            columns = sources.Columns(root=str(root or ""))
            measured = pipeline.evaluate(run, str(data), self._terminal, columns=columns)
        else:
            given = labelled.labelled(data, y, columns=self._columns_for(data, y, root))
            with tempfile.TemporaryDirectory(prefix="saccade-") as folder:
                place = given.write(Path(folder) / "images", self._run.read_recipe())
                measured = pipeline.evaluate(run, str(place), self._terminal)
        return next(measured[part] for part in ("test", "validation", "train") if part in measured)

    def score(
        self, data: Any, y: Any = None, sample_weight: Any = None, *, root: str | Path | None = None
    ) -> float:
        """Accuracy on labelled images, 0 to 1; of several labels, the share of images with all of them right.

        data: as for `fit`. y: the label of each image; with it the images are predicted and nothing else. A
        folder or list goes through `evaluate`. sample_weight: of each image, as scikit-learn has it.
        root: as for `predict`. Only `evaluate` warns where images were trained on.

        Images that cannot be read do not count, and a warning says how many; so does one for labels that the
        model does not know, which count as wrong. DataError where a path does not exist or no image counts.

        >>> model.score("new_photos/"), model.score(["new_photos/red/0.png"], ["red"])
        (1.0, 1.0)
        """
        if labelled.is_location(data):
            return self.evaluate(data, y, root=root).accuracy.value
        predictor = self._predictor
        given = labelled.labelled(data, y, columns=self._columns_for(data, y, root))
        return labelled.accuracy(predictor, given, sample_weight)

    def _columns_for(self, data: Any, y: Any, root: str | Path | None) -> Columns:
        """A data frame has columns and root of `fit`; other paths begin in the current folder."""
        columns = self.__dict__.get("_columns", Columns()) if labelled.is_frame(data) else Columns()
        label = columns.label if y is None else ""
        return Columns(columns.path, label, root=columns.root if root is None else str(root))

    def _images(self, data: Any, root: str | Path | None) -> Any:
        """What the predictor takes: a data frame's column, paths below `root`, a stack of gray images."""
        columns = self._columns_for(data, None, root)
        if labelled.is_frame(data):
            return labelled.images_of_frame(data, columns)
        if self.__dict__.get("_gray_stack") and getattr(data, "ndim", 0) == 3:
            return list(data)
        return labelled.below(columns.root, data)

    # -- what is left behind ----------------------------------------------------------------------------

    def export(self, path: str | Path) -> Path:
        """Copy the certified `model.onnx` to `path`, its certificate beside it; returns the path.

        >>> model.export("model.onnx").name
        'model.onnx'
        """
        target = Path(path)
        files = self._files
        write_bytes(target, files["model.onnx"])
        if "certificate.json" in files:
            write_bytes(certificate_beside(target), files["certificate.json"])
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

    # -- within -----------------------------------------------------------------------------------------

    def _take(self, run: RunFolder) -> None:
        """This is fitted now, by what lies in a run folder."""
        from saccade.sources.in_python import is_inputs, kind_of_labels

        self.run_ = run
        self.__dict__.pop("_kept", None)  # of an earlier run
        files = {path.name: run.read(path) for path in (run.onnx, run.certificate()) if run.has(path)}
        classes = run.read_model()["classes"]
        kind = kind_of_labels(run.inputs) if is_inputs(run.inputs) else ""
        self._take_files(files, classes, kind)

    def _take_files(self, files: dict[str, bytes], classes: Sequence[str] = (), kind: str = "") -> None:
        """This is fitted now, by the files of a model. `kind` is the type of labels that came from Python."""
        from saccade.predict import Predictor

        self._exported = files
        self._loaded = Predictor.of_bytes(files["model.onnx"], name="model.onnx") if files else None
        names = self._loaded.classes if self._loaded else tuple(classes)
        # scikit-learn wants labels sorted; those of a folder keep their natural order (2 before 10)
        self._order = labelled.class_order(names, kind) if kind else list(range(len(names)))
        self.classes_ = labelled.label_values([names[i] for i in self._order], kind or "str")

    def set_params(self, **changes: Any) -> ImageClassifier:
        """Change arguments; raises RecipeError for an unknown one, which stops a search before its first fit.

        changes: name -> value, as for the constructor.

        >>> ImageClassifier().set_params(learning_rate=0.1)
        Traceback (most recent call last):
        saccade.errors.RecipeError: ImageClassifier: unknown key 'learning_rate'
        hint: did you mean 'lr'?
        """
        refuse_unknown(changes, parameters(ImageClassifier))
        return super().set_params(**changes)

    @property
    def _files(self) -> Mapping[str, bytes]:
        """Name -> content of the exported model and its certificate; raises RunError where there is none."""
        _ = self.classes_  # raises NotFittedError
        if not self._exported:
            raise RunError(
                "this run exported no model (export.onnx is false)", hint="fit with export__onnx=True"
            )
        return self._exported

    @property
    def _predictor(self) -> Any:
        from saccade.predict import Predictor

        files = self._files
        if self.__dict__.get("_loaded") is None:
            self._loaded = Predictor.of_bytes(files["model.onnx"], name="model.onnx")
        return self._loaded

    @property
    def _run(self) -> RunFolder:
        if not self.run_.root.is_dir():
            raise RunError(
                f"the run folder is gone: {self.run_.root}",
                hint="predict, score and export go on without it; to keep it, fit with out=FOLDER",
            )
        return self.run_

    @property
    def _terminal(self) -> Terminal:
        return terminal_for(self.quiet)

    def __getstate__(self) -> dict[str, Any]:
        """A fitted one leaves functions and callbacks behind, which another process may not have."""
        state = self._copied()
        if "classes_" in state:
            name = extensions.function_name(self.backbone) if callable(self.backbone) else self.backbone
            state |= {"backbone": name, "callbacks": None}
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> ImageClassifier:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(copy.deepcopy(self._copied(), memo))
        return twin

    def _copied(self) -> dict[str, Any]:
        """Copies and pickles share the run folder, while it is there, and open the model for themselves."""
        state = {name: value for name, value in self.__dict__.items() if name not in ("_discard", "_loaded")}
        return state | self._taken_along()


def _remove_inputs(run: RunFolder) -> None:
    """A refusal leaves nothing behind."""
    shutil.rmtree(run.inputs, ignore_errors=True)
    with contextlib.suppress(OSError):
        run.root.rmdir()
