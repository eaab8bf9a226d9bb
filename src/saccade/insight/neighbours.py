"""The training images nearest to each mistake: what it was taken for, and which labels to look at."""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.evaluation.neighbours import Floats, Indices, are_twins, nearest, what_they_say
from saccade.insight.judged import Judged, judged_answers
from saccade.insight.material import Material

MISTAKES = 40  # of which so many are looked at, the most confident first
NEAREST = 3
SAMPLE = 500  # images that say what a usual distance is


def neighbours(material: Material) -> dict[str, Any] | None:
    """Of each mistake the three nearest training images by cosine, with labels, and what they say."""
    judged, train = judged_answers(material), material.rows("train")
    if judged is None or not judged.wrong or len(train) <= NEAREST:
        return None
    wrong = judged.wrong[:MISTAKES]
    others = np.array([row for row in judged.rows if row >= 0], np.int64)
    _, usual = _nearest(material, others[:: -(-len(others) // SAMPLE)], train, 1)
    images = np.array([judged.rows[i] for i in wrong], np.int64)
    rows, similarity = _nearest(material, images, train, NEAREST)
    twins = are_twins(similarity[:, 0], usual[np.isfinite(usual)])
    twins |= material.groups[images] == material.groups[train[rows[:, 0]]]
    return {
        "part": judged.part,
        "features": "pretrained" if material.pretrained else "trained",
        "mistakes_in_all": len(judged.wrong),
        "mistakes": [
            _told(material, judged, i, train[rows[place]], similarity[place], bool(twins[place]))
            for place, i in enumerate(wrong)
        ],
    }


def _nearest(material: Material, images: Indices, train: Indices, count: int) -> tuple[Indices, Floats]:
    """As `evaluation.neighbours.nearest`; images of the training part meet none of their own group."""
    features, groups = material.features, material.groups
    learnt = np.isin(images, train)
    own = np.where(learnt, groups[images], -1)  # another image's twin in training is worth knowing
    return nearest(features[images], features[train], count, groups=(own, groups[train]))


def _told(
    material: Material, judged: Judged, i: int, rows: Indices, similarity: Floats, twin: bool
) -> dict[str, Any]:
    records = material.records
    found = [
        {"path": records[row].path, "label": records[row].label, "similarity": round(float(likeness), 4)}
        for row, likeness in zip(rows, similarity, strict=True)
        if np.isfinite(likeness)
    ]
    told, labels = judged.told(i), [one["label"] for one in found]
    said = what_they_say(told["label"], told["predicted"], labels, twin=twin) if found else ""
    return {**told, "nearest": found, "twin": twin, "said": said}
