"""Proof that an exported file answers like the trained model, on real images; needs only the base install.

What the trained model said stands in `predictions/*.csv`; the file is asked again, from the images' bytes,
through the one decoder. https://onnxruntime.ai runs it, as it would at its destination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import Artefact, Image
from saccade.data.images import DEFAULT_LIMITS, Limits, decode
from saccade.errors import ChangedImageError, DataError, ImageError, ModelError
from saccade.records import Certificate, Predictions
from saccade.threads import usable_cores

CERTIFIED_PARTS = ("validation", "test")
CHUNK_IMAGES = 32
BATCH_PROBES = 4  # images that are asked alone and as part of a batch

Kind = Literal["float", "int8"]
Probabilities = NDArray[np.float64]


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
) -> Certificate:
    """Compare the file's answers with the trained model's `predictions`, by part, on up to `max_images`.

    "float" passes when no probability differs by more than `tolerance` and every change of the first class
    is a tie within that; "int8" when validation accuracy falls by at most `max_drop`. Images that can no
    longer be read are named in `extra`. Raises ModelError when there is nothing to compare, DataError for an
    image that is not the one that was measured.
    """
    artefact = Artefact.open(path, verify=False)  # this makes the certificate it would be checked against
    limits = replace(  # as at its destination
        limits, background=artefact.background, gray_maximum=artefact.gray_maximum
    )
    wanted = {part: predictions[part] for part in CERTIFIED_PARTS if part in predictions}
    chosen = chosen_images(wanted, max_images=max_images, kind=kind)
    parts = [_ask(artefact, part, wanted[part], rows, read_image, limits) for part, rows in chosen.items()]
    if not any(len(part.rows) for part in parts):
        raise ModelError(
            f"{path} cannot be certified: there is no readable validation or test image with predictions; "
            "say where the images lie now with --data"
        )
    return judge(parts, kind=kind, tolerance=tolerance, max_drop=max_drop, sha256=artefact.sha256)


@dataclass(frozen=True, eq=False)
class Compared:
    """One part: what the trained model said and what the file says, (images, classes) each."""

    part: str
    predictions: Predictions
    rows: NDArray[np.int64]
    answers: Probabilities
    unreadable: tuple[str, ...] = ()
    batch_difference: float = 0.0

    @property
    def expected(self) -> Probabilities:
        chosen: Probabilities = self.predictions.probabilities[self.rows]
        return chosen

    @property
    def differences(self) -> NDArray[np.float64]:
        """(images,) largest difference of a probability; 1 where the file's answer is not a number."""
        gaps = np.nan_to_num(np.abs(self.answers - self.expected), nan=1.0)
        largest: NDArray[np.float64] = gaps.max(axis=1, initial=0.0)
        return largest

    def accuracy(self, probabilities: Probabilities) -> float | None:
        """Share of the labelled images whose first class is the true one; None without labels."""
        right = [
            self.predictions.classes[column] == self.predictions.labels[row]
            for row, column in zip(self.rows, probabilities.argmax(axis=1), strict=True)
            if self.predictions.labels[row]
        ]
        return float(np.mean(right)) if right else None


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


def judge(
    parts: Sequence[Compared], *, kind: Kind, tolerance: float, max_drop: float, sha256: str
) -> Certificate:
    """The verdict over all compared images; pure arithmetic."""
    figures = _agreement(parts)
    accuracies = _validation_accuracy(parts)
    if kind == "int8" and accuracies is None:
        raise ModelError(
            "an int8 file is judged by validation accuracy, and there are no labelled validation images; "
            "train with a validation part"
        )
    before, after = accuracies or (None, None)
    change = accuracies[1] - accuracies[0] if accuracies else 0.0
    if kind == "int8":
        passed = change >= -max_drop - 1e-12  # a drop of whole images, not of the last bit
    else:
        passed = figures.largest_difference <= tolerance and figures.largest_tie <= tolerance
    return Certificate(
        kind=kind,
        images=figures.images,
        top1_agreement=1 - figures.changes / figures.images,
        max_probability_difference=figures.largest_difference,
        accuracy_change=change,
        tolerance=max_drop if kind == "int8" else tolerance,
        passed=passed,
        extra={
            "sha256": sha256,
            "validation_accuracy_before": before,
            "validation_accuracy_after": after,
            "worst_image": figures.worst_image,
            "first_class_changes": figures.changes,
            "largest_tie": figures.largest_tie,
            "batch_difference": max(part.batch_difference for part in parts),
            "images_by_part": {part.part: len(part.rows) for part in parts},
            "unreadable": [name for part in parts for name in part.unreadable],
        },
    )


@dataclass(frozen=True, slots=True)
class _Agreement:
    """`changes` counts images whose first class changed; `largest_tie` is by how much the trained model
    preferred the class that the file did not, at most.
    """

    images: int
    largest_difference: float
    worst_image: str
    changes: int
    largest_tie: float


def _agreement(parts: Sequence[Compared]) -> _Agreement:
    differences = np.concatenate([part.differences for part in parts])
    expected = np.concatenate([part.expected for part in parts])
    answered = np.concatenate([part.answers for part in parts]).argmax(axis=1)
    first = expected.argmax(axis=1)
    rows = np.arange(len(first))
    paths = [part.predictions.paths[row] for part in parts for row in part.rows]
    return _Agreement(
        images=len(first),
        largest_difference=max(float(differences.max()), *(part.batch_difference for part in parts)),
        worst_image=paths[int(differences.argmax())],
        changes=int((first != answered).sum()),
        largest_tie=float((expected[rows, first] - expected[rows, answered]).max()),
    )


def _validation_accuracy(parts: Sequence[Compared]) -> tuple[float, float] | None:
    """Of the trained model and of the file, on the labelled validation images compared."""
    for part in parts:
        before, after = part.accuracy(part.expected), part.accuracy(part.answers)
        if part.part == "validation" and before is not None and after is not None:
            return before, after
    return None


# ── asking the file ──────────────────────────────────────────────────────────────────────────────────


def _ask(
    artefact: Artefact,
    part: str,
    predictions: Predictions,
    rows: NDArray[np.int64],
    read_image: Callable[[str], bytes],
    limits: Limits,
) -> Compared:
    """The file's answers for `rows`, columns in the order of `predictions.classes`."""
    columns = _columns(artefact, predictions.classes)
    kept: list[int] = []
    answers: list[Probabilities] = [np.empty((0, len(columns)))]
    unreadable: list[str] = []
    batch_difference = 0.0
    for chunk in _decoded_rows(predictions, rows, read_image, limits):
        good = {row: found for row, found in chunk.items() if not isinstance(found, ImageError)}
        unreadable += [f"{predictions.paths[row]}: {chunk[row]}" for row in chunk if row not in good]
        if not kept:
            batch_difference = _batch_difference(artefact, list(good.values())[:BATCH_PROBES])
        kept += good
        answers.append(artefact.probabilities(list(good.values()))[:, columns])
    return Compared(
        part=part,
        predictions=predictions,
        rows=np.array(kept, dtype=np.int64),
        answers=np.concatenate(answers),
        unreadable=tuple(unreadable),
        batch_difference=batch_difference,
    )


def _decoded_rows(
    predictions: Predictions,
    rows: NDArray[np.int64],
    read_image: Callable[[str], bytes],
    limits: Limits,
) -> Iterator[dict[int, Image | ImageError]]:
    """The images of some rows at a time, by row: their pixels, or why there are none."""

    def decoded(row: int) -> Image | ImageError:
        name = predictions.paths[row]
        try:
            return decode(read_image(name), limits=limits, name=name).pixels
        except ChangedImageError as error:
            raise DataError(
                f"{name}: {error.reason}, so the trained model's answer on it says nothing about the file; "
                "put the image back, or say with --data where the images lie now"
            ) from None
        except ImageError as error:
            return error

    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(rows), CHUNK_IMAGES):
            chunk = rows[start : start + CHUNK_IMAGES].tolist()
            yield dict(zip(chunk, pool.map(decoded, chunk), strict=True))


def _batch_difference(artefact: Artefact, images: Sequence[Image]) -> float:
    """Largest difference between asking an image alone and between two others of its size."""
    differences = [0.0]
    for image in images:
        alone = artefact.probabilities([image])[0]
        among_others = artefact.probabilities([255 - image, image, image[:, ::-1]])[1]
        differences.append(float(np.nan_to_num(abs(among_others - alone), nan=1.0).max()))
    return max(differences)


def _columns(artefact: Artefact, classes: Sequence[str]) -> list[int]:
    """Position of each class in the file's answers; by name, never by order."""
    if sorted(artefact.classes) != sorted(classes):
        odd = sorted(set(artefact.classes) ^ set(classes))
        raise ModelError(
            f"{artefact.name} and the predictions do not name the same classes ({', '.join(odd[:5])}); "
            "certify it against the run that it was exported from"
        )
    position = {label: column for column, label in enumerate(artefact.classes)}
    return [position[label] for label in classes]
