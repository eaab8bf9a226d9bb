"""What can run a trained model here: torch, ONNX Runtime, OpenVINO, and what is known of their answers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import Artefact, Image, read_model_bytes
from saccade.errors import ModelError
from saccade.export.runtimes import openvino_runtime
from saccade.imports import import_openvino
from saccade.preprocess import RGB, PixelFormat, Preprocess
from saccade.run_folder import RunFolder, certificate_beside, read_json

Library = Literal["torch", "ONNX Runtime", "OpenVINO"]
Answer = Callable[[Sequence[Image]], Any]

DEFAULT_SHAPE = (375, 500)  # height and width of a common small photo
TORCH: Library = "torch"
FILES = ("model.onnx", "model.fp16.onnx", "model.int8.onnx")
FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class Engine:
    """A library with a file that it runs (for torch: a run folder), and how good its answers are.

    `agreement` is the share of `images` whose first class is the trained model's, `accuracy` that on
    `accuracy_images` validation images; None where nobody measured it.
    """

    library: Library
    precision: str
    file: Path
    agreement: float | None = None
    images: int = 0
    accuracy: float | None = None
    accuracy_images: int = 0
    passed: bool = True

    @property
    def name(self) -> str:
        return f"{self.library}{' eager' if self.library == TORCH else ''} {self.precision}"

    @property
    def megabytes(self) -> float:
        """Of the model's file."""
        file = RunFolder(self.file).weights if self.library == TORCH else self.file
        return file.stat().st_size / 1e6

    @property
    def pixels(self) -> PixelFormat:
        """What its images hold."""
        exported = RunFolder(self.file).onnx if self.library == TORCH else self.file
        if exported.is_file():
            return Artefact.open(exported).preprocess.pixels
        return Preprocess.from_json(RunFolder(self.file).read_model()["preprocess"]).pixels

    def open(self, threads: int) -> Answer:
        """What answers images with this many threads; raises ModelError where the file is no model."""
        if self.library == TORCH:
            return _torch(RunFolder(self.file), threads)
        artefact = Artefact.open(self.file, threads=threads)
        if self.library == "ONNX Runtime":
            return artefact.probabilities
        model = import_openvino().Core().read_model(read_model_bytes(self.file))
        return openvino_runtime(model, len(artefact.classes), threads=threads).answer


def engines_of(model: Path) -> list[Engine]:
    """Every engine at hand for a run folder or an .onnx file, the trained network itself first.

    Raises ModelError where there is none.
    """
    run = RunFolder(model)
    if model.is_dir():
        engines = list(_trained(run))
        folder, first = run.onnx.parent, ""
    else:
        engines, folder, first = [], model.parent, model.name
    names = dict.fromkeys([*filter(None, [first]), *FILES])
    for file in (folder / name for name in names):
        if file.is_file() or file.name == first:
            engines += _of_file(file, run)
    if not engines and run.recipe.is_file():
        run.require_trained()
    if not engines:
        raise ModelError(f"{model} has nothing to measure", hint="give a run folder or an .onnx file")
    return engines


def photo(shape: tuple[int, int] = DEFAULT_SHAPE, pixels: PixelFormat = RGB) -> Image:
    """The picture that every engine is timed on: (height, width, channels) of noise."""
    most = pixels.largest + 1
    return np.random.default_rng(0).integers(0, most, (*shape, pixels.count), dtype=pixels.dtype)


def _trained(run: RunFolder) -> Iterator[Engine]:
    if importlib.util.find_spec("torch") is None or not run.has(run.model_json):
        return
    accuracy, images = _accuracy_of_run(run)
    yield Engine(TORCH, FLOAT32, run.root, 1.0, images, accuracy, images)


def _of_file(file: Path, run: RunFolder) -> Iterator[Engine]:
    kind = Artefact.open(file).metadata.get("saccade.quantization", {}).get("kind", FLOAT32)
    certificate = _certificate(file, run)
    rows = {row["runtime"]: row for row in certificate.get("runtimes", [])}
    installed = importlib.util.find_spec("openvino") is not None
    libraries: list[Library] = ["ONNX Runtime", *(["OpenVINO"] if installed else [])]  # type: ignore[list-item]
    for library in libraries:
        row = rows.get(library, {})
        before, change = certificate.get("validation_accuracy_before"), row.get("accuracy_change")
        measured = before is not None and change is not None
        yield Engine(
            library,
            kind,
            file,
            row.get("top1_agreement"),
            int(row.get("images", 0)),
            before + change if measured else certificate.get("validation_accuracy_after"),
            int(certificate.get("images_by_part", {}).get("validation", 0)),
            bool(row.get("passed", True)),
        )


def _certificate(path: Path, run: RunFolder) -> Mapping[str, Any]:
    """What was certified about the file; nothing where it never was."""
    for place in (run.certificate(path), certificate_beside(path), path.parent / "certificate.json"):
        if place.is_file() and (place.name != "certificate.json" or path.name == "model.onnx"):
            values: Mapping[str, Any] = read_json(place)
            return {**values, **values.get("extra", {})}
    return {}


def _accuracy_of_run(run: RunFolder) -> tuple[float | None, int]:
    if not run.has(run.predictions("validation")):
        return None, 0
    predictions = run.read_predictions("validation")
    right = [a == b for a, b in zip(predictions.predicted, predictions.labels, strict=True)]
    return float(np.mean(right)), len(right)


def _torch(run: RunFolder, threads: int) -> Answer:
    """The run's bundle as torch runs it, one operation at a time."""
    import torch

    from saccade.bundle import load_bundle
    from saccade.transforms.apply import to_input

    bundle = load_bundle(run.bundle)
    network = bundle.module.eval()

    def answer(images: Sequence[Image]) -> NDArray[np.float32]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                inputs = torch.stack([to_input(image, bundle.preprocess) for image in images])
                logits = network(inputs).numpy()
            return bundle.answer.probabilities(logits).astype(np.float32)
        finally:
            torch.set_num_threads(before)

    return answer
