"""Where it fails: slices of the judged images that are more often wrong than the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.audit.scan import scan
from saccade.caches.store import cache_folder
from saccade.evaluation.calibration import calibration_error
from saccade.evaluation.groups import Groups
from saccade.evaluation.slices import (
    FALSE_RATE,
    FEWEST,
    Slice,
    WorseSlice,
    categories,
    clusters,
    tails,
    worse_slices,
    worth_trying,
)
from saccade.images.decoder import Limits
from saccade.insight.judged import Judged, judged_answers
from saccade.insight.material import Material
from saccade.records import Dataset, ImageRecord

EXAMPLES = 8  # pictures of a slice, the most confident wrong answers first


def slices(material: Material) -> dict[str, Any] | None:
    """Slices by size, shape, light, folder, camera and look; None where nothing was judged."""
    answers = judged_answers(material)
    if answers is None or min(answers.rows) < 0:
        return None
    predictions, rows = answers.predictions, np.array(answers.rows, np.int64)
    judged = material.dataset.with_records(material.records[row] for row in rows)
    tried = worth_trying(
        [
            *by_property(judged, Limits.of(material.recipe.data)),
            *by_folder(judged.records),
            *clusters(material.features[rows]),
        ]
    )
    wrong = np.zeros(len(predictions), np.bool_)
    wrong[list(answers.wrong)] = True
    found = worse_slices(wrong, tried, Groups.numbered(material.groups[rows])) if tried else []
    return {
        "part": answers.part,
        "images": len(predictions),
        "tried": len(tried),
        "fewest": FEWEST,
        "false_rate": FALSE_RATE,
        "slices": [_as_json(one, answers, wrong) for one in found],
    }


def by_property(judged: Dataset, limits: Limits) -> list[Slice]:
    """Slices by what the scan measures of every image; what an earlier scan has kept is not decoded again."""
    measured = scan(judged, limits=limits, cache=cache_folder()).measurements
    width = np.array([record.width for record in judged.records], np.float64)
    height = np.array([record.height for record in judged.records], np.float64)
    return [
        *tails("shorter side", np.minimum(width, height), "smallest", "largest", " px"),
        *tails("shape (width / height)", width / np.maximum(height, 1), "narrowest", "widest"),
        *tails("brightness", measured.column("brightness"), "darkest", "brightest"),
        *tails("contrast", measured.column("contrast"), "least", "most"),
        *categories("camera", measured.cameras),
    ]


def by_folder(records: Sequence[ImageRecord]) -> list[Slice]:
    """Slices by the folders on an image's way other than its label's: the first of them, and all.

    A folder that is the same as a label is none.
    """
    labels = np.array([record.label for record in records], dtype=object)
    of_labels = {(labels == label).tobytes() for label in set(labels)}
    ways = [
        [name for name in PurePosixPath(record.path).parts[:-1] if name != record.label] for record in records
    ]
    found = [
        *categories("folder", ["/".join(way) for way in ways]),
        *categories("folder", [way[0] if way else "" for way in ways]),
    ]
    return [one for one in found if one.rows.tobytes() not in of_labels]


def _as_json(one: WorseSlice, answers: Judged, wrong: NDArray[np.bool_]) -> dict[str, Any]:
    rows = np.flatnonzero(one.slice.rows).tolist()
    paths, labels, sure = answers.predictions.paths, answers.predictions.labels, answers.confidence
    (label, most), *_ = Counter(labels[row] for row in rows).most_common(1)
    shown = sorted(rows, key=lambda row: (not wrong[row], -sure[row], paths[row]))[:EXAMPLES]
    return {
        "kind": one.slice.kind,
        "words": one.slice.words,
        "images": len(rows),
        "wrong": int(wrong[rows].sum()),
        "accuracy": [one.accuracy.value, one.accuracy.low, one.accuracy.high],
        "rest": [one.rest.value, one.rest.low, one.rest.high],
        "confidence": float(np.mean([sure[row] for row in rows])),
        "ece": calibration_error(np.array([sure[row] for row in rows]), ~wrong[rows]),
        "p": one.p,
        "adjusted_p": one.adjusted,
        "mostly": {"label": label, "share": most / len(rows)},
        "paths": [paths[row] for row in rows],
        "examples": [{**answers.told(row), "right": bool(not wrong[row])} for row in shown],
    }
