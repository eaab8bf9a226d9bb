"""A `model.onnx` written by saccade, opened safely and run; needs only numpy and onnxruntime.

The file is read once, as bytes. Before onnxruntime sees them, `onnx_file` refuses everything that could reach
outside the file or run without end. Memory is bounded, and what comes out is checked to be probabilities.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from saccade import run_limit
from saccade._version import __version__
from saccade.answer import Answer
from saccade.deciding import NEVER, NO_LIMITS, Deciding
from saccade.errors import ModelError, RecipeError, TooLargeError
from saccade.files import open_file, parse_json, read_file
from saccade.images.decoder import Limits
from saccade.onnx_file import inspect_model, refuse_start
from saccade.preprocess import PixelFormat, Preprocess
from saccade.priors import Given, Priors, reweighed
from saccade.threads import memory_bytes, usable_cores

if TYPE_CHECKING:
    import onnxruntime

SCHEMA = 1
INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"
UNFAMILIAR_NAME = "unfamiliar"  # a second output (batch, 1), where the file has it: above 1 is unfamiliar
CLASSES_KEY = "saccade.classes"
PREPROCESS_KEY = "saccade.preprocess"
VERSION_KEY = "saccade.version"
FINGERPRINT_KEY = "saccade.data_fingerprint"
SCHEMA_KEY = "saccade.schema"
BACKGROUND_KEY = "saccade.background"
GRAY_MAXIMUM_KEY = "saccade.gray_maximum"
ANSWER_KEY = "saccade.answer"  # where it is more than a softmax behind one temperature
PRIORS_KEY = "saccade.priors"  # class shares in training, and those that the probabilities assume
THRESHOLDS_KEY = "saccade.thresholds"  # from which probability on a class is named
USUAL_THRESHOLD = 0.5
WEIGHTS_KEY = "saccade.weights"  # where the pretrained weights came from
LICENCE_KEY = "saccade.licence"  # theirs
UNFAMILIAR_KEY = "saccade.unfamiliar"  # from which images the second output was made
REQUIRED_KEYS = (CLASSES_KEY, PREPROCESS_KEY, VERSION_KEY, FINGERPRINT_KEY)

MAX_MODEL_BYTES = 2**31 - 1  # a protobuf message cannot be longer
MAX_BATCH_IMAGES = 32
MAX_BATCH_PIXELS = 8_000_000  # 96 MB as float32 with three channels
KEPT_MEMORY_PIXELS = 4_000_000  # above this a run gives its working memory back
LEAST_MEMORY_LIMIT, MOST_MEMORY_LIMIT = 2_000_000_000, 8_000_000_000  # a 50 megapixel photo takes 1.3 GB
PROBABILITY_SLACK, SUM_SLACK = 1e-6, 1e-3  # of float32, over up to many thousand classes

L = TypeVar("L", bound=Limits)
Image = NDArray[Any]  # uint8 (height, width, 3), or what `Preprocess.pixels` says


class Scores(NamedTuple):
    """Of images: `probabilities` (images, classes), and `unfamiliarity` (images,), NaN where none is."""

    probabilities: NDArray[np.float64]
    unfamiliarity: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Artefact:
    """A model file that is ready to predict. `metadata` is decoded from its JSON strings.

    `name` says where the bytes came from, `sha256` is their hash. `ratio` (classes,) is what the file's
    probabilities are multiplied by, for other class shares; empty: they are as the file gives them.
    """

    name: str
    sha256: str
    metadata: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocess: Preprocess
    session: onnxruntime.InferenceSession
    ratio: tuple[float, ...] = ()

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
        _check_interface(session, len(classes), preprocess.pixels, name=name)
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

    @property
    def gray_maximum(self) -> int:
        """The value that means white in 16-bit grey images, as in training; 0: what the image's file says."""
        return int(self.metadata.get(GRAY_MAXIMUM_KEY, 0))

    @property
    def answer(self) -> Answer:
        """What the graph makes of the network's outputs, its temperature aside where that is all."""
        return Answer.from_json(self.metadata[ANSWER_KEY]) if ANSWER_KEY in self.metadata else Answer()

    @property
    def deciding(self) -> Deciding:
        """From which confidence on it answers, and what it takes into sets of labels.

        Nothing of that for other class shares than the file's, for which its limits were chosen.
        """
        return NO_LIMITS if self.of_other_shares else Deciding.of(self.metadata, self.classes)

    @property
    def of_other_shares(self) -> bool:
        """Whether it answers for other class shares than the file does by itself."""
        return bool(self.ratio) and not np.allclose(self.ratio, 1)

    @property
    def limits_left_out(self) -> str:
        """What to tell a user where limits of the file are not used, else ""."""
        if self.deciding == Deciding.of(self.metadata, self.classes):
            return ""
        return (
            f"the thresholds of {self.name} are for other class shares, so no answer is abstained and there "
            "are no label sets; `saccade export RUN --priors SHARES` chooses new ones"
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those of the graph that are asked for."""
        there = {value.name for value in self.session.get_outputs()}
        return (OUTPUT_NAME, *([UNFAMILIAR_NAME] if UNFAMILIAR_NAME in there else []))

    def decoding(self, limits: L) -> L:
        """`limits` with how images are decoded as in training, for this file's input."""
        return replace(
            limits,
            background=self.background,
            gray_maximum=self.gray_maximum,
            pixels=self.preprocess.pixels,
            any_bits=False,
        )

    @property
    def priors(self) -> Priors:
        """The class shares of training and those assumed; raises ModelError where the file does not say."""
        if PRIORS_KEY not in self.metadata:
            raise ModelError(
                f"{self.name} does not say how common the classes were in training, which --priors needs",
                hint="export the run again with this version of saccade",
            )
        return Priors.from_json(self.metadata[PRIORS_KEY], len(self.classes))

    def with_priors(self, given: Given | None) -> Artefact:
        """The same model for classes that are as common as `given` says (`priors.Priors.read`), if at all."""
        if not given:
            return self
        if self.answer.activation != "softmax":
            raise RecipeError(
                f"--priors are for one class an image, and {self.name} may name several",
                hint="leave --priors out",
            )
        return replace(self, ratio=self.priors.ratio_to(self.priors.read(given, self.classes)))

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several of the classes, or none: each probability stands for itself."""
        return self.answer.activation == "sigmoid"

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Of each class the probability from which on it is named; None where an image has one class."""
        if not self.multi_label:
            return None
        known = self.metadata.get(THRESHOLDS_KEY, {})
        return tuple(float(known.get(name, USUAL_THRESHOLD)) for name in self.classes)

    def probabilities(self, images: Sequence[Image]) -> NDArray[np.float64]:
        """(images, classes); each image uint8 (height, width, 3), RGB, upright, any size, or what
        `preprocess.pixels` says.

        Images of equal size run as one batch, bounded in images and pixels.
        """
        return self.scores(images).probabilities

    def scores(self, images: Sequence[Image]) -> Scores:
        """As `probabilities`, with how unlike the training images each image is, where the file says so."""
        for image in images:
            _check_image(image, self.preprocess.pixels)
        found = Scores(np.empty((len(images), len(self.classes))), np.full(len(images), np.nan))
        for positions in equal_sized_batches([image.shape[:2] for image in images]):
            scores = self._run(np.stack([images[i] for i in positions]))
            found.probabilities[positions], found.unfamiliarity[positions] = scores
        return found

    def _run(self, batch: NDArray[Any]) -> Scores:
        """Of one batch; raises ModelError where the file gives no probabilities."""
        options = _run_options(giving_memory_back=batch.size > 3 * KEPT_MEMORY_PIXELS)
        try:
            with run_limit.ended_in_time(options):
                answer, *more = self.session.run(self.outputs, {INPUT_NAME: batch}, options)
        except Exception as error:  # onnxruntime's own exceptions share no other base
            if _is_about_memory(error) and len(batch) > 1:
                half = len(batch) // 2
                halves = zip(self._run(batch[:half]), self._run(batch[half:]), strict=True)
                return Scores(*map(np.concatenate, halves))
            raise _no_answer(self.name, batch.shape, error) from None
        one_class = self.answer.activation == "softmax"
        problem = _problem_of(answer, (len(batch), len(self.classes)), one_class=one_class)
        if problem:
            raise ModelError(
                f"{self.name} does not give probabilities: {problem}",
                hint="do not use it; export the model again",
            )
        probabilities: NDArray[np.float64] = np.minimum(answer.astype(np.float64), 1)
        if self.ratio:
            probabilities = reweighed(probabilities, self.ratio)
        return Scores(probabilities, self._unfamiliarity(more, len(batch)))

    def _unfamiliarity(self, outputs: Sequence[NDArray[np.float32]], images: int) -> NDArray[np.float64]:
        if not outputs:
            return np.full(images, np.nan)
        found = outputs[0]
        if found.shape != (images, 1) or not np.isfinite(found).all() or found.min() < 0:
            raise ModelError(
                f"{self.name} gives no score of unfamiliar images: {UNFAMILIAR_NAME} is no number from 0 on",
                hint="do not use it; export the model again",
            )
        return found[:, 0].astype(np.float64)


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


def _is_about_memory(error: Exception) -> bool:
    words = ("Available memory of", "bad_alloc", "Failed to allocate memory", "bad allocation")
    return any(word in str(error) for word in words)


def _no_answer(name: str, shape: tuple[int, ...], error: Exception) -> ModelError:
    asked = f"{name} cannot predict {shape[0]} images of {shape[2]} x {shape[1]} pixels"
    if _is_about_memory(error):
        most = f"{memory_limit() / 1e9:.1f} GB"
        return TooLargeError(
            f"{asked}: it needs more than the {most} a model may use here", hint="scale the images down"
        )
    if "terminate flag" in str(error):
        return ModelError(
            f"{asked} within {run_limit.MOST_RUN_SECONDS:.0f} s",
            hint="scale the images down, or use a smaller model",
        )
    return ModelError(f"{asked} ({' '.join(str(error).split())[:200]})", hint="export the model again")


def _problem_of(answer: Any, shape: tuple[int, int], *, one_class: bool) -> str:
    """Why this array cannot be the probabilities of a batch, or ""; those of `one_class` sum to 1."""
    if getattr(answer, "shape", None) != shape:
        return f"an array of {getattr(answer, 'shape', 'no shape')} where {shape} was due"
    if not np.isfinite(answer).all():
        return "values that are NaN or infinite"
    if answer.min() < 0 or answer.max() > 1 + PROBABILITY_SLACK:
        return f"values from {answer.min():.3g} to {answer.max():.3g}, not between 0 and 1"
    sums = answer.sum(axis=1, dtype=np.float64)
    if one_class and np.abs(sums - 1).max() > SUM_SLACK:
        return f"a row that sums to {sums[np.abs(sums - 1).argmax()]:.3g}, not to 1"
    return ""


def read_model_bytes(path: Path, *, max_bytes: int = MAX_MODEL_BYTES) -> bytes:
    """The file's bytes, read once; raises ModelError when it is absent, no plain file, or too large."""
    try:
        with open_file(path) as file:
            refuse_start(file.read(64), name=str(path))
        return read_file(path, max_bytes=max_bytes)
    except FileNotFoundError:
        raise ModelError(
            f"model file does not exist: {path}",
            hint="check the path or run `saccade export RUN`",
        ) from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror})",
            hint="give a model.onnx or a run folder",
        ) from None


def memory_limit() -> int:
    """Bytes that all models opened here may use together; a hostile graph could ask for any amount."""
    return max(LEAST_MEMORY_LIMIT, min(MOST_MEMORY_LIMIT, memory_bytes() // 2))


@lru_cache(maxsize=1)
def _bound_memory() -> None:
    """Give onnxruntime one arena for this process, with an upper limit; sessions share it on request."""
    import onnxruntime

    kind, use = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    arena = onnxruntime.OrtArenaCfg(memory_limit(), -1, -1, -1)
    with contextlib.suppress(Exception):  # the program around us has made one already: that one is used
        onnxruntime.create_and_register_allocator(onnxruntime.OrtMemoryInfo("Cpu", kind, 0, use), arena)


def _start_session(data: bytes, *, name: str, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: its warnings mean nothing to a user
    options.enable_mem_pattern = False  # photos differ in size, so no plan would be used twice
    _bound_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # Folding constants is not bounded by the arena; the exporter has folded what there is.
        return onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )
    except Exception as error:  # onnxruntime's own exceptions share no other base
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{name} cannot be loaded by onnxruntime ({reason})",
            hint="export the model again",
        ) from None


def _run_options(*, giving_memory_back: bool) -> onnxruntime.RunOptions:
    """One large photo must not leave the process large for ever: 48 megapixels would keep 0.7 GB."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    if giving_memory_back:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _check_interface(
    session: onnxruntime.InferenceSession, classes: int, pixels: PixelFormat, *, name: str
) -> None:
    """Input and output must be the ones of the design, with one output column a class."""
    inputs = [(value.name, value.type, len(value.shape)) for value in session.get_inputs()]
    outputs = {value.name: value for value in session.get_outputs()}
    kind = pixels.dtype.name
    if inputs != [(INPUT_NAME, f"tensor({kind})", 4)] or not _is_float(outputs.get(OUTPUT_NAME)):
        raise ModelError(
            f"{name} does not take one {kind} {INPUT_NAME!r} and give {OUTPUT_NAME!r}",
            hint="export the model again: saccade did not write this file, or it was changed since",
        )
    if UNFAMILIAR_NAME in outputs and not _is_float(outputs[UNFAMILIAR_NAME]):
        raise ModelError(
            f"{name} gives {UNFAMILIAR_NAME!r} as something else than float32", hint="export the model again"
        )
    sides = [*session.get_inputs()[0].shape[:3], *outputs[OUTPUT_NAME].shape[:1]]
    if any(isinstance(side, int) for side in sides):
        raise ModelError(
            f"{name} takes only images of one size or batches of one size ({sides})",
            hint="export the model again",
        )
    if session.get_inputs()[0].shape[3] != pixels.count:
        raise ModelError(
            f"{name} takes {session.get_inputs()[0].shape[3]} channels where its metadata says {pixels}",
            hint="export the model again",
        )
    columns = outputs[OUTPUT_NAME].shape[-1] if len(outputs[OUTPUT_NAME].shape) == 2 else "no"
    if columns != classes:
        raise ModelError(
            f"{name} gives {columns} probabilities but names {classes} classes",
            hint="export the model again",
        )


def _is_float(output: Any) -> bool:
    return output is not None and output.type == "tensor(float)"


def _check_image(image: Image, pixels: PixelFormat) -> None:
    if image.dtype != pixels.dtype or image.ndim != 3 or image.shape[2] != pixels.count or 0 in image.shape:
        raise ModelError(
            f"an image must be {pixels.dtype} (height, width, {pixels.count}), got {image.dtype} "
            f"{image.shape}",
            hint="convert it to RGB with 0 to 255" if pixels.is_colour else f"convert it to {pixels}",
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
        certificate = parse_json(read_file(place))
        expected = certificate.get("sha256") or certificate.get("extra", {}).get("sha256")
        if "files" in certificate:  # of a folder that holds this file
            expected = certificate["files"].get(path.name)
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{place} cannot be read ({error})",
            hint=f"run `saccade certify {path} --against RUN` again",
        ) from None
    if expected and expected != sha256:
        raise ModelError(
            f"{path} is not the file that {place.name} was made for (its SHA-256 differs)",
            hint=f"run `saccade certify {path} --against RUN`, or export the model again",
        )


def _decoded_metadata(raw: Mapping[str, str], *, name: str) -> dict[str, Any]:
    """Metadata as values; raises ModelError when saccade's own keys are absent, broken or too new."""
    missing = [key for key in REQUIRED_KEYS if key not in raw]
    if missing:
        raise ModelError(
            f"{name} was not written by saccade: its metadata lacks {', '.join(missing)}",
            hint="write it with `saccade export RUN`",
        )
    values: dict[str, Any] = {}
    for key in (key for key in raw if key.startswith("saccade.")):
        try:
            values[key] = parse_json(raw[key])
        except ValueError:
            raise ModelError(
                f"{name}: its metadata {key} is not JSON",
                hint="export the model again",
            ) from None
    _check_versions(values, name=name)
    _check_classes(values[CLASSES_KEY], name=name)
    _check_background(values.get(BACKGROUND_KEY, [0, 0, 0]), name=name)
    _check_gray_maximum(values.get(GRAY_MAXIMUM_KEY, 0), name=name)
    _check_answer(values, name=name)
    if PRIORS_KEY in values:
        Priors.from_json(values[PRIORS_KEY], len(values[CLASSES_KEY]))
    _check_thresholds(values.get(THRESHOLDS_KEY, {}), name=name)
    _check_deciding(values, name=name)
    if not isinstance(values[PREPROCESS_KEY], dict):
        raise ModelError(
            f"{name}: its metadata {PREPROCESS_KEY} is no JSON object",
            hint="export the model again",
        )
    return values


def _check_versions(values: Mapping[str, Any], *, name: str) -> None:
    schema, version = values.get(SCHEMA_KEY, SCHEMA), str(values[VERSION_KEY])
    major = version.partition(".")[0][:20]  # Python refuses to read numbers of thousands of digits
    newer = major.isdecimal() and int(major) > int(__version__.partition(".")[0])
    if schema != SCHEMA or newer:
        wrote, schema = version[:20], str(schema)[:20]
        raise ModelError(
            f"{name} has schema version {schema} and was written by saccade {wrote}; this is saccade "
            f"{__version__}, which reads schema version {SCHEMA}",
            hint="export the model again with this version, or run: pip install --upgrade saccade",
        )


def _check_classes(classes: Any, *, name: str) -> None:
    names = classes if isinstance(classes, list) else []
    good = bool(names) and all(isinstance(entry, str) and entry and _is_writable(entry) for entry in names)
    if not good or len(set(names)) != len(names):
        raise ModelError(
            f"{name}: its class names must be different words, got {str(classes)[:80]}",
            hint="export the model again",
        )


def _is_writable(text: str) -> bool:
    """Whether it can be written to a file as a name can; not so halves of UTF-16 pairs."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _check_gray_maximum(value: Any, *, name: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise ModelError(
            f"{name}: its {GRAY_MAXIMUM_KEY} is no value of 16 bits, got {str(value)[:80]}",
            hint="export the model again",
        )


def _check_thresholds(values: Any, *, name: str) -> None:
    numbers = list(values.values()) if isinstance(values, dict) else [None]
    good = (isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= NEVER for v in numbers)
    if not all(good):
        raise ModelError(
            f"{name}: its {THRESHOLDS_KEY} are no numbers from 0 to {NEVER:g} by class, "
            f"got {str(values)[:80]}",
            hint="export the model again",
        )


def _check_deciding(values: Mapping[str, Any], *, name: str) -> None:
    try:
        Deciding.of(values, values[CLASSES_KEY])
    except ModelError as error:
        raise ModelError(f"{name}: its {error.problem}", hint="export the model again") from None


def _check_answer(values: Mapping[str, Any], *, name: str) -> None:
    try:
        answer = Answer.from_json(values.get(ANSWER_KEY, Answer().as_json()))
        answer.check_classes(len(values[CLASSES_KEY]))
    except ModelError as error:
        raise ModelError(
            f"{name}: its {ANSWER_KEY} is wrong: {error.problem}", hint="export the model again"
        ) from None


def _check_background(colour: Any, *, name: str) -> None:
    good = isinstance(colour, list) and len(colour) == 3
    if not good or not all(isinstance(value, int) and 0 <= value <= 255 for value in colour):
        raise ModelError(
            f"{name}: its {BACKGROUND_KEY} is no RGB colour, got {str(colour)[:80]}",
            hint="export the model again",
        )
