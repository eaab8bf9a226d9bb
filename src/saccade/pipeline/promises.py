"""Which of the ten promises this run kept: each verdict from what the run measured, read from its folder.

What only the run itself can measure stands in `environment.json` (`pipeline/evidence.py`), `model.json` and
`history.jsonl`. Where nothing was measured, the verdict is "not checked", never "kept".
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from saccade.artefact import Artefact
from saccade.errors import SaccadeError
from saccade.evaluation.curves import FITS_ITS_FEATURES
from saccade.pipeline.division import across, clusters_across
from saccade.pipeline.evidence import bundle_hash
from saccade.pipeline.whole_files import checkpoint_problems, ends_as_history, may_hold_code, sha256_of
from saccade.records import EpochRow
from saccade.run_folder import RunFolder
from saccade.run_record import RunRecord

KEPT, BROKEN, NOT_APPLICABLE, NOT_CHECKED = "kept", "broken", "not applicable", "not checked"
AS_KEPT = {KEPT: True, BROKEN: False}  # of the field `kept`; null for the other two

OF_TRAINING = (4, 5, 6, 9)  # which the runs of a cross-validation answer, each for its own training
HASH_OF_NOTHING = hashlib.sha256().hexdigest()  # of a phase in which nothing is frozen
GENTLE_RATIO = 0.1  # promise 5, held against the rates that the steps really had
INPUT_TOLERANCE = 0.01  # of the network's input, normalised; one grey level is about 0.017
PROBABILITY_TOLERANCE = 1e-3  # as for the exported file: another batch size may round differently
EXACT_INPUT = 1e-5
# A gap that the diagnosis must name; the same as its own, written down again to be held against it.
NAMED_GAP, LEAST_UNSEEN = 0.10, 20

Verdict = tuple[str, str]


def promises(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Promise number -> state, evidence, and `kept`: true, false, or null for a state that claims nothing."""
    record = run.read_record()
    found = {}
    for number, check in enumerate(_CHECKS, start=1):
        asked = partial(_in_each_fold, number) if record.folds and number in OF_TRAINING else check
        found[str(number)] = _as_json(asked, run, record)
    return found


def _in_each_fold(number: int, run: RunFolder, record: RunRecord) -> Verdict:
    """What the folds' runs say of a promise about training: the least of it."""
    folds = range(1, record.folds["models"] + 1)
    entries = {fold: run.fold(fold).read_record().promises.get(str(number), {}) for fold in folds}
    states = {fold: str(entry.get("state", NOT_CHECKED)) for fold, entry in entries.items()}
    for state in (BROKEN, NOT_CHECKED, KEPT, NOT_APPLICABLE):
        if those := [fold for fold, found in states.items() if found == state]:
            told = entries[those[0]].get("evidence", "it has no verdict")
            return state, f"in {len(those)} of {len(folds)} folds; fold {those[0]}: {told}"
    raise AssertionError("each verdict has one of the four states")


def _as_json(
    check: Callable[[RunFolder, RunRecord], Verdict], run: RunFolder, record: RunRecord
) -> dict[str, Any]:
    try:
        state, evidence = check(run, record)
    except SaccadeError as error:  # a file of the run is gone or damaged
        state, evidence = NOT_CHECKED, "; ".join(filter(None, (*error.args, error.hint)))
    return {"kept": AS_KEPT.get(state), "state": state, "evidence": evidence}


def no_leak(run: RunFolder, record: RunRecord) -> Verdict:
    made = record.split
    records = [record for record in run.read_dataset() if record.used]
    groups = sorted({*made["crossing_groups"], *across(records, lambda record: record.group)})
    pairs = [f"{first} and {second}" for first, second, *_ in made["crossing"]]
    copies = across(records, lambda record: record.sha256)
    clusters = clusters_across(run, records)
    if pairs or groups or copies or clusters:
        examples = "; ".join(pairs[:5]) or ", ".join([*groups, *copies.values(), *clusters][:5])
        found = max(len(pairs), len(copies), len(clusters))
        return BROKEN, f"{found} pairs and {len(groups)} groups cross parts: {examples}"
    images = f"{len(records):,} images"
    if not made["verified"]:
        return NOT_CHECKED, (
            f"groups and identical copies of {images} were checked and none stands in two parts; "
            "near-duplicates were not searched (--split.near_duplicates searches them)"
        )
    second = made["verified"]
    return KEPT, (
        f"no group, copy or near-duplicate of {images} stands in two parts; a second search found "
        f"{second['verified_pairs_across']} across and left {second['unresolved']} unresolved"
    )


def only_training_augmented(run: RunFolder, record: RunRecord) -> Verdict:
    found = record.measured(2)
    if not found.get("images"):
        return NOT_CHECKED, "no validation image was evaluated again in this run"
    part = found.get("part", "validation")
    if found.get("predictions") != sha256_of(run.predictions(part)):
        return NOT_CHECKED, f"the {part} predictions are not those that were held against a second look"
    told = (
        f"{found['images']} {part} images evaluated again, under other random states and in other "
        f"batches: {found['differing']} of the inputs differ, by {found['from_preprocessing']:.1e} from the "
        f"preprocessing alone; probabilities by {found['probability_difference']:.1e}"
    )
    same = (
        not found["differing"]
        and found["from_preprocessing"] <= EXACT_INPUT
        and found["probability_difference"] <= PROBABILITY_TOLERANCE
    )
    return KEPT if same else BROKEN, told


def preprocessing_travels(run: RunFolder, record: RunRecord) -> Verdict:
    if not run.has(run.onnx):
        return NOT_APPLICABLE, "nothing was exported"
    bundled, exported = run.read_model()["preprocess"], _preprocess_of(run.onnx)
    if bundled != exported:
        return BROKEN, f"the bundle says {json.dumps(bundled)}, model.onnx says {json.dumps(exported)}"
    found = record.measured(3)
    if found.get("sha256") != sha256_of(run.onnx):
        return (
            NOT_CHECKED,
            "bundle and model.onnx name the same preprocessing; the graph was not run beside it",
        )
    told = (
        f"{found['images']} images: the input inside model.onnx differs from that of evaluation by "
        f"{found['input_difference']:.1e} at most (allowed {INPUT_TOLERANCE:g}); "
        f"both name {json.dumps(bundled)}"
    )
    return KEPT if found["input_difference"] <= INPUT_TOLERANCE else BROKEN, told


def _preprocess_of(path: Path) -> dict[str, Any]:
    return Artefact.open(path, verify=False).preprocess.as_json()  # certificates are promise 8


def frozen_is_frozen(run: RunFolder, record: RunRecord) -> Verdict:
    if not record.resolved["model.pretrained"]:
        return NOT_APPLICABLE, "nothing was frozen"
    training = run.read_model()["training"]
    frozen = training["frozen"]
    phases = [phase for phase in frozen if phase["before"] != HASH_OF_NOTHING]
    if frozen and not phases:
        return NOT_APPLICABLE, "nothing was frozen"
    if not phases:
        return NOT_CHECKED, "no phase wrote down hashes of what it froze"
    told = "; ".join(
        f"{p['phase']}: SHA-256 {p['before'][:12]} before, {p['after'][:12]} after" for p in phases
    )
    same = all(phase["before"] == phase["after"] for phase in phases)
    last, bundled = frozen[-1], training.get("frozen_in_bundle", "")
    if bundled and last["before"] != HASH_OF_NOTHING:
        same = same and bundled == last["before"]
        told += f", {bundled[:12]} in the bundle"
    return KEPT if same else BROKEN, f"frozen weights and BatchNorm statistics: {told}"


def gentle_fine_tuning(run: RunFolder, record: RunRecord) -> Verdict:
    if not record.resolved["model.pretrained"]:
        return NOT_APPLICABLE, "trained from scratch"
    rates = _highest_rates(run.read_history())
    if not rates:
        return NOT_CHECKED, "the history names no epoch"
    if "finetune" not in rates:
        return NOT_APPLICABLE, f"nothing was fine-tuned: the phases that ran are {', '.join(rates)}"
    head = rates.get("head") or record.resolved["train.lr"]
    ratio = rates["finetune"] / head
    told = (
        f"the highest learning rate of fine-tuning was {rates['finetune']:.3g}, {ratio:.3g} of the head's "
        f"{head:.3g}"
    )
    return KEPT if ratio <= GENTLE_RATIO * (1 + 1e-9) else BROKEN, told


def _highest_rates(rows: Iterable[EpochRow]) -> dict[str, float]:
    rates: dict[str, float] = {}
    for row in rows:
        rates[row.phase] = max(rates.get(row.phase, 0.0), row.lr)
    return rates


def gap_is_watched(run: RunFolder, record: RunRecord) -> Verdict:
    rows, read = run.read_history(), record.measured(6)
    diagnosis = [finding["kind"] for finding in record.diagnosis or ()]
    if not read:
        return NOT_CHECKED, "no diagnosis was made in this run"
    whole = sum(all(math.isfinite(figure) for figure in _figures(row)) for row in rows)
    told = (
        f"{read['epochs']} of {len(rows)} epochs were read, {whole} with finite figures of both parts; "
        f"{_gap(run)[1]}; the diagnosis says: {', '.join(diagnosis) or 'nothing'}"
    )
    complete = read["epochs"] == len(rows) > 0 and diagnosis and diagnosis == read["findings"]
    silent = whole < len(rows) and "too_high_a_rate" not in diagnosis
    unnamed = _gap(run)[0] and not {"overfitting", "hidden_series", "part_shift", FITS_ITS_FEATURES} & set(
        diagnosis
    )
    return KEPT if complete and not silent and not unnamed else BROKEN, told


def _figures(row: EpochRow) -> tuple[float, ...]:
    return row.train_loss, row.train_accuracy, row.validation_loss, row.validation_accuracy


def _gap(run: RunFolder) -> tuple[bool, str]:
    """Whether accuracy on training images is higher than chance explains, and both figures in words."""
    judged = [run.read_metrics(part) for part in ("validation", "test") if run.has(run.metrics(part))]
    if judged and "mean_average_precision" in judged[0]:
        return _gap_of_labels(run, judged)
    images = sum(figures["images"] for figures in judged)
    if not run.has(run.metrics("train")) or not images:
        return False, "training images were not evaluated without augmentation"
    train = run.read_metrics("train")["accuracy"]
    right = sum(figures["accuracy"]["value"] * figures["images"] for figures in judged) / images
    high = max(figures["accuracy"]["high"] for figures in judged)
    wide = train["value"] - right > NAMED_GAP and train["low"] > high and images >= LEAST_UNSEEN
    return wide, (
        f"accuracy is {train['value']:.1%} on training images and {right:.1%} on {images:,} other images"
    )


def _gap_of_labels(run: RunFolder, judged: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    """The same of images that may have several labels, by mean average precision."""
    images = sum(figures["images"] for figures in judged)
    if not run.has(run.metrics("train")) or not images:
        return False, "training images were not evaluated without augmentation"
    train = run.read_metrics("train")["mean_average_precision"]
    others = sum(figures["mean_average_precision"] * figures["images"] for figures in judged) / images
    high = max(figures["extra"]["intervals"]["mean_average_precision"][1] for figures in judged)
    wide = train - others > NAMED_GAP and train > high and images >= LEAST_UNSEEN
    return wide, (
        f"mean average precision is {train:.3f} on training images and {others:.3f} on {images:,} other "
        "images"
    )


def test_used_once(run: RunFolder, record: RunRecord) -> Verdict:
    if not run.has(run.metrics("test")):
        return NOT_APPLICABLE, "there is no test part; validation figures chose the model"
    found = record.measured(7)
    if "looked_at" not in found or not found.get("measured_by"):
        return NOT_CHECKED, "it was not recorded when the test images were first read"
    if found["looked_at"]:
        return BROKEN, (
            f"{found['looked_at']} of {found['test_images']} test images were looked at before the last "
            f"choice: {', '.join(found['examples'])}"
        )
    now = bundle_hash(run)
    if not now:
        return NOT_CHECKED, "the bundle is gone, so it cannot be held against the test predictions"
    made, by = found["bundle"], found["measured_by"]
    other = [one for one in (made, *by) if one != now]
    if other or found.get("predictions") != sha256_of(run.predictions("test")):
        return BROKEN, "the test predictions are not those that this bundle made after the last choice"
    return KEPT, _told_of_test(found)


def _told_of_test(found: Mapping[str, Any]) -> str:
    times = len(found["measured_by"])
    since = " since the run was last continued" if found["continued"] else ""
    often = "once" if times == 1 else f"{times} times (stopped in between)"
    trials = (
        f", by none of the {found['search_trials']} trials of the search" if "search_trials" in found else ""
    )
    return (
        f"0 of {found['test_images']} test images were read before the last choice{since}{trials}; measured "
        f"{often}, by the bundle of that choice, SHA-256 {found['bundle'][:12]}"
    )


def export_is_certified(run: RunFolder, record: RunRecord) -> Verdict:
    if not run.has(run.certificate()):
        return NOT_APPLICABLE, "nothing was exported"
    certificate = run.read_certificate()
    if certificate.get("sha256") != sha256_of(run.onnx):
        return NOT_CHECKED, "the certificate is of another file than export/model.onnx"
    difference, tie = certificate["max_probability_difference"], certificate.get("largest_tie", 0.0)
    told = f"{certificate['images']} real images, largest probability difference {difference:.1e}"
    told = "; ".join([told, *certificate.get("problems", [])])
    within = max(difference, tie) <= certificate["tolerance"] and certificate["images"] > 0
    return KEPT if certificate["passed"] and within else BROKEN, told


def stopping_loses_nothing(run: RunFolder, record: RunRecord) -> Verdict:
    states = sorted(run.checkpoints.glob("last-*.json"))
    if not states:
        return NOT_CHECKED, "no checkpoint lies in checkpoints/"
    problems = [problem for path in states for problem in checkpoint_problems(path)]
    if not problems and not ends_as_history(states[-1], run.read_history()):
        problems = [f"{states[-1].name} does not end where history.jsonl does"]
    continued = run.read_model()["training"].get("continued", [])
    inexact = [entry["epoch"] for entry in continued if not entry["exact"]]
    if inexact:
        problems.append(f"after epoch {inexact[0]} training went on with another optimizer state or weights")
    if problems:
        return BROKEN, "; ".join(problems)
    went_on = (
        f"epochs went on from a checkpoint {len(continued)} times, with weights and optimizer bit-identical"
        if continued
        else "training was not stopped between epochs in this run"
    )
    return KEPT, (
        f"{len(states)} checkpoints were read back and have their SHA-256, the newest is of the last epoch "
        f"in history.jsonl; {went_on}"
    )


def no_code_in_data(run: RunFolder, record: RunRecord) -> Verdict:
    files = [path for path in run.root.rglob("*") if path.is_file()]
    odd = sorted(str(path.relative_to(run.root)) for path in files if may_hold_code(path))
    if odd:
        return BROKEN, f"holds other files: {', '.join(odd)}"
    return KEPT, f"{len(files)} files, none of which can hold code, by name and by their first bytes"


_CHECKS: tuple[Callable[[RunFolder, RunRecord], Verdict], ...] = (
    no_leak,
    only_training_augmented,
    preprocessing_travels,
    frozen_is_frozen,
    gentle_fine_tuning,
    gap_is_watched,
    test_used_once,
    export_is_certified,
    stopping_loses_nothing,
    no_code_in_data,
)
