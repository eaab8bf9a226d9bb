"""Which of the ten promises this run kept, each with its evidence, from the files of the run folder alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from saccade.artefact import Artefact
from saccade.config import HARD_FINETUNE_RATIO
from saccade.run_folder import RunFolder

# Formats that hold data and no code; .lock is ours and empty but for a process id.
CODE_FREE = {
    ".toml",
    ".json",
    ".jsonl",
    ".csv",
    ".safetensors",
    ".onnx",
    ".html",
    ".png",
    ".parquet",
    ".lock",
}

HASH_OF_NOTHING = hashlib.sha256().hexdigest()  # of a phase in which nothing is frozen

Verdict = tuple[bool | None, str]


def promises(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Promise number -> kept (None: does not apply here) and evidence."""
    values = run.read_environment()
    return {str(n): _as_json(check(run, values)) for n, check in enumerate(_CHECKS, start=1)}


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {"kept": verdict[0], "evidence": verdict[1]}


def no_leak(run: RunFolder, values: dict[str, Any]) -> Verdict:
    made = values["split"]
    crossing, groups = made["crossing"], made["crossing_groups"]
    if crossing or groups:
        examples = "; ".join(f"{first} and {second}" for first, second, *_ in crossing[:5]) or ", ".join(
            groups[:5]
        )
        return False, f"{len(crossing)} pairs and {len(groups)} groups stand in two parts: {examples}"
    second = made["verified"]
    searched = f"; a second search found {second['verified_pairs_across']} across" if second else ""
    return True, f"no group, copy or near-duplicate stands in two parts{searched}"


def only_training_augmented(run: RunFolder, values: dict[str, Any]) -> Verdict:
    return True, "evaluation takes no augmentation: its code has no random draw and no place for one"


def preprocessing_travels(run: RunFolder, values: dict[str, Any]) -> Verdict:
    if not run.has(run.onnx):
        return None, "nothing was exported"
    bundled, exported = run.read_model()["preprocess"], Artefact.open(run.onnx).preprocess.as_json()
    if bundled != exported:
        return False, f"the bundle says {json.dumps(bundled)}, model.onnx says {json.dumps(exported)}"
    return True, f"bundle and model.onnx hold the same: {json.dumps(bundled)}"


def frozen_is_frozen(run: RunFolder, values: dict[str, Any]) -> Verdict:
    if not values["resolved"]["model.pretrained"]:
        return None, "nothing was frozen"
    frozen = run.read_model()["training"]["frozen"]
    phases = [phase for phase in frozen if phase["before"] != HASH_OF_NOTHING]
    if frozen and not phases:
        return None, "nothing was frozen"
    told = "; ".join(
        f"{p['phase']}: SHA-256 {p['before'][:12]} before, {p['after'][:12]} after" for p in phases
    )
    kept = bool(phases) and all(phase["before"] == phase["after"] for phase in phases)
    return kept, f"frozen weights and BatchNorm statistics: {told}"


def gentle_fine_tuning(run: RunFolder, values: dict[str, Any]) -> Verdict:
    resolved = values["resolved"]
    if not resolved["model.pretrained"]:
        return None, "trained from scratch"
    if not run.read_model()["training"]["finetune_ratio"]:
        return None, "nothing was fine-tuned: the head alone was fitted"
    ratio = resolved["train.finetune_lr"] / resolved["train.lr"]
    return ratio <= HARD_FINETUNE_RATIO * (1 + 1e-9), f"fine-tuning rate is {ratio:.3g} of the head's"


def gap_is_watched(run: RunFolder, values: dict[str, Any]) -> Verdict:
    epochs = len(run.read_history())
    return epochs > 0, f"{epochs} epochs of both parts were read; the diagnosis stands in this report"


def test_used_once(run: RunFolder, values: dict[str, Any]) -> Verdict:
    if not run.has(run.metrics("test")):
        return None, "there is no test part; validation figures chose the model"
    images = run.read_metrics("test")["images"]
    return True, f"{images} test images were first looked at after the last choice, and measured once"


def export_is_certified(run: RunFolder, values: dict[str, Any]) -> Verdict:
    if not run.has(run.certificate()):
        return None, "nothing was exported"
    certificate = run.read_certificate()
    difference = certificate["max_probability_difference"]
    told = f"{certificate['images']} real images, largest probability difference {difference:.1e}"
    told = "; ".join([told, *certificate.get("problems", [])])
    return bool(certificate["passed"]), told


def stopping_loses_nothing(run: RunFolder, values: dict[str, Any]) -> Verdict:
    checkpoints = sorted(path.name for path in run.checkpoints.glob("*.safetensors"))
    return bool(checkpoints), f"checkpoints with SHA-256 after every epoch: {', '.join(checkpoints)}"


def no_code_in_data(run: RunFolder, values: dict[str, Any]) -> Verdict:
    files = [path for path in run.root.rglob("*") if path.is_file()]
    odd = sorted(
        str(path.relative_to(run.root)) for path in files if (path.suffix or path.name) not in CODE_FREE
    )
    return (
        not odd,
        f"holds other files: {', '.join(odd)}" if odd else f"{len(files)} files, none of which can hold code",
    )


_CHECKS: tuple[Callable[[RunFolder, dict[str, Any]], Verdict], ...] = (
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
