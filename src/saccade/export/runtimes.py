"""The runtimes that a file is certified in, and the processor that they ran on."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import INPUT_NAME, Artefact, Image, equal_sized_batches, read_model_bytes
from saccade.imports import import_openvino
from saccade.threads import usable_cores

Probabilities = NDArray[np.float64]
Answer = Callable[[Sequence[Image]], Probabilities]

# By itself OpenVINO takes bfloat16 where the processor has it, which differs by 0.1 and more. A hint inside
# of the file is not read (2026.4).
OPENVINO_CONFIG = {"INFERENCE_PRECISION_HINT": "f32"}

CPU_FLAGS = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "avx512bw": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "I8MM",
    "asimddp": "dot product",
}  # what decides how integers are multiplied, the quickest first


@dataclass(frozen=True, eq=False)
class Runtime:
    """`answer` is `Artefact.probabilities` in another engine;
    one that is not `binding` is reported and decides nothing.

    With `reads_files` it takes the content of image files instead, and decodes them itself; a row of NaN says
    that it does not read a file. Of more than `most_images` (0: no limit) it is asked for every n-th.
    """

    name: str
    version: str
    answer: Callable[[Any], Probabilities]
    binding: bool = True
    reads_files: bool = False
    most_images: int = 0


Runtimes = tuple[Sequence[Runtime], Mapping[str, str]]  # what runs a file; by name, why one cannot


def runtimes(artefact: Artefact, path: Path) -> tuple[list[Runtime], dict[str, str]]:
    """ONNX Runtime first, then every other that is installed; and by name why one cannot run the file."""
    import onnxruntime

    found = [Runtime("ONNX Runtime", onnxruntime.__version__, artefact.probabilities)]
    if importlib.util.find_spec("openvino") is None:
        return found, {}
    try:
        found.append(_openvino(artefact, path))
    except Exception as error:  # OpenVINO's errors share no other base; the reason is written down
        return found, {"OpenVINO": " ".join(str(error).split())[:200]}
    return found, {}


def _openvino(artefact: Artefact, path: Path) -> Runtime:
    model = import_openvino().Core().read_model(read_model_bytes(path))
    return openvino_runtime(model, len(artefact.classes))


def openvino_runtime(model: Any, classes: int) -> Runtime:
    """A model that OpenVINO has read, on the CPU, in float32."""
    openvino = import_openvino()
    settings = {**OPENVINO_CONFIG, "INFERENCE_NUM_THREADS": usable_cores()}
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def answer(images: Sequence[Image]) -> Probabilities:
        answers = np.empty((len(images), classes))
        for positions in equal_sized_batches([image.shape[:2] for image in images]):
            batch = np.stack([images[i] for i in positions])
            answers[positions] = compiled({INPUT_NAME: batch})[0]
        return answers

    return Runtime("OpenVINO", openvino.__version__.split("-")[0], answer)


def instruction_set(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Architecture and what it multiplies integers with, as far as the system says: "x86_64 AVX2"."""
    try:
        words = set(cpuinfo.read_text("utf-8", errors="replace").split())
    except OSError:
        words = set()
    names = [name for flag, name in CPU_FLAGS.items() if flag in words]
    return " ".join([platform.machine(), ", ".join(names)]).strip()
