"""Help pages: one line for each argument and flag with its type, and examples to paste."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from cyclopts import Parameter

from saccade.cli.commands import COMMANDS, RECIPE_COMMANDS
from saccade.terminal import shown_default, write_lines

HELP_FLAGS = ("--help", "-h", "--help-all")
FULL_HELP_FLAG = "--help-all"
LEFT, WIDEST = 22, 110  # columns of the left column; of a page
# command -> lines that work as they stand, once the names are one's own; the first is the usual one
EXAMPLES: dict[str, tuple[str, ...]] = {
    "train": (
        "saccade train photos",
        "saccade train photos --method full --epochs 15 --image-size 260",
        "saccade train --resume runs/photos-1",
    ),
    "search": (
        "saccade search photos --time-limit 1800",
        "saccade search photos --trials 30 --backbones resnet18,resnet50",
        "saccade search photos --trials 30 --max-latency-ms 20 --method tail",
    ),
    "audit": (
        "saccade audit photos",
        "saccade audit photos --out audit",
        "saccade audit photos.csv --verify",
    ),
    "split": (
        "saccade split photos --out split.csv",
        "saccade split photos --out split.csv --group-pattern '(site\\d+)'",
        "saccade split photos --out folds.csv --folds 5",
    ),
    "index": (
        "saccade index s3://bucket/photos --out manifest.parquet",
        "saccade index photos --out manifest.parquet --hash",
    ),
    "plan": (
        "saccade plan manifest.parquet --machines 8 --cores 32",
        "saccade plan manifest.parquet --machines 8 --cores 16 --gpu h200",
    ),
    "augment": (
        "saccade augment photos --out augmented.png",
        "saccade augment photos --out augmented.png --augment strong",
        "saccade augment photos --out augmented.png --augment.mix_up 0.2",
    ),
    "lr": (
        "saccade lr photos --out rates.png",
        "saccade lr photos --out rates.png --optimizer lion --steps 200",
    ),
    "evaluate": (
        "saccade evaluate runs/photos-1 new_photos",
        "saccade evaluate runs/photos-1 new.csv --path-column file --root new",
        "saccade evaluate runs/photos-1",
    ),
    "report": (
        "saccade report runs/photos-1",
        "saccade report runs/photos-1 --full",
        "saccade report runs/photos-1 --annex-iv",
    ),
    "predict": (
        "saccade predict runs/photos-1 new_photos",
        'saccade predict runs/photos-1 "new/*.jpg" --out answers.csv',
        "saccade predict model.onnx new_photos --sort-into sorted",
    ),
    "export": (
        "saccade export runs/photos-1",
        "saccade export runs/photos-1 --int8",
        "saccade export runs/photos-1 --format web --out page",
    ),
    "certify": ("saccade certify model.onnx --against runs/photos-1",),
    "bench": ("saccade bench runs/photos-1", "saccade bench model.onnx --rounds 20"),
    "serve": (
        "saccade serve runs/photos-1",
        "saccade serve model.onnx --name flowers --port 9000",
        "saccade serve model.onnx --host 0.0.0.0 --token-file token.txt",
    ),
    "compare": (
        "saccade compare runs/photos-1 runs/photos-2",
        "saccade compare runs/photos-1 runs/photos-2 runs/photos-3",
        "saccade compare runs/photos-1 runs/photos-2 --out changed.html",
    ),
    "leaderboard": (
        "saccade leaderboard runs",
        "saccade leaderboard runs --by macro_f1 --out leaderboard.html",
        "saccade leaderboard 'runs/photos-*'",
    ),
    "track": (
        "saccade track runs/photos-1 --to tensorboard",
        "saccade track runs/photos-1 --to mlflow:http://localhost:5000",
    ),
    "replay": ("saccade replay runs/photos-1",),
    "summary": ("saccade summary small_cnn --classes 5", "saccade summary runs/photos-1"),
    "backbones": ("saccade backbones", "saccade backbones resnet", "saccade backbones '*'"),
    "demo": ("saccade demo",),
    "doctor": ("saccade doctor",),
}


class Line(NamedTuple):
    """One argument or flag: its group, how it is written, and what it does."""

    group: str
    left: str
    text: str


def asks_for_help(words: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a page is wanted: of the command that comes first, else of all.

    >>> asks_for_help(["train", "photos"], ["train"]), asks_for_help(["help", "train"], ["train"])
    (False, True)
    """
    if not words or words[0] == "help":
        return True
    return not set(HELP_FLAGS).isdisjoint(words) and (words[0] in names or words[0].startswith("-"))


def print_help(words: Sequence[str]) -> None:
    """Print the page that `words` ask for.

    words: as typed after `saccade`: a command and a help flag, and behind it a flag to explain.

    >>> print_help(["train", "--help", "seed"])
      --seed INT              Random seed of every draw. [0]
    """
    columns = max(60, min(shutil.get_terminal_size((100, 24)).columns, WIDEST))
    named = [word for word in words if word != "help"]
    command = next((command for command in COMMANDS if command.__name__ in named[:1]), None)
    page = _overview(columns) if command is None else _explained(command, named, columns)
    write_lines(sys.stdout, page)


def _overview(columns: int) -> list[str]:
    lines = ["saccade COMMAND", "Labelled images become an image classifier you can trust and ship.", ""]
    for command in COMMANDS:
        lines += _entry(command.__name__, _sentence(command), columns, left_columns=11)
    return [
        *lines,
        "",
        "saccade COMMAND --help shows what it takes, with examples. First: saccade demo",
    ]


def _explained(command: Callable[..., Any], words: Sequence[str], columns: int) -> list[str]:
    """What stands behind --help explained, if that is a flag of the command; else the page of the command."""
    from saccade.cli.flags import recipe_parameters

    wanted = {f"--{word.lstrip('-').replace('_', '-')}" for word in words[1:]}
    asked = []
    if command in RECIPE_COMMANDS and len(words) > 2:
        named = ((parameter, flag_names(parameter)) for parameter in recipe_parameters(command.__name__))
        asked = [parameter for parameter, names in named if wanted & {n.replace("_", "-") for n in names}]
    if not asked:
        return _page(command, FULL_HELP_FLAG in words, columns)
    lines = (_recipe_line(parameter) for parameter in asked)
    return [text for line in lines for text in _entry(line.left, line.text, columns)]


def _page(command: Callable[..., Any], full: bool, columns: int) -> list[str]:
    from saccade.cli.flags import has_more, recipe_parameters, usual_parameters

    name = command.__name__
    own = [
        p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD
    ]
    shown = [parameter for parameter in own if full or _annotated(parameter)[1].show is not False]
    more = []
    if command in RECIPE_COMMANDS:
        more = recipe_parameters(name) if full else usual_parameters(name)
    lines = [*_own_lines(shown), *(_recipe_line(parameter) for parameter in more)]
    page = [_usage(name, own), *textwrap.wrap(inspect.getdoc(command) or "", columns), ""]
    for number, line in enumerate(lines):
        if full and (number == 0 or line.group != lines[number - 1].group):
            page += ["", f"{line.group}:"][number == 0 :]
        page += _entry(line.left, line.text, columns)
    examples = EXAMPLES[name]
    page += ["", *(f"{'Examples: ' if not i else '          '}{line}" for i, line in enumerate(examples))]
    if not full and has_more(name):
        page.append(f"[..]: the default. All flags: saccade {name} --help-all")
    return page


def _usage(name: str, own: Iterable[inspect.Parameter]) -> str:
    words = [f"saccade {name}"]
    flags = False
    for parameter in own:
        needed = parameter.default is parameter.empty
        if parameter.kind is parameter.KEYWORD_ONLY and not needed:
            flags = True
            continue
        word = shown_name(parameter)
        words.append(word if needed else f"[{word}]")
    return " ".join([*words, *(["[FLAGS]"] if flags else [])])


def shown_name(parameter: inspect.Parameter) -> str:
    """What the user knows a parameter as: DATA, RUN, `--out DIR`."""
    kind, note = _annotated(parameter)
    if parameter.kind is parameter.KEYWORD_ONLY:
        return f"{flag_names(parameter)[0]} {_metavar(kind, note)}".rstrip()
    return (note.metavar or parameter.name.upper()) + ("..." if get_origin(kind) is list else "")


def _own_lines(own: Iterable[inspect.Parameter]) -> Iterator[Line]:
    """The command's own arguments and flags."""
    for parameter in own:
        _, note = _annotated(parameter)
        default = parameter.default
        is_said = default is parameter.empty or default in ("", False, None) or isinstance(default, bool)
        shown = "" if is_said else f" [{shown_default(default)}]"
        yield Line("Usage", shown_name(parameter), f"{note.help}{shown}")


@cache
def flags_of(command: str) -> frozenset[str]:
    """Every flag of a command, its own and those of fields that concern it.

    >>> sorted(flags_of("certify"))
    ['--against', '--data', '--provider']
    """
    from saccade.cli.flags import recipe_parameters

    function = next(known for known in COMMANDS if known.__name__ == command)
    flags: list[str] = []
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            flags += [name for p in recipe_parameters(command) for name in flag_names(p)]
        elif parameter.kind is parameter.KEYWORD_ONLY:
            flags += flag_names(parameter)
    return frozenset(flags)


def flag_names(parameter: inspect.Parameter) -> list[str]:
    """How a keyword is written as a flag, with the forms that switch it off."""
    _, note = get_args(parameter.annotation)
    names = [note.name] if isinstance(note.name, str) else [*(note.name or ())]
    return [*(names or [f"--{parameter.name.replace('_', '-')}"]), *(note.negative or ())]


def _recipe_line(parameter: inspect.Parameter) -> Line:
    """A field of the recipe as a flag, in the group of its section; its help holds the default."""
    from saccade.cli.flags import section_of

    kind, note = _annotated(parameter)
    names = list(note.name or ())
    left = f"{' '.join(reversed(names))} {_metavar(kind, note)}".rstrip()
    return Line(section_of(parameter), left, note.help or "")


def _annotated(parameter: inspect.Parameter) -> tuple[Any, Parameter]:
    """The type of a parameter, and what is said about it."""
    assert get_origin(parameter.annotation) is Annotated, parameter
    kind, note = get_args(parameter.annotation)
    return kind, note


def _metavar(kind: Any, note: Parameter) -> str:
    if note.metavar is not None:
        return note.metavar
    return {bool: "", int: "INT", float: "FLOAT"}.get(kind, "TEXT")


def _sentence(command: Callable[..., Any]) -> str:
    return (inspect.getdoc(command) or "").partition(". ")[0].removesuffix(".")


def _entry(left: str, text: str, columns: int, *, left_columns: int = LEFT) -> list[str]:
    """`left` and the text beside it, broken between words below itself."""
    indent = " " * (left_columns + 4)
    first = f"  {left:<{left_columns}}  "
    return textwrap.wrap(
        text.replace("`", ""), columns, initial_indent=first, subsequent_indent=indent, break_long_words=False
    ) or [first.rstrip()]
