"""From a bundle to one file that gives the same answer everywhere, with the proof."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from saccade import extensions
from saccade.artefact import PRIORS_KEY, read_model_bytes
from saccade.errors import RecipeError, RunError
from saccade.export import certify as certifying
from saccade.export.formats import FORMATS, Format, find_format, load_onnx
from saccade.export.verdict import images_that_lack, lacks_images
from saccade.files import MOST_WEIGHT_BYTES, read_file
from saccade.images.decoder import CheckedReader, Limits, read_pixels
from saccade.images.plugins import decoder_versions
from saccade.onnx_file import inspect_model
from saccade.pipeline.evidence import check_export
from saccade.pipeline.export_place import beside, place_of, refuse_foreign
from saccade.pipeline.familiar import read_unfamiliar
from saccade.pipeline.file_facts import decides_alike, metadata_of, write_class_list
from saccade.pipeline.measuring import check_target
from saccade.pipeline.reevaluate import data_of
from saccade.pipeline.result import certificate_line
from saccade.pipeline.shares import PRIORS, Asked, asked_priors, shares_in
from saccade.pipeline.whole_files import sha256_of
from saccade.preprocess import Preprocess
from saccade.recipe import Recipe
from saccade.records import Certificate, Dataset, Predictions
from saccade.report.facts import read_facts
from saccade.report.model_card import model_card
from saccade.run_folder import (
    FOLDER_CERTIFICATE,
    RunFolder,
    certificate_beside,
    existing_run,
    json_bytes,
    read_json,
    write_bytes,
)
from saccade.terminal import Terminal

Known = Mapping[str, Certificate]
FLOAT_FOLDER = ".float"
HUGGING_FACE = "hf"  # its folder is what a repository on the Hub holds, with a card as README.md


def export_and_certify(run: RunFolder, dataset: Dataset, recipe: Recipe, terminal: Terminal) -> Certificate:
    """Write the run's own export/model.onnx where it is missing, and certify it."""
    if not run.has(run.onnx):
        _write(run, "onnx", run.onnx, dataset, terminal)
    if not run.has(run.class_list):
        write_class_list(run)
    check_export(run, dataset, recipe)
    return _certify(run, "onnx", run.onnx, dataset, recipe, terminal)


def export(
    run_path: str,
    terminal: Terminal,
    *,
    format: str = "onnx",
    short: Sequence[str] = (),
    out: str = "",
    data: str = "",
    priors: str = "",
    target: float = 0.0,
) -> Certificate:
    """`saccade export`: a certified file or folder in the format of that name; --int8 is `short` for one.

    `data` says where moved images lie now, `priors` for which class shares the file is to answer, and
    `target` which share of its answers must be right. Raises SaccadeError.
    """
    name = short[0] if short and format == "onnx" else format
    chosen = find_format(name)
    if any(other != name for other in short):
        flags = [f"--{other}" for other in short] + [f"--format {format}"] * (format != "onnx")
        raise RecipeError(f"{' and '.join(flags)} exclude each other", hint="give one of them")
    run = finished_run(run_path)
    recipe = run.read_recipe()
    check_target(target, recipe)
    asked = dataclasses.replace(asked_priors(run, priors), precision=target)
    place = place_of(run, chosen, out, asked)
    dataset = data_of(run, data)
    if lack := _lack(run, chosen):
        terminal.warn(lack, hint="train with more validation images, or ship the float model.onnx")
    terminal.say(f"Writing   {place}")
    with run.locked():
        if chosen.folder:
            certificate = _write_folder(run, name, place, dataset, recipe, terminal, asked)
        elif name == "onnx" and place.resolve() == run.onnx.resolve():
            certificate = _write_own(run, dataset, recipe, terminal)
        else:
            known = _write(run, name, place, dataset, terminal, asked)
            certificate = _certify(run, name, place, dataset, recipe, terminal, known, asked)
    terminal.say(certificate_line(certificate_as_json(certificate), place))
    return certificate


def _write_own(run: RunFolder, dataset: Dataset, recipe: Recipe, terminal: Terminal) -> Certificate:
    """The run's own export/model.onnx again, with its class list and its certificate."""
    _write(run, "onnx", run.onnx, dataset, terminal)
    write_class_list(run)
    check_export(run, dataset, recipe)
    return _certify(run, "onnx", run.onnx, dataset, recipe, terminal)


def certify(
    file: str, run_path: str, terminal: Terminal, *, data: str = "", provider: str = ""
) -> Certificate:
    """`saccade certify`: run the certificate again; works without torch.

    With a `provider` (of onnxruntime) the file must answer alike there, too. Where it does not, that is said,
    and the certificate of the file, which is not to blame, stays as it is.
    """
    run = finished_run(run_path)
    path = Path(file)
    with run.locked():
        parts = [path / name for name in certifying.file_hashes(path)] if path.is_dir() else [path]
        run.check(*filter(run.has, parts))  # else the certificate would be about what was not meant
        name = _stored_format(run, path)
        if provider and find_format(name).load is not load_onnx:
            raise RecipeError(
                f"--provider is of onnxruntime, which does not run {path}", hint="give an .onnx file"
            )
        asked = _asked_of(run, path)
        certificate = _certificate(
            run, name, path, data_of(run, data), run.read_recipe(), terminal, asked, provider=provider
        )
        if certificate.passed or not provider:
            run.write_certificate(certificate_as_json(certificate), path)
    terminal.say(certificate_line(certificate_as_json(certificate), path))
    return certificate


def finished_run(path: str) -> RunFolder:
    """The run folder at `path`; raises RunError when there is none, or none that is trained."""
    run = existing_run(path)
    run.require_trained()
    return run


def _asked_of(run: RunFolder, file: Path) -> Asked:
    """For which class shares an exported file answers, by its metadata or its certificate; else the run's."""
    shares: Any = None
    if file.suffix == ".onnx":
        metadata = inspect_model(read_model_bytes(file), name=str(file))
        shares = shares_in(metadata.get(PRIORS_KEY, ""), run)
    else:
        with contextlib.suppress(RunError):
            shares = read_json(run.certificate(file)).get(PRIORS)
    return asked_priors(run, shares or "")


def _write(
    run: RunFolder,
    name: str,
    target: Path,
    dataset: Dataset,
    terminal: Terminal,
    asked: Asked | None = None,
) -> Known:
    """Let the format write into a folder of its own, then put its one file in place whole."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / target.name
        known = _make(run, name, made, dataset, terminal, asked or asked_priors(run, ""))
        with extensions.blaming("formats", name):
            data = read_file(made, max_bytes=MOST_WEIGHT_BYTES)
        run.write(target, data)
    return known


def _write_folder(
    run: RunFolder,
    name: str,
    target: Path,
    dataset: Dataset,
    recipe: Recipe,
    terminal: Terminal,
    asked: Asked,
) -> Certificate:
    """Let the format write a folder beside `target`, certify it there, and put it in place whole."""
    refuse_foreign(target, name)
    with beside(target) as folder:
        made = folder / target.name
        _make(run, name, made, dataset, terminal, asked)
        if name == HUGGING_FACE and not asked.given:
            write_bytes(made / "README.md", model_card(read_facts(run), library="timm").encode())
        certificate = _certificate(run, name, made, dataset, recipe, terminal, asked)
        write_bytes(certificate_beside(made), json_bytes(certificate_as_json(certificate)))
        run.put_folder(made, target)
    return certificate


def _make(run: RunFolder, name: str, made: Path, dataset: Dataset, terminal: Terminal, asked: Asked) -> Known:
    """Let the format write the run's model at `made`; returns what a careful writer had certified."""
    from saccade.bundle import load_bundle

    chosen = find_format(name)
    run.check(run.model_json, run.weights)
    known: dict[str, Certificate] = {}

    def problems(path: Path) -> list[str]:
        certificate = _certificate(run, name, path, dataset, run.read_recipe(), terminal, asked)
        known[certificate.extra["sha256"]] = certificate
        # where the images lack, no choice of layers can help
        return [] if _lack(run, chosen) else _accuracy_problems(certificate, terminal)

    helps: dict[str, Callable[[], Any]] = {
        "decoding": lambda: metadata_of(run, asked),
        "unfamiliar": lambda: read_unfamiliar(run),
        "float_onnx": lambda: _float_onnx(run, dataset, terminal, made.parent, asked),
        "images": lambda: _calibration_images(run, dataset, run.read_recipe()),
        "problems": lambda: problems,
    }
    with terminal.progress(f"exporting {made.name}"):
        options = {key: help() for key, help in extensions.accepted(chosen.write, **helps).items()}
        with extensions.blaming("formats", name):
            bundle = load_bundle(run.bundle)
            chosen.write(dataclasses.replace(bundle, answer=asked.answer(bundle.answer)), made, **options)
    return known


def _lack(run: RunFolder, chosen: Format) -> str:
    """Why no file of this format could be certified on the images of the run, or ""."""
    max_drop = run.read_recipe().export.max_drop
    return images_that_lack(predictions_of(run), kind=chosen.kind, max_drop=max_drop)


def _accuracy_problems(certificate: Certificate, terminal: Terminal) -> list[str]:
    """Why the accuracy does not hold, where a more careful export may mend it."""
    problems = [problem for problem in certificate.extra["problems"] if not lacks_images(problem)]
    if problems:
        terminal.say(f"Guard     {problems[0]}; trying with the most sensitive layers in float")
    return problems


def _float_onnx(run: RunFolder, dataset: Dataset, terminal: Terminal, folder: Path, asked: Asked) -> Path:
    """The run's own model.onnx, written where it is missing or abstains by earlier figures.

    One in `folder` for other class shares or another precision.
    """
    if asked.otherwise:
        file = RunFolder(folder / FLOAT_FOLDER / run.root.resolve().name).onnx  # formats name it by its run
        file.parent.mkdir(parents=True, exist_ok=True)
        _make(run, "onnx", file, dataset, terminal, asked)
        return file
    if not run.has(run.onnx):
        _write(run, "onnx", run.onnx, dataset, terminal)
    run.check(run.onnx)
    if not decides_alike(run):
        terminal.say(f"Again     {run.onnx}: its figures were made for another precision since")
        _write_own(run, dataset, run.read_recipe(), terminal)
    return run.onnx


def _calibration_images(run: RunFolder, dataset: Dataset, recipe: Recipe) -> Iterator[NDArray[Any]]:
    """Training images, evenly chosen, as they are decoded."""
    records = dataset.used("train")
    chosen = records[:: -(-len(records) // recipe.export.calibration_images)]
    limits = _limits(run, recipe)
    return (read_pixels(dataset.storage, record, limits) for record in chosen)


def _limits(run: RunFolder, recipe: Recipe) -> Limits:
    """How the run's images are decoded."""
    preprocess = Preprocess.from_json(run.read_record().resolved["data.preprocess"])
    return Limits.of(recipe.data, preprocess.pixels)


def _certify(
    run: RunFolder,
    name: str,
    file: Path,
    dataset: Dataset,
    recipe: Recipe,
    terminal: Terminal,
    known: Known = MappingProxyType({}),
    asked: Asked | None = None,
) -> Certificate:
    """The certificate of a file, written; `known` ones, by the SHA-256 of the file, are not made again."""
    ready = known.get(sha256_of(file)) if known else None
    asked = asked or asked_priors(run, "")
    certificate = ready or _certificate(run, name, file, dataset, recipe, terminal, asked)
    run.write_certificate(certificate_as_json(certificate), file)
    return certificate


def _certificate(
    run: RunFolder,
    name: str,
    file: Path,
    dataset: Dataset,
    recipe: Recipe,
    terminal: Terminal,
    asked: Asked,
    *,
    provider: str = "",
) -> Certificate:
    chosen = find_format(name)
    own = name in FORMATS and chosen.load is load_onnx
    with (
        terminal.progress("certifying the exported file") as progress,
        extensions.blaming("formats", name),
    ):
        certificate = certifying.certify(
            file,
            {part: asked.applied(answers) for part, answers in predictions_of(run).items()},
            CheckedReader(dataset.storage, dataset.used()),
            tolerance=recipe.export.tolerance,
            max_drop=recipe.export.max_drop,
            max_images=recipe.export.certify_images,
            kind=chosen.kind,
            limits=_limits(run, recipe),
            load=None if own else chosen.load,
            engines=chosen.engines,
            provider=provider,
            thresholds=run.read_model()["thresholds"] or None,
            progress=progress,
        )
    extra = {**certificate.extra, "decoders": decoder_versions()}
    if asked.given:
        extra[PRIORS] = asked.by_name
    if not own:
        extra["format"] = name
    if chosen.folder:
        extra["files"] = certifying.file_hashes(file)
    return dataclasses.replace(certificate, extra=extra)


def certificate_as_json(certificate: Certificate) -> dict[str, Any]:
    """The content of certificate.json: the design's fields, then what else was found."""
    values = dataclasses.asdict(certificate)
    return {**values.pop("extra"), **values}


def predictions_of(run: RunFolder) -> dict[str, Predictions]:
    """The trained model's answers on validation and test; on training images where it has neither (folds)."""
    parts = [part for part in certifying.CERTIFIED_PARTS if run.has(run.predictions(part))]
    if not parts and run.has(run.predictions("train")):
        parts = ["train"]
    return {part: run.read_predictions(part) for part in parts}


def _stored_format(run: RunFolder, file: Path) -> str:
    """The name of the file's format, from an earlier certificate where that is whole, else from its name."""
    values: dict[str, Any] = {}
    with contextlib.suppress(RunError):
        values = read_json(run.certificate(file))
    if file.is_dir() and not isinstance(values.get("format"), str):
        raise RunError(
            f"{file} has no {FOLDER_CERTIFICATE} that says in which format it was written",
            hint=f"write it again: saccade export {run.root} --format NAME --out {file}",
        )
    named = next((kind for kind in ("int8", "fp16") if kind in file.name), "float")
    kind = str(values.get("kind", named))
    return str(values.get("format", kind if kind in FORMATS else "onnx"))
