"""`saccade lr`: which learning rates the network bears on these images, as a picture and in words."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import RecipeError
from saccade.pipeline import prepare
from saccade.pipeline.rates_picture import draw
from saccade.recipe import AUTO_BACKBONE, HARD_FINETUNE_RATIO, Recipe
from saccade.run_folder import RunFolder, write_bytes
from saccade.terminal import Terminal

if TYPE_CHECKING:
    from saccade.training.job import TrainingJob
    from saccade.training.range_test import RangeTest


def find_rates(location: str, recipe: Recipe, terminal: Terminal, *, out: str, steps: int) -> None:
    """Test rising rates on training images and suggest `train.lr` and `train.finetune_lr`.

    Nothing is kept but the picture. With pretrained weights a head learns on the frozen base first, and then
    what the recipe's method fine-tunes. Raises RecipeError for bad arguments.
    """
    _check(recipe, out, steps)
    from saccade.plan import FINETUNE, HEAD, MAIN, Phase
    from saccade.training.range_test import learn, range_test

    with tempfile.TemporaryDirectory(prefix="saccade-") as folder:
        job = _job(location, recipe, terminal, Path(folder))

        def tested(phase: Phase) -> RangeTest:
            with terminal.progress(f"rates of phase {phase.name}", "steps") as progress:
                first = 2 if phase.name == FINETUNE else 1  # the head learns from the first
                return range_test(job, phase, steps=steps, first_epoch=first, progress=progress)

        if not recipe.starts_pretrained:
            found = [tested(Phase(MAIN, 1, recipe.learning_rate, "all"))]
        else:
            head = Phase(HEAD, 1, recipe.learning_rate, "head")
            found = [tested(head)]
            rate = found[0].suggestion
            with terminal.progress("training the head", "steps") as progress:
                learn(job, Phase(HEAD, 1, rate, "head"), steps=len(job.data.train), progress=progress)
            tuned = "all" if recipe.train.method in ("auto", "full") else recipe.train.unfreeze
            tenth = HARD_FINETUNE_RATIO * rate
            found.append(tested(Phase(FINETUNE, 1, tenth, tuned, keep_statistics=True)))
    suggested = suggestions(found)
    write_bytes(Path(out), draw(found, list(suggested.values())))
    _say(found, suggested, terminal, out)


def suggestions(found: list[RangeTest]) -> dict[str, float]:
    """Flag -> rate for each test; fine-tuning gets at most a tenth of the head's (promise 5)."""
    rates = {"--lr": float(f"{found[0].suggestion:.1e}")}
    if len(found) > 1:
        most = HARD_FINETUNE_RATIO * rates["--lr"]
        rates["--finetune-lr"] = float(f"{min(most, found[1].suggestion):.1e}")
    return rates


def _say(found: list[RangeTest], suggested: dict[str, float], terminal: Terminal, out: str) -> None:
    for test, (flag, rate) in zip(found, suggested.items(), strict=True):
        loss, at = test.losses[test.turn], test.rates[test.turn]
        turned = "was lowest" if test.learnt else "did not fall, and last held"
        terminal.say(
            f"Rate      {test.phase}: from {test.start:.3f} the loss {turned}, {loss:.3f}, at {at:.1e}; "
            f"suggested is a tenth of that or less: {flag} {rate:g}"
        )
    flags = " ".join(f"{flag} {rate:g}" for flag, rate in suggested.items())
    terminal.say(f"Train     saccade train DATA {flags}")
    terminal.say(f"Written   {out}")


def _check(recipe: Recipe, out: str, steps: int) -> None:
    if Path(out).suffix.lower() != ".png" or Path(out).is_dir():
        raise RecipeError(f"--out {out}: give the name of a picture that ends in .png")
    if steps < 10:
        raise RecipeError(f"--steps must be at least 10, got {steps}")
    if recipe.model.backbone == AUTO_BACKBONE:
        raise RecipeError("saccade lr tests one network, but --backbone is auto", hint="name a backbone")


def _job(location: str, recipe: Recipe, terminal: Terminal, folder: Path) -> TrainingJob:
    """Divided data, network and runtime, as `saccade train` has them; its run folder is not written to."""
    from saccade.building import build_network, check_buildable, check_network
    from saccade.methods import make_plan
    from saccade.pipeline.batches import ValidationBatches, noted, training_data
    from saccade.runtime import Runtime
    from saccade.training import training_job

    check_buildable(recipe)
    examined = prepare.examine(prepare.list_data(location, recipe), recipe, terminal)
    dataset = prepare.divide(examined, recipe, terminal).dataset
    recipe = recipe.with_batch_size(len(dataset.used("train")))
    network = build_network(dataset, recipe)
    check_network(network, recipe)
    runtime = Runtime.create(recipe.device, recipe.precision)
    plan = make_plan(recipe, network)
    validation = ValidationBatches(dataset, plan, noted(terminal))
    data = training_data(dataset, plan, validation, runtime.device, None, terminal)
    return training_job(network.module, plan, data, runtime=runtime, run=RunFolder(folder))
