"""`saccade report`: the pages of a run again, with `--full` also what features of its images tell."""

from __future__ import annotations

from pathlib import Path

from saccade.pipeline.judge import load_model, write_pages
from saccade.pipeline.reevaluate import data_if_there, data_of
from saccade.pipeline.together import together_in_run
from saccade.recipe import AUTO_BACKBONE, Recipe
from saccade.records import Dataset
from saccade.run_folder import RunFolder, existing_run
from saccade.terminal import Terminal


def report(
    path: str, terminal: Terminal, *, full: bool = False, moved: str = "", with_annex_iv: bool = False
) -> Path:
    """Write the pages of the run in `path` again; returns the report's path.

    `full`: the analyses first, each into `insights/NAME.json`; of images with several labels there are none.
    `moved` says where the run's images lie now. `with_annex_iv` adds headings to the model card. Raises
    RunError for a run without a model, and where images are not those of the run.
    """
    run = existing_run(path)
    with run.locked():
        run.require_trained()
        dataset = data_of(run, moved) if full or moved else data_if_there(run, run.read_record().data)
        if full and dataset:
            _analyse(run, dataset, terminal)
        write_pages(run, dataset, with_annex_iv=with_annex_iv)
        if dataset is None:
            terminal.say(
                f"          the images are no longer at {run.read_record().data}: this report has no "
                "pictures (--data says where they are now)"
            )
    terminal.say(f"Report    {run.report}")
    return run.report


def _analyse(run: RunFolder, dataset: Dataset, terminal: Terminal) -> None:
    from saccade.insight.analyses import ANALYSES
    from saccade.insight.material import material_of

    if dataset.multi_label:
        terminal.say("          images may have several labels, and for these --full adds nothing")
        return
    recipe = _of_one_backbone(run)
    material = material_of(run, dataset, recipe, load_model(run), together_in_run, terminal)
    for analysis in ANALYSES:
        with terminal.progress(analysis.title, "steps"):
            found = analysis.make(material)
        if found is None:
            run.remove(run.insight(analysis.name))
        else:
            run.write_insight(analysis.name, found)


def _of_one_backbone(run: RunFolder) -> Recipe:
    """The run's recipe, with the backbone that "auto" became."""
    recipe = run.read_recipe()
    if recipe.model.backbone != AUTO_BACKBONE:
        return recipe
    chosen = run.read_record().choice["backbone"]
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"backbone": chosen})})
