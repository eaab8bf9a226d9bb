"""The page of `saccade compare`: the verdicts, what each run costs, and the images that changed sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saccade.evaluation.compare import Changed, Comparison
from saccade.images.decoder import DEFAULT_LIMITS, Limits
from saccade.images.thumbnails import ReadImage
from saccade.records import Interval
from saccade.report.gallery import Gallery
from saccade.report.render import render

PICTURES_SHOWN = 60  # of a pair; the rest are listed


@dataclass(frozen=True, slots=True)
class Row:
    """A run: its accuracy, and its costs in words."""

    name: str
    accuracy: Interval
    seconds: str
    megabytes: str
    milliseconds: str


@dataclass(frozen=True, slots=True)
class Pair:
    """The first run and another, the verdict in a sentence, and the images that one alone gets right."""

    first: str
    second: str
    comparison: Comparison
    sentence: str
    changed: Sequence[Changed]


def compare_html(
    *,
    part: str,
    images: int,
    notes: Sequence[str],
    rows: Sequence[Row],
    pairs: Sequence[Pair],
    read_image: ReadImage | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> str:
    """The whole page as text. `read_image` gives an image's bytes by its path in the first run."""
    with Gallery(read_image, limits) as picture:
        return render(
            "compare.html",
            part=part,
            images=images,
            notes=notes,
            rows=rows,
            pairs=[_pair(pair, picture) for pair in pairs],
        )


def _pair(pair: Pair, picture: Gallery) -> dict[str, Any]:
    shown = [
        {"image": image, "picture": picture(image.path) if picture.at_hand else None}
        for image in pair.changed[:PICTURES_SHOWN]
    ]
    gained = sum(image.gained for image in pair.changed)
    return {
        "names": (pair.first, pair.second),
        "sentence": pair.sentence,
        "comparison": pair.comparison,
        "only": (len(pair.changed) - gained, gained),
        "shown": shown,
        "more": pair.changed[PICTURES_SHOWN:],
    }
