"""A model file taken apart into preprocessing, network and answer, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.artefact import UNFAMILIAR_KEY, read_model_bytes
from saccade.errors import MissingExtraError, ModelError
from saccade.export.onnx import (
    ANSWER_PREFIX,
    IR_VERSION,
    LOGITS,
    NETWORK_PREFIX,
    OPSET,
    PIXELS,
    PREPROCESS_PREFIX,
    UNFAMILIAR_PREFIX,
)
from saccade.onnx_file import inspect_model

if TYPE_CHECKING:
    import onnx

REDUCED_KEY = "saccade.quantization"  # of a file whose network is not float32


def read_float_model(path: Path) -> onnx.ModelProto:
    """A float32 file of saccade's, checked; raises ModelError for another, MissingExtraError without onnx."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtraError("onnx", "train", "taking a model file apart") from None
    data = read_model_bytes(path)
    if REDUCED_KEY in inspect_model(data, name=str(path)):
        raise ModelError(f"{path} is reduced already", hint="give the float model")
    model = onnx.load_model_from_string(data)
    names = [node.name for node in model.graph.node]
    for prefix in (PREPROCESS_PREFIX, NETWORK_PREFIX, ANSWER_PREFIX):
        if not any(name.startswith(prefix) for name in names):
            raise ModelError(
                f"{path} has no part {prefix!r}", hint="give a float model that saccade exported"
            )
    return model


def preprocessing(model: onnx.ModelProto) -> onnx.ModelProto:
    """`image` uint8 (batch, height, width, 3) to PIXELS (batch, 3, size, size)."""
    return _part(model, (PREPROCESS_PREFIX,), list(model.graph.input), [_pixels_info(model)])


def network(model: onnx.ModelProto) -> onnx.ModelProto:
    """PIXELS to LOGITS (batch, classes)."""
    from onnx import TensorProto, helper

    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    logits = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", classes])
    return _part(model, (NETWORK_PREFIX,), [_pixels_info(model)], [logits])


def network_and_answer(model: onnx.ModelProto) -> onnx.ModelProto:
    """PIXELS to all that the model gives."""
    prefixes = (NETWORK_PREFIX, ANSWER_PREFIX, UNFAMILIAR_PREFIX)
    return _part(model, prefixes, [_pixels_info(model)], model.graph.output)


def rejoined(model: onnx.ModelProto, network: onnx.ModelProto) -> onnx.ModelProto:
    """The file with another network between its preprocessing and its answer.

    Without what it says of unfamiliar images: rounding another network's features would look like it.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    before, after = _nodes(model, PREPROCESS_PREFIX), _nodes(model, ANSWER_PREFIX)
    read = {name for node in (*before, *after) for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del result.graph.node[:], result.graph.initializer[:]
    result.graph.node.extend([*before, *network.graph.node, *after])
    result.graph.initializer.extend([*kept, *network.graph.initializer])
    del result.graph.output[1:]
    texts = [entry for entry in model.metadata_props if entry.key != UNFAMILIAR_KEY]
    del result.metadata_props[:]
    result.metadata_props.extend(texts)
    return result


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def _nodes(model: onnx.ModelProto, *prefixes: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.name.startswith(prefixes)]


def _part(
    model: onnx.ModelProto,
    prefixes: tuple[str, ...],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Some parts of the graph as a model of its own."""
    from onnx import helper

    nodes = _nodes(model, *prefixes)
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, "part", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _pixels_info(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    return next(value for value in model.graph.value_info if value.name == PIXELS)
