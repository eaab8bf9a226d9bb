"""Decode every image of a data set once, and write down what it is.

One bad file never stops a scan: it is set aside by name, with what is wrong and what to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.data.images import DEFAULT_LIMITS, EXTREME_ASPECT, Decoded, Limits, decode, pixel_sha256
from saccade.data.measure import FileFacts, Measurements, blank_values, file_facts, measure
from saccade.errors import ImageError
from saccade.records import Dataset, ImageRecord, Storage
from saccade.terminal import Progress, silent

CHUNK_IMAGES = 64


class Scan(NamedTuple):
    """A data set whose records are filled in, and what was measured on each image."""

    dataset: Dataset
    measurements: Measurements


@dataclass(frozen=True, slots=True)
class Examined:
    """What one file turned out to be; `refusal` is empty for an image that can be used."""

    sha256: str = ""
    pixel_sha256: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    note: str = ""
    refusal: str = ""
    camera: str = ""
    quantisation: str = ""


def scan(dataset: Dataset, *, limits: Limits = DEFAULT_LIMITS, progress: Progress = silent) -> Scan:
    """Every image decoded once: records get hashes, size, mode, notes; what cannot be used is set aside."""
    examined: list[Examined] = []
    values: list[NDArray[Any]] = []
    paths = [record.path for record in dataset.records]
    for chunk in _chunks(paths, CHUNK_IMAGES):
        part, measured = examine_chunk(dataset.storage, chunk, limits)
        examined += part
        values.append(measured)
        progress(len(examined), len(paths))
    records = [_filled(record, found) for record, found in zip(dataset.records, examined, strict=True)]
    measurements = Measurements(
        values=np.concatenate([blank_values(0), *values]),
        formats=tuple(found.format for found in examined),
        cameras=tuple(found.camera for found in examined),
        quantisations=tuple(found.quantisation for found in examined),
    )
    return Scan(dataset.with_records(records), measurements)


def examine_chunk(
    storage: Storage, paths: Sequence[str], limits: Limits
) -> tuple[list[Examined], NDArray[Any]]:
    """Read, decode and measure a few images; row i of the values belongs to path i."""
    examined, values = [], blank_values(len(paths))
    pixels: list[NDArray[np.uint8]] = []
    rows: list[int] = []
    for row, path in enumerate(paths):
        found, decoded, facts, file_bytes = _examine(storage, path, limits)
        examined.append(found)
        values["file_bytes"][row] = file_bytes
        if decoded is not None:
            values["jpeg_quality"][row] = facts.jpeg_quality
            pixels.append(decoded.pixels)
            rows.append(row)
    measured = measure(pixels)
    for name in measured.dtype.names or ():
        if name not in ("jpeg_quality", "file_bytes"):
            values[name][rows] = measured[name]
    return examined, values


def _examine(storage: Storage, path: str, limits: Limits) -> tuple[Examined, Decoded | None, FileFacts, int]:
    nothing = FileFacts(float("nan"), "", "")
    try:
        data = storage.read(path)
    except ImageError as error:
        return Examined(refusal=str(error)), None, nothing, 0
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        decoded = decode(data, limits=limits, name=path)
        _refuse_extreme(decoded)
    except ImageError as error:
        return Examined(sha256=sha256, refusal=str(error)), None, nothing, len(data)
    facts = file_facts(data)
    found = Examined(
        sha256=sha256,
        pixel_sha256=pixel_sha256(decoded.pixels),
        width=decoded.width,
        height=decoded.height,
        mode=decoded.mode,
        format=decoded.format,
        note="; ".join(decoded.notes),
        camera=decoded.camera or facts.camera,
        quantisation=facts.quantisation,
    )
    return found, decoded, facts, len(data)


def _refuse_extreme(decoded: Decoded) -> None:
    longer, shorter = max(decoded.width, decoded.height), min(decoded.width, decoded.height)
    if longer > EXTREME_ASPECT * shorter:
        raise ImageError(
            f"extreme shape: {decoded.width} x {decoded.height} pixels, "
            f"more than {EXTREME_ASPECT} times as long as wide",
            "Crop it to use it",
        )


def _filled(record: ImageRecord, found: Examined) -> ImageRecord:
    record = replace(
        record,
        sha256=found.sha256,
        pixel_sha256=found.pixel_sha256,
        width=found.width,
        height=found.height,
        mode=found.mode,
        note="; ".join(note for note in (record.note, found.note) if note),
    )
    return record.set_aside(found.refusal) if found.refusal else record


def _chunks(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (paths[start : start + size] for start in range(0, len(paths), size))
