"""`saccade evaluate`: figures and report again, also on new data."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from saccade.audit import audit_as_json
from saccade.errors import ChangedImageError, DataError, ImageError, RecipeError, RunError
from saccade.evaluation.metrics import metrics_as_json, metrics_from_json
from saccade.images.decoder import CheckedReader, Limits, read_checked
from saccade.label_sets import join_labels
from saccade.pipeline import prepare, words
from saccade.pipeline.about import about_evaluation, known_images
from saccade.pipeline.division import FOLDS
from saccade.pipeline.fold_figures import write_fold_metrics
from saccade.pipeline.judge import (
    JUDGED_PARTS,
    load_model,
    predict_records,
    write_pages,
    write_verdicts,
)
from saccade.pipeline.measuring import check_target, measuring
from saccade.pipeline.result import result_line, say_figures, say_result
from saccade.pipeline.shares import PRIORS, Asked, asked_priors
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord, Metrics
from saccade.report import write_report
from saccade.report.audit_page import write_audit_of
from saccade.report.facts import judged_part
from saccade.run_folder import RunFolder, existing_run
from saccade.sources import USUAL_COLUMNS, Columns
from saccade.sources.addresses import without_secrets
from saccade.terminal import Terminal, counted
from saccade.threads import usable_cores


def evaluate(
    run_path: str,
    data: str,
    terminal: Terminal,
    *,
    name: str = "",
    moved: str = "",
    columns: Columns = USUAL_COLUMNS,
    priors: str = "",
    target: float = 0.0,
) -> dict[str, Metrics]:
    """`saccade evaluate`: figures and report again from the predictions, or the model on new data.

    Returns the figures by part. New data are measured whole, into `RUN/evaluations/<name>/`. `moved` says
    where the run's own images lie now, `columns` what is called otherwise in new data than in the run's.
    `priors` are class shares for which the model is to answer; the figures then go into an evaluation of
    their own, also without new data. `target` is the precision wanted of answers, in place of the recipe's.
    """
    if data and moved:
        raise RecipeError(
            f"evaluate RUN {data} measures new data, --data {moved} says where the run's own images lie now",
            hint="give one of them",
        )
    data, moved = without_secrets(data), without_secrets(moved)
    _check_labels(columns)
    run = existing_run(run_path)
    recipe = run.read_recipe()
    check_target(target, recipe)
    with run.locked():
        if data or priors:
            run.require_trained()
            name = _plain_name(name or (Path(data).resolve().stem if data else PRIORS))
            asked = asked_priors(run, priors)
            if not data:
                return _evaluate_for(run, recipe, terminal, name, asked, target)
            return _evaluate_new(run, recipe, data, terminal, name, columns, asked, target)
        return _evaluate_again(run, recipe, terminal, moved, target)


def _check_labels(columns: Columns) -> None:
    """Raise RecipeError for a mark between labels, or columns of labels, that a recipe would refuse."""
    forms = {"data.label_delimiter": columns.delimiter, "data.label_columns": columns.one_hot}
    Recipe.from_mapping(forms, where="")


def _plain_name(name: str) -> str:
    """The name of a folder directly in `evaluations/`; raises RecipeError for one that leads elsewhere."""
    if name != Path(name).name or name in ("", ".", ".."):
        raise RecipeError(
            f"--name {name!r} is not a plain name",
            hint="give one without slashes, such as new_camera",
        )
    return name


def _evaluate_for(
    run: RunFolder, recipe: Recipe, terminal: Terminal, name: str, asked: Asked, target: float
) -> dict[str, Metrics]:
    """The stored answers for other class shares, in an evaluation of their own; no model is needed."""
    terminal.say(f"Evaluate  {run.root} for priors {asked.in_words}")
    dataset = data_if_there(run, run.read_record().data)
    place = run.evaluation(name)
    about = about_evaluation(run, asked)
    flags = (*asked.as_flags, *_target_flag(target))
    place.begin_again(("saccade", "evaluate", str(run.root), "--name", name, *flags))
    parts = [part for part in JUDGED_PARTS if run.has(run.predictions(part))]
    _forget_other_parts(place, parts)
    for of_new_data in (place.audit, place.audit_page):
        place.remove(of_new_data)
    measured, by = {}, measuring(run, recipe, target=target, asked=asked)
    for part in parts:
        answered = asked.applied(run.read_predictions(part))
        place.write_predictions(part, answered)
        measured[part] = by.figures(answered)
        place.write_metrics(part, metrics_as_json(measured[part]))
        terminal.say(result_line(part, measured[part]))
        say_figures(part, measured[part], terminal)
    place.write_dataset(run.read_dataset())
    place.write_about(about)
    pictures = CheckedReader(dataset.storage, dataset.used()) if dataset else None
    terminal.say(f"Report    {write_report(place, read_image=pictures)}")
    return measured


def _evaluate_again(
    run: RunFolder, recipe: Recipe, terminal: Terminal, moved: str, target: float
) -> dict[str, Metrics]:
    parts = [part for part in (*JUDGED_PARTS, "train") if run.has(run.predictions(part))]
    if not parts:
        run.require_trained()
        raise RunError(
            f"{run.root} has no predictions yet",
            hint=run.remedy(run.predictions("validation")),
        )
    if run.has(run.certificate()):
        run.check(run.onnx)  # the report says that it is certified
    location = run.read_record().data
    dataset = data_of(run, moved) if moved else data_if_there(run, location)
    by = measuring(run, recipe, target=target)
    for part in parts:
        run.write_metrics(part, metrics_as_json(by.figures(run.read_predictions(part))))
    if run.has(run.predictions(FOLDS)):
        write_fold_metrics(run, by)
    write_verdicts(run)
    if dataset is None:
        terminal.say(
            f"          the images are no longer at {location}: this report has no pictures (--data "
            "says where they are now)"
        )
    write_pages(run, dataset)
    say_result(run, terminal)
    measured = {part: metrics_from_json(run.read_metrics(part)) for part in parts}
    folded = {FOLDS: metrics_from_json(run.read_metrics(FOLDS))} if run.has(run.metrics(FOLDS)) else {}
    shown = {**measured, **folded}
    say_figures(judged_part(shown), shown[judged_part(shown)], terminal)
    return measured


def data_of(run: RunFolder, moved: str = "") -> Dataset:
    """The run's data with the parts they had, where they lay or where `moved` says.

    Raises RunError where they cannot be read, or where an image that was judged has other bytes now.
    """
    location = moved or run.read_record().data
    try:
        listed = prepare.list_again(location, run.read_recipe())
    except DataError as error:
        raise RunError(
            f"{run.root} is certified on the images it was evaluated on, and they cannot be read "
            f"({error.problem})",
            hint="say where they are now with --data",
        ) from None
    return _as_measured(run, listed, moved)


def data_if_there(run: RunFolder, location: str) -> Dataset | None:
    """The run's data where they still lie, for the report's pictures; raises RunError for changed images."""
    try:
        listed = prepare.list_again(location, run.read_recipe())
    except DataError:
        return None
    return _as_measured(run, listed)


def _as_measured(run: RunFolder, listed: Dataset, moved: str = "") -> Dataset:
    dataset = listed.with_records(run.read_dataset())
    judged = [record for record in dataset.used() if record.part in JUDGED_PARTS]
    there = {record.path for record in listed.records} if moved else {record.path for record in judged}
    with ThreadPoolExecutor(usable_cores()) as pool:
        states = list(pool.map(lambda record: _state(dataset, record, there), judged))
    missing = [r.path for r, state in zip(judged, states, strict=True) if state == "missing"]
    changed = [r.path for r, state in zip(judged, states, strict=True) if state == "changed"]
    if moved and (missing or changed):
        raise RunError(
            f"--data {moved} does not hold the images of this run: {len(missing + changed)} of "
            f"{len(judged)} are missing or have changed ({_shown(missing + changed)})",
            hint="give the folder or list that holds them under the same names",
        )
    if changed:
        raise RunError(
            f"{len(changed)} of the {len(judged)} images that {run.root} was evaluated on have changed "
            f"since ({_shown(changed)}); figures and certificate are left as they are",
            hint="put these images back, or say with --data where unchanged copies are",
        )
    return dataset


def _state(dataset: Dataset, record: ImageRecord, there: Collection[str]) -> str:
    """ "missing", "changed", or "" for an image whose bytes are those that were measured."""
    if record.path not in there:
        return "missing"
    try:
        read_checked(dataset.storage, record)
    except ChangedImageError:
        return "changed"
    except ImageError:
        return "missing"
    return ""


def _shown(paths: list[str]) -> str:
    return ", ".join(paths[:5]) + (" ..." if len(paths) > 5 else "")


def _evaluate_new(
    run: RunFolder,
    recipe: Recipe,
    data: str,
    terminal: Terminal,
    name: str,
    columns: Columns,
    asked: Asked,
    target: float,
) -> dict[str, Metrics]:
    dataset = _as_answered(prepare.list_again(data, recipe, columns), recipe, run.root)
    terminal.say(f"Evaluate  {run.root} on {counted(len(dataset.records), 'image')} of {data}")
    bundle = load_model(run)
    unknown = [label for label in dataset.classes if label not in bundle.classes]
    if unknown:
        raise DataError(
            f"{data} has classes that {run.root} does not know ({', '.join(unknown)}); "
            f"it knows {', '.join(bundle.classes)}",
            hint="rename those folders or leave them out",
        )
    read = recipe.data.model_copy(update={"decisions": ""})  # those are about the run's own images
    own = recipe.model_copy(update={"data": read})
    audited = prepare.examine(dataset, own, terminal).audit
    words.say_data(audited.dataset, terminal)
    words.say_reading(audited, terminal)
    by_part = _by_part(audited.dataset)
    place = run.evaluation(name)
    about = about_evaluation(run, asked, data=data, dataset=audited.dataset)
    flags = (*_as_flags(columns), *asked.as_flags, *_target_flag(target))
    place.begin_again(("saccade", "evaluate", str(run.root), data, "--name", name, *flags))
    _forget_other_parts(place, by_part)
    known = {part: known_images(run, records) for part, records in by_part.items()}
    measured, by = {}, measuring(run, recipe, target=target, asked=asked).of_new_data(audited)
    for part, records in by_part.items():
        _warn_of_known_images(part, known[part], records, terminal)
        answered = predict_records(
            bundle, audited.dataset, records, recipe, terminal, what=f"measuring {part}"
        )
        answered = asked.applied(answered)
        place.write_predictions(part, answered)
        measured[part] = by.figures(answered)
        place.write_metrics(part, metrics_as_json(measured[part]))
        terminal.say(result_line(part, measured[part]))
        say_figures(part, measured[part], terminal)
    place.write_dataset(audited.dataset.records)
    place.write_audit(audit_as_json(audited))
    place.write_about({**about, "known": {part: len(paths) for part, paths in known.items() if paths}})
    write_audit_of(place, audited, dataset.storage.read, limits=Limits.of(recipe.data))
    terminal.say(f"Report    {write_report(place, read_image=dataset.storage.read)}")
    return measured


def _as_answered(dataset: Dataset, recipe: Recipe, model: Path) -> Dataset:
    """Images with one label each, such as those of a folder, as sets of it for a model that names several."""
    if dataset.multi_label == recipe.multi_label:
        return dataset
    if dataset.multi_label:
        raise DataError(
            f"these images have any number of labels, and {model} names one an image",
            hint="give images with one label each",
        )
    records = (replace(r, label=join_labels([r.label]), several=True) for r in dataset.records)
    return replace(dataset, records=tuple(records), multi_label=True)


def _as_flags(columns: Columns) -> list[str]:
    flags = {
        "--path-column": columns.path,
        "--label-column": columns.label,
        "--label-delimiter": columns.delimiter,
        "--label-columns": columns.one_hot,
        "--root": columns.root,
    }
    return [word for flag, value in flags.items() if value for word in (flag, value)]


def _target_flag(target: float) -> tuple[str, ...]:
    return ("--target-precision", f"{target:g}") if target else ()


def _by_part(dataset: Dataset) -> dict[str, tuple[ImageRecord, ...]]:
    """Records of each given part; data without parts are one test part."""
    parts = {part: dataset.used(part) for part in dataset.given_parts} or {"test": dataset.used()}
    found = {part: records for part, records in parts.items() if records}
    if not found:
        raise DataError(
            "none of these images can be used",
            hint="run `saccade audit` to see what is wrong with each",
        )
    return found


def _forget_other_parts(place: RunFolder, parts: Collection[str]) -> None:
    """Figures of an earlier evaluation of this name, of parts that these data do not have."""
    for part in (*JUDGED_PARTS, "train"):
        if part not in parts:
            place.remove(place.predictions(part))
            place.remove(place.metrics(part))


def _warn_of_known_images(
    part: str, repeated: list[str], records: tuple[ImageRecord, ...], terminal: Terminal
) -> None:
    """New data that hold images from which the model was made flatter it."""
    if repeated:
        shown = ", ".join(repeated[:5]) + (" ..." if len(repeated) > 5 else "")
        terminal.warn(
            f"leak: {len(repeated)} of these {len(records)} images were in the training or validation part "
            f"({shown}); the figures of {part} are too good",
            hint="evaluate on images that the run has not seen",
        )
