"""The model that is served: opened, described, and proven to answer here before anybody may ask it."""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import LICENCE_KEY, Artefact, certificate_path
from saccade.errors import ModelError
from saccade.evaluation.intervals import wilson_of_share
from saccade.files import parse_json, read_file
from saccade.predict.predictor import model_file
from saccade.serve.limits import HttpLimits, ServeLimits

GOLDEN_TOLERANCE = 1e-5
GOLDEN_SIZE = (48, 64)  # height, width


@dataclass(frozen=True, eq=False)
class Model:
    """One opened file, under the name it is served by. `limits` is how its images are decoded.

    `golden` is what it answers to `golden_pixels()`, by itself and with one thread; `about` says what it is
    and how good.
    """

    name: str
    file: Path
    artefact: Artefact
    limits: HttpLimits
    about: dict[str, Any]
    golden: NDArray[np.float64]

    @classmethod
    def open(cls, given: Path, limits: ServeLimits, *, name: str = "") -> Model:
        """Open a `.onnx` or a run folder's; raises ModelError, also where its certificate did not pass."""
        file = model_file(given)
        certificate = read_certificate(file)
        if certificate is not None and certificate.get("passed") is not True:
            raise ModelError(
                f"the certificate of {file} says that it did not pass",
                hint="export the model again, or see the certificate's problems",
            )
        artefact = Artefact.open(file, threads=1)  # each worker runs it in its own thread
        decoding = HttpLimits(
            max_pixels=limits.max_pixels,
            max_bytes=limits.max_body,
            background=artefact.background,
            gray_maximum=artefact.gray_maximum,
        )
        chosen = name or default_name(given)
        about = describe(chosen, file, artefact, certificate)
        golden = artefact.probabilities([golden_pixels()])[0]
        return cls(chosen, file, artefact, decoding, about, golden)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.artefact.classes

    @property
    def version(self) -> str:
        """First 12 digits of the file's SHA-256."""
        return self.artefact.sha256[:12]

    def check_golden(self, answer: Any) -> None:
        """Raise ModelError where `answer`, of the golden image, is not what it must be."""
        if not isinstance(answer, np.ndarray) or np.abs(answer - self.golden).max() > GOLDEN_TOLERANCE:
            raise ModelError(
                f"{self.file} does not answer the same twice on this machine",
                hint="run `saccade certify FILE --against RUN` here, and report it",
            )


def default_name(given: Path) -> str:
    """The run folder's name, or the file's stem."""
    path = given.absolute()
    return path.name if path.is_dir() else path.stem


def golden_pixels() -> NDArray[np.uint8]:
    """(48, 64, 3): slopes of three colours, the same everywhere."""
    y, x = np.mgrid[0 : GOLDEN_SIZE[0], 0 : GOLDEN_SIZE[1]]
    return np.stack((x * 4 % 256, y * 5 % 256, (x + y) * 2 % 256), axis=-1).astype(np.uint8)


def golden_files() -> list[bytes]:
    """The golden image as a client would send it: PNG, and JPEG, which loads its decoder."""
    from PIL import Image

    files = []
    for kind in ("PNG", "JPEG"):
        file = io.BytesIO()
        Image.fromarray(golden_pixels()).save(file, kind)
        files.append(file.getvalue())
    return files


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
    """What the model is and how good, for people: from its metadata, certificate and metrics; no path."""
    return {
        "name": name,
        "version": artefact.sha256[:12],
        "sha256": artefact.sha256,
        "classes": list(artefact.classes),
        "image_size": artefact.preprocess.size,
        "saccade": artefact.version,
        "licence": artefact.metadata.get(LICENCE_KEY, ""),
        "accuracy": _accuracy(file, certificate),
        "certificate": _certificate(certificate),
        "loaded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _accuracy(file: Path, certificate: dict[str, Any] | None) -> dict[str, Any] | None:
    """On images that training did not see: the run's test part, else validation, else the certificate's."""
    for part in ("test", "validation"):
        metrics = _json_or_nothing(file.parent.parent / "metrics" / f"{part}.json")
        if file.parent.name == "export" and isinstance(metrics.get("accuracy"), dict):
            return {**metrics["accuracy"], "images": metrics.get("images"), "part": part}
    images, value = (
        (certificate or {}).get("validation_images"),
        (certificate or {}).get("validation_accuracy_after"),
    )
    if not images or not isinstance(value, int | float):
        return None
    interval = wilson_of_share(float(value), images)
    low, high = interval.low, interval.high
    return {"value": value, "low": low, "high": high, "images": images, "part": "validation"}


def _certificate(certificate: dict[str, Any] | None) -> dict[str, Any] | None:
    shown = ("passed", "kind", "images", "top1_agreement", "max_probability_difference")
    return None if certificate is None else {key: certificate.get(key) for key in shown}


def _json_or_nothing(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = parse_json(read_file(path))
        return found if isinstance(found, dict) else {}
    return {}
