"""What a model is and how good, for people: from its metadata, its certificate and its run's metrics."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from saccade.artefact import LICENCE_KEY, UNFAMILIAR_KEY, Artefact, certificate_path
from saccade.deciding import ASKING_KEY, LABEL_SETS_KEY
from saccade.errors import ModelError
from saccade.evaluation.intervals import wilson_of_share
from saccade.files import parse_json, read_file

SHOWN_OF_CERTIFICATE = ("passed", "kind", "images", "top1_agreement", "max_probability_difference")
MEAN_AVERAGE_PRECISION = "mean_average_precision"
SHOWN_OF_RUNTIME = ("runtime", "version")


def read_certificate(file: Path) -> dict[str, Any] | None:
    """The certificate beside `file`; None where there is none. Artefact.open compares its SHA-256."""
    with contextlib.suppress(FileNotFoundError):
        try:
            found = parse_json(read_file(certificate_path(file)))
        except ValueError as error:
            raise ModelError(f"{certificate_path(file)} is no JSON ({error})", hint="export again") from None
        return found if isinstance(found, dict) else {}
    return None


def describe(name: str, file: Path, artefact: Artefact, certificate: dict[str, Any] | None) -> dict[str, Any]:
    """What the model is and how good, as JSON; no path of this machine in it."""
    named_from = artefact.thresholds
    several = {"thresholds": dict(zip(artefact.classes, named_from, strict=True))} if named_from else {}
    left_out = {ASKING_KEY, LABEL_SETS_KEY} if artefact.of_other_shares else set()
    deciding = {
        key.removeprefix("saccade."): None if key in left_out else artefact.metadata.get(key)
        for key in (ASKING_KEY, LABEL_SETS_KEY, UNFAMILIAR_KEY)
    }
    return {
        **several,
        **deciding,
        "name": name,
        "version": artefact.sha256[:12],
        "sha256": artefact.sha256,
        "classes": list(artefact.classes),
        "image_size": artefact.preprocess.size,
        "saccade": artefact.version,
        "licence": artefact.metadata.get(LICENCE_KEY, ""),
        "accuracy": _accuracy(file, certificate),
        "certificate": _certificate(certificate),
    }


def _accuracy(file: Path, certificate: dict[str, Any] | None) -> dict[str, Any] | None:
    """On images that training did not see: the run's test part, else validation, else the certificate's."""
    for part in ("test", "validation"):
        metrics = _json_or_nothing(file.parent.parent / "metrics" / f"{part}.json")
        if file.parent.name == "export" and isinstance(metrics.get(MEAN_AVERAGE_PRECISION), float):
            low, high = metrics["extra"]["intervals"][MEAN_AVERAGE_PRECISION]
            value = metrics[MEAN_AVERAGE_PRECISION]
            figure = {"value": value, "low": low, "high": high, "figure": MEAN_AVERAGE_PRECISION}
            return {**figure, "images": metrics.get("images"), "part": part}
        if file.parent.name == "export" and isinstance(metrics.get("accuracy"), dict):
            return {**metrics["accuracy"], "images": metrics.get("images"), "part": part}
    images, value = (
        (certificate or {}).get("validation_images"),
        (certificate or {}).get("validation_accuracy_after"),
    )
    if not images or not isinstance(value, int | float) or "same" in (certificate or {}):
        return None  # of sets of labels it says little
    interval = wilson_of_share(float(value), images)
    return {
        "value": value,
        "low": interval.low,
        "high": interval.high,
        "images": images,
        "part": "validation",
    }


def _certificate(certificate: dict[str, Any] | None) -> dict[str, Any] | None:
    if certificate is None:
        return None
    rows = certificate.get("runtimes")
    shown = (
        [{key: row.get(key) for key in SHOWN_OF_RUNTIME} for row in rows] if isinstance(rows, list) else []
    )
    of_sets = {"same": certificate["same"]} if "same" in certificate else {}
    return {key: certificate.get(key) for key in SHOWN_OF_CERTIFICATE} | of_sets | {"runtimes": shown}


def _json_or_nothing(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = parse_json(read_file(path))
        return found if isinstance(found, dict) else {}
    return {}
