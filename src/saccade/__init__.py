"""saccade turns a folder of labelled images into an image classifier that can be trusted and shipped.

Importing it imports no torch; that is loaded when it is first needed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from saccade._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from saccade.classifier import ImageClassifier
    from saccade.errors import SaccadeError
    from saccade.predict import Predictor
    from saccade.recipe import Recipe

# onnxruntime counts its use and keeps an identifier of the machine unless this stands before it is loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["ImageClassifier", "Predictor", "Recipe", "SaccadeError", "__version__", "load"]

_HOMES = {
    "ImageClassifier": "saccade.classifier",
    "Predictor": "saccade.predict",
    "Recipe": "saccade.recipe",
    "SaccadeError": "saccade.errors",
}


def load(model: str | Path, *, priors: str | Mapping[str, float] | None = None) -> Predictor:
    """A predictor from a `.onnx` file or a run folder; needs no torch. Raises ModelError.

    model: path of the file or folder. priors: how common the classes are where it is used, as for Predictor;
    with others than the file's, its thresholds are not used, and a warning says so.

    >>> load("model.onnx").predict("photos/red/0.png")
    ['red']
    """
    from saccade.predict import Predictor

    predictor = Predictor(model, priors=priors)
    if lacks := predictor.artefact.limits_left_out:
        from saccade.terminal import warn_caller

        warn_caller(lacks)
    return predictor


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    if name == "tracking":  # saccade.tracking.MLflow(...) without an import of its own
        from importlib import import_module

        return import_module("saccade.tracking")
    raise AttributeError(f"module 'saccade' has no attribute {name!r}")
