"""The recipe's fields as flags: which a command has, which its help shows, and what their values become."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from cyclopts import Group, Parameter

from saccade.errors import RecipeError
from saccade.recipe import SHORT_FLAGS, SYNONYMS, Recipe, field_table, merged_recipe, read_recipe_file
from saccade.terminal import shown_default

_LIST = ("data.path_column", "data.label_column", "data.root")
_READING = (
    *_LIST,
    *("data.drop_empty", "data.max_pixels", "data.background", "data.gray_maximum", "data.decisions"),
)
_FINDING = ("split.group", "split.group_pattern", "split.near_duplicates", "split.validation", "split.test")
_DIVIDING = ("seed", "split.repair", "split.allow_leaks")
_SHOWING = (
    *("model.backbone", "model.pretrained", "model.weights", "model.options", "data.image_size"),
    *("data.resize", "data.interpolation", "data.crop_fraction", "data.mean", "data.std"),
)
# command -> the fields that it uses; `train` uses all
CONCERNS: dict[str, frozenset[str]] = {
    "audit": frozenset((*_READING, *_FINDING)),
    "split": frozenset((*_READING, *_FINDING, *_DIVIDING)),
    "augment": frozenset(
        key
        for key, *_ in field_table()
        if key in (*_READING, *_FINDING, *_DIVIDING, *_SHOWING) or key.startswith("augment.")
    ),
}
# What --help shows of a command with many flags; --help-all shows every one.
COMMON: dict[str, tuple[str, ...]] = {
    "Model": ("model.backbone", "model.weights", "model.pretrained"),
    "Training": (
        *("train.method", "train.epochs", "train.lr", "train.unfreeze", "train.batch_size"),
        "train.time_limit",
    ),
    "Data": ("data.image_size", "augment.policy", "split.group"),
    "Run": ("seed", "device"),
}
MANY = 20  # a command with more flags than this has a short help
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
_SHORT = {field: flag for flag, field in SHORT_FLAGS.items()}


def concerns(command: str, key: str) -> bool:
    """Whether the field `key` changes anything in what `command` does."""
    return command not in CONCERNS or key in CONCERNS[command]


def recipe_parameters(command: str) -> list[inspect.Parameter]:
    """One keyword for each field that concerns `command`, under its full and its short name."""
    return [
        _parameter(key, kind, default, text, names=_names(key), group=SECTIONS[_section(key)])
        for key, kind, default, text in field_table()
        if concerns(command, key)
    ]


def usual_parameters(command: str) -> list[inspect.Parameter]:
    """What `--help` shows: the usual fields by their short names, with one sentence each."""
    rows = {row[0]: row for row in field_table() if concerns(command, row[0])}
    if len(rows) <= MANY:
        return recipe_parameters(command)
    parameters = []
    for group, keys in COMMON.items():
        for key in filter(rows.__contains__, keys):
            _, kind, default, text = rows[key]
            parameters.append(
                _parameter(key, kind, default, _first_sentence(text), names=_names(key)[-1:], group=group)
            )
    return parameters


def has_more(command: str) -> bool:
    """Whether `--help-all` shows more than `--help`."""
    known = command in (*CONCERNS, "train")
    return known and len(usual_parameters(command)) < len(recipe_parameters(command))


def chosen_recipe(command: str, flags: Mapping[str, Any], file: str) -> tuple[Recipe, list[str]]:
    """The recipe (flag before file before default), and the fields of the file that `command` does not use.

    flags: values as typed, by field name with `__` for the dot; None where a flag was not given.
    file: path of a TOML file, or "".
    """
    given = {name.replace("__", "."): text for name, text in flags.items() if text is not None}
    values = {key: _value(key, text) for key, text in given.items()}
    where = f"flags and {file}" if file else ""
    recipe = merged_recipe(values, read_recipe_file(file) if file else {}, where=where)
    return recipe, sorted(key for key in recipe.given if not concerns(command, key))


def unknown_flag(command: str, flag: str, own: Iterable[str]) -> RecipeError:
    """An error for a flag that `command` does not have: it belongs to another, or is misspelt.

    own: the flags of the command beside the recipe's.
    """
    typed = flag.partition("=")[0]
    if _plain(typed) in _spellings(key for key, *_ in field_table() if not concerns(command, key)):
        return RecipeError(
            f"{typed} has no effect on `saccade {command}`",
            hint="leave it out; it belongs to `saccade train`",
        )
    known = {_plain(name): name for name in own}
    if command in (*CONCERNS, "train"):
        known |= _spellings(key for key, *_ in field_table() if concerns(command, key))
    close = difflib.get_close_matches(_plain(typed), known, n=1)
    meant = f"did you mean {known[close[0]]}? " if close else ""
    everything = f"saccade {command} {'--help-all' if has_more(command) else '--help'}"
    return RecipeError(f"unknown flag: {typed}", hint=f"{meant}`{everything}` lists every flag")


def _spellings(keys: Iterable[str]) -> dict[str, str]:
    """What people may type for the fields `keys`, as `_plain` has it -> the flag that exists."""
    spellings: dict[str, str] = {}
    elsewhere = {ours: theirs for theirs, ours in SYNONYMS.items()}
    for key in keys:
        section, _, name = key.rpartition(".")
        flags = _names(key)
        if name in elsewhere:
            spellings |= {elsewhere[name]: flags[-1], f"{section}.{elsewhere[name]}": flags[0]}
        spellings[name] = flags[-1]
        spellings |= {_plain(flag): flag for flag in (*flags, *_negative(flags))}
    return spellings


def _plain(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def _names(key: str) -> list[str]:
    """The flag with the field's full name and, last, the short one where there is one."""
    short = _SHORT.get(key, key)
    return [f"--{key}", *([f"--{short}"] if short != key else [])]


def _negative(names: Iterable[str]) -> list[str]:
    return [f"--no-{name.removeprefix('--')}" for name in names]


def _section(key: str) -> str:
    return key.partition(".")[0] if "." in key else "run"


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".") + "."


def _parameter(
    key: str, kind: str, default: Any, text: str, *, names: list[str], group: str
) -> inspect.Parameter:
    order = [*COMMON, *SECTIONS.values()].index(group)
    parameter = Parameter(
        name=names,
        help=f"{text} [{kind}; default: {shown_default(default)}]",
        group=Group(group, sort_key=order),
        negative=_negative(names) if kind == "bool" else "",
        show_default=False,
        metavar="",
    )
    annotation = Annotated[(bool if kind == "bool" else str) | None, parameter]  # type: ignore[valid-type]
    name = key.replace(".", "__")
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _value(key: str, text: Any) -> Any:
    """Flags with several values are written with commas; options as name=value pairs."""
    if key == "data.root" and text:
        return os.path.abspath(os.path.expanduser(text))  # found again by a run that continues elsewhere
    kind = next(kind for known, kind, *_ in field_table() if known == key)
    if kind == "dict":
        return _options(str(text))
    if "," in kind:
        return text if text == "auto" else [part.strip() for part in str(text).split(",")]
    return text


def _options(text: str) -> dict[str, Any]:
    pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise RecipeError(
            f"--model.options is not made of name=value pairs: {text!r}",
            hint="write them with commas between, such as pad_type=same",
        )
    return {key.strip(): _literal(value.strip()) for key, value in pairs}


def _literal(text: str) -> str | int | float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
