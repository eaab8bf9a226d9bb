"""The commands: each a function whose signature is its arguments and flags, which returns the exit code."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from saccade.cli import STARTED
from saccade.errors import RecipeError
from saccade.terminal import Terminal

if TYPE_CHECKING:
    from saccade.recipe import Recipe

typed_words: ContextVar[list[str]] = ContextVar("typed_words", default=[])  # noqa: B039 - never changed in place
_DATA = "Labelled images: a folder, list or archive (see docs/data.md)."
_RECIPE = "A TOML file with recipe fields; flags win over it."
_MOVED = "Folder of the run's own images, if they have moved since training."


def _pipeline() -> Any:
    from saccade import pipeline

    return pipeline


def _recipe(command: str, flags: dict[str, Any], file: str, terminal: Terminal) -> Recipe:
    """The recipe, after saying which fields of the file the command does not use."""
    from saccade.cli.flags import chosen_recipe

    recipe, idle = chosen_recipe(command, flags, file)
    if idle:
        terminal.say(f"Recipe    without effect on `saccade {command}`: {', '.join(idle)}")
    return recipe


# -- preparing -----------------------------------------------------------------------------------


def audit(
    data: Annotated[str, Parameter(help=_DATA)],
    /,
    *,
    out: Annotated[str, Parameter(help="Folder for audit.json and audit.html.")] = "",
    verify: Annotated[
        bool, Parameter(negative="", help="Read every file again, ignoring cached measurements.")
    ] = False,
    no_cache: Annotated[
        bool, Parameter(negative="", help="Neither read nor write cached measurements.")
    ] = False,
    recipe: Annotated[str, Parameter(help=_RECIPE)] = "",
    **flags: Any,
) -> int:
    """Report what is wrong with the images. Exit code 1: a finding is a warning or worse."""
    terminal = Terminal(lasting=bool(out))
    chosen = _recipe("audit", flags, recipe, terminal)
    audited = _pipeline().audit_data(data, chosen, terminal, out=out, verify=verify, cache=not no_cache)
    return 0 if audited.worst == "info" else 1


def split(
    data: Annotated[str, Parameter(help=_DATA)],
    /,
    *,
    out: Annotated[str, Parameter(help="List to write, such as split.csv; it is itself a data set.")],
    folds: Annotated[int, Parameter(help="Write k folds instead of three parts.")] = 0,
    recipe: Annotated[str, Parameter(help=_RECIPE)] = "",
    **flags: Any,
) -> int:
    """Divide images into train, validation and test parts without leaks."""
    terminal = Terminal()
    _pipeline().split_data(data, _recipe("split", flags, recipe, terminal), terminal, out=out, folds=folds)
    return 0


def augment(
    data: Annotated[str, Parameter(help=_DATA)],
    /,
    *,
    out: Annotated[str, Parameter(help="The picture to write (PNG).")],
    images: Annotated[int, Parameter(help="Number of images (rows).")] = 6,
    draws: Annotated[int, Parameter(help="Number of augmented draws (columns) of each.")] = 7,
    recipe: Annotated[str, Parameter(help=_RECIPE)] = "",
    **flags: Any,
) -> int:
    """Draw augmented training images beside the images as they are evaluated."""
    terminal = Terminal()
    chosen = _recipe("augment", flags, recipe, terminal)
    _pipeline().augment_preview(data, chosen, terminal, out=out, images=images, draws=draws)
    return 0


# -- training ------------------------------------------------------------------------------------


def train(
    data: Annotated[str, Parameter(help=_DATA)] = "",
    /,
    *,
    out: Annotated[
        str, Parameter(help="The run folder; the same command continues there. None: runs/<data>-1, -2, ...")
    ] = "",
    resume: Annotated[str, Parameter(help="A run folder to continue as it began, without DATA.")] = "",
    finish: Annotated[
        bool, Parameter(negative="", help="Make the model out of the best epoch so far, and end.")
    ] = False,
    recipe: Annotated[str, Parameter(help=_RECIPE)] = "",
    **flags: Any,
) -> int:
    """Audit, split, train, evaluate, export and report. The same command continues a run."""
    terminal = Terminal()
    options = {"command": ["saccade", *typed_words.get()], "started": STARTED, "finish": finish}
    if resume:
        given = [
            *filter(None, (data, out, recipe)),
            *(key for key, text in flags.items() if text is not None),
        ]
        if given:
            raise RecipeError(
                f"--resume continues a run as it began; also given: {', '.join(given).replace('__', '.')}",
                hint="leave that out, or train in a new folder (--out)",
            )
        return int(_pipeline().resume(resume, terminal, **options).exit_code)
    chosen = _recipe("train", flags, recipe, terminal)
    return int(_pipeline().train(data, chosen, terminal, out=out, **options).exit_code)


def evaluate(
    run: Annotated[str, Parameter(help="A run folder.")],
    data: Annotated[str, Parameter(help="New labelled images; none: the run's own parts again.")] = "",
    /,
    *,
    name: Annotated[str, Parameter(help="Name of the evaluation; none: the data's own name.")] = "",
    moved: Annotated[str, Parameter(name="--data", help=_MOVED)] = "",
    path_column: Annotated[str, Parameter(help="Column of a list DATA that names the image files.")] = "",
    label_column: Annotated[str, Parameter(help="Column of a list DATA that names the classes.")] = "",
    root: Annotated[str, Parameter(help="Folder that the paths of a list DATA begin in.")] = "",
) -> int:
    """Compute metrics and report again from the predictions, or evaluate on new data."""
    from saccade.sources import Columns

    columns = Columns(path_column, label_column, root=root)
    _pipeline().evaluate(run, data, Terminal(), name=name, moved=moved, columns=columns)
    return 0


def compare(
    first: Annotated[str, Parameter(help="A run folder.")],
    second: Annotated[str, Parameter(help="Another run folder, evaluated on the same images.")],
    /,
    *,
    part: Annotated[str, Parameter(help="Part to compare on; none: test where both have it.")] = "",
) -> int:
    """Test which of two runs is better, and whether the difference is significant."""
    _pipeline().compare(first, second, Terminal(lasting=False), part=part)
    return 0


# -- shipping ------------------------------------------------------------------------------------


def predict(
    model: Annotated[str, Parameter(help="A .onnx file or a run folder.")],
    /,
    inputs: Annotated[list[str], Parameter(help='Images, folders, patterns ("new/*.jpg") or lists.')],
    *,
    out: Annotated[str, Parameter(help="Write all probabilities to F.csv, F.jsonl or F.parquet.")] = "",
    top_k: Annotated[int, Parameter(help="Number of classes to name for each image.")] = 1,
    path_column: Annotated[str, Parameter(help="Column of a list that names the images.")] = "",
    root: Annotated[str, Parameter(help="Folder that the paths of a list begin in.")] = "",
) -> int:
    """Predict the class of each image. Exit code 1: some inputs failed; 2: all of them."""
    from saccade.predict import predict_command
    from saccade.sources import Columns
    from saccade.sources.inputs import named_inputs

    images = named_inputs(inputs, Columns(path=path_column, root=root))
    return predict_command(model, images, Terminal(lasting=bool(out)), out=out, top_k=top_k)


def export(
    run: Annotated[str, Parameter(help="A run folder.")],
    /,
    *,
    format: Annotated[
        str, Parameter(help="File format: onnx, int8, or one of an installed package.")
    ] = "onnx",
    int8: Annotated[bool, Parameter(negative="", help="Write a smaller int8 model, often faster.")] = False,
    out: Annotated[str, Parameter(help="Where to write; none: the run's export folder.")] = "",
    data: Annotated[str, Parameter(help=_MOVED)] = "",
) -> int:
    """Write the trained model as one certified file."""
    certificate = _pipeline().export(run, Terminal(), format=format, int8=int8, out=out, data=data)
    return 0 if certificate.passed else 1


def certify(
    file: Annotated[str, Parameter(help="An exported model.")],
    /,
    *,
    against: Annotated[str, Parameter(help="Run folder whose predictions it must reproduce.")],
    data: Annotated[str, Parameter(help=_MOVED)] = "",
) -> int:
    """Check an exported file against the predictions of a run, on real images."""
    return 0 if _pipeline().certify(file, against, Terminal(), data=data).passed else 1


def bench(
    model: Annotated[str, Parameter(help="A run folder or a .onnx file.")],
    /,
    *,
    rounds: Annotated[int, Parameter(help="Interleaved rounds of all engines.")] = 5,
) -> int:
    """Measure latency, throughput, size and accuracy on this machine, engines side by side."""
    _pipeline().bench(model, Terminal(lasting=False), rounds=rounds)
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
    """Print layers, output shapes and parameters of a network."""
    _pipeline().summarize(
        backbone, Terminal(lasting=False), classes=classes, image_size=image_size, head=head
    )
    return 0


def backbones(pattern: Annotated[str, Parameter(help="Part of a name; * matches anything.")] = "", /) -> int:
    """List the networks that can be trained."""
    return 0 if _pipeline().list_backbones(pattern, Terminal(lasting=False)) else 1


def demo(
    *,
    out: Annotated[str, Parameter(help="The run folder.")] = "runs/demo",
    epochs: Annotated[int, Parameter(help="Epochs of training; 0: the usual number.")] = 0,
    seed: Annotated[int, Parameter(help="Random seed.")] = 0,
) -> int:
    """Run the whole path on handwritten digits, without network, in about a minute."""
    from saccade.demo import run_demo

    return run_demo(out, Terminal(), epochs=epochs, seed=seed, started=STARTED)


def doctor() -> int:
    """Show what this installation has, and what is missing."""
    from saccade.doctor import examine

    return examine(Terminal(lasting=False))


COMMANDS: tuple[Callable[..., int], ...] = (
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
RECIPE_COMMANDS = (audit, split, augment, train)
