"""What training needs besides images, made ready in a thread of its own while they are read and audited.

Importing torch, building the network and compiling the engine of its features take seconds that depend on
nothing the audit finds. What cannot be (a device, a backbone, weights) is refused as soon as it is known.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from saccade.imports import import_training_libraries
from saccade.pipeline.work import Ready
from saccade.preprocess import RGB
from saccade.recipe import ALWAYS_FROM_SCRATCH, AUTO_BACKBONE, DEFAULT_BACKBONE, Recipe
from saccade.records import Dataset
from saccade.threads import without_garbage_collection

MAY_BE_REFUSED = (
    "device",
    "precision",
    "data.image_size",
    "train.unfreeze",
    "train.optimizer",
    "augment.extra",
    "augment.steps",
)
COME_WITH_SACCADE = (DEFAULT_BACKBONE, *ALWAYS_FROM_SCRATCH)


class Ahead:
    """Begins at once; `check` raises what went wrong so far, `result` waits."""

    def __init__(self, listed: Dataset, recipe: Recipe) -> None:
        self._future: Future[Ready] = Future()
        self._given_up = threading.Event()
        self._approved = threading.Event()  # or failed
        threading.Thread(target=self._work, args=(listed, recipe), name="ahead").start()

    def check(self) -> None:
        """Raise the SaccadeError that the work ended with, if it has."""
        if self._future.done():
            self._future.result()

    def approved(self) -> None:
        """Wait until device, network and weights are there; raise the SaccadeError if they cannot be."""
        self._approved.wait()
        self.check()

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
        finally:
            self._approved.set()

    def _made(self, listed: Dataset, recipe: Recipe) -> Ready:
        with without_garbage_collection():
            import_training_libraries()
            import saccade.pipeline.fit  # noqa: F401  # loaded here, beside the images
            from saccade import building
            from saccade.features.engines import engines_of
        from saccade.runtime import Runtime

        runtime = Runtime.create(recipe.device, recipe.precision)
        check_model(recipe)
        # what starts from scratch is built for the training images, which are not divided off yet; so is what
        # takes other channels, whose bits and statistics only the images tell
        must_wait = not recipe.starts_pretrained or recipe.data.channels != RGB.channels
        can_wait = must_wait or recipe.model.backbone == AUTO_BACKBONE
        if can_wait or self._given_up.is_set():
            return Ready(runtime, listed.classes)
        network = building.build_network(listed, recipe)
        building.check_network(network, recipe)
        self._approved.set()
        if recipe.train.method == "finetune" or self._given_up.is_set():
            return Ready(runtime, listed.classes, network)
        return Ready(runtime, listed.classes, network, engines_of(network, runtime))


def may_be_refused(recipe: Recipe) -> bool:
    """Whether a device, a network, weights or layers were named that may not be there.

    The defaults come with saccade, and are made ready beside the images.
    """
    if not recipe.starts_pretrained and "train.method" in recipe.given:
        return True  # some methods need pretrained weights
    harmless = {"model.backbone"} if recipe.model.backbone in COME_WITH_SACCADE else set()
    return any(field in MAY_BE_REFUSED or field.startswith("model.") for field in recipe.given - harmless)


def check_model(recipe: Recipe) -> None:
    """Raise ModelError or RecipeError for a network or phases that cannot be, before any image is read."""
    from saccade.building import check_buildable, refuse_muon_on_pretrained
    from saccade.methods import phases_of
    from saccade.selection.at_hand import weights_at_hand
    from saccade.transforms.outside import check_known

    check_known(recipe.augment.from_outside)
    if recipe.model.backbone == AUTO_BACKBONE:
        refuse_muon_on_pretrained(recipe)
        weights_at_hand(recipe.model.weights)
        return
    check_buildable(recipe)
    phases_of(recipe)
