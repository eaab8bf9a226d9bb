"""Every part of a run is measured by group, with the threshold that its validation images chose."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.errors import RecipeError
from saccade.pipeline.measuring import check_target, measuring
from saccade.recipe import Recipe
from saccade.records import ImageRecord
from saccade.run_folder import RunFolder
from saccade.testing.metrics import example_predictions


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """With predictions of 300 validation images, three of each patient, of which some are near-duplicates."""
    made = RunFolder(tmp_path / "run")
    predictions = example_predictions(300, 3, seed=0)
    records = [
        ImageRecord(path, label, part="validation", group=f"patient {i // 3}", sha256=f"{i:064x}")
        for i, (path, label) in enumerate(zip(predictions.paths, predictions.labels, strict=True))
    ]
    made.write_dataset(records)
    made.write_audit({"findings": [], "clusters": {"7": [record.path for record in records[:6]]}})
    made.write_predictions("validation", predictions)
    return made


def test_parts_are_measured_by_what_the_split_kept_together(run: RunFolder) -> None:
    found = measuring(run, Recipe()).figures(run.read_predictions("validation"))
    assert found.extra["groups"] == 99  # two patients are one cluster
    assert found.images == 300


def test_the_threshold_is_chosen_on_validation_images_for_the_precision_asked_for(run: RunFolder) -> None:
    test = example_predictions(100, 3, seed=1)
    told = measuring(run, Recipe()).figures(test).extra["answer_or_ask"]["recommended"]
    assert (told["precision"], told["chosen_on"], told["chosen_on_images"]) == (0.95, "validation", 300)
    asked = measuring(run, Recipe(), target=0.5).figures(test).extra["answer_or_ask"]["recommended"]
    assert asked["precision"] == 0.5
    assert asked["threshold"] < told["threshold"]
    none = Recipe.from_mapping({"evaluate.target_precision": 0})
    assert measuring(run, none).recommended is None


def test_a_run_without_validation_predictions_recommends_nothing(run: RunFolder) -> None:
    run.remove(run.predictions("validation"))
    assert measuring(run, Recipe()).recommended is None


def test_a_precision_that_is_no_share_is_refused() -> None:
    with pytest.raises(RecipeError, match="at least 0 and below 1, got 99"):
        check_target(99, Recipe())


def test_a_precision_of_answers_is_refused_where_each_label_has_a_threshold() -> None:
    several = Recipe.from_mapping({"data.multi_label": True})
    check_target(0, several)
    with pytest.raises(RecipeError, match=r"--evaluate\.precision"):
        check_target(0.9, several)


def test_label_sets_are_chosen_on_validation_images_and_judged_on_others(run: RunFolder) -> None:
    test = example_predictions(400, 3, seed=1)
    found = measuring(run, Recipe()).figures(test).extra["label_sets"]
    assert found.keys() == {"all", "by_class"}
    assert (found["all"]["coverage"], found["all"]["chosen_on"], found["all"]["images"]) == (
        0.95,
        "validation",
        400,
    )
    assert found["all"]["covered"] > 0.9
    assert (len(found["all"]["limits"]), len(found["by_class"]["limits"])) == (1, 3)
    none = Recipe.from_mapping({"evaluate.coverage": 0})
    assert measuring(run, none).figures(test).extra["label_sets"] == {}
