"""Weights from safetensors files: checked before they are read, and what their header says about the network.

Format: https://github.com/huggingface/safetensors#format (a length, a JSON header, the tensors' bytes).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from saccade.errors import ModelError
from saccade.files import MOST_WEIGHT_BYTES, open_file, parse_json, read_file
from saccade.models.options import Option, checked_options

MAX_HEADER_BYTES = 10_000_000
MAX_IMAGE_SIZE = 4096
MAX_DIMENSIONS = 64  # of a torch tensor
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
COUNTER = "num_batches_tracked"  # older files lack this counter of BatchNorm, which nothing here reads


@dataclass(frozen=True)
class Header:
    """What a weights file says about itself; None and "" where it says nothing."""

    library: str = ""
    architecture: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    crop_fraction: float | None = None
    crop_mode: str = ""
    interpolation: str = ""
    image_size: int | None = None


@dataclass(frozen=True)
class WeightsFile:
    """Tensors by name, the header that came with them, and the SHA-256 of the bytes they were read from."""

    tensors: dict[str, Tensor]
    header: Header
    sha256: str = ""


def read_weights(path: str | Path) -> WeightsFile:
    """Read a safetensors file after checking its header; raises ModelError saying what is wrong with it."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    check_header(path)
    data = read_file(path, max_bytes=MOST_WEIGHT_BYTES)
    try:  # once more: the file may have been replaced since
        metadata = _read_header(data[:8], data[8 : 8 + MAX_HEADER_BYTES], len(data)).get("__metadata__", {})
        tensors = load(data)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise _not_sound(path, error) from None
    header = parse_metadata(metadata, where=str(path))
    return WeightsFile(tensors, header, hashlib.sha256(data).hexdigest())


def check_header(path: str | Path) -> dict[str, str]:
    """The file's metadata, once every name, type, shape and offset holds; raises ModelError otherwise.

    No name twice, no gap, no overlap, no byte left over, so nothing can hide in the file.
    """
    try:
        with open_file(path) as file:
            total = file.seek(0, 2)
            file.seek(0)
            header = _read_header(file.read(8), file.read(MAX_HEADER_BYTES), total)
    except IsADirectoryError:
        raise ModelError(
            f"--weights {path} is a folder; give one .safetensors file, or choose among those in it with "
            "--backbone auto"
        ) from None
    except OSError as error:
        raise ModelError(
            f"the weights file {path} cannot be read ({error.strerror}); check the path"
        ) from None
    except ValueError as error:
        raise _not_sound(path, error) from None
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata


def _not_sound(path: str | Path, error: Exception) -> ModelError:
    return ModelError(
        f"{path} is not a sound safetensors file: {error}; download it again, or convert your weights "
        "with safetensors.torch.save_file"
    )


def header_problem(data: bytes) -> str:
    """What `check_header` would find wrong with a whole file that is in memory already, or ""."""
    try:
        _read_header(data[:8], data[8 : 8 + MAX_HEADER_BYTES], len(data))
    except ValueError as error:
        return str(error)
    return ""


def _read_header(length_bytes: bytes, start: bytes, total: int) -> dict[str, Any]:
    if len(length_bytes) < 8:
        raise ValueError("it ends before its header")
    (length,) = struct.unpack("<Q", length_bytes)
    if length > MAX_HEADER_BYTES or length > total - 8:
        raise ValueError(f"its header claims {length:,} bytes of {total:,}")
    header = parse_json(start[:length].decode("utf-8"), object_pairs_hook=_no_duplicates)
    if not isinstance(header, dict):
        raise ValueError("its header is not a table of tensors")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not a table of texts")
    _check_spans({k: v for k, v in header.items() if k != "__metadata__"}, total - 8 - length)
    return header


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} stands in it twice")
    return table


def _check_spans(entries: dict[str, Any], data_bytes: int) -> None:
    spans = sorted(_span(name, entry) for name, entry in entries.items())
    reached = 0
    for begin, end, name in spans:
        if begin != reached:
            raise ValueError(f"tensor {name!r} starts at byte {begin}, where {reached} was due")
        reached = end
    if reached != data_bytes:
        raise ValueError(f"its tensors take {reached:,} bytes, but {data_bytes:,} follow the header")


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r} has a shape or an offset that is no whole number")
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has {len(shape):,} dimensions")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in ITEM_BYTES:
        raise ValueError(f"tensor {name!r} has the unknown type {entry['dtype']!r}")
    begin, end = offsets
    needed = math.prod(shape) * ITEM_BYTES[entry["dtype"]]
    if end - begin != needed:
        raise ValueError(f"tensor {name!r} needs {needed:,} bytes, its offsets span {end - begin:,}")
    return begin, end, name


def parse_metadata(metadata: Mapping[str, str], *, where: str) -> Header:
    """Read arch, kwargs, mean, std, crop_pct, crop_mode, interpolation and input_size, ignore other keys.

    Lists may be JSON or comma-separated, kwargs JSON or `name=value,...`. ModelError names file and key.
    """
    library, architecture = split_architecture(metadata.get("arch", metadata.get("architecture", "")))
    try:
        return Header(
            library=library,
            architecture=architecture,
            options=_options(metadata.get("kwargs", ""), where=f"kwargs in the header of {where}"),
            mean=_triple("mean", metadata),
            std=_triple("std", metadata),
            crop_fraction=_number("crop_pct", metadata),
            crop_mode=metadata.get("crop_mode", ""),
            interpolation=metadata.get("interpolation", ""),
            image_size=_image_size(metadata),
        )
    except ValueError as error:
        raise ModelError(f"the header of {where} does not hold: {error}; write the file again") from None


def split_architecture(text: str) -> tuple[str, str]:
    """("timm" | "torchvision" | "", name) of `timm.resnet18`, `torchvision/resnet18` or `resnet18`."""
    for library in ("timm", "torchvision"):
        for mark in ("/", "."):
            if text.startswith(library + mark):
                return library, text[len(library) + 1 :]
    return "", text


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Put tensors into a module of exactly the same names and shapes; ModelError lists what does not fit."""
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in tensors and not name.endswith(COUNTER)]
    unexpected = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} is {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    problems = [
        f"{len(found)} {what}: {shortened(found)}"
        for what, found in (
            ("missing", missing),
            ("not known to it", unexpected),
            ("of another shape", shapes),
        )
        if found
    ]
    if problems:
        raise ModelError(
            f"{where} does not fit the network: " + "; ".join(problems) + ". "
            "Check --backbone and model.options against how these weights were made"
        )
    module.load_state_dict(tensors, strict=False)


def shortened(names: list[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _options(text: str, *, where: str) -> dict[str, Option]:
    values: dict[str, Any]
    if text.strip().startswith("{"):
        values = parse_json(text, object_pairs_hook=_no_duplicates)
    else:
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        values = {name.strip(): value.strip() for name, _, value in pairs}
    for name, needed in (
        ("num_classes", None),
        ("in_chans", 3),
    ):  # a head is replaced; images have 3 channels
        value = values.pop(name, needed)
        if needed is not None and str(value) != str(needed):
            raise ValueError(f"{name} must be {needed}, got {value!r}")
    return checked_options(values, where=where)


def _numbers(name: str, metadata: Mapping[str, str]) -> list[float]:
    text = metadata.get(name, "").strip().strip("[]()")
    try:
        values = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{name} must be numbers, got {metadata[name]!r}") from None
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"{name} must be finite, got {metadata[name]!r}")
    return values


def _triple(name: str, metadata: Mapping[str, str]) -> tuple[float, float, float] | None:
    values = _numbers(name, metadata)
    if not values:
        return None
    values = values * 3 if len(values) == 1 else values
    if len(values) != 3:
        raise ValueError(f"{name} must be one or three numbers, got {metadata[name]!r}")
    return values[0], values[1], values[2]


def _number(name: str, metadata: Mapping[str, str]) -> float | None:
    values = _numbers(name, metadata)
    if len(values) > 1:
        raise ValueError(f"{name} must be one number, got {metadata[name]!r}")
    return values[0] if values else None


def _image_size(metadata: Mapping[str, str]) -> int | None:
    sides = _numbers("input_size", metadata)[-2:]
    if len(set(sides)) > 1:
        raise ValueError(f"input_size must be square, got {metadata['input_size']!r}")
    if sides and not (sides[0].is_integer() and 1 <= sides[0] <= MAX_IMAGE_SIZE):
        raise ValueError(
            f"input_size must lie between 1 and {MAX_IMAGE_SIZE}, got {metadata['input_size']!r}"
        )
    return int(sides[0]) if sides else None
