"""The model that is served: opened, described, and proven to answer here before anybody may ask it."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import Artefact
from saccade.deciding import Deciding
from saccade.errors import ModelError
from saccade.pages.about import describe, read_certificate
from saccade.predict.predictor import model_file
from saccade.preprocess import RGB, PixelFormat
from saccade.serve.limits import HttpLimits, ServeLimits

GOLDEN_TOLERANCE = 1e-5
GOLDEN_SIZE = (48, 64)  # height, width


@dataclass(frozen=True, eq=False)
class Model:
    """One opened file, under the name it is served by. `limits` is how its images are decoded.

    `golden` is what it answers to `golden_pixels()`, by itself and with one thread; `about` says what it is
    and how good. `priors` are the class shares that it was asked to answer for, as they were given.
    """

    name: str
    file: Path
    artefact: Artefact
    limits: HttpLimits
    about: dict[str, Any]
    golden: NDArray[np.float64]
    priors: str = ""

    @classmethod
    def open(cls, given: Path, limits: ServeLimits, *, name: str = "", priors: str = "") -> Model:
        """Open a `.onnx` or a run folder's; raises ModelError, also where its certificate did not pass."""
        file = model_file(given)
        certificate = read_certificate(file)
        if certificate is not None and certificate.get("passed") is not True:
            raise ModelError(
                f"the certificate of {file} says that it did not pass",
                hint="export the model again, or see the certificate's problems",
            )
        artefact = Artefact.open(file, threads=1).with_priors(priors)  # each worker runs it in its own thread
        decoding = artefact.decoding(HttpLimits(max_pixels=limits.max_pixels, max_bytes=limits.max_body))
        chosen = name or default_name(given)
        about = describe(chosen, file, artefact, certificate) | {"loaded": _now()}
        golden = artefact.probabilities([golden_pixels(artefact.preprocess.pixels)])[0]
        return cls(chosen, file, artefact, decoding, about, golden, priors)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.artefact.classes

    @cached_property
    def deciding(self) -> Deciding:
        return self.artefact.deciding

    @property
    def version(self) -> str:
        """First 12 digits of the file's SHA-256."""
        return self.artefact.sha256[:12]

    def check_golden(self, answer: Any) -> None:
        """Raise ModelError where `answer`, of the golden image, is not what it must be."""
        found = getattr(answer, "probabilities", None)  # an ImageError has none
        if found is None or np.abs(found - self.golden).max() > GOLDEN_TOLERANCE:
            raise ModelError(
                f"{self.file} does not answer the same twice on this machine",
                hint="run `saccade certify FILE --against RUN` here, and report it",
            )


def default_name(given: Path) -> str:
    """The run folder's name, or the file's stem."""
    path = given.absolute()
    return path.name if path.is_dir() else path.stem


def golden_pixels(pixels: PixelFormat = RGB) -> NDArray[Any]:
    """(48, 64, C): slopes of three colours, or of other channels, the same everywhere."""
    y, x = np.mgrid[0 : GOLDEN_SIZE[0], 0 : GOLDEN_SIZE[1]]
    slopes = (x * 4 % 256, y * 5 % 256, (x + y) * 2 % 256)
    chosen = np.stack([slopes[channel % 3] for channel in range(pixels.count)], axis=-1)
    return (chosen * (pixels.largest // 255)).astype(pixels.dtype)


def golden_files(pixels: PixelFormat = RGB) -> list[bytes]:
    """The golden image as a client would send it: PNG, and JPEG, which loads its decoder; else .npy."""
    from PIL import Image

    files = []
    if not pixels.is_colour:
        array = io.BytesIO()
        np.save(array, golden_pixels(pixels), allow_pickle=False)
        return [array.getvalue()]
    for kind in ("PNG", "JPEG"):
        file = io.BytesIO()
        Image.fromarray(golden_pixels()).save(file, kind)
        files.append(file.getvalue())
    return files


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
