"""The commands: each a function whose signature is its arguments and flags, which returns the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from saccade import extensions, processes
from saccade.cli import STARTED
from saccade.cluster import LOCAL, cluster_of
from saccade.errors import EngineError, RecipeError
from saccade.terminal import Terminal

if TYPE_CHECKING:
    from saccade.recipe import Recipe

typed_words: ContextVar[list[str]] = ContextVar("typed_words", default=[])  # noqa: B039 - never changed in place
_MOVED = "Folder of the run's own images, if they have moved since training."
Data = Annotated[str, Parameter(help="Labelled images: folder, list, archive or address.", metavar="DATA")]
RecipeFile = Annotated[str, Parameter(help="Recipe fields in TOML; flags win over them.", metavar="FILE")]
Run = Annotated[str, Parameter(help="A run folder.", metavar="RUN")]
Model = Annotated[str, Parameter(help="A run folder or an .onnx file.", metavar="RUN")]
Shares = Annotated[
    str,
    Parameter(
        help="How common the classes are where the model is used: NAME=SHARE,..., uniform, training, a file.",
        metavar="PRIORS",
    ),
]
RightShare = Annotated[
    float,
    Parameter(help="Share of its answers that must be right; the rest it asks about.", metavar="SHARE"),
]
Moved = Annotated[str, Parameter(help=_MOVED, metavar="DIR")]
Engine = Annotated[str, Parameter(help="Who reads images: local, ray or ray://ADDRESS.", metavar="ENGINE")]


def _cluster(engine: str, *locations: str) -> AbstractContextManager[Any]:
    """What `--engine` names; raises EngineError for a cluster that would not know an address's login."""
    if engine.startswith("ray://"):
        from saccade.sources.addresses import is_remote, secret_of

        for location in filter(is_remote, locations):
            if any(secret_of(location)):
                raise EngineError(
                    f"{engine} cannot read {location}: its login or query is passed on to nobody",
                    hint="use --engine ray or local, or put the data into a bucket that the cluster may read",
                )
    return cluster_of(engine)


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
    data: Data,
    /,
    *,
    out: Annotated[str, Parameter(help="Folder for audit.json and audit.html.", metavar="DIR")] = "",
    verify: Annotated[
        bool, Parameter(negative="", help="Read every file again, ignoring cached measurements.")
    ] = False,
    no_cache: Annotated[
        bool, Parameter(negative="", help="Neither read nor write cached measurements.")
    ] = False,
    engine: Engine = LOCAL,
    recipe: RecipeFile = "",
    **flags: Any,
) -> int:
    """Report what is wrong with the images. Exit code 1: a finding is a warning or worse."""
    terminal = Terminal(lasting=bool(out))
    chosen = _recipe("audit", flags, recipe, terminal)
    with _cluster(engine, data) as cluster:
        options = {"out": out, "verify": verify, "cache": not no_cache, "cluster": cluster}
        audited = _pipeline().audit_data(data, chosen, terminal, **options)
    return 0 if audited.worst == "info" else 1


def split(
    data: Data,
    /,
    *,
    out: Annotated[
        str,
        Parameter(help="List to write, itself a data set (large: .parquet).", metavar="FILE.csv"),
    ],
    folds: Annotated[int, Parameter(help="Write k folds instead of three parts.")] = 0,
    recipe: RecipeFile = "",
    **flags: Any,
) -> int:
    """Divide images into train, validation and test parts without leaks."""
    terminal = Terminal()
    _pipeline().split_data(data, _recipe("split", flags, recipe, terminal), terminal, out=out, folds=folds)
    return 0


def index(
    location: Annotated[str, Parameter(help="A folder, or a bucket's address.", metavar="LOCATION")],
    /,
    *,
    out: Annotated[str, Parameter(help="Manifest to write or renew.", metavar="FILE.parquet")],
    hash: Annotated[
        bool, Parameter(negative="", help="Read new and changed images for their SHA-256.")
    ] = False,
) -> int:
    """List images once, in a manifest that every command takes as DATA."""
    _pipeline().index(location, Terminal(), out=out, hashes=hash)
    return 0


def plan(
    manifest: Annotated[str, Parameter(help="What `saccade index` wrote.", metavar="MANIFEST")],
    /,
    *,
    machines: Annotated[int, Parameter(help="Number of machines.")] = 1,
    cores: Annotated[int, Parameter(help="Cores of each.")] = 1,
    gpu: Annotated[str, Parameter(help="A GPU in each, such as h200.", metavar="NAME")] = "",
    out: Annotated[str, Parameter(help="Write all figures to a .json.", metavar="FILE.json")] = "",
) -> int:
    """Estimate hours, bytes, requests and memory of each stage from rates measured here."""
    terminal = Terminal(lasting=bool(out))
    _pipeline().plan(manifest, terminal, machines=machines, cores=cores, gpu=gpu, out=out)
    return 0


def augment(
    data: Data,
    /,
    *,
    out: Annotated[str, Parameter(help="The picture to write.", metavar="FILE.png")],
    images: Annotated[int, Parameter(help="Number of images (rows).")] = 6,
    draws: Annotated[int, Parameter(help="Number of augmented draws (columns) of each.")] = 7,
    recipe: RecipeFile = "",
    **flags: Any,
) -> int:
    """Draw augmented training images beside the evaluated ones."""
    terminal = Terminal()
    chosen = _recipe("augment", flags, recipe, terminal)
    _pipeline().augment_preview(data, chosen, terminal, out=out, images=images, draws=draws)
    return 0


def lr(
    data: Data,
    /,
    *,
    out: Annotated[str, Parameter(help="The picture to write.", metavar="FILE.png")],
    steps: Annotated[int, Parameter(help="Most training steps of each test.")] = 100,
    recipe: RecipeFile = "",
    **flags: Any,
) -> int:
    """Find a learning rate: test rising rates on training images."""
    terminal = Terminal()
    chosen = _recipe("lr", flags, recipe, terminal)
    _pipeline().find_rates(data, chosen, terminal, out=out, steps=steps)
    return 0


# -- training ------------------------------------------------------------------------------------


def train(
    data: Data = "",
    /,
    *,
    out: Annotated[str, Parameter(help="The run folder. [runs/DATA-1, -2, ...]", metavar="DIR")] = "",
    resume: Annotated[str, Parameter(help="Continue a run as it began, without DATA.", metavar="RUN")] = "",
    finish: Annotated[
        bool, Parameter(negative="", help="Make the model out of the best epoch so far, and end.")
    ] = False,
    track: Annotated[
        list[str] | None,
        Parameter(
            help="Tell tensorboard[:DIR], mlflow[:URI] or wandb, too.",
            metavar="TOOL",
            negative="",
        ),
    ] = None,
    devices: Annotated[
        int, Parameter(help="Processes that train together, one a GPU. [1]", metavar="N", show=False)
    ] = 0,
    slurm_script: Annotated[
        str, Parameter(help="Write a batch file for SLURM, and do not train.", metavar="FILE", show=False)
    ] = "",
    engine: Annotated[
        str,
        Parameter(
            help="Who reads images and computes frozen features: local, ray or ray://ADDRESS.",
            metavar="ENGINE",
            show=False,
        ),
    ] = LOCAL,
    recipe: RecipeFile = "",
    **flags: Any,
) -> int:
    """Train a certified model on labelled images. The same command continues a run."""
    terminal = Terminal()
    place = processes.place(devices)
    if not place.leads:
        return _help_out(place, resume, flags, recipe)
    options = {"command": ["saccade", *typed_words.get()], "started": STARTED, "finish": finish}
    options["place"] = place
    options["callbacks"] = _trackers(track or ())
    if resume:
        means = _means([data, out, recipe], flags)
        if slurm_script:
            return _slurm_script(slurm_script, _recipe_of(resume), terminal, place, resume)
        with _cluster(engine) as cluster:
            resumed = _pipeline().resume(resume, terminal, means=means, cluster=cluster, **options)
        return int(resumed.exit_code)
    chosen = _recipe("train", flags, recipe, terminal)
    if slurm_script:
        return _slurm_script(slurm_script, chosen, terminal, place, out)
    with _cluster(engine, data) as cluster:
        return int(_pipeline().train(data, chosen, terminal, out=out, cluster=cluster, **options).exit_code)


def _means(words: Sequence[str], flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that may be others in a run that continues; raises RecipeError for anything else."""
    from saccade.recipe import MEANS

    given = {key.replace("__", "."): text for key, text in flags.items() if text is not None}
    if wrong := [*filter(None, words), *(key for key in given if key not in MEANS)]:
        raise RecipeError(
            f"--resume continues a run as it began; also given: {', '.join(wrong)}",
            hint="leave that out, or train in a new folder (--out)",
        )
    return given


def _help_out(place: processes.Place, resume: str, flags: dict[str, Any], file: str) -> int:
    """A process beside process 0, started with it by torchrun or srun, takes part in its training."""
    from saccade.pipeline.helping import launched_helper

    quiet = Terminal(quiet=True)
    chosen = _recipe_of(resume) if resume else _recipe("train", flags, file, quiet)
    return launched_helper(place, chosen.device)


def _recipe_of(run: str) -> Recipe:
    from saccade.run_folder import existing_run

    return existing_run(run).read_recipe()


def _slurm_script(file: str, recipe: Recipe, terminal: Terminal, place: processes.Place, run: str) -> int:
    from saccade.pipeline.slurm import write_slurm_script

    if recipe.train.batch_size != "auto":
        processes.require_divisible(recipe.batch_size, place.count)
    write_slurm_script(file, typed_words.get(), recipe, terminal, processes=place.count, run=run)
    return 0


def _trackers(asked: Sequence[str]) -> tuple[Any, ...]:
    if not asked:
        return ()
    from saccade.tracking import tracker  # imports torch

    return tuple(map(tracker, asked))


def track(
    run: Run,
    /,
    *,
    to: Annotated[str, Parameter(help="tensorboard[:DIR], mlflow[:URI] or wandb[:PROJECT].", metavar="TOOL")],
) -> int:
    """Write a finished run to an experiment tracker."""
    _pipeline().track(run, to, Terminal())
    return 0


def search(
    data: Data,
    /,
    *,
    out: Annotated[str, Parameter(help="The run folder. [runs/DATA-1, -2, ...]", metavar="DIR")] = "",
    trials: Annotated[int, Parameter(help="Trials of all its processes together.")] = 20,
    backbones: Annotated[
        str, Parameter(help="Names, with commas. [those with weights here]", metavar="NAMES")
    ] = "",
    max_latency_ms: Annotated[float, Parameter(help="Most for one photo on one core; 0 is no limit.")] = 0.0,
    max_mb: Annotated[float, Parameter(help="Most megabytes of weights; 0 is no limit.")] = 0.0,
    no_train: Annotated[
        bool, Parameter(negative="", help="Write best.toml without the run of the best trial.")
    ] = False,
    recipe: RecipeFile = "",
    **flags: Any,
) -> int:
    """Search for better settings, and make the run of the best trial."""
    from saccade.search import SearchOptions, search
    from saccade.search.ground import Limits

    terminal = Terminal()
    chosen = _recipe("search", flags, recipe, terminal)
    named = tuple(name.strip() for name in backbones.split(",") if name.strip())
    options = SearchOptions(trials, named, Limits(max_latency_ms, max_mb), not no_train)
    command = ["saccade", *typed_words.get()]
    return search(data, chosen, options, terminal, out=out, command=command, started=STARTED)


def evaluate(
    run: Run,
    data: Annotated[
        str, Parameter(help="New labelled images; none: the run's own parts.", metavar="DATA")
    ] = "",
    /,
    *,
    name: Annotated[str, Parameter(help="Name of the evaluation. [the data's]", metavar="NAME")] = "",
    moved: Annotated[str, Parameter(name="--data", help=_MOVED, metavar="DIR")] = "",
    path_column: Annotated[
        str, Parameter(help="Column of a list DATA that names the images.", metavar="COLUMN")
    ] = "",
    label_column: Annotated[
        str, Parameter(help="Column of a list DATA that names the classes.", metavar="COLUMN")
    ] = "",
    label_delimiter: Annotated[
        str, Parameter(help="Mark between labels in a cell of a list DATA.", metavar="MARK")
    ] = "",
    label_columns: Annotated[
        str, Parameter(help="Columns of 0 and 1 of a list DATA, one a label.", metavar="COLUMN,...")
    ] = "",
    root: Annotated[
        str, Parameter(help="Folder that the paths of a list DATA begin in.", metavar="DIR")
    ] = "",
    priors: Shares = "",
    target_precision: RightShare = 0.0,
) -> int:
    """Compute metrics and report again, or evaluate on new data."""
    from saccade.sources import Columns

    columns = Columns(path_column, label_column, root=root, delimiter=label_delimiter, one_hot=label_columns)
    options: dict[str, Any] = {"columns": columns, "priors": priors, "target": target_precision}
    _pipeline().evaluate(run, data, Terminal(), name=name, moved=moved, **options)
    return 0


def report(
    run: Run,
    /,
    *,
    full: Annotated[
        bool, Parameter(negative="", help="Look for more first, in features of the images (minutes).")
    ] = False,
    annex_iv: Annotated[
        bool, Parameter(negative="", help="Add headings of the EU AI Act to the model card.")
    ] = False,
    moved: Annotated[str, Parameter(name="--data", help=_MOVED, metavar="DIR")] = "",
) -> int:
    """Write the pages of a run again."""
    _pipeline().report(run, Terminal(), full=full, moved=moved, with_annex_iv=annex_iv)
    return 0


def compare(
    first: Run,
    /,
    others: Annotated[list[str], Parameter(help="Runs evaluated on the same images.", metavar="OTHER_RUN")],
    *,
    part: Annotated[
        str, Parameter(help="Part to compare on; none: test where all have it.", metavar="PART")
    ] = "",
    out: Annotated[
        str, Parameter(help="Write all images that changed sides to a .csv or .html.", metavar="FILE")
    ] = "",
) -> int:
    """Test whether the first run is significantly better or worse than others."""
    _pipeline().compare([first, *others], Terminal(lasting=bool(out)), part=part, out=out)
    return 0


def leaderboard(
    places: Annotated[
        list[str],
        Parameter(help='Folders that hold runs, runs, or patterns ("runs/photos-*").', metavar="RUNS"),
    ],
    *,
    by: Annotated[str, Parameter(help="The figure that ranks them.", metavar="FIGURE")] = "accuracy",
    out: Annotated[str, Parameter(help="Write the rankings to a .csv or .html.", metavar="FILE")] = "",
) -> int:
    """Rank all finished runs that were measured on the same images."""
    _pipeline().leaderboard(places, Terminal(lasting=bool(out)), by=by, out=out)
    return 0


def replay(
    run: Annotated[str, Parameter(help="A run that a loss which is not finite stopped.", metavar="RUN")], /
) -> int:
    """Find the layer that gave NaN, where that stopped a run. Exit code 1: all is finite now."""
    return 0 if _pipeline().replay(run, Terminal(lasting=False)) else 1


# -- shipping ------------------------------------------------------------------------------------


def predict(
    model: Model,
    /,
    inputs: Annotated[
        list[str],
        Parameter(
            help='Images, folders, patterns ("new/*.jpg"), lists, archives, addresses; - reads paths.',
            metavar="IMAGES",
        ),
    ],
    *,
    out: Annotated[
        str, Parameter(help="Write all probabilities to a .csv, .jsonl or .parquet.", metavar="FILE")
    ] = "",
    top_k: Annotated[int, Parameter(help="Number of classes to name for each image.")] = 1,
    path_column: Annotated[
        str, Parameter(help="Column of a list that names the images.", metavar="COLUMN")
    ] = "",
    root: Annotated[str, Parameter(help="Folder that the paths of a list begin in.", metavar="DIR")] = "",
    sort_into: Annotated[
        str, Parameter(help="New folder; copies each photo into its class's folder there.", metavar="DIR")
    ] = "",
    link: Annotated[bool, Parameter(negative="", help="Link the photos instead of copying them.")] = False,
    contact_sheet: Annotated[
        str, Parameter(help="Write a page (.html) of thumbnails, least certain first.", metavar="FILE")
    ] = "",
    priors: Shares = "",
    engine: Engine = LOCAL,
) -> int:
    """Predict the class of each image. Exit code 1: some inputs failed; 2: all of them."""
    from saccade.predict.command import predict_command
    from saccade.sources.tables import Columns

    with _cluster(engine, *inputs) as cluster:
        return predict_command(
            model,
            inputs,
            Terminal(lasting=bool(out or sort_into or contact_sheet)),
            out=out,
            top_k=top_k,
            sort_into=sort_into,
            link=link,
            contact_sheet=contact_sheet,
            columns=Columns(path=path_column, root=root),
            priors=priors,
            cluster=cluster,
        )


def export(
    run: Run,
    /,
    *,
    format: Annotated[
        str,
        Parameter(
            help="onnx, int8, fp16, openvino, hf (timm), split, triton, web (a page), or a package's own.",
            metavar="NAME",
        ),
    ] = "onnx",
    int8: Annotated[bool, Parameter(negative="", help="Write a smaller int8 model, often faster.")] = False,
    fp16: Annotated[bool, Parameter(negative="", help="Write a model of half the size, as fast.")] = False,
    split: Annotated[
        bool, Parameter(negative="", help="Write preprocessing and network as two files.")
    ] = False,
    out: Annotated[
        str, Parameter(help="File or folder to write. [in the run's export folder]", metavar="OUT")
    ] = "",
    data: Moved = "",
    runtime: Annotated[
        str, Parameter(help="web: folder with onnxruntime-web's files. [fetched by npm]", metavar="DIR")
    ] = "",
    priors: Shares = "",
    target_precision: RightShare = 0.0,
) -> int:
    """Write the trained model as one certified file or folder."""
    if runtime:
        os.environ["SACCADE_WEB_RUNTIME"] = runtime
    chosen = [name for name, asked in (("int8", int8), ("fp16", fp16), ("split", split)) if asked]
    options: dict[str, Any] = {"data": data, "priors": priors, "target": target_precision}
    certificate = _pipeline().export(run, Terminal(), format=format, short=chosen, out=out, **options)
    return 0 if certificate.passed else 1


def certify(
    file: Annotated[str, Parameter(help="An exported file or folder.", metavar="FILE")],
    /,
    *,
    against: Annotated[str, Parameter(help="Run folder whose predictions it must reproduce.", metavar="RUN")],
    data: Moved = "",
    provider: Annotated[
        str, Parameter(help="Also run it with this execution provider of onnxruntime.", metavar="NAME")
    ] = "",
) -> int:
    """Check an exported file against the predictions of a run, on real images."""
    certificate = _pipeline().certify(file, against, Terminal(), data=data, provider=provider)
    return 0 if certificate.passed else 1


def bench(
    model: Model,
    /,
    *,
    rounds: Annotated[int, Parameter(help="Interleaved rounds of all engines.")] = 5,
    out: Annotated[str, Parameter(help="Write all figures to a .json or .csv.", metavar="FILE")] = "",
    plot: Annotated[str, Parameter(help="Draw them.", metavar="FILE.png")] = "",
) -> int:
    """Measure speed, memory, size and agreement of every engine here."""
    terminal = Terminal(lasting=bool(out or plot))
    _pipeline().bench(model, terminal, rounds=rounds, out=out, plot=plot)
    return 0


def serve(
    model: Model,
    /,
    *,
    host: Annotated[
        str, Parameter(help="Address to listen on; any but this machine's own needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0: a free one.")] = 8000,
    name: Annotated[
        str, Parameter(help="Name to serve it under. [the run folder's or the file's]", metavar="NAME")
    ] = "",
    token_file: Annotated[
        str, Parameter(help="File with the token that clients must send.", metavar="FILE")
    ] = "",
    max_body: Annotated[int, Parameter(help="Bytes of a request's body, also unpacked.")] = 10_000_000,
    max_pixels: Annotated[int, Parameter(help="Pixels of an image.")] = 25_000_000,
    max_images: Annotated[int, Parameter(help="Images of a request.")] = 32,
    queue: Annotated[int, Parameter(help="Images waiting or in work; more get status 503.")] = 64,
    timeout: Annotated[float, Parameter(help="Seconds until a request is given up with status 504.")] = 10.0,
    threads: Annotated[int, Parameter(help="Images in work at once; 0: one for each core.")] = 0,
    priors: Shares = "",
) -> int:
    """Answer images over HTTP, and show a page for people."""
    from saccade.serve.command import serve_command
    from saccade.serve.limits import ServeLimits

    limits = ServeLimits(max_body, max_pixels, max_images, queue, timeout, threads)
    return serve_command(
        model, Terminal(), limits, host=host, port=port, name=name, token_file=token_file, priors=priors
    )


# -- looking -------------------------------------------------------------------------------------


def summary(
    backbone: Annotated[str, Parameter(help="A name from `saccade backbones`, or a run.", metavar="NAME")],
    /,
    *,
    classes: Annotated[int, Parameter(help="Number of classes.")] = 10,
    image_size: Annotated[int, Parameter(help="Side of the input in pixels; 0: the backbone's own.")] = 0,
    head: Annotated[str, Parameter(help="linear or mlp.")] = "linear",
) -> int:
    """Print layers, output shapes and parameters of a network."""
    extensions.allow_function(backbone)
    _pipeline().summarize(
        backbone, Terminal(lasting=False), classes=classes, image_size=image_size, head=head
    )
    return 0


def backbones(
    pattern: Annotated[str, Parameter(help="Part of a name; * matches anything.", metavar="NAME")] = "", /
) -> int:
    """Name well-tried networks, or all whose name matches."""
    return 0 if _pipeline().list_backbones(pattern, Terminal(lasting=False)) else 1


def demo(
    *,
    out: Annotated[str, Parameter(help="The run folder.", metavar="DIR")] = "runs/demo",
    epochs: Annotated[int, Parameter(help="Epochs of training; 0: the usual number.")] = 0,
    seed: Annotated[int, Parameter(help="Random seed.")] = 0,
) -> int:
    """Run the whole path on handwritten digits, without network."""
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
    index,
    plan,
    train,
    search,
    evaluate,
    report,
    augment,
    lr,
    predict,
    export,
    certify,
    bench,
    serve,
    compare,
    leaderboard,
    track,
    replay,
    summary,
    backbones,
    doctor,
)
RECIPE_COMMANDS = (audit, split, augment, lr, train, search)
