"""The recipe's fields as flags: which a command has, which its help shows, and what their values become."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from saccade import extensions
from saccade.errors import RecipeError
from saccade.recipe import SHORT_FLAGS, WITHOUT_VALUE, Recipe, field_table, merged_recipe, read_recipe_file
from saccade.terminal import shown_default

_LIST = (
    *("data.path_column", "data.label_column", "data.root"),
    *("data.multi_label", "data.label_delimiter", "data.label_columns"),
)
_READING = (
    *_LIST,
    *("data.drop_empty", "data.max_pixels", "data.background", "data.gray_maximum", "data.decisions"),
    *("data.channels", "data.bits"),
)
_FINDING = ("split.group", "split.group_pattern", "split.near_duplicates", "split.validation", "split.test")
_FLIPPING = (
    *("augment.policy", "augment.steps", "evaluate.flip"),
    *("augment.horizontal_flip", "augment.vertical_flip", "augment.rotation"),
)
_DIVIDING = ("seed", "split.repair", "split.allow_leaks")
_SHOWING = (
    *("model.backbone", "model.pretrained", "model.weights", "model.options", "data.image_size"),
    *("data.resize", "data.interpolation", "data.crop_fraction", "data.mean", "data.std"),
)
_TESTING = tuple(
    f"train.{name}"
    for name in (
        *("method", "unfreeze", "batch_size", "accumulate", "lr", "optimizer", "momentum", "weight_decay"),
        *("layer_decay", "gradient_clip", "gradient_clip_by", "label_smoothing", "class_weights"),
        *("workers", "cache_images"),
    )
)
# command -> the fields that it uses; `train` uses all
CONCERNS: dict[str, frozenset[str]] = {
    "audit": frozenset((*_READING, *_FINDING, *_FLIPPING)),
    "split": frozenset((*_READING, *_FINDING, *_DIVIDING)),
    "augment": frozenset(
        key
        for key, *_ in field_table()
        if key in (*_READING, *_FINDING, *_DIVIDING, *_SHOWING) or key.startswith("augment.")
    ),
    "lr": frozenset(
        key
        for key, *_ in field_table()
        if key.startswith(("data.", "split.", "augment.", "model."))
        or key in (*_TESTING, "seed", "device", "precision")
    ),
    # a limit on latency is the search's own, which holds for each of its trials
    "search": frozenset(
        key for key, *_ in field_table() if key not in ("model.max_latency_ms", "split.folds")
    ),
}
_NAMING = (*_LIST, "split.group", "split.group_pattern", "data.drop_empty")
# What --help shows; --help-all shows every one.
USUAL: dict[str, tuple[str, ...]] = {
    "train": (
        *("model.backbone", "model.weights", "train.method", "train.epochs", "train.lr", "train.batch_size"),
        *("train.time_limit", "data.image_size", "augment.policy", "split.group", "device"),
    ),
    "search": (
        *("train.time_limit", "train.method", "model.weights", "data.image_size", "split.group", "seed"),
    ),
    "audit": (*_NAMING, "data.decisions"),
    "split": (*_NAMING, "split.validation", "split.test", "split.repair", "seed"),
    "augment": (*_LIST, "augment.policy", "data.image_size", "seed"),
    "lr": ("model.backbone", "model.weights", "train.method", "train.optimizer", "train.batch_size", "seed"),
}
SECTIONS = {
    "run": "Run",
    "data": "Data",
    "split": "Split",
    "augment": "Augmentation",
    "model": "Model",
    "train": "Training",
    "evaluate": "Evaluation",
    "export": "Export",
}
LONGEST_CHOICE = 40  # letters
_SHORT = {field: flag for flag, field in SHORT_FLAGS.items()}


def concerns(command: str, key: str) -> bool:
    """Whether the field `key` changes anything in what `command` does."""
    return command not in CONCERNS or key in CONCERNS[command]


def recipe_parameters(command: str) -> list[inspect.Parameter]:
    """One keyword for each field that concerns `command`, under its full and its short name."""
    return [
        _parameter(key, kind, default, text, names=names_of(key))
        for key, kind, default, text in field_table()
        if concerns(command, key)
    ]


def usual_parameters(command: str) -> list[inspect.Parameter]:
    """What `--help` shows: the usual fields by their short names, with one sentence each."""
    rows = {row[0]: row for row in field_table()}
    parameters = []
    for key in USUAL[command]:
        _, kind, default, text = rows[key]
        names = names_of(key)[-1:]
        parameters.append(_parameter(key, kind, default, _first_sentence(text), names=names, short=True))
    return parameters


def has_more(command: str) -> bool:
    """Whether `--help-all` shows more than `--help`."""
    return command in USUAL


def chosen_recipe(command: str, flags: Mapping[str, Any], file: str) -> tuple[Recipe, list[str]]:
    """The recipe (flag before file before default), and the fields of the file that `command` does not use.

    flags: values as typed, by field name with `__` for the dot; None where a flag was not given.
    file: path of a TOML file, or "".
    """
    given = {name.replace("__", "."): text for name, text in flags.items() if text is not None}
    values = {key: _value(key, text) for key, text in given.items()}
    extensions.allow_function(given.get("model.backbone"))
    for name in (*values.get("augment.extra", ()), *values.get("augment.steps", ())):
        extensions.allow_function(name, "augmentations")
    where = f"flags and {file}" if file and values else file
    recipe = merged_recipe(values, read_recipe_file(file) if file else {}, where=where, file=file)
    return recipe, sorted(key for key in recipe.given if not concerns(command, key))


def names_of(key: str) -> list[str]:
    """The flag with the field's full name and, last, the short one where there is one."""
    short = _SHORT.get(key, key)
    return [f"--{key}", *([f"--{short}"] if short != key else [])]


def negative(names: Iterable[str]) -> list[str]:
    return [f"--no-{name.removeprefix('--')}" for name in names]


def section_of(parameter: inspect.Parameter) -> str:
    """The title of the section that the field of a parameter stands in."""
    section, dot, _ = parameter.name.partition("__")
    return SECTIONS[section if dot else "run"]


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".") + "."


def _parameter(
    key: str, kind: str, default: Any, text: str, *, names: list[str], short: bool = False
) -> inspect.Parameter:
    """`short`: where the names that it takes fill a line, NAME stands for them."""
    if kind == "bool" and default:
        text = f"{text} [on; off: {negative(names)[-1]}]"
    parameter = Parameter(
        name=names,
        help=text if _is_nothing(default, kind) else f"{text} [{shown_default(default)}]",
        negative=negative(names) if kind == "bool" else "",
        metavar="NAME" if short and len(_metavar(key, kind)) > LONGEST_CHOICE else _metavar(key, kind),
    )
    annotation = Annotated[(bool if kind == "bool" else str) | None, parameter]  # type: ignore[valid-type]
    name = key.replace(".", "__")
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _is_nothing(default: Any, kind: str) -> bool:
    """Whether a default says nothing: what is empty, 0 where that means off, a switch."""
    return kind == "bool" or default in ("", {}) or (kind == "float" and not default)


_TEXTS = {"model.backbone": "NAME", "model.weights": "FILE", "data.root": "DIR", "data.decisions": "FILE"}
_TEXTS |= dict.fromkeys(("data.path_column", "data.label_column", "split.group"), "COLUMN")
_TEXTS |= {"data.label_delimiter": "MARK", "data.label_columns": "COLUMN,..."}
_TEXTS |= {"train.checkpoint_every": "TIME|auto"}


def _metavar(key: str, kind: str) -> str:
    """How the value of a field is written.

    >>> _metavar("train.epochs", "int | auto"), _metavar("evaluate.top_k", "int,...")
    ('INT|auto', 'INT,...')
    """
    spelt = _TEXTS.get(key, {"bool": "", "dict": "NAME=VALUE,...", "str": "TEXT"}.get(kind))
    if spelt is not None:
        return spelt
    words = (",".join(_TYPES.get(part, part) for part in word.split(",")) for word in kind.split(" | "))
    return "|".join(words)


_TYPES = {"table": "NAME", "int": "INT", "float": "FLOAT", "bool": "true|false", "dict": "NAME=VALUE,..."}
_PAIRS = {"train.class_weights": "rose=3,tulip=1.5"}
_WITHOUT_VALUE = {f"--{key}": value for key, value in WITHOUT_VALUE.items()}


def with_values(words: Sequence[str]) -> list[str]:
    """What was typed, with a value behind each flag that needs none; --no-FLAG is one whose value is none.

    >>> with_values(["train", "photos", "--train.class_weights", "--seed", "1"])
    ['train', 'photos', '--train.class_weights', 'auto', '--seed', '1']
    """
    done: list[str] = []
    for word, after in itertools.zip_longest(words, words[1:], fillvalue=""):
        flag = word.replace("class-weights", "class_weights")
        off = flag.replace("--no-", "--", 1)
        if flag in _WITHOUT_VALUE and not _is_class_weights(after):
            done += [word, _WITHOUT_VALUE[flag]]
        elif off != flag and off in _WITHOUT_VALUE:
            done += [off, "none"]
        else:
            done.append(word)
    return done


def _is_class_weights(word: str) -> bool:
    return "=" in word[1:] or word.lower() in ("auto", "none", "true", "false")


def _value(key: str, text: Any) -> Any:
    """Flags with several values are written with commas; options as name=value pairs."""
    if key in ("data.root", "data.decisions") and text and "://" not in text:
        return os.path.abspath(os.path.expanduser(text))  # found again by a run that continues elsewhere
    kind = next(kind for known, kind, *_ in field_table() if known == key)
    if kind == "dict" or ("dict" in kind and "=" in str(text)):
        return _pairs(key, str(text))
    if "|" in kind and isinstance(text, str) and text.lower() in kind.split(" | "):
        return text.lower()  # Adam is adam
    if "," in kind:
        parts = [part.strip() for part in str(text).split(",")]
        return text if text == "auto" else [] if parts == [""] else parts
    return text


def _pairs(key: str, text: str) -> dict[str, Any]:
    pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise RecipeError(
            f"--{key} is not made of name=value pairs: {text!r}",
            hint=f"write them with commas between, such as {_PAIRS.get(key, 'pad_type=same')}",
        )
    return {key.strip(): _literal(value.strip()) for key, value in pairs}


def _literal(text: str) -> str | int | float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
