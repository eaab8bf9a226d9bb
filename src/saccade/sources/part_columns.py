"""Which column of a list or table names the parts: `part`, or another usual name with part names in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saccade.errors import SourceError
from saccade.records import Finding
from saccade.sources.names import natural_key, printable, some
from saccade.sources.part_names import parts_of_values
from saccade.sources.said import doubt, how_it_is_read
from saccade.sources.values import as_text

PART_COLUMNS = ("part", "split", "set", "subset", "partition", "fold", "is_valid")
_VALID = {"true": "validation", "1": "validation", "false": "train", "0": "train"}


@dataclass(frozen=True, slots=True)
class PartColumn:
    """The column that names the parts ("" without one), the part of each of its values, and what to say."""

    name: str = ""
    part_of: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def part(self, value: Any) -> str | None:
        """The part a cell names, "" for an empty one; None for what names no part."""
        text = as_text(value).strip()
        return self.part_of.get(text) if text else ""


def find_part_column(columns: Mapping[str, Iterable[Any]], where: str) -> PartColumn:
    """`columns` hold the values of those whose name is in PART_COLUMNS (in any case).

    Raises SourceError for a column with part names and other values side by side: nobody can say what
    these are. `part` may hold any value; its rows are checked one by one.
    """
    named = sorted(columns, key=lambda name: PART_COLUMNS.index(name.casefold()))
    chosen = PartColumn()
    findings: list[Finding] = []
    for name in named:
        values = {text for value in columns[name] if (text := as_text(value).strip())}
        part_of = _parts(name, values)
        if chosen.name or not (part_of or (name == "part" and values)):
            findings += _not_used(name, values, chosen.name)
            continue
        other = sorted(values - set(part_of), key=natural_key)
        if other and name != "part":
            raise SourceError(
                f"{where}: column {printable(name)} names parts, but also {some(other, most=5)}; use train, "
                "validation and test there, and remove rows that belong to none"
            )
        chosen = PartColumn(name, part_of)
        findings += _as_read(chosen)
    return PartColumn(chosen.name, chosen.part_of, tuple(findings))


def _parts(name: str, values: set[str]) -> dict[str, str]:
    if name.casefold() == "is_valid" and {value.casefold() for value in values} <= set(_VALID):
        return {value: _VALID[value.casefold()] for value in values}
    return parts_of_values(values)


def _as_read(column: PartColumn) -> list[Finding]:
    """Said where the names are not those that saccade writes itself."""
    plain = column.name == "part" and all(value == part for value, part in column.part_of.items())
    usual = {"val", "valid"}
    if plain or (column.name == "part" and set(column.part_of) - set(column.part_of.values()) <= usual):
        return []
    said = ", ".join(
        part if value == part else f"{printable(value)} as {part}"
        for value, part in sorted(column.part_of.items())
    )
    return [
        how_it_is_read(
            f"column {printable(column.name)} read as the parts: {said}",
            "Rename the column if that is not what it means",
        )
    ]


def _not_used(name: str, values: set[str], chosen: str) -> list[Finding]:
    shown = some(sorted(values, key=natural_key), most=5)
    if not values:
        return []
    if chosen:
        message = (
            f"column {printable(name)} ({shown}) is not used: column {printable(chosen)} names the parts"
        )
        return [doubt(message, "Remove the column that is not meant")]
    return [
        doubt(
            f"column {printable(name)} ({shown}) is not used: its values are no part names, so the images "
            "are divided anew",
            "To keep that division, write train, validation or test into a column called part, fold by fold; "
            f"to keep each value in one part, pass --group {printable(name)}",
        )
    ]
