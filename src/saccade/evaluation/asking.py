"""Answer or ask: what a threshold on the confidence lets through, and which one gives a wanted precision.

Precision is here the share that is right of the images that are answered; all others go to a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from saccade.deciding import NEVER
from saccade.evaluation.answers import Answers
from saccade.evaluation.metric_intervals import share_interval
from saccade.terminal import counted

THRESHOLDS = (0.5, 0.7, 0.9, 0.95)
LEAST_OF_A_CLASS = 20  # of fewer answers with a class, it has no threshold of its own
LEAST_ANSWERED = 10  # as many must lie above a threshold of its own; fewer images tell nothing


@dataclass(frozen=True, slots=True)
class Recommended:
    """The threshold for a wanted `precision`, chosen on the `images` of a `part`; None: there is none.

    `sure`: the lower end of its 95 % interval there reaches what is wanted, too. `note` says that in words.
    `by_class` are higher thresholds, by name, of classes whose answers surely miss the precision under the
    common one.
    """

    precision: float
    threshold: float | None
    part: str
    images: int
    sure: bool
    note: str
    by_class: Mapping[str, float] = field(default_factory=dict)

    @property
    def least_confidence(self) -> float | None:
        """As `threshold`; NEVER where images enough to tell have shown that none reaches the precision."""
        unreached = self.threshold is None and self.images >= LEAST_ANSWERED
        return NEVER if unreached else self.threshold

    def least(self, data: Answers) -> Any:
        """(images,) the confidence from which on each image is answered."""
        common = self.least_confidence or 0.0
        return np.array([self.by_class.get(label, common) for label in data.classes])[data.predicted]

    def as_json(self) -> dict[str, Any]:
        """What travels with a model: there the threshold NEVER asks about all images, None about none."""
        return {
            "threshold": self.least_confidence,
            "by_class": dict(self.by_class),
            "precision": self.precision,
            "chosen_on": self.part,
            "images": self.images,
            "sure": self.sure,
        }


def recommend(data: Answers, precision: float, *, part: str) -> Recommended:
    """The lowest threshold that is sure to reach `precision`; where none is, the lowest that reaches it.

    data: of the part that chooses, which should not be the one that judges.

    >>> from saccade.evaluation.answers import answers
    >>> from saccade.testing.metrics import example_predictions
    >>> found = recommend(answers(example_predictions(400, 4, seed=0)), 0.5, part="validation")
    >>> found.sure
    True
    """
    order = np.argsort(-data.confidence, kind="stable")
    ranked, correct = data.confidence[order], data.correct[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    answered, right = ends + 1, np.cumsum(correct)[ends]
    worth = data.groups.worth(data.correct, np.arange(len(ranked)))
    low = _lower_ends(right / answered, answered * worth.images / len(ranked), worth.z)
    for reaches, sure in ((low >= precision, True), (right / answered >= precision, False)):
        if reaches.any():
            last = int(np.flatnonzero(reaches)[-1])
            note = _in_words(int(right[last]), int(answered[last]), float(low[last]), part, sure)
            found = Recommended(precision, _between(ranked, ends[last]), part, len(ranked), sure, note)
            return _with_classes(data, found)
    images_in_words = counted(len(ranked), f"{part} image")
    few = len(ranked) < LEAST_ANSWERED
    then = "which are too few to choose one" if few else "so it leaves all images to a person"
    note = f"no threshold reaches {_percent(precision)} on the {images_in_words}, {then}"
    return Recommended(precision, None, part, len(ranked), False, note)


def _with_classes(data: Answers, found: Recommended) -> Recommended:
    """With a threshold for each class that needs its own."""
    own = {
        label: threshold
        for number, label in enumerate(data.classes)
        if (threshold := _of_class(data, np.flatnonzero(data.predicted == number), found)) is not None
    }
    told = ", ".join(
        f"{label} from {threshold:.3g} on" if threshold < NEVER else f"{label} never"
        for label, threshold in own.items()
    )
    return replace(found, by_class=own, note=f"{found.note}; {told}") if own else found


def _of_class(data: Answers, rows: Any, found: Recommended) -> float | None:
    """The lowest threshold at which the answers with this class (`rows`) reach the precision.

    None where they do under the common one, or may do as far as these images tell. NEVER where none does.
    """
    rows = rows[data.confidence[rows] >= (found.threshold or 0.0)]
    rows = rows[np.argsort(-data.confidence[rows], kind="stable")]
    share = share_interval(data.correct, data.groups, rows) if len(rows) >= LEAST_OF_A_CLASS else None
    if share is None or share.high >= found.precision:
        return None
    ranked = data.confidence[rows]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    right = np.cumsum(data.correct[rows])[ends] / (ends + 1)
    reaching = ends[(right >= found.precision) & (ends + 1 >= LEAST_ANSWERED)]
    return _between(ranked, int(reaching[-1])) if len(reaching) else NEVER


def _lower_ends(shares: Any, images: Any, z: float) -> Any:
    """Of Wilson's intervals, for many shares at once."""
    spread = z**2 / images
    half = np.sqrt(spread * (shares * (1 - shares) + spread / 4))
    return (shares + spread / 2 - half) / (1 + spread)


def _between(ranked: Any, last: int) -> float:
    """A threshold halfway to the next image, so that no rounding turns the last one away; 0 answers all."""
    return float((ranked[last] + ranked[last + 1]) / 2) if last + 1 < len(ranked) else 0.0


def _in_words(right: int, answered: int, low: float, part: str, sure: bool) -> str:
    told = f"{right:,} of the {counted(answered, f'{part} image')} that it answers are right"
    told += f"; their 95 % interval begins at {_percent(low)}"
    return told if sure else f"{told}, so more of these images are needed to be sure"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def answer_or_ask(
    data: Answers, recommended: Recommended | None = None, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, Any]:
    """What metrics/*.json holds of it: a row for each threshold, and one for the recommended threshold.

    data: of the part that judges.

    >>> from saccade.evaluation.answers import answers
    >>> from saccade.testing.metrics import example_predictions
    >>> rows = answer_or_ask(answers(example_predictions(100, 4, seed=0)))["rows"]
    >>> [row["answered"] for row in rows]
    [89, 58, 26, 19]
    """
    return {
        "images": len(data.truth),
        "rows": [{"threshold": threshold, **_answered(data, threshold)} for threshold in thresholds],
        "recommended": recommended and _judged(data, recommended),
    }


def _judged(data: Answers, recommended: Recommended) -> dict[str, Any]:
    threshold = recommended.threshold
    return {
        "precision": recommended.precision,
        "chosen_on": recommended.part,
        "chosen_on_images": recommended.images,
        "reached": threshold is not None,
        "sure": recommended.sure,
        "note": recommended.note,
        "threshold": threshold,
        "by_class": dict(recommended.by_class),
        **_answered(data, recommended.least(data)),
    }


def _answered(data: Answers, threshold: Any) -> dict[str, Any]:
    """How many images have at least that confidence, and which share of them is right, with its interval."""
    rows = np.flatnonzero(data.confidence >= threshold)
    found = share_interval(data.correct, data.groups, rows)
    return {
        "answered": len(rows),
        "share_answered": len(rows) / len(data.truth),
        "right": int(data.correct[rows].sum()),
        "share_right": found and found.value,
        "low": found and found.low,
        "high": found and found.high,
    }
