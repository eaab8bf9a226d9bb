"""`environment.json` as one typed value: what a run was made with, and what it found out about itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

USUAL_SIDE = "model.usual_image_size"  # in `resolved`, where the recipe names another size
JSON_TYPES: dict[str, tuple[type, ...]] = {  # of a field, by the beginning of its annotation
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "tuple": (list, tuple),
    "Mapping": (dict,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The content of a run's `environment.json`.

    A field with its default ("", 0, None, empty) says that the run did not write it down; only `finished` is
    always in the file. `other` holds keys that this version does not know, so that they survive a rewrite.

    >>> record = RunRecord.from_json({"data": "photos", "threads": 2, "mood": "good"})
    >>> record.threads, record.finished
    (2, False)
    >>> record.replaced(finished=True).as_json()
    {'data': 'photos', 'threads': 2, 'finished': True, 'mood': 'good'}
    """

    data: str = ""  # the location as given, absolute where it is a path
    root: str = ""
    command: tuple[str, ...] = ()
    began: str = ""  # when, with its time zone (ISO 8601)
    platform: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    device_name: str = ""
    precision: str = ""
    in_float32: tuple[Mapping[str, Any], ...] = ()  # phases that left it, and from which step on
    deterministic: bool | None = None
    threads: int = 0
    ranks: int = 0
    torch: str = ""
    lightning_fabric: str = ""
    resolved: Mapping[str, Any] = field(default_factory=dict)  # what every "auto" of the recipe became
    callbacks: tuple[str, ...] = ()  # who watched, beside the terminal
    finished: bool = False
    classes: tuple[str, ...] = ()
    split: Mapping[str, Any] = field(default_factory=dict)
    without_effect: Mapping[str, str] | None = None  # key of the recipe -> why it changes nothing here
    choice: Mapping[str, Any] = field(default_factory=dict)  # of the backbone, where it was "auto"
    series: Mapping[str, Any] = field(default_factory=dict)  # hidden ones among the training images
    held_out: Mapping[str, Any] = field(default_factory=dict)  # of the first head, by cross-validation
    folds: Mapping[str, Any] = field(default_factory=dict)  # what the folds' models became, and what it costs
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by number of the promise
    diagnosis: tuple[Mapping[str, Any], ...] | None = None  # None: not made yet
    promises: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by number
    seconds: float | None = None  # that one command took from its beginning to its end; else not known
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunRecord:
        """The record in a parsed `environment.json`. Raises ValueError for a value of the wrong type."""
        known = {item.name: item for item in _stored_fields()}
        wrong = [name for name, item in known.items() if name in values and not _fits(item, values[name])]
        if wrong:
            raise ValueError(f"{wrong[0]} has the wrong type: {values[wrong[0]]!r}")
        given = {name: _frozen(values[name]) for name in known if name in values}
        return cls(**given, other={key: value for key, value in values.items() if key not in known})

    def as_json(self) -> dict[str, Any]:
        """Plain values for `environment.json`, in the order of the fields; what is not known is left out."""
        empty = RunRecord()
        values = {item.name: getattr(self, item.name) for item in _stored_fields()}
        written = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if name == "finished" or value != getattr(empty, name)
        }
        return written | dict(self.other)

    def replaced(self, **changes: Any) -> RunRecord:
        """The same record with other values for some fields."""
        return dataclasses.replace(self, **changes)

    def measured(self, promise: int) -> Mapping[str, Any]:
        """What the run measured about a promise; empty where it measured nothing."""
        return self.evidence.get(str(promise), {})


def time_of_day() -> str:
    """Date and time now, with the time zone of this machine, to the second (ISO 8601)."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _stored_fields() -> list[dataclasses.Field[Any]]:
    return [item for item in dataclasses.fields(RunRecord) if item.name != "other"]


def _fits(item: dataclasses.Field[Any], value: Any) -> bool:
    kind = str(item.type).split("[")[0].split(" ")[0]
    number_for_truth = isinstance(value, bool) and kind != "bool"  # True is an int in Python
    return isinstance(value, JSON_TYPES[kind]) and not number_for_truth


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
