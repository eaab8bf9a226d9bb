"""One server: its model, engine, limits and state; how it becomes ready, and takes a new model."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import SaccadeError
from saccade.serve.body import Bodies
from saccade.serve.engine import Engine
from saccade.serve.limits import ServeLimits
from saccade.serve.logs import Log
from saccade.serve.metrics import Metrics
from saccade.serve.model import Model, golden_files
from saccade.serve.problems import QueueFull, Refused
from saccade.serve.swap import Files, reopened

if TYPE_CHECKING:
    from starlette.requests import Request

BODIES_AT_ONCE = 16  # so many of the largest bodies may be in memory together
LOOK_SECONDS = 1.0  # between two looks at the model's file


class Server:
    """What is served and how. Endpoints find it as `request.app.state.server`.

    given: a `.onnx` or a run folder. name: what it is served under; "" is the folder's or file's. token: what
    clients must send, b"" for none. priors: class shares to answer for (`priors.Priors.read`). Raises
    ModelError and RecipeError.
    """

    def __init__(
        self,
        given: Path,
        limits: ServeLimits,
        *,
        name: str = "",
        token: bytes = b"",
        log: Log | None = None,
        priors: str = "",
    ) -> None:
        self.given = given
        self.limits = limits
        self.name = name
        self.token = token
        self.log = log or Log()
        self.metrics = Metrics()
        self.bodies = Bodies(BODIES_AT_ONCE * limits.max_body)
        self.ready = False
        self.draining = False
        files = Files.of(given)
        self.engine = Engine(
            Model.open(given, limits, name=name, priors=priors),
            workers=limits.workers,
            queue=limits.queue,
            observe=self.metrics.image,
        )
        self.served = files
        self._swapping = asyncio.Lock()
        self.metrics.watch(
            pending=lambda: self.engine.pending,
            dropped=lambda: self.engine.dropped,
            ready=lambda: float(self.ready),
        )

    @property
    def model(self) -> Model:
        """The model that is served now. A request reads it once, since it may be swapped."""
        return self.engine.model

    def deadline_of(self, request: Request) -> float:
        """When the request must be answered, in the event loop's time."""
        began: float = request.state.began
        return began + self.limits.timeout

    def check_room(self) -> None:
        """Raise Refused before a body is read for nothing: the queue is full, or warm-up is not done."""
        if not (self.ready or self.draining):
            raise Refused(503, "not_ready", "the model is not ready yet; try again", {"Retry-After": "1"})
        if self.engine.full:
            raise QueueFull

    async def warm_up(self) -> None:
        """Ask every worker for the golden image, as a client would; ready if all are right."""
        await self._prove(self.model)
        self.metrics.serving(self.model.name, self.model.version)
        self.ready = not self.draining
        self.log.say("ready", model=self.model.name, version=self.model.version, workers=self.limits.workers)

    async def swap(self) -> bool:
        """Take the model that the file holds now, if it is certified and answers; else keep the old one."""
        async with self._swapping:
            try:
                new = await asyncio.to_thread(reopened, self.given, self.model, self.limits, self.name)
                if new is not None:
                    await self._prove(new)
            except Exception as error:  # whatever is wrong with a new model, the old one goes on
                self._refuse_swap(error)
                return False
            return new is not None and self._take(new)

    def _take(self, new: Model) -> bool:
        before, self.engine.model = self.model.version, new
        self.metrics.serving(new.name, new.version)
        self.metrics.swaps.labels("done").inc()
        self.log.say("swapped", model=new.name, version=new.version, before=before)
        return True

    def _refuse_swap(self, error: Exception) -> None:
        problem = error.problem if isinstance(error, SaccadeError) else repr(error)
        self.metrics.swaps.labels("refused").inc()
        self.log.say("swap refused", level="error", problem=problem, serving=self.model.version)

    async def look(self) -> None:
        """Swap whenever the file or its certificate has changed and is no longer being written."""
        before = self.served
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = Files.of(self.given)
            if now != self.served and now == before:
                self.served = now
                await self.swap()
            before = now

    async def _prove(self, model: Model) -> None:
        """Every worker answers the golden image; raises ModelError where one is wrong."""
        deadline = time.monotonic() + 60
        files = golden_files(model.artefact.preprocess.pixels)
        work = (
            self.engine.answer(files, deadline=deadline, model=model, reserved=True)
            for _ in range(self.limits.workers)
        )
        for answers in await asyncio.gather(*work):
            model.check_golden(answers[0])
