"""What is said of a run whose images may have several labels: what holds, and nothing that it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.evaluation.diagnosis import diagnose
from saccade.evaluation.metrics import measure
from saccade.evaluation.remedies import Evidence
from saccade.label_sets import join_labels
from saccade.recipe import Recipe
from saccade.records import EpochRow, Finding, Metrics, Predictions


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


TRUTH = np.arange(60)[:, None] % np.arange(2, 14) == 0  # 12 labels
GOOD = measured(TRUTH, np.where(TRUTH, 0.9, 0.1))
POOR = measured(TRUTH, np.random.default_rng(0).random(TRUTH.shape))


def history(rate: float, losses: list[float]) -> tuple[EpochRow, ...]:
    return tuple(EpochRow("main", i, rate, loss, 0.1, loss, 0.1, 10.0) for i, loss in enumerate(losses, 1))


def test_steps_that_are_too_short_or_too_long_are_named() -> None:
    still = history(1e-7, [0.69] * 4)
    found = findings(history=still, validation=POOR, train=POOR)
    assert "too_low_a_rate" in found
    assert "underfitting" not in found, "the rate explains it"
    assert "too_low_a_rate" not in findings(history=still, validation=GOOD, train=GOOD)
    far = findings(history=history(0.1, [3.0, 2.9, 2.8, 2.7]), validation=POOR)  # chance costs 0.69
    assert "drove the loss to 3, far above chance" in far["too_high_a_rate"].message


def test_images_far_smaller_than_the_backbone_was_made_for_are_named() -> None:
    tiny = {"data.image_size": 7}
    assert (
        "--image-size 224"
        in findings(tiny, validation=POOR, side=7, usual_side=224)["images_too_small"].remedy
    )
    assert "images_too_small" not in findings(tiny, validation=GOOD, side=7, usual_side=224)


def test_a_fine_head_has_no_curves_and_is_told_only_what_it_may_still_do() -> None:
    head = (EpochRow("head", 1, 0.0, 0.1, 1.0, 0.2, 0.9, 1.0),)
    repaired = findings({"split.repair": True}, history=head, test=GOOD, leaks=3)["fine"]
    assert "curves" not in repaired.message
    assert "--repair-split" not in repaired.remedy
    trained = findings(history=history(1e-3, [0.101, 0.1]), test=GOOD, leaks=3)["fine"]
    assert "the curves show no trouble" in trained.message
    assert "move them (--repair-split)" in trained.remedy


def test_groups_that_a_split_has_are_not_advised_again() -> None:
    told = findings({"split.group": "site"}, test=POOR, validation=GOOD)["optimistic_validation"]
    assert "one column for both" in told.remedy
