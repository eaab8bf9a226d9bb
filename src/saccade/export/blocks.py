"""Which parts of a network a reduced precision harms most, so that these alone can stay float.

A block is some neighbouring layers. Each is reduced alone, and the error of the network's output on a few
images is measured against float; what errs most goes back to float first (greedy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import INPUT_NAME, Image
from saccade.export import parts
from saccade.export.onnx import PIXELS
from saccade.threads import usable_cores

if TYPE_CHECKING:
    import onnx
    import onnxruntime

BLOCKS = 16
STEPS = (1, 2, 4, 8)  # so many blocks go back to float, as long as the accuracy does not hold
PROBES = 16  # images on which a block's error is measured
WEIGHTED = ("Conv", "Gemm", "MatMul")

Pixels = NDArray[np.float32]
Problems = Callable[[Path], Sequence[str]]  # of a written file: why its accuracy does not hold


def blocks_of(network: onnx.ModelProto, *, start: int = 0) -> list[list[str]]:
    """Names of the nodes of each block, in order: at most BLOCKS, each beginning with a weighted layer.

    The first `start` weighted layers are in none.
    """
    names = [node.name for node in network.graph.node]
    layers = [i for i, node in enumerate(network.graph.node) if node.op_type in WEIGHTED][start:]
    firsts = [int(chunk[0]) for chunk in np.array_split(layers, min(BLOCKS, len(layers))) if len(chunk)]
    return [names[first:end] for first, end in zip(firsts, [*firsts[1:], len(names)], strict=True)]


def kept_float(
    network: onnx.ModelProto,
    reduced: Callable[[Sequence[str]], onnx.ModelProto],
    pixels: Callable[[], Sequence[Pixels]],
    *,
    start: int = 0,
) -> Iterator[list[str]]:
    """Node names to keep float, to be tried in turn: none of the blocks first, then the most sensitive.

    `reduced(names)` is the network with all but those nodes reduced.
    """
    yield []
    blocks = blocks_of(network, start=start)
    order = np.argsort(_errors(network, reduced, blocks, pixels()[:PROBES]))[::-1]
    for step in STEPS:
        if step < len(blocks):
            yield [name for i in order[:step] for name in blocks[i]]


def _errors(
    network: onnx.ModelProto,
    reduced: Callable[[Sequence[str]], onnx.ModelProto],
    blocks: Sequence[Sequence[str]],
    pixels: Sequence[Pixels],
) -> list[float]:
    """Mean squared error of the logits for each block, reduced alone."""
    expected = _logits(network, pixels)
    errors = []
    for block in blocks:
        others = [node.name for node in network.graph.node if node.name not in set(block)]
        errors.append(float(np.mean((_logits(reduced(others), pixels) - expected) ** 2)))
    return errors


def _logits(network: onnx.ModelProto, pixels: Sequence[Pixels]) -> Pixels:
    running = session(network)
    answers: Pixels = np.concatenate([running.run(None, {PIXELS: image})[0] for image in pixels])
    return answers


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = usable_cores()
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def network_inputs(model: onnx.ModelProto, images: Iterable[Image]) -> list[Pixels]:
    """Each image as the network sees it, (1, 3, size, size); sizes of the photos may differ."""
    before = session(parts.preprocessing(model))
    return [before.run([PIXELS], {INPUT_NAME: image[None]})[0] for image in images]
