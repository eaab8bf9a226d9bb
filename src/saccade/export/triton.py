"""A model repository for Triton Inference Server: one ONNX Runtime model, pixels in, probabilities out.

    triton/
      NAME/config.pbtxt     written out in full, so that Triton completes nothing by itself
      NAME/labels.txt       what the classification extension names
      NAME/1/model.onnx     the run's own file, byte for byte

Preprocessing is in the model, so no ensemble and no Python backend is needed. Photos differ in size, so the
dynamic batcher, which joins requests of one size only, is left off. Triton would switch it on in a
configuration without inputs and outputs.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.artefact import INPUT_NAME, MAX_BATCH_IMAGES, OUTPUT_NAME, Artefact
from saccade.errors import ModelError
from saccade.export.runtimes import Answer, Runtime, Runtimes
from saccade.preprocess import RGB, PixelFormat

if TYPE_CHECKING:
    from saccade.bundle import Bundle

VERSION = "1"
CONFIG, LABELS, MODEL = "config.pbtxt", "labels.txt", "model.onnx"

# https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
_CONFIG = """\
name: {name}
platform: "onnxruntime_onnx"
max_batch_size: {most}
input [
  {{
    name: "{input}"
    data_type: {type}
    dims: [ -1, -1, {channels} ]
  }}
]
output [
  {{
    name: "{output}"
    data_type: TYPE_FP32
    dims: [ {classes} ]
    label_filename: "{labels}"
  }}{more}
]
"""
_UNFAMILIAR = """,
  {{
    name: "{name}"
    data_type: TYPE_FP32
    dims: [ 1 ]
  }}"""


def write_triton(bundle: Bundle, path: Path, *, float_onnx: Path) -> None:
    """Write the repository `path`; its one model is named after the run."""
    name = model_name(float_onnx.absolute().parent.parent.name)
    folder = path / name
    (folder / VERSION).mkdir(parents=True)
    shutil.copyfile(float_onnx, folder / VERSION / MODEL)
    artefact = Artefact.open(float_onnx)
    config = config_of(name, len(bundle.classes), artefact.preprocess.pixels, artefact.outputs)
    (folder / CONFIG).write_text(config, encoding="utf-8")
    (folder / LABELS).write_bytes(labels_of(bundle.classes))


def load_triton(path: Path) -> Answer:
    """The one model of the repository, as Triton's ONNX Runtime reads it."""
    found = sorted(path.glob(f"*/{VERSION}/{MODEL}"))
    if len(found) != 1:
        raise ModelError(
            f"{path} holds {len(found)} models, not one",
            hint="run `saccade export RUN --format triton` again",
        )
    return Artefact.open(found[0]).probabilities


def engines(path: Path) -> Runtimes:
    """What ran it for the certificate: the engine in Triton, not Triton, which is a container of its own."""
    import onnxruntime

    return [Runtime("ONNX Runtime", onnxruntime.__version__, load_triton(path))], {}


def config_of(
    name: str, classes: int, pixels: PixelFormat = RGB, outputs: Sequence[str] = (OUTPUT_NAME,)
) -> str:
    """The text of `config.pbtxt`; `outputs` are those of the file.

    Sides of -1 may have any size; the images of a request are of one size.
    """
    return _CONFIG.format(
        name=json.dumps(name),
        most=MAX_BATCH_IMAGES,
        input=INPUT_NAME,
        type=f"TYPE_UINT{pixels.bits}",
        channels=pixels.count,
        output=OUTPUT_NAME,
        classes=classes,
        labels=LABELS,
        more="".join(_UNFAMILIAR.format(name=output) for output in outputs[1:]),
    )


def labels_of(classes: tuple[str, ...]) -> bytes:
    """One class a line. A line end within a name would give all that follow a wrong name."""
    lines = (" ".join(name.splitlines()) for name in classes)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def model_name(run: str) -> str:
    """What stands in Triton's addresses.

    >>> model_name("flowers, second try")
    'flowers_second_try'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", run).strip("._-") or "model"
