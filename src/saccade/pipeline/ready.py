"""What was made ready while images were read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saccade.records import Dataset

if TYPE_CHECKING:
    from saccade.features.compute import Engines
    from saccade.models import BuiltModel
    from saccade.runtime import Runtime


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
