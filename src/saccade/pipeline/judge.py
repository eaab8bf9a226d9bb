"""From a trained bundle to predictions, figures, promises and the report; and again without the model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.audit import audit_from_json
from saccade.caches.endings import rest_seconds
from saccade.errors import ImageError
from saccade.evaluation.diagnosis import diagnose
from saccade.evaluation.label_answers import USUAL_THRESHOLD
from saccade.evaluation.metrics import metrics_as_json
from saccade.images.decoder import CheckedReader, Limits, decode
from saccade.pipeline import evidence
from saccade.pipeline.familiar import (
    MOST_CAUGHT,
    MOST_IMAGES,
    Features,
    has_features,
    keep_unfamiliar,
)
from saccade.pipeline.measuring import Measuring, measuring
from saccade.pipeline.promises import promises
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord, Predictions
from saccade.report import write_report
from saccade.report.audit_page import write_audit_of
from saccade.report.documents import write_documents
from saccade.report.facts import read_facts
from saccade.report.label_errors import write_decide_page
from saccade.run_folder import RunFolder, json_bytes
from saccade.terminal import Terminal
from saccade.threads import usable_cores

if TYPE_CHECKING:
    from saccade.bundle import Bundle
    from saccade.training.clock import Judging

JUDGED_PARTS = ("validation", "test")
EVALUATION_BATCH = 32
TIMED_IMAGES = 5


def judge_parts(run: RunFolder, dataset: Dataset, recipe: Recipe, terminal: Terminal) -> None:
    """Predictions and figures of validation, then (every choice made) of test; each part once.

    The training images are measured too, as they are and not augmented, so that the gap is an honest one.
    """
    bundle = functools.cache(lambda: load_model(run))
    by: Measuring | None = None
    features: dict[str, Features] = {}
    for part in (*JUDGED_PARTS, "train"):
        records = _measured(dataset, part)
        if records and not run.has(run.predictions(part)):
            _predict_part(run, part, bundle(), dataset, records, recipe, terminal, features)
        if by is None:  # after validation, which chooses the threshold
            by = measuring(run, recipe)
            _keep_choice(run, by)
        if records:
            run.write_metrics(part, metrics_as_json(by.figures(run.read_predictions(part))))
    if not evidence.evaluation_is_checked(run):
        evidence.check_evaluation(run, dataset, bundle(), recipe)
    if not run.has(run.unfamiliar) and has_features(bundle()):
        keep_unfamiliar(run, lambda part: _features(part, features, bundle(), dataset, recipe, terminal))


def _keep_choice(run: RunFolder, by: Measuring) -> None:
    """Write into model.json what the validation part chose; not once the test part is measured by it."""
    model = run.read_model()
    chosen = {key.removeprefix("saccade."): value for key, value in by.as_metadata.items()}
    training = {**model["training"], **chosen}
    if training != model["training"] and not run.has(run.predictions("test")):
        data = json_bytes({**model, "training": training})
        evidence.choice_added(run, data)
        run.write(run.model_json, data)


def _predict_part(
    run: RunFolder,
    part: str,
    bundle: Bundle,
    dataset: Dataset,
    records: tuple[ImageRecord, ...],
    recipe: Recipe,
    terminal: Terminal,
    features: dict[str, Features],
) -> None:
    """Predictions of a part, written. Those that an unfamiliar image is told by leave `features`, too."""
    if part == "test":
        evidence.measuring_test(run)
    caught = None if part == "test" or len(records) > MOST_CAUGHT or not has_features(bundle) else features
    answered = predict_records(
        bundle, dataset, records, recipe, terminal, what=f"measuring {part}", caught=caught, part=part
    )
    if part == "test":
        evidence.measured_test(run, answered)  # before: a run that is killed in between measures again
    run.write_predictions(part, answered)


def images_read_again(dataset: Dataset, recipe: Recipe) -> tuple[int, int]:
    """Images that are measured after training, and those with which the exported file is certified."""
    answered = len(dataset.used("validation")) + len(dataset.used("test"))
    certified = min(recipe.export.certify_images, answered) if recipe.export.onnx else 0
    return answered + len(_measured_of_train(dataset)), certified


def judging(dataset: Dataset, recipe: Recipe, kind: str, *, validations: float = 0.0) -> Judging:
    """What is read again after training; a few validation images are read now, to see how long one takes.

    kind: of run, as `caches.endings.kind_of_run` names it. validations: as `Judging` has it.
    """
    from saccade.training.clock import EXPORT_AND_REPORT_SECONDS, Judging

    validated = len(dataset.used("validation"))
    images = sum(images_read_again(dataset, recipe))
    sample = _every_nth(dataset.used("validation"), most=TIMED_IMAGES)
    began = time.monotonic()
    for record in sample:
        with contextlib.suppress(ImageError):
            decode(dataset.storage.read(record.path), limits=Limits.of(recipe.data), name=record.path)
    seconds = (time.monotonic() - began) / max(1, len(sample))
    rest = rest_seconds(kind, EXPORT_AND_REPORT_SECONDS)
    return Judging(images, seconds / usable_cores(), validated, rest, validations)


def _features(
    part: str,
    caught: dict[str, Features],
    bundle: Bundle,
    dataset: Dataset,
    recipe: Recipe,
    terminal: Terminal,
) -> Features | None:
    """(images, F) of a part, as they were caught while it was measured, else computed now.

    In the same batches, so that the bits are the same: only of a large part some images are enough.
    """
    records = _measured(dataset, part)
    if len(records) > MOST_CAUGHT:
        records = _every_nth(records, most=MOST_IMAGES)
    if records and part not in caught:
        what = f"features of {part}"
        predict_records(bundle, dataset, records, recipe, terminal, what=what, caught=caught, part=part)
    return caught.get(part)


def _measured(dataset: Dataset, part: str) -> tuple[ImageRecord, ...]:
    return _measured_of_train(dataset) if part == "train" else dataset.used(part)


def _measured_of_train(dataset: Dataset) -> tuple[ImageRecord, ...]:
    return _every_nth(dataset.used("train"), most=max(500, len(dataset.used("validation"))))


def _every_nth(records: tuple[ImageRecord, ...], *, most: int) -> tuple[ImageRecord, ...]:
    return records[:: -(-len(records) // most)] if records else records


def load_model(run: RunFolder) -> Bundle:
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
    caught: dict[str, Features] | None = None,
    part: str = "",
) -> Predictions:
    """Calibrated probabilities of the trained model on some records, by the evaluation path.

    `caught` takes the features (images, F) of the images, under the name of their `part`.
    """
    from saccade.models.network import WithFeatures
    from saccade.runtime import Runtime
    from saccade.training import predict_logits
    from saccade.transforms import evaluation_batches

    runtime = Runtime.create(recipe.device, "float32")
    runtime.place(bundle.module)
    trained: Any = bundle.module
    module = trained if caught is None else WithFeatures(trained, joined=True)
    batches = evaluation_batches(
        dataset.storage,
        records,
        bundle.classes,
        bundle.preprocess,
        EVALUATION_BATCH,
        limits=Limits.of(recipe.data, bundle.preprocess.pixels),
    )
    with terminal.progress(what) as progress:
        logits, _, paths = predict_logits(module, batches, runtime, progress=progress, images=len(records))
    if caught is not None:
        logits, caught[part] = np.split(logits, [len(bundle.classes)], axis=1)
    labels = tuple(record.label for record in records)
    probabilities = bundle.answer.probabilities(logits)
    return Predictions(paths, labels, bundle.classes, probabilities, named=named(bundle, probabilities))


def named(bundle: Bundle, probabilities: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """(images, classes) which labels the model names, where an image may have several; else None."""
    if bundle.answer.activation == "softmax":
        return None
    limits = [bundle.thresholds.get(name, USUAL_THRESHOLD) for name in bundle.classes]
    return np.asarray(probabilities >= np.array(limits))


# -- the end of a run ----------------------------------------------------------------------------


def conclude(
    run: RunFolder, dataset: Dataset, terminal: Terminal, *, seconds: float | None, of_fold: bool = False
) -> None:
    """Write promises, diagnosis and pages, and mark the run as finished.

    The run of a fold has no page of the audit, whose pictures may be of test images.
    """
    write_verdicts(run)
    if seconds is not None:
        run.update_record(seconds=round(seconds, 1))  # before the report, which tells it
    with terminal.progress("writing the report", "pages"):
        if of_fold:
            write_report(run, read_image=CheckedReader(dataset.storage, dataset.used()))
        else:
            write_pages(run, dataset)
    run.update_record(finished=True)


def write_pages(run: RunFolder, dataset: Dataset | None, *, with_annex_iv: bool = False) -> None:
    """The pages of audit and doubted labels, where the run has them, then the report, and the documents.

    Without a data set the report has no pictures, and the other pages stay as they are.
    """
    if dataset is None:
        write_report(run)
    else:
        read_image = CheckedReader(dataset.storage, dataset.records)  # also of what was set aside
        if run.has(run.audit):
            limits = Limits.of(run.read_recipe().data)
            write_audit_of(run, audit_from_json(run.read_audit(), dataset), read_image, limits=limits)
        write_decide_page(run, read_image)
        write_report(run, read_image=read_image)
    write_documents(run, with_annex_iv=with_annex_iv)


def write_verdicts(run: RunFolder) -> None:
    """The diagnosis, then the promises, which include that it was made."""
    read = read_facts(run).evidence()
    found = diagnose(read)
    run.update_record(diagnosis=tuple(dataclasses.asdict(finding) for finding in found))
    evidence.keep(run, 6, evidence.diagnosis_evidence(read, found))
    run.update_record(promises=promises(run))
