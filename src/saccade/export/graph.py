"""ONNX nodes and constants, collected part by part, and values that can be calculated with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

FLOAT = 1  # onnx.TensorProto.FLOAT, without importing onnx


class Part:
    """Collects the nodes and constants of one part of the graph, each named by its prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: Any, dtype: type[np.generic] = np.int64) -> Value:
        """A constant; one that the part has under that name already is used again."""
        from onnx import numpy_helper

        full = f"{self.prefix}{name}"
        if full not in {constant.name for constant in self.constants}:
            self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), full))
        return Value(self, full)

    def number(self, value: float) -> Value:
        """A Python number as a constant of shape (1,): int64 or float32."""
        kind = np.int64 if isinstance(value, int) else np.float32
        return self.constant(f"{kind.__name__}_{value}", [value], kind)

    def node(
        self,
        operator: str,
        inputs: Sequence[str | Value],
        name: str = "",
        *,
        output: str = "",
        **attributes: Any,
    ) -> Value:
        """One node with one output, which is named after it; without a `name` it is numbered."""
        from onnx import helper

        full = f"{self.prefix}{name or f'{operator.lower()}_{len(self.nodes)}'}"
        names = [str(value) for value in inputs]
        self.nodes.append(helper.make_node(operator, names, [output or full], name=full, **attributes))
        return Value(self, output or full)


@dataclass(frozen=True)
class Value:
    """What a node gives, by name. Calculating with it adds nodes; Python numbers become constants."""

    part: Part
    name: str

    def __str__(self) -> str:
        return self.name

    def __add__(self, other: Value | float) -> Value:
        return self.apply("Add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self.apply("Sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self.apply("Mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self.apply("Div", other)

    def __floordiv__(self, other: Value | int) -> Value:
        """Of whole numbers from 0 on only: ONNX rounds towards 0, which floors those."""
        return self.apply("Div", other)

    def apply(self, operator: str, *others: Value | float, **attributes: Any) -> Value:
        """A node of `operator` that reads this value and `others`."""
        inputs = [other if isinstance(other, Value) else self.part.number(other) for other in others]
        return self.part.node(operator, [self, *inputs], **attributes)

    def at_least(self, other: Value | int) -> Value:
        return self.apply("Max", other)

    def at_most(self, other: Value | int) -> Value:
        return self.apply("Min", other)

    def as_float(self) -> Value:
        return self.apply("Cast", to=FLOAT)

    def reshaped(self, *shape: Value | int) -> Value:
        """As ONNX reads a shape: 0 keeps a dimension, -1 takes what is left."""
        return self.apply("Reshape", listed(self.part, *shape))

    def counted(self) -> Value:
        """0, 1, ... up to, not including, this number of shape (1,)."""
        zero, one = self.part.constant("zero", 0), self.part.constant("one", 1)
        return self.part.node("Range", [zero, self.apply("Squeeze"), one])


def listed(part: Part, *numbers: Value | int) -> Value:
    """Numbers of shape (1,) as one list."""
    values = [number if isinstance(number, Value) else part.number(number) for number in numbers]
    return part.node("Concat", values, axis=0)
