"""Images to answers in worker threads, behind a bounded queue.

Each worker takes one image through the decoder and the model with one thread. Two such workers were quicker
on two cores than one worker with two threads (docs/lab-notes.md), since decoding has one thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from saccade.errors import ImageError
from saccade.images import given
from saccade.serve.problems import DeadlinePassed, HungUp, QueueFull
from saccade.threads import give_way

if TYPE_CHECKING:
    from starlette.requests import Request

    from saccade.serve.model import Model

Content = bytes | NDArray[Any]  # one encoded image, or pixels (height, width, channels)
T = TypeVar("T")


class Scored(NamedTuple):
    """What the model says of one image: `probabilities` (classes,), `unfamiliarity` NaN where not told."""

    probabilities: NDArray[np.float64]
    unfamiliarity: float


Answer = Scored | ImageError  # which says why there is none


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that one image waited, and was in work (decoding and model)."""

    queued: float
    computed: float


@dataclass(slots=True)
class _Task:
    """One image on its way. `content` is let go where nobody waits for the answer any more."""

    model: Model
    content: Content | None
    deadline: float
    submitted: float


class Engine:
    """Worker threads around the model that is served.

    model: the one to use; assign another to swap. workers: images in work at once. queue: images waiting or
    in work. observe: called in the event loop with the Timing of each image.
    """

    def __init__(
        self, model: Model, *, workers: int, queue: int, observe: Callable[[Timing], None] = lambda _: None
    ) -> None:
        self.model = model
        self.queue = queue
        self.pending = 0
        self.dropped = 0  # images that were not run, since nobody waited for them any more
        self._observe = observe
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="inference", initializer=give_way)

    @property
    def full(self) -> bool:
        return self.pending >= self.queue

    async def answer(
        self,
        images: Sequence[Content],
        *,
        deadline: float,
        model: Model | None = None,
        reserved: bool = False,
    ) -> list[Answer]:
        """What the model says of each image in order, or the ImageError that says why there is nothing.

        images: encoded bytes, or uint8 (height, width, 3). deadline: in the event loop's time. model: the one
        to use; None is the one served now. reserved: taken however full the queue is. Raises QueueFull at
        once, and DeadlinePassed at the deadline. An image that has not begun by then, or when this is
        cancelled, is not run.
        """
        if not reserved and self.pending and self.pending + len(images) > self.queue:
            raise QueueFull
        if asyncio.get_running_loop().time() >= deadline:
            raise DeadlinePassed
        chosen = model or self.model
        work = asyncio.gather(*(self._submit(image, chosen, deadline) for image in images))
        try:
            async with asyncio.timeout_at(deadline):
                return [self._observed(result) for result in await work]
        except TimeoutError:
            raise DeadlinePassed from None

    def close(self) -> None:
        """Let go of the workers; what they have begun, they finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, image: Content, model: Model, deadline: float) -> asyncio.Future[tuple[Answer, Timing]]:
        task = _Task(model, image, deadline, time.monotonic())
        future = asyncio.get_running_loop().run_in_executor(self._pool, _answered, task)
        self.pending += 1
        future.add_done_callback(lambda ended: self._ended(ended, task))
        return future

    def _ended(self, future: asyncio.Future[Any], task: _Task) -> None:
        self.pending -= 1
        if future.cancelled() and task.content is not None:
            self.dropped += 1
        task.content = None  # a cancelled task stays in the pool's queue until its turn; its bytes need not

    def _observed(self, result: tuple[Answer, Timing]) -> Answer:
        answer, timing = result
        self._observe(timing)
        return answer


def _answered(task: _Task) -> tuple[Answer, Timing]:
    """Decode and predict one image, in a worker thread."""
    began = time.monotonic()
    content, task.content = task.content, None
    if content is None or began >= task.deadline:  # the event loop was too busy to notice the deadline
        raise DeadlinePassed
    answer = predict_one(task.model, content)
    return answer, Timing(began - task.submitted, time.monotonic() - began)


def predict_one(model: Model, content: Content) -> Answer:
    """What the model says of one image, or the ImageError that says why there is nothing."""
    try:
        pixels = given.pixels(content, model.limits)
    except ImageError as error:
        return error
    found = model.artefact.scores([pixels])
    return Scored(found.probabilities[0], float(found.unfamiliarity[0]))


async def unless_hung_up(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled where the client closes the connection first (HungUp).

    To be called when the whole body has been read.
    """
    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(_end_of_connection(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise HungUp
        return answer.result()
    finally:
        gone.cancel()
        answer.cancel()


async def _end_of_connection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
