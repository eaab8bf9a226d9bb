"""A prediction that a cluster carries out: the same pieces of inputs, so the same bits.

The workers open the model file by the path it has here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saccade.errors import ImageError, RecipeError
from saccade.images.decoder import Limits
from saccade.part_files import Cluster, Job, Packed, map_chunks
from saccade.predict.inputs import Content, Input
from saccade.predict.predictor import Answer, Predictor, pieces, reopened
from saccade.sources.storage import Stored
from saccade.workers import carefully

CHUNK_IMAGES = 128


class Inputs(NamedTuple):
    """A piece: some inputs that go through the model together, and the position of the first."""

    first: int
    inputs: tuple[Input, ...]


def answered_by(
    cluster: Cluster, predictor: Predictor, inputs: Iterable[Input], *, first: int
) -> Iterator[list[Answer]]:
    """As `Predictor.answered_pieces`; raises EngineError, and RecipeError for an image in memory."""
    opening = _Opening(
        predictor.file, predictor.artefact.sha256, predictor.limits, predictor.shares_by_name()
    )
    here = ((name, _reachable(name, content)) for name, content in inputs)
    job = Job(
        partial(_answering, opening),
        _pack,
        partial(_unpack, _blank(predictor)),
        partial(_crashed, opening, predictor.classes),
        partial(_key, opening, os.urandom(8).hex()),
    )
    for _, answers in map_chunks(cluster, job, _chunks(here, first)):
        yield answers


def _reachable(name: str, content: Content) -> Content:
    """What a worker can read by itself."""
    if isinstance(content, str):
        return os.path.abspath(content)
    if isinstance(content, Stored | ImageError):
        return content
    raise RecipeError(
        f"--engine ray reads images where they lie, and {name} lies in memory",
        hint="give a file, or leave --engine out",
    )


def _chunks(inputs: Iterable[Input], first: int) -> Iterator[list[Inputs]]:
    """Pieces in chunks that begin at fixed positions, also where a command goes on from its journal."""
    chunk: list[Inputs] = []
    for position, piece in pieces(inputs, first):
        if chunk and position // CHUNK_IMAGES != chunk[0].first // CHUNK_IMAGES:
            yield chunk
            chunk = []
        chunk.append(Inputs(position, tuple(piece)))
    if chunk:
        yield chunk


class _Opening(NamedTuple):
    """How a worker opens the model."""

    file: Path
    sha256: str
    limits: Limits
    priors: dict[str, float] | None

    def predictor(self) -> Predictor:
        """With one core, as where many images are predicted on one machine."""
        return reopened(self.file, self.sha256, 1, self.limits, self.priors)


def _answering(opening: _Opening) -> partial[list[Answer]]:
    return partial(_answers, opening.predictor())


def _answers(predictor: Predictor, chunk: Sequence[Inputs]) -> list[Answer]:
    return [answer for piece in chunk for answer in predictor.answered(piece.inputs, piece.first)]


def _crashed(opening: _Opening, classes: tuple[str, ...], piece: Inputs) -> list[Answer]:
    """A piece that kills its process: each of its inputs in a piece of its own."""
    if len(piece.inputs) == 1:
        error = ImageError("the decoder crashed on it", "Re-export it to use it")
        return [Answer(piece.inputs[0][0], classes, np.zeros(len(classes)), str(error))]
    alone = [Inputs(piece.first + i, (one,)) for i, one in enumerate(piece.inputs)]
    function = partial(_afresh, opening)
    on_crash = partial(_crashed, opening, classes)
    return [answer for _, some in carefully(function, alone, on_crash) for answer in some]


def _afresh(opening: _Opening, chunk: Sequence[Inputs]) -> list[Answer]:
    return _answers(opening.predictor(), chunk)


def _key(opening: _Opening, this_command: str, chunk: Sequence[Inputs]) -> list[Any]:
    """What is no file may have changed when the next command comes."""
    shares = list((opening.priors or {}).items())
    stamped = [
        [name, content, *_stamp(content)] if isinstance(content, str) else [name, this_command]
        for piece in chunk
        for name, content in piece.inputs
    ]
    lengths = [len(piece.inputs) for piece in chunk]
    return ["predict", opening.sha256, str(opening.limits), shares, chunk[0].first, lengths, stamped]


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _pack(answers: list[Answer]) -> Packed:
    rows = [np.append(answer.probabilities, answer.unfamiliarity) for answer in answers]
    return [[answer.path, answer.error] for answer in answers], np.array(rows, np.float64).tobytes()


def _blank(predictor: Predictor) -> Answer:
    nothing = np.zeros(len(predictor.classes))
    thresholds = predictor.artefact.thresholds
    return Answer("", predictor.classes, nothing, "", thresholds, deciding=predictor.deciding)


def _unpack(blank: Answer, values: Any, data: bytes) -> list[Answer]:
    rows = np.frombuffer(data, np.float64).reshape(len(values), -1)
    return [
        replace(blank, path=path, error=error, probabilities=row[:-1], unfamiliarity=float(row[-1]))
        for (path, error), row in zip(values, rows, strict=True)
    ]
