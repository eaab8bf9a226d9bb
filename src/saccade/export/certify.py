"""Proof that an exported file predicts like the trained model, on real images; needs only the base install.

What the trained model said stands in `predictions/*.csv`; the file is asked again, from the images' bytes,
through the one decoder, by ONNX Runtime and, where it is installed, by OpenVINO.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import USUAL_THRESHOLD, Artefact, Image
from saccade.errors import ChangedImageError, DataError, ImageError, ModelError
from saccade.export.runtimes import (
    Answer,
    Probabilities,
    Runtime,
    Runtimes,
    instruction_set,
    provider_runtime,
    runtimes,
)
from saccade.export.verdict import Compared, Kind, judge
from saccade.files import MOST_WEIGHT_BYTES, files_below, read_file
from saccade.images.decoder import DEFAULT_LIMITS, Limits, decode
from saccade.records import Certificate, Predictions
from saccade.run_folder import FOLDER_CERTIFICATE
from saccade.terminal import Progress, silent
from saccade.threads import usable_cores

CERTIFIED_PARTS = ("validation", "test")
CHUNK_IMAGES = 32
BATCH_PROBES = 4  # images that are asked alone and as part of a batch
SCORE_PROBES = 8  # images whose unfamiliarity is compared
SMALLEST_SCORE = 0.1  # below it a difference counts as one of this: far from 1, where it decides


def certify(
    path: str | Path,
    predictions: Mapping[str, Predictions],
    read_image: Callable[[str], bytes],
    *,
    tolerance: float = 1e-3,
    max_drop: float = 0.01,
    max_images: int = 1000,
    kind: Kind = "float",
    limits: Limits = DEFAULT_LIMITS,
    load: Callable[[Path], Answer] | None = None,
    engines: Callable[[Path], Runtimes] | None = None,
    provider: str = "",
    thresholds: Mapping[str, float] | None = None,
    progress: Progress = silent,
) -> Certificate:
    """Compare a file's probabilities with the trained model's `predictions`, by part.

    At most `max_images` images are compared.

    Every runtime that is installed is asked, and the file passes where it passes in each. "float" passes
    when no probability differs by more than `tolerance` and every change of the first class is a tie within
    that. "int8" passes when validation accuracy falls by at most `max_drop`, on images enough to say so, and
    the answers stay close (`saccade.export.verdict`). Images that can no longer be read are named in `extra`.
    `load` reads what is no model.onnx of saccade (`Format.load`); it alone answers for that, or `engines`
    (`Format.engines`), each in a row of its own. `provider` is an execution provider of onnxruntime that must
    answer alike. `thresholds` are those of the model, by class, where an image may have several labels:
    agreement is then that of sets. `progress` is told how many images were compared.
    Raises ModelError when there is nothing to compare, or the file has other thresholds.
    """
    candidate = _loaded(Path(path), load, engines, limits) if load else _opened(Path(path), limits, provider)
    candidate.check_thresholds(thresholds)
    wanted = {part: predictions[part] for part in CERTIFIED_PARTS if part in predictions} or dict(predictions)
    chosen = chosen_images(wanted, max_images=max_images, kind=kind)
    compared, total, done = [], sum(len(rows) for rows in chosen.values()), 0
    for part, rows in chosen.items():
        columns = candidate.columns(wanted[part].classes)
        chunks = _watched(
            _decoded_rows(wanted[part], rows, read_image, candidate.limits), progress, done, total
        )
        done += len(rows)
        asked = _ask(candidate.runtimes, columns, part, wanted[part], chunks, total)
        compared.append([replace(one, limits=_limits(thresholds, wanted[part])) for one in asked])
    if not any(len(parts[0].rows) for parts in compared):
        raise ModelError(
            f"{path} cannot be certified: there is no readable validation or test image with predictions",
            hint="say where the images lie now with --data",
        )
    by_runtime = dict(zip(candidate.runtimes, zip(*compared, strict=True), strict=True))
    silent = [runtime for runtime, parts in by_runtime.items() if not any(len(part.rows) for part in parts)]
    not_run = {**candidate.not_run, **{runtime.name: "it read none of the images" for runtime in silent}}
    judged = {
        runtime: judge(parts, kind=kind, tolerance=tolerance, max_drop=max_drop, sha256=candidate.sha256)
        for runtime, parts in by_runtime.items()
        if runtime not in silent
    }
    return _joined([*judged.values()], [*judged], not_run)


def _limits(thresholds: Mapping[str, float] | None, predictions: Predictions) -> NDArray[np.float64] | None:
    """(classes,) the threshold of each class; None where an image has one label."""
    if predictions.named is None:
        return None
    return np.array([(thresholds or {}).get(name, USUAL_THRESHOLD) for name in predictions.classes])


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A file to certify, what runs it, and how its images are decoded; `classes` None where it names none."""

    name: str
    sha256: str
    classes: tuple[str, ...] | None
    limits: Limits
    runtimes: Sequence[Runtime]
    not_run: Mapping[str, str]
    thresholds: Mapping[str, float] | None = None

    def check_thresholds(self, expected: Mapping[str, float] | None) -> None:
        """Raise ModelError where the file has thresholds of its own and they are not these."""
        if self.thresholds is not None and dict(self.thresholds) != dict(expected or {}):
            raise ModelError(
                f"{self.name} names labels from other thresholds than the trained model",
                hint="export the model again",
            )

    def columns(self, classes: Sequence[str]) -> list[int]:
        """Column of each class in the file's probabilities; by name where the file has names."""
        named = self.classes or tuple(classes)
        if sorted(named) != sorted(classes):
            odd = sorted(set(named) ^ set(classes))
            raise ModelError(
                f"{self.name} and the predictions do not name the same classes: {', '.join(odd[:5])}",
                hint="certify it against the run that it was exported from",
            )
        position = {label: column for column, label in enumerate(named)}
        return [position[label] for label in classes]


def _opened(path: Path, limits: Limits, provider: str) -> _Candidate:
    """A model.onnx of saccade, whose images are decoded as at its destination."""
    artefact = Artefact.open(path, verify=False)  # this makes the certificate it would be checked against
    asked, not_run = runtimes(artefact, path)
    asked += [provider_runtime(artefact, path, provider)] if provider else []
    limits, limits_of_file = artefact.decoding(limits), artefact.thresholds
    named_from = dict(zip(artefact.classes, limits_of_file, strict=True)) if limits_of_file else None
    return _Candidate(artefact.name, artefact.sha256, artefact.classes, limits, asked, not_run, named_from)


def _loaded(
    path: Path,
    load: Callable[[Path], Answer],
    engines: Callable[[Path], Runtimes] | None,
    limits: Limits,
) -> _Candidate:
    """A file or folder of another format, asked in the ways that the format has."""
    digest = sha256_of_folder(path) if path.is_dir() else _sha256(path)
    name = path.suffix.lstrip(".") or path.name
    asked, not_run = engines(path) if engines else ([Runtime(name, "", load(path))], {})
    return _Candidate(path.name, digest, None, limits, asked, not_run)


def sha256_of_folder(folder: Path) -> str:
    """A hash over the names and hashes of its files, without the certificate, which cannot hold its own."""
    lines = [f"{name} {sha256}\n" for name, sha256 in file_hashes(folder).items()]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by name with forward slashes, without the certificate."""
    files = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
    return {name: _sha256(path) for name, path in files.items() if name != FOLDER_CERTIFICATE}


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_file(path, max_bytes=MOST_WEIGHT_BYTES)).hexdigest()


def chosen_images(
    predictions: Mapping[str, Predictions], *, max_images: int, kind: Kind
) -> dict[str, NDArray[np.int64]]:
    """Rows to compare, by part, evenly spread so that every class is seen.

    int8 is judged by validation accuracy, so validation comes first and test gets the rest; otherwise
    each part gets its share.
    """
    counts = {part: len(rows) for part, rows in predictions.items()}
    total = sum(counts.values())
    left, chosen = max_images, {}
    for part, count in counts.items():
        share = left if kind == "int8" else -(-max_images * count // max(1, total))
        taken = min(count, share, left)
        chosen[part] = np.arange(taken, dtype=np.int64) * count // max(1, taken)
        left -= taken
    return chosen


def _joined(
    certificates: Sequence[Certificate], asked: Sequence[Runtime], not_run: Mapping[str, str]
) -> Certificate:
    """The first runtime's certificate, with a row for each; it passes where all do."""
    first = certificates[0]
    rows = [_row(certificate, runtime) for certificate, runtime in zip(certificates, asked, strict=True)]
    problems = [
        problem if certificate is first else f"in {runtime.name}: {problem}"
        for certificate, runtime in zip(certificates, asked, strict=True)
        for problem in certificate.extra["problems"] * runtime.binding
    ]
    extra = {
        **first.extra,
        "problems": problems,
        "runtimes": rows,
        "runtimes_not_run": dict(not_run),
        "instruction_set": instruction_set(),
    }
    return replace(first, passed=not problems, extra=extra)


def _row(certificate: Certificate, runtime: Runtime) -> dict[str, Any]:
    return {
        "runtime": runtime.name,
        "version": runtime.version,
        "images": certificate.images,
        "top1_agreement": certificate.top1_agreement,
        "max_probability_difference": certificate.max_probability_difference,
        "accuracy_change": certificate.accuracy_change,
        "worst_image": certificate.extra["worst_image"],
        "unfamiliarity_difference": certificate.extra["unfamiliarity_difference"],
        "passed": certificate.passed,
        **({} if runtime.binding else {"binding": False}),
    }


# ── asking the file ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class _Read:
    """An image as its file holds it, and decoded."""

    content: bytes
    pixels: Image


def _ask(
    runtimes: Sequence[Runtime],
    columns: Sequence[int],
    part: str,
    predictions: Predictions,
    chunks: Iterable[Mapping[int, _Read | ImageError]],
    total: int,
) -> list[Compared]:
    """The probabilities of each runtime, `columns` in the order of `predictions.classes`.

    `total` is the number of images of all parts.
    """
    kept: list[list[int]] = [[] for _ in runtimes]
    answers: list[list[Probabilities]] = [[np.empty((0, len(columns)))] for _ in runtimes]
    differences: list[float] = []
    apart: list[float | None] = [None] * len(runtimes)
    unreadable: list[str] = []
    for chunk in chunks:
        good = {row: found for row, found in chunk.items() if isinstance(found, _Read)}
        unreadable += [f"{predictions.paths[row]}: {chunk[row]}" for row in chunk if row not in good]
        if good and not differences:  # the first that can be read tell
            differences = [_batch_difference(runtime, [*good.values()]) for runtime in runtimes]
            apart = _unfamiliarity_differences(runtimes, [*good.values()])
        for runtime, rows, found in zip(runtimes, kept, answers, strict=True):
            answered, probabilities = _answers(runtime, good, total)
            rows += answered
            found.append(probabilities[:, columns])
    return [
        Compared(
            part,
            predictions,
            np.array(rows, dtype=np.int64),
            np.concatenate(found),
            tuple(unreadable),
            difference,
            unfamiliarity_difference=of_score,
        )
        for rows, found, difference, of_score in zip(
            kept, answers, differences or [0.0] * len(runtimes), apart, strict=True
        )
    ]


def _answers(runtime: Runtime, images: Mapping[int, _Read], total: int) -> tuple[list[int], Probabilities]:
    """The rows that the runtime read, and its probabilities for them."""
    if not runtime.reads_files:
        return list(images), runtime.answer([image.pixels for image in images.values()])
    step = -(-total // runtime.most_images) if runtime.most_images else 1
    asked = list(images)[::step]
    answers = runtime.answer([images[row].content for row in asked])
    read = np.flatnonzero(~np.isnan(answers).any(axis=1))
    return [asked[place] for place in read], answers[read]


def _decoded_rows(
    predictions: Predictions,
    rows: NDArray[np.int64],
    read_image: Callable[[str], bytes],
    limits: Limits,
) -> Iterator[dict[int, _Read | ImageError]]:
    """The images of some rows at a time, by row: their pixels, or why there are none."""

    def decoded(row: int) -> _Read | ImageError:
        name = predictions.paths[row]
        try:
            content = read_image(name)
            return _Read(content, decode(content, limits=limits, name=name).pixels)
        except ChangedImageError as error:
            raise DataError(
                f"{name}: {error.reason}, so its stored prediction says nothing about the file",
                hint="put the image back, or say with --data where the images lie now",
            ) from None
        except ImageError as error:
            return error

    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(rows), CHUNK_IMAGES):
            chunk = rows[start : start + CHUNK_IMAGES].tolist()
            yield dict(zip(chunk, pool.map(decoded, chunk), strict=True))


def _watched(
    chunks: Iterable[dict[int, _Read | ImageError]], progress: Progress, done: int, total: int
) -> Iterator[dict[int, _Read | ImageError]]:
    """The chunks; once all runtimes have answered for one, `progress` is told, `done` images before it."""
    progress(done, total)
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        progress(done, total)


def _batch_difference(runtime: Runtime, images: Sequence[_Read]) -> float:
    """Largest difference between asking an image alone and between two others of its size."""
    differences = [0.0]
    for image in [] if runtime.reads_files else [image.pixels for image in images[:BATCH_PROBES]]:
        alone = runtime.answer([image])[0]
        inverse = np.iinfo(image.dtype).max - image
        among_others = runtime.answer([inverse, image, image[:, ::-1]])[1]
        differences.append(float(np.nan_to_num(abs(among_others - alone), nan=1.0).max()))
    return max(differences)


def _unfamiliarity_differences(runtimes: Sequence[Runtime], images: Sequence[_Read]) -> list[float | None]:
    """Of each runtime the largest difference of a score from the first's, as a share.

    None of the first, and where either gives no score. A few images tell: what an engine rounds otherwise, it
    does so in each.
    """
    asked = [image.pixels for image in images[:SCORE_PROBES]]
    first, *others = (runtime.unfamiliarity and runtime.unfamiliarity(asked) for runtime in runtimes)
    return [
        None,
        *(None if first is None or scores is None else _share_apart(first, scores) for scores in others),
    ]


def _share_apart(expected: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    apart = np.abs(scores - expected) / np.maximum(expected, SMALLEST_SCORE)
    return float(np.nan_to_num(apart, nan=1.0).max())
