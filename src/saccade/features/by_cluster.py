"""Frozen features that a cluster computes: the same batches through the same graph, so the same bits.

Workers read the graph from a file in the folder of the parts, which all machines see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from saccade.errors import DataError
from saccade.features.compute import BATCH_IMAGES, Engine, Images, compute_features
from saccade.features.engines import engine_of
from saccade.part_files import Cluster, Job, Packed, map_chunks, shared_file
from saccade.records import ImageRecord, Storage
from saccade.sources.storage import FolderStorage
from saccade.terminal import Progress, printable, silent
from saccade.training.stop import StopRequest

CHUNK_IMAGES = 8 * BATCH_IMAGES


def features_by(
    cluster: Cluster,
    images: Images,
    network: bytes,
    *,
    quick: bool,
    mirror: bool = False,
    stop: StopRequest | None = None,
    progress: Progress = silent,
) -> Tensor:
    """As `compute_features` gives them, float32 (images, F); `network` is the exported backbone.

    `quick`: by the quick engine. Raises EngineError, and whatever `compute_features` raises.
    """
    bare = replace(images, storage=_sent(images), records=(), pixels=None)
    chunks = [images.records[start : start + CHUNK_IMAGES] for start in range(0, len(images), CHUNK_IMAGES)]
    found: list[Tensor] = []
    with shared_file(network) as file:
        opening = _Opening(bare, file, hashlib.sha256(network).hexdigest(), quick, mirror)
        job = Job(partial(_computing, opening), _pack, _unpack, _crashed, partial(_key, opening))
        check = stop.check if stop else lambda: None
        for _, some in map_chunks(cluster, job, chunks, check=check):
            found.append(some)
            progress(sum(map(len, found)), len(images))
    return torch.cat(found)


def _sent(images: Images) -> Storage:
    """The storage as workers open it; one that watches which images are read notes them here."""
    storage = images.storage
    if watched := getattr(storage, "elsewhere", None):
        storage = watched([record.path for record in images.records])
    if isinstance(storage, FolderStorage):
        storage = replace(storage, root=storage.root.absolute())
    return storage


@dataclass(frozen=True, slots=True)
class _Opening:
    """What a worker needs besides the records."""

    images: Images
    network: Path
    sha256: str
    quick: bool
    mirror: bool


def _computing(opening: _Opening) -> partial[Tensor]:
    return partial(_computed, opening, engine_of(opening.network.read_bytes(), quick=opening.quick))


def _computed(opening: _Opening, engine: Engine, records: Sequence[ImageRecord]) -> Tensor:
    images = replace(opening.images, records=tuple(records))
    return compute_features(images, engine, mirror=opening.mirror)


def _crashed(record: ImageRecord) -> NoReturn:
    raise DataError(
        f"the decoder crashed on {printable(record.path)}, which the scan could read",
        hint="re-export the file, or drop it with --decisions",
    )


def _key(opening: _Opening, records: Sequence[ImageRecord]) -> list[Any]:
    images = opening.images
    how = [opening.sha256, opening.quick, opening.mirror, str(images.preprocess), str(images.limits)]
    return ["features", *how, images.exact, [record.sha256 for record in records]]


def _pack(features: Tensor) -> Packed:
    return list(features.shape), features.numpy().tobytes()


def _unpack(shape: Sequence[int], data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.float32).reshape(shape).copy())
