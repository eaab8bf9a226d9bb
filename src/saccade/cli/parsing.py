"""The words of a command line as a function to call, and what is said where they do not fit."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
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
from saccade.cli.commands import COMMANDS, RECIPE_COMMANDS, train, typed_words
from saccade.errors import RecipeError
from saccade.terminal import say_problem, shown_default

HELP_FLAGS = ("--help", "-h")
FULL_HELP_FLAG = "--help-all"
DESCRIBED = "docs/recipe.md describes every flag. Each is also a line in a recipe file."
# What flags are called in Ultralytics, Keras, timm and fastai -> their names here
CALLED_ELSEWHERE = {
    "--imgsz": "--image-size",
    "--img-size": "--image-size",
    "--input-size": "--image-size",
    "--batch": "--batch-size",
    "--bs": "--batch-size",
    "--learning-rate": "--lr",
    "--learning_rate": "--lr",
    "--lr0": "--lr",
    "--opt": "--optimizer",
    "--sched": "--schedule",
    "--model": "--backbone",
    "--arch": "--backbone",
    "--mixup": "--augment.mix_up",
    "--cutmix": "--augment.cut_mix",
    "--smoothing": "--train.label_smoothing",
    "--label-smoothing": "--train.label_smoothing",
    "--weight-decay": "--train.weight_decay",
    "--momentum": "--train.momentum",
    "--patience": "--train.early_stopping",
    "--workers": "--train.workers",
    "--dropout": "--model.dropout",
    "-o": "--out",
}
_NAMES = [command.__name__ for command in COMMANDS]


def parsed(words: list[str]) -> tuple[Callable[..., int | None], inspect.BoundArguments]:
    """The function that the words name, and its arguments; raises RecipeError with a suggestion.

    words: what was typed after `saccade`. A run folder that is chosen here joins them, so that what is said
    of a stopped run continues it.
    """
    _call_by_our_names(words)
    app = build_app(words)
    try:
        command, given, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise _refusal(error, words[0] if words and words[0] in _NAMES else "") from None
    if inspect.unwrap(command) is train and not given.arguments.get("resume"):
        _choose_run_folder(words, given)
    typed_words.set(list(words))
    return inspect.unwrap(command), given


def _call_by_our_names(words: list[str]) -> None:
    """Replace, in place, what a flag is called elsewhere by its name here, and say so."""
    if words[:1] != ["train"]:
        return
    for number, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in CALLED_ELSEWHERE:
            words[number] = f"{CALLED_ELSEWHERE[flag]}{equals}{value}"
            say_problem("note", f"{flag} is {CALLED_ELSEWHERE[flag]} here")


def _choose_run_folder(words: list[str], given: inspect.BoundArguments) -> None:
    """Where no --out is given: runs/<data>-1, or the next number that is free; put among the words."""
    data = given.arguments.get("data", "")
    if not data:
        raise RecipeError(
            "saccade train needs DATA, or --resume RUN",
            hint="give a folder, list or archive of labelled images",
        )
    if given.arguments.get("out"):
        return
    name = re.sub(r"[^\w.-]+", "-", Path(data).expanduser().resolve().stem).strip("-.") or "run"
    taken = (re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name) for path in Path("runs").glob(f"{name}-*"))
    number = 1 + max((int(found[1]) for found in taken if found), default=0)
    given.arguments["out"] = f"runs/{name}-{number}"
    words += ["--out", given.arguments["out"]]


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
