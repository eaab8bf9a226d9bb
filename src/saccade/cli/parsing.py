"""The words of a command line as a function to call, and what is said where they do not fit."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from saccade._version import __version__
from saccade.cli.commands import COMMANDS, RECIPE_COMMANDS, typed_words
from saccade.errors import RecipeError
from saccade.terminal import shown_default

HELP_FLAGS = ("--help", "-h")
FULL_HELP_FLAG = "--help-all"
DESCRIBED = "docs/recipe.md describes every flag. Each is also a line in a recipe file."
_NAMES = [command.__name__ for command in COMMANDS]


def parsed(words: Sequence[str]) -> tuple[Callable[..., int | None], inspect.BoundArguments]:
    """The function that the words name, and its arguments; raises RecipeError with a suggestion.

    words: what was typed after `saccade`.
    """
    typed_words.set(list(words))
    app = build_app(words)
    try:
        command, given, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise _refusal(error, words[0] if words and words[0] in _NAMES else "") from None
    return inspect.unwrap(command), given


def build_app(words: Sequence[str]) -> App:
    """The application, with the recipe's flags on the command that is about to run and no other.

    Making some seventy flags takes longer than printing the list of commands.
    """
    app = App(
        name="saccade",
        version=__version__,
        help="Turn a folder of labelled images into an image classifier you can trust and ship.",
        default_parameter=Parameter(show_default=shown_default),
    )
    for command in COMMANDS:
        name = command.__name__
        if command not in RECIPE_COMMANDS:
            app.command(command)
        elif name in words[:1]:
            flags = [*HELP_FLAGS, FULL_HELP_FLAG]
            app.command(_with_flags(command, words), help_flags=flags, help_epilogue=_epilogue(name, words))
        else:
            app.command(App(name=name, help=inspect.getdoc(command)))
    return app


def _with_flags(command: Callable[..., int], words: Sequence[str]) -> Callable[..., int]:
    """A stand-in for the command, with flags for fields of the recipe instead of its `**flags`.

    Cyclopts reads its signature; it is never called.
    """
    from saccade.cli.flags import recipe_parameters, usual_parameters

    @functools.wraps(command)
    def stand_in(*arguments: Any, **flags: Any) -> int:
        raise AssertionError("the command itself is called")

    is_short = not {*HELP_FLAGS}.isdisjoint(words)
    flags = (usual_parameters if is_short else recipe_parameters)(command.__name__)
    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [*(p for p in own if p.kind != p.VAR_KEYWORD), *flags]
    stand_in.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    stand_in.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return stand_in


def _epilogue(command: str, words: Sequence[str]) -> str:
    """What stands below a help page; nothing is worked out where no help is asked for."""
    if FULL_HELP_FLAG in words:
        return DESCRIBED
    if set(HELP_FLAGS).isdisjoint(words):
        return ""
    from saccade.cli.flags import has_more

    if has_more(command):
        return f"These are the usual flags. All of them: saccade {command} --help-all, and docs/recipe.md."
    return DESCRIBED


def _refusal(error: CycloptsError, command: str) -> RecipeError:
    """What does not fit, and what was probably meant."""
    help_line = (
        f"`saccade {command} --help` shows what it takes" if command else "`saccade --help` lists them"
    )
    if isinstance(error, UnknownOptionError):
        from saccade.cli.flags import unknown_flag

        own = [name for argument in error.argument_collection for name in argument.names]
        return unknown_flag(command, error.token.keyword or error.token.value, own)
    if isinstance(error, UnknownCommandError):
        word = (error.unused_tokens or [""])[0]
        kind = "flag" if word.startswith("-") else "command"
        close = difflib.get_close_matches(word, _NAMES, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        return RecipeError(f"unknown {kind}: {word}", hint=f"{meant}`saccade --help` lists the commands")
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        name = name if error.argument.index is None else name.lstrip("-").upper()
        return RecipeError(f"saccade {command} needs a value for {name}", hint=help_line)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return RecipeError(f"one word too many: {' '.join(error.unused_tokens)}", hint=help_line)
    text = str(error).rstrip(".")
    return RecipeError(f"{text[:1].lower()}{text[1:]}", hint=help_line)
