"""What an analysis looks at: the used images of a run, with features of its backbone before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saccade.building import build_network
from saccade.errors import ModelError
from saccade.features.compute import Images, compute_features
from saccade.features.engines import feature_engines
from saccade.images.decoder import Limits
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.terminal import Terminal
from saccade.threads import usable_cores

if TYPE_CHECKING:
    from torch import nn

    from saccade.bundle import Bundle
    from saccade.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class Material:
    """The used images of all parts of a run; row i of everything is image i of `records`.

    `features` float32 (images, F) are of the exact evaluation path. They are those of the pretrained backbone
    as it was before training, where `pretrained`; else of the trained network's own. `labels` int64 (images,)
    index `classes`. `groups` (images,) are equal for images that belong
    together (declared groups, copies, near-duplicates), of which none may vouch for another. `bundle` is the
    trained network.
    """

    run: RunFolder
    dataset: Dataset
    recipe: Recipe
    records: tuple[ImageRecord, ...]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    bundle: Bundle
    pretrained: bool
    terminal: Terminal

    @property
    def classes(self) -> tuple[str, ...]:
        return self.bundle.classes

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(record.path for record in self.records)

    def rows(self, *parts: str) -> NDArray[np.int64]:
        """Rows of the images of these parts."""
        return np.array([i for i, record in enumerate(self.records) if record.part in parts], np.int64)


def material_of(
    run: RunFolder,
    dataset: Dataset,
    recipe: Recipe,
    bundle: Bundle,
    together: Callable[[RunFolder], dict[str, str]],
    terminal: Terminal,
) -> Material:
    """Compute the features of all used images; `recipe` names one backbone.

    `together` gives the name of its group by path. Raises DataError for an image that went bad.
    """
    records, named = dataset.used(), together(run)
    backbone, preprocess, pretrained = _backbone(dataset, recipe, bundle, terminal)
    runtime = Runtime.create(recipe.device, "float32")
    runtime.place(backbone)
    engines = feature_engines(backbone, runtime, preprocess.size, channels=preprocess.pixels.count)
    images = Images(
        dataset.storage, records, preprocess, Limits.of(recipe.data, preprocess.pixels), exact=True
    )
    with terminal.progress("features of all images") as progress:
        features = compute_features(images, engines.exact, threads=usable_cores(), progress=progress)
    index = {name: i for i, name in enumerate(bundle.classes)}
    labels = [index[record.label] for record in records]
    _, groups = np.unique([named[record.path] for record in records], return_inverse=True)
    return Material(
        run,
        dataset,
        recipe,
        records,
        features.numpy(),
        np.array(labels, np.int64),
        groups.astype(np.int64),
        bundle,
        pretrained,
        terminal,
    )


def _backbone(
    dataset: Dataset, recipe: Recipe, bundle: Bundle, terminal: Terminal
) -> tuple[nn.Module, Preprocess, bool]:
    """The backbone with its pretrained weights where they are at hand, and how images become its input."""
    if recipe.starts_pretrained:
        try:
            built = build_network(dataset, recipe)
            return built.module.backbone, built.preprocess, True
        except ModelError as error:
            terminal.say(f"          features are of the trained network: {error.problem}")
    return bundle.module.backbone, bundle.preprocess, False  # type: ignore[return-value]
