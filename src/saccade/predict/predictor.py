"""Images in, ranked labels out, from one `model.onnx`; needs numpy, Pillow and onnxruntime, no torch.

Every image goes through the one decoder and, inside the file, the one preprocessing. An image that
cannot be used is named and the others go on; none is ever replaced by another.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import MAX_BATCH_IMAGES, MAX_BATCH_PIXELS, Artefact, Image
from saccade.errors import LEFT_OUT, DataError, ImageError, ModelError, SourceError
from saccade.images import given
from saccade.images.decoder import DEFAULT_LIMITS, Limits, decode
from saccade.threads import usable_cores

if TYPE_CHECKING:
    from saccade.sources.listing import Listing

SHOWN = 3  # names or reasons in a message


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model says about one input. `error` is "" for an image that could be used.

    `probabilities` is (classes,), in the order of `classes`; all zero where there is an error.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    error: str = ""

    def top(self, count: int) -> tuple[tuple[str, float], ...]:
        """The `count` most probable classes with their probabilities; the first one wins a tie.

        >>> Answer("a.jpg", ("rose", "tulip"), np.array([0.2, 0.8])).top(1)
        (('tulip', 0.8),)
        """
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return tuple((self.classes[i], float(self.probabilities[i])) for i in order)

    @property
    def predicted(self) -> str:
        return self.top(1)[0][0]

    @property
    def confidence(self) -> float:
        return float(self.probabilities.max())


See = Callable[[Answer, Image], None]


class Predictor:
    """A model file, or a run folder's `export/model.onnx`, ready to predict.

    Images are paths, folders of images, uint8 arrays (height, width, 3) or gray (height, width), Pillow
    images, or the content of image files as bytes or open binary files; alone, in lists or in arrays. Raises
    ModelError when there is no model to use.

    model: path of the file or run folder. threads: for decoding and the engine; 0 is one for each core.
    limits: what one image may cost.

    A pickle holds the path and the SHA-256 of the model file, not the model: unpickling opens the file again
    and raises ModelError when it is not there or has changed.

    >>> predictor = Predictor("model.onnx")
    >>> predictor.classes
    ('blue', 'green', 'red')
    """

    def __init__(self, model: str | Path, *, threads: int = 0, limits: Limits = DEFAULT_LIMITS) -> None:
        file = model_file(Path(model))
        self._begin(Artefact.open(file, threads=threads), file, threads, limits)

    def _begin(
        self, artefact: Artefact, file: Path, threads: int, limits: Limits, data: bytes | None = None
    ) -> None:
        self.artefact = artefact
        self._data = data  # None: it lies in the file
        self.file = file.absolute()  # found again after a change of folder
        self.limits = replace(limits, background=artefact.background, gray_maximum=artefact.gray_maximum)
        self.asked_threads = threads
        self.threads = threads or usable_cores()

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
        return _reopened, (self.file, self.artefact.sha256, self.asked_threads, self.limits)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.artefact.classes

    @overload
    def predict(self, images: Any, *, top_k: Literal[1] = 1) -> list[str]: ...
    @overload
    def predict(self, images: Any, *, top_k: int) -> list[str] | list[tuple[str, ...]]: ...
    def predict(self, images: Any, *, top_k: int = 1) -> list[str] | list[tuple[str, ...]]:
        """The most probable class of each image, or with `top_k` above 1 the `top_k` most probable ones.

        images: see the class. Raises DataError, naming them, when images cannot be used; `answers` goes on
        instead.

        >>> predictor.predict(["photos/red/0.png", np.full((8, 8, 3), (0, 0, 255), np.uint8)])
        ['red', 'blue']
        """
        answers = self._all(images)
        if top_k == 1:
            return [answer.predicted for answer in answers]
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

        >>> [(answer.predicted, answer.error[:20]) for answer in predictor.answers(["photos/red/0.png"])]
        [('red', '')]
        >>> [answer.error.partition(".")[0] for answer in predictor.answers(["photos/none.png"])]
        ['there is no such file']
        """
        return self.answers_to(inputs_of(images))

    def answers_to(self, inputs: Iterable[Input], *, see: See | None = None) -> Iterator[Answer]:
        """As `answers`, for `inputs`: what `inputs_of` made of the images.

        see: called with each answer that is no error, and its pixels.
        """
        waiting: list[tuple[str, Image | ImageError]] = []
        pixels = 0
        for name, found in self._decoded(inputs):
            waiting.append((name, found))
            pixels += 0 if isinstance(found, ImageError) else found.shape[0] * found.shape[1]
            if len(waiting) >= MAX_BATCH_IMAGES or pixels >= MAX_BATCH_PIXELS:
                yield from self._answered(waiting, see)
                waiting, pixels = [], 0
        yield from self._answered(waiting, see)

    def _all(self, images: Any) -> list[Answer]:
        answers = list(self.answers(images))
        failed = [answer for answer in answers if answer.error]
        if failed:
            raise DataError(
                f"{len(failed)} of {len(answers)} inputs failed: {_why(failed)}",
                hint="leave them out, or use `answers`, which goes on after a failure",
            )
        return answers

    def _decoded(self, inputs: Iterable[Input]) -> Iterator[tuple[str, Image | ImageError]]:
        """Inputs in order, decoded by threads a few images ahead (Pillow lets other threads run)."""
        ahead: deque[tuple[str, Future[Image | ImageError]]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            for name, content in inputs:
                ahead.append((name, pool.submit(pixels_of, name, _taken(content, self.limits), self.limits)))
                if len(ahead) > 2 * self.threads:
                    first, future = ahead.popleft()
                    yield first, future.result()
            for first, future in ahead:
                yield first, future.result()

    def _answered(
        self, decoded: Sequence[tuple[str, Image | ImageError]], see: See | None
    ) -> Iterator[Answer]:
        good = [found for _, found in decoded if not isinstance(found, ImageError)]
        probabilities = iter(self.artefact.probabilities(good))
        nothing = np.zeros(len(self.classes))
        for name, found in decoded:
            if isinstance(found, ImageError):
                yield Answer(name, self.classes, nothing, str(found))
                continue
            answer = Answer(name, self.classes, next(probabilities))
            if see:
                see(answer, found)
            yield answer


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


def _reopened(file: Path, sha256: str, threads: int, limits: Limits) -> Predictor:
    """What unpickling a Predictor does: the same file, opened by this process with the cores it may use."""
    predictor = Predictor(file, threads=threads, limits=limits)
    if predictor.artefact.sha256 != sha256:
        raise ModelError(
            f"{file} has changed since the Predictor was pickled (SHA-256 {predictor.artefact.sha256[:12]}, "
            f"not {sha256[:12]})",
            hint="load the model again",
        )
    return predictor


def model_file(model: Path) -> Path:
    """The `.onnx` file that `model` names: itself, or a run folder's own export."""
    if not model.is_dir():
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
    if (model / "recipe.toml").is_file():
        raise ModelError(
            f"{model} has no export/model.onnx yet",
            hint=f"saccade export {model}",
        )
    raise ModelError(
        f"{model} is neither a run folder nor an .onnx file",
        hint="give a folder that `saccade train` made",
    )


# ── what can be given ────────────────────────────────────────────────────────────────────────────────

Content = str | ImageError | Any
Input = tuple[str, Content]  # (name, path | array | Pillow image | bytes | open file | why not)


def inputs_of(images: Any, *, listings: dict[str, Listing] | None = None) -> Iterator[Input]:
    """Every single image of what was given, with a name: its path, or `image 3` by position.

    `listings` receives what was found in each folder.
    """
    several = _several(images)
    for position, image in enumerate([images] if several is None else several):
        if isinstance(image, str | os.PathLike):
            yield from _paths(os.fsdecode(image), {} if listings is None else listings)
        else:
            yield f"image {position}", image


def _several(images: Any) -> Iterable[Any] | None:
    """What to go through one by one; None for a single image."""
    if isinstance(images, np.ndarray):
        if images.dtype.kind in "OSU" or images.shape == (0,):  # names, or images of different sizes
            return list(images.ravel().tolist())
        return images if images.ndim == 4 or _gray_stack(images) else None
    single = isinstance(images, str | os.PathLike) or given.is_encoded(images)
    return None if single or not isinstance(images, Iterable) else images


def _gray_stack(images: NDArray[Any]) -> bool:
    """(images, height, width), where it can be nothing else: neither RGB nor planes of colour."""
    return images.ndim == 3 and images.shape[2] not in (1, 3, 4) and images.shape[0] not in (1, 3, 4)


def _paths(path: str, listings: dict[str, Listing]) -> Iterator[Input]:
    """The path itself, or every image below it where it is a folder; hidden ones are passed over."""
    from saccade.sources.listing import list_folder

    if not os.path.isdir(path):
        yield path, path
        return
    try:
        listings[path] = list_folder(Path(path))
    except SourceError as error:
        yield path, ImageError(error.problem, "Allow it with: chmod u+rx FOLDER")
        return
    if not listings[path].files:
        yield path, ImageError("a folder without images", "Give a folder that holds some")
    for file in listings[path].files:
        inside = os.path.join(path, file)
        yield inside, inside


def pixels_of(name: str, content: Content, limits: Limits) -> Image | ImageError:
    """uint8 (height, width, 3), or why there are none; never raises for what an image holds."""
    try:
        if isinstance(content, ImageError):
            return content
        if isinstance(content, str):
            return decode(read_file(content, limits), limits=limits, name=name).pixels
        return given.pixels(given.take(content, limits), limits)
    except ImageError as error:
        return error


def _taken(content: Content, limits: Limits) -> Content:
    """The content, safe to be decoded by another thread while the caller goes on."""
    try:
        return given.take(content, limits)
    except ImageError as error:
        return error


def read_file(path: str, limits: Limits) -> bytes:
    """The file's bytes; raises ImageError when it is not there, not a file, or too large."""
    from saccade.sources.storage import FolderStorage

    if not os.path.lexists(path):
        raise ImageError("there is no such file", "Check the path")
    return FolderStorage(Path(), max_bytes=limits.max_bytes, outside=True).read(path)
