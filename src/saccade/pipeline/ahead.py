"""What training needs besides images, made ready in a thread of its own while they are read and audited.

Importing torch, building the network and compiling the engine of its features take seconds that depend on
nothing the audit finds. What cannot be (a device, a backbone, weights) is refused as soon as it is known.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saccade.config import AUTO_BACKBONE, Recipe
from saccade.imports import import_training_libraries
from saccade.records import Dataset
from saccade.threads import without_garbage_collection

if TYPE_CHECKING:
    from saccade.models import BuiltModel
    from saccade.runtime import Runtime
    from saccade.training.features import Engines


@dataclass(frozen=True, slots=True)
class Ready:
    """`network` and `engines` are None where they depend on what the images are."""

    runtime: Runtime
    classes: tuple[str, ...]
    network: BuiltModel | None = None
    engines: Engines | None = None

    def network_for(self, dataset: Dataset) -> BuiltModel | None:
        """The network, unless the audit left other classes than were listed."""
        return self.network if dataset.classes == self.classes else None


class Ahead:
    """Begins at once; `check` raises what went wrong so far, `result` waits."""

    def __init__(self, listed: Dataset, recipe: Recipe) -> None:
        self._future: Future[Ready] = Future()
        self._given_up = threading.Event()
        threading.Thread(target=self._work, args=(listed, recipe), name="ahead").start()

    def check(self) -> None:
        """Raise the SaccadeError that the work ended with, if it has."""
        if self._future.done():
            self._future.result()

    def result(self) -> Ready:
        """What was made ready; raises SaccadeError when something cannot be."""
        return self._future.result()

    def give_up(self) -> None:
        """Nobody will ask any more: the work ends after its present step."""
        self._given_up.set()

    def _work(self, listed: Dataset, recipe: Recipe) -> None:
        try:
            self._future.set_result(self._made(listed, recipe))
        except BaseException as error:
            self._future.set_exception(error)

    def _made(self, listed: Dataset, recipe: Recipe) -> Ready:
        with without_garbage_collection():
            import_training_libraries()
            from saccade.pipeline import fitting
        from saccade.runtime import Runtime

        runtime = Runtime.create(recipe.device, recipe.precision)
        fitting.check_model(recipe)
        # what starts from scratch is built for the training images, which are not divided off yet
        can_wait = not recipe.starts_pretrained or recipe.model.backbone == AUTO_BACKBONE
        if can_wait or self._given_up.is_set():
            return Ready(runtime, listed.classes)
        network = fitting.build_network(listed, recipe)
        fitting.check_network(network, recipe)
        if recipe.train.method == "finetune" or self._given_up.is_set():
            return Ready(runtime, listed.classes, network)
        return Ready(runtime, listed.classes, network, fitting.engines_of(network, runtime))
