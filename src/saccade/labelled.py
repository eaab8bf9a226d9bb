"""Images and labels as people hold them in Python (lists, arrays, data frames), checked, as plain lists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.errors import DataError
from saccade.images import given
from saccade.images.decoder import Limits
from saccade.label_sets import join_labels, split_labels
from saccade.recipe import Recipe
from saccade.sources.in_python import write_inputs
from saccade.sources.naming import some
from saccade.terminal import printable, warn_caller

if TYPE_CHECKING:
    from saccade.predict import Answer, Predictor

SHOWN = 3
LABEL_TYPES = {"str": str, "bool": bool, "int": int}


@dataclass(frozen=True)
class Columns:
    """Which columns of a data frame or list hold what, and the folder in which its paths begin."""

    path: str = ""
    label: str = ""
    group: str = ""
    part: str = ""
    root: str = ""

    def given(self) -> list[str]:
        """Names of those that were said."""
        return [name for name, value in vars(self).items() if value]

    def of_list(self) -> dict[str, str]:
        """The fields of the recipe that say so of a list in a file."""
        fields = {"path": "data.path_column", "label": "data.label_column", "group": "split.group"}
        return {fields.get(name, f"data.{name}"): getattr(self, name) for name in self.given()}


@dataclass(frozen=True)
class Labelled:
    """Images with a label each: paths (text), or what `saccade.images.given` takes.

    `kind` is the type that labels have for the user: str, bool or int. `groups` and `parts` are empty or have
    one an image. `several`: each label is a set of names (`saccade.label_sets`).
    """

    images: list[Any]
    labels: list[str] = field(default_factory=list)
    kind: str = "str"
    groups: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    several: bool = False

    def write(self, folder: Path, recipe: Recipe) -> Path:
        """Make `folder` a data set of them; returns it."""
        limits = Limits.of(recipe.data)
        write_inputs(
            folder,
            self.images,
            self.labels,
            kind=self.kind,
            several=self.several,
            groups=self.groups,
            parts=self.parts,
            limits=limits,
        )
        return folder


def is_location(data: Any) -> bool:
    """Whether this is one folder, list or archive by name."""
    return isinstance(data, str | os.PathLike)


def is_single(data: Any) -> bool:
    """Whether this is one image: a path, the content of a file, an array of pixels."""
    single = is_location(data) or given.is_encoded(data)
    return single or (isinstance(data, np.ndarray) and data.dtype.kind not in "OSU" and data.ndim < 4)


def is_frame(data: Any) -> bool:
    """Whether this has named columns: pandas, polars and what is like them."""
    return hasattr(data, "columns") and hasattr(data, "__getitem__") and not isinstance(data, np.ndarray)


def labelled(data: Any, y: Any = None, groups: Any = None, columns: Columns = Columns()) -> Labelled:
    """Images, labels and groups of lists, arrays or a data frame; raises DataError for what does not fit.

    Without labels the folder of each path is its class.

    >>> labelled(["rose/a.jpg", "tulip/b.jpg"]).labels
    ['rose', 'tulip']
    >>> labelled(["a.jpg", "b.jpg"], [3, 4]).kind
    'int'
    """
    if is_frame(data):
        return _of_frame(data, y, groups, columns)
    if said := [name for name in columns.given() if name != "root"]:
        raise DataError(
            f"{', '.join(said)}: columns are named, but a {type(data).__name__} has none",
            hint="give a data frame, or images and labels: fit(images, labels, groups=...)",
        )
    images = image_list(data, columns.root)
    return _checked(images, _folders(images) if y is None else y, groups, None)


def refuse_labels(location: Any, y: Any, groups: Any = None, part: str = "") -> None:
    """Raise DataError where labels, groups or parts are given beside a folder, list or archive."""
    if y is not None or groups is not None or part:
        raise DataError(
            f"{location} brings its own labels, groups and parts; also given: y, groups or part",
            hint="give images and labels, or name the columns of a list: path=, label=, group=, root=",
        )


def refuse_unordered(values: Any, what: str = "images") -> None:
    """Raise DataError for a set or a dict: which label belongs to which image would be chance."""
    if isinstance(values, set | frozenset | Mapping):
        raise DataError(f"a {type(values).__name__} is no list of {what}", hint=f"give {what} in a list")


def below(root: str, images: Any) -> Any:
    """Paths begin in `root`, one alone or those of a list; what is no path stays as it is."""
    refuse_unordered(images)
    if not root or (is_single(images) and not is_location(images)):
        return images
    return _below(root, images) if is_location(images) else image_list(images, root)


def image_list(data: Any, root: str = "") -> list[Any]:
    """One entry an image; paths as text, below `root`. Raises DataError for what is no list of images."""
    refuse_unordered(data)
    if isinstance(data, np.ndarray) and data.dtype.kind in "OSU":
        data = data.ravel()
    several = isinstance(data, np.ndarray) or (isinstance(data, Iterable) and not given.is_encoded(data))
    if not several or isinstance(data, str) or getattr(data, "ndim", 1) == 0:
        raise DataError(
            f"a {type(data).__name__} is no list of images",
            hint="give a folder, or a list of paths, arrays, Pillow images or bytes",
        )
    images = _plain(data, keep_arrays=True)
    if not images:
        raise DataError("no images are given: the list is empty", hint="give at least two classes of images")
    _refuse_missing(data, images, "images")
    return [_below(root, image) for image in images]


def _below(root: str, image: Any) -> Any:
    if isinstance(image, str | os.PathLike):
        return os.path.join(root, os.fsdecode(image)) if root else os.fsdecode(image)
    return image


def _of_frame(frame: Any, y: Any, groups: Any, columns: Columns) -> Labelled:
    if y is not None and columns.label:
        raise DataError(f"labels are given twice: as y and as column {columns.label!r}", hint="give one")
    if groups is not None and columns.group:
        raise DataError(
            f"groups are given twice: as groups= and as column {columns.group!r}", hint="give one"
        )
    images = images_of_frame(frame, columns)
    y = column(frame, columns.label or "label") if y is None else y
    if groups is None and (columns.group or "group" in names_of(frame)):
        groups = column(frame, columns.group or "group")
    return _checked(images, y, groups, column(frame, columns.part) if columns.part else None)


def images_of_frame(frame: Any, columns: Columns) -> list[Any]:
    """The column of paths, below `root`: the one that was named, or the only one, or "path"."""
    names = names_of(frame)
    paths = column(frame, columns.path or (names[0] if len(names) == 1 else "path"))
    _refuse_missing(paths, _plain(paths), "paths")
    return image_list(_plain(paths), columns.root)


def names_of(frame: Any) -> list[str]:
    """Column names of a data frame."""
    return [str(name) for name in frame.columns]


def column(frame: Any, name: str) -> Any:
    """A column, by its name as text; raises DataError, with the names there are, where it is absent."""
    if name not in names_of(frame):
        raise DataError(
            f"the data frame has no column {name!r}; its columns are: {', '.join(names_of(frame))}",
            hint="name them: fit(df, path=..., label=..., group=...)",
        )
    values = frame[list(frame.columns)[names_of(frame).index(name)]]
    if getattr(values, "ndim", 1) != 1:
        raise DataError(f"the data frame has several columns {name!r}", hint="give each a name of its own")
    return values


def _plain(values: Any, *, keep_arrays: bool = False) -> list[Any]:
    """Python's own values: of arrays, Series of pandas and polars, or any iterable."""
    if keep_arrays and isinstance(values, np.ndarray) and values.dtype.kind not in "OSU":
        return list(values)
    for name in ("to_list", "tolist"):
        if hasattr(values, name):
            return list(getattr(values, name)())
    return list(values)


def _folders(images: Sequence[Any]) -> list[str]:
    """The folder of each path, which is its class where no labels are given."""
    unnamed = [image for image in images if not isinstance(image, str)]
    if unnamed:
        raise DataError(
            f"{len(unnamed):,} of {len(images):,} images have neither label nor path",
            hint="give labels: fit(images, labels)",
        )
    return [Path(image).absolute().parent.name for image in images]


def _checked(images: list[Any], y: Any, groups: Any, parts: Any) -> Labelled:
    several = are_sets(y)
    labels, kind = label_sets(y, len(images)) if several else label_names(y, len(images))
    return Labelled(
        images,
        labels,
        kind,
        [] if groups is None else _names(groups, "groups", len(images)),
        [] if parts is None else ["" if _missing(part) else str(part) for part in _plain(parts)],
        several,
    )


def are_sets(y: Any) -> bool:
    """Whether labels are several an image: lists of names, a matrix of 0 and 1, a data frame of such columns.

    >>> are_sets([["cat", "dog"], []]), are_sets(np.eye(3)), are_sets(["cat", "dog"])
    (True, True, False)
    """
    if is_frame(y):
        return len(y.columns) > 1
    if isinstance(y, np.ndarray):
        return (y.ndim == 2 and y.shape[1] > 1) or (y.dtype == object and _of_sets(y.ravel()))
    return not isinstance(y, str | bytes | Mapping) and hasattr(y, "__iter__") and _of_sets(_plain(y))


def _of_sets(values: Iterable[Any]) -> bool:
    found = list(values)
    return bool(found) and all(isinstance(one, list | tuple | set | frozenset | np.ndarray) for one in found)


def label_sets(y: Any, count: int) -> tuple[list[str], str]:
    """The names of each image in one text (`saccade.label_sets`), and which type labels have: str or int.

    y: lists of names; or 0 and 1, (images, classes), as an array, lists of equal length, or a data frame
    whose columns are the names. count: how many images there are. Raises DataError for what is neither.

    >>> label_sets([["cat", "dog"], []], 2), label_sets(np.array([[1, 0, 1], [0, 1, 0]]), 2)
    ((['cat,dog', ''], 'str'), (['0,2', '1'], 'int'))
    """
    names = names_of(y) if is_frame(y) else None
    held = list(y.to_numpy() if is_frame(y) else y)
    rows = [_plain(row) for row in held]
    if len(rows) != count:
        raise DataError(f"{count:,} images, but {len(rows):,} labels", hint="give labels one an image")
    if names is not None or (isinstance(y, np.ndarray) and y.ndim == 2) or _are_indicators(held):
        return _of_indicators(rows, names)
    flat = [name for row in rows for name in row]
    texts, kind = label_names(flat, len(flat)) if flat else ([], "str")
    read = iter(texts)
    return [join_labels(dict.fromkeys(next(read) for _ in row)) for row in rows], kind


def _are_indicators(rows: list[Any]) -> bool:
    """Whether lists are rows of 0 and 1, of one length above 1; a set has no order, so it holds names.

    As names they would give every image both classes, or one class twice.
    """
    if any(isinstance(row, set | frozenset) for row in rows) or len({len(row) for row in rows}) != 1:
        return False
    values = [value for row in rows for value in _plain(row)]
    return len(rows[0]) > 1 and all(np.isscalar(value) and value in (0, 1) for value in values)


def _of_indicators(rows: list[list[Any]], names: list[str] | None) -> tuple[list[str], str]:
    """Rows of 0 and 1; without `names` the classes are whole numbers from 0 on."""
    for number, row in enumerate(rows):
        if odd := [value for value in row if value not in (0, 1)]:
            raise DataError(
                f"row {number} of the labels holds {printable(str(odd[0]))!r}, not 0 or 1",
                hint="give 1 where an image has the label, else 0; or lists of names",
            )
    own = names or [str(column) for column in range(len(rows[0]) if rows else 0)]
    held = ([name for name, value in zip(own, row, strict=True) if value] for row in rows)
    return [join_labels(labels) for labels in held], "int" if names is None else "str"


def label_names(y: Any, count: int) -> tuple[list[str], str]:
    """The name of each label, and which type labels have: str, bool or int.

    count: how many there must be. Raises DataError for missing, mixed and continuous ones.

    >>> label_names([True, False], 2)
    (['True', 'False'], 'bool')
    """
    values = _values(y, "labels", count)
    kinds = {_kind(value) for value in values}
    if len(kinds) > 1:
        raise DataError(
            f"labels are of several types: {', '.join(sorted(kinds))}", hint="give all of them as text"
        )
    kind = kinds.pop() if kinds else "str"
    if kind not in LABEL_TYPES:
        raise DataError(
            f"labels are of type {kind}, such as {printable(str(values[0]))}",
            hint="give class names, whole numbers or booleans, one an image",
        )
    return [str(LABEL_TYPES[kind](value)).strip() for value in values], kind


def _kind(value: Any) -> str:
    """A whole number may come as a float, as it does out of a column with gaps."""
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer()):
        return "int"
    return "str" if isinstance(value, str) else type(value).__name__


def _names(values: Any, what: str, count: int) -> list[str]:
    return [str(value).strip() for value in _values(values, what, count)]


def _values(values: Any, what: str, count: int) -> list[Any]:
    """As many as there are images, none missing; raises DataError."""
    refuse_unordered(values, what)
    if isinstance(values, str | bytes) or not (isinstance(values, Iterable) or hasattr(values, "to_list")):
        raise DataError(f"{what} are a {type(values).__name__}, not a list", hint=f"give {what} one an image")
    values = _one_column(values)
    found = _plain(values)
    if len(found) != count:
        raise DataError(f"{count:,} images, but {len(found):,} {what}", hint=f"give {what} one an image")
    _refuse_missing(values, found, what)
    return found


def _one_column(values: Any) -> Any:
    """The column of a table that has one: (images, 1), as some data frames and encoders give labels."""
    if is_frame(values) and len(values.columns) == 1:
        return column(values, names_of(values)[0])
    return values.ravel() if isinstance(values, np.ndarray) and values.shape[1:] == (1,) else values


def _refuse_missing(values: Any, found: Sequence[Any], what: str) -> None:
    """Raise DataError that names the rows, by their index where `values` has one of its own."""
    gone = [position for position, value in enumerate(found) if _missing(value)]
    if not gone:
        return
    index = list(values.index) if hasattr(values, "iloc") else range(len(found))
    by_index = "" if list(index) == list(range(len(found))) else "index "
    rows = ", ".join(str(index[position]) for position in gone[:SHOWN])
    raise DataError(
        f"{what} are missing in {len(gone):,} of {len(found):,} rows: {by_index}{printable(rows)}"
        f"{' ...' if len(gone) > SHOWN else ''}",
        hint="fill them in, or leave these rows out",
    )


def _missing(value: Any) -> bool:
    """None, NaN, pandas' NA and NaT, or empty text."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    return type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)


# -- answers ------------------------------------------------------------------------------------------------


def accuracy(predictor: Predictor, given: Labelled, weights: Any = None) -> float:
    """Accuracy on the images that can be read, 0 to 1. Warns of others, and of labels that are no class.

    weights: of each image. Raises DataError for paths that do not exist, and where no image can be read.
    """
    _refuse_absent(given.images)
    labels = [name for text in given.labels for name in split_labels(text)] if given.several else given.labels
    _warn_of_unknown(labels, predictor.classes)
    answers = list(predictor.answers(given.images))
    read = _readable(answers)
    right = np.array([_is_right(a, label) for a, label in zip(answers, given.labels, strict=True)])
    return float(np.average(right[read], weights=None if weights is None else np.asarray(weights)[read]))


def _is_right(answer: Answer, label: str) -> bool:
    """Whether an answer is the label; of several labels, all of them."""
    if answer.thresholds is None:
        return answer.predicted == label
    return set(answer.labels) == set(split_labels(label))


def _refuse_absent(images: Sequence[Any]) -> None:
    absent = [image for image in images if isinstance(image, str) and not os.path.isfile(image)]
    if absent:
        raise DataError(
            f"{len(absent):,} of the {len(images):,} images do not exist: {some(absent, most=SHOWN)}",
            hint="correct the paths (root= says where they begin), or leave these out",
        )


def _warn_of_unknown(labels: Sequence[str], classes: Sequence[str]) -> None:
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        count = sum(label in unknown for label in labels)
        warn_caller(
            f"{count:,} of {len(labels):,} labels are no class of the model and count as wrong: "
            f"{some(unknown, most=SHOWN)}; its classes are {some(classes, most=SHOWN)}",
        )


def _readable(answers: Sequence[Answer]) -> NDArray[np.bool_]:
    unread = [answer.path for answer in answers if answer.error]
    said = f"{len(unread):,} of {len(answers):,} images cannot be read"
    if len(unread) == len(answers):
        raise DataError(f"{said}: {some(unread, most=SHOWN)}", hint="`answers` says what is wrong with each")
    if unread:
        warn_caller(f"{said} and do not count: {some(unread, most=SHOWN)}")
    return np.array([not answer.error for answer in answers])


def label_values(names: Iterable[str], kind: str) -> NDArray[Any]:
    """Labels as the user gave them, of their names.

    >>> label_values(["10", "9"], "int").tolist()
    [10, 9]
    """
    if kind == "bool":
        return np.array([name == "True" for name in names], dtype=bool)
    return np.array([LABEL_TYPES[kind](name) for name in names])


def class_order(classes: Sequence[str], kind: str) -> list[int]:
    """Columns of a model's probabilities in the order that scikit-learn wants: labels sorted by value."""
    values = label_values(classes, kind)
    return sorted(range(len(classes)), key=lambda index: values[index])
