"""The one next command to try: the command that made a run, with what the first finding advises."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from saccade.recipe import SHORT_FLAGS, WITHOUT_VALUE, field_table

_FLAG = r"--[a-z][\w.-]*\w"
_VALUE = r"'[^']*'|(?!(?:or|and|for|in|so|to|is|alone|folder)\b)[\w.:=-]*\w"
_RUN = re.compile(rf"(?<![\w-]){_FLAG}(?: (?:{_VALUE}))?(?: {_FLAG}(?: (?:{_VALUE}))?)*")
_PAIR = re.compile(rf"({_FLAG})(?: ({_VALUE}))?")
_SWITCHES = frozenset(key for key, kind, *_ in field_table() if kind == "bool")  # they take no value
_FOLDER = "--out"


def advised_flags(remedy: str) -> tuple[tuple[str, str], ...]:
    """The first flags of a remedy that are complete, each with its value ("" for none).

    >>> advised_flags("Use a third of the rate (--method full --lr 0.001), or --train.gradient-clip 1.")
    (('--method', 'full'), ('--lr', '0.001'))
    >>> advised_flags("Name it with --group, so that the split respects it (with --repair-split).")
    (('--repair-split', ''),)
    """
    for run in _RUN.finditer(remedy):
        pairs = tuple((flag, value.strip("'")) for flag, value in _PAIR.findall(run[0]))
        if all(_complete(flag, value) for flag, value in pairs):
            return pairs
    return ()


def _complete(flag: str, value: str) -> bool:
    alone = _field(flag) in _SWITCHES or flag.removeprefix("--") in WITHOUT_VALUE
    return flag != _FOLDER and value != "FOLDER" and bool(value or alone)


def next_command(command: Sequence[str], remedy: str) -> str:
    """`command` in a new folder with what `remedy` advises; "" where it names no flags or none was given.

    >>> next_command(["saccade", "train", "my photos", "--out", "runs/a", "--lr", "1"], "Try --lr 0.1.")
    "saccade train 'my photos' --out runs/a-2 --lr 0.1"
    """
    flags = advised_flags(remedy)
    if list(command[:2]) != ["saccade", "train"] or not flags or "--resume" in command:
        return ""
    replaced = {_field(flag) for flag, _ in flags}
    kept = _without(command, replaced)
    added = [word for pair in flags for word in pair if word]
    return shlex.join([*_elsewhere(kept), *added])


def _field(flag: str) -> str:
    """The field that a flag sets, whatever its spelling."""
    name = flag.partition("=")[0].removeprefix("--").removeprefix("no-")
    return SHORT_FLAGS.get(name, name).replace("-", "_")


def _without(command: Sequence[str], fields: set[str]) -> list[str]:
    """The words of a command but for the flags of some fields, and their values."""
    kept: list[str] = []
    leaving = False
    for word in command:
        if word.startswith("--"):
            leaving = _field(word) in fields
            if leaving:
                alone = "=" in word or word.startswith("--no-") or _field(word) in _SWITCHES
                leaving = not alone
                continue
        elif leaving:
            leaving = False
            continue
        kept.append(word)
    return kept


def _elsewhere(command: Sequence[str]) -> list[str]:
    """The command with another folder for the run: `a` becomes `a-2`, and `a-2` becomes `a-3`."""
    words = [
        part for word in command for part in (word.split("=", 1) if word.startswith("--out=") else [word])
    ]
    if _FOLDER not in words[:-1]:
        return words
    place = words.index(_FOLDER) + 1
    name, _, number = words[place].rstrip("/").rpartition("-")
    again = name and number.isdigit()
    words[place] = f"{name}-{int(number) + 1}" if again else f"{words[place].rstrip('/')}-2"
    return words
