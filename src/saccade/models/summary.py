"""The table of a network: layer, output shape, parameters, as `saccade summary` prints it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saccade.models.network import Classifier


@dataclass(frozen=True)
class LayerRow:
    """One layer: its name and kind, the shape of its output for one image, its own parameters."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """All layers in the order in which an image meets them, and the parameters by whether they learn."""

    rows: tuple[LayerRow, ...]
    trainable: int
    not_trainable: int

    @property
    def total(self) -> int:
        return self.trainable + self.not_trainable


def summary(classifier: Classifier, image_size: int, *, channels: int = 3) -> Summary:
    """Run one empty image of `image_size` pixels through the network and write down what each layer gave."""
    rows: list[LayerRow] = []
    seen: set[str] = set()
    handles = [
        module.register_forward_hook(_recorder(name, rows, seen))
        for name, module in classifier.named_modules()
        if _is_layer(module)
    ]
    was_training = classifier.training
    try:
        device = next(classifier.parameters()).device
        with torch.no_grad():
            classifier.eval()(torch.zeros(1, channels, image_size, image_size, device=device))
    finally:
        classifier.train(was_training)
        for handle in handles:
            handle.remove()
    parameters = list(classifier.parameters())
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    return Summary(tuple(rows), learning, sum(p.numel() for p in parameters) - learning)


def as_text(table: Summary) -> str:
    """Aligned plain text, with the totals below."""
    head = ("layer", "kind", "output shape", "parameters")
    body = [(r.name, r.kind, " x ".join(map(str, r.output_shape)), f"{r.parameters:,}") for r in table.rows]
    widths = [max(len(line[column]) for line in [head, *body]) for column in range(4)]
    lines = [
        _line(head, widths),
        "  ".join("-" * width for width in widths),
        *(_line(row, widths) for row in body),
    ]
    lines += ["", f"trainable parameters: {table.trainable:,}", f"not trainable: {table.not_trainable:,}"]
    return "\n".join(lines)


def _line(cells: tuple[str, str, str, str], widths: list[int]) -> str:
    name, kind, shape, parameters = cells
    left = "  ".join(f"{cell:<{width}}" for cell, width in zip((name, kind, shape), widths, strict=False))
    return f"{left}  {parameters:>{widths[3]}}"


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, nn.Identity):
        return False
    owns = next(module.parameters(recurse=False), None) is not None
    return owns or next(module.children(), None) is None


def _recorder(name: str, rows: list[LayerRow], seen: set[str]):  # type: ignore[no-untyped-def]
    def record(module: nn.Module, inputs: object, output: object) -> None:
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        parameters = 0 if name in seen else sum(p.numel() for p in module.parameters(recurse=False))
        seen.add(name)
        rows.append(LayerRow(name or "(network)", type(module).__name__, shape, parameters))

    return record
