"""Answer or ask: what a threshold on the confidence lets through, and which one gives a wanted precision.

Precision is here the share that is right of the images that are answered; all others go to a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.evaluation.answers import Answers
from saccade.evaluation.metric_intervals import share_interval
from saccade.terminal import counted

THRESHOLDS = (0.5, 0.7, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class Recommended:
    """The threshold for a wanted `precision`, chosen on the `images` of a `part`; None: there is none.

    `sure`: the lower end of its 95 % interval there reaches what is wanted, too. `note` says that in words.
    """

    precision: float
    threshold: float | None
    part: str
    images: int
    sure: bool
    note: str


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
            return Recommended(precision, _between(ranked, ends[last]), part, len(ranked), sure, note)
    images_in_words = counted(len(ranked), f"{part} image")
    note = f"no threshold reaches {_percent(precision)} on the {images_in_words}: ask about all of them"
    return Recommended(precision, None, part, len(ranked), False, note)


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
        **_answered(data, 2.0 if threshold is None else threshold),
    }


def _answered(data: Answers, threshold: float) -> dict[str, Any]:
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
