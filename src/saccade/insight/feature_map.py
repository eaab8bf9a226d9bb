"""A map of the images in two dimensions: what the features find alike lies together."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.neighbours import nearest
from saccade.insight.judged import Judged, judged_answers
from saccade.insight.material import Material

POINTS, OF_JUDGED, MISTAKES = 2000, 1000, 400  # at most so many; mistakes and right answers are of the judged
FEWEST = 12
COMPONENTS = 50  # principal ones, on which the map rests
PERPLEXITY = 30.0
BESIDE = 10  # nearest images that are compared

Floats = NDArray[np.float32]


def feature_map(material: Material) -> dict[str, Any] | None:
    """Where each image lies, each side from 0 to 1; None of few images, or of features that are all equal."""
    judged = judged_answers(material)
    rows = _chosen(material, judged)
    features = material.features[rows]
    if len(rows) < FEWEST or not np.ptp(features, axis=0).any():
        return None
    places = lay_out(features)
    answers = dict(zip(judged.rows, range(len(judged.rows)), strict=True)) if judged else {}
    return {
        "part": judged.part if judged else "",
        "features": "pretrained" if material.pretrained else "trained",
        "images": len(material.records),
        "neighbours_kept": round(neighbours_kept(features, places), 3),
        "neighbours": min(BESIDE, len(rows) - 1),
        "points": [
            _point(material, judged, int(row), answers.get(int(row)), place)
            for row, place in zip(rows, places, strict=True)
        ],
    }


def _chosen(material: Material, judged: Judged | None) -> NDArray[np.int64]:
    """Rows of the mistakes, of other judged images, then of training images, evenly chosen; in order."""
    mistakes = [judged.rows[i] for i in judged.wrong[:MISTAKES]] if judged else []
    answered = set(judged.rows) if judged else set()
    other = sorted(answered - {judged.rows[i] for i in judged.wrong} - {-1}) if judged else []
    of_judged = [*mistakes, *_evenly(other, OF_JUDGED - len(mistakes))]
    learnt = [int(row) for row in material.rows("train") if int(row) not in answered]
    return np.array(sorted([*of_judged, *_evenly(learnt, POINTS - len(of_judged))]), np.int64)


def _evenly(rows: list[int], most: int) -> list[int]:
    """At most so many of the rows, over all of their length."""
    if len(rows) <= most:
        return rows
    return [rows[int(place)] for place in np.linspace(0, len(rows) - 1, most)]


def lay_out(features: Floats) -> NDArray[np.float64]:
    """(images, F) to (images, 2), each side from 0 to 1: t-SNE of the first principal components.

    Of cosines, since features are scaled to length 1. Source: L. van der Maaten and G. Hinton, "Visualizing
    data using t-SNE", JMLR 9 (2008) 2579-2605.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    scaled = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    count = min(COMPONENTS, *scaled.shape)
    perplexity = min(PERPLEXITY, (len(scaled) - 1) / 3)
    with warnings.catch_warnings():  # components beyond those that vary are 0, which is no news
        warnings.simplefilter("ignore", RuntimeWarning)
        reduced = PCA(count, random_state=0).fit_transform(scaled)
        places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)
    low, high = places.min(axis=0), places.max(axis=0)
    return np.asarray((places - low) / np.where(high > low, high - low, 1), np.float64)


def neighbours_kept(features: Floats, places: NDArray[np.float64]) -> float:
    """Of the ten images nearest to each in the features, the share that is among its ten nearest on the map.

    In the features by cosine.
    """
    count = min(BESIDE, len(places) - 1)
    own = np.arange(len(places))
    near, _ = nearest(features, features, count, groups=(own, own))
    squares = (places**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * places @ places.T
    np.fill_diagonal(distance, np.inf)
    beside = np.argpartition(distance, count - 1, axis=1)[:, :count]
    return float(np.mean([len(set(a) & set(b)) / count for a, b in zip(near, beside, strict=True)]))


def _point(
    material: Material, judged: Judged | None, row: int, answer: int | None, place: NDArray[np.float64]
) -> dict[str, Any]:
    record = material.records[row]
    point: dict[str, Any] = {
        "path": record.path,
        "part": record.part,
        "label": record.label,
        "x": round(float(place[0]), 4),
        "y": round(float(place[1]), 4),
    }
    if judged is not None and answer is not None:
        point["predicted"] = judged.predicted[answer]
        point["confidence"] = round(judged.confidence[answer], 4)
    return point
