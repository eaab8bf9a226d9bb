"""A `model.onnx` written by saccade, opened safely and run; needs only numpy and onnxruntime.

The file is read once, as bytes. Before onnxruntime sees them, the bytes are walked as protobuf and
everything that could reach outside the file (external data, custom operators, functions) is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade._version import __version__
from saccade.errors import ModelError
from saccade.preprocess import Preprocess
from saccade.threads import usable_cores

if TYPE_CHECKING:
    import onnxruntime

SCHEMA = 1
INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"
CLASSES_KEY = "saccade.classes"
PREPROCESS_KEY = "saccade.preprocess"
VERSION_KEY = "saccade.version"
FINGERPRINT_KEY = "saccade.data_fingerprint"
SCHEMA_KEY = "saccade.schema"
BACKGROUND_KEY = "saccade.background"
REQUIRED_KEYS = (CLASSES_KEY, PREPROCESS_KEY, VERSION_KEY, FINGERPRINT_KEY)

MAX_MODEL_BYTES = 2**31 - 1  # a protobuf message cannot be longer
OPSETS = range(18, 25)
MAX_BATCH_IMAGES = 32
MAX_BATCH_PIXELS = 8_000_000  # 96 MB as float32 with three channels
KEPT_MEMORY_PIXELS = 4_000_000  # above this a run gives its working memory back

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Artefact:
    """A model file that is ready to answer. `metadata` is decoded from its JSON strings.

    `name` says where the bytes came from, `sha256` is their hash.
    """

    name: str
    sha256: str
    metadata: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocess: Preprocess
    session: onnxruntime.InferenceSession

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        threads: int = 0,
        max_bytes: int = MAX_MODEL_BYTES,
        verify: bool = True,
    ) -> Artefact:
        """Load `path`; raises ModelError for anything that is not a complete, self-contained saccade model.

        `threads` 0 means every core this process may use. With `verify` the file must be the one that its
        certificate was made for, where a certificate lies beside it.
        """
        path = Path(path)
        data = read_model_bytes(path, max_bytes=max_bytes)
        if verify:
            _check_certificate(path, hashlib.sha256(data).hexdigest())
        return cls.open_bytes(data, name=str(path), threads=threads)

    @classmethod
    def open_bytes(cls, data: bytes, *, name: str, threads: int = 0) -> Artefact:
        """Load a model from its bytes; `name` is what messages call it."""
        metadata = _decoded_metadata(inspect_model(data, name=name), name=name)
        classes = tuple(metadata[CLASSES_KEY])
        preprocess = Preprocess.from_json(metadata[PREPROCESS_KEY])
        session = _start_session(data, name=name, threads=threads or usable_cores())
        _check_interface(session, len(classes), name=name)
        return cls(name, hashlib.sha256(data).hexdigest(), metadata, classes, preprocess, session)

    @property
    def version(self) -> str:
        """The saccade that wrote the file."""
        return str(self.metadata[VERSION_KEY])

    @property
    def fingerprint(self) -> str:
        """Hash of the data the model was trained on."""
        return str(self.metadata[FINGERPRINT_KEY])

    @property
    def background(self) -> tuple[int, int, int]:
        """Colour under transparent pixels, as in training; white where the file does not say."""
        red, green, blue = self.metadata.get(BACKGROUND_KEY, (255, 255, 255))
        return int(red), int(green), int(blue)

    def probabilities(self, images: Sequence[Image]) -> NDArray[np.float64]:
        """(images, classes); each image uint8 (height, width, 3), RGB, upright, any size.

        Images of equal size run as one batch, bounded in images and pixels.
        """
        for image in images:
            _check_image(image)
        answers = np.empty((len(images), len(self.classes)), dtype=np.float64)
        for positions in equal_sized_batches([image.shape[:2] for image in images]):
            batch = np.stack([images[i] for i in positions])
            options = _giving_memory_back() if batch.size > 3 * KEPT_MEMORY_PIXELS else None
            answers[positions] = self.session.run([OUTPUT_NAME], {INPUT_NAME: batch}, options)[0]
        return answers


def equal_sized_batches(
    sizes: Sequence[tuple[int, ...]],
    *,
    max_images: int = MAX_BATCH_IMAGES,
    max_pixels: int = MAX_BATCH_PIXELS,
) -> Iterator[list[int]]:
    """Positions of images that can run together; an image above `max_pixels` runs alone."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, size in enumerate(sizes):
        by_size[size].append(position)
    for size, positions in by_size.items():
        count = max(1, min(max_images, max_pixels // max(1, int(np.prod(size)))))
        for start in range(0, len(positions), count):
            yield positions[start : start + count]


def read_model_bytes(path: Path, *, max_bytes: int = MAX_MODEL_BYTES) -> bytes:
    """The file's bytes, read once; raises ModelError when it is absent, no plain file, or too large."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never ends
                raise ModelError(f"{path} is not a plain file; give a model.onnx or a run folder")
            if status.st_size > max_bytes:
                raise ModelError(
                    f"{path} has {status.st_size:,} bytes, more than the {max_bytes:,} that a model "
                    "file may have; export a smaller model"
                )
            return file.read()
    except FileNotFoundError:
        raise ModelError(
            f"there is no model file {path}; check the path or run `saccade export RUN`"
        ) from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}); check the path and its permissions"
        ) from None


def _start_session(data: bytes, *, name: str, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: its warnings mean nothing to a user
    options.enable_mem_pattern = False  # photos differ in size, so no plan would be used twice
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no other base
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{name} cannot be loaded by onnxruntime ({reason}); export the model again"
        ) from None


def _giving_memory_back() -> onnxruntime.RunOptions:
    """One large photo must not leave the process large for ever: 48 megapixels would keep 0.7 GB."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _check_interface(session: onnxruntime.InferenceSession, classes: int, *, name: str) -> None:
    """Input and output must be the ones of the design, with one output column a class."""
    inputs = [(value.name, value.type, len(value.shape)) for value in session.get_inputs()]
    outputs = {value.name: value.shape for value in session.get_outputs()}
    if inputs != [(INPUT_NAME, "tensor(uint8)", 4)] or OUTPUT_NAME not in outputs:
        raise ModelError(
            f"{name} does not take one uint8 {INPUT_NAME!r} and give {OUTPUT_NAME!r}; "
            "it was not written by saccade, or was changed since: export the model again"
        )
    columns = outputs[OUTPUT_NAME][-1]
    if columns != classes:
        raise ModelError(
            f"{name} gives {columns} probabilities but names {classes} classes; export the model again"
        )


def _check_image(image: Image) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ModelError(
            f"an image must be uint8 (height, width, 3), got {image.dtype} {image.shape}; "
            "convert it to RGB with 0 to 255"
        )


def certificate_path(model: Path) -> Path:
    """Where the certificate of `model` lies: beside it; `certificate.json` in a run's export folder."""
    if model.name == "model.onnx" and (model.parent / "certificate.json").exists():
        return model.parent / "certificate.json"
    return model.with_name(f"{model.name}.certificate.json")


def _check_certificate(path: Path, sha256: str) -> None:
    """Refuse a file that was changed after it was certified; a file without certificate is let through."""
    place = certificate_path(path)
    try:
        certificate = json.loads(place.read_text("utf-8"))
        expected = certificate.get("sha256") or certificate.get("extra", {}).get("sha256")
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{place} cannot be read ({error}); run `saccade certify {path} --against RUN` again"
        ) from None
    if expected and expected != sha256:
        raise ModelError(
            f"{path} is not the file that {place.name} was made for (its SHA-256 differs); "
            f"run `saccade certify {path} --against RUN`, or export the model again"
        )


def _decoded_metadata(raw: Mapping[str, str], *, name: str) -> dict[str, Any]:
    """Metadata as values; raises ModelError when saccade's own keys are absent, broken or too new."""
    missing = [key for key in REQUIRED_KEYS if key not in raw]
    if missing:
        raise ModelError(
            f"{name} was not written by saccade: its metadata lacks {', '.join(missing)}; "
            "write it with `saccade export RUN`"
        )
    values: dict[str, Any] = {}
    for key in (key for key in raw if key.startswith("saccade.")):
        try:
            values[key] = json.loads(raw[key])
        except (ValueError, RecursionError):
            raise ModelError(f"{name}: its metadata {key} is not JSON; export the model again") from None
    _check_versions(values, name=name)
    _check_classes(values[CLASSES_KEY], name=name)
    _check_background(values.get(BACKGROUND_KEY, [0, 0, 0]), name=name)
    if not isinstance(values[PREPROCESS_KEY], dict):
        raise ModelError(f"{name}: its metadata {PREPROCESS_KEY} is no JSON object; export the model again")
    return values


def _check_versions(values: Mapping[str, Any], *, name: str) -> None:
    schema, version = values.get(SCHEMA_KEY, SCHEMA), str(values[VERSION_KEY])
    major = version.partition(".")[0]
    newer = major.isdecimal() and int(major) > int(__version__.partition(".")[0])
    if schema != SCHEMA or newer:
        raise ModelError(
            f"{name} has schema version {schema} and was written by saccade {version}; this is saccade "
            f"{__version__}, which reads schema version {SCHEMA}: export the model again with this one, "
            "or do: pip install --upgrade saccade"
        )


def _check_classes(classes: Any, *, name: str) -> None:
    names = classes if isinstance(classes, list) else []
    good = bool(names) and all(isinstance(entry, str) and entry for entry in names)
    if not good or len(set(names)) != len(names):
        raise ModelError(
            f"{name}: its class names must be different words, got {str(classes)[:80]}; export again"
        )


def _check_background(colour: Any, *, name: str) -> None:
    good = isinstance(colour, list) and len(colour) == 3
    if not good or not all(isinstance(value, int) and 0 <= value <= 255 for value in colour):
        raise ModelError(
            f"{name}: its {BACKGROUND_KEY} is no RGB colour, got {str(colour)[:80]}; export again"
        )


# ── the walk over the bytes ──────────────────────────────────────────────────────────────────────────
# Field numbers of onnx.proto3; only what can hold something refused, and the metadata, is entered.
# https://protobuf.dev/programming-guides/encoding and https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3

_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSETS, _MODEL_METADATA = 1, 7, 8, 14
_MODEL_TRAINING, _MODEL_FUNCTIONS = 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_STANDARD_DOMAINS = ("", "ai.onnx")
_MAX_GRAPH_DEPTH = 8
_MAX_FIELDS = 1_000_000  # ten times a large model; a hostile file of tiny fields is left after a second

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
        raise ModelError(
            f"{name} is not an ONNX file, or is cut short; give a model.onnx that saccade wrote"
        ) from None
    except _Refused as refused:
        raise ModelError(
            f"{name} is refused: it {refused}; use a single file written by `saccade export`"
        ) from None


class _Walk:
    """Enters every graph of a model once, counting fields as it goes."""

    def __init__(self) -> None:
        self.fields_seen = 0

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
        for number, value in self.fields(view):
            if number == _NODE_DOMAIN and _text(value) not in _STANDARD_DOMAINS:
                raise _Refused(f"uses operators of the domain {_text(value)!r}")
            if number == _NODE_ATTRIBUTE:
                self.attribute(_message(value), depth=depth)

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

    def tensor(self, view: memoryview) -> None:
        for number, value in self.fields(view):
            if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
                raise _Refused("keeps weights in another file (external data)")

    def fields(self, view: memoryview) -> Iterator[_Field]:
        """(field number, value) of one message; nested messages and strings stay unread memory."""
        position, end = 0, len(view)
        while position < end:
            self.fields_seen += 1
            if self.fields_seen > _MAX_FIELDS:
                raise _Refused(f"has more than {_MAX_FIELDS:,} fields")
            tag, position = _varint(view, position)
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
    """Seven bits a byte, lowest first; the top bit says that another byte follows."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            break
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _NotProtobuf


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _NotProtobuf
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode("utf-8")
    except UnicodeDecodeError:
        raise _NotProtobuf from None
