"""Which files are served, and the model that they hold now."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from saccade.artefact import certificate_path
from saccade.errors import ModelError
from saccade.pages.about import read_certificate
from saccade.serve.limits import ServeLimits
from saccade.serve.model import Model

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Files:
    """Size, time and number of the model's file and of its certificate; None for one that is not there."""

    model: Stamp | None
    certificate: Stamp | None

    @classmethod
    def of(cls, given: Path) -> Files:
        """As they are now."""
        file = given / "export" / "model.onnx" if given.is_dir() else given
        return cls(_stamp(file), _stamp(certificate_path(file)))


def reopened(given: Path, served: Model, limits: ServeLimits, name: str) -> Model | None:
    """The model in the file now; None where it is the one that is served.

    Raises ModelError where it does not open, and where it has no certificate though the one served has.
    """
    new = Model.open(given, limits, name=name, priors=served.priors)
    if new.artefact.sha256 == served.artefact.sha256:
        return None
    if served.about["certificate"] and read_certificate(new.file) is None:
        raise ModelError(
            f"{new.file} has no certificate, and the model that is served has one",
            hint="run `saccade certify FILE --against RUN`",
        )
    return new


def _stamp(file: Path) -> Stamp | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
