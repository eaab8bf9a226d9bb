"""The analyses of a full report, each a name and a function from material to plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saccade.insight.feature_map import feature_map
from saccade.insight.label_errors import label_errors
from saccade.insight.learning_curve import learning_curve
from saccade.insight.material import Material
from saccade.insight.neighbours import neighbours
from saccade.insight.saliency import saliency
from saccade.insight.slices import slices


@dataclass(frozen=True, slots=True)
class Analysis:
    """`make(material)` gives the content of `insights/NAME.json`; None where the run gives no occasion.

    `title` is what it looks for, in the line of progress.
    """

    name: str
    title: str
    make: Callable[[Material], dict[str, Any] | None]


ANALYSES: tuple[Analysis, ...] = (
    Analysis("label_errors", "labels that look wrong", label_errors),
    Analysis("neighbours", "training images nearest to mistakes", neighbours),
    Analysis("saliency", "where the network looked", saliency),
    Analysis("map", "a map of the images", feature_map),
    Analysis("learning_curve", "what more images would bring", learning_curve),
    Analysis("slices", "slices that do worse", slices),
)
