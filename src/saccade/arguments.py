"""Arguments of `ImageClassifier` in words: what was meant by an unknown one, and what messages call them."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from saccade import extensions
from saccade.called_elsewhere import FLAGS
from saccade.errors import OF_TRAINING, MissingExtraError, RecipeError, SaccadeError
from saccade.recipe import SHORT_FLAGS, SYNONYMS, WITHOUT_VALUE, Recipe, field_table, read_recipe_file

# Flags that `fit` or the constructor has under another name, or that are no field
OWN = ("recipe", "out", "quiet", "callbacks")  # parameters that are no fields of the recipe
_OWN_NAMES = {"path-column": "path", "label-column": "label", "out": "out"}
_FLAG = re.compile(r"--(no-)?([a-z][\w.-]*\w)(?:([ =])([^\s,;)](?:[^\s;)]*[^\s,;).])?))?")


def refuse_unknown(names: Iterable[str], own: Sequence[str]) -> None:
    """Raise RecipeError for a name that is neither an argument nor a field, with the nearest that is.

    own: the arguments. Names with two underscores are left to the recipe.
    """
    known = {**_elsewhere(), **dict.fromkeys(own), **{_plain(name): None for name in SHORT_FLAGS}}
    for name in names:
        if "__" in name or "." in name or known.get(name, "") is None:
            continue
        close = difflib.get_close_matches(name, sorted(known), n=1)
        meant = (known[close[0]] or close[0]) if close else ""
        raise RecipeError(
            f"ImageClassifier: unknown key {name!r}",
            hint=f"did you mean {meant!r}?"
            if meant
            else "`saccade train --help-all` lists all: data__resize is data.resize",
        )


def check_own(out: Any, quiet: Any, callbacks: Any) -> None:
    """Raise RecipeError for what the constructor kept and is none of these."""
    if not isinstance(out, str | os.PathLike):
        raise RecipeError(f"out = {out!r} is no folder", hint='give its path, such as out="runs/photos"')
    if quiet not in (None, True, False):
        raise RecipeError(f"quiet = {quiet!r} is neither True, False nor None", hint="give one of them")
    if callbacks is not None and (isinstance(callbacks, str) or not isinstance(callbacks, Iterable)):
        raise RecipeError(
            f"callbacks are a {type(callbacks).__name__}, not a list",
            hint="give a list of saccade.training.Callback: callbacks=[Watcher()]",
        )


def file_values(recipe: Any) -> dict[str, Any]:
    """What `recipe` sets, nested: a file by its path, a Recipe, or a mapping."""
    if isinstance(recipe, Recipe):
        return recipe.model_dump(exclude_unset=True)
    return dict(recipe) if isinstance(recipe, Mapping) else read_recipe_file(recipe) if recipe else {}


def _elsewhere() -> dict[str, str]:
    """What other tools call an argument -> its name here."""
    here = {theirs: flag.removeprefix("--") for theirs, flag in FLAGS.items() if flag != "--top-k"}
    return {theirs: _argument(flag) for theirs, flag in here.items()} | SYNONYMS


@contextlib.contextmanager
def in_words_of_python() -> Iterator[None]:
    """Within it errors name arguments of Python where they named flags, and what must be installed."""
    try:
        yield
    except SaccadeError as error:
        error.args = tuple(in_python(str(line)) for line in error.args)
        error.hint = in_python(error.hint)
        raise
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in OF_TRAINING:
            raise
        raise MissingExtraError(str(error.name), "train", "training") from error


def in_python(text: str) -> str:
    """The text with flags as arguments of `ImageClassifier`; a whole command stays as it is.

    >>> in_python("use --method full, or give --out a new folder (--split.test 0)")
    'use method="full", or give out= a new folder (split__test=0)'
    """
    return text if re.search(r"\bsaccade [a-z]+ ", text) else _FLAG.sub(_as_argument, text)


def _as_argument(found: re.Match[str]) -> str:
    no, flag, gap, value = found.groups()
    key = SHORT_FLAGS.get(flag, _plain(flag))
    kind = "str" if flag in _OWN_NAMES else _kinds().get(key, "")
    if not kind:
        return found[0]  # a flag of another command
    name, rest = _argument(flag), f"{gap}{value}" if value else ""
    if kind.startswith("bool"):
        return f"{name}={not no}{rest}"
    if not value or not _is_value(value, kind):
        needless = ("none" if no else WITHOUT_VALUE[key]) if key in WITHOUT_VALUE else ""
        return f'{name}="{needless}"{rest}' if needless else f"{name}={rest}"
    return f"{name}={value}" if re.fullmatch(r"-?[\d.]+(e-?\d+)?", value) else f'{name}="{value}"'


def _is_value(word: str, kind: str) -> bool:
    """Whether a word after a flag is its value, and not the sentence going on."""
    return word in ("auto", *kind.split(" | ")) or not word.isalpha() or word.isupper()


def _kinds() -> dict[str, str]:
    return {row.key: row.kind for row in field_table()}


def _argument(flag: str) -> str:
    """A flag without dashes in front, as an argument.

    >>> _argument("image-size"), _argument("train.weight-decay")
    ('image_size', 'train__weight_decay')
    """
    return _OWN_NAMES.get(flag) or _plain(flag).replace(".", "__")


def _plain(flag: str) -> str:
    return flag.replace("-", "_")


def own_functions(augmentations: Any) -> Any:
    """What `augment__extra` was given, functions by their names; what was named or given may be used."""
    if isinstance(augmentations, str) or not isinstance(augmentations, Iterable):
        return augmentations
    names = [
        extensions.register_function(one, "augmentations") if callable(one) else one for one in augmentations
    ]
    for name in names:
        extensions.allow_function(name, "augmentations")
    return names
