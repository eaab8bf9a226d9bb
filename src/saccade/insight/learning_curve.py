"""Would more data help? Heads fitted on parts of the training images, and their figures carried on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.evaluation.groups import Groups
from saccade.evaluation.intervals import wilson_of_share
from saccade.evaluation.learning_curve import DRAWS, HARDLY, Curve, carried_on, nested_draws
from saccade.features.heads import LabelledFeatures, choose_strength, fit_head, head_logits
from saccade.insight.material import Material
from saccade.models.network import make_head
from saccade.terminal import counted

FEWEST_IMAGES = 60  # of the training part
FEWEST_OF_CLASS = 10  # in training, and as many in validation
FEWEST_GROUPS = 2  # of a class
FEWEST_JUDGED = 20  # images of the validation part
ASK_AGAIN = 0.5  # of the images that there are: so many more, then the curve is measured again
SEED = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """Heads on parts of the training images: the last size is all of them, one head for all draws.

    `images` (sizes, classes) are means over the draws; `right` bool (draws, sizes, judged images).
    """

    images: NDArray[np.float64]
    right: NDArray[np.bool_]


def learning_curve(material: Material) -> dict[str, Any] | None:
    """Accuracy and recall of each class by the number of training images, on the validation images."""
    train, judged = material.rows("train"), material.rows("validation")
    told: dict[str, Any] = {
        "images": len(train),
        "judged": len(judged),
        "draws": DRAWS,
        "why_not": _why_not(material, train, judged),
    }
    if told["why_not"]:
        return told
    labels = material.labels[judged]
    measured = measure_sizes(
        material.features[train],
        material.labels[train],
        material.groups[train],
        material.features[judged],
        labels,
        classes=len(material.classes),
    )
    overall = carried_on(measured.images.sum(axis=1), measured.right, seed=SEED)
    now = measured.right[0, -1].astype(np.float64)
    worth = Groups.numbered(material.groups[judged]).worth(now, np.arange(len(now)))
    interval = wilson_of_share(float(now.mean()), worth.images, worth.z)
    return {
        **told,
        "interval": [interval.low, interval.high],
        "overall": {**_as_json(overall), "sentence": sentence(overall, "")},
        "classes": [_class(material, measured, train, labels, i) for i in range(len(material.classes))],
    }


def _why_not(material: Material, train: NDArray[np.int64], judged: NDArray[np.int64]) -> str:
    """Why no curve can be measured; "" where one can."""
    if not material.pretrained:
        return "the features are those of the trained network itself, which has seen all training images"
    if len(train) < FEWEST_IMAGES:
        return f"{counted(len(train), 'training image')}: a curve needs {FEWEST_IMAGES}"
    if len(judged) < FEWEST_JUDGED:
        return f"{counted(len(judged), 'validation image')}: a curve needs {FEWEST_JUDGED}"
    groups = len(np.unique(material.groups[train]))
    least = FEWEST_GROUPS * len(material.classes)
    if groups < least:
        units = (
            counted(len(train), "training image")
            if groups == len(train)
            else f"the training images are {counted(groups, 'group')} of images that belong together"
        )
        return f"{units}: a curve needs {FEWEST_GROUPS} a class, {least} in all"
    return ""


def measure_sizes(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    judged_features: NDArray[np.float32],
    judged_labels: NDArray[np.int64],
    *,
    classes: int,
    seed: int = SEED,
) -> Measured:
    """Fit heads on shares of the training images, several draws of each, and on all; judge each head.

    features: (images, F), labels and groups (images,) of the training part; judged_... of the judged images.
    The L2 strength is chosen once, on all training images.
    """
    data = LabelledFeatures(
        torch.from_numpy(np.ascontiguousarray(features))[None],
        torch.from_numpy(labels),
        tuple(map(str, groups)),
        classes,
    )
    strength = choose_strength(data, seed=seed).strength
    judged = torch.from_numpy(np.ascontiguousarray(judged_features))

    def right(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        head = make_head("linear", data.values.shape[-1], classes, dropout=0.0)
        fit_head(head, data.subset(rows), strength=strength, seed=seed)
        return np.asarray(head_logits(head, judged).argmax(dim=1).numpy() == judged_labels)

    everything = np.arange(len(labels))
    drawn = [[*parts, everything] for parts in nested_draws(labels, groups, seed=seed)]
    whole = right(everything)
    found = [[*(right(rows) for rows in parts[:-1]), whole] for parts in drawn]
    counts = [[np.bincount(labels[rows], minlength=classes) for rows in parts] for parts in drawn]
    return Measured(np.array(counts, np.float64).mean(axis=0), np.array(found))


def _class(
    material: Material,
    measured: Measured,
    train: NDArray[np.int64],
    labels: NDArray[np.int64],
    number: int,
) -> dict[str, Any]:
    """The recall of one class, and a sentence on it; no curve where there is too little of the class."""
    name, of_class = material.classes[number], train[material.labels[train] == number]
    judged, groups = int((labels == number).sum()), len(np.unique(material.groups[of_class]))
    told = {"label": name, "images": len(of_class), "judged": judged}
    if min(len(of_class), judged) < FEWEST_OF_CLASS or groups < FEWEST_GROUPS:
        few = (
            f"{counted(len(of_class), 'training image')} in {counted(groups, 'group')}, "
            f"{counted(judged, 'validation image')}: too few for a curve"
        )
        return {**told, "sentence": f"Nothing can be told of {name}: {few}."}
    if not measured.images[0, number]:  # whole groups are drawn, each with its most frequent class
        hidden = (
            "its training images are in groups with more of other classes, and the smallest part has none"
        )
        return {**told, "sentence": f"Nothing can be told of {name}: {hidden}."}
    curve = carried_on(measured.images[:, number], measured.right[:, :, labels == number], seed=SEED)
    return {**told, **_as_json(curve), "sentence": sentence(curve, name)}


def _as_json(curve: Curve) -> dict[str, Any]:
    """Plain values: the measured points, the forecast at each multiple, and which of them is told."""
    told, all_images = curve.told, float(curve.images[-1])
    points = zip(curve.images, curve.values, curve.lowest, curve.highest, strict=True)
    ahead = zip(curve.multiples, curve.gain, curve.low, curve.high, strict=True)
    forecasts = [
        {
            "images": round(multiple * all_images),
            "more": round((multiple - 1) * all_images),
            "value": min(curve.now + gain, 1.0),
            "low": curve.now + low,
            "high": min(curve.now + high, 1.0),
            "told": bool(gain > 0 and high - low <= gain),
        }
        for multiple, gain, low, high in ahead
    ]
    return {
        "now": curve.now,
        "points": [
            {"images": float(n), "value": float(v), "low": float(low), "high": float(high)}
            for n, v, low, high in points
        ],
        "forecasts": forecasts,
        "told": None if told is None else forecasts[told],
        "flat": curve.flat,
    }


def sentence(curve: Curve, label: str) -> str:
    """What more images bring, in words: to the recall of `label`, or where that is "" to the accuracy."""
    figure, of = ("recall", f" of {label}") if label else ("accuracy", "")
    all_images, told = float(curve.images[-1]), curve.told
    if told is not None:
        more = about((curve.multiples[told] - 1) * all_images)
        margin = (curve.high[told] - curve.low[told]) / 2
        return (
            f"About {more:,} more images{of} should bring {figure} from {curve.now:.2f} to "
            f"{curve.now + curve.gain[told]:.2f} ± {max(margin, 0.01):.2f}."
        )
    if curve.flat:
        return (
            f"More images{of} will hardly help: {curve.multiples[-1]:.0f} times as many would raise {figure} "
            f"from {curve.now:.2f} by less than {HARDLY}."
        )
    return (
        f"What more images{of} would bring cannot be told yet: label about {about(ASK_AGAIN * all_images):,} "
        "more, then ask again."
    )


def about(number: float) -> int:
    """The number as people round it: one digit below 100, two above.

    >>> about(37.5), about(1234)
    (40, 1200)
    """
    whole = max(1, round(number))
    digits = 1 if whole < 100 else 2
    return round(whole, digits - 1 - math.floor(math.log10(whole)))
