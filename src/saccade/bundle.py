"""Weights, class names and preprocessing in one folder, loaded without running code from it.

`weights.safetensors` holds tensors only; `model.json` says how to rebuild the network (names and numbers
from a closed registry), what its outputs mean and what its inputs must look like.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saccade._version import __version__
from saccade.answer import Answer
from saccade.errors import ModelError, TrainingError
from saccade.files import MOST_WEIGHT_BYTES, parse_json, read_file, read_text
from saccade.models.weights import shortened, tensors_of
from saccade.preprocess import Preprocess
from saccade.run_folder import json_bytes, write_bytes

SCHEMA_VERSION, ANSWER_SCHEMA_VERSION = 1, 2  # the second has `answer` in place of `temperature`
WEIGHTS = "weights.safetensors"
MODEL = "model.json"
STATISTICS = ("running_mean", "running_var")  # of BatchNorm; other buffers may hold infinities (masks do)

# key of model.json -> type; that of the answer is in _ANSWER_KEYS
_KEYS: dict[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "saccade_version": str,
    "architecture": dict,
    "classes": list,
    "preprocess": dict,
    "thresholds": dict,
    "data_fingerprint": str,
    "weights_sha256": str,
    "training": dict,
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A trained network with everything its predictions depend on.

    `classes` names the outputs, in order. `architecture` is what `models.rebuild` needs. `answer`
    makes probabilities of its outputs. `training` says in plain values how the weights came about.
    """

    module: nn.Module
    classes: tuple[str, ...]
    preprocess: Preprocess
    architecture: Mapping[str, Any]
    answer: Answer = field(default_factory=Answer)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    data_fingerprint: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)


def save_bundle(bundle: Bundle, folder: Path, *, write: Callable[[Path, bytes], None] = write_bytes) -> str:
    """Write both files by `write`, `model.json` last; returns the SHA-256 of the weights file.

    Raises TrainingError, and writes nothing, where weights or statistics are not finite.
    """
    check_finite(bundle.module)
    data = tensors_to_bytes(bundle.module.state_dict())
    digest = hashlib.sha256(data).hexdigest()
    write(folder / WEIGHTS, data)
    write(folder / MODEL, json_bytes(_as_json(bundle, digest)))
    return digest


def load_bundle(folder: Path) -> Bundle:
    """Rebuild what `save_bundle` wrote, on the CPU and in evaluation mode.

    Raises ModelError when a file is missing, damaged, of another schema, or does not fit the architecture.
    """
    from saccade.models import rebuild

    values = _read_model(folder / MODEL)
    data = _read_weights(folder / WEIGHTS, values["weights_sha256"])
    tensors = tensors_from_bytes(data, where=str(folder / WEIGHTS))
    module = rebuild(dict(values["architecture"]))
    load_exactly(module, tensors, where=str(folder / WEIGHTS))
    module.eval()
    return Bundle(
        module=module,
        classes=tuple(values["classes"]),
        preprocess=Preprocess.from_json(values["preprocess"]),
        architecture=values["architecture"],
        answer=_answer_of(values),
        thresholds=values["thresholds"],
        data_fingerprint=values["data_fingerprint"],
        training=values["training"],
    )


def check_finite(module: nn.Module) -> None:
    """Raise TrainingError naming the parameters and BatchNorm statistics that hold NaN or infinite values."""
    statistics = ((name, values) for name, values in module.named_buffers() if name.endswith(STATISTICS))
    tensors: dict[str, Tensor] = dict(itertools.chain(module.named_parameters(), statistics))
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise TrainingError(
            f"the network holds values that are NaN or infinite, in {len(bad)} of {len(tensors)} tensors "
            f"({shortened(bad, 3)}), so it is not saved",
            hint=(
                "train again with a smaller learning rate, and with data.mean and data.std that fit the "
                "images"
            ),
        )


def weights_sha256(module: nn.Module) -> str:
    """A hash over every parameter and buffer with its name, type and shape; equal weights, equal hash."""
    return hash_tensors(module.state_dict())


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


# -- tensors as safetensors -----------------------------------------------------


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors as a safetensors file; each is copied out of shared or strided memory."""
    from safetensors.torch import save

    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    return save(plain)  # type: ignore[no-any-return]


def tensors_from_bytes(data: bytes, *, where: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises ModelError naming `where` for what is none."""
    try:
        return tensors_of(data)[0]
    except ValueError as error:
        raise ModelError(f"{where} is no sound safetensors file ({error})", hint=_REMAKE) from None


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy tensors into the module; raises ModelError unless names, shapes and types are exactly its own."""
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {tensors[name].dtype} {tuple(tensors[name].shape)}, not {o.dtype} {tuple(o.shape)}"
        for name, o in own.items()
        if name in tensors and (tensors[name].shape, tensors[name].dtype) != (o.shape, o.dtype)
    ]
    if problems:
        listed = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ModelError(
            f"{where} does not fit the network it names ({listed})",
            hint=f"{_REMAKE}",
        )
    module.load_state_dict(dict(tensors))


# -- model.json --------------------------------------------------------------------------------------

_REMAKE = "train or export the model again, or copy the folder again"


def _as_json(bundle: Bundle, digest: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION if bundle.answer.is_plain else ANSWER_SCHEMA_VERSION,
        "saccade_version": __version__,
        "architecture": dict(bundle.architecture),
        "classes": list(bundle.classes),
        "preprocess": bundle.preprocess.as_json(),
        **_answer_as_json(bundle.answer),
        "thresholds": dict(bundle.thresholds),
        "data_fingerprint": bundle.data_fingerprint,
        "weights_sha256": digest,
        "training": dict(bundle.training),
    }


# Version 1 is written wherever it can say all: earlier versions of saccade read it, and refuse version 2.
_ANSWER_KEYS: dict[int, dict[str, type | tuple[type, ...]]] = {
    SCHEMA_VERSION: {"temperature": (int, float)},
    ANSWER_SCHEMA_VERSION: {"answer": dict},
}


def _answer_as_json(answer: Answer) -> dict[str, Any]:
    return {"temperature": answer.temperatures[0]} if answer.is_plain else {"answer": answer.as_json()}


def _answer_of(values: Mapping[str, Any]) -> Answer:
    """The answer of a valid model.json of either version."""
    if values["schema_version"] == SCHEMA_VERSION:
        return Answer("softmax", (float(values["temperature"]),))
    return Answer.from_json(values["answer"])


def _read_model(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(read_text(path, errors="surrogateescape"))
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror})",
            hint="give the folder of a finished run",
        ) from None
    except ValueError as error:
        raise ModelError(
            f"{path} is damaged ({error})",
            hint=f"{_REMAKE}",
        ) from None
    if not isinstance(values, dict) or values.get("schema_version") not in _ANSWER_KEYS:
        found = values.get("schema_version") if isinstance(values, dict) else None
        raise ModelError(
            f"{path} has schema version {found!r}, this saccade ({__version__}) reads {SCHEMA_VERSION} "
            f"and {ANSWER_SCHEMA_VERSION}",
            hint="use the version of saccade that wrote it, or train again",
        )
    problem = _problem(values)
    if problem:
        raise ModelError(
            f"{path} is not valid ({problem})",
            hint=f"{_REMAKE}",
        )
    return values


def _problem(values: Mapping[str, Any]) -> str:
    """What is wrong with the values of model.json, or ""; the parts check themselves when they are built."""
    keys = {**_KEYS, **_ANSWER_KEYS[values["schema_version"]]}
    if values.keys() != keys.keys():
        return "missing or unknown keys: " + ", ".join(sorted(values.keys() ^ keys.keys()))
    odd = [key for key, kind in keys.items() if not isinstance(values[key], kind)]
    if odd:
        return "wrong type of " + ", ".join(odd)
    classes, outputs = values["classes"], values["architecture"].get("classes")
    if not all(isinstance(label, str) for label in classes) or len(set(classes)) != len(classes):
        return "class names must be different texts"
    if len(classes) != outputs:
        return f"{len(classes)} class names for a network with {outputs} outputs"
    try:
        _answer_of(values).check_classes(len(classes))
    except ModelError as error:
        return error.problem
    return ""


def _read_weights(path: Path, expected_sha256: str) -> bytes:
    try:
        data = read_file(path, max_bytes=MOST_WEIGHT_BYTES)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror})",
            hint=f"{_REMAKE}",
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != expected_sha256:
        raise ModelError(
            f"{path} is not the file that model.json describes (SHA-256 {found[:12]}, not "
            f"{str(expected_sha256)[:12]})",
            hint=f"{_REMAKE}",
        )
    return data


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
