"""Where the network looked: Grad-CAM maps of the most confident mistakes and of some right answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.features.compute import Images
from saccade.images.decoder import Limits
from saccade.insight.grad_cam import Layer, Maps, find_layer, grad_cam, rank_correlations, shuffled
from saccade.insight.judged import Judged, judged_answers
from saccade.insight.material import Material
from saccade.insight.neighbours import MISTAKES
from saccade.models.network import Classifier
from saccade.preprocess import Preprocess

RIGHT = 8  # answers, each of another class
DRAWS = 2  # of random weights
FEWEST_COMPARED = 8  # maps
LIMIT = 0.3  # of the mean rank correlation with maps under random weights


def saliency(material: Material) -> dict[str, Any] | None:
    """Maps of the predicted class, from 0 to 1 each, and how like they are to those of random weights."""
    judged, bundle = judged_answers(material), material.bundle
    chosen = chosen_answers(judged) if judged else []
    if judged is None or not chosen:
        return None
    if judged.part == "folds":
        return {
            "left_out": "each answer is that of the model of one fold, and this model has learnt the image"
        }
    network = bundle.module.to("cpu")
    if not isinstance(network, Classifier):
        return {"left_out": "the model is several networks"}
    inputs = inputs_of(material, judged, chosen)
    classes = torch.from_numpy(judged.predictions.probabilities[chosen].argmax(axis=1))
    try:
        layer = find_layer(network, inputs[:1])
        if layer is None:
            return {"left_out": "no layer of this network is known to keep the places of an image"}
        maps = grad_cam(network, layer, inputs, classes)
    except RuntimeError as error:  # a network from outside may do anything
        return {"left_out": f"its gradient cannot be taken ({str(error).partition(chr(10))[0]})"}
    return {
        "part": judged.part,
        "layer": layer.name,
        "grid": list(layer.grid),
        "maps": [
            {**judged.told(i), "seen": _seen(material, judged, i), "rows": values.tolist()}
            for i, values in zip(chosen, scaled(maps), strict=True)
        ],
        "sanity": sanity(network, layer, inputs, classes, maps),
    }


def chosen_answers(judged: Judged) -> list[int]:
    """The most confident mistakes, then of some classes the surest right answer."""
    predictions, sure, predicted = judged.predictions, judged.confidence, judged.predicted
    right: dict[str, int] = {}
    for i in sorted(range(len(predictions)), key=lambda i: (-sure[i], predictions.paths[i])):
        if predictions.labels[i] == predicted[i] and judged.rows[i] >= 0:
            right.setdefault(predicted[i], i)
    of_classes = [right[label] for label in predictions.classes if label in right]
    return [*judged.wrong[:MISTAKES], *of_classes[:RIGHT]]


def inputs_of(material: Material, judged: Judged, chosen: list[int]) -> Tensor:
    """(images, C, S, S) as they are evaluated."""
    preprocess = material.bundle.preprocess
    records = tuple(material.records[judged.rows[i]] for i in chosen)
    limits = Limits.of(material.recipe.data, preprocess.pixels)
    images = Images(material.dataset.storage, records, preprocess, limits, exact=True)
    return images.inputs(range(len(images)))


def _seen(material: Material, judged: Judged, i: int) -> list[float]:
    record = material.records[judged.rows[i]]
    return seen_part(material.bundle.preprocess, record.height, record.width)


def seen_part(preprocess: Preprocess, height: int, width: int) -> list[float]:
    """Left, top, right, bottom of the network's input in shares of an image's sides.

    Beyond 0 and 1 where the image was padded.

    >>> seen_part(Preprocess(224, crop_fraction=1.0), 100, 200)
    [0.25, 0.0, 0.75, 1.0]
    >>> seen_part(Preprocess(224, resize="pad"), 100, 200)
    [0.0, -0.5, 1.0, 1.5]
    """
    plan, size = preprocess.geometry(height, width), preprocess.size
    inward = -1 if preprocess.resize == "pad" else 1
    left, top = inward * plan.left / plan.width, inward * plan.top / plan.height
    ends = (left, top, left + size / plan.width, top + size / plan.height)
    return [round(end, 4) + 0.0 for end in ends]  # no -0.0


def scaled(maps: Maps) -> NDArray[np.float64]:
    """Each map from 0 to 1; one that is 0 everywhere stays so."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.round(maps / np.where(highest > 0, highest, 1).astype(np.float64), 3)


def sanity(
    network: Classifier, layer: Layer, inputs: Tensor, classes: Tensor, maps: Maps
) -> dict[str, Any] | None:
    """Mean rank correlation of the maps with those of random weights; None where too few can be compared."""
    if len(maps) < FEWEST_COMPARED:
        return None
    found = [
        rank_correlations(maps, grad_cam(shuffled(network, seed), layer, inputs, classes))
        for seed in range(DRAWS)
    ]
    together = np.concatenate(found)
    if len(together) < FEWEST_COMPARED:
        return None
    mean = float(together.mean())
    return {"rank_correlation": round(mean, 3), "maps": len(together), "limit": LIMIT, "passed": mean < LIMIT}
