"""From a trained bundle to predictions, figures, promises and the report; and again without the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import ChangedImageError, DataError, ImageError, RecipeError, RunError
from saccade.evaluation import compare as comparing
from saccade.evaluation.calibration import softmax
from saccade.evaluation.diagnosis import diagnose
from saccade.evaluation.metrics import measure, metrics_as_json, metrics_from_json
from saccade.images.decoder import CheckedReader, Limits, read_checked
from saccade.pipeline import evidence, prepare
from saccade.pipeline.promises import NOT_CHECKED, promises
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord, Metrics, Predictions
from saccade.report import write_report
from saccade.report.facts import read_facts
from saccade.run_folder import RunFolder, existing_run
from saccade.sources import load_source
from saccade.terminal import Terminal
from saccade.threads import usable_cores

if TYPE_CHECKING:
    from saccade.bundle import Bundle

JUDGED_PARTS = ("validation", "test")
EVALUATION_BATCH = 32


def judge_parts(run: RunFolder, dataset: Dataset, recipe: Recipe, terminal: Terminal) -> None:
    """Predictions and figures of validation, then (every choice made) of test; each part once.

    The training images are measured too, as they are and not augmented, so that the gap is an honest one.
    """
    bundle = None
    for part in (*JUDGED_PARTS, "train"):
        records = dataset.used(part)
        if part == "train":
            records = _every_nth(records, most=max(500, len(dataset.used("validation"))))
        if records and not run.has(run.predictions(part)):
            bundle = bundle or _load(run)
            _predict_part(run, part, bundle, dataset, records, recipe, terminal)
        if records:
            figures = measure(run.read_predictions(part), top_k=recipe.evaluate.top_k)
            run.write_metrics(part, metrics_as_json(figures))
    if not evidence.evaluation_is_checked(run):
        evidence.check_evaluation(run, dataset, bundle or _load(run), recipe)


def _predict_part(
    run: RunFolder,
    part: str,
    bundle: Bundle,
    dataset: Dataset,
    records: tuple[ImageRecord, ...],
    recipe: Recipe,
    terminal: Terminal,
) -> None:
    if part == "test":
        evidence.measuring_test(run)
    answered = predict_records(bundle, dataset, records, recipe, terminal, what=f"measuring {part}")
    run.write_predictions(part, answered)
    if part == "test":
        evidence.measured_test(run)


def _every_nth(records: tuple[ImageRecord, ...], *, most: int) -> tuple[ImageRecord, ...]:
    return records[:: -(-len(records) // most)] if records else records


def _load(run: RunFolder) -> Bundle:
    from saccade.bundle import load_bundle

    run.check(run.model_json, run.weights)
    return load_bundle(run.bundle)


def predict_records(
    bundle: Bundle,
    dataset: Dataset,
    records: tuple[ImageRecord, ...],
    recipe: Recipe,
    terminal: Terminal,
    *,
    what: str,
) -> Predictions:
    """Calibrated probabilities of the trained model on some records, by the evaluation path."""
    from saccade.runtime import Runtime
    from saccade.training import predict_logits
    from saccade.transforms import evaluation_batches

    runtime = Runtime.create(recipe.device, "float32")
    runtime.place(bundle.module)
    batches = evaluation_batches(
        dataset.storage,
        records,
        bundle.classes,
        bundle.preprocess,
        EVALUATION_BATCH,
        limits=Limits.of(recipe.data),
    )
    with terminal.progress(what) as progress:
        logits, _, paths = predict_logits(
            bundle.module, batches, runtime, progress=progress, images=len(records)
        )
    labels = tuple(record.label for record in records)
    return Predictions(paths, labels, bundle.classes, softmax(logits, bundle.temperature))


# -- the end of a run ----------------------------------------------------------------------------


def conclude(run: RunFolder, dataset: Dataset, terminal: Terminal, *, seconds: float) -> None:
    """Write promises, diagnosis and report, and mark the run as finished."""
    write_verdicts(run)
    with terminal.progress("writing the report", "pages"):
        write_report(run, read_image=CheckedReader(dataset.storage, dataset.used()))
    run.update_record(finished=True, seconds=round(seconds, 1))


def write_verdicts(run: RunFolder) -> None:
    """The diagnosis, then the promises, which include that it was made."""
    read = read_facts(run).evidence()
    found = diagnose(read)
    run.update_record(diagnosis=tuple(dataclasses.asdict(finding) for finding in found))
    evidence.keep(run, 6, evidence.diagnosis_evidence(read, found))
    run.update_record(promises=promises(run))


def _figures(run: RunFolder, part: str) -> Metrics | None:
    return metrics_from_json(run.read_metrics(part)) if run.has(run.metrics(part)) else None


def say_result(run: RunFolder, terminal: Terminal) -> None:
    """Figures with interval and number of images, the diagnosis, the certificate, and where things lie."""
    for part in JUDGED_PARTS:
        figures = _figures(run, part)
        if figures is not None:
            terminal.say(_result_line(part, figures))
    if not run.has(run.metrics("test")):
        terminal.say(
            "          there is no test part: validation chose the model, so its figures are optimistic"
        )
    record = run.read_record()
    for finding in record.diagnosis or ():
        terminal.say(f"Diagnosis {finding['message']} {finding['remedy']}".rstrip())
    for number, promise in record.promises.items():
        if promise["kept"] is False:
            terminal.say(f"BROKEN    promise {number}: {promise['evidence']}")
        elif promise.get("state") == NOT_CHECKED:
            terminal.say(f"          promise {number} was not checked: {promise['evidence']}")
    if run.has(run.certificate()):
        run.check(run.onnx)
        terminal.say(certificate_line(run.read_certificate(), run.onnx))
    terminal.say(f"Report    {run.report}")


def _result_line(part: str, figures: Metrics) -> str:
    value = figures.accuracy
    rest = f"balanced {figures.balanced_accuracy:.1%}, macro F1 {figures.macro_f1:.3f}"
    return (
        f"{part.capitalize():<10} accuracy {value.value:.1%} (95 %: {value.low:.1%} to {value.high:.1%}, "
        f"{figures.images:,} images), {rest}"
    )


def certificate_line(values: Mapping[str, Any], file: Path) -> str:
    """One sentence on an exported file and its certificate."""
    verdict = "certified" if values["passed"] else "FAILED its certificate"
    size = file.stat().st_size / 1e6 if file.exists() else 0.0
    what = (
        _accuracy_change(values)
        if values["kind"] == "int8"
        else f"largest probability difference {values['max_probability_difference']:.1e}"
    )
    return (
        f"Export    {file} ({size:.1f} MB) {verdict}: {values['images']} images, "
        f"same first class {values['top1_agreement']:.2%}, {what}{_where(values)}{_advice(values)}"
    )


def _accuracy_change(values: Mapping[str, Any]) -> str:
    interval = values.get("accuracy_change_interval")  # certificates of earlier versions have none
    bounds = f"95 %: {interval['low']:+.1%} to {interval['high']:+.1%}, " if interval else ""
    return (
        f"validation accuracy {values['accuracy_change']:+.2%} ({bounds}allowed -{values['tolerance']:.2%}), "
        f"largest probability difference {values['max_probability_difference']:.2f}"
    )


def _where(values: Mapping[str, Any]) -> str:
    """The runtimes, and for int8 the processor."""
    ran = " and ".join(f"{row['runtime']} {row['version']}" for row in values.get("runtimes", []))
    processor = f" on {values['instruction_set']}" if values["kind"] == "int8" and ran else ""
    refused = "".join(
        f"; {name} cannot run it: {why}" for name, why in values.get("runtimes_not_run", {}).items()
    )
    return f", in {ran}{processor}{refused}" if ran else ""


def _advice(values: Mapping[str, Any]) -> str:
    """Why a certificate failed, and what to do about it."""
    if values["passed"]:
        return ""
    reasons = "; ".join(values.get("problems", []))
    return f". {reasons[:1].upper()}{reasons[1:]}{'. ' if reasons else ''}{_remedy(values, reasons)}"


def _remedy(values: Mapping[str, Any], reasons: str) -> str:
    if values["kind"] == "float":
        return (
            "Do not ship it; train again in a new folder with another --backbone, or, where that difference "
            "can be borne, with a larger --export.tolerance"
        )
    ship = "Ship the float file (export/model.onnx)"
    if reasons.startswith("too few images"):
        return (
            f"{ship}; for int8 train again in a new folder with a larger validation part "
            "(--split.validation), or raise --export.certify_images where that left images out"
        )
    return (
        f"{ship}; for int8 train again in a new folder, with more images to calibrate on "
        "(--export.calibration_images 1000) or another --backbone, or, where that fall can be borne, with a "
        "larger --export.max_drop"
    )


# -- again, or on new data -----------------------------------------------------------------------


def evaluate(
    run_path: str, data: str, terminal: Terminal, *, name: str = "", moved: str = ""
) -> dict[str, Metrics]:
    """`saccade evaluate`: figures and report again from the predictions, or the model on new data.

    Returns the figures by part. New data are measured whole, into `RUN/evaluations/<name>/`. `moved` says
    where the run's own images lie now.
    """
    if data and moved:
        raise RecipeError(
            f"evaluate RUN {data} measures new data, --data {moved} says where the run's own images lie now; "
            "give one of them"
        )
    run = existing_run(run_path)
    recipe = run.read_recipe()
    with run.locked():
        if data:
            return _evaluate_new(run, recipe, data, terminal, _plain_name(name or Path(data).resolve().stem))
        return _evaluate_again(run, recipe, terminal, moved)


def _plain_name(name: str) -> str:
    """The name of a folder directly in `evaluations/`; raises RecipeError for one that leads elsewhere."""
    if name != Path(name).name or name in ("", ".", ".."):
        raise RecipeError(f"--name {name!r} is no plain name; give one without slashes, such as new_camera")
    return name


def _evaluate_again(run: RunFolder, recipe: Recipe, terminal: Terminal, moved: str) -> dict[str, Metrics]:
    parts = [part for part in (*JUDGED_PARTS, "train") if run.has(run.predictions(part))]
    if not parts:
        raise RunError(f"{run.root} has no predictions yet; {run.remedy(run.predictions('validation'))}")
    if run.has(run.certificate()):
        run.check(run.onnx)  # the report says that it is certified
    location = run.read_record().data
    dataset = data_of(run, moved) if moved else _data_if_there(run, location)
    for part in parts:
        run.write_metrics(
            part, metrics_as_json(measure(run.read_predictions(part), top_k=recipe.evaluate.top_k))
        )
    write_verdicts(run)
    if dataset is None:
        terminal.say(
            f"          the images are no longer at {location}: this report has no pictures (--data "
            "says where they are now)"
        )
    write_report(run, read_image=CheckedReader(dataset.storage, dataset.used()) if dataset else None)
    say_result(run, terminal)
    return {part: metrics_from_json(run.read_metrics(part)) for part in parts}


def data_of(run: RunFolder, moved: str = "") -> Dataset:
    """The run's data with the parts they had, where they lay or where `moved` says.

    Raises RunError where they cannot be read, or where an image that was judged has other bytes now.
    """
    location = moved or run.read_record().data
    try:
        listed = load_source(location, drop_empty=True, min_classes=1)
    except DataError as error:
        raise RunError(
            f"{run.root} is certified on the images it was measured on, and they cannot be read ({error}); "
            "say where they lie now with --data"
        ) from None
    return _as_measured(run, listed, moved)


def _data_if_there(run: RunFolder, location: str) -> Dataset | None:
    """The run's data where they still lie, for the report's pictures; raises RunError for changed images."""
    try:
        listed = load_source(location, drop_empty=True, min_classes=1)
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
            f"--data {moved} does not hold the images of this run: {len(missing + changed)} of {len(judged)} "
            f"are missing or have other bytes ({_shown(missing + changed)}); give the folder or list that "
            "holds them under the same names"
        )
    if changed:
        raise RunError(
            f"{len(changed)} of the {len(judged)} images that {run.root} was measured on have other bytes "
            f"now ({_shown(changed)}); figures and certificate are left as they are: put these images back, "
            "or say with --data where unchanged copies lie"
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
    run: RunFolder, recipe: Recipe, data: str, terminal: Terminal, name: str
) -> dict[str, Metrics]:
    dataset = load_source(data, drop_empty=True, min_classes=1)
    bundle = _load(run)
    unknown = [label for label in dataset.classes if label not in bundle.classes]
    if unknown:
        raise DataError(
            f"{data} has classes that {run.root} does not know ({', '.join(unknown)}); "
            f"it knows {', '.join(bundle.classes)}: rename those folders or leave them out"
        )
    audited = prepare.examine(dataset, recipe, terminal).audit
    prepare.say_data(audited.dataset, terminal)
    prepare.say_reading(audited, terminal)
    by_part = _by_part(audited.dataset)
    place = run.evaluation(name)
    place.begin_again(("saccade", "evaluate", str(run.root), data, "--name", name))
    _forget_other_parts(place, by_part)
    measured = {}
    for part, records in by_part.items():
        _warn_of_known_images(run, part, records, terminal)
        answered = predict_records(
            bundle, audited.dataset, records, recipe, terminal, what=f"measuring {part}"
        )
        place.write_predictions(part, answered)
        measured[part] = measure(answered, top_k=recipe.evaluate.top_k)
        place.write_metrics(part, metrics_as_json(measured[part]))
        terminal.say(_result_line(part, measured[part]))
    place.write_dataset(audited.dataset.records)
    terminal.say(f"Report    {write_report(place, read_image=dataset.storage.read)}")
    return measured


def _by_part(dataset: Dataset) -> dict[str, tuple[ImageRecord, ...]]:
    """Records of each given part; data without parts are one test part."""
    parts = {part: dataset.used(part) for part in dataset.given_parts} or {"test": dataset.used()}
    found = {part: records for part, records in parts.items() if records}
    if not found:
        raise DataError("none of these images can be used; `saccade audit` says what is wrong with each")
    return found


def _forget_other_parts(place: RunFolder, parts: Collection[str]) -> None:
    """Figures of an earlier evaluation of this name, of parts that these data do not have."""
    for part in (*JUDGED_PARTS, "train"):
        if part not in parts:
            place.remove(place.predictions(part))
            place.remove(place.metrics(part))


def _warn_of_known_images(
    run: RunFolder, part: str, records: tuple[ImageRecord, ...], terminal: Terminal
) -> None:
    """New data that hold images from which the model was made flatter it."""
    known = {
        record.sha256
        for record in run.read_dataset()
        if record.used and record.part in ("train", "validation")
    }
    repeated = [record.path for record in records if record.sha256 in known]
    if repeated:
        shown = ", ".join(repeated[:5]) + (" ..." if len(repeated) > 5 else "")
        terminal.warn(
            f"leak: {len(repeated)} of these {len(records)} images were in the training or validation part "
            f"({shown}); the figures of {part} are too good",
            hint="evaluate on images that the run has not seen",
        )


def _measured(path: str, part: str) -> RunFolder:
    """The run (or evaluation) at `path`; raises RunError when it has no predictions to compare."""
    run = RunFolder(Path(path))
    parts = [known for known in (*JUDGED_PARTS, "train") if run.has(run.predictions(known))]
    if not parts:
        raise RunError(f"{path} has no predictions; give a finished run, or RUN/evaluations/NAME")
    if part and part not in parts:
        raise RunError(f"{path} has no predictions of a part {part!r}; it has {', '.join(parts)}")
    return run


def compare(first: str, second: str, terminal: Terminal, *, part: str = "") -> comparing.Comparison:
    """`saccade compare`: which run is better on the same images, and is the difference real."""
    runs = [_measured(path, part) for path in (first, second)]
    chosen = part or ("test" if all(run.has(run.predictions("test")) for run in runs) else "validation")
    comparison = comparing.compare(*(run.read_predictions(chosen) for run in runs))
    terminal.say(comparison.in_words(first, second))
    if chosen == "validation":
        terminal.say("These are validation images, which chose both models: the figures are optimistic.")
    return comparison
