"""What the stages of a training hand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saccade.part_files import Cluster
from saccade.pipeline.prepare import ReadImages
from saccade.recipe import Recipe
from saccade.records import Dataset
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal

if TYPE_CHECKING:
    from saccade.features.compute import Engines
    from saccade.features.shared import SharedFeatures
    from saccade.models import BuiltModel
    from saccade.pipeline.crew import Crew
    from saccade.runtime import Runtime
    from saccade.training import Callback


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


@dataclass(slots=True)
class Work:
    """A run under way. A stage does nothing where its files are there already.

    `listed` are the images as they were found, `dataset` the same, audited and divided. `recipe` names one
    backbone and one batch size. `began` is `time.monotonic()` of the command. `ready` and `read` are what is
    at hand from the beginning of the run, None in one that continues. `finish`: no further epoch is begun.
    `callbacks` are those that the caller brought, `watching` these and those from outside. `features` are
    shared with other trainings on these images. `crew`: the processes that train together, None for one.
    `cluster` reads images and computes features, None for this machine.
    """

    run: RunFolder
    listed: Dataset
    dataset: Dataset
    recipe: Recipe
    terminal: Terminal
    began: float
    ready: Ready | None = None
    read: ReadImages | None = None
    finish: bool = False
    callbacks: tuple[Callback, ...] = ()
    watching: tuple[Callback, ...] = ()
    features: SharedFeatures | None = None
    crew: Crew | None = None
    cluster: Cluster | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # that each stage took
