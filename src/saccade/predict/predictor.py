"""Images in, ranked labels out, from one `model.onnx`; needs numpy, Pillow and onnxruntime, no torch.

Every image goes through the one decoder and, inside the file, the one preprocessing. An image that
cannot be used is named and the others go on; none is ever replaced by another.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import Artefact, Image, memory_limit
from saccade.deciding import NO_LIMITS, Deciding, is_unfamiliar
from saccade.errors import LEFT_OUT, DataError, ImageError, ModelError, TooLargeError
from saccade.images.decoder import DEFAULT_LIMITS, Limits
from saccade.label_sets import join_labels
from saccade.predict.inputs import Input, begun, held_bytes, inputs_of, pixels_of, taken
from saccade.priors import Given
from saccade.threads import usable_cores

SHOWN = 3  # names or reasons in a message
PIECE_IMAGES = 16
PIECE_PIXELS = 500_000  # predicted together, by one thread; more is no quicker and takes memory
PIECE_BYTES = 8_000_000  # of images that are given in memory
PIECES_AHEAD = 2  # for each thread
BYTES_A_PIXEL = 30  # of working memory; a photo of 50 megapixels was measured to take 1.3 GB


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model says about one input. `error` is "" for an image that could be used.

    `probabilities` is (classes,), in the order of `classes`. Where there is an error they are all zero,
    `predicted` is None, `confidence` is NaN and `top` is empty.

    Where an image may have several labels, `thresholds` (classes,) say from which probability on each is
    named. `labels` are those, `predicted` is them in one text (`cat,dog`, "" for none), and `confidence` is
    that in the least certain of all classes, named or not.

    `unfamiliarity` says how unlike the training images this one is, NaN where the model does not tell;
    `deciding` has the limits that the model came with.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    error: str = ""
    thresholds: tuple[float, ...] | None = None
    unfamiliarity: float = float("nan")
    deciding: Deciding = NO_LIMITS

    @property
    def labels(self) -> tuple[str, ...]:
        """What the image shows: the most probable class, or every class from its threshold on.

        >>> Answer("a.jpg", ("cat", "dog"), np.array([0.9, 0.7]), thresholds=(0.5, 0.6)).labels
        ('cat', 'dog')
        """
        if self.error:
            return ()
        if self.thresholds is None:
            return (self.top(1)[0][0],)
        found = zip(self.classes, self.probabilities, self.thresholds, strict=True)
        return tuple(name for name, probability, limit in found if probability >= limit)

    def top(self, count: int) -> tuple[tuple[str, float], ...]:
        """The `count` most probable classes with their probabilities; the first one wins a tie.

        >>> Answer("a.jpg", ("rose", "tulip"), np.array([0.2, 0.8])).top(1)
        (('tulip', 0.8),)
        """
        if self.error:
            return ()
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return tuple((self.classes[i], float(self.probabilities[i])) for i in order)

    @property
    def predicted(self) -> str | None:
        return (
            None if self.error else self.top(1)[0][0] if self.thresholds is None else join_labels(self.labels)
        )

    @property
    def confidence(self) -> float:
        if self.error:
            return float("nan")
        if self.thresholds is not None:
            return float(np.maximum(self.probabilities, 1 - self.probabilities).min())
        return float(self.probabilities.max())

    @property
    def abstained(self) -> bool:
        """Whether the confidence is below the model's threshold, so that rather a person should answer.

        >>> deciding = Deciding(least=(0.8, 0.8))
        >>> Answer("a.jpg", ("rose", "tulip"), np.array([0.4, 0.6]), deciding=deciding).abstained
        True
        """
        return not self.error and self.deciding.abstains(self.probabilities)

    @property
    def unfamiliar(self) -> bool | None:
        """Whether the image is unlike those of training (`unfamiliarity` above 1); None: not known."""
        return is_unfamiliar(self.unfamiliarity)

    @property
    def label_set(self) -> tuple[str, ...] | None:
        """Labels of which one is the true one, as often as the model was asked for (conformal prediction).

        It may be empty; None where the model has no such sets.
        """
        if self.error or not self.deciding.included:
            return None
        inside = self.deciding.in_set(self.probabilities)
        return tuple(name for name, there in zip(self.classes, inside, strict=True) if there)


See = Callable[[Answer, Image, int], None]  # an answer that is no error, its pixels, its position


class Predictor:
    """A model file, or a run folder's `export/model.onnx`, ready to predict.

    Images are paths, folders of images, uint8 arrays (height, width, 3) or gray (height, width), Pillow
    images, or the content of image files as bytes or open binary files; alone, in lists or in arrays. Raises
    ModelError when there is no model to use.

    model: path of the file or run folder. threads: for decoding and the engine; 0 is one for each core.
    limits: what one image may cost. engine_threads: that one image may use, 0 is `threads`; with 1, many
    images are quickest. priors: how common the classes are where the model is used, if not as in training:
    shares by class name ({"rose": 0.7}; the others share the rest), "uniform", "training", or a .csv or .json
    file.

    A pickle holds the path and the SHA-256 of the model file, not the model: unpickling opens the file again
    and raises ModelError when it is not there or has changed.

    >>> predictor = Predictor("model.onnx")
    >>> predictor.classes
    ('blue', 'green', 'red')
    """

    def __init__(
        self,
        model: str | Path,
        *,
        threads: int = 0,
        limits: Limits = DEFAULT_LIMITS,
        engine_threads: int = 0,
        priors: Given | None = None,
    ) -> None:
        file = model_file(Path(model))
        artefact = Artefact.open(file, threads=engine_threads or threads).with_priors(priors)
        self._begin(artefact, file, threads, limits, priors=priors)

    def _begin(
        self,
        artefact: Artefact,
        file: Path,
        threads: int,
        limits: Limits,
        data: bytes | None = None,
        priors: Given | None = None,
    ) -> None:
        self.artefact = artefact
        self.deciding = artefact.deciding
        self.priors = priors
        self._data = data  # None: it lies in the file
        self.file = file.absolute()  # found again after a change of folder
        self.limits = artefact.decoding(limits)
        self.asked_threads = threads
        self.threads = threads or usable_cores()
        self._room = _Room(memory_limit() // 2 // BYTES_A_PIXEL)

    @classmethod
    def of_bytes(
        cls, data: bytes, *, name: str, threads: int = 0, limits: Limits = DEFAULT_LIMITS
    ) -> Predictor:
        """A predictor of a model file's content; raises ModelError.

        data: the bytes of a `model.onnx`. name: what messages call it. threads, limits: as for the class.

        >>> Predictor.of_bytes(Path("model.onnx").read_bytes(), name="model").classes
        ('blue', 'green', 'red')
        """
        predictor = cls.__new__(cls)
        artefact = Artefact.open_bytes(data, name=name, threads=threads)
        predictor._begin(artefact, Path(name), threads, limits, data)
        return predictor

    def __reduce__(self) -> tuple[Any, ...]:
        if self._data is not None:
            return _of_bytes, (self._data, self.artefact.name, self.asked_threads, self.limits)
        shares = self.shares_by_name()
        return reopened, (self.file, self.artefact.sha256, self.asked_threads, self.limits, shares)

    def shares_by_name(self) -> dict[str, float] | None:
        """The priors that were given, with numbers in place of words and files."""
        if not self.priors:
            return None
        return dict(zip(self.classes, self.artefact.priors.read(self.priors, self.classes), strict=True))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.artefact.classes

    @overload
    def predict(self, images: Any, *, top_k: Literal[1] = 1) -> list[str]: ...
    @overload
    def predict(self, images: Any, *, top_k: int) -> list[str] | list[tuple[str, ...]]: ...
    def predict(self, images: Any, *, top_k: int = 1) -> list[str] | list[tuple[str, ...]]:
        """The most probable class of each image, or with `top_k` above 1 the `top_k` most probable ones.

        Of a model that names several labels, a tuple of those of each image, which may be empty.
        images: see the class. Raises DataError, naming them, when images cannot be used; `answers` goes on
        instead.

        >>> predictor.predict(["photos/red/0.png", np.full((8, 8, 3), (0, 0, 255), np.uint8)])
        ['red', 'blue']
        """
        answers = self._all(images)
        if self.artefact.multi_label and top_k == 1:
            return [answer.labels for answer in answers]
        if top_k == 1:
            return [answer.top(1)[0][0] for answer in answers]
        return [tuple(label for label, _ in answer.top(top_k)) for answer in answers]

    def predict_proba(self, images: Any) -> NDArray[np.float64]:
        """(images, classes) probabilities, columns in the order of `classes`; raises as `predict` does.

        >>> predictor.predict_proba("photos/red").shape
        (16, 3)
        """
        rows = [answer.probabilities for answer in self._all(images)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.classes))

    def answers(self, images: Any) -> Iterator[Answer]:
        """One answer for each image, in order, while later images are decoded; a bad image does not stop it.

        >>> [(answer.predicted, answer.error) for answer in predictor.answers(["photos/red/0.png"])]
        [('red', '')]
        >>> [(one.predicted, one.error.partition(".")[0]) for one in predictor.answers(["photos/none.png"])]
        [(None, 'there is no such file')]
        """
        return self.answers_to(inputs_of(images, pixels=self.limits.pixels))

    def answers_to(self, inputs: Iterable[Input]) -> Iterator[Answer]:
        """As `answers`, for `inputs`: what `inputs_of` made of the images."""
        for piece in self.answered_pieces(inputs):
            yield from piece

    def answered_pieces(
        self, inputs: Iterable[Input], *, first: int = 0, see: See | None = None
    ) -> Iterator[list[Answer]]:
        """As `answers_to`, in lists of a few answers; `inputs` is read only a little ahead.

        first: the position of the first input; one behind a piece's end gives the same answers again. see:
        called by the threads that predict, in any order, with each answer that is no error.
        """
        ahead: deque[Future[list[Answer]]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                safe = ((name, taken(content, self.limits)) for name, content in inputs)
                for position, piece in pieces(safe, first):
                    ahead.append(pool.submit(self.answered, piece, position, see))
                    if len(ahead) > PIECES_AHEAD * self.threads:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:  # nobody waits for these any more
                    future.cancel()

    def _all(self, images: Any) -> list[Answer]:
        answers = list(self.answers(images))
        failed = [answer for answer in answers if answer.error]
        if failed:
            raise DataError(
                f"{len(failed)} of {len(answers)} inputs failed: {_why(failed)}",
                hint="leave them out, or use `answers`, which goes on after a failure",
            )
        return answers

    def answered(self, inputs: Sequence[Input], first: int, see: See | None = None) -> list[Answer]:
        """The answers to one piece; images are decoded one by one and predicted as soon as they are many.

        inputs: name and content of each. first: the position of the first. `see` is told of each answer and
        its pixels.
        """
        nothing = np.zeros(len(self.classes))
        empty = Answer("", self.classes, nothing, "", self.artefact.thresholds, deciding=self.deciding)
        answers = [replace(empty, path=name) for name, _ in inputs]
        waiting: dict[int, Image] = {}
        pixels = 0
        for i, (name, content) in enumerate(begun(inputs)):
            found = pixels_of(name, content, self.limits)
            if isinstance(found, ImageError):
                answers[i] = replace(answers[i], error=str(found))
                continue
            waiting[i] = found
            pixels += found.shape[0] * found.shape[1]
            if pixels >= PIECE_PIXELS:
                self._predict(answers, waiting, pixels, first, see)
                waiting, pixels = {}, 0
        self._predict(answers, waiting, pixels, first, see)
        return answers

    def _predict(
        self, answers: list[Answer], images: Mapping[int, Image], pixels: int, first: int, see: See | None
    ) -> None:
        """Put the probabilities of `images` into the `answers` of their positions."""
        if not images:
            return
        try:
            with self._room.taken(pixels):
                rows = self.artefact.scores(list(images.values()))
        except TooLargeError as error:
            self._predict_alone(answers, images, first, see, error)
            return
        for (i, image), row, score in zip(images.items(), *rows, strict=True):
            answers[i] = replace(answers[i], probabilities=row, unfamiliarity=float(score))
            if see:
                see(answers[i], image, first + i)

    def _predict_alone(
        self,
        answers: list[Answer],
        images: Mapping[int, Image],
        first: int,
        see: See | None,
        error: TooLargeError,
    ) -> None:
        """One image is too large for the memory there is: it fails, the others do not."""
        if len(images) == 1:
            reason = ImageError(error.problem, "Scale it down to use it")
            answers[next(iter(images))] = replace(answers[next(iter(images))], error=str(reason))
            return
        for i, image in images.items():
            self._predict(answers, {i: image}, image.shape[0] * image.shape[1], first, see)


def pieces(inputs: Iterable[Input], first: int = 0) -> Iterator[tuple[int, list[Input]]]:
    """Runs of inputs with the position of the first: 1, 1, 2, 2, 4, 4 and so on up to PIECE_IMAGES.

    Small at first, so that the first answer comes soon and few images still keep every core busy. Position
    and content alone decide, so that the same inputs run in the same batches and get the same bits, also
    where a command goes on at a piece's end (`first`).

    >>> [len(piece) for _, piece in pieces([("a.jpg", "a.jpg")] * 40)]
    [1, 1, 2, 2, 4, 4, 8, 8, 10]
    """
    piece: list[Input] = []
    held = 0
    for name, content in inputs:
        piece.append((name, content))
        held += held_bytes(content)
        if len(piece) >= _piece_images(first) or held >= PIECE_BYTES:
            yield first, piece
            first, piece, held = first + len(piece), [], 0
    if piece:
        yield first, piece


def _piece_images(first: int) -> int:
    return min(PIECE_IMAGES, 1 << max(0, ((first + 2) // 2).bit_length() - 1))


class _Room:
    """Lets only so many pixels be predicted at a time: large photos together would exceed the limit."""

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until there is room; more than there is at all waits until all of it is free."""
        pixels = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


def _why(failed: Sequence[Answer]) -> str:
    """Names and reasons of the first few; what is wrong with several stands there once."""
    from saccade.sources.naming import some

    names: dict[str, list[str]] = {}
    for answer in failed:
        names.setdefault(answer.error.replace(LEFT_OUT, ". "), []).append(answer.path)
    reasons = [f"{some(of, most=SHOWN)}: {reason}" for reason, of in list(names.items())[:SHOWN]]
    more = f" (and {len(names) - SHOWN} more reasons)" if len(names) > SHOWN else ""
    return " | ".join(reasons) + more


def _of_bytes(data: bytes, name: str, threads: int, limits: Limits) -> Predictor:
    return Predictor.of_bytes(data, name=name, threads=threads, limits=limits)


def reopened(file: Path, sha256: str, threads: int, limits: Limits, priors: Given | None = None) -> Predictor:
    """What unpickling a Predictor does: the same file, opened by this process with the cores it may use."""
    predictor = Predictor(file, threads=threads, limits=limits, priors=priors)
    if predictor.artefact.sha256 != sha256:
        raise ModelError(
            f"{file} has changed since the Predictor was pickled (SHA-256 {predictor.artefact.sha256[:12]}, "
            f"not {sha256[:12]})",
            hint="load the model again",
        )
    return predictor


def model_file(model: Path) -> Path:
    """The `.onnx` file that `model` names: itself, or a run folder's own export."""
    if not os.path.isdir(model):  # also for a name that no file can have
        return model
    exported = model / "export" / "model.onnx"
    from saccade.run_folder import RunFolder

    run = RunFolder(model)
    if run.manifest.is_file():  # a folder that was copied in part may have none; the certificate still holds
        if run.has(exported):
            run.check(exported)
        if run.has(run.certificate()):
            run.check(run.certificate())
    if exported.is_file():
        return exported
    if run.recipe.is_file():
        if run.manifest.is_file():
            run.require_trained()
        raise ModelError(
            f"{model} has no export/model.onnx yet",
            hint=f"saccade export {model}",
        )
    raise ModelError(
        f"{model} is neither a run folder nor an .onnx file",
        hint="give a folder that `saccade train` made",
    )
