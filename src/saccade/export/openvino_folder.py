"""The model in OpenVINO's own form (IR): `model.xml`, `model.bin`, and `classes.json` beside them.

It is the run's certified model.onnx, converted: pixels in, probabilities out.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.artefact import read_model_bytes
from saccade.errors import MissingExtraError
from saccade.export.beside import metadata_in, read_beside, write_beside
from saccade.export.runtimes import OPENVINO_CONFIG, Answer, Runtime, Runtimes, openvino_runtime
from saccade.imports import import_openvino

if TYPE_CHECKING:
    from saccade.bundle import Bundle

XML, WEIGHTS = "model.xml", "model.bin"


def write_openvino(bundle: Bundle, path: Path, *, float_onnx: Path) -> None:
    """Convert `float_onnx` into the folder `path`; raises MissingExtraError without openvino."""
    if importlib.util.find_spec("openvino") is None:
        raise MissingExtraError("openvino", "openvino", "writing OpenVINO's own form")
    openvino = import_openvino()
    path.mkdir()
    model = openvino.Core().read_model(read_model_bytes(float_onnx))
    openvino.save_model(model, str(path / XML), compress_to_fp16=False)
    config = {"device": "CPU", "config": OPENVINO_CONFIG}
    write_beside(bundle, path, metadata_in(float_onnx), model=XML, openvino=config)


def load_openvino(path: Path) -> Answer:
    return _runtime(path).answer


def engines(path: Path) -> Runtimes:
    """OpenVINO alone: nothing else reads the files."""
    return [_runtime(path)], {}


def _runtime(path: Path) -> Runtime:
    classes = read_beside(path)["classes"]
    model = import_openvino().Core().read_model(str(path / XML))
    return openvino_runtime(model, len(classes))
