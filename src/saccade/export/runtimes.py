"""The runtimes that a file is certified in, and the processor that they ran on."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import (
    INPUT_NAME,
    UNFAMILIAR_NAME,
    Artefact,
    Image,
    equal_sized_batches,
    read_model_bytes,
)
from saccade.errors import ModelError
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


NODE_VARIABLE = "SACCADE_NODE_MODULES"  # a folder of node_modules that has onnxruntime-node
NODE_SECONDS = 600
# images come as height and width (uint32) and pixels, probabilities go out as float32, all little-endian
_PROGRAM = """
const [modules, model] = process.argv.slice(1);
const { InferenceSession, Tensor } = require(modules + "/onnxruntime-node");
const input = require("fs").readFileSync(0);
(async () => {
  const session = await InferenceSession.create(model);
  for (let place = 0; place < input.length; ) {
    const [height, width] = [input.readUInt32LE(place), input.readUInt32LE(place + 4)];
    const pixels = input.subarray(place + 8, (place += 8 + 3 * height * width));
    const image = new Tensor("uint8", pixels, [1, height, width, 3]);
    const { probabilities } = await session.run({ image });
    process.stdout.write(Buffer.from(probabilities.data.buffer));
  }
})().catch((error) => { console.error(error.message); process.exit(1); });
"""


@dataclass(frozen=True, eq=False)
class Runtime:
    """`answer` is `Artefact.probabilities` in another engine;
    one that is not `binding` is reported and decides nothing.

    With `reads_files` it takes the content of image files instead, and decodes them itself; a row of NaN says
    that it does not read a file. Of more than `most_images` (0: no limit) it is asked for every n-th.
    `unfamiliarity` gives the second output (images,), where the file has it and the engine tells.
    """

    name: str
    version: str
    answer: Callable[[Any], Probabilities]
    binding: bool = True
    reads_files: bool = False
    most_images: int = 0
    unfamiliarity: Callable[[Sequence[Image]], NDArray[np.float64]] | None = None


Runtimes = tuple[Sequence[Runtime], Mapping[str, str]]  # what runs a file; by name, why one cannot


def runtimes(artefact: Artefact, path: Path) -> tuple[list[Runtime], dict[str, str]]:
    """ONNX Runtime first, then every other that is installed; and by name why one cannot run the file."""
    found = [_onnxruntime("ONNX Runtime", artefact)]
    not_run: dict[str, str] = {}
    for name, start in _others(artefact, path).items():
        try:
            found.append(start())
        except Exception as error:  # engines' errors share no other base; the reason is written down
            not_run[name] = " ".join(str(error).split())[:200]
    return found, not_run


def _others(artefact: Artefact, path: Path) -> dict[str, Callable[[], Runtime]]:
    """What starts each further engine that is at hand."""
    others: dict[str, Callable[[], Runtime]] = {}
    if importlib.util.find_spec("openvino") is not None:
        others["OpenVINO"] = lambda: _openvino(artefact, path)
    if os.environ.get(NODE_VARIABLE) and artefact.preprocess.pixels.is_colour:
        others["ONNX Runtime in Node"] = lambda: node_runtime(path, len(artefact.classes))
    return others


def provider_runtime(artefact: Artefact, path: Path, provider: str) -> Runtime:
    """The file in ONNX Runtime on another processor or library (an execution provider), asked by its name.

    Raises ModelError where this onnxruntime has no such provider, or leaves the file to the CPU after all,
    which it does without a word.
    """
    import onnxruntime

    known = onnxruntime.get_available_providers()
    if provider not in known:
        raise ModelError(
            f"this onnxruntime has no execution provider {provider}; it has {', '.join(known)}",
            hint="install the build of onnxruntime for it, or run the file on the CPU",
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            read_model_bytes(path), options, providers=list(dict.fromkeys([provider, "CPUExecutionProvider"]))
        )
    except Exception as error:  # onnxruntime's own exceptions share no other base
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{provider} cannot open {path} ({reason})", hint="run the file on the CPU"
        ) from None
    if provider not in session.get_providers():
        raise ModelError(
            f"{provider} cannot run {path}: onnxruntime left it to the CPU", hint="run the file on the CPU"
        )
    return _onnxruntime(f"ONNX Runtime with {provider}", replace(artefact, session=session))


def _onnxruntime(name: str, artefact: Artefact) -> Runtime:
    import onnxruntime

    def unfamiliarity(images: Sequence[Image]) -> NDArray[np.float64]:
        return artefact.scores(images).unfamiliarity

    tells = UNFAMILIAR_NAME in artefact.outputs
    return Runtime(
        name, onnxruntime.__version__, artefact.probabilities, unfamiliarity=unfamiliarity if tells else None
    )


def _openvino(artefact: Artefact, path: Path) -> Runtime:
    model = import_openvino().Core().read_model(read_model_bytes(path))
    return openvino_runtime(model, len(artefact.classes))


def openvino_runtime(model: Any, classes: int, *, threads: int = 0) -> Runtime:
    """A model that OpenVINO has read, on the CPU, in float32."""
    openvino = import_openvino()
    settings = {**OPENVINO_CONFIG, "INFERENCE_NUM_THREADS": threads or usable_cores()}
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def asked(output: int, width: int) -> Answer:
        def answer(images: Sequence[Image]) -> Probabilities:
            answers = np.empty((len(images), width))
            for positions in equal_sized_batches([image.shape[:2] for image in images]):
                batch = np.stack([images[i] for i in positions])
                answers[positions] = compiled({INPUT_NAME: batch})[output]
            return answers

        return answer

    scores = asked(1, 1)
    return Runtime(
        "OpenVINO",
        openvino.__version__.split("-")[0],
        asked(0, classes),
        unfamiliarity=(lambda images: scores(images)[:, 0]) if len(compiled.outputs) > 1 else None,
    )


def node_runtime(model: Path, classes: int) -> Runtime:
    """The file in onnxruntime-node, one image at a time; raises ModelError where that is not installed."""
    node, modules = shutil.which("node"), Path(os.environ.get(NODE_VARIABLE, ""))
    try:
        version = json.loads((modules / "onnxruntime-node" / "package.json").read_text("utf-8"))["version"]
    except (OSError, ValueError, KeyError):
        node = None
    if node is None:
        raise ModelError(
            f"there is no node, or {modules} holds no onnxruntime-node", hint="npm install onnxruntime-node"
        )
    command = [node, "-e", _PROGRAM, str(modules.absolute()), str(model.absolute())]

    def answer(images: Sequence[Image]) -> Probabilities:
        asked = b"".join(struct.pack("<II", *image.shape[:2]) + image.tobytes() for image in images)
        done = subprocess.run(command, input=asked, capture_output=True, timeout=NODE_SECONDS)
        if done.returncode:
            words = " ".join(done.stderr.decode("utf-8", "replace").split())[:200]
            raise ModelError(f"Node cannot run {model.name} ({words})", hint="export the model again")
        rows = np.frombuffer(done.stdout, "<f4").reshape(len(images), classes)
        return rows.astype(np.float64)

    return Runtime("ONNX Runtime in Node", version, answer)


def instruction_set(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Architecture and what it multiplies integers with, as far as the system says: "x86_64 AVX2"."""
    try:
        words = set(cpuinfo.read_text("utf-8", errors="replace").split())
    except OSError:
        words = set()
    names = [name for flag, name in CPU_FLAGS.items() if flag in words]
    return " ".join([platform.machine(), ", ".join(names)]).strip()
