"""A recipe from flags and a file: precedence, and what is refused because it would have no effect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from saccade.errors import RecipeError
from saccade.files import read_text
from saccade.recipe.fields import LISTED, flatten, keys_concerned, nest, parse_toml
from saccade.recipe.presets import CLASSIC_FIELDS, WITHOUT_EFFECT
from saccade.recipe.recipe import Recipe, field_table, refused

# Fields that change no result: a run goes on with other values of them.
MEANS = ("train.checkpoint_every", "train.workers")
# Fields whose default changed, with the former one: a run may have begun with it.
FORMER_DEFAULTS = {"train.monitor": "loss"}
OTHER_FORMATS = {".yaml": "YAML", ".yml": "YAML", ".json": "JSON"}


def read_recipe_file(path: str | Path) -> dict[str, Any]:
    """The keys a recipe file sets, nested; raises RecipeError when it cannot be read.

    path: a TOML file, in UTF-8.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp(), "my.toml")
    >>> _ = file.write_text("[train]\\nlr = 0.002")
    >>> read_recipe_file(file)
    {'train': {'lr': 0.002}}
    """
    kind = OTHER_FORMATS.get(Path(path).suffix.lower())
    if kind:
        raise RecipeError(
            f"{path} is {kind}; a recipe is TOML",
            hint="write it as a .toml file: [train] on a line, below it epochs = 20; " + LISTED,
        )
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"the recipe file cannot be read: {path} ({error})", hint="check the path"
        ) from None
    return parse_toml(text, where=str(path))


def merged_recipe(
    flags: Mapping[str, Any],
    file_values: Mapping[str, Any],
    *,
    where: str,
    file: str = "",
    tell: Callable[[RecipeError], None] | None = None,
) -> Recipe:
    """Precedence: flag, then recipe file, then default; raises RecipeError for what would have no effect.

    flags: dotted key -> value. file_values: nested, as `read_recipe_file` gives them. where: what both come
    from, for messages; file: the file alone. tell: is told of what would have no effect, in place of the
    error.

    >>> recipe = merged_recipe({"train.lr": "0.1"}, {"train": {"lr": 0.002, "epochs": 3}}, where="test")
    >>> recipe.train.lr, recipe.train.epochs
    (0.1, 3)
    """
    from_file, from_flags = dict(flatten(nest(file_values))), dict(flatten(nest(flags)))
    try:
        recipe = Recipe.model_validate(nest({**from_file, **from_flags}))
    except pydantic.ValidationError as error:
        keys = keys_concerned(error.errors(), field_table())
        by_flags, by_file = _any_of(keys, from_flags), _any_of(keys, from_file.keys() - from_flags.keys())
        if file and by_flags != by_file:
            where = file if by_file else "flags"
        raise refused(error, where) from None
    # a run's own recipe.toml holds every field: nobody chose them all
    complete = all(f"train.{name}" in from_file for name in CLASSIC_FIELDS)
    if complete:
        recipe.forget_given(_as_by_default(recipe, from_file) - from_flags.keys())
    idle = _without_effect(recipe, from_flags if complete else {**from_file, **from_flags}, where=where)
    if idle and tell is None:
        raise idle
    if idle and tell:
        tell(idle)
    return recipe


def _any_of(keys: Iterable[str], given: Iterable[str]) -> bool:
    """Whether one of `given` is one of `keys`, or lies in a section among them."""
    return any(f"{name}.".startswith(f"{key}.") for name in given for key in keys)


def _as_by_default(recipe: Recipe, keys: Iterable[str]) -> set[str]:
    """Those of `keys` whose values a recipe of this backbone and method has anyway."""
    chosen = {"model.backbone": recipe.model.backbone, "train.method": recipe.train.method}
    usual, has = Recipe.model_validate(nest(chosen)).flat(), recipe.flat()
    return {key for key in keys if has[key] == usual[key]}


def _without_effect(recipe: Recipe, given: Mapping[str, Any], *, where: str) -> RecipeError | None:
    """What is said of `given` fields of training that the recipe's method would pass over.

    From scratch no method passes over what is given: `pipeline.effects` says there what has no effect.
    """
    if not recipe.starts_pretrained:
        return None
    method = recipe.train.method
    does, fields = WITHOUT_EFFECT.get(method, ("", frozenset()))
    tunes_everything = method != "head"
    idle = [
        f"{key} = {value}"
        for key, value in given.items()
        if key.removeprefix("train.") in fields and not (tunes_everything and value == "all")
    ]
    if not idle:
        return None
    place = f"{where}: " if where else ""
    return RecipeError(
        f"{place}{', '.join(idle)} would have no effect, because method {method} {does}",
        hint="leave that out, or use --method finetune, which trains in two phases",
    )


def differing_keys(first: Recipe, second: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted keys in which two recipes differ, with the value in `first` and in `second`.

    >>> differing_keys(Recipe(), Recipe().replaced(seed=3))
    {'seed': (0, 3)}
    """
    a, b = first.flat(), second.flat()
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}
