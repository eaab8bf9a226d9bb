"""The whole of `saccade search`: trials until their number or the time is used up, then the best's run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.errors import RecipeError
from saccade.pipeline.evidence import keep
from saccade.pipeline.result import say_result
from saccade.pipeline.train import train
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder, json_bytes, write_bytes, write_text
from saccade.search.ground import Ground, Limits, prepared, searched
from saccade.search.locks import FileLock
from saccade.search.result import best_recipe, recipe_text, say_summary, summary
from saccade.search.study import ask, asking, bury_the_dead, open_study, running
from saccade.signals import can_resume
from saccade.terminal import Terminal

NOT_OF_A_RUN = (".lock", ".copying", "features", "trials")


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a search is told besides the recipe.

    `trials` of all processes together, `backbones` by name (none: those at hand), what a model may cost, and
    whether the best one's run is to follow.
    """

    trials: int = 20
    backbones: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    train: bool = True


def search(
    location: str,
    recipe: Recipe,
    options: SearchOptions,
    terminal: Terminal,
    *,
    out: str,
    command: Sequence[str] = (),
    started: float | None = None,
) -> int:
    """Search in the folder `out`, or go on there; returns the exit code. Several processes may do so at once.

    The last of them to finish writes `best.toml` and makes the run. Raises SaccadeError.
    """
    began = time.monotonic() if started is None else started
    _refuse(recipe, options)
    run = RunFolder(Path(out))
    if run.recipe.exists() and run.read_record().finished:
        terminal.say(f"{run.root} is finished; this is its result.")
        say_result(run, terminal)
        return 0
    home = RunFolder(run.root / "search")
    _require_optuna()  # before any image is read
    can_resume(out)
    space = searched(recipe, options.backbones)
    limit = recipe.train.time_limit
    ground = prepared(
        home, location, space, options.limits, terminal, command=command, began=began, limit=limit
    )
    study = open_study(home.root)
    while _one_more(study, ground, options):
        pass
    with asking(home.root):
        bury_the_dead(study, home.root)
        others = len(running(study))
    if others:
        terminal.say(
            f"Search    {others} trials are under way in other processes; the last one ends the search"
        )
        return 0
    with FileLock(run.root / ".ending.lock"):
        return _ended(run, study, ground, options, recipe, command, began)


def _one_more(study: Any, ground: Ground, options: SearchOptions) -> bool:
    """Ask for a trial and carry it out; False where none is left."""
    from saccade.search.trial import try_out

    if not ground.has_time:
        return False
    with asking(ground.home.root):
        asked = ask(study, ground.home.root, ground.space, trials=options.trials, seed=ground.space.base.seed)
    if asked is None:
        return False
    try_out(study, asked, ground)
    return True


def _refuse(recipe: Recipe, options: SearchOptions) -> None:
    if recipe.multi_label:
        raise RecipeError(
            "saccade search compares runs of images with one label each, and these may have several",
            hint="use saccade train",
        )
    if recipe.split.folds:
        raise RecipeError(
            "saccade search judges trials on one validation part, and --folds was given",
            hint="search first, then: saccade train DATA --recipe OUT/best.toml --folds 5",
        )
    if options.trials < 1:
        raise RecipeError(f"--trials must be at least 1, got {options.trials}", hint="give --trials 20")
    for name, value in (
        ("--max-latency-ms", options.limits.latency_ms),
        ("--max-mb", options.limits.megabytes),
    ):
        if value < 0:
            raise RecipeError(f"{name} must be above 0, got {value:g}", hint="leave it out for no limit")


def _require_optuna() -> None:
    import importlib.util

    from saccade.errors import MissingExtraError

    if importlib.util.find_spec("optuna") is None:
        raise MissingExtraError("optuna", "search", "`saccade search`")


# -- the end ------------------------------------------------------------------------------------------


def _ended(
    run: RunFolder,
    study: Any,
    ground: Ground,
    options: SearchOptions,
    recipe: Recipe,
    command: Sequence[str],
    began: float,
) -> int:
    """Write best.toml and what was found; then the run of the best model."""
    shutil.rmtree(ground.home.root / "trials", ignore_errors=True)  # of processes that were killed
    found = summary(study, ground)
    say_summary(found, ground.terminal)
    best = best_recipe(ground, found["best"], limited=bool(recipe.train.time_limit))
    write_text(run.root / "best.toml", recipe_text(best, found["best"], found["judged_by"]))
    ground.terminal.say(f"Recipe    {run.root / 'best.toml'}")
    if not options.train:
        write_bytes(run.search, json_bytes(found))
        return 0
    ground.forget_features()
    return _run_of_best(run, ground, found, command, began)


def _run_of_best(
    run: RunFolder, ground: Ground, found: dict[str, Any], command: Sequence[str], began: float
) -> int:
    """The best trial's training becomes the run: its recipe, data and seed would give the same weights again.

    It goes on where that stopped: before the test part is read for the first time.
    """
    if not run.recipe.exists():
        _take_over(ground.home.root / "best", run)
        own = int(run.read_record().measured(7).get("looked_at", 0))  # as a rule among those of all trials
        read = max(own, found["test_images_read"])
        keep(run, 7, {"looked_at": read, "search_trials": found["counted"]})
        run.note_command(command)
    if not run.has(run.search):
        run.write(run.search, json_bytes(found))
    result = train(
        ground.location, run.read_recipe(), ground.terminal, out=str(run.root), command=command, started=began
    )
    for left in ("features", "best", "workers"):  # what only trials need, and what is the run's by now
        shutil.rmtree(ground.home.root / left, ignore_errors=True)
    return result.exit_code


def _take_over(best: Path, run: RunFolder) -> None:
    """Copy the files of the best trial, the recipe last, so that a stopped copy is made again."""
    for source in sorted(best.rglob("*"), key=lambda path: path.name == run.recipe.name):
        if source.is_file() and source.name not in NOT_OF_A_RUN:
            target = run.root / source.relative_to(best)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(target, source.read_bytes())
