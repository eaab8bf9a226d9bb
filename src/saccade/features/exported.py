"""Exported backbones kept between commands: tracing a network takes longer than computing with it begins.

A file is found by the weights, the layers, the input size and all that exporting depends on. Whoever uses a
kept network still compares its answers with those of the network itself.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from saccade.caches.store import entry_key, made_by, make_room, note_use, sealed, stored_files, unsealed
from saccade.errors import RunError
from saccade.export import onnx as exporting
from saccade.run_folder import write_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

EXPORTING_VERSION = 1  # rises with every change of the graph that `export_network` makes of a network
MAX_BYTES = 1_000_000_000  # of the folder; what was not used for longest goes first


def exported(backbone: nn.Module, size: int, folder: Path | None, *, channels: int = 3) -> ModelProto:
    """The backbone as ONNX for inputs of `size` pixels, from `folder` where it was exported before.

    Raises ModelError where it cannot be exported.
    """
    place = folder / f"{_key(backbone, size)}.onnx" if folder else None
    kept = _read(place) if place else None
    if kept is not None:
        return kept
    model = exporting.export_network(backbone, size, channels=channels)
    if place:
        _keep(model, place)
    return model


def _key(backbone: nn.Module, size: int) -> str:
    """Weights and buffers, the layers in words, and the versions of what exports."""
    import onnx

    weights = hashlib.sha256()
    for name, tensor in backbone.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        weights.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        weights.update(values.reshape(-1).view(torch.uint8).numpy().data)
    made = made_by(
        exporting=EXPORTING_VERSION,
        torch=torch.__version__,
        onnx=onnx.__version__,
        size=size,
        layers=backbone,
    )
    return entry_key(weights.hexdigest(), made).hex()


def _read(place: Path) -> ModelProto | None:
    """What was kept, its last use noted; None for a file that is not there or not whole."""
    import onnx

    try:
        data = unsealed(place.read_bytes())
    except OSError:
        return None
    if data is None:
        return None
    note_use(place)
    return onnx.load_model_from_string(data)


def _keep(model: ModelProto, place: Path) -> None:
    data = sealed(model.SerializeToString())
    if len(data) > MAX_BYTES:
        return
    with contextlib.suppress(RunError, OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        stored = stored_files(place.parent, "*.onnx")
        excess = sum(size for _, size, _ in stored) + len(data) - MAX_BYTES
        make_room(stored, excess, lambda path: path.unlink(missing_ok=True))
        write_bytes(place, data)
