"""Which images a network's features place next to an image, and what their labels say of a mistake."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 256  # images compared with all others at once
TWIN = 0.4  # of the usual distance to the nearest image; nearer ones show nearly the same
SMALLEST = 1e-12

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


def nearest(
    queries: Floats,
    references: Floats,
    count: int,
    *,
    groups: tuple[Indices, Indices] | None = None,
) -> tuple[Indices, Floats]:
    """Rows of the references most similar to each query, the nearest first, and their cosine similarity.

    queries: (q, F); references: (r, F). Returns two arrays (q, min(count, r)). `groups` (q,) and (r,): a
    reference of the query's own group does not count; its similarity is minus infinity.

    >>> rows, similarity = nearest(np.eye(2, dtype=np.float32), np.float32([[0, 2], [3, 0], [1, 1]]), 2)
    >>> rows.tolist(), (100 * similarity).astype(int).tolist()
    ([[1, 2], [0, 2]], [[100, 70], [100, 70]])
    """
    count = min(count, len(references))
    rows = np.empty((len(queries), count), np.int64)
    similarity = np.empty((len(queries), count), np.float32)
    lengths = np.maximum(np.linalg.norm(references, axis=1), SMALLEST)
    for start in range(0, len(queries), BLOCK):
        block = slice(start, start + BLOCK)
        own = queries[block]
        found = own @ references.T / lengths
        found /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), SMALLEST)
        if groups is not None:
            found[groups[0][block, None] == groups[1]] = -np.inf
        first = np.argpartition(-found, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(found, first, axis=1), axis=1, kind="stable")
        rows[block] = np.take_along_axis(first, order, axis=1)
        similarity[block] = np.take_along_axis(found, rows[block], axis=1)
    return rows, similarity


def are_twins(similarity: Floats, usual: Floats) -> NDArray[np.bool_]:
    """Which similarities are of images that show nearly the same, where `usual` are those to the nearest.

    Nearly the same is 0.4 of the usual distance (1 - cosine) or less: measured on pairs of flower photos that
    near-duplicate search is certain of.

    >>> are_twins(np.float32([0.99, 0.9]), np.float32([0.8, 0.9, 0.7])).tolist()
    [True, False]
    """
    distance = float(np.median(1 - usual)) if len(usual) else 0.0
    return np.asarray(1 - similarity <= max(TWIN * distance, SMALLEST))


def what_they_say(label: str, predicted: str, nearest_labels: Sequence[str], *, twin: bool) -> str:
    """One sentence on a mistake, from the labels of the nearest training images, the nearest first.

    `twin`: the first of them shows nearly the same.

    >>> what_they_say("cat", "dog", ["dog", "dog", "dog"], twin=False)
    'All of them are dog: it looks like them. If its label is right, more images of cat like it would help.'
    """
    own, other = nearest_labels.count(label), nearest_labels.count(predicted)
    if twin and nearest_labels[0] == label:
        return "The first is nearly the same and has the same label: the model does not follow it."
    if twin:
        return f"The first is nearly the same, labelled {nearest_labels[0]}: look at both labels."
    if other == len(nearest_labels):
        return (
            f"All of them are {predicted}: it looks like them. If its label is right, more images of {label} "
            "like it would help."
        )
    if own == len(nearest_labels):
        return f"All of them are {label}: the features place it rightly, the answer does not follow them."
    if own == 0:
        return f"None of them is {label}: few training images are like it."
    if own + other == len(nearest_labels):
        return f"They are of both classes: {label} and {predicted} lie close together here."
    return "They are of several classes: it lies between them."
