"""The words of a command line as a function to call, and what is said where they do not fit."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from saccade._version import __version__
from saccade.cli.commands import COMMANDS, RECIPE_COMMANDS, search, train, typed_words
from saccade.cli.elsewhere import in_our_words, joined, line_meant
from saccade.cli.help import EXAMPLES, asks_for_help, print_help, shown_name
from saccade.errors import RecipeError
from saccade.processes import started_again

_NAMES = [command.__name__ for command in COMMANDS]
_STANDARD_INPUT = "/dev/stdin"  # means the same; a lone - would pass for a flag
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".avif")


def parsed(words: list[str]) -> tuple[Callable[..., int | None], inspect.BoundArguments]:
    """The function that the words name, and its arguments; raises RecipeError with a suggestion.

    words: what was typed after `saccade`. A run folder that is chosen here joins them, so that what is said
    of a stopped run continues it.
    """
    if asks_for_help(words, _NAMES):
        return print_help, inspect.signature(print_help).bind(words)
    if any("://" in word for word in words):
        from saccade.sources.addresses import words_without_secrets

        words[:] = words_without_secrets(words)
    in_our_words(words, _NAMES)
    app = build_app(words)
    tokens = [_STANDARD_INPUT if word == "-" and words[0] == "predict" else word for word in words]
    if words[0] in {command.__name__ for command in RECIPE_COMMANDS}:
        from saccade.cli.flags import with_values

        tokens = with_values(tokens)
    try:
        command, given, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise _refusal(error, words) from None
    if inspect.unwrap(command) in (train, search) and not given.arguments.get("resume"):
        _choose_run_folder(words, given)
    typed_words.set(list(words))
    run = inspect.unwrap(command)
    if given.arguments.get("resume") or any("://" in str(value) for value in given.arguments.values()):
        from saccade.cli.outputs import uploading

        run = uploading(run, given)
    return run, given


def _choose_run_folder(words: list[str], given: inspect.BoundArguments) -> None:
    """Where no --out is given: runs/<data>-1, or the next number that is free; put among the words.

    A command that its launcher starts again goes on in the newest.
    """
    data = given.arguments.get("data", "")
    if not data:
        raise RecipeError("saccade train needs DATA, or --resume RUN", hint=_for_example("train"))
    if given.arguments.get("out"):
        return
    name = _run_name(data)
    taken = (re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name) for path in Path("runs").glob(f"{name}-*"))
    newest = max((int(found[1]) for found in taken if found), default=0)
    number = max(1, newest) if started_again() else newest + 1
    given.arguments["out"] = f"runs/{name}-{number}"
    words += ["--out", given.arguments["out"]]


def _run_name(data: str) -> str:
    """What runs of these data are called."""
    return re.sub(r"[^\w.-]+", "-", Path(os.path.abspath(Path(data).expanduser())).stem).strip("-.") or "run"


def build_app(words: Sequence[str]) -> App:
    """The application, with the recipe's flags on the command that is about to run and no other.

    Making some seventy flags takes longer than printing the list of commands.
    """
    app = App(name="saccade", version=__version__, help_flags=[])
    for command in COMMANDS:
        if command in RECIPE_COMMANDS and command.__name__ in words[:1]:
            app.command(_with_flags(command))
        else:
            app.command(command) if command not in RECIPE_COMMANDS else app.command(
                App(name=command.__name__)
            )
    return app


def _with_flags(command: Callable[..., int]) -> Callable[..., int]:
    """A stand-in for the command, with flags for fields of the recipe instead of its `**flags`.

    Cyclopts reads its signature; it is never called.
    """
    from saccade.cli.flags import recipe_parameters

    @functools.wraps(command)
    def stand_in(*arguments: Any, **flags: Any) -> int:
        raise AssertionError("the command itself is called")

    parameters = [*_own(command), *recipe_parameters(command.__name__)]
    stand_in.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    stand_in.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return stand_in


def _own(command: Callable[..., int]) -> list[inspect.Parameter]:
    """The command's arguments and flags beside the recipe's."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    return [parameter for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD]


# -- what does not fit ---------------------------------------------------------------------------------


def _refusal(error: CycloptsError, words: Sequence[str]) -> RecipeError:
    """What does not fit, and what was probably meant."""
    command = words[0] if words and words[0] in _NAMES else ""
    if isinstance(error, UnknownOptionError):
        from saccade.cli.suggestions import unknown_flag

        return unknown_flag(command, error.token.keyword or error.token.value, words)
    if isinstance(error, UnknownCommandError):
        return _unknown_command(list(error.unused_tokens or words))
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        flag = next((word for word in words if word in error.argument.names), "")
        return _without_value(flag, words) if flag else _missing(command, error.argument.names, words)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return _too_many(command, words, error.unused_tokens)
    text = str(error).rstrip(".")
    return RecipeError(
        f"{text[:1].lower()}{text[1:]}", hint=f"`saccade {command} --help` shows what it takes"
    )


def _for_example(command: str) -> str:
    return f"for example: {EXAMPLES[command][0]}"


def _unknown_command(words: Sequence[str]) -> RecipeError:
    """A flag, data or a run without a command, the word of another tool, or a misspelling."""
    word = words[0]
    if word.startswith("-"):
        return RecipeError(f"unknown flag: {word}", hint="`saccade --help` lists the commands")
    line = line_meant(words, EXAMPLES) or _line_for_path(words)
    if line:
        return RecipeError(f"unknown command: {word}", hint=line)
    close = difflib.get_close_matches(word, _NAMES, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return RecipeError(f"unknown command: {word}", hint=f"{meant}`saccade --help` lists the commands")


def _line_for_path(words: Sequence[str]) -> str:
    """The line for somebody who gave data, a run or images without a command; "" where it is no path."""
    path = Path(words[0])
    if not path.exists():
        return ""
    if _is_model(path):
        return joined(["predict", *words]) + (" IMAGES" if len(words) == 1 else "")
    return joined(["predict", _newest_run() or "RUN", *words] if _is_image(path) else ["train", *words])


def _is_model(path: Path) -> bool:
    return path.suffix == ".onnx" or (path / "recipe.toml").is_file()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _IMAGE_ENDINGS


def _newest_run(pattern: str = "*") -> str:
    """The newest run below runs/ whose name fits, "" without one."""
    found = sorted(Path("runs").glob(f"{pattern}/recipe.toml"), key=lambda path: path.stat().st_mtime)
    return str(found[-1].parent) if found else ""


def _missing(command: str, names: Sequence[str], words: Sequence[str]) -> RecipeError:
    """What the command needs and did not get, as the user knows it."""
    own = _own(next(known for known in COMMANDS if known.__name__ == command))
    first = next(i for i, parameter in enumerate(own) if _is_called(parameter, names))
    needed = [parameter for parameter in own[first:] if parameter.default is parameter.empty]
    absent = [
        shown_name(parameter).removesuffix("...") for parameter in needed if not _is_given(parameter, words)
    ]
    given = [word for word in words[1:] if not word.startswith("-")]
    if command == "predict" and given and _is_image_like(given[0]):
        return RecipeError(
            f"saccade {command} needs a run, or an .onnx file, before {given[0]}",
            hint=joined([command, _newest_run() or "RUN", *words[1:]]),
        )
    return RecipeError(
        f"saccade {command} needs {' and '.join(absent).replace('...', '')}", hint=_for_example(command)
    )


def _without_value(flag: str, words: Sequence[str]) -> RecipeError:
    """A flag that stands without its value; behind --resume the newest run of the data that is named."""
    if flag != "--resume":
        return RecipeError(
            f"{flag} needs a value",
            hint=f"`saccade {words[0]} --help {flag.removeprefix('--')}` shows what it takes",
        )
    data = words[1] if not words[1].startswith("-") else ""
    run = _newest_run(f"{_run_name(data)}-[0-9]*" if data else "*") or "runs/photos-1"
    return RecipeError("--resume takes a run folder", hint=f"for example: saccade train --resume {run}")


def _is_image_like(word: str) -> bool:
    folder = os.path.isdir(word) and not _is_model(Path(word))
    return _is_image(Path(word)) or "*" in word or folder


def _is_called(parameter: inspect.Parameter, names: Sequence[str]) -> bool:
    return parameter.name in {name.lstrip("-").replace("-", "_").lower() for name in names}


def _is_given(parameter: inspect.Parameter, words: Sequence[str]) -> bool:
    return any(word.partition("=")[0] == f"--{parameter.name}" for word in words)


def _too_many(command: str, words: Sequence[str], unused: Sequence[str]) -> RecipeError:
    """More words than the command takes; folders that a shell made of photos/* have a folder in common."""
    message = f"{'one word' if len(unused) == 1 else f'{len(unused)} words'} too many: {' '.join(unused[:3])}"
    first = next((word for word in words[1:] if not word.startswith("-")), "")
    above = os.path.dirname(first.rstrip("/"))
    if above and all(os.path.dirname(word.rstrip("/")) == above for word in unused):
        kept = [word for word in words[1:] if word not in (*unused, first)]
        return RecipeError(message, hint=joined([command, above, *kept]))
    return RecipeError(message, hint=_for_example(command))
