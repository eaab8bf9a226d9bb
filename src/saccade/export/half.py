"""A float model file with float16 weights: half as large, as fast, and nearly the same answers.

The network still computes in float32: onnxruntime and OpenVINO have no float16 arithmetic on most processors,
and a network that asks for it takes 1.4 times as long there (measured: docs/export.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saccade.artefact import Image
from saccade.export import parts
from saccade.export.blocks import Problems, kept_float, network_inputs
from saccade.export.onnx import write_model
from saccade.export.parts import REDUCED_KEY, read_float_model
from saccade.run_folder import write_bytes

if TYPE_CHECKING:
    import onnx

FLOAT = 1  # of onnx.TensorProto, without importing onnx
LARGEST = 65504.0  # in float16


def write_half(
    float_model: str | Path,
    out: str | Path,
    images: Iterable[Image],
    *,
    problems: Problems = lambda path: (),
    write: Callable[[Path, bytes], None] = write_bytes,
) -> Path:
    """Write `float_model` with float16 weights to `out` and return its path.

    While `problems(out)` names any, the most sensitive blocks get their float32 weights back, found on
    `images`. Raises ModelError for a file that is no float model of saccade.
    """
    model = read_float_model(Path(float_model))
    network = parts.network(model)

    def reduced(kept: Sequence[str]) -> onnx.ModelProto:
        return _with_half_weights(network, kept)

    for kept in kept_float(network, reduced, lambda: network_inputs(model, images)):
        result = parts.rejoined(model, reduced(kept))
        note = {"kind": "fp16", "float_nodes": len(kept)}
        result.metadata_props.add(key=REDUCED_KEY, value=json.dumps(note))
        write_model(result, Path(out), write=write)
        if not problems(Path(out)):
            break
    return Path(out)


def _with_half_weights(network: onnx.ModelProto, kept: Sequence[str]) -> onnx.ModelProto:
    """The network with the weights of all nodes but the `kept` in float16, cast back where read."""
    from onnx import helper, numpy_helper

    result = parts.copied(network)
    exact = {name for node in result.graph.node if node.name in set(kept) for name in node.input}
    casts = []
    for tensor in result.graph.initializer:
        values = numpy_helper.to_array(tensor) if tensor.data_type == FLOAT else np.zeros(1)
        if values.size > 1 and tensor.name not in exact and np.abs(values).max() <= LARGEST:
            name, stored = tensor.name, f"{tensor.name}_fp16"
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
            casts.append(helper.make_node("Cast", [stored], [name], name=f"{stored}_cast", to=FLOAT))
    nodes = list(result.graph.node)
    del result.graph.node[:]
    result.graph.node.extend([*casts, *nodes])
    return result
