"""What is said of a run whose images may have several labels: what holds, and nothing that it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.evaluation.diagnosis import diagnose
from saccade.evaluation.metrics import measure
from saccade.evaluation.remedies import Evidence
from saccade.label_sets import join_labels
from saccade.recipe import Recipe
from saccade.records import Finding, Metrics, Predictions


def measured(truth: np.ndarray, scores: np.ndarray) -> Metrics:
    """Figures of labels called 0, 1, ... that are named from 0.5 on; truth and scores (images, labels)."""
    classes = tuple(str(number) for number in range(truth.shape[1]))
    held = tuple(join_labels(classes[column] for column in np.flatnonzero(row)) for row in truth)
    paths = tuple(f"{number:03d}.jpg" for number in range(len(truth)))
    return measure(Predictions(paths, held, classes, scores, named=scores >= 0.5))


def findings(recipe: dict[str, Any] | None = None, **evidence: Any) -> dict[str, Finding]:
    chosen = Recipe.from_mapping({"data.multi_label": True, **(recipe or {})})
    return {
        found.kind: found for found in diagnose(Evidence(**{"history": (), **evidence, "recipe": chosen}))
    }


def test_a_label_that_is_never_named_is_weighed_where_it_is_rare() -> None:
    truth = np.arange(40)[:, None] % np.array([2, 5]) == 0
    figures = measured(truth, np.where(truth, [0.9, 0.4], 0.1))

    def remedy(rare: int, **recipe: Any) -> str:
        return findings(recipe, test=figures, train_counts={"0": 400, "1": rare})["never_predicted"].remedy

    assert remedy(100) == "Set --train.class_weights auto, or add images with these labels."
    assert remedy(300) == "Add images with these labels."
    assert remedy(100, **{"train.class_weights": "auto"}) == "Add images with these labels."
    strict = remedy(100, **{"evaluate.precision": 0.9})
    assert strict.startswith("Lower --evaluate.precision, set --train.class_weights auto, or add")
