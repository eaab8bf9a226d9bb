"""What a `model.onnx` may hold: its bytes are checked before onnxruntime sees them.

The bytes are walked as protobuf. What no exported classifier needs is refused: data in other files, operators
outside the list below, sparse tensors, and sizes that the file does not account for. So are numbers that are
longer than they need be: protobuf could read those bytes differently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from saccade.errors import ModelError

OPSETS = range(18, 25)
MAX_METADATA_BYTES = 10_000_000  # a hundred thousand long class names
MAX_NODES = 20_000  # ten times a large network; onnxruntime needs 3 s for so many and a minute for five times

# What torch's exporters write for image classifiers, and its close relatives. Each computes tensors from
# tensors, always the same ones, in a number of steps that the shapes bound. So none runs another graph
# (If, Loop, Scan), draws random numbers, handles text or sequences, or decodes images.
OPERATORS = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div",
    "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish",
    "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Where", "Xor", "Attention", "AveragePool", "BatchNormalization", "Conv",
    "ConvTranspose", "DeformConv", "DFT", "Dropout", "Einsum", "Gemm", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "GridSample", "GroupNormalization", "GRU", "Hardmax", "InstanceNormalization",
    "LayerNormalization", "LogSoftmax", "LpNormalization", "LpPool", "LRN", "LSTM", "MatMul", "MaxPool",
    "MeanVarianceNormalization", "RMSNormalization", "RNN", "RotaryEmbedding", "Softmax", "ConvInteger",
    "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear", "AffineGrid", "ArgMax", "ArgMin", "CenterCropPad", "Col2Im", "Concat", "Constant",
    "ConstantOfShape", "CumSum", "DepthToSpace", "Expand", "EyeLike", "Flatten", "Gather", "GatherElements",
    "GatherND", "NonZero", "OneHot", "Pad", "Range", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    "Reshape", "Resize", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze",
})  # fmt: skip


# Field numbers of onnx.proto3; only what can hold something refused, and the metadata, is entered.
# https://protobuf.dev/programming-guides/encoding and https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3

_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSETS, _MODEL_METADATA = 1, 7, 8, 14
_MODEL_TRAINING, _MODEL_FUNCTIONS = 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_DIMS, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 13, 14
_MOST_VALUES_A_BYTE = 2  # the smallest types have four bits
_STANDARD_DOMAINS = ("", "ai.onnx")
_MAX_GRAPH_DEPTH = 8
_MAX_FIELDS = 1_000_000  # ten times a large model; a hostile file of tiny fields is left after a second
_MAX_DIMENSIONS = 64
_LARGEST_TAG, _LARGEST_NUMBER = 2**32 - 1, 2**64 - 1

_Field = tuple[int, int | memoryview]


class _NotProtobuf(Exception):
    """The bytes do not follow the wire format."""


class _Refused(Exception):
    """The model holds something that saccade does not load; the text says what."""


def inspect_model(data: bytes, *, name: str) -> dict[str, str]:
    """The metadata of a self-contained ONNX model; raises ModelError for any other bytes."""
    try:
        return _Walk().model(memoryview(data))
    except _NotProtobuf:
        raise _no_onnx(name, data) from None
    except _Refused as refused:
        raise ModelError(
            f"{name} is refused: it {refused}",
            hint="use a single file written by `saccade export`",
        ) from None


def refuse_start(start: bytes, *, name: str) -> None:
    """Raise ModelError for what cannot be a model by its first bytes, so that no more of it is read."""
    tag = start[0] if start else 0
    if _kind(start) or not (tag < 0x80 and tag >> 3 and tag & 7 in (0, 2)):
        raise _no_onnx(name, start)


def _no_onnx(name: str, data: bytes) -> ModelError:
    kind = _kind(data)
    return ModelError(
        f"{name} is not an ONNX file{f': it is {kind}' if kind else ', or is cut short'}",
        hint="give a model.onnx that saccade wrote",
    )


_KINDS = {  # how other files begin that are taken for models
    rb"PK\x03\x04": "a zip file, as PyTorch, Keras and NumPy write them",
    rb"\x80[\x02-\x05]": "a pickle",
    rb"\x89HDF\r\n": "an HDF5 file, as Keras writes them",
    rb"....TFL3": "a TensorFlow Lite model",
    rb".{7}\x00\{": "a safetensors file",
    rb"GGUF": "a GGUF model",
    rb"ORTM|....ORTM": "a model in onnxruntime's own format",
    rb"\x1f\x8b": "packed by gzip",
    rb"version https://git-lfs": "the pointer of Git LFS; `git lfs pull` fetches the file",
    rb"\s*<": "HTML or XML",
    rb"\s*[\[{]": "JSON",
    rb"\x7fELF|MZ": "a program",
}


def _kind(data: bytes) -> str:
    return next((kind for start, kind in _KINDS.items() if re.match(start, data[:64], re.DOTALL)), "")


class _Walk:
    """Enters every graph of a model once, counting fields and nodes as it goes."""

    def __init__(self) -> None:
        self.fields_seen = self.nodes_seen = self.metadata_bytes = 0

    def model(self, view: memoryview) -> dict[str, str]:
        metadata: dict[str, str] = {}
        found: set[int] = set()
        for number, value in self.fields(view):
            found.add(number)
            if number == _MODEL_FUNCTIONS:
                raise _Refused("defines its own functions")
            if number == _MODEL_TRAINING:
                raise _Refused("holds training information")
            if number == _MODEL_OPSETS:
                self.opset(_message(value))
            elif number == _MODEL_GRAPH:
                self.graph(_message(value), depth=0)
            elif number == _MODEL_METADATA:
                key, text = self.metadata_entry(_message(value))
                if key in metadata:
                    raise _Refused(f"has two metadata entries called {key[:80]!r}")
                metadata[key] = text
        if not {_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSETS} <= found:
            raise _NotProtobuf
        return metadata

    def opset(self, view: memoryview) -> None:
        entry = dict(self.fields(view))
        domain = _text(entry.get(1, memoryview(b"")))
        if domain not in _STANDARD_DOMAINS:
            raise _Refused(f"uses operators of the domain {domain!r}")
        version = entry.get(2, 0)
        if version not in OPSETS:
            raise _Refused(f"uses opset {version}, not one of {OPSETS.start} to {OPSETS.stop - 1}")

    def metadata_entry(self, view: memoryview) -> tuple[str, str]:
        self.metadata_bytes += len(view)
        if self.metadata_bytes > MAX_METADATA_BYTES:
            raise _Refused(f"has more than {MAX_METADATA_BYTES // 1_000_000} MB of metadata")
        entry = dict(self.fields(view))
        return _text(entry.get(1, memoryview(b""))), _text(entry.get(2, memoryview(b"")))

    def graph(self, view: memoryview, *, depth: int) -> None:
        if depth > _MAX_GRAPH_DEPTH:
            raise _Refused(f"nests graphs deeper than {_MAX_GRAPH_DEPTH}")
        for number, value in self.fields(view):
            if number == _GRAPH_NODE:
                self.node(_message(value), depth=depth)
            elif number == _GRAPH_INITIALIZER:
                self.tensor(_message(value))
            elif number == _GRAPH_SPARSE:
                self.sparse(_message(value))

    def node(self, view: memoryview, *, depth: int) -> None:
        self.nodes_seen += 1
        if self.nodes_seen > MAX_NODES:
            raise _Refused(f"has more than {MAX_NODES:,} nodes")
        operator = ""
        for number, value in self.fields(view):
            if number == _NODE_OPERATOR:
                operator = _text(value)
            if number == _NODE_DOMAIN and _text(value) not in _STANDARD_DOMAINS:
                raise _Refused(f"uses operators of the domain {_text(value)!r}")
            if number == _NODE_ATTRIBUTE:
                self.attribute(_message(value), depth=depth)
        if operator not in OPERATORS:
            raise _Refused(f"uses the operator {operator!r}, which no exported classifier needs")

    def attribute(self, view: memoryview, *, depth: int) -> None:
        for number, value in self.fields(view):
            if number in _ATTRIBUTE_TENSORS:
                self.tensor(_message(value))
            elif number in _ATTRIBUTE_GRAPHS:
                self.graph(_message(value), depth=depth + 1)
            elif number in _ATTRIBUTE_SPARSE:
                self.sparse(_message(value))

    def sparse(self, view: memoryview) -> None:
        for number, value in self.fields(view):
            if number in (_SPARSE_VALUES, _SPARSE_INDICES):
                self.tensor(_message(value))
        raise _Refused("holds sparse tensors, which may be small here and fill the memory once they are read")

    def tensor(self, view: memoryview) -> None:
        sides: list[int] = []
        for number, value in self.fields(view):
            if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
                raise _Refused("keeps weights in another file (external data)")
            if number == _TENSOR_DIMS:
                sides += [value] if isinstance(value, int) else _packed(value)
        if len(sides) > _MAX_DIMENSIONS or math.prod(sides) > len(view) * _MOST_VALUES_A_BYTE:
            raise _Refused("declares a tensor with more values than the file holds for it")

    def fields(self, view: memoryview) -> Iterator[_Field]:
        """(field number, value) of one message; nested messages and strings stay unread memory."""
        position, end = 0, len(view)
        while position < end:
            self.fields_seen += 1
            if self.fields_seen > _MAX_FIELDS:
                raise _Refused(f"has more than {_MAX_FIELDS:,} fields")
            tag, position = _varint(view, position)
            if tag > _LARGEST_TAG:  # protobuf would drop the bits above, and see another field
                raise _NotProtobuf
            number, wire_type = tag >> 3, tag & 7
            if number == 0:
                raise _NotProtobuf
            value, position = _payload(view, position, wire_type)
            yield number, value


def _payload(view: memoryview, position: int, wire_type: int) -> tuple[int | memoryview, int]:
    if wire_type == 0:
        return _varint(view, position)
    if wire_type == 2:
        length, position = _varint(view, position)
    elif wire_type in (1, 5):
        length = 8 if wire_type == 1 else 4
    else:  # groups (3, 4) are not part of proto3
        raise _NotProtobuf
    if position + length > len(view):
        raise _NotProtobuf
    return view[position : position + length], position + length


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """Seven bits a byte, lowest first; the top bit says that another byte follows.

    Only the shortest form is read. Readers differ in what they make of a longer one, so that what this check
    passes over could be something else to the reader behind it.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            break
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value > _LARGEST_NUMBER:
                break
            return value, position
    raise _NotProtobuf


def _packed(view: memoryview) -> list[int]:
    """Numbers one behind the other, as protobuf may write a repeated field."""
    numbers: list[int] = []
    position = 0
    while position < len(view) and len(numbers) <= _MAX_DIMENSIONS:
        number, position = _varint(view, position)
        numbers.append(number)
    return numbers


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _NotProtobuf
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode("utf-8")
    except UnicodeDecodeError:
        raise _NotProtobuf from None
