"""What is said of a flag that a command does not have: it belongs to another, or is misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from saccade.called_elsewhere import FLAGS
from saccade.cli.commands import COMMANDS
from saccade.cli.elsewhere import ABSENT, WRITTEN, plain
from saccade.cli.flags import USUAL, concerns, has_more, names_of, negative
from saccade.cli.help import flags_of
from saccade.errors import RecipeError
from saccade.recipe import SYNONYMS, field_table

_ALIKE = 0.75  # of difflib; less takes `resume` for `recipe`
_SHORTEST = 3  # letters of a word that may be the beginning of a longer one


def unknown_flag(command: str, flag: str, words: Sequence[str] = ()) -> RecipeError:
    """An error with what to type instead of a flag of another tool, or the flag that was probably meant.

    words: the command line.

    >>> unknown_flag("train", "--epoch").hint
    'did you mean --epochs? `saccade train --help-all` lists every flag'
    """
    typed = flag.partition("=")[0]
    if command == "train" and plain(typed) in ABSENT:
        return RecipeError(f"saccade has no {typed}", hint=f"leave it out: {ABSENT[plain(typed)]}")
    written = WRITTEN.get(plain(typed), "")
    if written and written.split()[0] in flags_of(command):
        return RecipeError(f"unknown flag: {typed}", hint=f"write {written.format(_value_of(typed, words))}")
    if command in USUAL and plain(typed) in _spellings(
        k for k, *_ in field_table() if not concerns(command, k)
    ):
        return RecipeError(
            f"{typed} has no effect on `saccade {command}`",
            hint="leave it out; it belongs to `saccade train`",
        )
    close = nearest(command, typed)
    everything = f"`saccade {command} {'--help-all' if has_more(command) else '--help'}` lists every flag"
    names = ["train", *(other.__name__ for other in COMMANDS)]
    owners = [name for name in names if typed in flags_of(name)]
    if owners and not close:
        return RecipeError(f"{typed} is a flag of `saccade {owners[0]}`, not of {command}", hint=everything)
    meant = f"did you mean {close}? " if close else ""
    return RecipeError(f"unknown flag: {typed}", hint=f"{meant}{everything}")


def _value_of(flag: str, words: Sequence[str]) -> str:
    """What stands behind a flag, VALUE where nothing does."""
    for word, after in zip(words, (*words[1:], "-"), strict=True):
        name, equals, value = word.partition("=")
        if name == flag and (equals or not after.startswith("-")):
            return value if equals else after
    return "VALUE"


def nearest(command: str, typed: str) -> str:
    """The flag of the command that is nearest to what was typed; "" where none is near.

    >>> nearest("train", "--weight"), nearest("audit", "--resume")
    ('--weights', '')
    """
    known = _known(command)
    word = plain(typed)
    close = difflib.get_close_matches(word, known, n=1, cutoff=_ALIKE)
    if close:
        return known[close[0]]
    ours = {name: flag for name, flag in known.items() if name not in FLAGS}
    begun = {flag for name, flag in ours.items() if _begins(name, word) or _begins(word, name)}
    return begun.pop() if len(begun) == 1 else ""


def _begins(word: str, beginning: str) -> bool:
    return len(beginning) >= _SHORTEST and word.startswith(beginning)


def _known(command: str) -> dict[str, str]:
    """What people may type -> the flag of this command that means it."""
    here = flags_of(command)
    known = {name: flag for name, flag in FLAGS.items() if flag in here and len(name) >= _SHORTEST}
    known |= {plain(flag): flag for flag in sorted(here)}
    if command in USUAL:
        known |= _spellings(key for key, *_ in field_table() if concerns(command, key))
    return known


def _spellings(keys: Iterable[str]) -> dict[str, str]:
    """What people may type for the fields `keys`, as `plain` has it -> the flag that exists."""
    spellings: dict[str, str] = {}
    elsewhere = {ours: theirs for theirs, ours in SYNONYMS.items()}
    for key in keys:
        section, _, name = key.rpartition(".")
        flags = names_of(key)
        if name in elsewhere:
            spellings |= {elsewhere[name]: flags[-1], f"{section}.{elsewhere[name]}": flags[0]}
        spellings[name] = flags[-1]
        spellings |= {plain(flag): flag for flag in (*flags, *negative(flags))}
    return spellings
