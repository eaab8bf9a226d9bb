"""Weights from safetensors files, and what their header says about the network.

Format: https://github.com/huggingface/safetensors#format (a length, a JSON header, the tensors' bytes).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from saccade.errors import ModelError
from saccade.files import MOST_WEIGHT_BYTES, open_file, parse_json, read_file
from saccade.models.options import Option, checked_options

MAX_HEADER_BYTES = 10_000_000
MAX_IMAGE_SIZE = 4096
TENSOR_FIELDS = {"dtype", "shape", "data_offsets"}
WRAPPERS = ("state_dict.", "module.", "model.", "_orig_mod.")  # what trainers put before every name
IMAGE_CHANNELS = 3
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
    licence: str = ""


@dataclass(frozen=True)
class WeightsFile:
    """Tensors by name, the header that came with them, and the SHA-256 of the bytes they were read from."""

    tensors: dict[str, Tensor]
    header: Header
    sha256: str = ""


def read_weights(path: str | Path) -> WeightsFile:
    """The tensors and header of a safetensors file; raises ModelError saying what is wrong with it."""
    with _refusing(path):
        data = read_file(path, max_bytes=MOST_WEIGHT_BYTES)
        tensors, metadata = tensors_of(data)
    return WeightsFile(tensors, parse_metadata(metadata, where=str(path)), hashlib.sha256(data).hexdigest())


def check_header(path: str | Path) -> dict[str, str]:
    """The file's metadata, once its header holds; raises ModelError otherwise. Reads no tensor."""
    from safetensors import SafetensorError, safe_open

    with _refusing(path):
        with open_file(path) as file:
            header = file.read(8)
            header += file.read(_header_bytes(header))
        try:
            with safe_open(path, framework="np"):  # checks lengths, types, shapes and offsets
                return _metadata(header)
        except SafetensorError as error:
            raise ValueError(str(error)) from None


def tensors_of(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name and metadata of a whole safetensors file; raises ValueError for what is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except KeyError as error:
        raise ValueError(f"torch has no type {error}") from None
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(str(error)) from None
    return tensors, _metadata(data)


@contextlib.contextmanager
def _refusing(path: str | Path) -> Iterator[None]:
    try:
        yield
    except IsADirectoryError:
        raise ModelError(
            f"--weights {path} is a folder",
            hint="give one .safetensors file, or choose among those in it with --backbone auto",
        ) from None
    except OSError as error:
        raise ModelError(
            f"the weights file {path} cannot be read ({error.strerror})", hint="check the path"
        ) from None
    except ValueError as error:
        raise ModelError(
            f"{path} is not a sound safetensors file: {error}",
            hint="download it again, or convert your weights with safetensors.torch.save_file",
        ) from None


def _metadata(data: bytes) -> dict[str, str]:
    """Of a file that safetensors accepts. Raises ValueError for what it lets pass: a name that stands twice,
    of which each reader may take another, and fields that nothing reads.
    """
    header = parse_json(data[8 : 8 + _header_bytes(data)].decode("utf-8"), object_pairs_hook=_no_duplicates)
    metadata: dict[str, str] = header.pop("__metadata__", {})
    for name, entry in header.items():
        if entry.keys() != TENSOR_FIELDS:
            raise ValueError(f"tensor {name!r} is not described by {', '.join(sorted(TENSOR_FIELDS))}")
    return metadata


def _header_bytes(data: bytes) -> int:
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length:,} bytes")
    return length


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} stands in it twice")
    return table


def parse_metadata(metadata: Mapping[str, str], *, where: str) -> Header:
    """Read arch, kwargs, mean, std, crop_pct, crop_mode, interpolation, input_size, license; no other keys.

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
            licence=metadata.get("license", metadata.get("licence", "")).strip(),
        )
    except ValueError as error:
        raise ModelError(
            f"the header of {where} is not valid: {error}",
            hint="write the file again",
        ) from None


def split_architecture(text: str) -> tuple[str, str]:
    """("timm" | "torchvision" | "", name) of `timm.resnet18`, `torchvision/resnet18` or `resnet18`."""
    for library in ("timm", "torchvision"):
        for mark in ("/", "."):
            if text.startswith(library + mark):
                return library, text[len(library) + 1 :]
    return "", text


def unwrapped(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Without what a trainer puts before every name, such as `module.` or `state_dict.model.`.

    >>> import torch
    >>> list(unwrapped({"module.conv.weight": torch.zeros(1)}, {"conv.weight": torch.zeros(1)}))
    ['conv.weight']
    """
    for prefix in WRAPPERS * 2:  # two of them in any order
        in_all = bool(tensors) and all(name.startswith(prefix) for name in tensors)
        if in_all and not any(name.startswith(prefix) for name in wanted):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


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
            f"{where} does not fit the network: {'; '.join(problems)}",
            hint="check --backbone and model.options against how these weights were made",
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
    values.pop("num_classes", None)  # a head is replaced
    channels = str(values.pop("in_chans", IMAGE_CHANNELS))  # the first convolution itself says how many
    if not channels.isdecimal():
        raise ValueError(f"in_chans must be a number, got {channels!r}")
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
