"""Exported backbones kept between commands: tracing a network takes longer than computing with it begins.

A file is found by the SHA-256 of the weights, the layers, the input size and everything that exporting
depends on. It is a cache and nothing more: what cannot be read or written is done without, and whoever uses a
kept network still compares its answers with those of the network itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from saccade.caches.scans import code_version
from saccade.errors import RunError
from saccade.export import folding
from saccade.export import onnx as exporting
from saccade.run_folder import write_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

MAX_BYTES = 1_000_000_000  # of the folder; what was not used for longest goes first
DIGEST_BYTES = 32  # of the content, at the end of each file


def exported(backbone: nn.Module, size: int, folder: Path | None) -> ModelProto:
    """The backbone as ONNX for inputs of `size` pixels, from `folder` where it was exported before.

    Raises ModelError where it cannot be exported.
    """
    place = folder / f"{_key(backbone, size)}.onnx" if folder else None
    kept = _read(place) if place else None
    if kept is not None:
        return kept
    model = exporting.export_network(backbone, size)
    if place:
        _keep(model, place)
    return model


def _key(backbone: nn.Module, size: int) -> str:
    """Weights and buffers, the layers in words, and the versions of what exports."""
    import onnx

    digest = hashlib.sha256()
    for name, tensor in backbone.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    code = code_version(exporting, folding, sys.modules[__name__])
    digest.update(f"{backbone!r};{size};{code};{torch.__version__};{onnx.__version__}".encode())
    return digest.hexdigest()


def _read(place: Path) -> ModelProto | None:
    """What was kept, its last use noted; None for a file that is not there or not whole."""
    import onnx

    try:
        content = place.read_bytes()
        data, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            return None
        os.utime(place)
    except OSError:
        return None
    return onnx.load_model_from_string(data)


def _keep(model: ModelProto, place: Path) -> None:
    data = model.SerializeToString()
    if len(data) > MAX_BYTES:
        return
    with contextlib.suppress(RunError, OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        _make_room(place.parent, len(data))
        write_bytes(place, data + hashlib.sha256(data).digest())


def _make_room(folder: Path, length: int) -> None:
    files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.onnx"))
    excess = sum(size for _, size, _ in files) + length - MAX_BYTES
    for _, size, path in files:
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size
