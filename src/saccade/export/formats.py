"""The registry of export formats: our own by name, others by `saccade.extensions`.

From outside, register a `Format` with `saccade.extensions.register_format` or an entry point of the group
`saccade.formats`. `saccade.testing.check_format` checks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade import extensions
from saccade.artefact import LICENCE_KEY, THRESHOLDS_KEY, WEIGHTS_KEY, Artefact, Image
from saccade.errors import RecipeError
from saccade.export import huggingface, openvino_folder, split, triton, web
from saccade.export.blocks import Problems
from saccade.export.runtimes import Answer, Runtimes
from saccade.export.verdict import Kind

if TYPE_CHECKING:
    from saccade.bundle import Bundle
    from saccade.evaluation.unfamiliar import Unfamiliar


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file, or folder of files, that a trained model is exported to.

    `write(bundle, path)` writes one file, or with `folder` one folder, which does not exist yet. Where it
    has parameters of these names it gets more: `decoding` (metadata that says how images are decoded and
    when the model abstains), `float_onnx` (path of the run's own model.onnx), `unfamiliar` (how unlike the
    training images an image is, or None), `images` (training images to calibrate on, uint8 (height, width,
    3)) and `problems` (says of a path why what is written there would fail its certificate by its accuracy,
    or nothing; a writer may try again more carefully).

    `load(path)` gives a function from uint8 images (height, width, 3) of any sizes to probabilities
    (images, classes), in the order of the bundle's classes. `file_name` is the file's or folder's name in
    RUN/export. `engines(path)` gives all that run it, each a row of the certificate; none: `load` alone.
    `kind` says how it is certified: "float" repeats the trained model, "fp16" and "int8" are other models,
    which are judged by their validation accuracy.
    """

    write: Callable[..., Any]
    load: Callable[[Path], Answer]
    file_name: str
    kind: Kind = "float"
    folder: bool = False
    engines: Callable[[Path], Runtimes] | None = None

    @property
    def suffix(self) -> str:
        """What the name of a file ends in; "" for a folder, which may have any name."""
        return "" if self.folder else Path(self.file_name).suffix


def find_format(name: str) -> Format:
    """The format of that name. Raises RecipeError for a name that nobody offers."""
    found = FORMATS.get(name) or extensions.find("formats", name)
    if found is None:
        known = ", ".join([*FORMATS, *extensions.names("formats")])
        raise RecipeError(
            f"unknown export format: {name}",
            hint=f"choose from: {known}, such as: saccade export RUN --format onnx",
        )
    if not isinstance(found, Format):
        raise RecipeError(
            f"export format {name} is no saccade.export.formats.Format: {found!r}", hint="correct the package"
        )
    return found


def load_onnx(path: Path) -> Answer:
    """How saccade's own files are read."""
    return Artefact.open(path).probabilities


def _write_onnx(
    bundle: Bundle, path: Path, *, decoding: Mapping[str, Any], unfamiliar: Unfamiliar | None = None
) -> None:
    from saccade.export.onnx import write_onnx

    weights = bundle.training.get("weights")
    origin = {WEIGHTS_KEY: weights, LICENCE_KEY: weights["licence"]} if weights else {}
    limits = {THRESHOLDS_KEY: dict(bundle.thresholds)} if bundle.thresholds else {}
    write_onnx(bundle, path, extra={**decoding, **origin, **limits}, unfamiliar=unfamiliar)


def _write_int8(
    bundle: Bundle,
    path: Path,
    *,
    float_onnx: Path,
    images: Iterable[Image],
    problems: Problems = lambda path: (),
) -> None:
    from saccade.export.quantize import quantize

    quantize(float_onnx, path, images, problems=problems)


def _write_fp16(
    bundle: Bundle,
    path: Path,
    *,
    float_onnx: Path,
    images: Iterable[Image],
    problems: Problems = lambda path: (),
) -> None:
    from saccade.export.half import write_half

    write_half(float_onnx, path, images, problems=problems)


# name -> format; each passes `saccade.testing.check_format`.
FORMATS = {
    "onnx": Format(_write_onnx, load_onnx, "model.onnx"),
    "int8": Format(_write_int8, load_onnx, "model.int8.onnx", kind="int8"),
    "fp16": Format(_write_fp16, load_onnx, "model.fp16.onnx", kind="fp16"),
    "triton": Format(triton.write_triton, triton.load_triton, "triton", folder=True, engines=triton.engines),
    "openvino": Format(
        openvino_folder.write_openvino,
        openvino_folder.load_openvino,
        "openvino",
        folder=True,
        engines=openvino_folder.engines,
    ),
    "split": Format(split.write_split, split.load_split, "split", folder=True, engines=split.engines),
    "hf": Format(huggingface.write_hf, huggingface.load_hf, "hf", folder=True, engines=huggingface.engines),
    "web": Format(web.write_web, web.load_web, "web", folder=True, engines=web.engines),
}
