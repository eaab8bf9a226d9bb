"""The recipe's fields by their dotted keys: nested and flat, as a table, and what is said of a bad one."""

from __future__ import annotations

import difflib
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from saccade.errors import RecipeError


class Section(BaseModel):
    """A frozen part of the recipe that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class FieldRow(NamedTuple):
    """One row of the table of fields. `key` is dotted, `kind` its type in words: int | auto."""

    key: str
    kind: str
    default: Any
    description: str


class Refusal(ValueError):
    """Why a value does not hold, and in `hint` what to do; a validator raises it."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


# What people call a field elsewhere -> its name here; used only in suggestions.
SYNONYMS: dict[str, str] = {
    "learning_rate": "lr",
    "fine_tune_lr": "finetune_lr",
    "patience": "early_stopping",
    "dropout_rate": "dropout",
    "architecture": "backbone",
    "img_size": "image_size",
    "input_size": "image_size",
    "class_weight": "class_weights",
    "criterion": "loss",
    "sampler": "sampling",
    "in_chans": "channels",
    "in_channels": "channels",
    "grayscale": "channels",
    "mixup": "mix_up",
    "cutmix": "cut_mix",
    "random_erasing": "cutout",
    "color_jitter": "saturation",
    "lr_schedule": "schedule",
    "scheduler": "schedule",
    "test_size": "test",
    "validation_split": "validation",
}


LISTED = "`saccade train --help-all` lists what each field takes"


# Fields whose value is a table: its names are not dotted keys.
TABLES = ("model.options", "train.class_weights")


def nest(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys become nested dicts.

    >>> nest({"seed": 1, "train.epochs": 3})
    {'seed': 1, 'train': {'epochs': 3}}
    """
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        if isinstance(value, Mapping) and isinstance(place.get(name), dict):
            place[name].update(value)
        elif isinstance(value, Mapping) and f"{prefix}{key}" not in TABLES:
            place[name] = nest(value, f"{prefix}{key}.")
        else:
            place[name] = value
    return nested


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested dicts; the inverse of `nest`."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in TABLES:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def fields_of(section: type[BaseModel], prefix: str = "") -> Iterator[FieldRow]:
    """The fields of a section and of those within it, in order."""
    for name, info in section.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from fields_of(annotation, f"{prefix}{name}.")
        else:
            default = info.get_default(call_default_factory=True)
            description = " ".join((info.description or "").split())
            yield FieldRow(f"{prefix}{name}", _type_name(annotation), default, description)


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "table"
    if origin is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " | ".join(_type_name(part) for part in get_args(annotation))
    if origin is tuple:
        return ",".join("..." if part is Ellipsis else _type_name(part) for part in get_args(annotation))
    return getattr(annotation, "__name__", "value") if origin is None else origin.__name__


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """TOML text as nested dicts; raises RecipeError that says where it is broken.

    where: name of the file, for the message.

    >>> parse_toml("[train]\\nlr = 0.002", where="my.toml")
    {'train': {'lr': 0.002}}
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where}: not valid TOML: {error}", hint="correct that place") from None
    except RecursionError:
        raise RecipeError(f"{where}: nested too deeply", hint="a recipe has sections and values") from None


def as_toml_value(value: Any) -> Any:
    """The value with tuples as lists."""
    if isinstance(value, dict):
        return {key: as_toml_value(inner) for key, inner in value.items()}
    return [as_toml_value(inner) for inner in value] if isinstance(value, tuple) else value


# -- what is said of a bad one -----------------------------------------------------------------------


def problems(entries: Iterable[Mapping[str, Any]], table: Sequence[FieldRow]) -> list[tuple[str, str]]:
    """What is wrong and what to do, a pair for each field that pydantic complains about.

    Of a union's branches only the first complaint stands, with "or auto" where that is open.
    """
    found: dict[str, tuple[str, str]] = {}
    for entry in entries:
        key = _field_of([str(part) for part in entry["loc"]], table)
        is_auto = entry["loc"][-1:] == ("literal['auto']",)
        if is_auto and key in found:
            message, hint = found[key]
            found[key] = message.replace(": ", " (or 'auto'): ", 1), hint
        else:
            found.setdefault(key, _problem(entry, table))
    return list(found.values())


def keys_concerned(entries: Iterable[Mapping[str, Any]], table: Sequence[FieldRow]) -> set[str]:
    """The keys of which pydantic complains; where several do not go together, their section."""
    return {_field_of([str(part) for part in entry["loc"]], table) for entry in entries}


def _problem(entry: Mapping[str, Any], table: Sequence[FieldRow]) -> tuple[str, str]:
    parts = [str(part) for part in entry["loc"]]
    key = _field_of(parts, table)
    if entry["type"] == "extra_forbidden":
        return f"unknown key {'.'.join(parts)!r}", suggestion(".".join(parts), table)
    if entry["type"] == "value_error":
        refusal = entry["ctx"]["error"]
        return str(refusal), refusal.hint if isinstance(refusal, Refusal) else ""
    if entry["type"] in ("model_type", "dict_type"):
        return f"{key} is a section, not a value: {entry['input']!r}", f"write its keys below [{key}]"
    said = entry["msg"].removeprefix("Input ").lower().partition(", unable")[0]
    return f"{key} {said}: {entry['input']!r}", _value_meant(key, entry["input"], table) or LISTED


def _value_meant(key: str, value: Any, table: Sequence[FieldRow]) -> str:
    """The nearest word that a field takes, for one that it does not."""
    kinds = [field.kind for field in table if field.key == key]
    words = [word for kind in kinds for word in kind.split(" | ") if word not in ("int", "float", "str")]
    close = difflib.get_close_matches(value.lower(), words, n=1) if isinstance(value, str) else []
    return f"did you mean {close[0]!r}?" if close else ""


def _field_of(parts: list[str], table: Sequence[FieldRow]) -> str:
    """The recipe's key in a location, without the branch of a union that pydantic appends."""
    known = {field.key for field in table}
    candidates = (".".join(parts[:n]) for n in (2, 1))
    return next((key for key in candidates if key in known), ".".join(parts))


def suggestion(key: str, table: Sequence[FieldRow]) -> str:
    """The nearest key that exists, for one that no field has."""
    section, _, name = key.rpartition(".")
    known = [field.key.rpartition(".") for field in table]
    names = [tail for head, _, tail in known if head == section]
    if not section:
        names += dict.fromkeys(head for head, _, _ in known if head)
    synonyms = {other: ours for other, ours in SYNONYMS.items() if ours in names}
    close = difflib.get_close_matches(name, [*names, *synonyms], n=1)
    if not close:
        elsewhere = [".".join((head, tail)) for head, _, tail in known if head and tail == name]
        return f"did you mean {elsewhere[0]!r}?" if elsewhere else f"known: {', '.join(sorted(names))}"
    if close[0] in synonyms:
        return f"did you mean {synonyms[close[0]]!r} (the {close[0]})?"
    return f"did you mean {close[0]!r}?"
