"""The command line: flags -> Recipe -> pipeline; nothing else.

Exit codes: 0 well; 1 it ran and what it checks does not hold; 2 it cannot go on; 130/143 stopped.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from cyclopts import App, CycloptsError, Group, Parameter

from saccade._version import __version__
from saccade.errors import MissingExtraError, RecipeError, SaccadeError
from saccade.signals import answered_signals, exit_process, say_stopped
from saccade.terminal import Terminal, drop_output, printable, write_lines
from saccade.threads import calm_openmp

if TYPE_CHECKING:
    from saccade.recipe import Recipe

_words: ContextVar[list[str]] = ContextVar("words", default=[])  # noqa: B039 - never changed in place
STARTED = time.monotonic()
# Modules that come with saccade[train]
OF_TRAINING = {
    *("torch", "torchvision", "timm", "lightning_fabric", "safetensors", "onnx", "onnxscript", "sklearn"),
    *("threadpoolctl", "faiss", "pyarrow", "jinja2", "matplotlib", "simplejpeg"),
}
_MOVED = "Where the run's own images lie now, if they have moved since it was trained."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no traceback reaches the user."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_standard_files()
    try:
        return _run(words)
    finally:
        _settle(sys.stdout)


def _run(words: list[str]) -> int:
    _words.set(words)
    try:
        with answered_signals(words):
            return _answer(words)
    except KeyboardInterrupt as error:
        return say_stopped(words, error)


def _answer(words: Sequence[str]) -> int:
    """The exit code of one command; what cannot be is said in words."""
    try:
        calm_openmp()
        app = build_app(words[0] if words else "")
        result = app(words, exit_on_error=False, print_error=False)
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        command = f"{words[0]} " if words and words[0] in [known.__name__ for known in _COMMANDS] else ""
        return _fail(f"{error} See: saccade {command}--help")
    except SaccadeError as error:
        return _fail(*map(str, error.args), hint=error.hint)
    except BrokenPipeError:  # the reader (head, less) has gone; nothing is left to say
        return 0
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # the same, noticed by rich, which prints the help
            return 0
        raise
    except OSError as error:
        if os.environ.get("SACCADE_TRACEBACK"):
            raise
        return _fail(_refused(error))
    except Exception as error:
        if os.environ.get("SACCADE_TRACEBACK"):
            raise
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in OF_TRAINING:
            missing = MissingExtraError(str(error.name), "train", f"`saccade {words[0]}`")
            return _fail(*missing.args, hint=missing.hint)
        return _fail(f"{_defect(error)} See more with SACCADE_TRACEBACK=1, and please report it.")


def _open_standard_files() -> None:
    """Put the null device where the process was started without an input or output (`saccade ... >&-`).

    Otherwise the next file that is opened would take the number of the missing output, and get what is
    written there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _settle(stream: TextIO) -> None:
    """Write out what is left; where nobody takes it, drop it, so that the interpreter's end is quiet."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            drop_output(stream)


def _defect(error: Exception) -> str:
    """Words for a mistake of ours, with the place in our own code where it showed."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "saccade" in frame.filename]
    place = f" at {os.path.basename(places[-1].filename)}:{places[-1].lineno}" if places else ""
    return f"this is a defect of saccade {__version__}{place}: {type(error).__name__}: {error}."


def _refused(error: OSError) -> str:
    """Words for what the system refused: a full disk, a read-only folder, a file where a folder must be."""
    where = f"{error.filename} cannot be used ({error.strerror})" if error.filename else str(error)
    return f"{where}; check the path, its permissions and the space left there"


def _fail(message: str, *details: str, hint: str = "") -> int:
    lines = [
        f"error: {message}",
        *(f"  {detail}" for detail in details),
        *([f"hint: {hint}"] if hint else []),
    ]
    with contextlib.suppress(OSError, ValueError):  # nobody reads it
        write_lines(sys.stderr, [printable(line) for line in lines])
    return 2


def _pipeline() -> Any:
    from saccade import pipeline

    return pipeline


def _terminal(*, lasting: bool = True) -> Any:
    """`lasting` False: the command only prints, so that nothing is left to do where the reader has gone."""
    return Terminal(lasting=lasting)


# -- preparing -----------------------------------------------------------------------------------


def audit(
    data: Annotated[str, Parameter(help="Images: a folder, list or archive (see `docs/data.md`).")],
    /,
    *,
    out: Annotated[str, Parameter(help="Folder for audit.json and audit.html.")] = "",
    verify: Annotated[
        bool, Parameter(negative="", help="Read every file again, whatever is cached.")
    ] = False,
    no_cache: Annotated[
        bool, Parameter(negative="", help="Neither read nor keep cached measurements.")
    ] = False,
    recipe: Annotated[str, Parameter(help="A TOML file with recipe fields.")] = "",
    **flags: Any,
) -> int:
    """Say what is wrong with these images (exit 1 when a finding is a warning or worse)."""
    chosen = _recipe(flags, recipe)
    terminal = _terminal(lasting=bool(out))
    audited = _pipeline().audit_data(data, chosen, terminal, out=out, verify=verify, cache=not no_cache)
    return 0 if audited.worst == "info" else 1


def split(
    data: Annotated[str, Parameter(help="Images: a folder, list or archive.")],
    /,
    *,
    out: Annotated[str, Parameter(help="The list to write: split.csv, itself a data set.")],
    folds: Annotated[int, Parameter(help="Write k folds instead of three parts.")] = 0,
    recipe: Annotated[str, Parameter(help="A TOML file with recipe fields.")] = "",
    **flags: Any,
) -> int:
    """Make a leak-free train/validation/test split."""
    chosen = _recipe(flags, recipe)
    _pipeline().split_data(data, chosen, _terminal(), out=out, folds=folds)
    return 0


def augment(
    data: Annotated[str, Parameter(help="Images: a folder, list or archive.")],
    /,
    *,
    out: Annotated[str, Parameter(help="The picture to write (PNG).")],
    images: Annotated[int, Parameter(help="How many images (rows) to show.")] = 6,
    draws: Annotated[int, Parameter(help="How many augmented draws (columns) of each.")] = 7,
    recipe: Annotated[str, Parameter(help="A TOML file with recipe fields.")] = "",
    **flags: Any,
) -> int:
    """Show what the model will see of training images, beside what it sees when evaluated."""
    chosen = _recipe(flags, recipe)
    _pipeline().augment_preview(data, chosen, _terminal(), out=out, images=images, draws=draws)
    return 0


# -- training ------------------------------------------------------------------------------------


def train(
    data: Annotated[str, Parameter(help="Images: a folder, list or archive.")],
    /,
    *,
    out: Annotated[str, Parameter(help="The run folder; the same command continues there.")],
    recipe: Annotated[str, Parameter(help="A TOML file with recipe fields.")] = "",
    **flags: Any,
) -> int:
    """Audit, split, train, evaluate, export and report; run again to continue."""
    chosen = _recipe(flags, recipe)
    command = ["saccade", *_words.get()]
    result = _pipeline().train(data, chosen, _terminal(), out=out, command=command, started=STARTED)
    return int(result.exit_code)


def evaluate(
    run: Annotated[str, Parameter(help="A run folder.")],
    data: Annotated[str, Parameter(help="New labelled images; without: the run's own parts again.")] = "",
    /,
    *,
    name: Annotated[str, Parameter(help="Name of the evaluation; default: the data's own name.")] = "",
    moved: Annotated[str, Parameter(name="--data", help=_MOVED)] = "",
) -> int:
    """Make metrics and report again from the predictions, or measure on new data."""
    _pipeline().evaluate(run, data, _terminal(), name=name, moved=moved)
    return 0


def compare(
    first: Annotated[str, Parameter(help="A run folder.")],
    second: Annotated[str, Parameter(help="Another run folder, evaluated on the same images.")],
    /,
    *,
    part: Annotated[str, Parameter(help="Which part to compare on; default: test where both have it.")] = "",
) -> int:
    """Say which of two runs is better, and whether the difference is real."""
    _pipeline().compare(first, second, _terminal(lasting=False), part=part)
    return 0


# -- shipping ------------------------------------------------------------------------------------


def predict(
    model: Annotated[str, Parameter(help="A .onnx file or a run folder.")],
    /,
    inputs: Annotated[list[str], Parameter(help="Images or folders of images.")],
    *,
    out: Annotated[str, Parameter(help="Write all probabilities to F.csv, F.jsonl or F.parquet.")] = "",
    top_k: Annotated[int, Parameter(help="How many classes to name for each image.")] = 1,
) -> int:
    """Name the class of each image (exit 1 when some inputs failed, 2 when all did)."""
    from saccade.predict import predict_command

    return predict_command(model, inputs, _terminal(lasting=bool(out)), out=out, top_k=top_k)


def export(
    run: Annotated[str, Parameter(help="A run folder.")],
    /,
    *,
    format: Annotated[str, Parameter(help="File format: onnx.")] = "onnx",
    int8: Annotated[bool, Parameter(negative="", help="Write a smaller, faster int8 model.")] = False,
    out: Annotated[str, Parameter(help="Where to write; default: the run's export folder.")] = "",
    data: Annotated[str, Parameter(help=_MOVED)] = "",
) -> int:
    """Write the trained model as one certified file."""
    certificate = _pipeline().export(run, _terminal(), format=format, int8=int8, out=out, data=data)
    return 0 if certificate.passed else 1


def certify(
    file: Annotated[str, Parameter(help="An exported model.")],
    /,
    *,
    against: Annotated[str, Parameter(help="The run folder whose predictions it must repeat.")],
    data: Annotated[str, Parameter(help=_MOVED)] = "",
) -> int:
    """Run the certificate of an exported file again, on real images."""
    return 0 if _pipeline().certify(file, against, _terminal(), data=data).passed else 1


def bench(
    model: Annotated[str, Parameter(help="A run folder or a .onnx file.")],
    /,
    *,
    rounds: Annotated[int, Parameter(help="Interleaved rounds of every engine.")] = 5,
) -> int:
    """Measure latency, throughput, size and accuracy here, engines side by side."""
    _pipeline().bench(model, _terminal(lasting=False), rounds=rounds)
    return 0


# -- looking -------------------------------------------------------------------------------------


def summary(
    backbone: Annotated[str, Parameter(help="A name from `saccade backbones`, or a run folder.")],
    /,
    *,
    classes: Annotated[int, Parameter(help="Number of classes.")] = 10,
    image_size: Annotated[int, Parameter(help="Side of the input in pixels; 0: the backbone's own.")] = 0,
    head: Annotated[str, Parameter(help="linear or mlp.")] = "linear",
) -> int:
    """Print layer, output shape and parameters of a network."""
    _pipeline().summarize(
        backbone, _terminal(lasting=False), classes=classes, image_size=image_size, head=head
    )
    return 0


def backbones(pattern: Annotated[str, Parameter(help="Part of a name, * matches anything.")] = "", /) -> int:
    """List the networks that can be trained."""
    return 0 if _pipeline().list_backbones(pattern, _terminal(lasting=False)) else 1


def demo(
    *, out: Annotated[str, Parameter(help="The run folder.")] = "runs/demo", epochs: int = 0, seed: int = 0
) -> int:
    """Run the whole path on data that comes with a dependency, without network, in about a minute."""
    from saccade.demo import run_demo

    return run_demo(out, _terminal(), epochs=epochs, seed=seed, started=STARTED)


def doctor() -> int:
    """Say what this machine offers, and what is missing."""
    from saccade.doctor import examine

    return examine(_terminal(lasting=False))


_COMMANDS: tuple[Callable[..., int], ...] = (
    demo,
    audit,
    split,
    train,
    evaluate,
    augment,
    predict,
    export,
    certify,
    bench,
    compare,
    summary,
    backbones,
    doctor,
)
_RECIPE_COMMANDS = (audit, split, augment, train)


def _recipe(flags: dict[str, Any], file: str) -> Recipe:
    """Precedence: flag, then recipe file, then default."""
    from saccade.recipe import merged_recipe, read_recipe_file

    given = {name.replace("__", "."): _value(name, text) for name, text in flags.items() if text is not None}
    return merged_recipe(
        given, read_recipe_file(file) if file else {}, where=f"flags and {file}" if file else "flags"
    )


def _value(name: str, text: Any) -> Any:
    """Flags with several values are written with commas; options as name=value pairs."""
    from saccade.recipe import field_table

    kind = next(kind for key, kind, *_ in field_table() if key == name.replace("__", "."))
    if kind == "dict":
        return _options(str(text))
    if "," in kind:
        return text if text == "auto" else [part.strip() for part in str(text).split(",")]
    return text


def _options(text: str) -> dict[str, Any]:
    pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise RecipeError(f"--model.options: got {text!r}; write name=value pairs, such as pad_type=same")
    return {key.strip(): _literal(value.strip()) for key, value in pairs}


def _literal(text: str) -> str | int | float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def build_app(name: str) -> App:
    """The application, with the recipe's flags on the command that is about to run and no other.

    Making some seventy flags takes longer than printing the list of commands.
    """
    app = App(
        name="saccade",
        version=__version__,
        help="A folder of labelled images in, an image classifier you can trust and ship out.",
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # `main` says how to continue
    )
    for command in _COMMANDS:
        if command not in _RECIPE_COMMANDS:
            app.command(command)
        elif command.__name__ == name:
            app.command(_with_recipe_flags(command), name=name)
        else:
            app.command(App(name=command.__name__, help=(command.__doc__ or "").strip()))
    return app


def _with_recipe_flags(command: Callable[..., int]) -> Callable[..., int]:
    """The command with one flag for every field of the recipe, instead of its `**flags`."""
    from saccade.recipe import SHORT_FLAGS, field_table

    @functools.wraps(command)
    def run(*args: Any, **flags: Any) -> int:
        return command(*args, **flags)

    short = {field: flag for flag, field in SHORT_FLAGS.items()}
    own = [
        p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD
    ]
    flags = [_flag(key, kind, default, text, short.get(key)) for key, kind, default, text in field_table()]
    run.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *flags)}
    return run


def _flag(key: str, kind: str, default: Any, text: str, short: str | None) -> inspect.Parameter:
    section = key.partition(".")[0] if "." in key else "run"
    names = [f"--{key}", *([f"--{short}"] if short and short != key else [])]
    help_text = f"{text} [{kind}; default {_shown(default)}]"
    group = Group(section.capitalize(), sort_key=list(_SECTIONS).index(section) + 10)
    negative = [f"--no-{name.removeprefix('--')}" for name in names] if kind == "bool" else ""
    parameter = Parameter(name=names, help=help_text, group=group, negative=negative, show_default=False)
    annotation = Annotated[(bool if kind == "bool" else str) | None, parameter]  # type: ignore[valid-type]
    return inspect.Parameter(
        key.replace(".", "__"), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


_SECTIONS = ("run", "data", "split", "augment", "model", "train", "evaluate", "export")


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return (
        repr(default)
        if default in ("", {})
        else str(default).lower()
        if isinstance(default, bool)
        else str(default)
    )


if __name__ == "__main__":
    sys.exit(exit_process(main()))
