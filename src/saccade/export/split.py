"""The model in two files: preprocessing, and network with answer, cut at the tensor `preprocess/pixels`.

For servers that batch images of different sizes, and for processors that run the network alone: images of
any size become `pixels` of one size, which can be stacked. Both files together are the run's model.onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import INPUT_NAME, MAX_BATCH_IMAGES, Image
from saccade.export.beside import metadata_in, write_beside
from saccade.export.onnx import PIXELS, write_model
from saccade.export.parts import network_and_answer, preprocessing, read_float_model
from saccade.export.runtimes import Answer, Probabilities, Runtime, Runtimes
from saccade.threads import usable_cores

if TYPE_CHECKING:
    import onnxruntime

    from saccade.bundle import Bundle

PREPROCESS, NETWORK = "preprocess.onnx", "network.onnx"


def write_split(bundle: Bundle, path: Path, *, float_onnx: Path) -> None:
    """Write both parts of `float_onnx`, each with its metadata, into the folder `path`."""
    model = read_float_model(float_onnx)
    path.mkdir()
    for name, part in ((PREPROCESS, preprocessing(model)), (NETWORK, network_and_answer(model))):
        part.metadata_props.extend(model.metadata_props)
        write_model(part, path / name)
    write_beside(bundle, path, metadata_in(float_onnx), model=[PREPROCESS, NETWORK])


def load_split(path: Path) -> Answer:
    """One image after the other through the first file; all of them, in batches, through the second."""
    before, after = _session(path / PREPROCESS), _session(path / NETWORK)

    def pixels(image: Image) -> NDArray[np.float32]:
        inputs: NDArray[np.float32] = before.run([PIXELS], {INPUT_NAME: image[None]})[0]
        return inputs

    def answer(images: Sequence[Image]) -> Probabilities:
        starts = range(0, len(images), MAX_BATCH_IMAGES)
        chunks = [images[start : start + MAX_BATCH_IMAGES] for start in starts]
        batches = (np.concatenate([pixels(image) for image in chunk]) for chunk in chunks)
        return np.concatenate([after.run(None, {PIXELS: batch})[0] for batch in batches])

    return answer


def engines(path: Path) -> Runtimes:
    import onnxruntime

    return [Runtime("ONNX Runtime", onnxruntime.__version__, load_split(path))], {}


def _session(path: Path) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
