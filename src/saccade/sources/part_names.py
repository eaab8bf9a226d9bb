"""Names of parts: train, validation and test in the spellings that data sets use."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from saccade.errors import SourceError
from saccade.sources.names import some

_PART_OF_WORD = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "test"),  # validation where another name means test
}
_EVALUATION = frozenset({"eval", "evaluation"})
_GENERIC = ("dataset", "images", "image", "imgs", "split", "data", "sets", "set", "part", "fold", "folder")


@dataclass(frozen=True, slots=True)
class Hint:
    """What a name says: the part, whether it says nothing else, and whether it is a word for evaluation."""

    part: str
    exact: bool
    evaluation: bool = False


def part_hint(name: str) -> Hint | None:
    """The one part that a name's words mean, None for none or several.

    >>> part_hint("Training"), part_hint("seg_test")
    (Hint(part='train', exact=True, evaluation=False), Hint(part='test', exact=False, evaluation=False))
    """
    words = [_without_ending(word) for word in _words(name)]
    known = [word for word in words if word in _PART_OF_WORD]
    parts = {_PART_OF_WORD[word] for word in known}
    if len(parts) != 1:
        return None
    exact = all(word in _PART_OF_WORD or word in _GENERIC for word in words)
    return Hint(parts.pop(), exact, known[0] in _EVALUATION)


def _words(name: str) -> list[str]:
    """`seg_train`, `TestSet` and `val2017` in words of small letters."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+", parted.casefold())


def _without_ending(word: str) -> str:
    stems = (word.removesuffix(ending) for ending in _GENERIC if word.endswith(ending))
    return next((stem for stem in stems if stem in _PART_OF_WORD), word)


def settled(hints: dict[str, Hint]) -> dict[str, str]:
    """The part of each name: `eval` is the test part, or validation where another name means test."""
    test_named = any(hint.part == "test" and not hint.evaluation for hint in hints.values())
    return {
        name: "validation" if hint.evaluation and test_named else hint.part for name, hint in hints.items()
    }


def parts_of_values(values: Iterable[str]) -> dict[str, str]:
    """The part that each distinct value of a column means; those that mean none are absent."""
    hints = {value: part_hint(value) for value in set(values) if value}
    return settled({value: hint for value, hint in hints.items() if hint and hint.exact})


def parts_of_files(names: Collection[str], where: str) -> dict[str, str]:
    """The part that each file's name or folders say; none says one, or each does; raises SourceError.

    The file's own name counts before its folders, the nearest folder first.
    """
    hints = {name: _nearest_hint(name) for name in names}
    unnamed = [name for name, hint in hints.items() if hint is None]
    if len(unnamed) == len(hints):
        return dict.fromkeys(names, "")
    if unnamed:
        raise SourceError(
            f"{where}: {len(unnamed):,} of {len(hints):,} files name no part, the others do: "
            f"{some(unnamed, most=5)}; name each with train, validation or test, or move them elsewhere"
        )
    return settled({name: hint for name, hint in hints.items() if hint})


def _nearest_hint(name: str) -> Hint | None:
    """What the last telling word of the file's name says, else of its nearest folder."""
    for piece in reversed(name.split("/")):
        known = [word for word in map(_without_ending, _words(piece)) if word in _PART_OF_WORD]
        if known:
            return Hint(_PART_OF_WORD[known[-1]], True, known[-1] in _EVALUATION)
    return None
